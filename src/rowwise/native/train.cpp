#include "train.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "optimizer.h"
#include "outcome.h"

namespace rowwise {

Network::Network(const rowwise_layer *layers, int count, int threads, Precision precision)
    : model_(layers, count, precision), threads_(threads), workers_(threads) {}

float *Network::arena(int slot) {
  known(slot, 4, -1);
  if (slot < 0) return model_.store.values.data();
  if (slot == 2) return workers_[0].gradients.data();
  if (!slots_[slot].size()) slots_[slot] = Buffer(model_.store.size);
  return slots_[slot].data();
}

void Network::set(int index, int slot, const float *from) {
  const Parameter &p = model_.store.parameters[index];
  float *to = p.trainable ? arena(slot) : model_.store.moving.data();
  for (std::size_t r = 0; r < p.row_place.size(); r++)
    for (std::size_t c = 0; c < p.column_place.size(); c++) to[p.element((int)r, (int)c)] = *from++;
  fresh_[0] = fresh_[1] = false;
}

void Network::get(int index, int slot, float *to) {
  const Parameter &p = model_.store.parameters[index];
  const float *from = p.trainable ? arena(slot) : model_.store.moving.data();
  for (std::size_t r = 0; r < p.row_place.size(); r++)
    for (std::size_t c = 0; c < p.column_place.size(); c++) *to++ = from ? from[p.element((int)r, (int)c)] : 0;
}

// --- the loss ---------------------------------------------------------------------------------

namespace {

float &element(float *panels, int rows, int row, int column) {
  return panels[place_in_panels(rows, row, column)];
}
float element(const float *panels, int rows, int row, int column) {
  return panels[place_in_panels(rows, row, column)];
}

// The largest logit's class (the first of equals), and log Σ e^z.
std::pair<int, double> top_and_log_sum(const Layout &layout, const float *logits, int rows, int row) {
  int top = 0;
  float largest = element(logits, rows, row, 0);
  for (int c = 1; c < layout.features(); c++) {
    const float z = element(logits, rows, row, c);
    if (z > largest || std::isnan(z)) largest = z, top = c;
  }
  double total = 0;
  for (int c = 0; c < layout.features(); c++) total += std::exp(element(logits, rows, row, c) - largest);
  return {top, largest + std::log(total)};
}

}  // namespace

void softmax(const Layout &layout, const float *logits, int rows, int row, float *probabilities) {
  const double log_sum = top_and_log_sum(layout, logits, rows, row).second;
  for (int c = 0; c < layout.features(); c++)
    probabilities[c] = (float)std::exp(element(logits, rows, row, c) - log_sum);
}

std::pair<double, bool> loss_of(const rowwise_loss &loss, const Layout &layout, Sequence logits, int rows, int row,
                                int label, float scale, Sequence gradient) {
  const int classes = layout.features();
  const double s = label < 0 ? 1 : loss.label_smoothing;
  double total = 0;
  bool right = false;
  for (int t = 0; t < layout.steps; t++) {
    const bool last = t == layout.steps - 1;
    const double weight = loss.target_replication / layout.steps + (last ? 1 - loss.target_replication : 0);
    const float *z = logits.at(t);
    const auto [top, log_sum] = top_and_log_sum(layout, z, rows, row);
    double one = label < 0 ? 0 : (1 - s) * (log_sum - element(z, rows, row, label));
    if (s > 0)
      for (int c = 0; c < classes; c++) one += s / classes * (log_sum - element(z, rows, row, c));
    total += weight * one;
    right = top == label;
    if (!gradient.data) continue;
    const float factor = (float)(scale * weight);
    for (int c = 0; c < classes; c++) {
      const double target = s / classes + (c == label ? 1 - s : 0);
      element(gradient.at(t), rows, row, c) = (float)(std::exp(element(z, rows, row, c) - log_sum) - target) * factor;
    }
  }
  return {total, right};
}

// --- training ---------------------------------------------------------------------------------

void Network::prepare(Mode mode, int rows, int workers) {
  for (int w = 0; w < workers; w++) {
    Worker &worker = workers_[w];
    int &held = mode == Mode::training ? worker.training_rows : worker.reading_rows;
    if (mode == Mode::training && !worker.gradients.size()) worker.gradients = Buffer(model_.store.size);
    if (held >= rows) continue;
    auto &spaces = mode == Mode::training ? worker.training : worker.reading;
    spaces.clear();
    spaces = model_.spaces(rows, mode);
    held = rows;
  }
}

void Network::refresh(Mode mode) {
  if (fresh_[(int)mode]) return;
  model_.refresh(mode, 0, 1);
  fresh_[(int)mode] = true;
}

bool Network::train(Training &training) {
  known(training.optimizer.kind, 4);
  known(training.optimizer.clip, 4);
  const int rows = filled((training.batch + threads_ - 1) / threads_, model_.precision);
  prepare(Mode::training, rows, threads_);
  arena(0);
  arena(1);
  model_.share(threads_);
  refresh(Mode::training);
  const std::int64_t steps = (training.count + training.batch - 1) / training.batch;
  Cancel cancel(training.cancel);
  Barrier barrier(threads_);
  in_parallel(threads_, [&](int w) {
    for (std::int64_t i = 0; i < steps; i++)
      if (!step(training, i, w, barrier, cancel)) return;
  });
  fresh_[(int)Mode::reading] = false;
  return !cancel.seen();
}

// One step on one thread: its rows forward and back, then its part of the parameters. Returns false
// where the step was cancelled, on all threads alike.
bool Network::step(Training &training, std::int64_t index, int w, Barrier &barrier, Cancel &cancel) {
  Worker &mine = workers_[w];
  Store &store = model_.store;
  const std::int64_t start = index * training.batch;
  const int size = (int)std::min<std::int64_t>(training.batch, training.count - start);
  const auto [first, last] = share_of(size, w, threads_);
  Batch batch{&store, training.pictures, training.order, start, Mode::training, training.seed,
              (std::uint64_t)(training.first_step + index), &barrier, &cancel};
  const int rows = filled(last - first, model_.precision);
  Pass pass{batch, mine.training, w, first, last - first, rows, mine.gradients.data()};
  mine.gradients.zero();
  cancel.asked();
  model_.forward(pass);
  mine.loss = 0;
  mine.right = 0;
  const Node &end = *model_.nodes.back();
  const Space &out = *mine.training[end.index];
  // What pads it lies elsewhere in a batch of another size.
  std::memset(out.gradient.data, 0, end.layout.size(pass.rows) * sizeof(float));
  for (int m = 0; m < pass.pictures; m++) {
    const int label = (int)training.labels[pass.picture(m)];
    const auto [loss, right] =
        loss_of(training.loss, end.layout, out.value, pass.rows, m, label, 1.0f / size, out.gradient);
    mine.loss += loss;
    mine.right += right;
  }
  model_.backward(pass);
  barrier.wait();
  if (cancel.seen()) return false;
  const auto lines = share_of(store.size / PANEL, w, threads_);
  const std::size_t from = lines.first * PANEL, to = lines.last * PANEL;
  reduce(from, to);
  barrier.wait();
  if (w == 0) {
    double loss = 0;
    std::int64_t right = 0;
    for (const Worker &worker : workers_) loss += worker.loss, right += worker.right;
    training.losses[index] = loss;
    training.right[index] = right;
    training.done = index + 1;
    model_.finish(workers_[0].gradients.data(), training.apply);
    clip(training.optimizer);
  }
  barrier.wait();
  if (!training.apply) return true;
  optimize(training.optimizer, training.rates[index], training.first_step + index + 1, store.values.data(),
           workers_[0].gradients.data(), slots_[0].data(), slots_[1].data(), from, to);
  barrier.wait();
  model_.refresh(Mode::training, w, threads_);
  barrier.wait();
  return true;
}

// Adds the other threads' gradients to the first one's, always in the same order.
void Network::reduce(std::size_t first, std::size_t last) {
  float *total = workers_[0].gradients.data();
  for (int w = 1; w < threads_; w++) {
    const float *more = workers_[w].gradients.data();
    for (std::size_t k = first; k < last; k += LANES) store(total + k, load(total + k) + load(more + k));
  }
}

void Network::clip(const rowwise_optimizer &o) {
  if (o.clip == ROWWISE_CLIP_NOT) return;
  const Store &store = model_.store;
  float *gradients = workers_[0].gradients.data();
  const float limit = (float)o.clip_limit;
  if (o.clip == ROWWISE_CLIP_VALUE) {
    for (std::size_t k = 0; k < store.size; k += LANES)
      rowwise::store(gradients + k, between(load(gradients + k), -limit, limit));
    return;
  }
  auto scale = [&](std::size_t first, std::size_t last) {
    double squares = 0;
    for (std::size_t k = first; k < last; k += LANES) squares += sum(load(gradients + k) * load(gradients + k));
    const double norm = std::sqrt(squares);
    if (!(norm > o.clip_limit)) return;
    const float factor = (float)(o.clip_limit / norm);
    for (std::size_t k = first; k < last; k += LANES) rowwise::store(gradients + k, load(gradients + k) * factor);
  };
  if (o.clip == ROWWISE_CLIP_GLOBAL) return scale(0, store.size);
  for (const Parameter &p : store.parameters)
    if (p.trainable) scale(p.offset, p.offset + p.size());
}

// --- reading ----------------------------------------------------------------------------------

bool Network::read(Pictures pictures, std::int64_t count, int batch, const volatile std::int32_t *cancel,
                   const Take &take) {
  const std::int64_t batches = (count + batch - 1) / batch;
  const int workers = (int)std::min<std::int64_t>(threads_, batches);
  prepare(Mode::reading, (int)std::min<std::int64_t>(batch, count), workers);
  refresh(Mode::reading);
  std::atomic<std::int64_t> next{0};
  Cancel asked(cancel);
  in_parallel(workers, [&](int w) {
    for (std::int64_t i; (i = next.fetch_add(1)) < batches;) {
      if (asked.asked()) return;
      const std::int64_t first = i * batch;
      const int rows = (int)std::min<std::int64_t>(batch, count - first);
      Batch one{&model_.store, pictures, nullptr, first, Mode::reading, 0, 0, nullptr, &asked};
      Pass pass{one, workers_[w].reading, w, 0, rows, rows, nullptr};
      model_.forward(pass);
      if (!asked.seen()) take(pass, first);
    }
  });
  return !asked.seen();
}

}  // namespace rowwise
