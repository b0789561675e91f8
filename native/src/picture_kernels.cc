// Which loops resample pictures: those of an instruction set, or these for any processor.
#define MOBILENET_ISA any
#include <cstring>

#include "kernels.h"
#include "kernels/resample.h"

namespace mobilenet {
namespace {

// A set without loops of its own (there is nothing that VNNI would add) leaves `pictures` empty.
template <typename Table>
const PictureKernels *of(const Table *table) {
  if (!table) return &any::picture_kernels;
  if constexpr (requires { table->pictures; }) {
    if (table->pictures) return table->pictures;
  }
  return &any::picture_kernels;
}

}  // namespace

const PictureKernels *find_picture_kernels(const char *isa) {
  if (isa && std::strcmp(isa, "generic") == 0) return &any::picture_kernels;
  const Kernels *table = find_kernels(isa ? isa : "");
  return table || !isa ? of(table) : nullptr;
}

}  // namespace mobilenet
