// Iterations of EM for hidden Markov models with linear-Gaussian emissions and full noise covariances.
//
// The same arithmetic as in emissions.py, covariances.py, inference.py and iterations.py, which are its oracle and what is
// used without a compiler. What cannot be done here (a covariance below its floor, say) is left to them: a function
// then returns 1 and has changed no parameter. All arrays are C-contiguous float64; names and shapes are those of
// `_Work` in compiled.py: N frames, S runs, K states, M features, P inputs, C = P + M columns.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

// As many numbers as a register holds: frames side by side in densities, states in recursions, columns in sums of
// products, and states again in the algebra of the M-step. Wider ones than registers are slow.
#if defined(__AVX512F__)
constexpr int LANES = 8, WIDE = 4;
#elif defined(__AVX__)
constexpr int LANES = 4, WIDE = 2;
#else
constexpr int LANES = 2, WIDE = 2;
#endif
template <int W> struct Register {
  typedef double V __attribute__((vector_size(8 * W)));
  // The same where it lies in an array.
  typedef double U __attribute__((vector_size(8 * W), aligned(8), may_alias));
};
typedef Register<LANES>::V V;
typedef Register<LANES>::U U;
typedef int64_t I __attribute__((vector_size(8 * LANES)));

// Frames of a block of `blocks`, of which `WIDE` times `LANES` are whitened at a time: there are registers for their
// sums. Columns of `rows` come by `TILE`.
constexpr int64_t BLOCK = 32, TILE = 8;
// As in kernels.py, frames.py and covariances.py.
constexpr double LEAST = -500.0, NEGLIGIBLE = 2.220446049250313e-16, CLEAR = 1e-9;
constexpr int ROUNDS = 3;
// Sweeps of rotations, and the share of the trace beside the diagonal before a sweep that needs no further one.
constexpr int MOST_SWEEPS = 20;
constexpr double SETTLED = 1e-12;
// Rows of which products are summed while they lie in the nearest cache.
constexpr int64_t ROWS = 128;

struct Work {
  int64_t frames, runs, states, size, inputs, wide, padded, independent, skips;
  const double *blocks, *rows, *first;
  const int64_t *begins, *skipped;
  const double *ridge, *scatter;
  double weight, floor, counts, sticky, common, constant;
  double *start, *transitions, *weights, *covariances;
  double *maps, *log_det, *middle;
  double *density, *filtered, *posterior, *scale, *shift;
  double *held, *starts, *pairs;
  double penalty, likelihood;
};

inline V load(const double *p) { return *reinterpret_cast<const U *>(p); }
inline void store(double *p, V v) { *reinterpret_cast<U *>(p) = v; }
inline V all(double x) { return x + V{}; }

// e^x for x from LEAST to 0: 2^n times a polynomial of the rest, whose last term is below rounding.
inline V exponential(V x) {
  const V magic = all(6755399441055744.0);
  const V shifted = x * 1.4426950408889634 + magic;
  const V n = shifted - magic;
  const V r = (x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
  V p = all(1.0 / 479001600);
  for (double c : {1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040, 1.0 / 720, 1.0 / 120,
                   1.0 / 24, 1.0 / 6, 0.5, 1.0, 1.0})
    p = p * r + c;
  return (V)((I)p + (((I)shifted - (I)magic) << 52));
}

// ---- densities -----------------------------------------------------------------------------------------------------

// Add the squares of R whitened residuals of some frames, of which the first `columns` columns are looked at.
template <int R>
inline void whiten(const double *map, int64_t C, int64_t columns, const double *block, V *sums) {
  V sum[R][WIDE] = {};
  for (int64_t c = 0; c < columns; c++)
#pragma GCC unroll 4
    for (int i = 0; i < WIDE; i++) {
      const V x = load(block + c * BLOCK + i * LANES);
#pragma GCC unroll 4
      for (int r = 0; r < R; r++) sum[r][i] += map[r * C + c] * x;
    }
#pragma GCC unroll 4
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int i = 0; i < WIDE; i++) sums[i] += sum[r][i] * sum[r][i];
}

