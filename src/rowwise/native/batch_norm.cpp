#include "batch_norm.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace rowwise {

BatchNorm::BatchNorm(Store &store, const Node &input, float momentum, float epsilon)
    : momentum_(momentum), epsilon_(epsilon) {
  inputs = {&input};
  layout = input.layout;
  for (int *index : {&gamma, &beta, &mean_, &variance_})
    *index = store.add({0}, 1, layout.place, layout.panels, index == &gamma || index == &beta);
  wants_gradient = true;
}

std::unique_ptr<Space> BatchNorm::space(int rows, Mode mode) const {
  const std::size_t width = (std::size_t)layout.panels * PANEL;
  auto space = own_space<Mine>(rows, mode);
  if (!folded && mode == Mode::training) space->normed = Buffer(layout.size(rows));
  space->sums = Buffer(2 * width);
  space->scales = Buffer(2 * width);
  return space;
}

void BatchNorm::share(int workers) {
  const std::size_t width = (std::size_t)layout.panels * PANEL;
  shared_ = {std::vector<const float *>(workers), std::vector<int>(workers), std::vector<float *>(workers),
             Buffer(width), Buffer(width), Buffer(width)};
}

// This thread's mean and sum of squared deviations of each column, in two passes over its rows.
void BatchNorm::measure(Pass &pass, Sequence x) const {
  Mine &mine = pass.at<Mine>(*this);
  const int rows = pass.rows, pictures = pass.pictures;
  const float share = 1.0f / std::max(1, pictures * layout.steps);
  float *means = mine.sums.data(), *squares = means + layout.panels * PANEL;
  mine.sums.zero();
  for (int p = 0; p < layout.panels; p++)
    for (int v = 0; v < PIECES; v++) {
      const std::ptrdiff_t at = (std::ptrdiff_t)p * rows * PANEL + v * LANES;
      Vec total = {}, squared = {};
      for (int t = 0; t < layout.steps; t++)
        for (int m = 0; m < pictures; m++) total += load(x.at(t) + at + m * PANEL);
      const Vec mean = total * share;
      for (int t = 0; t < layout.steps; t++)
        for (int m = 0; m < pictures; m++) {
          const Vec off = load(x.at(t) + at + m * PANEL) - mean;
          squared += off * off;
        }
      store(means + p * PANEL + v * LANES, mean);
      store(squares + p * PANEL + v * LANES, squared);
    }
  shared_.sums[pass.worker] = mine.sums.data();
  shared_.counts[pass.worker] = pictures * layout.steps;
}

// All threads' measures as one mean and biased variance (Chan, Golub & LeVeque 1983).
void BatchNorm::combine(Pass &pass, float *mean, float *variance) const {
  const int width = layout.panels * PANEL;
  double count = 0;
  for (int n : shared_.counts) count += n;
  for (int j = 0; j < width; j++) {
    double total = 0, squares = 0;
    for (std::size_t w = 0; w < shared_.sums.size(); w++) total += (double)shared_.counts[w] * shared_.sums[w][j];
    const double middle = total / count;
    for (std::size_t w = 0; w < shared_.sums.size(); w++) {
      const double off = shared_.sums[w][j] - middle;
      squares += shared_.sums[w][width + j] + shared_.counts[w] * off * off;
    }
    mean[j] = (float)middle;
    variance[j] = (float)(squares / count);
  }
  if (pass.worker == 0) {
    std::memcpy(shared_.mean.data(), mean, width * sizeof(float));
    std::memcpy(shared_.variance.data(), variance, width * sizeof(float));
  }
}

