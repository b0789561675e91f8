#include "graph_reader.h"

#include <algorithm>
#include <cmath>

#include "messages.h"
#include "mobilenet.h"
#include "operators.h"

namespace mobilenet {
namespace {

constexpr int BAD = MOBILENET_BAD_FILE;

[[noreturn]] void refuse(const std::string &text) { fail(BAD, "%s", text.c_str()); }

// Exactly the given fields, and those in `optional` where there are any.
void check_keys(const std::string &where, json::Value value, std::initializer_list<std::string_view> known,
                std::initializer_list<std::string_view> optional = {}) {
  if (!value.is(json::Type::object))
    refuse(where + ": must be an object, not " + json::name_of(value.type()));
  const auto is_in = [](std::string_view key, std::initializer_list<std::string_view> keys) {
    return std::find(keys.begin(), keys.end(), key) != keys.end();
  };
  for (const json::Value field : value)
    if (!is_in(field.key(), known) && !is_in(field.key(), optional))
      refuse(where + ": unknown field '" + shown(field.key()) + "'");
  for (const std::string_view key : known)
    if (!value.find(key)) refuse(where + ": field '" + std::string(key) + "' is missing");
}

// The name of an input, node or output: text without a zero byte, which would cut it off for a C caller.
std::string checked_name(const char *what, std::string_view name) {
  if (name.find('\0') != name.npos) refuse(std::string(what) + " '" + shown(name) + "': its name has a zero byte");
  return std::string(name);
}

DType read_dtype(json::Value value) {
  if (value.is(json::Type::string))
    for (const DType dtype : {DType::float32, DType::int64, DType::int8, DType::uint8})
      if (value.text() == name_of(dtype)) return dtype;
  const std::string given = value.is(json::Type::string) ? shown(value.text()) : json::name_of(value.type());
  refuse("unknown dtype '" + given + "'; accepted are float32, int64, int8, uint8");
}

// Reads "dtype", "scale" and "zero_point", all optional, but the latter two belong to integers.
void read_quantisation(json::Value value, TensorType &type) {
  if (const auto dtype = value.find("dtype")) type.dtype = read_dtype(*dtype);
  const auto scale = value.find("scale"), zero_point = value.find("zero_point");
  if (is_integer(type.dtype) != (scale || zero_point))
    refuse(std::string("dtype ") + name_of(type.dtype) + " and the quantisation do not go together");
  if (!scale && !zero_point) return;
  if (scale && scale->is_number()) type.scale = float(scale->number());
  if (!scale || !scale->is_number() || !std::isfinite(type.scale) || !(type.scale > 0))
    refuse("scale must be a finite float32 number above 0");
  if (!zero_point) return;
  if (!zero_point->is(json::Type::integer) || zero_point->integer() < -128 || zero_point->integer() > 255)
    refuse("zero_point must be a whole number within -128..255");
  type.zero_point = int32_t(zero_point->integer());
}

TensorType read_input_type(json::Value value) {
  TensorType type;
  const json::Value shape = value.at("shape");
  if (!shape.is(json::Type::array)) refuse("shape must be a list");
  if (shape.size() > MAX_RANK) refuse("shape has more than 8 axes");
  for (const json::Value n : shape) {
    if (!n.is(json::Type::integer)) refuse("shape must hold whole numbers");
    type.shape.push_back(n.integer());
  }
  check_shape(type.shape);
  read_quantisation(value, type);
  return type;
}

// Names and the values that they stand for. Sorted, because a hash table could be made slow by chosen names.
class Names {
 public:
  void add(std::string_view name, int place) { names_.emplace_back(name, place); }

  // Returns a name that is there twice, or nothing.
  std::string_view sort() {
    std::sort(names_.begin(), names_.end());
    for (size_t i = 1; i < names_.size(); ++i)
      if (names_[i].first == names_[i - 1].first) return names_[i].first;
    return {};
  }

  int find(std::string_view name) const {
    const auto place = std::lower_bound(names_.begin(), names_.end(), std::pair(name, 0));
    return place != names_.end() && place->first == name ? place->second : -1;
  }

 private:
  std::vector<std::pair<std::string_view, int>> names_;
};

class GraphReader {
 public:
  Graph read(json::Value value) {
    check_keys("graph", value, {"inputs", "nodes", "outputs"});
    const json::Value inputs = value.at("inputs"), nodes = value.at("nodes"), outputs = value.at("outputs");
    const bool fits =
        inputs.is(json::Type::object) && nodes.is(json::Type::array) && outputs.is(json::Type::object);
    if (!fits) refuse("graph: inputs and outputs must be objects and nodes a list");
    if (inputs.size() == 0 || outputs.size() == 0) refuse("a graph needs at least one input and one output");
    for (const json::Value part : {inputs, nodes, outputs})
      if (part.size() > MAX_NODES)
        refuse("the graph has " + std::to_string(part.size()) +
               " nodes, inputs or outputs; at most 10000 are accepted");
    for (const json::Value input : inputs) read_input(input);
    for (const json::Value node : nodes) read_node(node);
    name_values();
    for (const json::Value node : nodes) read_sources(node);
    for (const json::Value output : outputs) read_output(output);
    put_in_order();
    for (Node &node : graph_.nodes) infer_type(graph_, node, false, BAD);
    return std::move(graph_);
  }