void densities(const Work &w) {
  const int64_t K = w.states, M = w.size, P = w.inputs, C = P + M;
  double logs[16][BLOCK];
  for (int64_t begin = 0; begin < w.frames; begin += BLOCK) {
    const double *block = w.blocks + begin * C;
    for (int64_t k = 0; k < K; k++)
      for (int part = 0; part < BLOCK / LANES; part += WIDE) {
        const double *x = block + part * LANES, *map = w.maps + k * M * C;
        V sums[WIDE] = {};
        int64_t m = 0;
        // L^-1 is triangular: later columns are 0.
        for (; m + 4 <= M; m += 4) whiten<4>(map + m * C, C, P + m + 4, x, sums);
        if (M - m == 3) whiten<3>(map + m * C, C, C, x, sums);
        if (M - m == 2) whiten<2>(map + m * C, C, C, x, sums);
        if (M - m == 1) whiten<1>(map + m * C, C, C, x, sums);
        for (int i = 0; i < WIDE; i++)
          store(logs[k] + (part + i) * LANES, -0.5 * (sums[i] + (w.log_det[k] + w.constant)));
      }
    const int64_t here = w.frames - begin < BLOCK ? w.frames - begin : BLOCK;
    double most[BLOCK];
    for (int64_t i = 0; i < BLOCK; i += LANES) {
      V best = load(logs[0] + i);
      for (int64_t k = 1; k < K; k++) {
        const V x = load(logs[k] + i);
        best = x > best ? x : best;
      }
      store(most + i, best);
      for (int64_t k = 0; k < K; k++) {
        const V x = load(logs[k] + i) - best;
        store(logs[k] + i, exponential(x > LEAST ? x : all(LEAST)));
      }
    }
    std::memcpy(w.shift + begin, most, here * sizeof(double));
    for (int64_t n = 0; n < here; n++)
      for (int64_t k = 0; k < K; k++) w.density[(begin + n) * w.padded + k] = logs[k][n];
  }
  if (w.first)
    for (int64_t run = 0; run < w.runs; run++) {
      const int64_t n = w.begins[run];
      w.shift[n] = w.first[run];
      for (int64_t k = 0; k < K; k++) w.density[n * w.padded + k] = 1.0;
    }
  for (int64_t skip = 0; skip < w.skips; skip++) {
    w.shift[w.skipped[skip]] = 0.0;
    for (int64_t k = 0; k < K; k++) w.density[w.skipped[skip] * w.padded + k] = 1.0;
  }
}

// ---- forward and backward ------------------------------------------------------------------------------------------

// Runs that are followed side by side, so that one's arithmetic fills the time that another's has to wait.
constexpr int64_t SIDE = 4;

// Numbers of up to KP states.
template <int KP> struct Chain {
  static constexpr int W = KP < LANES ? KP : LANES, PARTS = KP / W, STATES = KP;
  typename Register<W>::V part[PARTS];

  static auto at(const double *p, int i) { return *reinterpret_cast<const typename Register<W>::U *>(p + i * W); }
  static Chain of(const double *p) {
    Chain out;
    for (int i = 0; i < PARTS; i++) out.part[i] = at(p, i);
    return out;
  }
  void keep(double *p) const {
    for (int i = 0; i < PARTS; i++) *reinterpret_cast<typename Register<W>::U *>(p + i * W) = part[i];
  }
  Chain operator*(const Chain &other) const {
    Chain out;
    for (int i = 0; i < PARTS; i++) out.part[i] = part[i] * other.part[i];
    return out;
  }
  Chain operator*(double x) const {
    Chain out;
    for (int i = 0; i < PARTS; i++) out.part[i] = part[i] * x;
    return out;
  }
  Chain operator+(const Chain &other) const {
    Chain out;
    for (int i = 0; i < PARTS; i++) out.part[i] = part[i] + other.part[i];
    return out;
  }
  Chain operator/(double x) const {
    Chain out;
    for (int i = 0; i < PARTS; i++) out.part[i] = part[i] / x;
    return out;
  }
  double sum() const {
    auto all = part[0];
    for (int i = 1; i < PARTS; i++) all += part[i];
    double x[W];
    std::memcpy(x, &all, sizeof x);
    for (int half = W / 2; half; half /= 2)
      for (int i = 0; i < half; i++) x[i] += x[i + half];
    return x[0];
  }
  // sum_i a_i matrix[i]
  static Chain product(const double *a, const double *matrix, int64_t K) {
    Chain even = of(matrix) * a[0], odd = of(matrix) * 0.0;
    int64_t i = 1;
    for (; i + 2 <= K; i += 2)
      for (int j = 0; j < PARTS; j++) {
        odd.part[j] += a[i] * at(matrix + i * KP, j);
        even.part[j] += a[i + 1] * at(matrix + (i + 1) * KP, j);
      }
    for (int j = 0; j < PARTS; j++) {
      if (i < K) odd.part[j] += a[i] * at(matrix + i * KP, j);
      even.part[j] += odd.part[j];
    }
    return even;
  }
};

