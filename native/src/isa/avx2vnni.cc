// AVX2 with AVX-VNNI: integers.
#define MOBILENET_ISA avx2vnni
#include "isa.h"

#include "vnni256.h"
