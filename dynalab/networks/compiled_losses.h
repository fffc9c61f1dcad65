// Activations and losses of networks, and their derivatives.
#pragma once
#include "compiled_work.h"

// Of StableMax (Prieto et al. 2025, arXiv 2501.04697): what stands for e^x, and then its derivative as a share of it.
template <class Type> static inline Type stabilised(Type x) {
  const Type part = 1.0f / (1.0f + (x < 0.0f ? -x : x));
  return x < 0.0f ? part : x + 1.0f;
}
template <class Type> static inline Type slope(Type s) { return s >= 1.0f ? 1.0f / s : s; }
static inline double log_stabilised(double x) { return x < 0 ? -std::log1p(-x) : std::log1p(x); }

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

// By its series about the nearest multiple of pi, of the cosine the nearest that is half of one off: taken away in parts.
template <bool COSINE = false> static inline Vec sine(Vec x) {
  constexpr float half = COSINE ? 0.5f : 0;
  const Vec shifted = x * 0.31830988618379067f - half + 12582912.0f, k = shifted - 12582912.0f + half;
  x = x - k * 3.140625f - k * 9.67502593994140625e-4f - k * 1.509957990978376e-7f;
  // Where a float does not resolve a turn, what is left is any number; it stays a sine's.
  x = x > 1.5708f ? Vec{} + 1.5708f : x;
  x = x < -1.5708f ? Vec{} - 1.5708f : x;
  const Vec square = x * x;
  Vec y = Vec{} + 1.0f;
  UNROLL for (int i = 12; i > 0; i -= 2) y = 1.0f - y * square * (1.0f / (i * (i + 1)));
  return (Vec)((Ints)(x * y) ^ ((Ints)shifted + COSINE) << 31);
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
  if (kind == SIN) return gradient * sine<true>(x);
  Vec density;
  if (kind == GELU) return gradient * (below(x, density) + x * density);
  return gradient * (1.0f - y * y);
}

// Whether of outputs (classes,) the label's is the largest, and the first that is.
static inline bool largest_first(const float *out, Size classes, Size label) {
  bool found = true;
  for (Size c = 0; c < classes; c++) found = found && (c < label ? out[c] < out[label] : out[c] <= out[label]);
  return found;
}

// Of an output y and a sign, or a number: the loss, and its derivative.
template <class Type> static inline Type loss_of_one(Size kind, Type y, Type target, Type &gradient) {
  const Type margin = y * target;
  if (kind == HINGE) {
    const Type slack = 1 - margin;
    gradient = slack <= 0 ? 0 : -target;
    return slack < 0 ? 0 : slack;
  }
  if (kind == SQUARED) {
    gradient = 2 * (y - target);
    return (y - target) * (y - target);
  }
  const Type loss = (margin < 0 ? -margin : 0) + std::log1p(std::exp(-std::fabs(margin)));
  gradient = std::expm1(-loss) * target;
  return loss;
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
        row[label] = stable ? less * by : row[label] - 1;
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
        if (right) right[r] = largest_first(out, classes, label);
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
    const float target = batch.relevant ? signs[r] : targets[r * batch.target_row], y = out[0] * heat;
    if (right) right[r] = y * target > 0;
    float gradient;
    const float loss = loss_of_one(w.loss, y, target, gradient);
    total += loss;
    if (each) each[r] = loss;
    // What overflowed goes on as it would in a product with 0.
    if (TRAINS) out[0] = std::isfinite(out[0]) ? gradient * share * heat : NAN;
  }
  return total;
}

// Of outputs of one example in float64: the surprisal of its label, and of `row`, room for its outputs, what remains to
// be divided by the sum that is returned.
static double surprisal_wide(bool stable, double heat, const float *out, Size ld, Size classes, Size label, double *row,
                             double &sum) {
  constexpr Size H = V / 2;
  double most = -INFINITY;
  for (Size c = 0; c < classes; c++) {
    row[c] = out[c] * heat;
    most = row[c] > most ? row[c] : most;
  }
  const double own = stable ? log_stabilised(row[label]) : row[label] - most;
  Doubles sums{};
  for (Size c = 0; c < ld; c += H) {
    Doubles x = *(const Doubles *)(row + c);
    x = stable ? stabilised(x) : exponential(x - most);
    for (Size i = 0; c + H > classes && i < H; i++) x[i] = c + i < classes ? x[i] : 0;
    sums += *(Doubles *)(row + c) = x;
  }
  sum = 0;
  for (Size i = 0; i < H; i++) sum += sums[i];
  return std::log(sum) - own;
}

// As `lowered`, in float64 from the outputs on; `row` is room for those of an example.
template <bool TRAINS>
static double lowered_wide(const Work &w, float *out, Size rows, Size ld, Size classes, const Batch &batch, Size run,
                           Size first, const float *signs, Size examples, uint8_t *right, double *each, double *row) {
  const Size start = run * batch.target_run + first * batch.target_row;
  const int64_t *labels = (const int64_t *)batch.targets + start;
  const float *targets = (const float *)batch.targets + start;
  const bool one = w.loss < CROSS_ENTROPY, squares = w.loss >= HALF_SQUARES, stable = w.loss == STABLEMAX;
  const double heat = 1 / w.temperature, share = heat / examples;
  const double part = w.loss == HALF_SQUARES ? 1 : 2.0 / classes;
  if (batch.columns) within(batch.columns - 1, classes), within(classes - 1, batch.columns);
  double total = 0;
  for (Size r = 0; r < rows; r++, out += ld, labels += batch.target_row, targets += batch.target_row) {
    double loss = 0;
    if (one) {
      const double target = batch.relevant ? signs[r] : targets[0], y = out[0] * heat;
      if (right) right[r] = y * target > 0;
      double gradient;
      loss = loss_of_one(w.loss, y, target, gradient);
      if (TRAINS) out[0] = std::isfinite(out[0]) ? (float)(gradient * share) : NAN;
    } else if (squares) {
      const Size label = batch.columns ? -1 : within(labels[0], classes);
      if (right && !batch.columns) right[r] = largest_first(out, classes, label);
      for (Size c = 0; c < classes; c++) {
        const double error = out[c] * heat - (batch.columns ? targets[c] : (double)(c == label));
        loss += error * error;
        if (TRAINS) out[c] = (float)(error * part * share);
      }
      loss *= part / 2;
    } else {
      const Size label = within(labels[0], classes);
      if (right) right[r] = largest_first(out, classes, label);
      double sum;
      loss = surprisal_wide(stable, heat, out, ld, classes, label, row, sum);
      for (Size c = 0; TRAINS && c < classes; c++)
        out[c] = (float)((row[c] / sum - (c == label)) * (stable ? slope(row[c]) : 1) * share);
      for (Size c = classes; TRAINS && c < ld; c++) out[c] = 0;
    }
    total += loss;
    if (each) each[r] = loss;
  }
  return total;
}