// Logarithm of a product of many numbers of 0 to 1, none of them below 1e-130.
struct Logarithm {
  double product = 1.0, value = 0.0;
  void times(double x) {
    product *= x;
    if (product < 1e-150) {
      value += std::log(product);
      product = 1.0;
    }
  }
  double end() const { return value + std::log(product); }
};

template <class G> void forward_(Work &w) {
  const int64_t K = w.states, KP = G::STATES;
  double start[16] = {}, matrix[16 * 16] = {};
  std::memcpy(start, w.start, K * sizeof(double));
  for (int64_t i = 0; i < K; i++) std::memcpy(matrix + i * KP, w.transitions + i * K, K * sizeof(double));
  const G begin = G::of(start);
  Logarithm evidence;
  auto settle = [&](int64_t n, G both) {
    const double sum = both.sum();
    w.scale[n] = 1.0 / sum;
    (both * w.scale[n]).keep(w.filtered + n * KP);
    evidence.times(sum);
  };
  if (w.independent)
    for (int64_t n = 0; n < w.frames; n++) settle(n, begin * G::of(w.density + n * KP));
  for (int64_t run = 0; run < w.runs && !w.independent; run += SIDE) {
    const int64_t together = w.runs - run < SIDE ? w.runs - run : SIDE;
    int64_t left = together;
    for (int64_t t = 0; left; t++) {
      left = 0;
      for (int64_t side = 0; side < together; side++) {
        const int64_t n = w.begins[run + side] + t;
        if (n >= w.begins[run + side + 1]) continue;
        left++;
        const G arrived = t ? G::product(w.filtered + (n - 1) * KP, matrix, K) : begin;
        settle(n, arrived * G::of(w.density + n * KP));
      }
    }
  }
  double shift = 0.0;
  for (int64_t n = 0; n < w.frames; n++) shift += w.shift[n];
  w.likelihood = evidence.end() + shift;
}

// Put p(z_t | all) into `posterior`, and density times the scaled backward recursion into `density`.
template <class G> void smooth(Work &w) {
  const int64_t K = w.states, KP = G::STATES;
  double matrix[16 * 16] = {}, ones[16] = {};
  for (int64_t i = 0; i < K; i++) {
    ones[i] = 1.0;
    for (int64_t j = 0; j < K; j++) matrix[j * KP + i] = w.transitions[i * K + j];
  }
  for (int64_t run = 0; run < w.runs; run += SIDE) {
    const int64_t together = w.runs - run < SIDE ? w.runs - run : SIDE;
    int64_t left = together;
    for (int64_t t = 0; left; t++) {
      left = 0;
      for (int64_t side = 0; side < together; side++) {
        const int64_t n = w.begins[run + side + 1] - 1 - t;
        if (n < w.begins[run + side]) continue;
        left++;
        const G behind = (t ? G::product(w.density + (n + 1) * KP, matrix, K) : G::of(ones)) * w.scale[n];
        const G both = G::of(w.filtered + n * KP) * behind;
        // A certain frame is one, exactly: a state with one is not dead.
        (both / both.sum()).keep(w.posterior + n * KP);
        (G::of(w.density + n * KP) * behind).keep(w.density + n * KP);
      }
    }
  }
}

