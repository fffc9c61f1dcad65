// Updates of runs by themselves, a block of steps of each: forward, loss, backward and optimizer; and evaluations.
//
// A run's weights and moments are copied into memory of its own, padded to whole vectors, stay in a core's cache for
// the whole block, and are copied back. Examples go through in pieces of ROWS, so that what the layers make of them
// stays there as well. What a run comes to does not depend on any other, nor on where its numbers lie.
//
// Layers are numbered from 0; layer i takes acts[i] (rows, ld(in)) to pres[i + 1] (rows, ld(out)), by weights (out, in);
// the first layer's are held as (in, out), for nothing needs the others. Rows of every matrix are `ld` entries apart,
// whole vectors, zero behind their last column.
//
// Inputs that are signs come as bits. A layer then adds up, of every GROUP inputs, one of the 2^GROUP sums of their
// weights, which are made once an update: a third of the additions.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>
#include <vector>

#if defined(__AVX512F__)
constexpr int V = 16, MR = 6, NR = 4, MOST = 12;
#elif defined(__AVX__)
constexpr int V = 8, MR = 6, NR = 2, MOST = 6;
#else
constexpr int V = 4, MR = 4, NR = 4, MOST = 8;
#endif
typedef int64_t Size;
typedef float Vec __attribute__((vector_size(V * sizeof(float)), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(V * sizeof(float)), aligned(4), may_alias));
typedef double Doubles __attribute__((vector_size(V / 2 * sizeof(double))));
typedef int64_t Longs __attribute__((vector_size(V / 2 * sizeof(double))));
#define UNROLL _Pragma("GCC unroll 16")

constexpr Size ROWS = 64, LAYERS = 16, GROUP = 3, SUMS = 1 << GROUP, WIDE = 8;
enum First { DENSE, PAIRS };
enum Activation { RELU, TANH, SQUARE, CUBE, GELU, SIN };
enum Loss { HINGE, SQUARED, LOGISTIC, CROSS_ENTROPY, STABLEMAX, HALF_SQUARES, MEAN_SQUARES }; // from the fourth on of several outputs
enum Optimizer { SGD, ADAM, ADAMW, RMSPROP };

// One parameter of all runs; mirrored in compiled.py.
struct Param {
  float *weights, *moments[3]; // (S, rows, cols) each; null behind those that an optimizer has
  float *gradients, *previous; // of the last update, and the weights before it; null where not asked
  float *slow;                 // Lookahead's, which are evaluated, (S, rows, cols); null without it
  float *pulled[3];            // moments as of its last slow step, to which they are pulled back; null where they are not
  const float *mask;           // (S, rows, cols), 0 where weights are held; null where none are
  float *const *averages;      // (slots), (S, rows, cols) each
  double decay;
  Size rows, cols;
  Size first; // whether SGD has no momentum of it yet
};

struct Batch {
  const void *inputs, *targets; // float (B, in), or symbols (B, 2), or bits; float (B,), or labels (B,), or float (B, columns)
  uint8_t *right; // of an evaluation, (S, B): whether an output is the label's, or has its sign; null where not asked
  Size size, input_run, input_row, target_run, target_row; // entries from run to run and from row to row
  // Of bits, the highest of a byte first, 0 is +1 and 1 is -1: the place of the first one, and of how many a row's
  // label is the product, turned over where `targets`, bytes here, are not null and say so; 0 where inputs are none.
  Size bit, relevant;
  Size columns; // of targets of several outputs; 0 where they are labels
  double rate;
};

// What an average makes of the weights after an update: it moves towards them by a share, by 1 to them.
struct Take {
  double share;
  Size slot; // -1: nothing
};

struct Work {
  Size runs, steps, layers, first, activation, loss, optimizer, count;
  Size nesterov, age; // age: updates that Adam has made
  double momentum, dampening, beta1, beta2, eps, temperature;
  double rho;   // how far SAM climbs before its gradient is taken; 0: it does not
  double clip;  // the largest norm of a gradient; 0: any
  Size orthogonal; // whether gradients are taken across the weights
  Size wide;       // whether losses are found in float64, of labels alone
  double alpha; // of Lookahead the size of a slow step, its updates between two, and those since the last
  Size period, since;
  Size resets; // whether its slow steps let moments begin anew
  Size parts; // batches of an update
  const uint8_t *lost;  // (S,): whether a run is no longer updated
  const double *radii;  // (S,): the norm at which all of a run's weights are held together; null: at none
  Size weights[LAYERS], biases[LAYERS]; // places among the parameters; -1: no bias
  Param *params;
  const Batch *batches; // (steps) of an evaluation, (steps, parts) of updates
  double *losses; // (steps, S)
  double *shares; // of an evaluation, (steps, S): the share of a batch that is right
  // Consecutive pieces of the first update's batch, of which as much is said as an evaluation of them would: `shares`,
  // and here the losses, (pieces, S).
  Size pieces;
  const Size *sizes;
  double *told;
  Size slots;
  const Take *takes; // (steps,); null where nothing is averaged
};

static inline Size whole(Size n) { return (n + V - 1) / V * V; }
static inline Vec load(const float *p) { return *(const Vec *)p; }
static inline void store(float *p, Vec v) { *(Vec *)p = v; }
// Data may come from a task that nobody checked.
static inline Size within(Size place, Size count) {
  if ((uint64_t)place >= (uint64_t)count) throw std::out_of_range("");
  return place;
}
static inline uint64_t following(const uint8_t *bits, Size place) { // 57 bits at least, the first the highest
  uint64_t word;
  std::memcpy(&word, bits + place / 8, 8);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
  word = __builtin_bswap64(word);
#endif
  return word << place % 8;
}

// C (M, N) = start + A B, A (M, K) by any strides, B (K, N); start: rows `lds` apart, null for 0.
template <int M, int N>
static inline void tile(Size K, const float *A, Size am, Size ak, const float *B, Size ldb, float *C, Size ldc,
                        const float *start, Size lds) {
  Vec c[M][N];
  UNROLL for (int i = 0; i < M; i++)
    UNROLL for (int j = 0; j < N; j++) c[i][j] = start ? load(start + i * lds + j * V) : Vec{};
  for (Size k = 0; k < K; k++) {
    Vec b[N];
    UNROLL for (int j = 0; j < N; j++) b[j] = load(B + k * ldb + j * V);
    UNROLL for (int i = 0; i < M; i++) {
      float a = A[i * am + k * ak];
      UNROLL for (int j = 0; j < N; j++) c[i][j] += a * b[j];
    }
  }
  UNROLL for (int i = 0; i < M; i++)
    UNROLL for (int j = 0; j < N; j++) store(C + i * ldc + j * V, c[i][j]);
}

