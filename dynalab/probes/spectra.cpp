// Statistics of the weights of several runs in one pass over memory, in float64; `spectra.py` has the same in torch.
//
// What a run comes to does not depend on any other, nor on where its numbers lie: lanes that hold different runs have
// nothing to do with each other, and everything goes through the same instructions.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <vector>
#if defined(__AVX__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
constexpr int V = 8;
#elif defined(__AVX__)
constexpr int V = 4;
#else
constexpr int V = 2;
#endif
typedef int64_t Size;
typedef double Vec __attribute__((vector_size(V * sizeof(double)), aligned(8), may_alias));
typedef int64_t Ints __attribute__((vector_size(V * sizeof(double)), aligned(8), may_alias));
#define UNROLL _Pragma("GCC unroll 16")

// Rows and vectors of columns of a product at a time; and vectors of matrices whose eigenvalues are found together.
constexpr int MR = V < 8 ? 4 : 8, NR = V < 8 ? 2 : 3, Q = 4, LANES = Q * V;

static inline Size whole(Size n) { return (n + V - 1) / V * V; }
static inline Vec load(const double *p) { return *(const Vec *)p; }
// GCC 12 makes six instructions of the conversion where one does.
#if defined(__AVX512F__)
static inline Vec load(const float *p) { return (Vec)_mm512_cvtps_pd(_mm256_loadu_ps(p)); }
#elif defined(__AVX__)
static inline Vec load(const float *p) { return (Vec)_mm256_cvtps_pd(_mm_loadu_ps(p)); }
#else
static inline Vec load(const float *p) { return Vec{p[0], p[1]}; }
#endif
static inline void store(double *p, Vec v) { *(Vec *)p = v; }
static inline Vec size(Vec x) { return x < 0.0 ? -x : x; }
static inline Vec rooted(Vec x) {
  for (int i = 0; i < V; i++) x[i] = std::sqrt(x[i]);
  return x;
}
static inline double sum(Vec v) {
  double total = 0;
  for (int i = 0; i < V; i++) total += v[i];
  return total;
}

#if defined(__GNUC__) && !defined(__clang__)
template <int H> static inline Vec folded(Vec a, Vec b) {
  Ints low, high;
  for (int k = 0; k < V; k++) {
    low[k] = k & H ? V + (k ^ H) : k;
    high[k] = k & H ? V + k : k ^ H;
  }
  return __builtin_shuffle(a, b, low) + __builtin_shuffle(a, b, high);
}
// The sums of V vectors.
template <int H = 1> static inline Vec sums(Vec *parts) {
  for (int i = 0; i < V / (2 * H); i++) parts[i] = folded<H>(parts[2 * i], parts[2 * i + 1]);
  if constexpr (2 * H < V) return sums<2 * H>(parts);
  return parts[0];
}
#else
static inline Vec sums(Vec *parts) {
  Vec total;
  for (int i = 0; i < V; i++) total[i] = sum(parts[i]);
  return total;
}
#endif