template <class G> void backward_(Work &w) {
  const int64_t K = w.states, KP = G::STATES;
  double pairs[16 * 16] = {}, held[16] = {}, starts[16] = {};
  if (w.independent)
    for (int64_t n = 0; n < w.frames; n++) {
      const G share = G::of(w.filtered + n * KP);
      (share / share.sum()).keep(w.posterior + n * KP);
    }
  else
    smooth<G>(w);
  for (int64_t run = 0; run < w.runs; run++) {
    const int64_t begin = w.begins[run], end = w.begins[run + 1];
    for (int64_t k = 0; k < K; k++) starts[k] += w.posterior[begin * KP + k];
    for (int64_t n = begin + (w.first != nullptr); n < end; n++)
      for (int64_t k = 0; k < KP; k++) held[k] += w.posterior[n * KP + k];
    if (w.independent) continue;
    // Four states at a time: one sum alone would wait for itself.
    for (int64_t i = 0; i < K; i += 4) {
      G sum[4];
      for (int r = 0; r < 4; r++) sum[r] = G::of(pairs + (i + r) * KP);
      for (int64_t n = begin + 1; n < end; n++) {
        const G arrived = G::of(w.density + n * KP);
        const double *from = w.filtered + (n - 1) * KP + i;
        for (int r = 0; r < 4; r++) sum[r] = sum[r] + arrived * from[r];
      }
      for (int r = 0; r < 4; r++) sum[r].keep(pairs + (i + r) * KP);
    }
  }
  for (int64_t skip = 0; skip < w.skips; skip++)
    for (int64_t k = 0; k < K; k++) held[k] -= w.posterior[w.skipped[skip] * KP + k];
  std::memcpy(w.held, held, K * sizeof(double));
  std::memcpy(w.starts, starts, K * sizeof(double));
  for (int64_t i = 0; i < K; i++)
    for (int64_t j = 0; j < K; j++) w.pairs[i * K + j] = w.transitions[i * K + j] * pairs[i * KP + j];
}

// ---- sums of products ----------------------------------------------------------------------------------------------

// Add the weighted products of `TILE` columns from `i` with `LANES` from `j`, of some rows, to a matrix (wide, wide).
inline void products(const double *const *rows, const double *shares, int64_t n, int64_t i, int64_t j,
                     double *out, int64_t wide) {
  V sum[TILE];
#pragma GCC unroll 8
  for (int64_t r = 0; r < TILE; r++) sum[r] = load(out + (i + r) * wide + j);
  for (int64_t row = 0; row < n; row++) {
    const V x = load(rows[row] + j) * shares[row];
#pragma GCC unroll 8
    for (int64_t r = 0; r < TILE; r++) sum[r] += rows[row][i + r] * x;
  }
#pragma GCC unroll 8
  for (int64_t r = 0; r < TILE; r++) store(out + (i + r) * wide + j, sum[r]);
}

// sum_n posterior_nk d_n d_n^T, its upper triangle (by tiles), into `out` (wide, wide).
void gram(const Work &w, int64_t k, double *out) {
  const double *rows[ROWS];
  double shares[ROWS];
  int64_t count = 0;
  std::memset(out, 0, w.wide * w.wide * sizeof(double));
  for (int64_t n = 0; n <= w.frames; n++) {
    if (count == ROWS || (n == w.frames && count)) {
      for (int64_t i = 0; i < w.wide; i += TILE)
        for (int64_t j = i; j < w.wide; j += LANES) products(rows, shares, count, i, j, out, w.wide);
      count = 0;
    }
    if (n == w.frames) break;
    const double share = w.posterior[n * w.padded + k];
    if (share > NEGLIGIBLE) {
      rows[count] = w.rows + n * w.wide;
      shares[count++] = share;
    }
  }
}

// ---- algebra of several matrices at a time ---------------------------------------------------------------------------

// A matrix of the entries of `LANES` states', row by row.
struct Lanes {
  int64_t width;
  std::vector<double> values;
  Lanes(int64_t rows, int64_t columns) : width(columns), values(rows * columns * LANES) {}
  U &operator()(int64_t i, int64_t j) { return *reinterpret_cast<U *>(&values[(i * width + j) * LANES]); }
};

inline bool positive(V x) {
  bool found = true;
  for (int64_t lane = 0; lane < LANES; lane++) found &= x[lane] > 0;
  return found;
}

inline V root(V x) {
  V out = x;
  for (int64_t lane = 0; lane < LANES; lane++) out[lane] = std::sqrt(x[lane]);
  return out;
}