template <int N>
static inline void columns(Size M, Size K, const float *A, Size am, Size ak, const float *B, Size ldb, float *C,
                           Size ldc, const float *start, Size lds) {
  constexpr int R = MR * NR / N > MOST ? MOST : MR * NR / N;
  Size i = 0;
#define ROWS_OF(m) \
  for (; i + m <= M; i += m) \
    tile<m, N>(K, A + i * am, am, ak, B, ldb, C + i * ldc, ldc, start ? start + i * lds : start, lds);
  ROWS_OF(R) ROWS_OF(4) ROWS_OF(2) ROWS_OF(1)
#undef ROWS_OF
}

static void product(Size M, Size N, Size K, const float *A, Size am, Size ak, const float *B, Size ldb, float *C,
                    Size ldc, const float *start = nullptr, Size lds = 0) {
  Size j = 0;
#define COLUMNS_OF(n) columns<n>(M, K, A, am, ak, B + j, ldb, C + j, ldc, start ? start + j : start, lds)
  for (; j + NR * V <= N; j += NR * V) COLUMNS_OF(NR);
  const Size left = (N - j + V - 1) / V;
  if (left == 3) COLUMNS_OF(3);
  if (left == 2) COLUMNS_OF(2);
  if (left == 1) COLUMNS_OF(1);
#undef COLUMNS_OF
}

#if defined(__GNUC__) && !defined(__clang__)
// Exchanges the blocks of H beside the diagonal; with H = 1, 2, 4, ... a square is transposed.
template <int H> static inline void exchange(Vec *square) {
  Ints low, high;
  for (int k = 0; k < V; k++) {
    low[k] = k & H ? V + (k ^ H) : k;
    high[k] = k & H ? V + k : k ^ H;
  }
  for (int i = 0; i < V; i++)
    if (!(i & H)) {
      const Vec a = square[i], b = square[i + H];
      square[i] = __builtin_shuffle(a, b, low);
      square[i + H] = __builtin_shuffle(a, b, high);
    }
  if constexpr (2 * H < V) exchange<2 * H>(square);
}
#else
template <int H> static inline void exchange(Vec *square) {
  for (int i = 0; i < V; i++)
    for (int k = 0; k < i; k++) {
      const float kept = square[i][k];
      square[i][k] = square[k][i];
      square[k][i] = kept;
    }
}
#endif

// The sums of V vectors, of `count` entries a row by halves where they fill one: in torch's order, on which depends what
// is left of small terms beside 1.
static inline Vec sums(Vec *square, Size count = 1) {
  exchange<1>(square);
  if (count < V)
    UNROLL for (int i = 1; i < V; i++) square[0] += square[i];
  else
    UNROLL for (int half = V / 2; half; half /= 2)
      UNROLL for (int i = 0; i < half; i++) square[i] += square[i + half];
  return square[0];
}

// The largest of V vectors each.
static inline Vec maxima(Vec *square) {
  exchange<1>(square);
  Vec most = square[0];
  UNROLL for (int i = 1; i < V; i++) most = square[i] > most ? square[i] : most;
  return most;
}

// A square of V rows at a time: a fifth of the time of one entry after the other. Zero behind the last row.
static void transposed(const float *from, Size rows, Size cols, Size ld, float *to, Size ldt) {
  for (Size r = 0; r < rows; r += V)
    for (Size c = 0; c < cols; c += V) {
      Vec square[V];
      for (int i = 0; i < V; i++) square[i] = r + i < rows ? load(from + (r + i) * ld + c) : Vec{};
      exchange<1>(square);
      for (int i = 0; i < V && c + i < cols; i++) store(to + (c + i) * ldt + r, square[i]);
    }
}

// e^x to about 1e-7 (Cephes' expf); NaN stays.
static inline Vec exponential(Vec x) {
  x = x > 88.0f ? Vec{} + 88.0f : x;
  x = x < -87.0f ? Vec{} - 87.0f : x;
  Vec shifted = x * 1.44269504088896341f + 12582912.0f; // rounds to the nearest integer
  Ints n = (Ints)shifted - 0x4B400000;
  Vec k = shifted - 12582912.0f;
  x = x - k * 0.693359375f + k * 2.12194440e-4f;
  Vec y = x * 1.9875691500e-4f + 1.3981999507e-3f;
  y = y * x + 8.3334519073e-3f;
  y = y * x + 4.1665795894e-2f;
  y = y * x + 1.6666665459e-1f;
  y = y * x + 5.0000001201e-1f;
  y = y * x * x + x + 1.0f;
  return y * (Vec)((n + 127) << 23);
}

// e^x of what is at most 0, by its series, to the last digits; 0 below the least that is not subnormal.
static inline Doubles exponential(Doubles x) {
  const Longs small = x < -708.0;
  x = small ? Doubles{} : x;
  const Doubles shifted = x * 1.44269504088896340736 + 6755399441055744.0; // rounds to the nearest integer
  const Longs n = (Longs)shifted - 0x4338000000000000;
  const Doubles k = shifted - 6755399441055744.0;
  x = x - k * 0x1.62e42fee00000p-1 - k * 0x1.a39ef35793c76p-33; // ln 2 in two parts
  Doubles y = Doubles{} + 1.0;
  UNROLL for (int i = 13; i > 0; i--) y = y * x * (1.0 / i) + 1.0;
  return small ? Doubles{} : y * (Doubles)((n + 1023) << 52);
}

// Of StableMax (Prieto et al. 2025, arXiv 2501.04697): what stands for e^x, and then its derivative as a share of it.
template <class Type> static inline Type stabilised(Type x) {
  const Type part = 1.0f / (1.0f + (x < 0.0f ? -x : x));
  return x < 0.0f ? part : x + 1.0f;
}
template <class Type> static inline Type slope(Type s) { return s >= 1.0f ? 1.0f / s : s; }
static inline double log_stabilised(double x) { return x < 0 ? -std::log1p(-x) : std::log1p(x); }

static inline Vec rooted(Vec x) {
  for (int i = 0; i < V; i++) x[i] = std::sqrt(x[i]);
  return x;
}

// The share of a standard normal distribution below x, to 1e-7 (Abramowitz and Stegun 1964, 7.1.26), and its density.
static inline Vec below(Vec x, Vec &density) {
  const Vec z = (x < 0.0f ? -x : x) * 0.70710678118654752f, e = exponential(-z * z), t = 1.0f / (1.0f + 0.3275911f * z);
  Vec tail = t * 1.061405429f - 1.453152027f;
  tail = tail * t + 1.421413741f;
  tail = tail * t - 0.284496736f;
  tail = (tail * t + 0.254829592f) * t * e * 0.5f;
  density = e * 0.39894228040143268f;
  return x < 0.0f ? tail : 1.0f - tail;
}