namespace {

struct Memory {
  void *held = nullptr;
  explicit Memory(Size n) {
    if (posix_memalign(&held, 64, (n + V) * sizeof(double))) throw std::bad_alloc();
    std::memset(held, 0, (n + V) * sizeof(double));
  }
  Memory(const Memory &) = delete;
  ~Memory() { std::free(held); }
  double *numbers() const { return (double *)held; }
};

// MR rows of C = X^T X, X (K, ld), from row j and column k on, N vectors of columns, as far as the diagonal.
template <int N> void tile(const double *X, Size K, Size l, Size ld, double *C, Size j, Size k) {
  Vec c[MR][N];
  UNROLL for (int i = 0; i < MR; i++)
    UNROLL for (int q = 0; q < N; q++) c[i][q] = Vec{};
  const double *row = X;
  for (Size r = 0; r < K; r++, row += ld) {
    Vec b[N];
    UNROLL for (int q = 0; q < N; q++) b[q] = load(row + k + q * V);
    UNROLL for (int i = 0; i < MR; i++)
      UNROLL for (int q = 0; q < N; q++) c[i][q] += row[j + i] * b[q];
  }
  for (int i = 0; i < MR && j + i < l; i++)
    for (Size q = k; q <= j + i && q < k + N * V; q++) C[(j + i) * l + q] = c[i][(q - k) / V][(q - k) % V];
}

// The lower triangle of C (l, l) = X^T X.
void products(const double *X, Size K, Size l, Size ld, double *C) {
  for (Size j = 0; j < l; j += MR) {
    const Size vectors = (j + MR + V - 1) / V;
    Size k = 0;
    for (; k + NR <= vectors; k += NR) tile<NR>(X, K, l, ld, C, j, k * V);
    if (vectors - k == 2) tile<2>(X, K, l, ld, C, j, k * V);
    if (vectors - k == 1) tile<1>(X, K, l, ld, C, j, k * V);
  }
}

// y = A x for the lower triangle A (n, n) of rows `ld` apart, from which v w^T + w v^T is taken before where UPDATES;
// there are whole(n) rows, and vectors are zero from n on.
template <bool UPDATES>
void pass(double *A, Size n, Size ld, const double *v, const double *w, const double *x, double *y) {
  Ints lane;
  for (int i = 0; i < V; i++) lane[i] = i;
  const auto taken = [v, w](double *entries, Size row, Vec vk, Vec wk) {
    Vec a = load(entries);
    if (UPDATES) {
      a -= v[row] * wk;
      a -= w[row] * vk;
      store(entries, a);
    }
    return a;
  };
  std::memset(y, 0, whole(n) * sizeof(double));
  for (Size j = 0; j < n; j += V) {
    double *rows = A + j * ld;
    Vec total[V];
    UNROLL for (int i = 0; i < V; i++) total[i] = Vec{};
    for (Size k = 0; k < j; k += V) {
      const Vec vk = load(v + k), wk = load(w + k), xk = load(x + k);
      Vec yk = load(y + k);
      UNROLL for (int i = 0; i < V; i++) {
        const Vec a = taken(rows + i * ld + k, j + i, vk, wk);
        total[i] += a * xk;
        yk += a * x[j + i];
      }
      store(y + k, yk);
    }
    const Vec vk = load(v + j), wk = load(w + j), xk = load(x + j);
    Vec yk = load(y + j);
    UNROLL for (int i = 0; i < V; i++) {
      const Vec a = taken(rows + i * ld + j, j + i, vk, wk);
      const Vec below = lane < i ? a : Vec{};
      total[i] += (lane == i ? a : below) * xk;
      yk += below * x[j + i];
    }
    store(y + j, yk + sums(total));
  }
  for (Size k = n; k < whole(n); k++) y[k] = 0;
}

// The reflection that leaves of a row's first n entries the last one; returns its factor, and that entry's square.
double reflection(const double *row, Size n, double *v, double &square) {
  Vec squares{};
  std::memcpy(v, row, n * sizeof(double));
  const double last = row[n - 1];
  std::memset(v + n - 1, 0, (whole(n) - n + 1) * sizeof(double));
  for (Size k = 0; k < n; k += V) squares += load(v + k) * load(v + k);
  const double others = sum(squares);
  square = last * last + others;
  if (others == 0) {
    std::memset(v, 0, whole(n) * sizeof(double));
    return 0;
  }
  const double norm = std::sqrt(square);
  v[n - 1] = last < 0 ? last - norm : last + norm;
  return 1 / (norm * (norm + std::fabs(last)));
}

// Brings the lower triangle A (n, n), rows `ld` apart and whole(n) of them, to tridiagonal form (Golub and Van Loan 2013,
// section 8.3.1, from the last row on): its diagonal, and the squares beside it, [i] of entry (i, i - 1). There is room
// for 4 vectors.
void tridiagonal(double *A, Size n, Size ld, double *diagonal, double *beside, double *room) {
  double *v = room, *w = v + ld, *x = w + ld, *y = x + ld;
  double factor = 0;
  for (Size r = n - 1; r >= 0; r--) {
    double *row = A + r * ld;
    if (r < n - 1) {
      // Up to this row the one before is still to be taken off.
      Vec along{};
      for (Size k = 0; k <= r; k += V) {
        const Vec product = load(y + k) * factor;
        store(w + k, product);
        along += product * load(v + k);
      }
      const double share = sum(along) * factor * 0.5;
      for (Size k = 0; k <= r; k += V) store(w + k, load(w + k) - share * load(v + k));
      const double vr = v[r], wr = w[r];
      for (Size k = 0; k <= r; k += V) store(row + k, load(row + k) - vr * load(w + k) - wr * load(v + k));
    }
    diagonal[r] = row[r];
    if (!r) break;
    factor = reflection(row, r, x, beside[r]);
    if (r < n - 1) {
      for (Size k = r; k < whole(r); k++) v[k] = w[k] = 0;
      pass<true>(A, r, ld, v, w, x, y);
    } else
      pass<false>(A, r, ld, v, w, x, y);
    std::swap(v, x);
  }
  beside[0] = 0;
}

// Eigenvalues of LANES tridiagonal matrices of `last + 1` rows each at once, by the root-free QR of Pal, Walker and Kahan
// (Parlett 1980, section 8.15; LAPACK's dsterf) in the place of the diagonals d; the squares e, [i] beside d[i - 1]
// and d[i], are used up. Where a matrix is split in parts, a step goes through all of them. Returns whether all were
// found.
bool eigenvalues(Vec (*d)[Q], Vec (*e)[Q], Size *last) {
  constexpr double EPS = std::numeric_limits<double>::epsilon() / 2, SMALL = 1e-34;
  const auto at = [](Vec(*x)[Q], Size i, int lane) -> double { return x[i][lane / V][lane % V]; };
  Size left = 60 * (1 + *std::max_element(last, last + LANES));
  while (true) {
    Vec shift[Q], end[Q], other[Q], square[Q]; // the last two of the diagonal that are left, and beside them
    Ints ends[Q];
    Size longest = 0, most[Q] = {};
    for (int lane = 0; lane < LANES; lane++) {
      Size &n = last[lane];
      while (n && (at(e, n, lane) <= SMALL ||
                   at(e, n, lane) <= EPS * EPS * std::fabs(at(d, n, lane) * at(d, n - 1, lane))))
        n--;
      longest = n > longest ? n : longest;
      const int q = lane / V, i = lane % V;
      most[q] = std::max(most[q], n);
      ends[q][i] = n, end[q][i] = at(d, n, lane), other[q][i] = at(d, n ? n - 1 : 0, lane);
      square[q][i] = n ? at(e, n, lane) : 1;
    }
    if (!longest) return true;
    for (int q = 0; q < Q; q++) {
      const Vec root = rooted(square[q]), ratio = (other[q] - end[q]) / (2.0 * root), far = rooted(ratio * ratio + 1.0);
      shift[q] = ends[q] > 0 ? end[q] - root / (ratio + (ratio < 0.0 ? -far : far)) : Vec{};
    }
    if (!left--) return false;
    Vec c[Q], s[Q], gamma[Q], p[Q];
    for (int q = 0; q < Q; q++) {
      c[q] = Vec{} + 1.0;
      s[q] = Vec{};
      gamma[q] = d[0][q] - shift[q];
      p[q] = gamma[q] * gamma[q];
    }
    for (Size i = 1; i <= longest; i++)
      UNROLL for (int q = 0; q < Q; q++) {
        if (i > most[q]) continue;
        const Ints moves = ends[q] >= i, ended = ends[q] == i;
        const Vec b = e[i][q], alpha = d[i][q], r = p[q] + b;
        const Ints none = r == 0.0;
        const Vec over = 1.0 / (none ? Vec{} + 1.0 : r), turned = none ? Vec{} + 1.0 : p[q] * over, sine = b * over;
        const Vec kept = s[q] * r, next = turned * (alpha - shift[q]) - sine * gamma[q];
        const Vec before = gamma[q] + (alpha - next);
        const Ints flat = turned == 0.0;
        const Vec squared = next * next / (flat ? Vec{} + 1.0 : turned), product = flat ? c[q] * b : squared;
        if (i > 1) e[i - 1][q] = moves ? kept : e[i - 1][q];
        d[i - 1][q] = moves ? before : d[i - 1][q];
        d[i][q] = ended ? shift[q] + next : alpha;
        e[i][q] = ended ? sine * product : b;
        c[q] = turned, s[q] = sine, gamma[q] = next, p[q] = product;
      }
  }
}

struct Part {
  const float *at;
  Size count; // entries of a run
};

template <class F> void each(const Part *parts, Size count, Size run, F of) {
  for (Size i = 0; i < count; i++) of(parts[i].at + run * parts[i].count, parts[i].count);
}

// A matrix of a run, of which a product with itself is wanted, or is there.
struct One {
  Size n;
  const double *product;
  const float *weights;
  Size rows, cols;
  double *to; // of what is found, the numbers are `every` apart
  Size every;
};

// Makes the smaller of W W^T and W^T W, its lower triangle, and finds the sums of sizes, of squares and of the diagonal.
// There is room for X (max(rows, cols), ld).
constexpr Size room_of(Size l) { return (l + NR * V + MR) / V * V + V; }
void gram(const One &one, double *X, double *to, double *sums_of) {
  const float *W = one.weights;
  const Size m = one.rows, n = one.cols, l = one.n, ld = room_of(l);
  Vec sizes[4]{};
  Size k = 0;
  double rest = 0, squares = 0, diagonal = 0;
  for (; k + 4 * V <= m * n; k += 4 * V)
    UNROLL for (int i = 0; i < 4; i++) sizes[i] += size(load(W + k + i * V));
  for (; k < m * n; k++) rest += std::fabs(W[k]);
  if (m < n) {
    for (Size some = 0; some < m; some += V)
      for (Size j = 0; j < n; j++)
        for (Size i = some; i < m && i < some + V; i++) X[j * ld + i] = W[i * n + j];
  } else
    for (Size i = 0; i < m; i++)
      for (Size j = 0; j < n; j++) X[i * ld + j] = W[i * n + j];
  products(X, m < n ? n : m, l, ld, to);
  for (Size i = 0; i < l; i++) squares += to[i * l + i], diagonal += W[i * n + i];
  sums_of[0] = sum(sizes[0] + sizes[1] + (sizes[2] + sizes[3])) + rest, sums_of[1] = squares, sums_of[2] = diagonal;
}

// Of every matrix the largest, the mean and the variance of the roots of the eigenvalues of its product, those below
// `least` counted as 0; and before them, where the product is made here, what `gram` finds. Returns as `spectra`.
int decompose(std::vector<One> &all, double least) {
  // Those of a size together: a step of as many lanes takes as long as that of the largest.
  std::stable_sort(all.begin(), all.end(), [](const One &a, const One &b) { return a.n > b.n; });
  if (all.empty()) return 0;
  const Size most = all[0].n, ld = whole(most) + V;
  Size entries = 0;
  for (const One &one : all)
    if (!one.product) entries = std::max(entries, std::max(one.rows, one.cols) * room_of(one.n));
  Memory room(whole(most) * ld + 4 * ld), band(2 * most), bands(2 * most * LANES);
  Memory turned(entries), made(entries ? most * most : 0);
  double *A = room.numbers(), *d = bands.numbers(), *e = d + most * LANES;
  for (size_t first = 0; first < all.size(); first += LANES) {
    const int several = (int)std::min<size_t>(LANES, all.size() - first);
    Size last[LANES] = {};
    double scales[LANES] = {};
    std::memset(d, 0, 2 * most * LANES * sizeof(double));
    for (int lane = 0; lane < several; lane++) {
      const One &one = all[first + lane];
      const double *product = one.product;
      if (!product) {
        double found[3];
        gram(one, turned.numbers(), made.numbers(), found);
        for (int i = 0; i < 3; i++) one.to[(3 + i) * one.every] = found[i];
        product = made.numbers();
      }
      double &scale = scales[lane];
      for (Size i = 0; i < one.n; i++) scale = std::max(scale, std::fabs(product[i * one.n + i]));
      if (scale == 0) continue;
      std::memset(A, 0, whole(one.n) * ld * sizeof(double));
      for (Size i = 0; i < one.n; i++)
        for (Size j = 0; j <= i; j++) A[i * ld + j] = product[i * one.n + j] / scale;
      double *diagonal = band.numbers(), *beside = diagonal + most;
      tridiagonal(A, one.n, ld, diagonal, beside, A + whole(most) * ld);
      for (Size i = 0; i < one.n; i++) d[i * LANES + lane] = diagonal[i], e[i * LANES + lane] = beside[i];
      last[lane] = one.n - 1;
    }
    if (!eigenvalues((Vec(*)[Q])d, (Vec(*)[Q])e, last)) return 2;
    for (int lane = 0; lane < several; lane++) {
      const One &one = all[first + lane];
      double largest = 0, total = 0, squares = 0;
      for (Size i = 0; i < one.n; i++) {
        double &value = d[i * LANES + lane];
        value = std::sqrt(std::max(value, 0.0) * scales[lane]);
        if (value < least) value = 0;
        largest = std::max(largest, value);
        total += value;
      }
      const double mean = total / one.n;
      for (Size i = 0; i < one.n; i++) squares += (d[i * LANES + lane] - mean) * (d[i * LANES + lane] - mean);
      one.to[0] = largest, one.to[one.every] = mean, one.to[2 * one.every] = squares / one.n;
    }
  }
  return 0;
}

// Mean and variance of all entries of some tensors.
void moments(const Part *parts, Size count, Size run, double &mean, double &variance) {
  Size entries = 0;
  double total = 0, squares = 0;
  each(parts, count, run, [&](const float *x, Size n) {
    Vec sums[4]{};
    Size k = 0;
    for (; k + 4 * V <= n; k += 4 * V)
      UNROLL for (int i = 0; i < 4; i++) sums[i] += load(x + k + i * V);
    for (; k < n; k++) total += x[k];
    total += sum(sums[0] + sums[1] + (sums[2] + sums[3]));
    entries += n;
  });
  mean = total / entries;
  each(parts, count, run, [&](const float *x, Size n) {
    Vec sums[4]{};
    Size k = 0;
    for (; k + 4 * V <= n; k += 4 * V)
      UNROLL for (int i = 0; i < 4; i++) {
        const Vec off = load(x + k + i * V) - mean;
        sums[i] += off * off;
      }
    for (; k < n; k++) squares += (x[k] - mean) * (x[k] - mean);
    squares += sum(sums[0] + sums[1] + (sums[2] + sums[3]));
  });
  variance = squares / entries;
}

// The number at a place in ascending order, none of them NaN; their order changes. There is room for as many more.
float selected(float *x, Size n, Size place, float *room) {
  constexpr Size SOME = 64, ASIDE = 10;
  while (n > 8 * SOME) {
    // Those between two of a sample, which are a third.
    float sample[SOME];
    for (Size i = 0; i < SOME; i++) sample[i] = x[i * n / SOME + n / (2 * SOME)];
    std::sort(sample, sample + SOME);
    const Size middle = place * SOME / n;
    const float low = sample[std::max<Size>(middle - ASIDE, 0)], high = sample[std::min(middle + ASIDE, SOME - 1)];
    Size below = 0, kept = 0, i = 0;
#if defined(__AVX512F__)
    for (; i + 16 <= n; i += 16) {
      const __m512 y = _mm512_loadu_ps(x + i);
      const __mmask16 under = _mm512_cmp_ps_mask(y, _mm512_set1_ps(low), _CMP_LT_OQ);
      const __mmask16 within = _mm512_mask_cmp_ps_mask((__mmask16)~under, y, _mm512_set1_ps(high), _CMP_LE_OQ);
      _mm512_storeu_ps(room + kept, _mm512_maskz_compress_ps(within, y));
      below += __builtin_popcount(under), kept += __builtin_popcount(within);
    }
#endif
    for (; i < n; i++) {
      room[kept] = x[i];
      below += x[i] < low, kept += x[i] >= low && x[i] <= high;
    }
    if (place < below || place >= below + kept || kept > n / 2) break;
    std::swap(x, room);
    n = kept, place -= below;
  }
  std::nth_element(x, x + place, x + n);
  return x[place];
}

// Of all entries of some tensors, none of which is NaN, the lower of the two middle ones.
double median(const Part *parts, Size count, Size run, float *room) {
  Size n = 0;
  each(parts, count, run, [&](const float *x, Size own) {
    std::memcpy(room + n, x, own * sizeof(float));
    n += own;
  });
  // Adding 0 makes one of the two zeros, which compare equal.
  return selected(room, n, (n - 1) / 2, room + n + 16) + 0.0;
}

} // namespace

