#include "file.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "container.h"
#include "graph_reader.h"
#include "json.h"
#include "messages.h"
#include "mobilenet.h"
#include "operators.h"

namespace mobilenet {
namespace {

constexpr int BAD = MOBILENET_BAD_FILE;
constexpr std::string_view CHECKS = "checks/";
constexpr int64_t MAX_CHECK_SIDE = 256;

[[noreturn]] void refuse(const std::string &text) { fail(BAD, "%s", text.c_str()); }

struct FieldType {
  std::string_view name;
  json::Type type;
};

constexpr FieldType FIELDS[] = {
    {"version", json::Type::integer},     {"task", json::Type::string},        {"graph", json::Type::object},
    {"preprocessing", json::Type::object}, {"labels", json::Type::array},      {"calibration", json::Type::object},
    {"metrics", json::Type::object},      {"licence", json::Type::string},     {"provenance", json::Type::object}};
constexpr std::string_view DECODING = "decoding";

void check_header(json::Value header) {
  if (!header.is(json::Type::object)) refuse("its description is no JSON object");
  const auto version = header.find("version");
  if (!version || !version->is(json::Type::integer)) refuse("field 'version' is missing or no integer");
  if (version->integer() != 1)
    refuse("has format version " + std::to_string(version->integer()) +
           "; this release reads 1: upgrade mobilenet");
  for (const FieldType &field : FIELDS) {
    const auto value = header.find(field.name);
    if (!value || !value->is(field.type))
      refuse("field '" + std::string(field.name) + "' is missing or no " + json::name_of(field.type));
  }
  for (const json::Value value : header) {
    if (value.key() == DECODING && value.is(json::Type::object)) continue;  // of detectors
    if (std::none_of(std::begin(FIELDS), std::end(FIELDS), [&](auto &field) { return field.name == value.key(); }))
      refuse("unknown field '" + shown(value.key()) + "'");
  }
  for (const json::Value label : header.at("labels"))
    if (!label.is(json::Type::string)) refuse("field 'labels' holds something that is no text");
  for (const json::Value number : header.at("calibration"))
    if (!number.is_number()) refuse("field 'calibration." + shown(number.key()) + "' is no number");
}

bool is_check(std::string_view name) { return name.substr(0, CHECKS.size()) == CHECKS; }

// "checks/<number>/picture" or "checks/<number>/outputs/<name>".
void check_check(const Container &container, const StoredTensor &stored) {
  const std::string name = "tensor '" + shown(stored.name) + "'";
  const std::string_view rest = std::string_view(stored.name).substr(CHECKS.size());
  const size_t slash = rest.find('/');
  const std::string_view number = rest.substr(0, slash);
  const bool decimal = std::all_of(number.begin(), number.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (number.empty() || number.size() > 3 || !decimal) refuse(name + " has no number");
  const std::string_view part = slash == rest.npos ? std::string_view() : rest.substr(slash + 1);
  if (part == "picture") {
    const Shape &shape = stored.tensor.shape;
    if (stored.dtype != "U8" || shape.size() != 3 || shape[2] != 3) refuse(name + " is no uint8 picture");
    if (shape[0] < 1 || shape[1] < 1 || std::max(shape[0], shape[1]) > MAX_CHECK_SIDE)
      refuse(name + " of shape " + shown(shape) + " is no tiny picture");
  } else if (part.substr(0, 8) != "outputs/") {
    refuse(name + " is neither a picture nor an output");
  } else if (!container.find(std::string(CHECKS) + std::string(number) + "/picture")) {
    refuse(name + " has no picture");
  }
}

// Weights that kernels read must be aligned. The usual writers align them; what they did not is copied.
void align(Graph &graph, Tensor &tensor) {
  if (reinterpret_cast<uintptr_t>(tensor.data) % size_of(tensor.dtype) == 0) return;
  const size_t bytes = size_t(elements(tensor.shape)) * size_of(tensor.dtype);
  auto copy = std::make_shared<std::vector<uint64_t>>((bytes + 7) / 8);
  std::memcpy(copy->data(), tensor.data, bytes);
  tensor.data = copy->data();
  graph.copies.push_back(std::shared_ptr<const void>(copy, copy->data()));
}

// Numbers that would make integer arithmetic overflow.
void check_integer_values(const std::string &where, const Node &node) {
  if (!node.has("weight_zero_point")) return;
  const int32_t zero = node.parameter("weight_zero_point").i32()[0];
  if (zero < -128 || zero > 255)
    refuse("tensor '" + where + ".weight_zero_point' holds a number outside -128..255");
  const Tensor &scale = node.parameter("weight_scale");
  for (int64_t i = 0; i < scale.shape[0]; ++i)
    if (!std::isfinite(scale.f32()[i]) || scale.f32()[i] < 0)
      refuse("tensor '" + where + ".weight_scale' holds something that is no finite number from 0 on");
}

void take_weights(Graph &graph, const Container &container, const Limits &limits) {
  std::vector<bool> used(container.tensors.size());
  uint64_t bytes = 0;
  for (Node &node : graph.nodes) {
    for (const Expected &expected : expected_parameters(graph, node)) {
      const StoredTensor *stored = is_check(node.name) ? nullptr : container.find(node.name + "." + expected.name);
      if (!stored)
        refuse("tensor '" + shown(node.name) + "." + expected.name + "' of shape " + shown(expected.shape) +
               " is missing");
      if (!stored->known)
        refuse("tensor '" + shown(stored->name) + "' has dtype " + std::string(stored->dtype) +
               "; the graph needs " + expected.dtypes);
      check_parameter(node, expected, stored->tensor, BAD);
      used[size_t(stored - container.tensors.data())] = true;
      bytes += stored->end - stored->begin;
      if (bytes > limits.memory)
        fail(MOBILENET_NO_MEMORY, "tensor '%s': the weights up to here take %llu bytes; the limit is %llu",
             shown(stored->name).c_str(), (unsigned long long)bytes, (unsigned long long)limits.memory);
      align(graph, node.parameters.emplace(expected.name, stored->tensor).first->second);
    }
    check_integer_values(shown(node.name), node);
  }
  for (size_t i = 0; i < used.size(); ++i) {
    const StoredTensor &stored = container.tensors[i];
    if (is_check(stored.name)) check_check(container, stored);
    else if (!used[i]) refuse("tensor '" + shown(stored.name) + "' belongs to no node of the graph");
  }
}

}  // namespace

Graph read_model(const uint8_t *bytes, size_t size, const Limits &limits) {
  const Container container = read_container(bytes, size);
  const json::Document description(container.description, "its description");
  check_header(description.root());
  Graph graph = read_graph(description.root().at("graph"));
  check_limits(graph, limits);
  take_weights(graph, container, limits);
  return graph;
}

}  // namespace mobilenet
