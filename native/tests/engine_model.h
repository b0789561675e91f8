// A model through the C interface: random pictures in, all outputs out, in memory of exactly their size.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "mobilenet.h"

namespace mobilenet::test {

using Bytes = std::vector<uint8_t>;

inline Bytes read_file(const char *path) {
  Bytes bytes;
  if (FILE *file = std::fopen(path, "rb")) {
    uint8_t part[1 << 16];
    for (size_t count; (count = std::fread(part, 1, sizeof part, file)) > 0;)
      bytes.insert(bytes.end(), part, part + count);
    std::fclose(file);
  }
  return bytes;
}

struct Size {
  int64_t height, width;
};

struct Output {
  int32_t dtype;
  std::vector<char> bytes;
};

inline bool operator==(const Output &a, const Output &b) { return a.dtype == b.dtype && a.bytes == b.bytes; }

class EngineModel {
 public:
  // As mobilenet_load; see `code`.
  EngineModel(const Bytes &bytes, const char *isa, int threads, int precision = MOBILENET_FP32) {
    mobilenet_options options{};
    options.size = sizeof options;
    options.isa = isa;
    options.threads = threads;
    options.precision = precision;
    code = mobilenet_load(bytes.data(), bytes.size(), &options, &model_, error, sizeof error);
  }
  ~EngineModel() { mobilenet_free(model_); }
  EngineModel(const EngineModel &) = delete;
  EngineModel &operator=(const EngineModel &) = delete;

  mobilenet_model *get() const { return model_; }

  Size own_size() const {
    mobilenet_tensor tensor;
    mobilenet_input(model_, 0, 0, 0, &tensor, nullptr, 0);
    return tensor.rank == 3 ? Size{tensor.shape[0], tensor.shape[1]} : Size{0, 0};
  }

  // The answer for the pictures seed, seed + 1, ... seed + batch - 1; empty if this size is refused: see `code`.
  // May be called by several threads, which then give a `result` of their own.
  std::vector<Output> run(Size size, int batch, unsigned seed, int *result = nullptr) {
    int found = MOBILENET_OK;
    std::vector<std::vector<char>> inputs;
    std::vector<const void *> from;
    std::vector<void *> to;
    std::vector<Output> outputs;
    mobilenet_tensor tensor;
    char text[256] = "";
    for (int i = 0; i < mobilenet_input_count(model_) && found == MOBILENET_OK; ++i) {
      found = mobilenet_input(model_, i, size.height, size.width, &tensor, text, sizeof text);
      if (found == MOBILENET_OK) inputs.push_back(pictures(tensor, batch, seed));
    }
    for (int i = 0; i < mobilenet_output_count(model_) && found == MOBILENET_OK; ++i) {
      found = mobilenet_output(model_, i, size.height, size.width, &tensor, text, sizeof text);
      if (found == MOBILENET_OK)
        outputs.push_back({tensor.dtype, std::vector<char>(bytes_of(tensor) * size_t(batch))});
    }
    for (auto &input : inputs) from.push_back(input.data());
    for (auto &output : outputs) to.push_back(output.bytes.data());
    if (found == MOBILENET_OK)
      found = mobilenet_run(model_, size.height, size.width, batch, from.data(), to.data(), text, sizeof text);
    if (result)
      *result = found;
    else
      code = found, std::memcpy(error, text, sizeof text);
    return found == MOBILENET_OK ? outputs : std::vector<Output>();
  }

  int code = MOBILENET_OK;
  char error[256] = "";

 private:
  static size_t bytes_of(const mobilenet_tensor &tensor) {
    size_t bytes = tensor.dtype == MOBILENET_FLOAT32 ? 4 : tensor.dtype == MOBILENET_INT64 ? 8 : 1;
    for (int32_t i = 0; i < tensor.rank; ++i) bytes *= size_t(tensor.shape[i]);
    return bytes;
  }

  // Any integers; floats within -1 .. 1, mostly in steps of some pixels, as pictures are.
  static std::vector<char> pictures(const mobilenet_tensor &tensor, int batch, unsigned seed) {
    const size_t bytes = bytes_of(tensor);
    std::vector<char> all(bytes * size_t(batch));
    for (int picture = 0; picture < batch; ++picture) {
      uint64_t state = seed + unsigned(picture) + 1;
      float coarse = 0;
      const auto next = [&] {
        return state = state * 6364136223846793005u + 1442695040888963407u, uint32_t(state >> 33);
      };
      char *at = all.data() + bytes * size_t(picture);
      if (tensor.dtype != MOBILENET_FLOAT32)
        for (size_t i = 0; i < bytes; ++i) at[i] = char(next() >> 8);
      else
        for (size_t i = 0; i < bytes; i += 4) {
          const float fine = float(next() >> 7) / float(1 << 24) - 0.5f;
          if (i % 96 == 0) coarse = float(next() >> 7) / float(1 << 24) - 0.5f;
          const float value = 1.5f * coarse + 0.5f * fine;
          std::memcpy(at + i, &value, 4);
        }
    }
    return all;
  }

  mobilenet_model *model_ = nullptr;
};

// The part of each output that belongs to one picture of a batch.
inline std::vector<Output> picture_of(const std::vector<Output> &batch, int count, int picture) {
  std::vector<Output> result;
  for (const Output &output : batch) {
    const auto size = long(output.bytes.size() / size_t(count));
    result.push_back(
        {output.dtype, {output.bytes.begin() + size * picture, output.bytes.begin() + size * (picture + 1)}});
  }
  return result;
}

// Integers are equal, floats within `part` of the largest wanted value.
inline bool near(const std::vector<Output> &found, const std::vector<Output> &wanted, float part) {
  if (found.size() != wanted.size()) return false;
  for (size_t k = 0; k < found.size(); ++k) {
    if (found[k].dtype != wanted[k].dtype || found[k].bytes.size() != wanted[k].bytes.size()) return false;
    if (found[k].dtype != MOBILENET_FLOAT32) {
      if (found[k].bytes != wanted[k].bytes) return false;
      continue;
    }
    std::vector<float> a(found[k].bytes.size() / 4), b(a.size());
    if (a.empty()) continue;
    std::memcpy(a.data(), found[k].bytes.data(), a.size() * 4);
    std::memcpy(b.data(), wanted[k].bytes.data(), b.size() * 4);
    float largest = 0;
    for (float value : b) largest = std::fmax(largest, std::fabs(value));
    for (size_t i = 0; i < a.size(); ++i)
      if (!(std::fabs(a[i] - b[i]) <= part * largest)) return false;
  }
  return true;
}

inline std::vector<std::string> instruction_sets() {
  std::vector<std::string> names(1);
  for (const char *at = mobilenet_isas(); *at; ++at) {
    if (*at == ',')
      names.emplace_back();
    else
      names.back() += *at;
  }
  return names;
}

}  // namespace mobilenet::test