// Of positive matrices of some kinds, (counts[i], sizes[i], sizes[i]) each, of which the lower triangle is read: the
// largest, the mean and the variance of the roots of their eigenvalues, (3, counts[i]) each; roots below `least` count
// as 0. Returns 1 where there is no memory, 2 where eigenvalues were not found.
extern "C" int spectra(const double *const *matrices, const Size *counts, const Size *sizes, Size kinds, double least,
                       double *const *to) try {
  std::vector<One> all;
  for (Size kind = 0; kind < kinds; kind++)
    for (Size i = 0; i < counts[kind]; i++)
      all.push_back({sizes[kind], matrices[kind] + i * sizes[kind] * sizes[kind], nullptr, 0, 0, to[kind] + i, counts[kind]});
  return decompose(all, least);
} catch (const std::bad_alloc &) {
  return 1;
}

// The statistics of `weights.py`, in its order, of matrices (S, rows[i], entries / rows[i]) and biases (S, ...), (14, S);
// those of biases are NaN where there are none, all of a run whose sums are not finite. Returns as `spectra`.
extern "C" int statistics(const Part *weights, const Size *rows, Size count, const Part *biases, Size several, Size runs,
                          double least, double *to) try {
  Size entries = 0, others = 0;
  for (Size i = 0; i < count; i++) entries += weights[i].count;
  for (Size i = 0; i < several; i++) others += biases[i].count;
  std::vector<float> room(2 * std::max(entries, others) + 32);
  std::vector<double> found(6 * count * runs);
  std::vector<One> all;
  const auto at = [to, runs](int row, Size run) -> double & { return to[row * runs + run]; };
  std::fill(to, to + 14 * runs, std::numeric_limits<double>::quiet_NaN());
  for (Size run = 0; run < runs; run++) {
    double mean, variance, mean_b = 0, variance_b = 0;
    moments(weights, count, run, mean, variance);
    if (several) moments(biases, several, run, mean_b, variance_b);
    if (!std::isfinite(mean) || !std::isfinite(mean_b)) continue;
    at(3, run) = mean, at(4, run) = median(weights, count, run, room.data()), at(5, run) = variance;
    if (several)
      at(6, run) = mean_b, at(7, run) = median(biases, several, run, room.data()), at(8, run) = variance_b;
    for (Size i = 0; i < count; i++) {
      const Size m = rows[i], n = weights[i].count / m;
      all.push_back({std::min(m, n), nullptr, weights[i].at + run * m * n, m, n, &found[6 * (run * count + i)], 1});
    }
  }
  if (const int refused = decompose(all, least)) return refused;
  for (Size run = 0; run < runs; run++) {
    if (std::isnan(at(3, run))) continue;
    double totals[8] = {};
    for (Size i = 0; i < count; i++) {
      const double *own = &found[6 * (run * count + i)], largest = own[0], l1 = own[3], l2 = std::sqrt(own[4]);
      const double ratio = largest > 0 ? own[5] / largest : std::numeric_limits<double>::quiet_NaN();
      const double each[8] = {l1, l2, l1 / l2, own[5], largest, ratio, own[1], own[2]};
      for (int j = 0; j < 8; j++) totals[j] += each[j];
    }
    for (int j = 0; j < 8; j++) at(j < 3 ? j : j + 6, run) = totals[j] / count;
  }
  return 0;
} catch (const std::bad_alloc &) {
  return 1;
}

