// Where one run's parameters lie, and how they come there, go back, and are averaged.
#pragma once
#include "compiled_work.h"
#include <cstdlib>
#include <new>
#include <vector>

namespace {

// A parameter of one run, in lines of whole vectors; (cols, rows) where it is flipped.
struct Own {
  Size rows, cols, ld;
  bool flipped;
  float *weights, *gradients, *moments[3], *turned; // turned: (in, whole(out)), the weights themselves where flipped
  float *mask, *held;                               // held: the weights as they were, where they are to be again
  float *average;                                   // of a single slot
  float *slow, *pulled[3];
  Size size() const { return (flipped ? cols : rows) * ld; }
  const float *evaluated() const { return slow ? slow : weights; }
};

struct Memory {
  std::vector<void *> held;
  float *floats(Size n) {
    void *p = nullptr;
    if (posix_memalign(&p, 64, (n + V) * sizeof(float))) throw std::bad_alloc();
    std::memset(p, 0, (n + V) * sizeof(float));
    held.push_back(p);
    return (float *)p;
  }
  ~Memory() {
    for (void *p : held) std::free(p);
  }
};

// Between lines as they lie outside, one at the other's end, and lines of whole vectors; `lines` is room for all of
// these. A vector may reach into the line that follows, which is written later.
void copy_in(const Own &o, float *to, const float *from, float *lines) {
  const Size ld = whole(o.cols), n = o.rows * o.cols;
  float *own = o.flipped ? lines : to;
  Ints places;
  for (int i = 0; i < V; i++) places[i] = i;
  for (Size r = 0; r < o.rows; r++)
    for (Size k = 0; k < ld; k += V) {
      const Size at = r * o.cols + k;
      Vec x{};
      // A run that diverged leaves NaN behind the last column, too.
      if (at + V <= n)
        x = places < (int32_t)(o.cols - k) ? load(from + at) : x;
      else
        for (int i = 0; i < o.cols - k; i++) x[i] = from[at + i];
      store(own + r * ld + k, x);
    }
  if (o.flipped) transposed(lines, o.rows, o.cols, ld, to, o.ld);
}
void copy_out(const Own &o, float *to, const float *from, float *lines) {
  const Size ld = whole(o.cols), n = o.rows * o.cols;
  if (o.flipped) transposed(from, o.cols, o.rows, o.ld, lines, ld);
  const float *own = o.flipped ? lines : from;
  for (Size r = 0; r < o.rows; r++)
    for (Size k = 0; k < ld; k += V) {
      const Size at = r * o.cols + k;
      if (at + V <= n)
        store(to + at, load(own + r * ld + k));
      else
        std::memcpy(to + at, own + r * ld + k, (o.cols - k) * sizeof(float));
    }
}

// Moves by a share of the way as torch's lerp does: from the nearer end.
struct Way {
  float near, far;
  bool nearer;
  explicit Way(double share = 0) : near((float)share), far((float)(share - 1)), nearer(share < 0.5) {}
  Vec along(Vec a, Vec x) const { return nearer ? a + near * (x - a) : x + far * (x - a); }
};
// Along several ways, one after another, N vectors at a time: as many as keep the processor busy.
template <int N> Size approach(const std::vector<Way> &ways, float *a, const float *x, Size from, Size n) {
  for (; from + N * V <= n; from += N * V) {
    Vec some[N], to[N];
    UNROLL for (int i = 0; i < N; i++) some[i] = load(a + from + i * V), to[i] = load(x + from + i * V);
    for (const Way &way : ways) UNROLL for (int i = 0; i < N; i++) some[i] = way.along(some[i], to[i]);
    UNROLL for (int i = 0; i < N; i++) store(a + from + i * V, some[i]);
  }
  return from;
}
double inner(const float *a, const float *b, Size n) {
  typedef double All __attribute__((vector_size(V * sizeof(double))));
  All sums{};
  for (Size k = 0; k < n; k += V)
    sums += __builtin_convertvector(load(a + k), All) * __builtin_convertvector(load(b + k), All);
  double total = 0;
  for (int i = 0; i < V; i++) total += sums[i];
  return total;
}
void approach(float *a, const float *x, Size n, double share) {
  if (share >= 1) {
    std::memcpy(a, x, n * sizeof(float));
    return;
  }
  const Way way(share);
  Size k = 0;
  for (; k + V <= n; k += V) store(a + k, way.along(load(a + k), load(x + k)));
  for (; k < n; k++) a[k] = way.along(Vec{} + a[k], Vec{} + x[k])[0];
}

} // namespace
