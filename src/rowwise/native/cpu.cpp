// What the processor has and its system allows, asked by CPUID and XGETBV.
//
// A feature counts only if the operating system saves the registers that it needs. Bit numbers are
// those of Intel's Software Developer's Manual, volume 2A (CPUID) and volume 1, chapter 13 (XCR0).
#include "cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#define ROWWISE_TEXT_OF(name) #name
#define ROWWISE_TEXT(macro) ROWWISE_TEXT_OF(macro)

namespace {

#if defined(__x86_64__)

struct Registers {
  std::uint32_t a = 0, b = 0, c = 0, d = 0;
};

// CPUID's answer, all zeros where the processor does not have the leaf.
Registers cpuid(std::uint32_t leaf, std::uint32_t subleaf) {
  Registers answer;
  if (!__get_cpuid_count(leaf, subleaf, &answer.a, &answer.b, &answer.c, &answer.d)) return {};
  return answer;
}

// XCR0: the register files that the operating system saves.
std::uint32_t saved_registers() {
  std::uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

template <int... BITS>
constexpr bool has(std::uint32_t word) {
  constexpr std::uint32_t mask = ((1u << BITS) | ...);
  return (word & mask) == mask;
}

// Linux enlarges the frames of a process's signals for tiles only if it asks (since Linux 5.16).
bool tiles_are_granted() {
#if defined(__linux__)
  constexpr long ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
  return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#else
  return false;
#endif
}

std::int32_t features() {
  const Registers basic = cpuid(1, 0);
  if (!has<27>(basic.c)) return 0;  // no OSXSAVE: XGETBV is not there
  const std::uint32_t saved = saved_registers();
  const Registers extended = cpuid(7, 0);
  const Registers more = extended.a >= 1 ? cpuid(7, 1) : Registers{};

  const bool avx2 = has<1, 2>(saved) && has<12, 28, 29>(basic.c) && has<5>(extended.b);
  const bool avx512 = avx2 && has<5, 6, 7>(saved) && has<16, 17, 30, 31>(extended.b);
  const bool bfloat16 = avx512 && has<5>(more.a);
  const bool amx = has<17, 18>(saved) && has<22, 24>(extended.d) && tiles_are_granted();
  return (avx2 ? rowwise::AVX2 : 0) | (avx512 ? rowwise::AVX512 : 0) |
         (bfloat16 ? rowwise::AVX512_BF16 : 0) | (amx ? rowwise::AMX : 0);
}

#else

std::int32_t features() { return 0; }

#endif

}  // namespace

std::int32_t rowwise_abi(void) { return rowwise::ABI; }

const char *rowwise_path(void) { return ROWWISE_TEXT(ROWWISE_PATH); }

std::int32_t rowwise_cpu(void) { return features(); }