// By its series within half a turn of the nearest multiple of pi, which is taken off in three parts.
static inline Vec sine(Vec x) {
  const Vec shifted = x * 0.31830988618379067f + 12582912.0f, k = shifted - 12582912.0f;
  x = x - k * 3.140625f - k * 9.67502593994140625e-4f - k * 1.509957990978376e-7f;
  // Where a float does not resolve a turn, what is left is any number; it stays a sine's.
  x = x > 1.5708f ? Vec{} + 1.5708f : x;
  x = x < -1.5708f ? Vec{} - 1.5708f : x;
  const Vec square = x * x;
  Vec y = Vec{} + 1.0f;
  UNROLL for (int i = 12; i > 0; i -= 2) y = 1.0f - y * square * (1.0f / (i * (i + 1)));
  return (Vec)((Ints)(x * y) ^ (Ints)shifted << 31);
}

static inline Vec activated(Size kind, Vec x) {
  if (kind == RELU) return x < 0.0f ? Vec{} : x;
  if (kind == SQUARE) return x * x;
  if (kind == CUBE) return x * x * x;
  if (kind == SIN) return sine(x);
  Vec density;
  if (kind == GELU) return x * below(x, density);
  Vec y = 1.0f - 2.0f / (exponential(2.0f * x) + 1.0f);
  Vec least = x < 0.0f ? -x : x;
  return least < 1e-3f ? x - x * x * x * (1.0f / 3.0f) : y;
}

// The derivative of the activation, from its argument x and value y, times a gradient.
static inline Vec back(Size kind, Vec x, Vec y, Vec gradient) {
  if (kind == RELU) return y <= 0.0f ? Vec{} : gradient;
  if (kind == SQUARE) return gradient * x * 2.0f;
  if (kind == CUBE) return gradient * x * x * 3.0f;
  if (kind == SIN) return gradient * sine(x + 1.57079632679489662f);
  Vec density;
  if (kind == GELU) return gradient * (below(x, density) + x * density);
  return gradient * (1.0f - y * y);
}

// Of outputs (rows, ld): returns the sum of losses, and in training turns them into the gradients of the mean over
// `examples`. Says which are `right`, and of losses up to STABLEMAX what each is, where these are not null.
template <bool TRAINS>
static double lowered(const Work &w, float *out, Size rows, Size ld, Size classes, const Batch &batch, Size run,
                      Size first, const float *signs, Size examples, uint8_t *right, double *each) {
  const float share = (float)(1.0 / examples), heat = (float)(1.0 / w.temperature);
  double total = 0;
  if (w.loss == CROSS_ENTROPY || w.loss == STABLEMAX) {
    const bool stable = w.loss == STABLEMAX;
    const int64_t *labels = (const int64_t *)batch.targets + run * batch.target_run + first * batch.target_row;
    Ints places;
    for (int i = 0; i < V; i++) places[i] = i;
    // Of V rows at a time, for what is found across a vector takes as long for all of them as for one.
    for (Size first_row = 0; first_row < rows; first_row += V, out += V * ld) {
      const int several = rows - first_row < V ? (int)(rows - first_row) : V;
      Vec square[V]{}, earlier[V]{};
      float most[V], chosen[V], all[V], own[V]; // own: the logarithm of what stands for the label
      for (int r = 0; r < several; r++) {
        float *row = out + r * ld;
        if (heat != 1)
          for (Size c = 0; c < ld; c += V) store(row + c, load(row + c) * heat);
        for (Size c = classes; c < ld; c++) row[c] = -INFINITY;
        square[r] = load(row);
        for (Size c = V; c < ld; c += V) square[r] = load(row + c) > square[r] ? load(row + c) : square[r];
      }
      store(most, maxima(square));
      for (int r = 0; r < several; r++) {
        float *row = out + r * ld;
        const Size label = within(labels[(first_row + r) * batch.target_row], classes);
        chosen[r] = row[label] - most[r];
        own[r] = stable ? (float)log_stabilised(row[label]) : chosen[r];
        for (Size c = 0; right && c < label; c += V)
          earlier[r] += load(row + c) == most[r] && places < (int32_t)(label - c) ? Vec{} + 1.0f : Vec{};
        square[r] = Vec{};
        for (Size c = 0; c < ld; c += V) {
          Vec e = stable ? stabilised(load(row + c)) : exponential(load(row + c) - most[r]);
          if (TRAINS) store(row + c, e);
          square[r] += e;
        }
      }
      store(all, sums(square, classes));
      if (right) {
        // The first of those that are largest counts.
        const Vec before = sums(earlier);
        for (int r = 0; r < several; r++) right[first_row + r] = chosen[r] == 0 && before[r] == 0;
      }
      for (int r = 0; r < several; r++) {
        const float surprisal = std::log(all[r]) - own[r];
        total += surprisal;
        if (each) each[first_row + r] = surprisal;
        if (!TRAINS) continue;
        float *row = out + r * ld;
        const Size label = labels[(first_row + r) * batch.target_row];
        // The label's is near 1: less 1 before it is scaled, for rounding before that moves all examples one way.
        const float part = 1 / all[r], less = row[label] * part - 1, by = stable ? slope(row[label]) : 1;
        for (Size c = 0; c < ld; c += V) {
          const Vec e = load(row + c);
          store(row + c, stable ? e * part * slope(e) : e * part);
        }
        for (Size c = classes; c < ld; c++) row[c] = 0;
        row[label] = less * by;
        for (Size c = 0; c < ld; c += V) store(row + c, load(row + c) * (share * heat));
      }
    }
    return total;
  }
  const float *targets = (const float *)batch.targets + run * batch.target_run + first * batch.target_row;
  if (w.loss >= HALF_SQUARES) { // of the error to numbers, or to 1 at the label and 0 elsewhere
    const int64_t *labels = (const int64_t *)batch.targets + run * batch.target_run + first * batch.target_row;
    const float part = w.loss == HALF_SQUARES ? 1.0f : 2.0f / classes, scale = part * share * heat;
    if (batch.columns) within(batch.columns - 1, classes), within(classes - 1, batch.columns);
    Vec squares{};
    for (Size r = 0; r < rows; r++, out += ld) {
      for (Size c = 0; heat != 1 && c < ld; c += V) store(out + c, load(out + c) * heat);
      for (Size c = 0; c < batch.columns; c++) out[c] -= targets[r * batch.target_row + c];
      if (!batch.columns) {
        const Size label = within(labels[r * batch.target_row], classes);
        bool largest_first = true;
        for (Size c = 0; right && c < classes; c++)
          largest_first = largest_first && (c < label ? out[c] < out[label] : out[c] <= out[label]);
        if (right) right[r] = largest_first;
        out[label] -= 1;
      }
      for (Size c = 0; c < ld; c += V) {
        const Vec error = load(out + c);
        squares += error * error;
        if (TRAINS) store(out + c, error * scale);
      }
    }
    for (int i = 0; i < V; i++) total += squares[i];
    return total * part / 2;
  }
  for (Size r = 0; r < rows; r++, out += ld) {
    const float target = batch.relevant ? signs[r] : targets[r * batch.target_row], y = out[0] * heat, margin = y * target;
    if (right) right[r] = margin > 0;
    float gradient, loss;
    if (w.loss == HINGE) {
      const float slack = 1 - margin;
      gradient = slack <= 0 ? 0 : -target;
      loss = slack < 0 ? 0 : slack;
    } else if (w.loss == SQUARED) {
      gradient = 2 * (y - target);
      loss = (y - target) * (y - target);
    } else {
      loss = (margin < 0 ? -margin : 0) + std::log1p(std::exp(-std::fabs(margin)));
      gradient = TRAINS ? std::expm1(-loss) * target : 0;
    }
    total += loss;
    if (each) each[r] = loss;
    // What overflowed goes on as it would in a product with 0.
    if (TRAINS) out[0] = std::isfinite(out[0]) ? gradient * share * heat : NAN;
  }
  return total;
}

