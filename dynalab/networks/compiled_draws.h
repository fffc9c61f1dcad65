// Draws, the same as NumPy's.
#pragma once
#include "compiled_vectors.h"
#include <cstring>

// Random bytes, as numpy.random.Generator(PCG64(SeedSequence(entropy, spawn_key=key))).bytes(count) makes them of every
// run's entropy of four words (O'Neill 2014, 2015; both as NumPy has them).
extern "C" void draw(Size runs, const uint32_t *entropy, const uint32_t *key, Size keys, Size count, uint8_t *to, Size ld) {
  for (Size run = 0; run < runs; run++, entropy += 4, to += ld) {
    uint32_t pool[4], hash = 0x43b0d7e5;
    const auto hashed = [&hash](uint32_t x) {
      x ^= hash;
      hash *= 0x931e8875;
      x *= hash;
      return x ^ x >> 16;
    };
    const auto mix = [](uint32_t &x, uint32_t y) {
      x = 0xca01f9dd * x - 0x4973f715 * y;
      x ^= x >> 16;
    };
    for (int i = 0; i < 4; i++) pool[i] = hashed(entropy[i]);
    for (int from = 0; from < 4; from++)
      for (int i = 0; i < 4; i++)
        if (i != from) mix(pool[i], hashed(pool[from]));
    for (Size k = 0; k < keys; k++)
      for (int i = 0; i < 4; i++) mix(pool[i], hashed(key[k]));
    uint32_t words[8];
    hash = 0x8b51f9dd;
    for (int i = 0; i < 8; i++) {
      uint32_t x = pool[i % 4] ^ hash;
      hash *= 0x58f38ded;
      x *= hash;
      words[i] = x ^ x >> 16;
    }
    typedef unsigned __int128 Long;
    const auto wide = [&words](int i) { return (Long)words[i] | (Long)words[i + 1] << 32; };
    const Long factor = (Long)2549297995355413924u << 64 | 4865540595714422341u;
    const Long increment = (wide(4) << 64 | wide(6)) << 1 | 1;
    Long state = (increment + (wide(0) << 64 | wide(2))) * factor + increment;
    for (Size k = 0; k < count; k += 8) {
      state = state * factor + increment;
      const uint64_t folded = (uint64_t)(state >> 64) ^ (uint64_t)state;
      const int turns = (int)(state >> 122);
      uint64_t word = folded >> turns | folded << (-turns & 63);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
      word = __builtin_bswap64(word);
#endif
      std::memcpy(to + k, &word, count - k < 8 ? count - k : 8);
    }
  }
}