// Turn the lower triangle of an n x n matrix into its Cholesky factor as far as `steps` columns; what is below and
// right of them becomes what is left of the matrix. False where a pivot is not positive.
bool cholesky(Lanes &a, int64_t n, int64_t steps) {
  for (int64_t j = 0; j < steps; j++) {
    if (!positive(a(j, j))) return false;
    a(j, j) = root(a(j, j));
    const V inverse = 1.0 / a(j, j);
    for (int64_t i = j + 1; i < n; i++) a(i, j) *= inverse;
    for (int64_t i = j + 1; i < n; i++)
      for (int64_t k = j + 1; k <= i; k++) a(i, k) -= a(i, j) * a(k, j);
  }
  return true;
}

// Whether symmetric matrices less `least` times the unit matrix have a Cholesky factor.
bool above(Lanes &a, int64_t n, V least) {
  Lanes less = a;
  for (int64_t i = 0; i < n; i++) less(i, i) -= least;
  return cholesky(less, n, n);
}

// The inverse of a lower triangle.
void invert_triangle(Lanes &a, Lanes &out, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    const V inverse = 1.0 / a(i, i);
    for (int64_t j = 0; j < i; j++) {
      V sum = all(0.0);
      for (int64_t k = j; k < i; k++) sum += a(i, k) * out(k, j);
      out(i, j) = -sum * inverse;
    }
    out(i, i) = inverse;
    for (int64_t j = i + 1; j < n; j++) out(i, j) = all(0.0);
  }
}

// Raise the eigenvalues of symmetric matrices to a floor. `vectors` (by rows) are orthonormal and near those of the
// matrices, or anything else that is; they are brought up to date. Jacobi's rotations; a sweep
// squares what is left beside the diagonal. False where that takes too long.
bool raise_floor(Lanes &a, int64_t n, V floor, Lanes &vectors) {
  Lanes half(n, n), b(n, n);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < n; j++) {
      V sum = all(0.0);
      for (int64_t k = 0; k < n; k++) sum += vectors(i, k) * a(k, j);
      half(i, j) = sum;
    }
  V trace = all(0.0);
  for (int64_t i = 0; i < n; i++) {
    for (int64_t j = 0; j <= i; j++) {
      V sum = all(0.0);
      for (int64_t k = 0; k < n; k++) sum += half(i, k) * vectors(j, k);
      b(i, j) = b(j, i) = sum;
    }
    trace += b(i, i);
  }
  bool done = n == 1;
  for (int sweep = 0; sweep < MOST_SWEEPS && !done; sweep++) {
    V largest = all(0.0);
    for (int64_t p = 0; p < n - 1; p++)
      for (int64_t q = p + 1; q < n; q++) {
        const V between = b(p, q), half_gap = 0.5 * (b(q, q) - b(p, p));
        const V size = between < 0.0 ? -between : between;
        largest = size > largest ? size : largest;
        const V gap = half_gap < 0.0 ? -half_gap : half_gap;
        const V below = gap + root(gap * gap + between * between);
        const V signed_ = half_gap < 0.0 ? -between : between;
        const V t = below > 0.0 ? signed_ / below : all(0.0);
        const V c = 1.0 / root(1.0 + t * t), s = t * c;
        b(p, p) -= t * between;
        b(q, q) += t * between;
        b(p, q) = b(q, p) = all(0.0);
        for (int64_t k = 0; k < n; k++) {
          const V u = vectors(p, k), v = vectors(q, k);
          vectors(p, k) = c * u - s * v;
          vectors(q, k) = s * u + c * v;
          if (k == p || k == q) continue;
          const V x = b(p, k), y = b(q, k);
          b(p, k) = b(k, p) = c * x - s * y;
          b(q, k) = b(k, q) = s * x + c * y;
        }
      }
    done = positive(SETTLED * trace - largest);
  }
  if (!done) return false;
  for (int64_t p = 0; p < n; p++) {
    const V value = b(p, p), lack = value < floor ? floor - value : all(0.0);
    for (int64_t i = 0; i < n; i++) {
      const V share = lack * vectors(p, i);
      for (int64_t j = 0; j < n; j++) a(i, j) += share * vectors(p, j);
    }
  }
  return true;
}

