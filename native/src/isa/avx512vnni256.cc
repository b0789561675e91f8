// AVX-512 VL and VNNI: integers on vectors of 256 bits, for processors without VBMI. It has the same source as
// avx2vnni.cc, in another encoding; where only this one can run, it stands for that one in tests too.
#define MOBILENET_ISA avx512vnni256
#include "isa.h"

#include "vnni256.h"
