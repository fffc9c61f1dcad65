// Updates of runs by themselves, a block of steps of each: forward, loss, backward and optimizer; and evaluations.
//
// A run's weights and moments are copied into memory of its own, padded to whole vectors, stay in a core's cache for
// the whole block, and are copied back. Examples go through in pieces of ROWS, so that what the layers make of them
// stays there as well. What a run comes to does not depend on any other, nor on where its numbers lie.
//
// Where to look: what there is to do, compiled_work.h; a model's layers, compiled_passes.h; inputs that come as bits,
// compiled_bits.h; activations and losses, compiled_losses.h; optimizers and what is around them, compiled_weights.h;
// how weights lie, and averages of them, compiled_memory.h.
#include "compiled_draws.h"
#include "compiled_passes.h"

namespace {

struct Net : Layers {
  double *row = nullptr;        // an example's outputs in float64
  std::vector<uint8_t> correct; // of the examples of an update of whose pieces something is said, as
  std::vector<double> surprisals;

  Net(const Work &w, bool trains) : Layers(w, trains) {
    if (w.wide) row = (double *)memory.floats(2 * whole(widths[w.layers]));
  }

  // What is made of a run's outputs, of a few rows of a batch: see `lowered`.
  template <bool TRAINS>
  double lower(const Batch &batch, Size run, Size first, Size rows, Size examples, uint8_t *right, double *each) {
    const Size classes = outputs(), ld = whole(classes);
    if (row) return lowered_wide<TRAINS>(w, error[0], rows, ld, classes, batch, run, first, signs, examples, right, each, row);
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
