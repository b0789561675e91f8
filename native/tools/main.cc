// mobilenet-engine: the C interface on the command line, for machines without Python and for other processors.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "mobilenet.h"

namespace {

constexpr const char *USAGE =
    "mobilenet-engine isas                     the instruction sets that can be used here, best first\n"
    "mobilenet-engine info MODEL [OPTIONS]     inputs and outputs\n"
    "mobilenet-engine plan MODEL [OPTIONS]     what will run, as JSON\n"
    "mobilenet-engine run  MODEL [OPTIONS]     run once\n"
    "mobilenet-engine time MODEL [OPTIONS]     run many times; least and median milliseconds\n"
    "\n"
    "--size HEIGHTxWIDTH   of the picture; default: the model's own\n"
    "--batch N             pictures at once; default 1\n"
    "--precision fp32|bf16 of float layers\n"
    "--threads N           default: one for each processor\n"
    "--isa NAME            force an instruction set\n"
    "--input FILE          raw elements of all inputs, one after the other, row-major; default: zeros\n"
    "--output FILE         raw elements of all outputs; default: the first ones as text\n"
    "--rounds N            of time; default 100\n";

struct Failed {
  std::string text;
};

struct Words {
  std::string command, model;
  std::map<std::string, std::string> options;
  std::string get(const char *name, const char *otherwise) const {
    const auto found = options.find(name);
    return found == options.end() ? otherwise : found->second;
  }
  long number(const char *name, long otherwise) const {
    const auto found = options.find(name);
    if (found == options.end()) return otherwise;
    char *end;
    const long value = std::strtol(found->second.c_str(), &end, 10);
    if (*end || end == found->second.c_str() || value < 1 || value > 1 << 20)
      throw Failed{std::string(name) + " is no number from 1 to 2^20: " + found->second};
    return value;
  }
};

Words parse(int count, char **given) {
  static constexpr const char *known[] = {"--size", "--batch", "--precision", "--threads",
                                          "--isa",  "--input", "--output",    "--rounds"};
  Words words;
  for (int i = 1; i < count; ++i) {
    const std::string word = given[i];
    if (word.compare(0, 2, "--") != 0) {
      std::string &place = words.command.empty() ? words.command : words.model;
      if (!place.empty()) throw Failed{"one model at a time: " + word};
      place = word;
      continue;
    }
    bool accepted = false;
    for (const char *name : known) accepted |= word == name;
    if (!accepted) throw Failed{"unknown option " + word};
    if (++i == count) throw Failed{word + " needs a value"};
    words.options[word] = given[i];
  }
  return words;
}

std::vector<char> read(const std::string &path) {
  std::ifstream stream(path, std::ios::binary);
  std::ostringstream bytes;
  bytes << stream.rdbuf();
  if (!stream || !bytes) throw Failed{path + ": cannot be read"};
  const std::string text = std::move(bytes).str();
  return {text.begin(), text.end()};
}

size_t element_bytes(int dtype) {
  return dtype == MOBILENET_FLOAT32 ? 4 : dtype == MOBILENET_INT64 ? 8 : 1;
}

// A loaded model, the size of pictures it is used with, and memory for its inputs and outputs.
class Session {
 public:
  explicit Session(const Words &words) {
    const std::vector<char> bytes = read(words.model);
    const std::string precision = words.get("--precision", "fp32"), isa = words.get("--isa", "");
    if (precision != "fp32" && precision != "bf16") throw Failed{"--precision is fp32 or bf16, not " + precision};
    mobilenet_options options{};
    options.size = sizeof(options);
    options.precision = precision == "bf16" ? MOBILENET_BF16 : MOBILENET_FP32;
    options.threads = words.options.count("--threads") ? int32_t(words.number("--threads", 1)) : 0;
    options.isa = isa.empty() ? nullptr : isa.c_str();
    if (mobilenet_load(bytes.data(), bytes.size(), &options, &model_, error_, sizeof(error_)) != MOBILENET_OK)
      throw Failed{words.model + ": " + error_};
    batch = words.number("--batch", 1);
    const std::string size = words.get("--size", "");
    long long h = 0, w = 0;
    char rest;
    if (!size.empty() && (std::sscanf(size.c_str(), "%lldx%lld%c", &h, &w, &rest) != 2 || h < 1 || w < 1))
      throw Failed{"--size is HEIGHTxWIDTH, not " + size};
    height_ = h;
    width_ = w;
    for (int i = 0; i < mobilenet_input_count(model_); ++i) add(true, i);
    for (int i = 0; i < mobilenet_output_count(model_); ++i) add(false, i);
  }
  Session(const Session &) = delete;
  ~Session() { mobilenet_free(model_); }

  void run() {
    std::vector<const void *> from;
    std::vector<void *> to;
    for (auto &bytes : input_bytes) from.push_back(bytes.data());
    for (auto &bytes : output_bytes) to.push_back(bytes.data());
    check(mobilenet_run(model_, height_, width_, batch, from.data(), to.data(), error_, sizeof(error_)));
  }

  std::string plan() {
    char *json;
    check(mobilenet_plan(model_, height_, width_, &json, error_, sizeof(error_)));
    const std::string text = json;
    mobilenet_release(json);
    return text;
  }

