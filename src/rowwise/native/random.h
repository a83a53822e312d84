// Random numbers that depend on their place alone: Philox4x32-10 (Salmon et al. 2011).
#pragma once

#include <array>
#include <cstdint>

namespace rowwise {

// Four random words for a 128-bit counter and a 64-bit key.
inline std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter,
                                           std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; round++) {
    const std::uint64_t left = (std::uint64_t)0xD2511F53u * counter[0];
    const std::uint64_t right = (std::uint64_t)0xCD9E8D57u * counter[2];
    counter = {(std::uint32_t)(right >> 32) ^ counter[1] ^ key[0], (std::uint32_t)right,
               (std::uint32_t)(left >> 32) ^ counter[3] ^ key[1], (std::uint32_t)left};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

}  // namespace rowwise
