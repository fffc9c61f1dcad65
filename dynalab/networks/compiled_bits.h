// Inputs that are signs and come as bits: their labels, and what a first layer makes of them.
//
// A layer adds up, of every GROUP inputs, one of the 2^GROUP sums of their weights, which are made once an update: a
// third of the additions.
#pragma once
#include "compiled_losses.h"

namespace {

constexpr Size GROUP = 3, SUMS = 1 << GROUP, WIDE = 8;

const uint8_t *bits_of(const Batch &batch, Size run) { return (const uint8_t *)batch.inputs + run * batch.input_run; }

// The n inputs of one row out of its bits.
void unpack(const uint8_t *bits, Size place, Size n, float *to) {
  Ints places;
  for (int i = 0; i < V; i++) places[i] = i;
  for (Size k = 0; k < n; k += V) {
    const Ints word = Ints{} + (int32_t)(following(bits, place + k) >> 32);
    const Vec signs = (Vec)(((word << places) & INT32_MIN) | 0x3F800000);
    store(to + k, places < (int32_t)(n - k) ? signs : Vec{});
  }
}

// The labels of some rows of n inputs.
void label(const Batch &batch, Size run, Size first, Size rows, Size n, float *signs) {
  const uint8_t *bits = bits_of(batch, run), *turned = (const uint8_t *)batch.targets;
  if (turned) turned += run * batch.target_run + first * batch.target_row;
  const Size relevant = batch.relevant;
  Size place = batch.bit + first * n;
  for (Size r = 0; r < rows; r++, place += n) {
    uint64_t odd = turned && turned[r * batch.target_row];
    for (Size k = 0; k < relevant; k += 57) {
      const Size left = relevant - k < 57 ? relevant - k : 57;
      odd ^= following(bits, place + k) >> (64 - left);
    }
    // Without a branch, which would be foretold half of the time.
    const uint32_t word = (uint32_t)__builtin_parityll(odd) << 31 | 0x3F800000;
    std::memcpy(signs + r, &word, sizeof(word));
  }
}

// The sums of a layer's weights: chunks of WIDE vectors of its outputs, (groups, SUMS, chunk) each.
struct Sums {
  Size inputs, ld; // of the weights, (inputs, ld)
  float *at = nullptr;

  Size groups() const { return (inputs + GROUP - 1) / GROUP; }
  Size size() const { return groups() * SUMS * ld; }

  // By sign: the first sign of a group is the highest bit of a sum's place. Those of the first group begin with the bias.
  void make(const float *weights, const float *bias) {
    float *to = at;
    for (Size j = 0; j < ld; j += WIDE * V) {
      const Size chunk = ld - j < WIDE * V ? ld - j : WIDE * V;
      for (Size g = 0; g < groups(); g++, to += SUMS * chunk)
        for (Size k = 0; k < chunk; k += V) {
          Vec x[GROUP];
          UNROLL for (Size i = 0; i < GROUP; i++)
            x[i] = g * GROUP + i < inputs ? load(weights + (g * GROUP + i) * ld + j + k) : Vec{};
          const Vec found[4] = {x[0] + x[1] + x[2], x[0] + x[1] - x[2], x[0] - x[1] + x[2], x[0] - x[1] - x[2]};
          const Vec start = bias ? load(bias + j + k) : Vec{};
          UNROLL for (Size i = 0; i < 4; i++) {
            store(to + i * chunk + k, g ? found[i] : start + found[i]);
            store(to + (SUMS - 1 - i) * chunk + k, g ? -found[i] : start - found[i]);
          }
        }
    }
  }

  // Columns j to j + N V of the layer's outputs, (rows, ld), out of the sums in `table`; or where these go to a lone
  // output alone, (rows, V), by weights `above`, what they add to each lane of it.
  template <int N>
  void add(const uint8_t *bits, Size place, Size rows, const float *table, Size j, const float *above, bool relu,
           float *to) const {
    const Size count = groups(), n = inputs, apart = above ? V : ld;
    if (!above) to += j;
    for (Size r = 0; r < rows; r++, place += n, to += apart) {
      Vec c[N];
      const float *from = table;
      for (Size g = 0; g < count;) {
        uint64_t word = following(bits, place + g * GROUP);
        const Size last = count < g + 57 / GROUP ? count : g + 57 / GROUP;
        if (!g) {
          UNROLL for (int i = 0; i < N; i++) c[i] = load(from + (word >> (64 - GROUP)) * (N * V) + i * V);
          g++, word <<= GROUP, from += SUMS * N * V;
        }
        for (; g < last; g++, word <<= GROUP, from += SUMS * N * V) {
          const float *row = from + (word >> (64 - GROUP)) * (N * V);
          UNROLL for (int i = 0; i < N; i++) c[i] += load(row + i * V);
        }
      }
      if (relu) UNROLL for (int i = 0; i < N; i++) c[i] = activated(RELU, c[i]);
      if (above) {
        Vec added = j ? load(to) : Vec{};
        UNROLL for (int i = 0; i < N; i++) added += c[i] * load(above + j + i * V);
        store(to, added);
      } else
        UNROLL for (int i = 0; i < N; i++) store(to + i * V, c[i]);
    }
  }

  void look_up(const uint8_t *bits, Size place, Size rows, const float *above, bool relu, float *to) const {
    const float *table = at;
    for (Size j = 0; j < ld; j += WIDE * V) {
      const Size n = ld - j < WIDE * V ? (ld - j) / V : WIDE;
#define OF(n) case n: add<n>(bits, place, rows, table, j, above, relu, to); break;
      switch (n) { OF(1) OF(2) OF(3) OF(4) OF(5) OF(6) OF(7) OF(8) }
#undef OF
      table += groups() * SUMS * n * V;
    }
  }
};

} // namespace