// As `lowered`, of losses of labels, in float64 from the outputs on; `row` is room for those of an example.
template <bool TRAINS>
static double lowered_wide(const Work &w, float *out, Size rows, Size ld, Size classes, const Batch &batch, Size run,
                           Size first, Size examples, uint8_t *right, double *each, double *row) {
  constexpr Size H = V / 2;
  const int64_t *labels = (const int64_t *)batch.targets + run * batch.target_run + first * batch.target_row;
  const bool stable = w.loss == STABLEMAX;
  const double heat = 1 / w.temperature, share = heat / examples;
  double total = 0;
  for (Size r = 0; r < rows; r++, out += ld) {
    const Size label = within(labels[r * batch.target_row], classes);
    double most = -INFINITY, sum = 0;
    for (Size c = 0; c < classes; c++) {
      row[c] = out[c] * heat;
      most = row[c] > most ? row[c] : most;
    }
    if (right) {
      bool largest_first = true;
      for (Size c = 0; c < classes; c++)
        largest_first = largest_first && (c < label ? out[c] < out[label] : out[c] <= out[label]);
      right[r] = largest_first;
    }
    const double own = stable ? log_stabilised(row[label]) : row[label] - most;
    Doubles sums{};
    for (Size c = 0; c < ld; c += H) {
      Doubles x = *(const Doubles *)(row + c);
      x = stable ? stabilised(x) : exponential(x - most);
      for (Size i = 0; c + H > classes && i < H; i++) x[i] = c + i < classes ? x[i] : 0;
      sums += *(Doubles *)(row + c) = x;
    }
    for (Size i = 0; i < H; i++) sum += sums[i];
    const double surprisal = std::log(sum) - own;
    total += surprisal;
    if (each) each[r] = surprisal;
    if (!TRAINS) continue;
    for (Size c = 0; c < classes; c++)
      out[c] = (float)((row[c] / sum - (c == label)) * (stable ? slope(row[c]) : 1) * share);
    for (Size c = classes; c < ld; c++) out[c] = 0;
  }
  return total;
}

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

// Between lines as they lie outside and lines of whole vectors; `lines` is room for all of these.
void copy_in(const Own &o, float *to, const float *from, float *lines) {
  const Size ld = whole(o.cols);
  float *own = o.flipped ? lines : to;
  for (Size r = 0; r < o.rows; r++) {
    std::memcpy(own + r * ld, from + r * o.cols, o.cols * sizeof(float));
    // A run that diverged leaves NaN behind the last column, too.
    std::memset(own + r * ld + o.cols, 0, (ld - o.cols) * sizeof(float));
  }
  if (o.flipped) transposed(lines, o.rows, o.cols, ld, to, o.ld);
}
void copy_out(const Own &o, float *to, const float *from, float *lines) {
  const Size ld = whole(o.cols);
  if (o.flipped) transposed(from, o.cols, o.rows, o.ld, lines, ld);
  const float *own = o.flipped ? lines : from;
  for (Size r = 0; r < o.rows; r++) std::memcpy(to + r * o.cols, own + r * ld, o.cols * sizeof(float));
}

// As torch's lerp: from the nearer end.
static inline Vec between(Vec a, Vec x, float near, float far, bool nearer) {
  return nearer ? a + near * (x - a) : x + far * (x - a);
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
  const float near = (float)share, far = (float)(share - 1);
  Size k = 0;
  for (; k + V <= n; k += V) store(a + k, between(load(a + k), load(x + k), near, far, share < 0.5));
  for (; k < n; k++) a[k] = between(Vec{} + a[k], Vec{} + x[k], near, far, share < 0.5)[0];
}

struct Net {
  const Work &w;
  Memory memory;
  std::vector<Own> own;
  Size widths[LAYERS + 1]; // of acts[i]
  float *pres[LAYERS + 1], *acts[LAYERS + 1], *error[2];
  float *tables = nullptr; // of the first layer: chunks of WIDE vectors, (groups, SUMS, chunk) each
  float *flat, *lines;     // a run's weights as they lie outside, of the largest; and in lines of whole vectors
  float signs[ROWS];       // the labels of bits
  double *row = nullptr;   // an example's outputs in float64
  Size live[ROWS + 1];
  Size moved = 0;          // updates since these began, or since the moments began anew in their course
  bool anew = false;
  std::vector<uint8_t> correct; // of the examples of an update of whose pieces something is said, as
  std::vector<double> surprisals;

  explicit Net(const Work &w) : w(w) {
    for (Size i = 0; i < w.count; i++) {
      const Param &p = w.params[i];
      const bool flipped = w.first == DENSE && i == w.weights[0] && p.rows > 1;
      Own o{p.rows, p.cols, whole(flipped ? p.rows : p.cols), flipped, nullptr, nullptr, {}, nullptr, nullptr, nullptr, nullptr, nullptr, {}};
      o.weights = memory.floats(o.size());
      o.gradients = memory.floats(o.size());
      for (int m = 0; m < 3; m++) {
        o.moments[m] = p.moments[m] ? memory.floats(o.size()) : nullptr;
        o.pulled[m] = p.pulled[m] ? memory.floats(o.size()) : nullptr;
      }
      if (p.slow) o.slow = memory.floats(o.size());
      if (p.mask) o.mask = memory.floats(o.size());
      if (p.mask || w.rho) o.held = memory.floats(o.size());
      if (w.takes && w.slots == 1) o.average = memory.floats(o.size());
      own.push_back(o);
    }
    Size widest = 0, largest = 0;
    for (const Own &o : own) largest = largest > o.rows * whole(o.cols) ? largest : o.rows * whole(o.cols);
    flat = memory.floats(largest);
    lines = memory.floats(largest);
    for (Size i = 0; i <= w.layers; i++) {
      if (i < w.layers) {
        Own &o = own[w.weights[i]];
        o.turned = o.flipped ? o.weights : memory.floats(o.cols * whole(o.rows));
        widths[i] = o.cols;
      } else
        widths[i] = own[w.weights[i - 1]].rows;
      widest = widest > whole(widths[i]) ? widest : whole(widths[i]);
      acts[i] = memory.floats(ROWS * whole(widths[i]));
      // What the derivative can be found from takes the argument's place.
      const bool apart = w.activation != RELU && w.activation != TANH;
      pres[i] = apart ? memory.floats(ROWS * whole(widths[i])) : acts[i];
    }
    bool bits = false;
    for (Size step = 0; step < w.steps; step++) bits = bits || w.batches[step].relevant;
    if (bits && own[w.weights[0]].flipped) tables = memory.floats(groups() * SUMS * whole(widths[1]));
    if (w.wide) row = (double *)memory.floats(2 * whole(widths[w.layers]));
    error[0] = memory.floats(ROWS * widest);
    error[1] = memory.floats(ROWS * widest);
  }

