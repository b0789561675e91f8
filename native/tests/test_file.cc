// Right, wrong and hostile model files: a checked graph or a Failure that names the place, whatever the bytes.
#include <cmath>

#include "check.h"
#include "failing_malloc.h"
#include "file.h"
#include "mobilenet.h"
#include "model_bytes.h"

using namespace mobilenet;
using namespace mobilenet::test;

namespace {

constexpr Limits LIMITS{uint64_t(1) << 32, uint64_t(1) << 40};
constexpr int ACCEPTED = -1;

// The code of the failure, or ACCEPTED; `text` gets its message.
int outcome(const std::vector<uint8_t> &bytes, std::string *text = nullptr, const Limits &limits = LIMITS) {
  const std::vector<uint8_t> exact(bytes);  // of exactly this size, so that a sanitizer sees reads past its end
  try {
    read_model(exact.data(), exact.size(), limits);
  } catch (const Failure &failure) {
    if (text) *text = failure.text;
    return failure.code;
  }
  return ACCEPTED;
}

bool refused(const std::vector<uint8_t> &bytes, const char *because) {
  std::string text;
  if (outcome(bytes, &text) == MOBILENET_BAD_FILE && text.find(because) != text.npos) return true;
  std::fprintf(stderr, "expected '%s', got '%s'\n", because, text.c_str());
  return false;
}

bool graph_refused(const std::string &graph, const char *because) { return refused(model(graph), because); }

Graph read(const std::vector<uint8_t> &bytes) { return read_model(bytes.data(), bytes.size(), LIMITS); }

// image (4, 4, 2) -> conv 3x3 stride 2 SAME -> batch norm, relu -> mean -> dense; nodes in an odd order.
const std::string SMALL = graph_of(
    "[4,4,2]",
    node("top", R"("kind":"dense","out_features":2)", R"("pooled")") + "," +
        node("norm", R"("kind":"batch_norm","epsilon":3.0,"activation":"relu")", R"("stem")") + "," +
        node("stem",
             R"("kind":"conv","kernel":[1,3],"stride":[2,2],"padding":[0,0,0,1],"same":true,"out_channels":2)",
             R"("image")") + "," +
        node("pooled", R"("kind":"mean")", R"("norm")"),
    "top");

std::vector<Weight> small_weights() {
  return {floats("stem.weight", "[2,1,3,2]", {1, 2, 3, 4, 5, 6, -1, -2, -3, -4, -5, -6}),
          floats("norm.gamma", "[2]", {4, 6}), floats("norm.beta", "[2]", {1, 2}),
          floats("norm.mean", "[2]", {0.5, 1}), floats("norm.variance", "[2]", {1, 6}),
          floats("top.weight", "[2,2]", {1, 2, 3, 4}), floats("top.bias", "[2]", {5, 6})};
}

void reads_a_model() {
  const auto bytes = model(SMALL, small_weights());
  const Graph graph = read(bytes);
  CHECK(graph.nodes.size() == 4);
  const char *order[] = {"stem", "norm", "pooled", "top"};  // as Python sorts them
  for (size_t i = 0; i < 4; ++i) CHECK(graph.nodes[i].name == order[i] && graph.nodes[i].inputs[0] == int(i));
  CHECK(graph.outputs[0].name == "out" && graph.outputs[0].value == 4);
  CHECK((graph.nodes[0].type.shape == Shape{2, 2, 2}) && (graph.nodes[3].type.shape == Shape{2}));
  CHECK(macs_of(graph, graph.nodes[0]) == 2 * 2 * 2 * 3 * 2 && macs_of(graph, graph.nodes[3]) == 4);
  CHECK(macs_of(graph, graph.nodes[1]) == 0);
  CHECK(graph.nodes[0].parameter("weight").f32()[7] == -2);
}

void folds() {
  const auto bytes = model(SMALL, small_weights());
  Graph graph = read(bytes);
  std::vector<std::vector<float>> owned;
  fold(graph, owned);
  CHECK(graph.nodes.size() == 3 && graph.nodes[1].name == "pooled" && graph.nodes[1].inputs[0] == 1);
  const Node &stem = graph.nodes[0];
  CHECK(stem.op.bias && stem.op.activation == Activation::relu && graph.outputs[0].value == 3);
  // gamma / sqrt(variance + epsilon) = 4 / 2 and 6 / 3; beta - mean * that = 0 and 0.
  CHECK(stem.parameter("weight").f32()[1] == 4 && stem.parameter("weight").f32()[11] == -12);
  CHECK(stem.parameter("bias").f32()[0] == 0 && stem.parameter("bias").f32()[1] == 0);
}

void keeps_what_cannot_be_folded() {
  // The convolution is also an output, so its own values are needed.
  std::string graph = SMALL;
  graph.replace(graph.find(R"("out":"top")"), 11, R"("out":"top","raw":"stem")");
  const auto bytes = model(graph, small_weights());
  Graph read_graph = read(bytes);
  std::vector<std::vector<float>> owned;
  fold(read_graph, owned);
  CHECK(read_graph.nodes.size() == 4 && owned.empty() && read_graph.outputs[1].value == 1);
}

void resizes() {
  const auto bytes = model(SMALL, small_weights());
  Graph graph = read(bytes);
  resize_graph(graph, 7, 9);
  CHECK((graph.nodes[0].type.shape == Shape{4, 5, 2}) && graph.nodes[0].op.padding[2] == 1);
  const auto refuses = [&](int64_t height, int64_t width) {
    try {
      resize_graph(graph, height, width);
    } catch (const Failure &failure) {
      return failure.code == MOBILENET_BAD_ARGUMENT;
    }
    return false;
  };
  for (const int64_t size : {int64_t(0), int64_t(-1), int64_t(1) << 31, INT64_MAX, INT64_MIN}) {
    CHECK(refuses(size, 4));
    CHECK(refuses(4, size));
  }
}

void refuses_sizes_that_the_weights_do_not_fit() {
  const std::string flat = graph_of("[2,2,1]", node("flat", R"("kind":"reshape")", R"("image")") + "," +
                                    node("top", R"("kind":"dense","bias":false)", R"("flat")"), "top");
  const auto bytes = model(flat, {floats("top.weight", "[1,4]", {1, 2, 3, 4})});
  Graph graph = read(bytes);
  std::string text;
  try {
    resize_graph(graph, 3, 3);
  } catch (const Failure &failure) {
    text = failure.text;
  }
  CHECK(text.find("top.weight") != text.npos);
}

void reads_at_any_alignment() {
  const auto bytes = model(SMALL, small_weights());
  for (size_t shift = 0; shift < 4; ++shift) {
    std::vector<uint8_t> moved(shift);
    moved.insert(moved.end(), bytes.begin(), bytes.end());
    const Graph graph = read_model(moved.data() + shift, bytes.size(), LIMITS);
    CHECK(reinterpret_cast<uintptr_t>(graph.nodes[0].parameter("weight").data) % 4 == 0);
    CHECK(graph.nodes[0].parameter("weight").f32()[11] == -6);
  }
}

// ---- damage ----

void every_prefix_is_refused() {
  const auto bytes = model(SMALL, small_weights());
  for (size_t size = 0; size < bytes.size(); ++size)
    CHECK(outcome({bytes.begin(), bytes.begin() + long(size)}) == MOBILENET_BAD_FILE);
}

void bit_flips_are_refused_or_harmless() {
  auto bytes = model(SMALL, small_weights());
  size_t accepted = 0;
  for (size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    bytes[bit / 8] ^= uint8_t(1 << bit % 8);
    const int code = outcome(bytes);
    CHECK(code == ACCEPTED || code == MOBILENET_BAD_FILE || code == MOBILENET_NO_MEMORY);
    accepted += code == ACCEPTED;
    bytes[bit / 8] ^= uint8_t(1 << bit % 8);
  }
  CHECK(accepted > 0 && accepted < 4 * bytes.size());  // weights and names may change; most of the header may not
}

void lost_allocations_are_reported() {
  const auto bytes = model(SMALL, small_weights());
  long count = 0;
  for (bool done = false; !done; ++count) {
    allocations_left = count;
    try {
      Graph graph = read_model(bytes.data() + 0, bytes.size(), LIMITS);
      std::vector<std::vector<float>> owned;
      fold(graph, owned);
      resize_graph(graph, 8, 8);
      done = true;
    } catch (const std::bad_alloc &) {
    }
    allocations_left = -1;
  }
  CHECK(count > 50);
}

// ---- the container ----

std::vector<uint8_t> stored(const std::string &tensors, size_t size) {
  return container("{\"__metadata__\":{\"mobilenet\":\"{}\"}" + tensors + "}", std::vector<uint8_t>(size));
}

std::string tensor(const char *name, const char *dtype, const char *shape, const char *offsets) {
  return std::string(",\"") + name + R"(":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" +
         offsets + "}";
}

void refuses_bad_containers() {
  CHECK(refused(container("", {}), "does not begin with {"));
  CHECK(refused(container("[]", {}), "does not begin with {"));
  CHECK(refused(container("{}", {}), "no 'mobilenet' metadata"));
  CHECK(refused(container(R"({"__metadata__":{}})", {}), "no 'mobilenet' metadata"));
  CHECK(refused(container(R"({"__metadata__":{"mobilenet":1}})", {}), "must be text"));
  CHECK(refused(container(R"({"__metadata__":[]})", {}), "must be an object"));
  CHECK(refused(stored("", 1), "follow the last tensor"));
  for (uint8_t top : {0x7F, 0x80, 0xFF}) {
    auto bytes = stored("", 0);
    bytes[7] = top;
    CHECK(refused(bytes, "cut off"));
  }
}

void refuses_bad_tensors() {
  const auto bad = [](const std::string &text, size_t size, const char *because) {
    return refused(stored(text, size), because);
  };
  CHECK(bad(tensor("a", "F32", "[1]", "[0,4]") + tensor("b", "F32", "[1]", "[0,4]"), 4, "overlap"));
  CHECK(bad(tensor("a", "F32", "[2]", "[0,8]") + tensor("b", "F32", "[1]", "[4,8]"), 8, "overlap"));
  CHECK(bad(tensor("a", "F32", "[1]", "[0,4]") + tensor("b", "F32", "[1]", "[8,12]"), 12, "gap"));
  CHECK(bad(tensor("a", "F32", "[1]", "[0,4]"), 3, "holds 3 bytes"));
  CHECK(bad(tensor("a", "F32", "[1]", "[4,0]"), 4, "holds 4 bytes"));
  CHECK(bad(tensor("a", "F32", "[1]", "[0,5]"), 5, "does not take 5 bytes"));
  CHECK(bad(tensor("a", "F32", "[2]", "[0,4]"), 4, "does not take 4 bytes"));
  CHECK(bad(tensor("a", "F32", "[0]", "[0,4]"), 4, "does not take 4 bytes"));
  CHECK(bad(tensor("a", "F99", "[1]", "[0,4]"), 4, "unknown dtype 'F99'"));
  CHECK(bad(tensor("a", "F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, "at most 8 sizes"));
  CHECK(bad(tensor("a", "F32", "[1]", "[0]"), 4, "two numbers"));
  CHECK(bad(R"(,"a":{"dtype":"F32","shape":[1]})", 4, "lacks"));
  CHECK(bad(R"(,"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"more":1})", 4, "unknown field 'more'"));
  CHECK(bad(R"(,"a":[])", 0, "object"));
  for (const char *size : {"-1", "9223372036854775808", "1e3", "true", "null"}) {
    CHECK(bad(tensor("a", "F32", (std::string("[") + size + "]").c_str(), "[0,4]"), 4, "whole numbers"));
    CHECK(bad(tensor("a", "F32", "[1]", (std::string("[0,") + size + "]").c_str()), 4, "whole numbers"));
  }
  // Products that wrap to 4 bytes in 64 bits.
  for (const char *shape : {"[4294967296,4294967296]", "[2147483648,2147483648,4]", "[9223372036854775807,2]",
                            "[4611686018427387905]"})
    CHECK(bad(tensor("a", "F32", shape, "[0,4]"), 4, "does not take 4 bytes"));
  CHECK(bad(tensor("a", "F32", "[2147483648]", "[0,8589934592]"), 4, "holds 4 bytes"));
}

// ---- the description ----

void refuses_bad_descriptions() {
  const std::string dtype = "\"dtype\":\"float32\"";
  const std::string good = described(graph_of("[1]", "", "image"));
  CHECK(outcome(file_of(good, {})) == ACCEPTED);
  const auto changed = [&](const std::string &from, const std::string &to) {
    std::string text = good;
    return file_of(text.replace(text.find(from), from.size(), to), {});
  };
  CHECK(refused(file_of("[]", {}), "no JSON object"));
  CHECK(refused(file_of("{", {}), "its description: byte"));
  CHECK(refused(changed("\"version\":1", "\"version\":2"), "version 2"));
  CHECK(refused(changed("\"version\":1", "\"version\":true"), "'version'"));
  CHECK(refused(changed("\"version\":1,", ""), "'version'"));
  CHECK(refused(changed("\"labels\":[]", "\"labels\":{}"), "'labels'"));
  CHECK(refused(changed("\"labels\":[]", "\"labels\":[1]"), "no text"));
  CHECK(refused(changed("\"calibration\":{}", "\"calibration\":{\"t\":\"1\"}"), "calibration.t"));
  CHECK(refused(changed("\"metrics\":{}", "\"metrics\":{\"x\":NaN}"), "byte"));
  CHECK(refused(changed("\"licence\":\"\"", "\"licence\":\"\",\"more\":0"), "unknown field 'more'"));
  CHECK(refused(changed("\"outputs\"", "\"outpust\""), "unknown field 'outpust'"));
  CHECK(refused(changed("\"out\":\"image\"", "\"out\":\"imago\""), "'imago', which does not exist"));
  CHECK(refused(changed("\"out\":\"image\"", ""), "at least one"));
  CHECK(refused(changed(dtype, "\"dtype\":\"float16\""), "unknown dtype 'float16'"));
  CHECK(refused(changed(dtype, "\"dtype\":\"int8\""), "quantisation"));
  CHECK(refused(changed(dtype, "\"dtype\":\"float32\",\"scale\":1"), "quantisation"));
  CHECK(refused(changed(dtype, "\"dtype\":\"int8\",\"zero_point\":1"), "scale"));
  for (const char *scale : {"0", "-1", "1e-60", "1e60", "\"1\"", "null", "true"})
    CHECK(refused(changed(dtype, std::string("\"dtype\":\"int8\",\"scale\":") + scale), "scale"));
  for (const char *zero : {"-129", "256", "0.0", "true", "9223372036854775808"})
    CHECK(refused(changed(dtype, std::string("\"dtype\":\"int8\",\"scale\":1,\"zero_point\":") + zero),
                  "zero_point"));
  for (const char *shape : {"[0]", "[-1]", "[2147483649]", "[9223372036854775807]", "[65536,65536]",
                            "[9223372036854775807,9223372036854775807]", "[4294967296,4294967296]"})
    CHECK(refused(changed("[1]", shape), "sizes above 0"));
  for (const char *shape : {"[9223372036854775808]", "[1.0]", "[true]", "[\"1\"]"})
    CHECK(refused(changed("[1]", shape), "whole numbers"));
  CHECK(refused(changed("[1]", "[1,1,1,1,1,1,1,1,1]"), "8 axes"));
  CHECK(refused(changed("\"image\":{", "\"im\\u0000ge\":{"), "zero byte"));
}

std::string one(const std::string &fields, const std::string &shape = "[4,4,2]", const std::string &more = "") {
  return graph_of(shape, node("it", fields, R"("image")", more), "it");
}

void refuses_bad_operators() {
  CHECK(graph_refused(one(R"("kind":"cnv")"), "unknown operator 'cnv'"));
  CHECK(graph_refused(one(R"("kind":7)"), "unknown operator"));
  CHECK(graph_refused(one(R"("kind":"mean","stride":[1,1])"), "has no field 'stride'"));
  CHECK(graph_refused(one(R"("kind":"conv","activation":"relu7")"), "relu7"));
  CHECK(graph_refused(one(R"("kind":"conv","bias":1)"), "'bias' must be true or false"));
  CHECK(graph_refused(one(R"("kind":"conv","bias":true,"bias":false)"), "given twice"));
  for (const char *name : {"kernel", "stride", "dilation"})
    for (const char *value : {"[0,1]", "[1,0]", "[-1,1]", "[1]", "[1,1,1]", "1", "[1,2147483648]", "[1,1.5]",
                              "[9223372036854775808,1]", "null"})
      CHECK(graph_refused(one(std::string(R"("kind":"conv",")") + name + "\":" + value), name));
  for (const char *value : {"[-1,0,0,0]", "[0,0,0]", "[0,0,0,1048577]"})
    CHECK(graph_refused(one(std::string(R"("kind":"pad","padding":)") + value), "padding"));
  for (const char *value : {"0", "-1", "2147483648", "1048577", "9223372036854775808"}) {
    CHECK(graph_refused(one(std::string(R"("kind":"conv","out_channels":)") + value), "out_channels"));
    CHECK(graph_refused(one(std::string(R"("kind":"depthwise_conv","multiplier":)") + value), "multiplier"));
    CHECK(graph_refused(one(std::string(R"("kind":"dense","out_features":)") + value), "out_features"));
  }
  CHECK(graph_refused(one(R"("kind":"max_pool","dilation":[2,2])"), "pool"));
  CHECK(graph_refused(one(R"("kind":"average_pool","padding":[1,0,0,0])"), "pool"));
  CHECK(graph_refused(one(R"("kind":"batch_norm","epsilon":0)"), "epsilon"));
  CHECK(graph_refused(one(R"("kind":"batch_norm","momentum":1.5)"), "momentum"));
  CHECK(graph_refused(one(R"("kind":"dense","dropout":1)"), "dropout"));
  CHECK(graph_refused(one(R"("kind":"resize","size":[0,4])"), "size"));
  CHECK(graph_refused(one(R"("kind":"resize","size":[4,4],"method":"cubic")"), "method"));
  CHECK(graph_refused(one(R"("kind":"resize","size":[4,4],"align_corners":true)"), "exclude"));
  for (const char *shape : {"[0]", "[-2]", "[-1,-1]"})
    CHECK(graph_refused(one(std::string(R"("kind":"reshape","shape":)") + shape), "shape"));
}

void refuses_shapes_that_do_not_fit() {
  const std::string twice = R"("image","image")";
  CHECK(graph_refused(one(R"("kind":"conv","kernel":[5,1])"), "larger than"));
  CHECK(graph_refused(one(R"("kind":"conv","kernel":[1048576,1],"dilation":[1048576,1])"), "larger than"));
  CHECK(graph_refused(one(R"("kind":"conv","kernel":[3,3],"same":true)"), "not SAME"));
  CHECK(graph_refused(one(R"("kind":"conv")", "[4]"), "height, width"));
  CHECK(graph_refused(one(R"("kind":"dense")", "[]"), "axis"));
  CHECK(graph_refused(one(R"("kind":"softmax")", "[]"), "axis"));
  CHECK(graph_refused(one(R"("kind":"activation","activation":"prelu")", "[]"), "axis"));
  CHECK(graph_refused(one(R"("kind":"reshape","shape":[33])"), "does not fit"));
  CHECK(graph_refused(one(R"("kind":"reshape","shape":[-1,33])"), "does not fit"));
  CHECK(graph_refused(one(R"("kind":"reshape","shape":[-1,1048576,1048576,1048576,1048576])"), "does not fit"));
  CHECK(graph_refused(one(R"("kind":"transpose","axes":[0,1,1])"), "no order"));
  CHECK(graph_refused(one(R"("kind":"transpose","axes":[0,1,-1])"), "no order"));
  CHECK(graph_refused(one(R"("kind":"mul")"), "takes 2"));
  CHECK(graph_refused(one(R"("kind":"add")"), "takes 2"));
  CHECK(graph_refused(one(R"("kind":"argmax")"), "dtype float32"));
  CHECK(graph_refused(one(R"("kind":"dequantise")"), "dtype"));
  CHECK(graph_refused(one(R"("kind":"quantise")"), "dtype"));
  CHECK(graph_refused(graph_of("[4,4,2]", node("it", R"("kind":"mean")", twice), "it"), "inputs"));
  CHECK(graph_refused(graph_of("[3,2]", node("it", R"("kind":"matmul")", twice), "it"), "as matrices"));
  CHECK(graph_refused(one(R"("kind":"pad","padding":[1048576,0,1048576,0])"), "2^31"));
  CHECK(graph_refused(one(R"("kind":"resize","size":[1048576,1048576])"), "2^31"));
}

void refuses_bad_names_and_cycles() {
  const auto relu = [](const std::string &name, const std::string &input) {
    return node(name, R"("kind":"activation")", "\"" + input + "\"");
  };
  CHECK(graph_refused(graph_of("[1]", relu("a", "a"), "a"), "cycle"));
  const std::string ring = relu("a", "c") + "," + relu("b", "a") + "," + relu("c", "b");
  CHECK(graph_refused(graph_of("[1]", ring, "a"), "node 'a' is part of a cycle"));
  CHECK(graph_refused(graph_of("[1]", relu("a", "image") + "," + relu("a", "image"), "a"), "taken"));
  CHECK(graph_refused(graph_of("[1]", relu("image", "image"), "image"), "taken"));
  CHECK(graph_refused(graph_of("[1]", relu("", "image"), "image"), "empty"));
  CHECK(graph_refused(graph_of("[1]", relu("a", "b"), "a"), "reads 'b', which does not exist"));
  CHECK(graph_refused(graph_of("[1]", "7", "image"), "must be an object"));
  CHECK(graph_refused(graph_of("[1]", node("a", R"("kind":"activation")", "7"), "a"), "does not exist"));
}

// count nodes, each reading the one before it, written last one first.
std::string chain(int count) {
  std::string nodes;
  for (int i = count; i > 0; --i)
    nodes += (nodes.empty() ? "" : ",") + node("n" + std::to_string(i), R"("kind":"activation")",
                                               i > 1 ? "\"n" + std::to_string(i - 1) + "\"" : "\"image\"");
  return graph_of("[1]", nodes, "n" + std::to_string(count));
}

void reads_deep_chains() {
  const auto bytes = model(chain(10'000));
  const Graph graph = read(bytes);
  CHECK(graph.nodes.size() == 10'000 && graph.nodes[0].name == "n1" && graph.outputs[0].value == 10'000);
  CHECK(graph_refused(chain(10'001), "at most 10000"));
}

// ---- weights ----

void refuses_weights_that_do_not_fit() {
  const auto with = [](size_t index, Weight weight) {
    auto weights = small_weights();
    weights[index] = std::move(weight);
    return model(SMALL, weights);
  };
  CHECK(refused(with(0, floats("stem.wait", "[1]", {1})), "'stem.weight' of shape (2, 1, 3, 2) is missing"));
  CHECK(refused(with(6, floats("top.bias", "[1,2]", {5, 6})), "top.bias"));
  CHECK(refused(with(6, floats("top.bias", "[0]", {})), "top.bias"));
  CHECK(refused(with(6, {"top.bias", "I32", "[2]", std::vector<uint8_t>(8)}), "dtype int32"));
  CHECK(refused(with(6, {"top.bias", "F64", "[2]", std::vector<uint8_t>(16)}), "dtype F64"));
  auto more = small_weights();
  more.push_back(floats("top.extra", "[1]", {1}));
  CHECK(refused(model(SMALL, more), "'top.extra' belongs to no node"));
}

void checks_of_checks() {
  const auto with = [](const char *name, const char *dtype, const char *shape, size_t size) {
    auto weights = small_weights();
    weights.push_back({name, dtype, shape, std::vector<uint8_t>(size)});
    return model(SMALL, weights);
  };
  CHECK(outcome(with("checks/0/picture", "U8", "[2,2,3]", 12)) == ACCEPTED);
  CHECK(refused(with("checks/0/picture", "I8", "[2,2,3]", 12), "uint8 picture"));
  CHECK(refused(with("checks/0/picture", "U8", "[2,2,1]", 4), "uint8 picture"));
  CHECK(refused(with("checks/0/picture", "U8", "[0,2,3]", 0), "tiny"));
  CHECK(refused(with("checks/0/picture", "U8", "[257,1,3]", 771), "tiny"));
  CHECK(refused(with("checks/x/picture", "U8", "[2,2,3]", 12), "no number"));
  CHECK(refused(with("checks/1234/picture", "U8", "[2,2,3]", 12), "no number"));
  CHECK(refused(with("checks/0", "U8", "[1]", 1), "neither"));
  CHECK(refused(with("checks/0/outputs/out", "F32", "[1]", 4), "no picture"));
}

std::string integer_conv(const char *fields = "") {
  return R"({"inputs":{"image":{"shape":[1,1,2],"dtype":"uint8","scale":0.5,"zero_point":3}},"nodes":[)" +
         node("it", std::string(R"("kind":"conv","out_channels":2,"bias":true)") + fields, R"("image")",
              R"(,"dtype":"int8","scale":0.25)") +
         R"(],"outputs":{"out":"it"}})";
}

Weight zero_point(int32_t value) {
  Weight weight{"it.weight_zero_point", "I32", "[1]", std::vector<uint8_t>(4)};
  std::memcpy(weight.bytes.data(), &value, 4);
  return weight;
}

void reads_integer_layers() {
  const auto with = [](const Weight &scale, const Weight &zero) {
    return model(integer_conv(), {{"it.weight", "U8", "[2,1,1,2]", {1, 2, 3, 4}}, scale, zero,
                                  {"it.bias", "I32", "[2]", std::vector<uint8_t>(8)}});
  };
  const Weight each = floats("it.weight_scale", "[2]", {0.5, 0}), all = floats("it.weight_scale", "[1]", {0.5});
  const auto bytes = with(all, zero_point(255));
  const Graph graph = read(bytes);
  CHECK(graph.nodes[0].type.dtype == DType::int8 && graph.nodes[0].type.scale == 0.25f);
  CHECK(graph.inputs[0].type.dtype == DType::uint8 && graph.inputs[0].type.zero_point == 3);
  CHECK(outcome(with(each, zero_point(-128))) == ACCEPTED);
  CHECK(refused(with(each, zero_point(256)), "weight_zero_point"));
  CHECK(refused(with(each, zero_point(INT32_MIN)), "weight_zero_point"));
  CHECK(refused(with(floats("it.weight_scale", "[2]", {1, NAN}), zero_point(0)), "weight_scale"));
  CHECK(refused(with(floats("it.weight_scale", "[1]", {-1}), zero_point(0)), "weight_scale"));
  CHECK(refused(with(floats("it.weight_scale", "[3]", {1, 1, 1}), zero_point(0)), "weight_scale"));
  CHECK(graph_refused(integer_conv(R"(,"activation":"prelu")"), "no integer form"));
}

void keeps_to_its_limits() {
  const std::string conv = graph_of(
      "[64,64,64]", node("it", R"("kind":"conv","kernel":[3,3],"out_channels":64)", R"("image")"), "it");
  const auto bytes = model(conv, {floats("it.weight", "[64,3,3,64]", std::vector<float>(64 * 9 * 64))});
  const uint64_t macs = 62ull * 62 * 64 * 9 * 64, value = 64 * 64 * 64 * 4;
  CHECK(outcome(bytes, nullptr, {value, macs}) == ACCEPTED);
  CHECK(outcome(bytes, nullptr, {value, macs - 1}) == MOBILENET_BAD_FILE);
  CHECK(outcome(bytes, nullptr, {value - 1, macs}) == MOBILENET_NO_MEMORY);
  const auto dense = model(
      graph_of("[64]", node("it", R"("kind":"dense","out_features":64,"bias":false)", R"("image")"), "it"),
      {floats("it.weight", "[64,64]", std::vector<float>(64 * 64))});
  CHECK(outcome(dense, nullptr, {64 * 64 * 4, macs}) == ACCEPTED);
  CHECK(outcome(dense, nullptr, {64 * 64 * 4 - 1, macs}) == MOBILENET_NO_MEMORY);
  // 2^31 x 2^20 x 2^20 multiply-accumulates: the count saturates where 64 bits would wrap.
  const std::string huge = graph_of(
      "[2047,1023,1023]", node("it", R"("kind":"depthwise_conv","kernel":[1,1])", R"("image")") + "," +
      node("top", R"("kind":"depthwise_conv","kernel":[1048576,1048576],"padding":[1048576,0,1048576,0])",
           R"("it")"), "top");
  std::string text;
  CHECK(outcome(model(huge), &text, {uint64_t(1) << 40, uint64_t(1) << 50}) == MOBILENET_BAD_FILE);
  CHECK(text.find("node 'top'") != text.npos && text.find("multiply-accumulates") != text.npos);
}

}  // namespace

int main() {
  reads_a_model();
  folds();
  keeps_what_cannot_be_folded();
  resizes();
  refuses_sizes_that_the_weights_do_not_fit();
  reads_at_any_alignment();
  every_prefix_is_refused();
  bit_flips_are_refused_or_harmless();
  lost_allocations_are_reported();
  refuses_bad_containers();
  refuses_bad_tensors();
  refuses_bad_descriptions();
  refuses_bad_operators();
  refuses_shapes_that_do_not_fit();
  refuses_bad_names_and_cycles();
  reads_deep_chains();
  refuses_weights_that_do_not_fit();
  checks_of_checks();
  reads_integer_layers();
  keeps_to_its_limits();
  return failures();
}
