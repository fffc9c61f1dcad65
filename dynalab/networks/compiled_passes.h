// A run's networks there and back: layers on examples in pieces of at most ROWS.
//
// Layers are numbered from 0; layer i takes acts[i] (rows, ld(in)) to pres[i + 1] (rows, ld(out)), by weights (out, in);
// the first layer's are held as (in, out), for nothing needs the others. Rows of every matrix are `ld` entries apart,
// whole vectors, zero behind their last column.
#pragma once
#include "compiled_bits.h"
#include "compiled_weights.h"

namespace {

struct Layers : Weights {
  Size widths[LAYERS + 1]; // of acts[i]
  float *pres[LAYERS + 1], *acts[LAYERS + 1], *error[2];
  Sums tabulated;    // of the first layer's weights, where examples are bits
  float signs[ROWS]; // the labels of bits
  Size live[ROWS + 1];

  Layers(const Work &w, bool trains) : Weights(w, trains) {
    Size widest = 0;
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
    tabulated.inputs = widths[0], tabulated.ld = whole(widths[1]);
    if (bits && own[w.weights[0]].flipped) tabulated.at = memory.floats(tabulated.size());
    error[0] = memory.floats(ROWS * widest);
    error[1] = memory.floats(ROWS * widest);
  }

  // Makes of the weights what passes read.
  void turn() {
    for (Size i = 0; i < w.layers; i++) {
      const Own &o = own[w.weights[i]];
      if (o.rows > 1 && !o.flipped) transposed(o.weights, o.rows, o.cols, o.ld, o.turned, whole(o.rows));
    }
    const float *bias = w.biases[0] < 0 ? nullptr : own[w.biases[0]].weights;
    if (tabulated.at) tabulated.make(own[w.weights[0]].weights, bias);
  }

  // One of two tables of symbols, of weights or of gradients, in lines of ld(0), and how many there are in it.
  float *table(int side, float *Own::*of) const {
    const Own &o = own[w.tables[side]];
    return o.*of + (o.flipped ? side * symbols(side) * o.ld : 0);
  }
  Size symbols(int side) const {
    const Own &o = own[w.tables[side]];
    return o.flipped ? o.cols / 2 : o.rows;
  }
  const int64_t *pairs(const Batch &batch, Size run, Size first) const {
    return (const int64_t *)batch.inputs + run * batch.input_run + first * batch.input_row;
  }

  // What pairs come to before the layers: the sum of both symbols' lines, activated.
  void gather(const Batch &batch, Size run, Size first, Size rows) {
    const Size ld = whole(widths[0]), ends[2] = {symbols(0), symbols(1)};
    const float *left = table(0, &Own::weights), *right = table(1, &Own::weights);
    const float *shift = w.shift < 0 ? nullptr : own[w.shift].weights;
    const int64_t *pair = pairs(batch, run, first);
    for (Size r = 0; r < rows; r++, pair += batch.input_row) {
      const float *a = left + within(pair[0], ends[0]) * ld, *b = right + within(pair[1], ends[1]) * ld;
      for (Size k = 0; k < ld; k += V) {
        const Vec x = (shift ? load(a + k) + load(shift + k) : load(a + k)) + load(b + k);
        store(pres[0] + r * ld + k, x);
        store(acts[0] + r * ld + k, activated(w.activation, x));
      }
    }
  }

  // Adds the gradients of these sums to those of the lines.
  void scatter(const Batch &batch, Size run, Size first, Size rows, const float *from) {
    const Size ld = whole(widths[0]);
    float *left = table(0, &Own::gradients), *right = table(1, &Own::gradients);
    if (w.shift >= 0) add_up(from, rows, ld, own[w.shift].gradients, false);
    const int64_t *pair = pairs(batch, run, first);
    for (Size r = 0; r < rows; r++, pair += batch.input_row, from += ld) {
      float *a = left + pair[0] * ld, *b = right + pair[1] * ld;
      for (Size k = 0; k < ld; k += V) {
        const Vec x = load(from + k);
        store(a + k, load(a + k) + x);
        store(b + k, load(b + k) + x);
      }
    }
  }

  // Adds rows to a sum, or starts it.
  static void add_up(const float *from, Size rows, Size ld, float *to, bool fresh) {
    for (Size c = 0; c < ld; c += V) {
      Vec total = fresh ? Vec{} : load(to + c);
      for (Size r = 0; r < rows; r++) total += load(from + r * ld + c);
      store(to + c, total);
    }
  }