 private:
  void read_input(json::Value value) {
    const std::string where = "input '" + shown(value.key()) + "'";
    check_keys(where, value, {"shape", "dtype"}, {"scale", "zero_point"});
    try {
      graph_.inputs.push_back({checked_name("input", value.key()), read_input_type(value)});
    } catch (const Failure &failure) {
      refuse(where + ": " + failure.text);
    }
  }

  void read_node(json::Value value) {
    const auto name = value.is(json::Type::object) ? value.find("name") : std::nullopt;
    const bool named = name && name->is(json::Type::string) && !name->text().empty();
    const std::string where = "node '" + (named ? shown(name->text()) : "") + "'";
    check_keys(where, value, {"name", "operator", "inputs"}, {"dtype", "scale", "zero_point"});
    if (!named) refuse("a node's name is empty or no text");
    Node node;
    node.name = checked_name("node", name->text());
    try {
      node.op = read_operator(value.at("operator"));
      read_quantisation(value, node.type);
    } catch (const Failure &failure) {
      refuse(where + ": " + failure.text);
    }
    graph_.nodes.push_back(std::move(node));
  }

  void name_values() {
    int place = 0;
    for (const Named &input : graph_.inputs) names_.add(input.name, place++);
    for (const Node &node : graph_.nodes) names_.add(node.name, place++);
    const std::string_view twice = names_.sort();
    if (!twice.empty()) refuse("node '" + shown(twice) + "': its name is taken");
  }

  void read_sources(json::Value value) {
    Node &node = graph_.nodes[sources_.size()];
    const std::string where = "node '" + shown(node.name) + "'";
    const json::Value inputs = value.at("inputs");
    if (!inputs.is(json::Type::array)) refuse(where + ": inputs must be a list");
    const Arity arity = arity_of(node.op.kind);
    if (inputs.size() < arity.least || inputs.size() > arity.most)
      refuse(where + " (" + name_of(node.op.kind) + "): takes " + std::to_string(arity.least) + " to " +
             std::to_string(arity.most) + " inputs, not " + std::to_string(inputs.size()));
    std::vector<int> sources;
    for (const json::Value input : inputs) {
      const int source = input.is(json::Type::string) ? names_.find(input.text()) : -1;
      if (source < 0)
        refuse(where + " reads '" + (input.is(json::Type::string) ? shown(input.text()) : "") +
               "', which does not exist");
      sources.push_back(source);
    }
    sources_.push_back(std::move(sources));
  }

  void read_output(json::Value value) {
    const int place = value.is(json::Type::string) ? names_.find(value.text()) : -1;
    if (place < 0)
      refuse("output '" + shown(value.key()) + "' refers to '" +
             (value.is(json::Type::string) ? shown(value.text()) : "") + "', which does not exist");
    graph_.outputs.push_back({checked_name("output", value.key()), {}, place});
  }

  // How often the list of nodes has to be walked from its start until each can run, if every walk takes those
  // whose inputs are there. Sorting by that keeps the given order where it can be kept, in linear time.
  std::vector<int> walks() {
    const int inputs = int(graph_.inputs.size()), count = int(sources_.size());
    std::vector<int> walk(count), waits(count), ready;
    std::vector<std::vector<int>> readers(count);
    for (int i = 0; i < count; ++i)
      for (const int source : sources_[i])
        if (source >= inputs) {
          ++waits[i];
          readers[source - inputs].push_back(i);
        }
    for (int i = 0; i < count; ++i)
      if (waits[i] == 0) ready.push_back(i);
    size_t done = 0;
    for (; done < ready.size(); ++done)
      for (const int reader : readers[ready[done]]) {
        walk[reader] = std::max(walk[reader], walk[ready[done]] + (reader < ready[done] ? 1 : 0));
        if (--waits[reader] == 0) ready.push_back(reader);
      }
    for (int i = 0; i < count; ++i)
      if (waits[i] > 0) refuse("node '" + shown(graph_.nodes[i].name) + "' is part of a cycle or waits for one");
    return walk;
  }

  void put_in_order() {
    const int inputs = int(graph_.inputs.size()), count = int(sources_.size());
    const std::vector<int> walk = walks();
    std::vector<int> order(count), value(inputs + count);
    for (int i = 0; i < inputs; ++i) value[i] = i;
    for (int i = 0; i < count; ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return walk[a] < walk[b]; });
    for (int i = 0; i < count; ++i) value[inputs + order[i]] = inputs + i;
    std::vector<Node> nodes;
    nodes.reserve(count);
    for (const int i : order) {
      nodes.push_back(std::move(graph_.nodes[i]));
      for (const int source : sources_[i]) nodes.back().inputs.push_back(value[source]);
    }
    graph_.nodes = std::move(nodes);
    for (Named &output : graph_.outputs) output.value = value[output.value];
  }

  Graph graph_;
  Names names_;
  std::vector<std::vector<int>> sources_;  // by node in the file's order: places there
};

}  // namespace

Graph read_graph(json::Value value) { return GraphReader().read(value); }

}  // namespace mobilenet