  long batch;
  std::vector<mobilenet_tensor> inputs, outputs;
  std::vector<std::vector<char>> input_bytes, output_bytes;

 private:
  void check(int code) const {
    if (code != MOBILENET_OK) throw Failed{error_};
  }

  void add(bool input, int index) {
    mobilenet_tensor tensor;
    const auto describe = input ? mobilenet_input : mobilenet_output;
    check(describe(model_, index, height_, width_, &tensor, error_, sizeof(error_)));
    size_t size = size_t(batch) * element_bytes(tensor.dtype);
    for (int axis = 0; axis < tensor.rank; ++axis) size *= size_t(tensor.shape[axis]);
    (input ? inputs : outputs).push_back(tensor);
    (input ? input_bytes : output_bytes).emplace_back(size);
  }

  mobilenet_model *model_ = nullptr;
  int64_t height_ = 0, width_ = 0;
  char error_[1024] = "";
};

void print_tensor(const char *what, const mobilenet_tensor &tensor) {
  constexpr const char *names[] = {"float32", "int8", "uint8", "int64"};
  std::printf("%s %s: %s (", what, tensor.name, names[tensor.dtype]);
  for (int axis = 0; axis < tensor.rank; ++axis)
    std::printf("%s%lld", axis ? ", " : "", static_cast<long long>(tensor.shape[axis]));
  std::printf(")");
  if (tensor.dtype == MOBILENET_INT8 || tensor.dtype == MOBILENET_UINT8)
    std::printf(", scale %.9g, zero point %d", double(tensor.scale), tensor.zero_point);
  std::printf("\n");
}

void print_first(const mobilenet_tensor &tensor, const std::vector<char> &bytes) {
  const size_t size = element_bytes(tensor.dtype), count = bytes.size() / size;
  std::printf("%s:", tensor.name);
  for (size_t i = 0; i < count && i < 10; ++i) {
    float real;
    int64_t whole = static_cast<signed char>(bytes[i]);
    if (tensor.dtype == MOBILENET_UINT8) whole = static_cast<unsigned char>(bytes[i]);
    if (tensor.dtype == MOBILENET_INT64) std::memcpy(&whole, &bytes[i * size], size);
    if (tensor.dtype == MOBILENET_FLOAT32) {
      std::memcpy(&real, &bytes[i * size], size);
      std::printf(" %.9g", double(real));
    } else {
      std::printf(" %lld", static_cast<long long>(whole));
    }
  }
  std::printf("%s\n", count > 10 ? " ..." : "");
}

void fill_inputs(Session &session, const std::string &path) {
  if (path.empty()) return;
  const std::vector<char> bytes = read(path);
  size_t needed = 0, place = 0;
  for (const auto &input : session.input_bytes) needed += input.size();
  if (bytes.size() != needed)
    throw Failed{path + ": has " + std::to_string(bytes.size()) + " bytes; the inputs take " +
                 std::to_string(needed)};
  for (auto &input : session.input_bytes) {
    std::memcpy(input.data(), bytes.data() + place, input.size());
    place += input.size();
  }
}

void write_outputs(const Session &session, const std::string &path) {
  if (path.empty()) {
    for (size_t i = 0; i < session.outputs.size(); ++i) print_first(session.outputs[i], session.output_bytes[i]);
    return;
  }
  std::ofstream stream(path, std::ios::binary);
  for (const auto &output : session.output_bytes) stream.write(output.data(), std::streamsize(output.size()));
  stream.close();
  if (!stream) throw Failed{path + ": cannot be written"};
}

void time_runs(Session &session, long rounds) {
  for (int i = 0; i < 3; ++i) session.run();
  std::vector<double> spent;
  for (long i = 0; i < rounds; ++i) {
    const auto start = std::chrono::steady_clock::now();
    session.run();
    spent.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(spent.begin(), spent.end());
  std::printf("min_ms %.4f median_ms %.4f\n", spent.front(), spent[spent.size() / 2]);
}

int run(const Words &words) {
  if (words.command == "isas") return std::printf("%s\n", mobilenet_isas()), 0;
  bool known = false;
  for (const char *command : {"info", "plan", "run", "time"}) known |= words.command == command;
  if (!known || words.model.empty()) return std::fputs(USAGE, stderr), 2;
  Session session(words);
  if (words.command == "info") {
    for (const auto &tensor : session.inputs) print_tensor("input", tensor);
    for (const auto &tensor : session.outputs) print_tensor("output", tensor);
  } else if (words.command == "plan") {
    std::printf("%s\n", session.plan().c_str());
  } else {
    fill_inputs(session, words.get("--input", ""));
    if (words.command == "time") return time_runs(session, words.number("--rounds", 100)), 0;
    session.run();
    write_outputs(session, words.get("--output", ""));
  }
  return 0;
}

}  // namespace

int main(int count, char **given) {
  try {
    return run(parse(count, given));
  } catch (const Failed &failed) {
    std::fprintf(stderr, "mobilenet-engine: %s\n", failed.text.c_str());
  } catch (const std::exception &error) {
    std::fprintf(stderr, "mobilenet-engine: %s\n", error.what());
  }
  return 1;
}