// The sum of squares of each of some tensors of S runs, or of what they differ in from others, null where from 0:
// (count, S).
static double square_sum(const Part &part, const Part *other, Size run) {
  const Size n = part.count;
  const float *x = part.at + run * n, *y = other ? other->at + run * n : nullptr;
  Vec sums[4]{};
  double rest = 0;
  Size k = 0;
  for (; k + 4 * V <= n; k += 4 * V)
    UNROLL for (int i = 0; i < 4; i++) {
      const Vec off = y ? load(x + k + i * V) - load(y + k + i * V) : load(x + k + i * V);
      sums[i] += off * off;
    }
  for (; k < n; k++) {
    const double off = y ? (double)x[k] - y[k] : x[k];
    rest += off * off;
  }
  return sum(sums[0] + sums[1] + (sums[2] + sums[3])) + rest;
}

extern "C" void squares(const Part *parts, const Part *others, Size count, Size runs, double *to) {
  for (Size part = 0; part < count; part++)
    for (Size run = 0; run < runs; run++) *to++ = square_sum(parts[part], others ? others + part : others, run);
}

// The squared norms of gradients, of what weights differ in from those before, and of the weights; and of the last layer's among
// the weights those of the weights and of the difference: (5, S). NaN of what is null.
extern "C" void norms(const Part *weights, const Part *before, Size count, const Part *gradients, Size several, Size last,
                      Size runs, double *to) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (Size run = 0; run < runs; run++, to++) {
    double all[3] = {gradients ? 0 : nan, before ? 0 : nan, 0}, ends[2] = {nan, nan};
    for (Size part = 0; gradients && part < several; part++) all[0] += square_sum(gradients[part], nullptr, run);
    for (Size part = 0; part < count; part++) {
      const double own = square_sum(weights[part], nullptr, run);
      const double moved = before ? square_sum(weights[part], before + part, run) : nan;
      all[1] += moved, all[2] += own;
      if (part == last) ends[0] = own, ends[1] = moved;
    }
    for (int i = 0; i < 3; i++) to[i * runs] = all[i];
    for (int i = 0; i < 2; i++) to[(3 + i) * runs] = ends[i];
  }
}