// Inverses of symmetric matrices that are far from singular; false where one is not. Only lower triangles are read.
bool invert(Lanes &a, Lanes &out, int64_t n) {
  V trace = all(0.0);
  for (int64_t i = 0; i < n; i++) trace += a(i, i);
  if (!above(a, n, CLEAR * trace)) return false;
  Lanes factor = a, triangle(n, n);
  if (!cholesky(factor, n, n)) return false;
  invert_triangle(factor, triangle, n);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j <= i; j++) {
      V sum = all(0.0);
      for (int64_t k = i; k < n; k++) sum += triangle(k, i) * triangle(k, j);
      out(i, j) = out(j, i) = sum;
    }
  return true;
}

// What the noise covariances of all states have in common (M, M): their harmonic mean.
bool in_common(std::vector<Lanes> &covariances, int64_t K, int64_t M, double *out) {
  Lanes inverse(M, M), mean(M, M);
  std::vector<double> sum(M * M, 0.0);
  for (size_t group = 0; group < covariances.size(); group++) {
    if (!invert(covariances[group], inverse, M)) return false;
    const int64_t here = K - int64_t(group) * LANES < LANES ? K - int64_t(group) * LANES : LANES;
    for (int64_t i = 0; i < M; i++)
      for (int64_t j = 0; j < M; j++)
        for (int64_t lane = 0; lane < here; lane++) sum[i * M + j] += inverse(i, j)[lane];
  }
  for (int64_t i = 0; i < M; i++)
    for (int64_t j = 0; j < M; j++) mean(i, j) = all(sum[i * M + j] / double(K));
  if (!invert(mean, inverse, M)) return false;
  for (int64_t i = 0; i < M; i++)
    for (int64_t j = 0; j < M; j++) out[i * M + j] = inverse(i, j)[0];
  return true;
}

// The state in a lane of a group; lanes that are left over repeat the last state.
inline int64_t state(const Work &w, size_t group, int64_t lane) {
  const int64_t k = int64_t(group) * LANES + lane;
  return k < w.states ? k : w.states - 1;
}

// ---- what parameters come to ---------------------------------------------------------------------------------------

struct Made {
  std::vector<double> maps, log_det, middle;
  double penalty;
};

// Maps and determinants of noise covariances (`LANES` states a matrix) and weights W (K, M, P), and the log-penalty.
bool make(const Work &w, std::vector<Lanes> &covariances, const double *weights, const double *start,
          const double *transitions, const double *middle, Made &out) {
  const int64_t K = w.states, M = w.size, P = w.inputs, C = P + M;
  out.maps.assign(K * M * C, 0.0);
  out.log_det.assign(K, 0.0);
  double quadratic = 0.0, determinants = 0.0;
  Lanes factor(M, M), whiten(M, M), weight(M, P);
  for (size_t group = 0; group < covariances.size(); group++) {
    factor = covariances[group];
    if (!cholesky(factor, M, M)) return false;
    invert_triangle(factor, whiten, M);
    const int64_t here = K - int64_t(group) * LANES < LANES ? K - int64_t(group) * LANES : LANES;
    for (int64_t lane = 0; lane < LANES; lane++)
      for (int64_t i = 0; i < M * P; i++)
        weight.values[i * LANES + lane] = weights[state(w, group, lane) * M * P + i];
    V squares = all(0.0);
    for (int64_t i = 0; i < M; i++) {
      for (int64_t p = 0; p < P; p++) {
        V sum = all(0.0);
        for (int64_t j = 0; j <= i; j++) sum -= whiten(i, j) * weight(j, p);
        squares += w.ridge[p] * sum * sum;
        for (int64_t lane = 0; lane < here; lane++)
          out.maps[((int64_t(group) * LANES + lane) * M + i) * C + p] = sum[lane];
      }
      for (int64_t j = 0; j <= i; j++) {
        V sum = all(0.0);
        for (int64_t k = 0; k <= i; k++) sum += w.scatter[j * M + k] * whiten(i, k);
        squares += whiten(i, j) * sum;
        for (int64_t lane = 0; lane < here; lane++)
          out.maps[((int64_t(group) * LANES + lane) * M + i) * C + P + j] = whiten(i, j)[lane];
      }
    }
    for (int64_t lane = 0; lane < here; lane++) {
      double &log_det = out.log_det[group * LANES + lane];
      for (int64_t i = 0; i < M; i++) log_det += 2 * std::log(factor(i, i)[lane]);
      determinants += log_det;
      quadratic += squares[lane];
    }
  }
  out.penalty = -0.5 * (w.weight * determinants + quadratic);
  for (int64_t i = 0; i < K; i++) {
    out.penalty += w.counts * std::log(start[i]);
    if (w.independent) continue;
    for (int64_t j = 0; j < K; j++)
      out.penalty += (w.counts + (i == j ? w.sticky : 0.0)) * std::log(transitions[i * K + j]);
  }
  if (w.common > 0) {
    out.middle.assign(middle, middle + M * M);
    Lanes whole(M, M);
    for (int64_t i = 0; i < M * M; i++) store(&whole.values[i * LANES], all(middle[i]));
    if (!cholesky(whole, M, M)) return false;
    double log_det = 0.0;
    for (int64_t i = 0; i < M; i++) log_det += 2 * std::log(whole(i, i)[0]);
    out.penalty += 0.5 * w.common * (double(K) * log_det - determinants - double(K * M));
  }
  return std::isfinite(out.penalty);
}

