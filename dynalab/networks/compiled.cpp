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
#include "compiled_draws.h"
#include "compiled_losses.h"
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

struct Net {
  const Work &w;
  const bool trains; // else it evaluates, which needs less
  Memory memory;
  std::vector<Own> own;
  Size widths[LAYERS + 1]; // of acts[i]
  float *pres[LAYERS + 1], *acts[LAYERS + 1], *error[2];
  float *tables = nullptr; // of the first layer: chunks of WIDE vectors, (groups, SUMS, chunk) each
  float *flat, *lines;     // a run's weights as they lie outside, of the largest; and in lines of whole vectors
  float signs[ROWS];       // the labels of bits
  double *row = nullptr;   // an example's outputs in float64
  Size live[ROWS + 1];
  std::vector<Way> behind; // which ways an average is to go yet, to the weights as they are
  Size moved = 0;          // updates since these began, or since the moments began anew in their course
  bool anew = false;
  std::vector<uint8_t> correct; // of the examples of an update of whose pieces something is said, as
  std::vector<double> surprisals;

  Net(const Work &w, bool trains) : w(w), trains(trains) {
    for (Size i = 0; i < w.count; i++) {
      const Param &p = w.params[i];
      const bool flipped = w.first == DENSE && i == w.weights[0] && p.rows > 1;
      Own o{p.rows, p.cols, whole(flipped ? p.rows : p.cols), flipped, nullptr, nullptr, {}, nullptr, nullptr, nullptr, nullptr, nullptr, {}};
      o.weights = memory.floats(o.size());
      if (trains) o.gradients = memory.floats(o.size());
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
      const bool apart = trains && w.activation != RELU && w.activation != TANH;
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
  // Those of the first group begin with the bias.
  void tabulate() {
    const Own &o = own[w.weights[0]];
    const float *bias = w.biases[0] < 0 ? nullptr : own[w.biases[0]].weights;
    float *to = tables;
    for (Size j = 0; j < o.ld; j += WIDE * V) {
      const Size chunk = o.ld - j < WIDE * V ? o.ld - j : WIDE * V;
      for (Size g = 0; g < groups(); g++, to += SUMS * chunk)
        for (Size k = 0; k < chunk; k += V) {
          Vec x[GROUP];
          UNROLL for (Size i = 0; i < GROUP; i++)
            x[i] = g * GROUP + i < o.cols ? load(o.weights + (g * GROUP + i) * o.ld + j + k) : Vec{};
          const Vec found[4] = {x[0] + x[1] + x[2], x[0] + x[1] - x[2], x[0] - x[1] + x[2], x[0] - x[1] - x[2]};
          const Vec start = bias ? load(bias + j + k) : Vec{};
          UNROLL for (Size i = 0; i < 4; i++) {
            store(to + i * chunk + k, g ? found[i] : start + found[i]);
            store(to + (SUMS - 1 - i) * chunk + k, g ? -found[i] : start - found[i]);
          }
        }
    }
  }

  // Columns j to j + N V of the first layer's outputs, out of the sums in `table`; or where these go to a lone output
  // alone, by weights `above`, what they add to each lane of it.
  template <int N>
  void looked_up(const uint8_t *bits, Size place, Size rows, const float *table, Size j, const float *above) {
    const Size ld = above ? V : whole(widths[1]), count = groups(), n = widths[0];
    const bool relu = w.activation == RELU && w.layers > 1;
    float *to = above ? error[0] : pres[1] + j;
    for (Size r = 0; r < rows; r++, place += n, to += ld) {
      Vec c[N];
      const float *at = table;
      for (Size g = 0; g < count;) {
        uint64_t word = following(bits, place + g * GROUP);
        const Size last = count < g + 57 / GROUP ? count : g + 57 / GROUP;
        if (!g) {
          UNROLL for (int i = 0; i < N; i++) c[i] = load(at + (word >> (64 - GROUP)) * (N * V) + i * V);
          g++, word <<= GROUP, at += SUMS * N * V;
        }
        for (; g < last; g++, word <<= GROUP, at += SUMS * N * V) {
          const float *row = at + (word >> (64 - GROUP)) * (N * V);
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

  // Whether outputs that are looked up go to a lone output and nowhere else.
  bool is_summed() const {
    return tables && !trains && w.layers == 2 && w.activation == RELU && own[w.weights[1]].rows == 1;
  }

  void look_up(const uint8_t *bits, Size place, Size rows) {
    const Size ld = whole(widths[1]);
    const float *table = tables, *above = is_summed() ? own[w.weights[1]].weights : nullptr;
    for (Size j = 0; j < ld; j += WIDE * V) {
      const Size n = ld - j < WIDE * V ? (ld - j) / V : WIDE;
#define OF(n) case n: looked_up<n>(bits, place, rows, table, j, above); break;
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
        look_up(bits_of(batch, run), place_of(batch, first), rows);
      else if (o.rows == 1) {
        const bool summed = batch.relevant && is_summed();
        for (Size r = 0; r < rows; r += V) {
          Vec square[V];
          for (int j = 0; j < V; j++) {
            square[j] = Vec{};
            if (r + j >= rows) continue;
            if (summed) square[j] = load(to + (r + j) * ldo);
            for (Size k = 0; !summed && k < ldi; k += V)
              square[j] += load(acts[i] + (r + j) * ldi + k) * load(o.weights + k);
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

  // An optimizer's update. What the average is `behind` by it takes in where the weights are in registers, those that
  // they become as well if there is `also` a way to these.
  template <bool AVERAGED> void move(double rate, const Way *also = nullptr) {
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
            *__restrict v = o.moments[1], *__restrict most = o.moments[2], *__restrict average = o.average;
      const auto put = [=](Size k, Vec old, Vec x) {
        store(p + k, x);
        if (AVERAGED) {
          Vec some = load(average + k);
          for (const Way &way : behind) some = way.along(some, old);
          store(average + k, also ? also->along(some, x) : some);
        }
      };
      if (sgd) {
        const float keep = (float)w.momentum, share = (float)(1 - w.dampening);
        const bool fresh = (anew || w.params[i].first) && !moved;
        for (Size k = 0; k < n && !m && !decay; k += V) put(k, load(p + k), load(p + k) - lr * load(g + k));
        for (Size k = 0; k < n && (m || decay); k += V) {
          Vec x = load(g + k), weight = load(p + k);
          if (decay) x += decay * weight;
          if (m) {
            const Vec kept = fresh ? x : keep * load(m + k) + share * x;
            store(m + k, kept);
            x = w.nesterov ? x + keep * kept : kept;
          }
          put(k, weight, weight - lr * x);
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
          put(k, load(p + k), load(p + k) - lr * x);
        }
        continue;
      }
      const float shrunk = (float)(1 - rate * w.params[i].decay);
      for (Size k = 0; k < n; k += V) {
        const Vec old = load(p + k);
        Vec x = load(g + k), weight = old;
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
        put(k, old, weight - scale * first / (rooted(second) / root + eps));
      }
    }
  }

  // As `move`; what is masked is held, whatever moments and decay would do.
  void move_free(double rate, const Way *also) {
    for (const Own &o : own)
      if (o.mask) std::memcpy(o.held, o.weights, o.size() * sizeof(float));
    if (behind.empty())
      move<false>(rate);
    else
      move<true>(rate, also);
    behind.clear();
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

  // Whether weights are what an optimizer's update makes of them until the next one, which can have an average take
  // them in: it reads them anyway, so that the average goes once through memory for two of its steps.
  bool moves_alone() const {
    bool alone = !w.period && !w.radii;
    for (const Own &o : own) alone = alone && o.average && !o.mask;
    return alone;
  }

  void catch_up() {
    for (const Own &o : own)
      if (!behind.empty())
        approach<1>(behind, o.average, o.weights, approach<8>(behind, o.average, o.weights, 0, o.size()), o.size());
    behind.clear();
  }

  void average(Size run, const Take &take) {
    behind.clear(); // all of it, or it is written over
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
    const bool still = rests(), alone = moves_alone();
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
      const Take *due = w.takes && w.takes[step].slot >= 0 ? w.takes + step : nullptr;
      const bool both = fresh && due && due->share < 1 && !behind.empty();
      const Way way(due ? due->share : 0);
      if (fresh) move_free(batches->rate, both ? &way : nullptr);
      const bool slow = fresh && w.period && (w.since + step + 1) % w.period == 0;
      if (slow) synchronise();
      if (fresh && w.radii) hold(&Own::weights, w.radii[run]);
      if (slow && w.radii) hold(&Own::slow, w.radii[run]);
      if (due && !both && alone && due->share < 1)
        behind.push_back(way);
      else if (due && !both)
        average(run, *due);
    }
    catch_up();
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
    Net net(*w, does == &Net::train);
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
