// The table of instruction sets, best first.
#include "kernels.h"

#include <cstring>
#include <string>

#include "engine.h"
#include "isa/isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace mobilenet {

namespace {

struct InstructionSet {
  const char *name;
  bool (*usable)();
  void (*fill[4])(Kernels &kernels);  // one after the other; later ones replace what earlier ones set
};

#if defined(__x86_64__)
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512cd");
}
bool has_avx512vnni() {
  return has_avx512() && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi") &&
         __builtin_cpu_supports("avx512vbmi2");
}
// Processors without VBMI; also stands in for avx2vnni where only this encoding can run.
[[maybe_unused]] bool has_avx512vnni256() { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }
[[maybe_unused]] bool has_avx2vnni() {  // not every compiler's __builtin_cpu_supports knows avxvnni
  unsigned a = 0, b = 0, c = 0, d = 0;
  return has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 4);
}
bool has_avx512bf16() { return has_avx512vnni() && __builtin_cpu_supports("avx512bf16"); }
#endif

[[maybe_unused]] bool always() { return true; }  // of what the whole build is compiled for

#if defined(MOBILENET_HAS_NEONDOT)
bool has_neondot() {
#if defined(__linux__)
  return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
#else
  return true;  // every arm64 processor of macOS and of current Windows has it
#endif
}
#endif

const InstructionSet SETS[] = {
#if defined(__x86_64__)
    {"avx512bf16",
     has_avx512bf16,
     {avx512::add_float, avx512vnni::add_integer, avx512bf16::add_bfloat16, nullptr}},
    {"avx512vnni", has_avx512vnni, {avx512::add_float, avx512vnni::add_integer, nullptr, nullptr}},
#if defined(MOBILENET_HAS_AVX512VNNI256)
    {"avx512vnni256", has_avx512vnni256, {avx512::add_float, avx512vnni256::add_integer, nullptr, nullptr}},
#endif
    {"avx512", has_avx512, {avx512::add_float, avx2::add_integer, nullptr, nullptr}},
#if defined(MOBILENET_HAS_AVX2VNNI)
    {"avx2vnni", has_avx2vnni, {avx2::add_float, avx2vnni::add_integer, nullptr, nullptr}},
#endif
    {"avx2", has_avx2, {avx2::add_float, avx2::add_integer, nullptr, nullptr}},
#endif
#if defined(MOBILENET_HAS_NEONDOT)
    {"neondot", has_neondot, {neon::add_float, neondot::add_integer, nullptr, nullptr}},
#endif
#if defined(MOBILENET_HAS_NEON)
    {"neon", always, {neon::add_float, neon::add_integer, nullptr, nullptr}},
#endif
#if defined(MOBILENET_HAS_WASM_RELAXED)
    {"wasm_relaxed", always, {wasm_relaxed::add_float, wasm::add_integer, nullptr, nullptr}},
#endif
#if defined(MOBILENET_HAS_WASM)
    {"wasm", always, {wasm::add_float, wasm::add_integer, nullptr, nullptr}},
#endif
#if defined(MOBILENET_HAS_SCALAR)
    {"scalar", always, {scalar::add_float, scalar::add_integer, nullptr, nullptr}},
#endif
};

}  // namespace

const Kernels *find_kernels(const char *name) {
  constexpr size_t COUNT = sizeof(SETS) / sizeof(SETS[0]);
  static const auto tables = [] {
    struct {
      Kernels table[COUNT];
    } all = {};
    for (size_t i = 0; i < COUNT; i++) {
      if (!SETS[i].usable()) continue;  // even what fills a table may be compiled to its instructions
      all.table[i].name = SETS[i].name;
      for (auto fill : SETS[i].fill)
        if (fill) fill(all.table[i]);
    }
    return all;
  }();
  for (size_t i = 0; i < COUNT; i++)
    if ((!*name || std::strcmp(name, SETS[i].name) == 0) && SETS[i].usable()) return &tables.table[i];
  return nullptr;
}

const char *isas() {
  static const std::string names = [] {
    std::string text;
    for (const InstructionSet &set : SETS)
      if (set.usable()) text += std::string(set.name) + ",";
    return text + "generic";
  }();
  return names.c_str();
}

}  // namespace mobilenet
