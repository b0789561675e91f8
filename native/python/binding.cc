// mobilenet._engine: the C interface as Python sees it. src/mobilenet/run/engine.py is what callers use.
//
// Arrays come as buffers (numpy's, or anything's), are never copied, and are checked against the model before a
// pointer is handed on.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <string>
#include <vector>

#include "mobilenet.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

constexpr size_t ERROR_SIZE = 1024;

// Raises mobilenet._engine.Failure(code, text).
[[noreturn]] void raise(int code, const std::string &text) {
  const nb::object failure = nb::module_::import_("mobilenet._engine").attr("Failure");
  const nb::object value = failure(code, text);
  PyErr_SetObject(failure.ptr(), value.ptr());
  throw nb::python_error();
}

void check(int code, const char *error) {
  if (code != MOBILENET_OK) raise(code, error);
}

// The memory of a Python object for as long as this lives; C order, one piece.
class View {
 public:
  View(const nb::handle &object, bool writable) {
    const int flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0);
    if (PyObject_GetBuffer(object.ptr(), &view_, flags) != 0) throw nb::python_error();
  }
  View(View &&other) noexcept : view_(other.view_) { other.view_.obj = nullptr; }
  View(const View &) = delete;
  View &operator=(const View &) = delete;
  ~View() {
    if (view_.obj) PyBuffer_Release(&view_);
  }
  void *data() const { return view_.buf; }
  size_t size() const { return size_t(view_.len); }
  bool is_constant() const { return view_.readonly; }
  int rank() const { return view_.ndim; }
  int64_t shape(int axis) const { return view_.shape[axis]; }
  size_t item_size() const { return size_t(view_.itemsize); }
  bool is(int32_t dtype) const {
    const char *format = view_.format ? view_.format : "B";
    switch (dtype) {
      case MOBILENET_FLOAT32: return std::strcmp(format, "f") == 0;
      case MOBILENET_INT8: return std::strcmp(format, "b") == 0;
      case MOBILENET_UINT8: return std::strcmp(format, "B") == 0;
      case MOBILENET_INT64: return view_.itemsize == 8 && (*format == 'l' || *format == 'q');
      default: return false;
    }
  }

 private:
  Py_buffer view_{};
};

const char *name_of(int32_t dtype) {
  constexpr const char *names[] = {"float32", "int8", "uint8", "int64"};
  return names[dtype];
}

// Whether the buffer is (batch, ...) of this tensor; raises if not, and tells the batch.
int64_t batch_of(const View &view, const mobilenet_tensor &tensor) {
  bool fits = view.is(tensor.dtype) && view.rank() == tensor.rank + 1;
  for (int axis = 0; fits && axis < tensor.rank; ++axis) fits = view.shape(axis + 1) == tensor.shape[axis];
  if (fits) return view.shape(0);
  std::string shape = "N";
  for (int axis = 0; axis < tensor.rank; ++axis) shape += ", " + std::to_string(tensor.shape[axis]);
  const std::string name = tensor.name, dtype = name_of(tensor.dtype);
  raise(MOBILENET_BAD_ARGUMENT, "'" + name + "' must be " + dtype + " (" + shape + "), contiguous");
}

class Engine {
 public:
  Engine(const nb::object &data, int precision, int threads, const std::optional<std::string> &isa,
         uint64_t memory_limit, uint64_t mac_limit) {
    View view(data, false);
    mobilenet_options options{};
    options.size = sizeof(options);
    options.precision = precision;
    options.threads = threads;
    options.isa = isa ? isa->c_str() : nullptr;
    options.memory_limit = memory_limit;
    options.mac_limit = mac_limit;
    options.borrow = view.is_constant();
    int code;
    {
      const nb::gil_scoped_release released;
      code = mobilenet_load(view.data(), view.size(), &options, &model_, error_, ERROR_SIZE);
    }
    check(code, error_);
    if (options.borrow) data_.emplace(std::move(view));
  }
  Engine(const Engine &) = delete;
  ~Engine() { mobilenet_free(model_); }

  nb::list tensors(int64_t height, int64_t width, bool inputs) {
    nb::list result;
    const int count = inputs ? mobilenet_input_count(model_) : mobilenet_output_count(model_);
    for (int i = 0; i < count; ++i) {
      const mobilenet_tensor tensor = describe(height, width, i, inputs);
      nb::list shape;
      for (int axis = 0; axis < tensor.rank; ++axis) shape.append(tensor.shape[axis]);
      result.append(nb::make_tuple(tensor.name, name_of(tensor.dtype), nb::tuple(shape), tensor.scale,
                                   tensor.zero_point));
    }
    return result;
  }

  void run(int64_t height, int64_t width, const nb::list &inputs, const nb::list &outputs) {
    std::vector<View> views;
    views.reserve(inputs.size() + outputs.size());
    int64_t batch = -1;
    const auto from = pointers(height, width, inputs, true, batch, views);
    const auto to = pointers(height, width, outputs, false, batch, views);
    char error[ERROR_SIZE];
    int code;
    {
      const nb::gil_scoped_release released;
      code = mobilenet_run(model_, height, width, batch, from.data(), to.data(), error, ERROR_SIZE);
    }
    check(code, error);
  }

