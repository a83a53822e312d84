#include "layers.h"

#include <algorithm>
#include <cstring>

#include "outcome.h"
#include "random.h"

namespace rowwise {

Reading::Reading(int steps, int features, const std::int32_t *order)
    : order_(order, order + (std::size_t)steps * features) {
  layout = Layout::plain(steps, features);
  for (std::size_t i = 0; i < order_.size(); i++) in_order_ &= order_[i] == (std::int32_t)i;
}

void Reading::forward(Pass &pass) const {
  const Pictures &pictures = pass.batch.pictures;
  Space &space = pass.open(*this);
  if (pass.pictures < pass.rows) std::memset(space.value.data, 0, layout.size(pass.rows) * sizeof(float));
  for (int m = 0; m < pass.pictures; m++) {
    const std::int64_t start = pass.picture(m) * pictures.pixels;
    if (pictures.bytes)
      take(static_cast<const std::uint8_t *>(pictures.data) + start, m, pass.rows, space.value);
    else
      take(static_cast<const float *>(pictures.data) + start, m, pass.rows, space.value);
  }
}

template <class Pixel>
void Reading::take(const Pixel *picture, int row, int rows, Sequence to) const {
  const float unit = sizeof(Pixel) == 1 ? 255.0f : 1.0f;
  const int features = layout.features();
  const std::int32_t *order = order_.data();
  for (int t = 0; t < layout.steps; t++, order += features)
    for (int i = 0; i < features; i += PANEL) {
      float *line = to.at(t) + place_in_panels(rows, row, i);
      Pixel pixels[PANEL] = {};
      const int count = std::min(PANEL, features - i);
      if (in_order_)
        std::memcpy(pixels, picture + t * features + i, count * sizeof(Pixel));
      else
        for (int j = 0; j < count; j++)
          if (order[i + j] >= 0) pixels[j] = picture[order[i + j]];
      for (int j = 0; j < PANEL; j++) line[j] = (float)pixels[j] / unit;
    }
}

// --- dense ------------------------------------------------------------------------------------

namespace {

template <class Act>
void activate(float *z, std::size_t size) {
  for (std::size_t k = 0; k < size; k += LANES) store(z + k, Act::of(load(z + k)));
}

template <class Act>
void scale_by_slope(float *gradient, const float *y, std::size_t size) {
  for (std::size_t k = 0; k < size; k += LANES)
    store(gradient + k, Act::scaled_by_slope(load(gradient + k), load(y + k)));
}

// What pads the last panel is zero, which a sigmoid would make a half.
void clear_padding(float *last_panel, int used, int rows) {
  for (int m = 0; m < rows; m++)
    for (int j = used; j < PANEL; j++) last_panel[m * PANEL + j] = 0;
}

}  // namespace

Dense::Dense(Store &store, const Node &input, int units, int activation) : activation_(known(activation, 4)) {
  inputs = {&input};
  wants_gradient = true;
  layout = Layout::plain(input.layout.steps, units);
  kernel_ = store.add(input.layout.place, input.layout.panels * PANEL, layout.place, layout.panels, true);
  bias_ = store.add({0}, 1, layout.place, layout.panels, true);
  if (input.wants_gradient) kernel_t_ = Buffer(store.parameters[kernel_].size());
}

void Dense::forward(Pass &pass) const {
  Space &space = pass.open(*this);
  const Layout &from = inputs[0]->layout;
  const Sequence x = pass.spaces[inputs[0]->index]->value;
  const Store &store = *pass.batch.store;
  const std::ptrdiff_t b_panel = (std::ptrdiff_t)from.panels * PANEL * PANEL;
  for (int t = 0; t < layout.steps; t++) {
    const Term term{x.at(t), store.value(kernel_), b_panel, from.depth()};
    float *y = space.value.at(t);
    product(&term, 1, pass.rows, layout.panels, store.value(bias_), false, y);
    const std::size_t size = layout.step_size(pass.rows);
    if (activation_ == ROWWISE_RELU) activate<Relu>(y, size);
    if (activation_ == ROWWISE_TANH) activate<Tanh>(y, size);
    if (activation_ == ROWWISE_SIGMOID) {
      activate<Sigmoid>(y, size);
      const int last = layout.panels - 1;
      clear_padding(y + (std::ptrdiff_t)last * pass.rows * PANEL, layout.features() - last * PANEL, pass.rows);
    }
  }
}

void Dense::backward(Pass &pass) const {
  const Space &mine = pass.at(*this), &before = *pass.spaces[inputs[0]->index];
  const Layout &from = inputs[0]->layout;
  const Store &store = *pass.batch.store;
  const Sequence dz = mine.gradient;
  for (int t = 0; t < layout.steps; t++) {
    const std::size_t size = layout.step_size(pass.rows);
    if (activation_ == ROWWISE_RELU) scale_by_slope<Relu>(dz.at(t), mine.value.at(t), size);
    if (activation_ == ROWWISE_TANH) scale_by_slope<Tanh>(dz.at(t), mine.value.at(t), size);
    if (activation_ == ROWWISE_SIGMOID) scale_by_slope<Sigmoid>(dz.at(t), mine.value.at(t), size);
    if (!inputs[0]->wants_gradient) continue;
    const Term term{dz.at(t), kernel_t_.data(), (std::ptrdiff_t)layout.panels * PANEL * PANEL, layout.panels * PANEL};
    product(&term, 1, pass.rows, from.panels, nullptr, false, before.gradient.at(t));
  }
  gradient(before.value.data, before.value.step, dz.data, dz.step, layout.steps, pass.rows, from.depth(), layout.panels,
           store.in(pass.gradients, kernel_), from.panels * PANEL);
  add_column_sums(dz, layout.steps, layout.panels, pass.rows, store.in(pass.gradients, bias_));
}

void Dense::refresh(const Store &store, Mode mode, int part, int parts) {
  if (mode == Mode::reading || !inputs[0]->wants_gradient) return;
  const int panels = inputs[0]->layout.panels;
  const auto mine = share_of(panels, part, parts);
  transpose(store.value(kernel_), panels * PANEL, layout.panels * PANEL, mine.first, mine.last, kernel_t_.data());
}

// --- dropout ----------------------------------------------------------------------------------

Dropout::Dropout(const Node &input, float rate) : rate_(rate) {
  inputs = {&input};
  layout = input.layout;
  wants_gradient = input.wants_gradient;
}

std::unique_ptr<Space> Dropout::space(int rows, Mode mode) const {
  auto space = own_space<Mine>(rows, mode);
  if (mode == Mode::training) space->factors = Buffer(layout.size(rows));
  return space;
}

void Dropout::forward(Pass &pass) const {
  Space &space = pass.open(*this);
  const Sequence x = pass.spaces[inputs[0]->index]->value;
  const std::ptrdiff_t size = layout.step_size(pass.rows);
  if (pass.batch.mode == Mode::reading) {
    for (int t = 0; t < layout.steps; t++) std::memcpy(space.value.at(t), x.at(t), size * sizeof(float));
    return;
  }
  // The draws depend on seed, step, layer, picture in the batch, time and place: on nothing that
  // the number of threads or an interruption could change.
  const Batch &batch = pass.batch;
  using Word = std::uint32_t;
  const std::array<Word, 2> key{(Word)batch.seed, (Word)(batch.seed >> 32) ^ (Word)index};
  const Word step = (Word)batch.step, step_above = (Word)(batch.step >> 32);
  const double threshold = rate_ * 4294967296.0;
  const float kept = 1.0f / (1.0f - rate_);
  Sequence factors{pass.at<Mine>(*this).factors.data(), size};
  for (int t = 0; t < layout.steps; t++)
    for (int p = 0; p < layout.panels; p++)
      for (int m = 0; m < pass.rows; m++) {
        const std::ptrdiff_t at = ((std::ptrdiff_t)p * pass.rows + m) * PANEL;
        float *line = factors.at(t) + at;
        for (int j = 0; j < PANEL; j += 4) {
          const Word place = (Word)((t * layout.panels + p) * (PANEL / 4) + j / 4);
          const auto words = philox({step, step_above, (Word)(pass.first + m), place}, key);
          for (int i = 0; i < 4; i++) line[j + i] = words[i] >= threshold ? kept : 0.0f;
        }
        for (int j = 0; j < PANEL; j += LANES)
          store(space.value.at(t) + at + j, load(x.at(t) + at + j) * load(line + j));
      }
}

void Dropout::backward(Pass &pass) const {
  if (!inputs[0]->wants_gradient) return;
  const Mine &mine = pass.at<Mine>(*this);
  const Sequence dx = pass.spaces[inputs[0]->index]->gradient;
  const Sequence factors{mine.factors.data(), layout.step_size(pass.rows)};
  for (int t = 0; t < layout.steps; t++)
    for (std::ptrdiff_t k = 0; k < factors.step; k += LANES)
      store(dx.at(t) + k, load(mine.gradient.at(t) + k) * load(factors.at(t) + k));
}

// --- other shapes -----------------------------------------------------------------------------

Flatten::Flatten(const Node &input) {
  inputs = {&input};
  wants_gradient = input.wants_gradient;
  layout.panels = input.layout.steps * input.layout.panels;
  for (int t = 0; t < input.layout.steps; t++)
    for (int place : input.layout.place) layout.place.push_back(t * input.layout.panels * PANEL + place);
}

void Flatten::forward(Pass &pass) const {
  Space &mine = pass.at(*this);
  const Space &before = *pass.spaces[inputs[0]->index];
  const std::ptrdiff_t step = layout.step_size(pass.rows);
  mine.value = {before.value.data, step};
  mine.gradient = {before.gradient.data, step};
}

Pool::Pool(const Node &input, int pool) : mean_(known(pool, 3) != ROWWISE_MAX), largest_(pool != ROWWISE_MEAN) {
  inputs = {&input};
  const Layout &from = input.layout;
  for (int part = 0; part < mean_ + largest_; part++)
    for (int place : from.place) layout.place.push_back(part * from.panels * PANEL + place);
  layout.panels = (mean_ + largest_) * from.panels;
  wants_gradient = input.wants_gradient;
}

void Pool::forward(Pass &pass) const {
  Space &space = pass.open(*this);
  const Sequence x = pass.spaces[inputs[0]->index]->value;
  const int steps = inputs[0]->layout.steps;
  const float share = 1.0f / (float)steps;
  const std::ptrdiff_t size = inputs[0]->layout.step_size(pass.rows);
  float *mean = space.value.data, *largest = space.value.data + (mean_ ? size : 0);
  for (std::ptrdiff_t k = 0; k < size; k += LANES) {
    Vec total = load(x.at(0) + k), most = total;
    for (int t = 1; t < steps; t++) {
      const Vec next = load(x.at(t) + k);
      total += next;
      most = ((next > most) | (next != next)) ? next : most;  // a NaN goes on
    }
    if (mean_) store(mean + k, total * share);
    if (largest_) store(largest + k, most);
  }
}

void Pool::backward(Pass &pass) const {
  if (!inputs[0]->wants_gradient) return;
  const Space &mine = pass.at(*this), &before = *pass.spaces[inputs[0]->index];
  const int steps = inputs[0]->layout.steps;
  const float share = 1.0f / (float)steps;
  const std::ptrdiff_t size = inputs[0]->layout.step_size(pass.rows), apart = mean_ ? size : 0;
  for (std::ptrdiff_t k = 0; k < size; k += LANES) {
    const Vec d_mean = mean_ ? load(mine.gradient.data + k) * share : Vec{};
    Vec most = {}, d_most = {};
    if (largest_) {
      most = load(mine.value.data + apart + k);
      Vec count = {};
      for (int t = 0; t < steps; t++) count += load(before.value.at(t) + k) == most ? splat(1) : splat(0);
      d_most = load(mine.gradient.data + apart + k) / count;
    }
    for (int t = 0; t < steps; t++) {
      Vec d = d_mean;
      if (largest_) d += load(before.value.at(t) + k) == most ? d_most : splat(0);
      store(before.gradient.at(t) + k, d);
    }
  }
}

Join::Join(std::vector<const Node *> ends) {
  for (const Node *end : ends) {
    for (int place : end->layout.place) layout.place.push_back(layout.panels * PANEL + place);
    layout.panels += end->layout.panels;
    wants_gradient |= end->wants_gradient;
  }
  inputs = std::move(ends);
}

void Join::forward(Pass &pass) const {
  float *to = pass.open(*this).value.data;
  for (const Node *end : inputs) {
    const std::ptrdiff_t size = end->layout.step_size(pass.rows);
    std::memcpy(to, pass.spaces[end->index]->value.data, size * sizeof(float));
    to += size;
  }
}

void Join::backward(Pass &pass) const {
  const float *from = pass.at(*this).gradient.data;
  for (const Node *end : inputs) {
    const std::ptrdiff_t size = end->layout.step_size(pass.rows);
    if (end->wants_gradient) std::memcpy(pass.spaces[end->index]->gradient.data, from, size * sizeof(float));
    from += size;
  }
}

}  // namespace rowwise
