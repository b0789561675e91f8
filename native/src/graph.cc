#include "graph.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>

#include "file.h"
#include "messages.h"
#include "mobilenet.h"
#include "operators.h"

namespace mobilenet {

void fail(int code, const char *format, ...) {
  va_list arguments, again;
  va_start(arguments, format);
  va_copy(again, arguments);
  const int length = std::vsnprintf(nullptr, 0, format, arguments);
  va_end(arguments);
  std::string text(size_t(std::max(length, 0)), '\0');
  std::vsnprintf(text.data(), text.size() + 1, format, again);
  va_end(again);
  throw Failure{code, std::move(text)};
}

std::string shown(std::string_view name) {
  constexpr size_t most = 80;
  size_t end = std::min(name.size(), most);
  while (end < name.size() && end > 0 && (uint8_t(name[end]) & 0xC0) == 0x80) --end;  // not inside a character
  std::string text(name.substr(0, end));
  for (char &c : text)
    if (uint8_t(c) < 0x20 || c == 0x7F) c = '?';
  return end < name.size() ? text + "..." : text;
}

std::string shown(const Shape &shape) {
  std::string text = "(";
  for (size_t i = 0; i < shape.size() && i < 10; ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + (shape.size() > 10 ? ", ...)" : ")");
}

size_t size_of(DType dtype) {
  static constexpr size_t sizes[] = {4, 1, 1, 8, 4};
  return sizes[int(dtype)];
}

const char *name_of(DType dtype) {
  static constexpr const char *names[] = {"float32", "int8", "uint8", "int64", "int32"};
  return names[int(dtype)];
}

void resize_graph(Graph &graph, int64_t height, int64_t width) {
  constexpr int code = MOBILENET_BAD_ARGUMENT;
  if (graph.inputs.size() != 1) fail(code, "only a model with one input can be resized");
  Named &input = graph.inputs[0];
  if (input.type.shape.size() != 3)
    fail(code, "input '%s' of shape %s is no picture, so it cannot be resized", shown(input.name).c_str(),
         shown(input.type.shape).c_str());
  const Shape wanted = {height, width, input.type.shape[2]};
  if (height < 1 || width < 1 || elements(wanted) > MAX_ELEMENTS)
    fail(code, "a picture of %lld x %lld pixels is not accepted; sizes are above 0, with at most 2^31 elements",
         (long long)height, (long long)width);
  input.type.shape = wanted;
  for (Node &node : graph.nodes) {
    infer_type(graph, node, true, code);
    // A dense layer behind a flattened picture fits one size only.
    for (const Expected &expected : expected_parameters(graph, node))
      check_parameter(node, expected, node.parameter(expected.name), code);
  }
}

namespace {

void check_value(const char *what, const std::string &name, const TensorType &type, const Limits &limits) {
  const uint64_t bytes = uint64_t(elements(type.shape)) * size_of(type.dtype);
  if (bytes > limits.memory)
    fail(MOBILENET_NO_MEMORY, "%s '%s' of shape %s takes %llu bytes; the limit is %llu", what, shown(name).c_str(),
         shown(type.shape).c_str(), (unsigned long long)bytes, (unsigned long long)limits.memory);
}

}  // namespace

void check_limits(const Graph &graph, const Limits &limits) {
  for (const Named &input : graph.inputs) check_value("input", input.name, input.type, limits);
  uint64_t total = 0;
  for (const Node &node : graph.nodes) {
    check_value("node", node.name, node.type, limits);
    total += uint64_t(macs_of(graph, node));  // at most 2^63 - 1, so that this cannot wrap before the check
    if (total > limits.macs || total > uint64_t(INT64_MAX))
      fail(MOBILENET_BAD_FILE, "node '%s': there are more than %llu multiply-accumulates up to here: the limit",
           shown(node.name).c_str(), (unsigned long long)limits.macs);
  }
}

}  // namespace mobilenet