  Size groups() const { return (widths[0] + GROUP - 1) / GROUP; }

  // Of every group of inputs, the sums of their weights by sign: the first sign is the highest bit of a sum's place.
  void tabulate() {
    const Own &o = own[w.weights[0]];
    float *to = tables;
    for (Size j = 0; j < o.ld; j += WIDE * V) {
      const Size chunk = o.ld - j < WIDE * V ? o.ld - j : WIDE * V;
      for (Size g = 0; g < groups(); g++, to += SUMS * chunk)
        for (Size k = 0; k < chunk; k += V) {
          Vec x[GROUP];
          UNROLL for (Size i = 0; i < GROUP; i++)
            x[i] = g * GROUP + i < o.cols ? load(o.weights + (g * GROUP + i) * o.ld + j + k) : Vec{};
          const Vec found[4] = {x[0] + x[1] + x[2], x[0] + x[1] - x[2], x[0] - x[1] + x[2], x[0] - x[1] - x[2]};
          UNROLL for (Size i = 0; i < 4; i++) {
            store(to + i * chunk + k, found[i]);
            store(to + (SUMS - 1 - i) * chunk + k, -found[i]);
          }
        }
    }
  }

  // Columns j to j + N V of the first layer's outputs, out of the sums in `table`.
  template <int N>
  void looked_up(const uint8_t *bits, Size place, Size rows, const float *table, Size j, const float *bias) {
    const Size ld = whole(widths[1]), count = groups(), n = widths[0];
    const bool relu = w.activation == RELU && w.layers > 1;
    float *to = pres[1] + j;
    Vec start[N];
    UNROLL for (int i = 0; i < N; i++) start[i] = bias ? load(bias + j + i * V) : Vec{};
    for (Size r = 0; r < rows; r++, place += n, to += ld) {
      Vec c[N];
      UNROLL for (int i = 0; i < N; i++) c[i] = start[i];
      const float *at = table;
      for (Size g = 0; g < count;) {
        uint64_t word = following(bits, place + g * GROUP);
        const Size last = count < g + 57 / GROUP ? count : g + 57 / GROUP;
        for (; g < last; g++, word <<= GROUP, at += SUMS * N * V) {
          const float *row = at + (word >> (64 - GROUP)) * (N * V);
          UNROLL for (int i = 0; i < N; i++) c[i] += load(row + i * V);
        }
      }
      if (relu) UNROLL for (int i = 0; i < N; i++) c[i] = activated(RELU, c[i]);
      UNROLL for (int i = 0; i < N; i++) store(to + i * V, c[i]);
    }
  }

  void look_up(const uint8_t *bits, Size place, Size rows, const float *bias) {
    const Size ld = whole(widths[1]);
    const float *table = tables;
    for (Size j = 0; j < ld; j += WIDE * V) {
      const Size n = ld - j < WIDE * V ? (ld - j) / V : WIDE;
#define OF(n) case n: looked_up<n>(bits, place, rows, table, j, bias); break;
      switch (n) { OF(1) OF(2) OF(3) OF(4) OF(5) OF(6) OF(7) OF(8) }
#undef OF
      table += groups() * SUMS * n * V;
    }
  }

  // One row's inputs out of its bits.
  void unpack(const uint8_t *bits, Size place, float *to) const {
    Ints places;
    for (int i = 0; i < V; i++) places[i] = i;
    for (Size k = 0; k < widths[0]; k += V) {
      const Ints word = Ints{} + (int32_t)(following(bits, place + k) >> 32);
      const Vec signs = (Vec)(((word << places) & INT32_MIN) | 0x3F800000);
      store(to + k, places < (int32_t)(widths[0] - k) ? signs : Vec{});
    }
  }

  const uint8_t *bits_of(const Batch &batch, Size run) const {
    return (const uint8_t *)batch.inputs + run * batch.input_run;
  }
  Size place_of(const Batch &batch, Size row) const { return batch.bit + row * widths[0]; }

