// mobilenet_quantise: what src/mobilenet/run/quanta.py defines, by the kernel that quantises a network's own
// input.
#include <cmath>
#include <cstring>

#include "guarded.h"
#include "kernels.h"

namespace mobilenet {

namespace {

void quantise(const char *isa, const float *from, int64_t count, float scale, int32_t zero_point, int32_t dtype,
              char *to) {
  if (!from || !to || count < 0) fail(MOBILENET_BAD_ARGUMENT, "numbers and output may not be NULL");
  if (dtype != MOBILENET_INT8 && dtype != MOBILENET_UINT8)
    fail(MOBILENET_BAD_ARGUMENT, "dtype %d is neither MOBILENET_INT8 nor MOBILENET_UINT8", dtype);
  const int64_t zero = int64_t(zero_point) + (dtype == MOBILENET_INT8 ? 128 : 0);  // kernels compute in uint8
  if (!std::isfinite(scale) || scale <= 0 || zero < 0 || zero > 255)
    fail(MOBILENET_BAD_ARGUMENT, "scale %g and zero point %d: above 0, and a value of the dtype", double(scale),
         zero_point);
  const bool any = !isa || std::strcmp(isa, "generic") == 0;  // which has no kernels of its own
  const Kernels *kernels = find_kernels(any ? "" : isa);
  if (!kernels) fail(MOBILENET_BAD_ARGUMENT, "this processor or build has no instruction set '%s'", isa);
  kernels->quantise_line(from, count, 1 / scale, int32_t(zero), to);
  if (dtype == MOBILENET_UINT8) return;
  for (int64_t i = 0; i < count; i++) to[i] = char(to[i] ^ 0x80);
}

}  // namespace
}  // namespace mobilenet

extern "C" int mobilenet_quantise(const char *isa, const float *from, int64_t count, float scale,
                                  int32_t zero_point, int32_t dtype, void *to, char *error, size_t error_size) {
  return mobilenet::guarded(error, error_size, [&] {
    mobilenet::quantise(isa, from, count, scale, zero_point, dtype, static_cast<char *>(to));
  });
}