void BatchNorm::forward(Pass &pass) const {
  Space &space = pass.open(*this);
  Mine &mine = static_cast<Mine &>(space);
  const Sequence x = pass.spaces[inputs[0]->index]->value;
  const int width = layout.panels * PANEL, rows = pass.rows;
  const bool training = pass.batch.mode == Mode::training;
  float *mean = mine.scales.data(), *scale = mean + width;
  if (training) {
    measure(pass, x);
    pass.batch.barrier->wait();
    combine(pass, mean, scale);
  } else {
    std::memcpy(mean, pass.batch.store->value(mean_), width * sizeof(float));
    std::memcpy(scale, pass.batch.store->value(variance_), width * sizeof(float));
  }
  for (int j = 0; j < width; j++) scale[j] = 1.0f / std::sqrt(scale[j] + epsilon_);
  if (pass.worker == 0 && training) std::memcpy(shared_.scale.data(), scale, width * sizeof(float));
  const float *gain = pass.batch.store->value(gamma), *shift = pass.batch.store->value(beta);
  const Sequence normed{training && !folded ? mine.normed.data() : nullptr, layout.step_size(rows)};
  for (int t = 0; t < layout.steps; t++)
    for (int p = 0; p < layout.panels; p++)
      for (int v = 0; v < PIECES; v++) {
        const int j = p * PANEL + v * LANES;
        const Vec m = load(mean + j), s = load(scale + j);
        const Vec g = folded ? splat(1) : load(gain + j), b = folded ? Vec{} : load(shift + j);
        std::ptrdiff_t at = (std::ptrdiff_t)p * rows * PANEL + v * LANES;
        for (int i = 0; i < rows; i++, at += PANEL) {
          const Vec unit = (load(x.at(t) + at) - m) * s;
          if (normed.data) store(normed.at(t) + at, unit);
          store(space.value.at(t) + at, unit * g + b);
        }
      }
}

void BatchNorm::backward(Pass &pass) const {
  if (folded) return;
  Mine &mine = pass.at<Mine>(*this);
  const int rows = pass.rows;
  const Sequence normed{mine.normed.data(), layout.step_size(rows)}, dy = mine.gradient;
  float *d_beta = pass.batch.store->in(pass.gradients, beta), *d_gamma = pass.batch.store->in(pass.gradients, gamma);
  add_column_sums(dy, layout.steps, layout.panels, rows, d_beta);
  for (int p = 0; p < layout.panels; p++)
    for (int v = 0; v < PIECES; v++) {
      Vec total = {};
      for (int t = 0; t < layout.steps; t++)
        for (int m = 0; m < rows; m++) {
          const std::ptrdiff_t at = ((std::ptrdiff_t)p * rows + m) * PANEL + v * LANES;
          total += load(dy.at(t) + at) * load(normed.at(t) + at);
        }
      store(d_gamma + p * PANEL + v * LANES, load(d_gamma + p * PANEL + v * LANES) + total);
    }
  if (!inputs[0]->wants_gradient) return;
  // dx = γ / √(σ² + ε) (dy - (dβ + x̂ dγ) / n), with the sums over all threads' rows.
  shared_.gradients[pass.worker] = pass.gradients;
  pass.batch.barrier->wait();
  const Sequence dx = pass.spaces[inputs[0]->index]->gradient;
  double count = 0;
  for (int n : shared_.counts) count += n;
  const float share = (float)(1.0 / count);
  for (int p = 0; p < layout.panels; p++)
    for (int v = 0; v < PIECES; v++) {
      const int j = p * PANEL + v * LANES;
      Vec beta_sum = {}, gamma_sum = {};
      for (float *arena : shared_.gradients) {
        beta_sum += load(pass.batch.store->in(arena, beta) + j);
        gamma_sum += load(pass.batch.store->in(arena, gamma) + j);
      }
      const Vec factor = load(shared_.scale.data() + j) * load(pass.batch.store->value(gamma) + j);
      for (int t = 0; t < layout.steps; t++)
        for (int m = 0; m < rows; m++) {
          const std::ptrdiff_t at = ((std::ptrdiff_t)p * rows + m) * PANEL + v * LANES;
          const Vec mean = (beta_sum + load(normed.at(t) + at) * gamma_sum) * share;
          store(dx.at(t) + at, m < pass.pictures ? factor * (load(dy.at(t) + at) - mean) : Vec{});
        }
    }
}

void BatchNorm::finish(Store &store, float *, bool apply) {
  if (!apply) return;
  const float *fresh[] = {shared_.mean.data(), shared_.variance.data()};
  const int index[] = {mean_, variance_};
  for (int i = 0; i < 2; i++) {
    float *moving = store.value(index[i]);
    // Padding keeps its zero mean; a variance that is never used may be anything.
    for (int j = 0; j < layout.panels * PANEL; j++) moving[j] += (fresh[i][j] - moving[j]) * (1.0f - momentum_);
  }
}

}  // namespace rowwise
