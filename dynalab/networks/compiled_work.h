// What compiled.cpp is told to do.
#pragma once
#include "compiled_vectors.h"
#include <cstring>
#include <stdexcept>

constexpr Size ROWS = 64, LAYERS = 16;
enum First { DENSE, PAIRS };
enum Activation { RELU, TANH, SQUARE, CUBE, GELU, SIN };
enum Head { LINEAR, PRODUCT, ACTIVATED }; // themselves; their product, the only output; each what it is activated to
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

// Mirrored in compiled.py, as are the others.
struct Work {
  Size runs, steps, layers, first, activation, loss, optimizer, count;
  Size nesterov, age; // age: updates that Adam has made
  double momentum, dampening, beta1, beta2, eps, temperature;
  double rho;   // how far SAM climbs before its gradient is taken; 0: it does not
  double clip;  // the largest norm of a gradient; 0: any
  Size orthogonal; // whether gradients are taken across the weights
  Size wide;       // whether losses are found in float64
  double alpha; // of Lookahead the size of a slow step, its updates between two, and those since the last
  Size period, since;
  Size resets; // whether its slow steps let moments begin anew
  Size parts; // batches of an update
  const uint8_t *lost;  // (S,): whether a run is no longer updated
  const double *radii;  // (S,): the norm at which all of a run's weights are held together; null: at none
  Size weights[LAYERS], biases[LAYERS]; // places among the parameters; -1: no bias
  // Of pairs of symbols the places of both tables, (n, d) each, or twice that of a weight (d, 2 n) on two one-hot
  // vectors, and of what is added to the sum of their lines; -1: nothing.
  Size tables[2], shift;
  Size head; // what the last layer's outputs become
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
