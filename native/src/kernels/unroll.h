#pragma once
// Loops over the registers of a tile must vanish, or their arrays end up in memory.
#if defined(__clang__)
#define MOBILENET_UNROLL _Pragma("clang loop unroll(full)")
#else
#define MOBILENET_UNROLL _Pragma("GCC unroll 32")
#endif
