// A run's weights, and what moves them: optimizers, and what is done to gradients and weights around them.
#pragma once
#include "compiled_memory.h"

namespace {

// The parameters of one run after another.
struct Weights {
  const Work &w;
  const bool trains; // else it evaluates, which needs less
  Memory memory;
  std::vector<Own> own;
  float *flat, *lines;     // a run's weights as they lie outside, of the largest; and in lines of whole vectors
  std::vector<Way> behind; // which ways an average is to go yet, to the weights as they are
  Size moved = 0;          // updates since these began, or since the moments began anew in their course
  bool anew = false;

  Weights(const Work &w, bool trains) : w(w), trains(trains) {
    for (Size i = 0; i < w.count; i++) {
      const Param &p = w.params[i];
      const bool onehot = w.first == PAIRS && i == w.tables[0] && i == w.tables[1];
      const bool flipped = onehot || (w.first == DENSE && i == w.weights[0] && p.rows > 1);
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
    Size largest = 0;
    for (const Own &o : own) largest = largest > o.rows * whole(o.cols) ? largest : o.rows * whole(o.cols);
    flat = memory.floats(largest);
    lines = memory.floats(largest);
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

  static void masked(const Own &o, float *x) {
    for (Size k = 0; o.mask && k < o.size(); k += V) store(x + k, load(x + k) * load(o.mask + k));
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

  // Where nothing is added to a root what lies behind the last column became 0 / 0.
  void clear_margins() {
    for (const Own &o : own) {
      const Size used = o.flipped ? o.rows : o.cols;
      for (Size r = 0; r < o.size(); r += o.ld)
        for (float *x : {o.weights, o.moments[0], o.moments[1], o.moments[2]})
          if (x) std::memset(x + r + used, 0, (o.ld - used) * sizeof(float));
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
    if (w.optimizer != SGD && !(float)w.eps) clear_margins();
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

  // Whether an update without a gradient leaves all as it is.
  bool rests() const {
    if (w.period || w.radii) return false;
    for (Size i = 0; i < w.count; i++)
      if (w.optimizer != SGD || own[i].moments[0] || w.params[i].decay) return false;
    return true;
  }

  void clean() {
    for (Own &o : own) std::memset(o.gradients, 0, o.size() * sizeof(float));
  }
};

} // namespace