  void unpack_row(const Batch &batch, Size run, Size row, float *to) const {
    unpack(bits_of(batch, run), batch.bit + row * widths[0], widths[0], to);
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

  Size outputs() const { return w.head == PRODUCT ? 1 : widths[w.layers]; }

  // Makes outputs of what the last layer gives.
  void conclude(Size rows) {
    const Size n = widths[w.layers], ld = whole(n), ldo = whole(outputs());
    if (w.head == ACTIVATED) {
      activate(w.layers, rows);
      std::memcpy(error[0], acts[w.layers], rows * ld * sizeof(float));
      return;
    }
    std::memset(error[0], 0, rows * ldo * sizeof(float));
    for (Size r = 0; r < rows; r++) {
      const float *factors = pres[w.layers] + r * ld;
      float product = factors[0];
      for (Size c = 1; c < n; c++) product *= factors[c];
      error[0][r * ldo] = product;
    }
  }

  // Makes of the gradients by outputs those by what the last layer gives.
  void take_back(Size rows) {
    const Size n = widths[w.layers], ld = whole(n), ldo = whole(outputs());
    if (w.head == ACTIVATED) {
      for (Size k = 0; k < rows * ld; k += V)
        store(error[0] + k, back(w.activation, load(pres[w.layers] + k), load(acts[w.layers] + k), load(error[0] + k)));
      return;
    }
    for (Size r = 0; r < rows; r++) {
      const float *factors = pres[w.layers] + r * ld;
      float *to = error[1] + r * ld, before = error[0][r * ldo], behind = 1;
      for (Size c = 0; c < ld; c++) {
        to[c] = c < n ? before : 0;
        if (c < n) before *= factors[c];
      }
      for (Size c = n - 1; c >= 0; c--) {
        to[c] *= behind;
        behind *= factors[c];
      }
    }
    float *other = error[0];
    error[0] = error[1];
    error[1] = other;
  }

  // Whether outputs that are looked up go to a lone output and nowhere else.
  bool is_summed() const {
    return tabulated.at && !trains && w.layers == 2 && w.activation == RELU && own[w.weights[1]].rows == 1;
  }

  void forward(const Batch &batch, Size run, Size first, Size rows) {
    const Size ld = whole(widths[0]);
    if (w.first == PAIRS) {
      gather(batch, run, first, rows);
    } else if (batch.relevant) {
      label(batch, run, first, rows, widths[0], signs);
      for (Size r = 0; !tabulated.at && r < rows; r++) unpack_row(batch, run, first + r, acts[0] + r * ld);
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
      float *to = last && w.head == LINEAR ? error[0] : pres[i + 1];
      const bool looked = !i && tabulated.at && batch.relevant;
      const bool summed = batch.relevant && is_summed();
      if (looked)
        tabulated.look_up(bits_of(batch, run), batch.bit + first * widths[0], rows, summed ? own[w.weights[1]].weights : nullptr,
                          w.activation == RELU && !last, summed ? error[0] : to);
      else if (o.rows == 1) {
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
    if (w.head != LINEAR) conclude(rows);
  }

  // Leaves out the rows whose outputs have no gradient; returns how many remain.
  Size sift(const Batch &batch, Size run, Size first, Size rows) {
    const Size ldo = whole(outputs()), last = w.layers - (w.head == LINEAR);
    Size count = 0;
    for (Size r = 0; r < rows; r++)
      live[count] = r, count += error[0][r * ldo] != 0;
    const bool bits = batch.relevant && tabulated.at;
    for (Size k = 0; k < count; k++) {
      const Size r = live[k];
      if (bits) unpack_row(batch, run, first + r, acts[0] + k * whole(widths[0]));
      if (r == k) continue;
      error[0][k * ldo] = error[0][r * ldo];
      for (Size i = bits; i <= last; i++) {
        const Size ld = whole(widths[i]);
        std::memcpy(acts[i] + k * ld, acts[i] + r * ld, ld * sizeof(float));
        if (pres[i] != acts[i]) std::memcpy(pres[i] + k * ld, pres[i] + r * ld, ld * sizeof(float));
      }
    }
    return count;
  }

  // Adds to gradients, or starts them where they are `fresh`; those of symbols' tables are zero then.
  void backward(const Batch &batch, Size run, Size first, Size rows, bool fresh) {
    if (w.head != LINEAR) take_back(rows);
    float *incoming = error[0], *outgoing = error[1];
    for (Size i = w.layers - 1; i >= 0; i--) {
      const Own &o = own[w.weights[i]];
      const Size ldi = whole(widths[i]), ldo = whole(widths[i + 1]);
      const float *start = fresh ? nullptr : o.gradients;
      if (o.flipped)
        product(o.cols, ldo, rows, acts[i], 1, ldi, incoming, ldo, o.gradients, ldo, start, ldo);
      else
        product(o.rows, ldi, rows, incoming, 1, ldo, acts[i], ldi, o.gradients, ldi, start, ldi);
      if (w.biases[i] >= 0) add_up(incoming, rows, ldo, own[w.biases[i]].gradients, fresh);
      if (!i && w.first == DENSE) return;
      product(rows, ldi, o.rows, incoming, ldo, 1, o.weights, ldi, outgoing, ldi);
      for (Size k = 0; k < rows * ldi; k += V)
        store(outgoing + k, back(w.activation, load(pres[i] + k), load(acts[i] + k), load(outgoing + k)));
      float *other = incoming;
      incoming = outgoing;
      outgoing = other;
    }
    scatter(batch, run, first, rows, incoming);
  }
};

} // namespace
