// WebAssembly with relaxed vectors: floats with a multiply-add that is fused where the host's processor has one,
// so that results may differ from host to host in their last bits. Integers are those of wasm.cc.
#define MOBILENET_ISA wasm_relaxed
#include "isa.h"

#include "wasm_gemm_float.h"