void take(Work &w, const Made &made) {
  std::memcpy(w.maps, made.maps.data(), made.maps.size() * sizeof(double));
  std::memcpy(w.log_det, made.log_det.data(), made.log_det.size() * sizeof(double));
  if (w.common > 0) std::memcpy(w.middle, made.middle.data(), made.middle.size() * sizeof(double));
  w.penalty = made.penalty;
}

std::vector<Lanes> read_covariances(const Work &w) {
  const int64_t M = w.size;
  std::vector<Lanes> out((w.states + LANES - 1) / LANES, Lanes(M, M));
  for (size_t group = 0; group < out.size(); group++)
    for (int64_t lane = 0; lane < LANES; lane++)
      for (int64_t i = 0; i < M * M; i++)
        out[group].values[i * LANES + lane] = w.covariances[state(w, group, lane) * M * M + i];
  return out;
}

// Probabilities of expected counts (n) with pseudo-counts; `self` is the entry with the sticky ones, or -1.
void probabilities(const Work &w, const double *counts, int64_t self, double *out) {
  double sum = 0.0;
  for (int64_t j = 0; j < w.states; j++) sum += out[j] = counts[j] + w.counts + (j == self ? w.sticky : 0.0);
  for (int64_t j = 0; j < w.states; j++) out[j] /= sum;
}

