// What a library says of itself and of the processor before anything else in it may be called.
//
// cpu.cpp is compiled without the flags of its library's processor path, so its functions run on
// every processor. It uses no function that another source may instantiate, templates of the
// standard library above all: the linker keeps one copy of such a function, and that one may have
// been compiled for a better processor.
#pragma once

#include <cstdint>

namespace rowwise {

// The version of the C interface: it grows by one with every change of an exported function or of
// a struct that such a function takes. core.py holds the same number and refuses a library that
// answers with another one.
constexpr std::int32_t ABI = 2;

// What rowwise_cpu() answers: groups of instructions that processor and operating system both have.
enum Feature : std::int32_t {
  AVX2 = 1,         // AVX2, FMA and F16C
  AVX512 = 2,       // AVX-512 F, BW, DQ and VL
  AVX512_BF16 = 4,  // AVX-512 BF16
  AMX = 8,          // AMX-TILE and AMX-BF16, the tiles granted to this process
};

}  // namespace rowwise

extern "C" {

// rowwise::ABI of the library.
[[gnu::visibility("default")]] std::int32_t rowwise_abi(void);

// The processor path that the library is compiled for, as core.py's PATHS has it; a static string.
[[gnu::visibility("default")]] const char *rowwise_path(void);

// The bits of rowwise::Feature that may be used in this process; 0 on anything but x86-64.
//
// Where the processor has AMX this asks Linux for the tiles, which it grants to a process once and
// for all its threads. Each thread still loads a tile configuration of its own.
[[gnu::visibility("default")]] std::int32_t rowwise_cpu(void);
}