// How far matrices (S, m, n) have moved: the largest size of an entry of what they differ in from others, the same over
// the first k columns and over the rest, and the ratio of the root mean squares of the two: (4, S).
extern "C" int movement(const float *now, const float *then, Size runs, Size m, Size n, Size k, double *to) try {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  Memory room(2 * whole(n));
  double *squares = room.numbers(), *largest = squares + whole(n);
  for (Size run = 0; run < runs; run++, to++) {
    std::memset(squares, 0, 2 * whole(n) * sizeof(double));
    for (Size i = 0; i < m; i++, now += n, then += n) {
      Size j = 0;
      for (; j + V <= n; j += V) {
        const Vec off = load(now + j) - load(then + j), most = load(largest + j);
        store(squares + j, load(squares + j) + off * off);
        store(largest + j, size(off) > most ? size(off) : most);
      }
      for (; j < n; j++) {
        const double off = (double)now[j] - then[j];
        squares[j] += off * off, largest[j] = std::max(largest[j], std::fabs(off));
      }
    }
    double sums[2] = {}, most[2] = {};
    for (Size j = 0; j < n; j++) sums[j >= k] += squares[j], most[j >= k] = std::max(most[j >= k], largest[j]);
    for (int i = 0; i < 2; i++)
      if (std::isnan(sums[i])) most[i] = nan;
    const double ratio = std::sqrt(sums[0] / (m * k)) / std::sqrt(sums[1] / (m * (n - k)));
    to[0] = std::isnan(sums[1]) ? nan : std::max(most[0], most[1]);
    to[runs] = most[0], to[2 * runs] = most[1], to[3 * runs] = std::isfinite(ratio) ? ratio : nan;
  }
  return 0;
} catch (const std::bad_alloc &) {
  return 1;
}

