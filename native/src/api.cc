// The C interface over engine.h: arguments are checked here, and nothing is thrown past this file.
#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "../include/mobilenet.h"
#include "engine.h"
#include "guarded.h"
#include "threads.h"

struct mobilenet_model {
  mobilenet_model(const uint8_t *bytes, size_t size, const mobilenet::Options &options)
      : engine(bytes, size, options) {
    const auto graph = engine.graph(0, 0);
    for (const auto &input : graph->inputs) inputs.push_back(input.name);
    for (const auto &output : graph->outputs) outputs.push_back(output.name);
  }
  mobilenet::Engine engine;
  std::vector<std::string> inputs, outputs;  // names; the engine's own live as long as a plan
};

namespace {

using mobilenet::fail;
using mobilenet::guarded;

constexpr int MAX_THREADS = 256;
constexpr uint64_t MEMORY_LIMIT = uint64_t(4) << 30, MAC_LIMIT = uint64_t(1) << 40;

void need(const void *pointer, const char *name) {
  if (!pointer) fail(MOBILENET_BAD_ARGUMENT, "%s is NULL", name);
}

// What the caller knows of the options; a newer caller's further ones must be zero.
mobilenet_options known(const mobilenet_options *given) {
  mobilenet_options options{};
  if (!given) return options;
  const size_t size = given->size;
  const char *bytes = reinterpret_cast<const char *>(given);
  if (size < sizeof(options.size) || size > 4096)
    fail(MOBILENET_BAD_ARGUMENT, "options.size is %zu; set it to sizeof(mobilenet_options)", size);
  for (size_t i = sizeof(options); i < size; ++i)
    if (bytes[i]) fail(MOBILENET_BAD_ARGUMENT, "byte %zu of the options is of a newer mobilenet.h", i);
  std::memcpy(&options, given, std::min(size, sizeof(options)));
  return options;
}

mobilenet::Options checked(const mobilenet_options *given) {
  const mobilenet_options options = known(given);
  if (options.precision != MOBILENET_FP32 && options.precision != MOBILENET_BF16)
    fail(MOBILENET_BAD_ARGUMENT, "precision %d is neither MOBILENET_FP32 nor MOBILENET_BF16", options.precision);
  if (options.threads < 0 || options.threads > MAX_THREADS)
    fail(MOBILENET_BAD_ARGUMENT, "%d threads: 1 to %d are accepted, or 0 for all processors", options.threads,
         MAX_THREADS);
  mobilenet::Options result;
  result.bf16 = options.precision == MOBILENET_BF16;
  result.threads = options.threads ? options.threads : std::min(mobilenet::available_processors(), MAX_THREADS);
  result.isa = options.isa ? options.isa : "";
  result.borrow = options.borrow != 0;
  result.limits.memory = options.memory_limit ? options.memory_limit : MEMORY_LIMIT;
  result.limits.macs = options.mac_limit ? options.mac_limit : MAC_LIMIT;
  return result;
}

void check_size(int64_t height, int64_t width) {
  constexpr int64_t most = 1 << 20;
  const bool own = height == 0 && width == 0;
  if (!own && (height < 1 || width < 1 || height > most || width > most))
    fail(MOBILENET_BAD_ARGUMENT, "pictures of %lld x %lld: sides are 1 to %lld, or both 0 for the model's own",
         static_cast<long long>(height), static_cast<long long>(width), static_cast<long long>(most));
}

int32_t code_of(mobilenet::DType dtype) {
  switch (dtype) {
    case mobilenet::DType::float32: return MOBILENET_FLOAT32;
    case mobilenet::DType::int8: return MOBILENET_INT8;
    case mobilenet::DType::uint8: return MOBILENET_UINT8;
    case mobilenet::DType::int64: return MOBILENET_INT64;
    case mobilenet::DType::int32: break;
  }
  fail(MOBILENET_UNSUPPORTED, "int32 is no dtype of inputs and outputs");
}

void describe(const char *name, const mobilenet::TensorType &type, mobilenet_tensor *tensor) {
  if (type.shape.size() > std::size(tensor->shape))
    fail(MOBILENET_UNSUPPORTED, "'%s' has %zu dimensions; the C interface has %zu", name, type.shape.size(),
         std::size(tensor->shape));
  *tensor = {};
  tensor->name = name;
  tensor->dtype = code_of(type.dtype);
  tensor->rank = int32_t(type.shape.size());
  std::copy(type.shape.begin(), type.shape.end(), tensor->shape);
  tensor->scale = type.scale;
  tensor->zero_point = type.zero_point;
}

const char *name_at(const std::vector<std::string> &names, int index, const char *what) {
  if (index < 0 || size_t(index) >= names.size())
    fail(MOBILENET_BAD_ARGUMENT, "there is no %s %d; the model has %zu", what, index, names.size());
  return names[size_t(index)].c_str();
}

void check_pointers(const void *const *pointers, size_t count, const char *what) {
  need(pointers, what);
  for (size_t i = 0; i < count; ++i)
    if (!pointers[i]) fail(MOBILENET_BAD_ARGUMENT, "%s[%zu] is NULL", what, i);
}

}  // namespace