  // rounds 0: without times.
  std::string plan(int64_t height, int64_t width, int rounds) {
    char *json, error[ERROR_SIZE];
    int code;
    {
      const nb::gil_scoped_release released;
      code = rounds ? mobilenet_profile(model_, height, width, rounds, &json, error, ERROR_SIZE)
                    : mobilenet_plan(model_, height, width, &json, error, ERROR_SIZE);
    }
    check(code, error);
    const std::string text = json;
    mobilenet_release(json);
    return text;
  }

 private:
  // Planning for a new size takes a while: other threads of Python go on meanwhile.
  mobilenet_tensor describe(int64_t height, int64_t width, int index, bool input) {
    mobilenet_tensor tensor;
    char error[ERROR_SIZE];
    int code;
    {
      const nb::gil_scoped_release released;
      const auto describe = input ? mobilenet_input : mobilenet_output;
      code = describe(model_, index, height, width, &tensor, error, ERROR_SIZE);
    }
    check(code, error);
    return tensor;
  }

  std::vector<void *> pointers(int64_t height, int64_t width, const nb::list &arrays, bool inputs, int64_t &batch,
                               std::vector<View> &views) {
    const size_t count = size_t(inputs ? mobilenet_input_count(model_) : mobilenet_output_count(model_));
    if (arrays.size() != count)
      raise(MOBILENET_BAD_ARGUMENT, std::to_string(arrays.size()) + (inputs ? " inputs" : " outputs") + " for " +
                                        std::to_string(count) + " of the model");
    std::vector<void *> result;
    for (size_t i = 0; i < count; ++i) {
      const View &view = views.emplace_back(arrays[i], !inputs);
      const int64_t found = batch_of(view, describe(height, width, int(i), inputs));
      if (batch >= 0 && found != batch) raise(MOBILENET_BAD_ARGUMENT, "the arrays differ in their batch");
      batch = found;
      result.push_back(view.data());
    }
    return result;
  }

  std::optional<View> data_;  // freed after the model that borrows it
  mobilenet_model *model_ = nullptr;
  char error_[ERROR_SIZE];
};

// One picture, uint8 (height, width, 3 or 4), to `output`, (rule height, rule width, channels), which decides the
// size. `table` is (channels, 256) of the output's dtype, or None for the levels themselves.
void preprocess(int resize, int interpolation, int channels, int fill, double crop_fraction,
                const nb::object &pixels, const nb::object &table, const nb::object &output,
                const std::optional<std::string> &isa) {
  const View from(pixels, false), to(output, true);
  const int count = channels == MOBILENET_L ? 1 : 3;
  if (!from.is(MOBILENET_UINT8) || from.rank() != 3 || (from.shape(2) != 3 && from.shape(2) != 4))
    raise(MOBILENET_BAD_ARGUMENT, "pixels must be uint8 (height, width, 3 or 4), contiguous");
  if (to.rank() != 3 || to.shape(2) != count || to.shape(0) > INT32_MAX || to.shape(1) > INT32_MAX)
    raise(MOBILENET_BAD_ARGUMENT, "output must be (height, width, " + std::to_string(count) + "), contiguous");
  std::optional<View> levels;
  if (!table.is_none()) levels.emplace(table, false);
  if (levels ? levels->rank() != 2 || levels->shape(0) != count || levels->shape(1) != 256 ||
                   levels->item_size() != to.item_size()
             : to.item_size() != 1)
    raise(MOBILENET_BAD_ARGUMENT, "table must be (" + std::to_string(count) + ", 256) of the output's dtype");
  mobilenet_preprocessing rule{};
  rule.size = sizeof(rule);
  rule.height = int32_t(to.shape(0));
  rule.width = int32_t(to.shape(1));
  rule.resize = resize;
  rule.interpolation = interpolation;
  rule.channels = channels;
  rule.fill = fill;
  rule.pixel_bytes = int32_t(from.shape(2));
  rule.crop_fraction = crop_fraction;
  rule.isa = isa ? isa->c_str() : nullptr;
  char error[ERROR_SIZE];
  int code;
  {
    const nb::gil_scoped_release released;
    code = mobilenet_preprocess(&rule, static_cast<const uint8_t *>(from.data()), from.shape(0), from.shape(1),
                                from.shape(1) * from.shape(2), levels ? levels->data() : nullptr,
                                int32_t(to.item_size()), to.data(), error, ERROR_SIZE);
  }
  check(code, error);
}

// float32 numbers to `output`, int8 or uint8 and as many.
void quantise(const nb::object &numbers, float scale, int zero_point, const nb::object &output,
              const std::optional<std::string> &isa) {
  const View from(numbers, false), to(output, true);
  const bool is_signed = to.is(MOBILENET_INT8);
  if (!from.is(MOBILENET_FLOAT32) || !(is_signed || to.is(MOBILENET_UINT8)) || from.size() != 4 * to.size())
    raise(MOBILENET_BAD_ARGUMENT, "numbers must be float32, output int8 or uint8 and as many, both contiguous");
  char error[ERROR_SIZE];
  int code;
  {
    const nb::gil_scoped_release released;
    code = mobilenet_quantise(isa ? isa->c_str() : nullptr, static_cast<const float *>(from.data()),
                              int64_t(to.size()), scale, zero_point, is_signed ? MOBILENET_INT8 : MOBILENET_UINT8,
                              to.data(), error, ERROR_SIZE);
  }
  check(code, error);
}