// The Fourier coefficients of ReLU networks with one hidden layer, of weights (S, m, n), biases (S, m), null where there
// are none, and outer weights (S, m), on sets (count, k): (S, count). The formula stands in parity_fourier.py.
extern "C" int coefficients(const float *weights, const float *biases, const float *outer, Size runs, Size m, Size n,
                            const Size *sets, Size count, Size k, double *to) try {
  const Size ld = whole(m);
  Memory room((n + 2) * ld);
  double *turned = room.numbers(), *factors = turned + n * ld, *squares = factors + ld;
  for (Size run = 0; run < runs; run++, weights += m * n) {
    for (Size some = 0; some < m; some += V)
      for (Size j = 0; j < n; j++)
        for (Size i = some; i < m && i < some + V; i++) turned[j * ld + i] = weights[i * n + j];
    std::memset(squares, 0, ld * sizeof(double));
    for (Size j = 0; j < n; j++)
      for (Size i = 0; i < ld; i += V) {
        const Vec x = load(turned + j * ld + i);
        store(squares + i, load(squares + i) + x * x);
      }
    for (Size i = 0; i < m; i++) {
      const double scale = std::sqrt(squares[i]), t = biases ? biases[run * m + i] / scale : 0;
      double before = 0, hermite = 1, power = scale;
      for (Size order = 0; order < k - 2; order++) {
        const double next = t * hermite - order * before;
        before = hermite, hermite = next, power *= scale;
      }
      const double density = std::exp(-0.5 * t * t) / std::sqrt(2 * M_PI);
      factors[i] = outer[run * m + i] * ((k & 1 ? -hermite : hermite) * density / power);
    }
    for (Size set = 0; set < count; set++) {
      Vec total{};
      for (Size i = 0; i < ld; i += V) {
        Vec product = load(factors + i);
        for (Size q = 0; q < k; q++) product *= load(turned + sets[set * k + q] * ld + i);
        total += product;
      }
      *to++ = sum(total);
    }
  }
  return 0;
} catch (const std::bad_alloc &) {
  return 1;
}
