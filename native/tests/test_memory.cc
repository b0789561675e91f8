// test_memory [MODEL...]: every allocation of every call fails once, and then from some point on for good. The
// call says so, nothing leaks, and the model works afterwards. Without models, one of its own.
#include <string>

#include "check.h"
#include "engine_model.h"
#include "failing_malloc.h"
#include "model_bytes.h"

using namespace mobilenet::test;

namespace {

constexpr Size OTHER{19, 26};

// A convolution, a residual, attention's operators and a classifier.
Bytes small_model() {
  const std::string conv = R"("kind":"conv","out_channels":)";
  const std::string nodes =
      node("stem", conv + R"(4,"kernel":[3,3],"same":true,"padding":[1,1,1,1])", R"("image")") + "," +
      node("norm", R"("kind":"batch_norm")", R"("stem")") + "," +
      node("deep", R"("kind":"depthwise_conv","kernel":[3,3],"same":true,"padding":[1,1,1,1])", R"("norm")") +
      "," + node("point", conv + "4", R"("deep")") + "," + node("sum", R"("kind":"add")", R"("point","norm")") +
      "," + node("rows", R"("kind":"reshape","shape":[-1,4])", R"("sum")") + "," +
      node("shares", R"("kind":"softmax")", R"("rows")") + "," +
      node("pool", R"("kind":"max_pool","kernel":[2,2],"stride":[2,2])", R"("sum")") + "," +
      node("mean", R"("kind":"mean")", R"("pool")") + "," +
      node("logits", R"("kind":"dense","out_features":3,"bias":false)", R"("mean")");
  const auto some = [](const char *name, const char *shape, size_t count) {
    return floats(name, shape, std::vector<float>(count, 0.125f));
  };
  return model(graph_of("[12,10,3]", nodes, "logits"),
               {some("stem.weight", "[4,3,3,3]", 108), some("norm.gamma", "[4]", 4), some("norm.beta", "[4]", 4),
                some("norm.mean", "[4]", 4), some("norm.variance", "[4]", 4), some("deep.weight", "[3,3,4]", 36),
                some("point.weight", "[4,1,1,4]", 16), some("logits.weight", "[3,4]", 12)});
}

// Everything a call needs is there before allocations fail.
struct Prepared {
  mobilenet_model *model = nullptr;
  std::vector<const void *> from;
  std::vector<void *> to;
  Size size{};
  char error[200] = "";
};

using Call = int (*)(Prepared &);

int run(Prepared &p) {
  return mobilenet_run(p.model, p.size.height, p.size.width, 1, p.from.data(), p.to.data(), p.error,
                       sizeof p.error);
}

int describe(Prepared &p) {
  mobilenet_tensor tensor;
  const int code = mobilenet_input(p.model, 0, p.size.height, p.size.width, &tensor, p.error, sizeof p.error);
  return code ? code : mobilenet_output(p.model, 0, p.size.height, p.size.width, &tensor, p.error, sizeof p.error);
}

int plan(Prepared &p) {
  char *json = nullptr;
  const int code = mobilenet_plan(p.model, p.size.height, p.size.width, &json, p.error, sizeof p.error);
  CHECK((code == MOBILENET_OK) == (json != nullptr));
  mobilenet_release(json);
  return code;
}

int profile(Prepared &p) {
  char *json = nullptr;
  const int code = mobilenet_profile(p.model, p.size.height, p.size.width, 1, &json, p.error, sizeof p.error);
  CHECK((code == MOBILENET_OK) == (json != nullptr));
  mobilenet_release(json);
  return code;
}

// Calls `call` with the k-th allocation failing; returns whether there was a k-th.
template <class Action>
bool with_a_failure(long k, bool once, const char *error, Action call) {
  const long before = allocations_refused;
  fails_once = once;
  allocations_left = k;
  const int code = call();
  allocations_left = -1;
  const bool reached = allocations_refused != before;
  // What was refused may have been dispensable: threads, say, without which a run does the work alone.
  CHECK(code == MOBILENET_OK || (reached && code == MOBILENET_NO_MEMORY && error[0]));
  return reached;
}

void load_fails(const Bytes &bytes, const char *isa, int threads) {
  mobilenet_options options{};
  options.size = sizeof options;
  options.isa = isa;
  options.threads = threads;
  char error[200] = "";
  for (const bool once : {true, false})
    for (long k = 0;; ++k) {
      const long alive = allocations_alive;
      mobilenet_model *model = nullptr;
      int code = MOBILENET_OK;
      const bool reached = with_a_failure(k, once, error, [&] {
        return code = mobilenet_load(bytes.data(), bytes.size(), &options, &model, error, sizeof error);
      });
      CHECK((code == MOBILENET_OK) == (model != nullptr));
      mobilenet_free(model);
      CHECK(allocations_alive == alive);
      if (reached) continue;
      CHECK(k > 50);
      break;
    }
}

// Each time with a new model: a call keeps what it has made.
void call_fails(const Bytes &bytes, const char *isa, int threads, Size size, Call call, const Output &wanted) {
  for (const bool once : {true, false}) {
    bool reached = true;
    for (long k = 0; reached; ++k) {
      const long alive = allocations_alive;
      {
        EngineModel model(bytes, isa, threads);
        std::vector<char> picture(size_t(1) << 13), answer(picture.size());
        Prepared prepared;
        prepared.model = model.get();
        prepared.size = size;
        prepared.from.assign(size_t(mobilenet_input_count(model.get())), picture.data());
        prepared.to.assign(size_t(mobilenet_output_count(model.get())), answer.data());
        reached = with_a_failure(k, once, prepared.error, [&] { return call(prepared); });
        const auto afterwards = model.run(size, 1, 3);
        CHECK(!afterwards.empty() && afterwards[0] == wanted);
      }
      CHECK(allocations_alive == alive);
    }
  }
}

void model_survives(const Bytes &bytes) {
  mobilenet_isas();  // keeps its text
  for (const char *isa : {"generic", static_cast<const char *>(nullptr)})
    for (int threads : {1, 2}) {
      std::vector<Output> own, other;
      {
        EngineModel model(bytes, isa, threads);
        CHECK(model.code == MOBILENET_OK);
        if (model.code != MOBILENET_OK) return;
        own = model.run({0, 0}, 1, 3), other = model.run(OTHER, 1, 3);
      }
      CHECK(!own.empty() && !other.empty());
      if (own.empty() || other.empty()) return;
      load_fails(bytes, isa, threads);
      call_fails(bytes, isa, threads, {0, 0}, run, own[0]);
      for (Call call : {run, describe, plan, profile}) call_fails(bytes, isa, threads, OTHER, call, other[0]);
    }
}

void preprocessing_fails() {
  mobilenet_preprocessing rule{};
  rule.size = sizeof rule;
  rule.height = 20, rule.width = 24;
  rule.interpolation = MOBILENET_BICUBIC;
  rule.pixel_bytes = 3;
  rule.crop_fraction = 0.875;
  const std::vector<uint8_t> pixels(61 * 47 * 3, 77);
  std::vector<float> table(3 * 256, 0.5f), output(20 * 24 * 3);
  char error[200] = "";
  for (const int resize : {MOBILENET_CROP, MOBILENET_STRETCH, MOBILENET_PAD})
    for (const bool once : {true, false}) {
      rule.resize = resize;
      bool reached = true;
      for (long k = 0; reached; ++k) {
        const long alive = allocations_alive;
        reached = with_a_failure(k, once, error, [&] {
          return mobilenet_preprocess(&rule, pixels.data(), 61, 47, 47 * 3, table.data(), 4, output.data(), error,
                                      sizeof error);
        });
        CHECK(allocations_alive == alive);
      }
    }
}

void detecting_fails() {
  mobilenet_decoding rule{};
  rule.size = sizeof rule;
  rule.background = 1;
  rule.candidates = 20, rule.detections = 30;
  rule.score_threshold = 0.01, rule.iou_threshold = 0.5;
  rule.height = 90, rule.width = 120;
  constexpr int COUNT = 200, COLUMNS = 5;
  std::vector<float> boxes(COUNT * 4), scores(COUNT * COLUMNS);
  std::vector<double> priors(COUNT * 4, 0.25);
  for (size_t i = 0; i < scores.size(); ++i) scores[i] = float(int(i * 37 % 101)) / 20;
  for (size_t i = 0; i < boxes.size(); ++i) boxes[i] = float(int(i * 53 % 41) - 20) / 10;
  std::vector<mobilenet_box> found(size_t(rule.detections));
  int32_t kept = 0;
  char error[200] = "";
  bool reached = true;
  for (long k = 0; reached; ++k) {
    const long alive = allocations_alive;
    reached = with_a_failure(k, true, error, [&] {
      return mobilenet_detect(&rule, boxes.data(), scores.data(), priors.data(), COUNT, COLUMNS, found.data(),
                              &kept, error, sizeof error);
    });
    CHECK(allocations_alive == alive);
  }
  CHECK(kept > 0 && kept <= rule.detections);
}

}  // namespace

int main(int count, char **paths) {
  model_survives(small_model());
  for (int i = 1; i < count; ++i) model_survives(read_file(paths[i]));
  preprocessing_fails();
  detecting_fails();
  return failures();
}
