// Vectors as wide as the processor's, and products of matrices whose rows are whole vectors.
#pragma once
#include <cmath>
#include <cstdint>

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

static inline Size whole(Size n) { return (n + V - 1) / V * V; }
static inline Vec load(const float *p) { return *(const Vec *)p; }
static inline void store(float *p, Vec v) { *(Vec *)p = v; }

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

static inline Vec rooted(Vec x) {
  for (int i = 0; i < V; i++) x[i] = std::sqrt(x[i]);
  return x;
}
