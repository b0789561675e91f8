// What this processor can do at most: a matrix kernel on data that stay in its first cache.
#include <chrono>

#include "../include/mobilenet.h"
#include "engine.h"
#include "kernels.h"
#include "memory.h"

namespace mobilenet {

double peak_operations(const char *isa, int element) {
  using Clock = std::chrono::steady_clock;
  const Kernels *kernels = find_kernels(isa);
  if (!kernels || !kernels->has[element])
    fail(MOBILENET_UNSUPPORTED, "this processor has no matrix kernel of this precision");
  constexpr int WORDS = 64, ROUNDS = 200;
  const int pixels = kernels->tile_pixels[element], channels = kernels->panel[element];
  const int64_t pixel_bytes = BLOCK * int64_t(size_of(Element(element)));
  const Bytes a(size_t(WORDS * 4 / pixel_bytes + 1) * size_t(pixels * pixel_bytes)), out(size_t(2 * pixels * 64));
  const Bytes weights(size_t(WORDS * channels * kernels->word_bytes[element])), zeros(size_t(channels) * 4);
  Epilogue epilogue;
  epilogue.bias = zeros.data();
  epilogue.scale = zeros.as<float>();
  std::vector<Run> runs;
  for (int64_t word = 0; word < WORDS; word += pixel_bytes / 4)
    runs.push_back({int32_t(word * 4 / pixel_bytes * pixels * pixel_bytes), int32_t(pixel_bytes / 4)});
  const GemmCall call{a.data(), runs.data(), int(runs.size()), pixels, weights.data(), WORDS, out.data(),
                      pixels * pixel_bytes, out.data(), pixels * pixel_bytes, 0, channels, &epilogue};
  double best = 0;
  for (int round = 0; round < ROUNDS; round++) {
    const auto start = Clock::now();
    for (int i = 0; i < 100; i++) kernels->gemm[element](call);
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    const double operations = 100.0 * 2 * pixels * channels * WORDS * channels_in_word(Element(element));
    best = operations / seconds > best ? operations / seconds : best;
  }
  return best;
}

}  // namespace mobilenet