// Raw outputs (A, 4) and (A, columns), float32, with priors (A, 4), float64; `found` is detections x 24 bytes of
// mobilenet_box. Returns how many there are.
int detect(const nb::object &boxes, const nb::object &scores, const nb::object &priors, const nb::tuple &rule,
           const nb::object &found) {
  const View raw(boxes, false), rows(scores, false), places(priors, false), to(found, true);
  const bool fits = raw.is(MOBILENET_FLOAT32) && raw.rank() == 2 && raw.shape(1) == 4 &&
                    rows.is(MOBILENET_FLOAT32) && rows.rank() == 2 && rows.shape(0) == raw.shape(0) &&
                    places.rank() == 2 && places.item_size() == 8 && places.shape(0) == raw.shape(0) &&
                    places.shape(1) == 4;
  if (!fits) raise(MOBILENET_BAD_ARGUMENT, "boxes (A, 4), scores (A, columns) float32 and priors (A, 4) float64");
  mobilenet_decoding how{};
  how.size = sizeof(how);
  how.kind = nb::cast<int>(rule[0]);
  how.scores = nb::cast<int>(rule[1]);
  how.background = nb::cast<bool>(rule[2]);
  how.agnostic = nb::cast<bool>(rule[3]);
  how.candidates = nb::cast<int>(rule[4]);
  how.detections = nb::cast<int>(rule[5]);
  for (int i = 0; i < 4; ++i) how.variances[i] = nb::cast<double>(rule[6][i]);
  how.score_threshold = nb::cast<double>(rule[7]);
  how.iou_threshold = nb::cast<double>(rule[8]);
  how.height = nb::cast<int>(rule[9]);
  how.width = nb::cast<int>(rule[10]);
  if (how.detections < 1 || to.size() < size_t(how.detections) * sizeof(mobilenet_box))
    raise(MOBILENET_BAD_ARGUMENT, "found has no room for all detections");
  char error[ERROR_SIZE];
  int32_t kept = 0;
  int code;
  {
    const nb::gil_scoped_release released;
    code = mobilenet_detect(&how, static_cast<const float *>(raw.data()), static_cast<const float *>(rows.data()),
                            static_cast<const double *>(places.data()), raw.shape(0), rows.shape(1),
                            static_cast<mobilenet_box *>(to.data()), &kept, error, ERROR_SIZE);
  }
  check(code, error);
  return kept;
}

double peak(const std::string &precision) {
  char error[ERROR_SIZE];
  double operations = 0;
  int code;
  {
    const nb::gil_scoped_release released;
    const int kind = precision == "int8"   ? MOBILENET_INTEGER
                     : precision == "bf16" ? MOBILENET_BF16
                                           : MOBILENET_FP32;
    code = mobilenet_peak(nullptr, kind, &operations, error, ERROR_SIZE);
  }
  check(code, error);
  return operations;
}

}  // namespace

NB_MODULE(_engine, m) {
  m.doc() = "The native engine; mobilenet.run.engine is its interface.";
  m.attr("Failure") =
      nb::steal<nb::object>(PyErr_NewException("mobilenet._engine.Failure", PyExc_RuntimeError, nullptr));
  m.attr("BAD_FILE") = int(MOBILENET_BAD_FILE);
  m.attr("UNSUPPORTED") = int(MOBILENET_UNSUPPORTED);
  m.attr("BAD_ARGUMENT") = int(MOBILENET_BAD_ARGUMENT);
  m.attr("NO_MEMORY") = int(MOBILENET_NO_MEMORY);
  m.def("isas", &mobilenet_isas);
  m.def("peak", &peak, "precision"_a);
  m.def("quantise", &quantise, "numbers"_a, "scale"_a, "zero_point"_a, "output"_a, "isa"_a.none() = nb::none());
  m.def("detect", &detect, "boxes"_a, "scores"_a, "priors"_a, "rule"_a, "found"_a);
  m.def("preprocess", &preprocess, "resize"_a, "interpolation"_a, "channels"_a, "fill"_a, "crop_fraction"_a,
        "pixels"_a, "table"_a.none(), "output"_a, "isa"_a.none() = nb::none());

  nb::class_<Engine>(m, "Engine")
      .def(nb::init<const nb::object &, int, int, const std::optional<std::string> &, uint64_t, uint64_t>(),
           "data"_a, "precision"_a, "threads"_a, "isa"_a.none(), "memory_limit"_a, "mac_limit"_a)
      .def("inputs",
           [](Engine &engine, int64_t height, int64_t width) { return engine.tensors(height, width, true); })
      .def("outputs",
           [](Engine &engine, int64_t height, int64_t width) { return engine.tensors(height, width, false); })
      .def("run", &Engine::run)
      .def("plan", &Engine::plan);
}
