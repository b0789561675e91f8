// What each instruction set adds to a table of kernels.
#pragma once
#include "../kernels.h"

// Vectors that are wider than the registers are passed between functions of one file only.
#pragma GCC diagnostic ignored "-Wpsabi"

namespace mobilenet {
namespace scalar {
void add_float(Kernels &kernels);
void add_integer(Kernels &kernels);
}
namespace avx2 {
void add_float(Kernels &kernels);
void add_integer(Kernels &kernels);
}
namespace avx2vnni {
void add_integer(Kernels &kernels);
}
namespace avx512vnni256 {
void add_integer(Kernels &kernels);
}
namespace avx512 {
void add_float(Kernels &kernels);
}
namespace avx512vnni {
void add_integer(Kernels &kernels);
}
namespace avx512bf16 {
void add_bfloat16(Kernels &kernels);
}
namespace neon {
void add_float(Kernels &kernels);
void add_integer(Kernels &kernels);
}
namespace neondot {
void add_integer(Kernels &kernels);
}
namespace wasm {
void add_float(Kernels &kernels);
void add_integer(Kernels &kernels);
}
namespace wasm_relaxed {
void add_float(Kernels &kernels);
}
}  // namespace mobilenet
