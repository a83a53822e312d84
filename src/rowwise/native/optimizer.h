// One step of an optimiser over part of the flat parameters, in Keras' form.
//
// Each function moves elements [first, last) of `p`; the slots lie beside the parameters, element
// for element. What pads a parameter has gradient zero, and stays zero under every rule here.
#pragma once

#include <cmath>

#include "api.h"
#include "simd.h"

namespace rowwise {

// p -= α m / (√v + ε) with α = lr √(1 - β₂ᵗ) / (1 - β₁ᵗ): Keras adds ε before the correction is folded
// in (Kingma & Ba 2015, the note after algorithm 1). AdamW takes lr λ p away first (Loshchilov &
// Hutter 2019). `step` counts from 1.
inline void adam(const rowwise_optimizer &o, double rate, std::int64_t step, float decay, float *p, const float *g,
                 float *m, float *v, std::size_t first, std::size_t last) {
  const double correction = std::sqrt(1 - std::pow(o.beta_2, (double)step)) / (1 - std::pow(o.beta_1, (double)step));
  const float alpha = (float)(rate * correction), epsilon = (float)o.epsilon;
  const float fresh_1 = (float)(1 - o.beta_1), fresh_2 = (float)(1 - o.beta_2), kept = (float)o.beta_2;
  for (std::size_t k = first; k < last; k += LANES) {
    const Vec d = load(g + k);
    const Vec mean = load(m + k) + fresh_1 * (d - load(m + k));
    const Vec square = kept * load(v + k) + fresh_2 * (d * d);
    store(m + k, mean);
    store(v + k, square);
    store(p + k, load(p + k) * decay - alpha * mean / (square_root(square) + epsilon));
  }
}

// v = ρ v + (1 - ρ) g²; u = g / √(v + ε); p -= lr u, or through momentum b = μ b + lr u.
inline void rmsprop(const rowwise_optimizer &o, double rate, float *p, const float *g, float *v, float *b,
                    std::size_t first, std::size_t last) {
  const float lr = (float)rate, epsilon = (float)o.epsilon, kept = (float)o.rho, fresh = (float)(1 - o.rho);
  const float momentum = (float)o.momentum;
  for (std::size_t k = first; k < last; k += LANES) {
    const Vec d = load(g + k);
    const Vec square = kept * load(v + k) + fresh * (d * d);
    Vec move = lr * d / square_root(square + epsilon);
    store(v + k, square);
    if (o.momentum != 0) {
      move += momentum * load(b + k);
      store(b + k, move);
    }
    store(p + k, load(p + k) - move);
  }
}

// b = μ b - lr g; p += b, or with Nesterov p += μ b - lr g.
inline void sgd(const rowwise_optimizer &o, double rate, float *p, const float *g, float *b, std::size_t first,
                std::size_t last) {
  const float lr = (float)rate, momentum = (float)o.momentum;
  for (std::size_t k = first; k < last; k += LANES) {
    const Vec d = lr * load(g + k);
    if (o.momentum == 0) {
      store(p + k, load(p + k) - d);
      continue;
    }
    const Vec velocity = momentum * load(b + k) - d;
    store(b + k, velocity);
    store(p + k, load(p + k) + (o.nesterov ? momentum * velocity - d : velocity));
  }
}

// Slots: Adam's m and v; RMSprop's v and b; SGD's b, as slot 0 and 1. `o.kind` is known.
inline void optimize(const rowwise_optimizer &o, double rate, std::int64_t step, float *p, const float *g,
                     float *slot_0, float *slot_1, std::size_t first, std::size_t last) {
  switch (o.kind) {
    case ROWWISE_ADAM: return adam(o, rate, step, 1.0f, p, g, slot_0, slot_1, first, last);
    case ROWWISE_ADAMW:
      return adam(o, rate, step, (float)(1 - rate * o.weight_decay), p, g, slot_0, slot_1, first, last);
    case ROWWISE_RMSPROP: return rmsprop(o, rate, p, g, slot_0, slot_1, first, last);
    case ROWWISE_SGD: return sgd(o, rate, p, g, slot_0, first, last);
  }
}

}  // namespace rowwise