int mobilenet_load(const void *bytes, size_t size, const mobilenet_options *options, mobilenet_model **model,
                   char *error, size_t error_size) {
  if (model) *model = nullptr;
  return guarded(error, error_size, [&] {
    need(bytes, "bytes");
    need(model, "model");
    *model = new mobilenet_model(static_cast<const uint8_t *>(bytes), size, checked(options));
  });
}

void mobilenet_free(mobilenet_model *model) { delete model; }

int mobilenet_input_count(const mobilenet_model *model) {
  return model ? int(model->inputs.size()) : 0;
}

int mobilenet_output_count(const mobilenet_model *model) {
  return model ? int(model->outputs.size()) : 0;
}

int mobilenet_input(mobilenet_model *model, int index, int64_t height, int64_t width, mobilenet_tensor *tensor,
                    char *error, size_t error_size) {
  return guarded(error, error_size, [&] {
    need(model, "model");
    need(tensor, "tensor");
    check_size(height, width);
    const char *name = name_at(model->inputs, index, "input");
    describe(name, model->engine.graph(height, width)->inputs[size_t(index)].type, tensor);
  });
}

int mobilenet_output(mobilenet_model *model, int index, int64_t height, int64_t width, mobilenet_tensor *tensor,
                     char *error, size_t error_size) {
  return guarded(error, error_size, [&] {
    need(model, "model");
    need(tensor, "tensor");
    check_size(height, width);
    const char *name = name_at(model->outputs, index, "output");
    const auto kept = model->engine.graph(height, width);
    const mobilenet::Graph &graph = *kept;
    describe(name, graph.type(graph.outputs[size_t(index)].value), tensor);
  });
}

int mobilenet_run(mobilenet_model *model, int64_t height, int64_t width, int64_t batch, const void *const *inputs,
                  void *const *outputs, char *error, size_t error_size) {
  return guarded(error, error_size, [&] {
    need(model, "model");
    check_size(height, width);
    if (batch < 0) fail(MOBILENET_BAD_ARGUMENT, "a batch of %lld pictures", static_cast<long long>(batch));
    if (batch == 0) return;
    check_pointers(inputs, model->inputs.size(), "inputs");
    check_pointers(outputs, model->outputs.size(), "outputs");
    model->engine.run(height, width, batch, inputs, outputs);
  });
}

static char *copied(const std::string &text) {
  char *copy = new char[text.size() + 1];
  return static_cast<char *>(std::memcpy(copy, text.c_str(), text.size() + 1));
}

int mobilenet_plan(mobilenet_model *model, int64_t height, int64_t width, char **json, char *error,
                   size_t error_size) {
  if (json) *json = nullptr;
  return guarded(error, error_size, [&] {
    need(model, "model");
    need(json, "json");
    check_size(height, width);
    *json = copied(model->engine.plan_json(height, width));
  });
}

int mobilenet_profile(mobilenet_model *model, int64_t height, int64_t width, int32_t rounds, char **json,
                      char *error, size_t error_size) {
  if (json) *json = nullptr;
  return guarded(error, error_size, [&] {
    need(model, "model");
    need(json, "json");
    check_size(height, width);
    if (rounds < 1) fail(MOBILENET_BAD_ARGUMENT, "rounds is %d; at least 1 is needed", rounds);
    *json = copied(model->engine.profile_json(height, width, rounds));
  });
}

int mobilenet_peak(const char *isa, int32_t precision, double *operations, char *error, size_t error_size) {
  return guarded(error, error_size, [&] {
    need(operations, "operations");
    if (precision < MOBILENET_FP32 || precision > MOBILENET_INTEGER)
      fail(MOBILENET_BAD_ARGUMENT, "precision %d is none of MOBILENET_FP32, MOBILENET_BF16, MOBILENET_INTEGER",
           precision);
    *operations = mobilenet::peak_operations(isa ? isa : "", precision);
  });
}

void mobilenet_release(char *text) { delete[] text; }

const char *mobilenet_isas(void) { return mobilenet::isas(); }
