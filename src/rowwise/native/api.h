// The plain C interface of the native core; `core.py` and `engines/native.py` are its callers.
//
// Every pointer is borrowed for the length of the call unless a line says otherwise; arrays are
// C-contiguous; sizes have been checked by the caller, in Python. Functions return 0, or one of
// the codes below; ROWWISE_UNKNOWN is for a number that names no kind of what it should (layer, cell,
// activation, pool, optimiser, clipping, precision, slot). Nothing here is called by two threads on one handle at the same time.
#pragma once

#include <stdint.h>

#define ROWWISE_EXPORT __attribute__((visibility("default")))

extern "C" {

enum { ROWWISE_DONE = 0, ROWWISE_CANCELLED = 1, ROWWISE_NO_MEMORY = 2, ROWWISE_REFUSED = 3, ROWWISE_UNKNOWN = 4 };

enum {
  ROWWISE_READING = 0,
  ROWWISE_BATCH_NORM = 1,
  ROWWISE_RECURRENT = 2,
  ROWWISE_DENSE = 3,
  ROWWISE_DROPOUT = 4,
  ROWWISE_FLATTEN = 5,
  ROWWISE_POOL = 6,
  ROWWISE_JOIN = 7
};
enum { ROWWISE_SIMPLE_RNN = 0, ROWWISE_LSTM = 1, ROWWISE_GRU = 2 };
enum { ROWWISE_LINEAR = 0, ROWWISE_RELU = 1, ROWWISE_TANH = 2, ROWWISE_SIGMOID = 3 };
enum { ROWWISE_MEAN = 0, ROWWISE_MAX = 1, ROWWISE_MEAN_MAX = 2 };
enum { ROWWISE_SGD = 0, ROWWISE_RMSPROP = 1, ROWWISE_ADAM = 2, ROWWISE_ADAMW = 3 };
enum { ROWWISE_CLIP_NOT = 0, ROWWISE_CLIP_VALUE = 1, ROWWISE_CLIP_NORM = 2, ROWWISE_CLIP_GLOBAL = 3 };

// A layer; fields that its kind does not use are 0. Its parameters follow those of the layers before
// it, in the order of `network.py`.
typedef struct {
  int32_t kind;
  int32_t input_count;
  const int32_t *inputs;  // indices of earlier layers
  const int32_t *order;   // reading: [steps * features], the pixel at each step and place; -1: a zero
  int32_t steps;          // reading
  int32_t features;       // reading: pixels a step
  int32_t cell;           // recurrent: one of the above
  int32_t units;          // recurrent, dense
  int32_t activation;     // dense; recurrent: ReLU or tanh
  int32_t bidirectional;  // recurrent
  int32_t sequences;      // recurrent: give every state, not the last alone
  int32_t pool;           // pool: one of the above
  float rate;             // dropout
  float momentum;         // batch norm
  float epsilon;          // batch norm
} rowwise_layer;

// How the weights are moved.
typedef struct {
  int32_t kind;
  int32_t nesterov;
  int32_t clip;
  int32_t reserved;
  double beta_1, beta_2, epsilon, weight_decay, rho, momentum;
  double clip_limit;
} rowwise_optimizer;

// What is minimised. A step's loss is the cross-entropy against (1 - s) onehot + s / C (Szegedy et al.
// 2016), a picture's a (mean of its steps' losses) + (1 - a) (the last step's) (Lipton et al. 2016).
typedef struct {
  double label_smoothing;     // s
  double target_replication;  // a
} rowwise_loss;

// Pictures [count][pixels]: uint8 (255 is full ink) where `bytes`, else float32.
typedef struct {
  const void *data;
  int64_t count;
  int64_t pixels;
  int32_t bytes;
  int32_t reserved;
} rowwise_pictures;

typedef struct rowwise_network rowwise_network;

// Builds a network with all parameters zero, to be run by `threads` threads; the products of its
// training are in float32 (0) or bfloat16 (1). *network: out, owned by the caller, who gives it back to
// rowwise_free; untouched where it could not be built.
ROWWISE_EXPORT int32_t rowwise_new(const rowwise_layer *layers, int32_t count, int32_t threads, int32_t precision,
                                   rowwise_network **network);
ROWWISE_EXPORT void rowwise_free(rowwise_network *network);

// Copies parameter `index` (slot -1), or its optimiser slot 0 or 1, in or out; row-major float32 in
// the shape of `network.py`. Slot 2 is the gradient of the last step, to be read alone.
ROWWISE_EXPORT int32_t rowwise_set(rowwise_network *network, int32_t index, int32_t slot, const float *from);
ROWWISE_EXPORT int32_t rowwise_get(rowwise_network *network, int32_t index, int32_t slot, float *to);

// Trains on pictures order[0 .. count - 1] in batches of `batch`, the last one possibly partial.
// labels: [pictures->count], 0 <= label < classes, or -1: the target is 1 / classes for each. rates: one a step. losses, right: out, one a
// step, summed over the batch. `first_step` counts from 0. Where *cancel becomes other than 0, the
// step under way is dropped whole and ROWWISE_CANCELLED is returned; *steps_done then says how many
// steps have moved the weights. Where `apply` is 0, gradients are computed and nothing moves.
ROWWISE_EXPORT int32_t rowwise_train(rowwise_network *network, const rowwise_pictures *pictures,
                                     const int64_t *labels, const int64_t *order, int64_t count,
                                     int32_t batch, int64_t first_step, uint64_t seed,
                                     const double *rates, const rowwise_optimizer *optimizer,
                                     const rowwise_loss *loss, int32_t apply,
                                     double *losses, int64_t *right, int64_t *steps_done,
                                     const volatile int32_t *cancel);

// Runs pictures through the network, `batch` at a time. probabilities: out, or null: [count][classes]
// after the last step, or where `every_step` [count][steps][classes]. values: out, or null: layer `layer`'s value [count][steps][features].
ROWWISE_EXPORT int32_t rowwise_read(rowwise_network *network, const rowwise_pictures *pictures,
                                    int32_t batch, float *probabilities, int32_t every_step, int32_t layer,
                                    float *values, const volatile int32_t *cancel);

// The loss summed over the pictures, and the right answers, without dropout.
ROWWISE_EXPORT int32_t rowwise_evaluate(rowwise_network *network, const rowwise_pictures *pictures,
                                        const int64_t *labels, int32_t batch, const rowwise_loss *loss,
                                        double *sum, int64_t *right, const volatile int32_t *cancel);

// --- one direction of a recurrent layer, for a caller who keeps the network himself --------------

typedef struct {
  int32_t cell, activation, reverse, threads;
  int32_t steps, batch, inputs, units;
} rowwise_recurrence;

typedef struct rowwise_tape rowwise_tape;

// Runs the recurrence over x [steps][batch][inputs] and writes the states [steps][batch][units], in
// the order of x. kernel [inputs][G units], recurrent [units][G units], bias [G units]; recurrent_bias
// [G units] for the GRU, else null. h, c [batch][units]: the initial state, or null for zero (c for
// the LSTM alone). c_last: out [batch][units], or null. *tape: out, what the way back needs, owned by
// the caller; where `tape` is null nothing is kept.
ROWWISE_EXPORT int32_t rowwise_recur(const rowwise_recurrence *shape, const float *x, const float *kernel,
                                     const float *recurrent, const float *bias, const float *recurrent_bias,
                                     const float *h, const float *c, float *states, float *c_last,
                                     rowwise_tape **tape);

// The way back, once for each tape. d_states [steps][batch][units]; d_c_last [batch][units] or null for
// zero. Out, each in the shape of what it is the gradient of: d_x, d_h, d_c may be null.
ROWWISE_EXPORT int32_t rowwise_recur_back(rowwise_tape *tape, const float *d_states, const float *d_c_last,
                                          float *d_x, float *d_kernel, float *d_recurrent, float *d_bias,
                                          float *d_recurrent_bias, float *d_h, float *d_c);
ROWWISE_EXPORT void rowwise_tape_free(rowwise_tape *tape);
}
