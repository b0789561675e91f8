// Model files made by hand, right and wrong ones.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace mobilenet::test {

struct Weight {
  std::string name, dtype, shape;  // "F32", "[2,3]"
  std::vector<uint8_t> bytes;
};

inline Weight floats(const std::string &name, const std::string &shape, const std::vector<float> &values) {
  Weight weight{name, "F32", shape, std::vector<uint8_t>(4 * values.size())};
  if (!values.empty()) std::memcpy(weight.bytes.data(), values.data(), weight.bytes.size());
  return weight;
}

inline std::string quoted(const std::string &text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

inline std::vector<uint8_t> container(const std::string &header, const std::vector<uint8_t> &data) {
  std::vector<uint8_t> bytes;
  for (int i = 0; i < 8; ++i) bytes.push_back(uint8_t(uint64_t(header.size()) >> (8 * i)));
  bytes.insert(bytes.end(), header.begin(), header.end());
  bytes.insert(bytes.end(), data.begin(), data.end());
  return bytes;
}

// The container around a description, with the weights one behind the other.
inline std::vector<uint8_t> file_of(const std::string &description, const std::vector<Weight> &weights) {
  std::string header = "{\"__metadata__\":{\"mobilenet\":" + quoted(description) + "}";
  std::vector<uint8_t> data;
  for (const Weight &weight : weights) {
    const size_t begin = data.size();
    data.insert(data.end(), weight.bytes.begin(), weight.bytes.end());
    header += "," + quoted(weight.name) + ":{\"dtype\":\"" + weight.dtype + "\",\"shape\":" + weight.shape +
              ",\"data_offsets\":[" + std::to_string(begin) + "," + std::to_string(data.size()) + "]}";
  }
  header += "}";
  while (header.size() % 8 != 0) header += ' ';
  return container(header, data);
}

inline std::string described(const std::string &graph) {
  return R"({"version":1,"task":"features","graph":)" + graph +
         R"(,"preprocessing":{},"labels":[],"calibration":{},"metrics":{},"licence":"","provenance":{}})";
}

inline std::vector<uint8_t> model(const std::string &graph, const std::vector<Weight> &weights = {}) {
  return file_of(described(graph), weights);
}

// A graph with an input "image" of the given shape, and the last node as its output.
inline std::string graph_of(const std::string &shape, const std::string &nodes, const std::string &output) {
  return R"({"inputs":{"image":{"shape":)" + shape + R"(,"dtype":"float32"}},"nodes":[)" + nodes +
         R"(],"outputs":{"out":")" + output + R"("}})";
}

inline std::string node(const std::string &name, const std::string &operator_fields, const std::string &inputs,
                        const std::string &more = "") {
  return R"({"name":")" + name + R"(","operator":{)" + operator_fields + R"(},"inputs":[)" + inputs + "]" + more +
         "}";
}

}  // namespace mobilenet::test