  void label(const Batch &batch, Size run, Size first, Size rows) {
    const uint8_t *bits = bits_of(batch, run), *turned = (const uint8_t *)batch.targets;
    if (turned) turned += run * batch.target_run + first * batch.target_row;
    const Size n = widths[0], relevant = batch.relevant;
    Size place = place_of(batch, first);
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

  const int64_t *pairs(const Batch &batch, Size run, Size first) const {
    return (const int64_t *)batch.inputs + run * batch.input_run + first * batch.input_row;
  }

  void activate(Size i, Size rows) {
    const Size n = rows * whole(widths[i]), kind = w.activation;
    const float *from = pres[i];
    float *to = acts[i];
    if (kind == RELU)
      for (Size k = 0; k < n; k += V) store(to + k, activated(RELU, load(from + k)));
    else
      for (Size k = 0; k < n; k += V) store(to + k, activated(kind, load(from + k)));
  }

  void forward(const Batch &batch, Size run, Size first, Size rows) {
    const Size ld = whole(widths[0]);
    if (w.first == PAIRS) {
      const int64_t *symbols = pairs(batch, run, first);
      for (Size r = 0; r < rows; r++, symbols += batch.input_row) {
        const float *a = own[0].weights + within(symbols[0], own[0].rows) * ld;
        const float *b = own[1].weights + within(symbols[1], own[1].rows) * ld;
        for (Size k = 0; k < ld; k += V) {
          const Vec x = load(a + k) + load(b + k);
          store(pres[0] + r * ld + k, x);
          store(acts[0] + r * ld + k, activated(w.activation, x));
        }
      }
    } else if (batch.relevant) {
      label(batch, run, first, rows);
      for (Size r = 0; !tables && r < rows; r++)
        unpack(bits_of(batch, run), place_of(batch, first + r), acts[0] + r * ld);
    } else {
      const float *from = (const float *)batch.inputs + run * batch.input_run + first * batch.input_row;
      for (Size r = 0; r < rows; r++)
        std::memcpy(acts[0] + r * ld, from + r * batch.input_row, widths[0] * sizeof(float));
    }
    for (Size i = 0; i < w.layers; i++) {
      const Own &o = own[w.weights[i]];
      const float *bias = w.biases[i] < 0 ? nullptr : own[w.biases[i]].weights;
      const bool last = i + 1 == w.layers;
      const Size ldi = whole(widths[i]), ldo = whole(widths[i + 1]);
      float *to = last ? error[0] : pres[i + 1];
      const bool looked = !i && tables && batch.relevant;
      if (looked)
        look_up(bits_of(batch, run), place_of(batch, first), rows, bias);
      else if (o.rows == 1) {
        for (Size r = 0; r < rows; r += V) {
          Vec square[V];
          for (int j = 0; j < V; j++) {
            square[j] = Vec{};
            if (r + j >= rows) continue;
            for (Size k = 0; k < ldi; k += V) square[j] += load(acts[i] + (r + j) * ldi + k) * load(o.weights + k);
            store(to + (r + j) * ldo, Vec{});
          }
          const Vec found = sums(square) + (bias ? bias[0] : 0.0f);
          for (int j = 0; j < V && r + j < rows; j++) to[(r + j) * ldo] = found[j];
        }
      } else
        product(rows, ldo, widths[i], acts[i], ldi, 1, o.turned, ldo, to, ldo, bias, 0);
      if (!last && !(looked && w.activation == RELU)) activate(i + 1, rows);
    }
  }

  // Leaves out the rows whose outputs have no gradient; returns how many remain.
  Size sift(const Batch &batch, Size run, Size first, Size rows) {
    const Size ldo = whole(widths[w.layers]);
    Size count = 0;
    for (Size r = 0; r < rows; r++)
      live[count] = r, count += error[0][r * ldo] != 0;
    const bool bits = batch.relevant && tables;
    for (Size k = 0; k < count; k++) {
      const Size r = live[k];
      if (bits) unpack(bits_of(batch, run), place_of(batch, first + r), acts[0] + k * whole(widths[0]));
      if (r == k) continue;
      error[0][k * ldo] = error[0][r * ldo];
      for (Size i = bits; i < w.layers; i++) {
        const Size ld = whole(widths[i]);
        std::memcpy(acts[i] + k * ld, acts[i] + r * ld, ld * sizeof(float));
        if (pres[i] != acts[i]) std::memcpy(pres[i] + k * ld, pres[i] + r * ld, ld * sizeof(float));
      }
    }
    return count;
  }

  // Adds to gradients, or starts them where they are `fresh`; those of symbols' tables are zero then.
  void backward(const Batch &batch, Size run, Size first, Size rows, bool fresh) {
    float *incoming = error[0], *outgoing = error[1];
    for (Size i = w.layers - 1; i >= 0; i--) {
      const Own &o = own[w.weights[i]];
      const Size ldi = whole(widths[i]), ldo = whole(widths[i + 1]);
      const float *start = fresh ? nullptr : o.gradients;
      if (o.flipped)
        product(o.cols, ldo, rows, acts[i], 1, ldi, incoming, ldo, o.gradients, ldo, start, ldo);
      else
        product(o.rows, ldi, rows, incoming, 1, ldo, acts[i], ldi, o.gradients, ldi, start, ldi);
      if (w.biases[i] >= 0) {
        float *to = own[w.biases[i]].gradients;
        for (Size c = 0; c < ldo; c += V) {
          Vec total = fresh ? Vec{} : load(to + c);
          for (Size r = 0; r < rows; r++) total += load(incoming + r * ldo + c);
          store(to + c, total);
        }
      }
      if (!i && w.first == DENSE) return;
      product(rows, ldi, o.rows, incoming, ldo, 1, o.weights, ldi, outgoing, ldi);
      for (Size k = 0; k < rows * ldi; k += V)
        store(outgoing + k, back(w.activation, load(pres[i] + k), load(acts[i] + k), load(outgoing + k)));
      float *other = incoming;
      incoming = outgoing;
      outgoing = other;
    }
    const Size ld = whole(widths[0]);
    const int64_t *symbols = pairs(batch, run, first);
    for (Size r = 0; r < rows; r++, symbols += batch.input_row) {
      float *a = own[0].gradients + symbols[0] * ld, *b = own[1].gradients + symbols[1] * ld;
      for (Size k = 0; k < ld; k += V) {
        const Vec x = load(incoming + r * ld + k);
        store(a + k, load(a + k) + x);
        store(b + k, load(b + k) + x);
      }
    }
  }

  void move(double rate) {
    const double age = (double)((anew ? 0 : w.age) + moved + 1);
    const bool sgd = w.optimizer == SGD;
    const float scale = sgd ? 0 : (float)(rate / (1 - std::pow(w.beta1, age)));
    const float root = sgd ? 0 : (float)std::sqrt(1 - std::pow(w.beta2, age));
    const float b1 = (float)(1 - w.beta1), b2 = (float)w.beta2, rest = (float)(1 - w.beta2), eps = (float)w.eps;
    for (Size i = 0; i < w.count; i++) {
      const Own &o = own[i];
      const Size n = o.size();
      const float decay = (float)w.params[i].decay, lr = (float)rate;
      float *__restrict p = o.weights, *__restrict g = o.gradients, *__restrict m = o.moments[0],
            *__restrict v = o.moments[1], *__restrict most = o.moments[2];
      if (sgd) {
        const float keep = (float)w.momentum, share = (float)(1 - w.dampening);
        const bool fresh = (anew || w.params[i].first) && !moved;
        for (Size k = 0; k < n && !m && !decay; k += V) store(p + k, load(p + k) - lr * load(g + k));
        for (Size k = 0; k < n && (m || decay); k += V) {
          Vec x = load(g + k), weight = load(p + k);
          if (decay) x += decay * weight;
          if (m) {
            const Vec kept = fresh ? x : keep * load(m + k) + share * x;
            store(m + k, kept);
            x = w.nesterov ? x + keep * kept : kept;
          }
          store(p + k, weight - lr * x);
        }
        continue;
      }
      if (w.optimizer == RMSPROP) { // moments: the mean of squares, and where there are, the momentum and the mean
        const float keep = (float)w.momentum;
        float *kept = keep != 0 ? v : nullptr, *mean = keep != 0 ? most : v;
        for (Size k = 0; k < n; k += V) {
          Vec x = load(g + k) + decay * load(p + k), second = b2 * load(m + k) + rest * x * x;
          store(m + k, second);
          if (mean) {
            const Vec first = load(mean + k) + rest * (x - load(mean + k));
            store(mean + k, first);
            second -= first * first;
          }
          x /= rooted(second) + eps;
          if (kept) store(kept + k, x = keep * load(kept + k) + x);
          store(p + k, load(p + k) - lr * x);
        }
        continue;
      }
      const float shrunk = (float)(1 - rate * w.params[i].decay);
      for (Size k = 0; k < n; k += V) {
        Vec x = load(g + k), weight = load(p + k);
        if (w.optimizer == ADAMW)
          weight *= shrunk;
        else
          x += decay * weight;
        const Vec first = load(m + k) + b1 * (x - load(m + k));
        Vec second = b2 * load(v + k) + rest * x * x;
        store(m + k, first);
        store(v + k, second);
        if (most) {
          second = second > load(most + k) ? second : load(most + k);
          store(most + k, second);
        }
        store(p + k, weight - scale * first / (rooted(second) / root + eps));
      }
    }
  }

  // As `move`; what is masked is held, whatever moments and decay would do.
  void move_free(double rate) {
    for (const Own &o : own)
      if (o.mask) std::memcpy(o.held, o.weights, o.size() * sizeof(float));
    move(rate);
    moved++;
    for (const Own &o : own) {
      for (Size k = 0; o.mask && k < o.size(); k += V)
        store(o.weights + k, load(o.mask + k) > 0.0f ? load(o.weights + k) : load(o.held + k));
      for (int m = 0; m < 3; m++)
        for (float *moment : {o.moments[m], o.pulled[m]})
          if (moment) masked(o, moment);
    }
  }

  double norm(float *Own::*of) const {
    double total = 0;
    for (const Own &o : own) total += inner(o.*of, o.*of, o.size());
    return std::sqrt(total);
  }

  // Rescales all weights to the norm at which they are held; a run that was let go has none.
  void hold(float *Own::*weights, double radius) const {
    const double found = norm(weights);
    const float factor = found == 0 ? 0 : (float)(radius / found);
    for (const Own &o : own)
      for (Size k = 0; k < o.size(); k += V) store(o.*weights + k, load(o.*weights + k) * factor);
  }

  // Leaves of every parameter's gradient what is across its weights, at its own norm (Prieto et al. 2025, arXiv
  // 2501.04697); of one that lies along them rounding would be left, and so nothing is. What is held counts as 0.
  void cross() const {
    for (const Own &o : own) {
      const Size n = o.size();
      const float *weights = o.weights;
      if (o.mask) {
        for (Size k = 0; k < n; k += V) store(o.held + k, load(o.weights + k) * load(o.mask + k));
        weights = o.held;
      }
      const double square = inner(weights, weights, n), norm = std::sqrt(inner(o.gradients, o.gradients, n));
      const double along = square == 0 ? 0 : inner(o.gradients, weights, n) / square;
      double left = 0;
      for (Size k = 0; k < n; k++) {
        const double x = o.gradients[k] - along * weights[k];
        left += x * x;
      }
      left = std::sqrt(left);
      const double scale = left <= 0x1p-23 * norm ? 0 : norm / left;
      for (Size k = 0; k < n; k++) o.gradients[k] = (float)((o.gradients[k] - along * weights[k]) * scale);
    }
  }

  // Scales the gradient to at most a norm (Pascanu et al. 2013).
  void clip() {
    const double scale = w.clip / (norm(&Own::gradients) + 1e-6);
    for (const Own &o : own)
      for (Size k = 0; !(scale >= 1) && k < o.size(); k += V) store(o.gradients + k, load(o.gradients + k) * (float)scale);
  }

  // Lookahead's slow step (Zhang et al. 2019, algorithm 1) of weights that are not held.
  void synchronise() {
    for (const Own &o : own)
      for (Size k = 0; k < o.size(); k += V) {
        const Vec slow = load(o.slow + k), fast = load(o.weights + k), next = slow + (float)w.alpha * (fast - slow);
        const Ints free = o.mask ? load(o.mask + k) > 0.0f : Ints{} - 1;
        store(o.slow + k, free ? next : slow);
        store(o.weights + k, free ? next : fast);
      }
    for (const Own &o : own)
      for (int m = 0; m < 3; m++) {
        float *x = o.moments[m], *before = o.pulled[m];
        if (x && w.resets) std::memset(x, 0, o.size() * sizeof(float));
        for (Size k = 0; before && k < o.size(); k += V) {
          const Vec now = load(before + k) + (float)w.alpha * (load(x + k) - load(before + k));
          store(x + k, now);
          store(before + k, now);
        }
      }
    if (w.resets) moved = 0, anew = true;
  }

  static void masked(const Own &o, float *x) {
    for (Size k = 0; o.mask && k < o.size(); k += V) store(x + k, load(x + k) * load(o.mask + k));
  }

  void average(Size run, const Take &take) {
    for (Size i = 0; i < w.count; i++) {
      const Param &p = w.params[i];
      const Own &o = own[i];
      if (o.average) {
        approach(o.average, o.evaluated(), o.size(), take.share);
        continue;
      }
      float *to = p.averages[take.slot] + run * p.rows * p.cols;
      copy_out(o, take.share < 1 ? flat : to, o.evaluated(), lines);
      if (take.share < 1) approach(to, flat, p.rows * p.cols, take.share);
    }
  }

  // Makes of the weights what passes read.
  void turn() {
    for (Size i = 0; i < w.layers; i++) {
      const Own &o = own[w.weights[i]];
      if (o.rows > 1 && !o.flipped) transposed(o.weights, o.rows, o.cols, o.ld, o.turned, whole(o.rows));
    }
    if (tables) tabulate();
  }

  void take(Size run) {
    for (Size i = 0; i < w.count; i++) {
      const Param &p = w.params[i];
      const Size at = run * p.rows * p.cols;
      copy_in(own[i], own[i].weights, p.weights + at, lines);
      for (int m = 0; m < 3; m++)
        if (p.moments[m]) copy_in(own[i], own[i].moments[m], p.moments[m] + at, lines);
      for (int m = 0; m < 3; m++)
        if (p.pulled[m]) copy_in(own[i], own[i].pulled[m], p.pulled[m] + at, lines);
      if (p.slow) copy_in(own[i], own[i].slow, p.slow + at, lines);
      if (p.mask) copy_in(own[i], own[i].mask, p.mask + at, lines);
      if (own[i].average) copy_in(own[i], own[i].average, p.averages[0] + at, lines);
    }
  }

  // What is made of a run's outputs, of a few rows of a batch: see `lowered`.
  template <bool TRAINS>
  double lower(const Batch &batch, Size run, Size first, Size rows, Size examples, uint8_t *right, double *each) {
    const Size ld = whole(widths[w.layers]), classes = widths[w.layers];
    if (row) return lowered_wide<TRAINS>(w, error[0], rows, ld, classes, batch, run, first, examples, right, each, row);
    return lowered<TRAINS>(w, error[0], rows, ld, classes, batch, run, first, signs, examples, right, each);
  }
  double rounded(double loss) const { return w.wide ? loss : (float)loss; }

  void evaluate(Size run) {
    take(run);
    turn();
    for (Size place = 0; place < w.steps; place++) {
      const Batch &batch = w.batches[place];
      double total = 0;
      Size count = 0;
      for (Size first = 0; first < batch.size; first += ROWS) {
        const Size rows = batch.size - first < ROWS ? batch.size - first : ROWS;
        forward(batch, run, first, rows);
        uint8_t own[ROWS] = {}, *right = batch.right ? batch.right + run * batch.size + first : own;
        total += lower<false>(batch, run, first, rows, batch.size, right, nullptr);
        for (Size r = 0; r < rows; r++) count += right[r];
      }
      w.losses[place * w.runs + run] = rounded(total / batch.size);
      w.shares[place * w.runs + run] = (double)count / batch.size;
    }
  }

  // Whether an update without a gradient leaves all as it is.
  bool rests() const {
    if (w.period || w.radii) return false;
    for (Size i = 0; i < w.count; i++)
      if (w.optimizer != SGD || own[i].moments[0] || w.params[i].decay) return false;
    return true;
  }

  // Takes a batch of an update's `examples` there and back: adds to the gradients, or starts them where `none` had
  // one yet. Returns the sum of losses.
  double pass(const Batch &batch, Size run, Size examples, bool &none, uint8_t *right, double *each) {
    double total = 0;
    for (Size first = 0; first < batch.size; first += ROWS) {
      const Size rows = batch.size - first < ROWS ? batch.size - first : ROWS;
      forward(batch, run, first, rows);
      total += lower<true>(batch, run, first, rows, examples, right ? right + first : right, each ? each + first : each);
      const Size among = w.loss >= CROSS_ENTROPY || w.first == PAIRS ? rows : sift(batch, run, first, rows);
      if (!among) continue;
      backward(batch, run, first, among, none);
      none = false;
    }
    return total;
  }

  void clean() {
    for (Own &o : own) std::memset(o.gradients, 0, o.size() * sizeof(float));
  }

  // Makes the gradient of an update's batches; `clear` is whether it is zero. Returns the sum of losses.
  double differentiate(const Batch *batches, Size run, Size examples, bool &clear) {
    bool none = true; // whether no example has had a gradient yet
    double total = 0;
    if (w.first == PAIRS) clean();
    const bool tells = w.pieces && batches == w.batches;
    if (tells) correct.resize(examples), surprisals.resize(examples);
    for (Size part = 0; part < w.parts; part++)
      total += pass(batches[part], run, examples, none, tells ? correct.data() : nullptr, tells ? surprisals.data() : nullptr);
    if (none && !clear) clean();
    clear = none;
    for (const Own &o : own) masked(o, o.gradients);
    return total;
  }

  // Says of the pieces of a batch what `evaluate` would, in the same order, of what was kept of its examples.
  void tell(Size run) {
    const double *loss = surprisals.data();
    const uint8_t *right = correct.data();
    for (Size piece = 0; piece < w.pieces; piece++) {
      const Size size = w.sizes[piece];
      double total = 0;
      Size count = 0;
      for (Size first = 0; first < size; first += ROWS) {
        double some = 0;
        for (Size r = first; r < size && r < first + ROWS; r++) some += *loss++, count += *right++;
        total += some;
      }
      w.told[piece * w.runs + run] = rounded(total / size);
      w.shares[piece * w.runs + run] = (double)count / size;
    }
  }

  // Makes the gradient anew, a way up the one that there is (Foret et al. 2021, arXiv 2010.01412, eq. 2 and 3).
  void ascend(const Batch *batches, Size run, Size examples, bool &clear) {
    const float way = (float)(w.rho / (norm(&Own::gradients) + 1e-12));
    for (const Own &o : own) {
      std::memcpy(o.held, o.weights, o.size() * sizeof(float));
      for (Size k = 0; k < o.size(); k += V) store(o.weights + k, load(o.weights + k) + way * load(o.gradients + k));
    }
    turn();
    differentiate(batches, run, examples, clear);
    for (const Own &o : own) std::memcpy(o.weights, o.held, o.size() * sizeof(float));
  }

  void train(Size run) {
    take(run);
    moved = 0, anew = false;
    const bool still = rests();
    bool fresh = true, clear = false; // whether weights are new to passes, and gradients are zero
    for (Size step = 0; step < w.steps; step++) {
      const Batch *batches = w.batches + step * w.parts;
      Size examples = 0;
      for (Size part = 0; part < w.parts; part++) examples += batches[part].size;
      if (fresh) turn();
      w.losses[step * w.runs + run] = rounded(differentiate(batches, run, examples, clear) / examples);
      if (!step) tell(run);
      if (step + 1 == w.steps)
        for (Size i = 0; i < w.count; i++) {
          const Param &p = w.params[i];
          const Size at = run * p.rows * p.cols;
          if (p.gradients) copy_out(own[i], p.gradients + at, own[i].gradients, lines);
          if (p.previous) copy_out(own[i], p.previous + at, own[i].evaluated(), lines);
        }
      fresh = !(w.lost && w.lost[run]) && !(clear && still);
      if (fresh && w.rho) ascend(batches, run, examples, clear);
      if (fresh && w.clip) clip();
      if (fresh && w.orthogonal) cross();
      if (fresh) move_free(batches->rate);
      const bool slow = fresh && w.period && (w.since + step + 1) % w.period == 0;
      if (slow) synchronise();
      if (fresh && w.radii) hold(&Own::weights, w.radii[run]);
      if (slow && w.radii) hold(&Own::slow, w.radii[run]);
      if (w.takes && w.takes[step].slot >= 0) average(run, w.takes[step]);
    }
    for (Size i = 0; i < w.count; i++) {
      const Param &p = w.params[i];
      const Size at = run * p.rows * p.cols;
      copy_out(own[i], p.weights + at, own[i].weights, lines);
      for (int m = 0; m < 3; m++)
        if (p.moments[m]) copy_out(own[i], p.moments[m] + at, own[i].moments[m], lines);
      for (int m = 0; m < 3; m++)
        if (p.pulled[m]) copy_out(own[i], p.pulled[m] + at, own[i].pulled[m], lines);
      if (p.slow) copy_out(own[i], p.slow + at, own[i].slow, lines);
      if (own[i].average) copy_out(own[i], p.averages[0] + at, own[i].average, lines);
    }
  }
};

} // namespace

static int each(const Work *w, void (Net::*does)(Size)) {
  try {
    Net net(*w);
    for (Size run = 0; run < w->runs; run++) (net.*does)(run);
  } catch (const std::bad_alloc &) {
    return 1;
  } catch (const std::out_of_range &) {
    return 2;
  }
  return 0;
}

extern "C" int update(const Work *w) { return each(w, &Net::train); }
extern "C" int evaluate(const Work *w) { return each(w, &Net::evaluate); }

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