// The M-step and `prepare`. `fresh`: the noise covariances in `w` are none, and so is what they have in common.
int step(Work &w, bool fresh) {
  const int64_t K = w.states, M = w.size, P = w.inputs, C = P + M;
  const size_t groups = (K + LANES - 1) / LANES;
  std::vector<double> sums(w.wide * w.wide), weights(K * M * P), start(K), transitions(K * K);
  std::vector<Lanes> scatter(groups, Lanes(M, M)), found;
  std::vector<V> totals(groups);
  Lanes whole(C, C);
  for (size_t group = 0; group < groups; group++) {
    for (int64_t lane = 0; lane < LANES; lane++) {
      const int64_t k = state(w, group, lane);
      if (int64_t(group) * LANES + lane < K) gram(w, k, sums.data());
      for (int64_t i = 0; i < C; i++)
        for (int64_t j = 0; j <= i; j++) whole(i, j)[lane] = sums[j * w.wide + i];
      const double held = w.held[k] + w.weight;
      totals[group][lane] = held > 1e-300 ? held : 1e-300;
    }
    for (int64_t p = 0; p < P; p++) whole(p, p) += w.ridge[p];
    for (int64_t i = 0; i < M; i++)
      for (int64_t j = 0; j <= i; j++) whole(P + i, P + j) += w.scatter[i * M + j];
    // What is left below and right of P columns is the scatter of the residuals with its penalty.
    if (!cholesky(whole, C, P)) return 1;
    for (int64_t i = 0; i < M; i++)
      for (int64_t j = 0; j <= i; j++) scatter[group](i, j) = scatter[group](j, i) = whole(P + i, P + j);
    for (int64_t m = 0; m < M; m++)
      for (int64_t p = P - 1; p >= 0; p--) {
        V sum = whole(P + m, p);
        for (int64_t q = p + 1; q < P; q++) sum -= whole(q, p) * whole(P + m, q);
        whole(P + m, p) = sum / whole(p, p);
        for (int64_t lane = 0; lane < LANES; lane++)
          weights[(state(w, group, lane) * M + m) * P + p] = whole(P + m, p)[lane];
      }
  }
  // Near enough from one turn to the next; at first, the axes.
  std::vector<Lanes> vectors(groups, Lanes(M, M));
  for (size_t group = 0; group < groups; group++)
    for (int64_t i = 0; i < M; i++) vectors[group](i, i) = all(1.0);
  const bool shared = w.common > 0;
  std::vector<double> middle(M * M);
  if (shared && !fresh) std::memcpy(middle.data(), w.middle, M * M * sizeof(double));
  // A fresh start begins with covariances of the states' own.
  for (int turn = shared && fresh ? -1 : 0; turn < (shared ? ROUNDS : 1); turn++) {
    const double common = turn < 0 ? 0.0 : w.common;
    found = scatter;
    for (size_t group = 0; group < groups; group++) {
      const V share = 1.0 / (totals[group] + common);
      for (int64_t i = 0; i < M; i++)
        for (int64_t j = 0; j < M; j++) {
          U &entry = found[group](i, j);
          entry = (common > 0 ? entry + common * middle[i * M + j] : entry) * share;
        }
      if (!above(found[group], M, all(w.floor)) && !raise_floor(found[group], M, all(w.floor), vectors[group]))
        return 1;
    }
    if (shared && !in_common(found, K, M, middle.data())) return 1;
  }
  // A mixture counts every frame; `held` leaves out first frames where they are not predicted, and those skipped.
  std::vector<double> began(w.starts, w.starts + K);
  for (int64_t k = 0; k < K && w.independent; k++) {
    began[k] = w.held[k] + (w.first ? w.starts[k] : 0.0);
    for (int64_t skip = 0; skip < w.skips; skip++) began[k] += w.posterior[w.skipped[skip] * w.padded + k];
  }
  probabilities(w, began.data(), -1, start.data());
  for (int64_t i = 0; i < K; i++)
    if (w.independent)
      std::memcpy(&transitions[i * K], start.data(), K * sizeof(double));
    else
      probabilities(w, w.pairs + i * K, i, &transitions[i * K]);
  Made made;
  if (!make(w, found, weights.data(), start.data(), transitions.data(), middle.data(), made)) return 1;
  take(w, made);
  std::memcpy(w.weights, weights.data(), weights.size() * sizeof(double));
  std::memcpy(w.start, start.data(), K * sizeof(double));
  std::memcpy(w.transitions, transitions.data(), K * K * sizeof(double));
  for (int64_t k = 0; k < K; k++)
    for (int64_t i = 0; i < M; i++)
      for (int64_t j = 0; j < M; j++)
        w.covariances[(k * M + i) * M + j] = found[k / LANES](i, j)[k % LANES];
  return 0;
}

}  // namespace

// Make what the parameters in `w` come to. 1 where that is not for here.
extern "C" int prepare(Work *work) {
  Work &w = *work;
  std::vector<Lanes> covariances = read_covariances(w);
  std::vector<double> middle(w.size * w.size);
  if (w.common > 0 && !in_common(covariances, w.states, w.size, middle.data())) return 1;
  Made made;
  if (!make(w, covariances, w.weights, w.start, w.transitions, middle.data(), made)) return 1;
  take(w, made);
  return 0;
}

// Densities and the recursion forward: the likelihood. 1 where it is not finite.
extern "C" int forward(Work *work) {
  densities(*work);
  if (work->padded == 4) forward_<Chain<4>>(*work);
  if (work->padded == 8) forward_<Chain<8>>(*work);
  if (work->padded == 16) forward_<Chain<16>>(*work);
  return std::isfinite(work->likelihood) ? 0 : 1;
}

// The recursion backward: posteriors and expected counts. After `forward`, once.
extern "C" void backward(Work *work) {
  if (work->padded == 4) backward_<Chain<4>>(*work);
  if (work->padded == 8) backward_<Chain<8>>(*work);
  if (work->padded == 16) backward_<Chain<16>>(*work);
}

// The M-step and `prepare`. After `backward`. 1, with nothing changed, where it is not for here.
extern "C" int maximise(Work *work) { return step(*work, false); }

// The same from posteriors and expected counts alone.
extern "C" int begin(Work *work) { return step(*work, true); }
