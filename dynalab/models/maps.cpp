// What is read of the maps of a layer of units in one pass over memory; `maps.py` has the same in torch. And the weights
// of folds, of which `folds.py` and `unrolled.py` have.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

// GCC halves vectors for fear of a lower clock, which two loops in a pass of products do not bring.
#if defined(__AVX512F__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC target("prefer-vector-width=512")
#endif

typedef int64_t Size;

// What goes past NaN without a comparison stays: that of torch's amax, amin and maximum.
static inline float larger(float a, float b) { return (b > a) | (b != b) ? b : a; }
static inline float smaller(float a, float b) { return (b < a) | (b != b) ? b : a; }

// So many entries of a point stay in the first cache, with their extremes.
constexpr Size BLOCK = 2048;

// Of maps (offsets, points, units), the points' own first, and what is added to them, or null: their values, how far the
// largest and the smallest of all are from them, to (points, units) with rows `row` apart; the maps become what the
// tangents of ReLU there make of them.
extern "C" void tangents(float *maps, const float *more, Size offsets, Size points, Size units, Size row, float *here,
                         float *up, float *down) {
  float high[BLOCK], low[BLOCK], slope[BLOCK];
  for (Size point = 0; point < points; point++)
    for (Size first = 0; first < units; first += BLOCK) {
      const Size count = units - first < BLOCK ? units - first : BLOCK, to = point * row + first;
      for (Size offset = 0; offset < offsets; offset++) {
        const Size from = (offset * points + point) * units + first;
        float *at = maps + from;
        if (more)
          for (Size i = 0; i < count; i++) at[i] += more[from + i];
        if (!offset)
          for (Size i = 0; i < count; i++) {
            here[to + i] = high[i] = low[i] = at[i];
            slope[i] = at[i] > 0 ? 1.0f : 0.0f;
          }
        for (Size i = 0; i < count; i++) {
          high[i] = larger(high[i], at[i]);
          low[i] = smaller(low[i], at[i]);
          at[i] *= slope[i];
        }
      }
      for (Size i = 0; i < count; i++) {
        up[to + i] = high[i] - here[to + i];
        down[to + i] = low[i] - here[to + i];
      }
    }
}

// How many units of each layer are nearer than each radius, (points, radii, layers), of (points, units) each: their
// values and how far these go up and down over a step; NaN for points of which something is not a number.
extern "C" void nearer(const float *here, const float *up, const float *down, Size points, Size layers,
                       const Size *sizes, Size radii, const float *radius, float step, float *counts) {
  const float largest = std::numeric_limits<float>::max();
  float reached[BLOCK];
  for (Size point = 0; point < points; point++, counts += radii * layers) {
    int unknown = 0, far = 0, wide = 0;
    for (Size i = 0; i < radii * layers; i++) counts[i] = 0;
    for (Size layer = 0; layer < layers; layer++)
      for (Size left = sizes[layer], count; left > 0; left -= count, here += count, up += count, down += count) {
        count = left < BLOCK ? left : BLOCK;
        int odd = 0;
        for (Size i = 0; i < count; i++) {
          const float moved = larger(up[i], -down[i]), distance = std::fabs(here[i]) * step;
          reached[i] = distance / moved;
          odd += !(distance + moved <= largest);
        }
        for (Size r = 0; r < radii; r++) {
          const float own = radius[r];
          int found = 0;
          for (Size i = 0; i < count; i++) found += reached[i] < own;
          counts[r * layers + layer] += (float)found;
        }
        // Rare, and apart: what tells NaN from infinity is no loop that compilers make vectors of.
        for (Size i = 0; odd && i < count; i++) {
          const float moved = larger(up[i], -down[i]), distance = std::fabs(here[i]) * step;
          unknown |= (distance != distance) | (moved != moved);
          far |= distance > largest;
          wide |= moved > largest;
        }
      }
    if (unknown | (far & wide))
      for (Size i = 0; i < radii * layers; i++) counts[i] = std::numeric_limits<float>::quiet_NaN();
  }
}

// A fold's numbers, in turn: channels made and read, a kernel's height and width, whether channels come last in memory;
// where it is unrolled, height and width of maps made and read, strides and padding, else maps of one place by a kernel's.
struct Fold {
  Size to, by, kernel[2], last, made[2], read[2], stride[2], padding[2];
};

// Weights (to, by, kernel) of all folds times their channels' slopes, one after another; what they become lies as said.
extern "C" void scaled(const float *const *weights, const float *slope, Size count, const Fold *folds,
                       float *const *products) {
  std::vector<float> own;
  for (Size number = 0; number < count; number++) {
    const Fold &fold = folds[number];
    const Size by = fold.by, places = fold.kernel[0] * fold.kernel[1], size = by * places;
    const bool whole = fold.made[0] * fold.made[1] == 1 && fold.read[0] == fold.kernel[0] &&
                       fold.read[1] == fold.kernel[1] && fold.padding[0] == 0 && fold.padding[1] == 0;
    own.resize(size);
    for (Size to = 0; to < fold.to; to++) {
      const float *weight = weights[number] + to * size, by_slope = *slope++;
      float *scaled = whole ? products[number] + to * size : own.data();
      if (fold.last)
        for (Size place = 0; place < places; place++)
          for (Size i = 0; i < by; i++) scaled[place * by + i] = weight[i * places + place] * by_slope;
      else
        for (Size i = 0; i < size; i++) scaled[i] = weight[i] * by_slope;
      for (Size y = 0; !whole && y < fold.made[0]; y++)
        for (Size x = 0; x < fold.made[1]; x++) {
          const Size top = fold.stride[0] * y - fold.padding[0], left = fold.stride[1] * x - fold.padding[1];
          const Size from = std::max(left, Size(0)), end = std::max(std::min(left + fold.kernel[1], fold.read[1]), from);
          float *row = products[number] + ((y * fold.made[1] + x) * fold.to + to) * fold.read[0] * fold.read[1] * by;
          for (Size down = 0; down < fold.read[0]; down++, row += fold.read[1] * by) {
            float *met = row, *past = row;
            if (down >= top && down < top + fold.kernel[0] && from < end) {
              met = row + from * by;
              past = std::copy_n(scaled + ((down - top) * fold.kernel[1] + from - left) * by, (end - from) * by, met);
            }
            std::fill(row, met, 0.0f);
            std::fill(past, row + fold.read[1] * by, 0.0f);
          }
        }
    }
  }
}
