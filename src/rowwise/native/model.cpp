#include "model.h"

#include <cmath>

#include "random.h"

namespace rowwise {

// --- batch normalisation ----------------------------------------------------------------------

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

// --- recurrent layers -------------------------------------------------------------------------

RecurrentLayer::RecurrentLayer(Store &store, const Node &input, const rowwise_layer &settings, BatchNorm *norm,
                               Precision precision)
    : kind_((CellKind)settings.cell), units_(settings.units), sequences_(settings.sequences), norm_(norm), precision_(precision) {
  inputs = {&input};
  wants_gradient = true;
  const int panels = panels_of(units_), ways = settings.bidirectional ? 2 : 1;
  const int columns = gates_of(kind_) * panels;
  const std::vector<int> gates = gate_places(kind_, units_);
  std::vector<int> own_rows(units_);
  for (int u = 0; u < units_; u++) own_rows[u] = u;
  layout.steps = sequences_ ? input.layout.steps : 1;
  layout.panels = ways * panels;
  for (int w = 0; w < ways; w++) {
    for (int u = 0; u < units_; u++) layout.place.push_back(w * panels * PANEL + u);
    Way way;
    way.direction = make_direction(kind_, settings.activation == ROWWISE_RELU, input.layout.steps, units_, w == 1);
    way.kernel = store.add(input.layout.place, input.layout.panels * PANEL, gates, columns, true);
    way.recurrent = store.add(own_rows, panels * PANEL, gates, columns, true);
    way.bias = store.add({0}, 1, gates, columns, true);
    way.recurrent_bias = kind_ == CellKind::gru ? store.add({0}, 1, gates, columns, true) : -1;
    const std::size_t recurrent = store.parameters[way.recurrent].size(), kernel = store.parameters[way.kernel].size();
    way.recurrent_t = Buffer(recurrent);
    if (input.wants_gradient) way.kernel_t = Buffer(kernel);
    if (norm_) way.folded_kernel = Buffer(kernel);
    way.summed_bias = Buffer((std::size_t)columns * PANEL);
    if (precision_ == Precision::bfloat16) {
      const int joint = joint_gates(kind_) * panels;
      const std::size_t back = half_depth(joint * PANEL) + (columns > joint ? half_depth(panels * PANEL) : 0);
      Way::Halves &halves = way.halves;
      halves.kernel = Buffer((std::size_t)columns * half_depth(input.layout.depth()) * PANEL);
      halves.recurrent = Buffer((std::size_t)columns * half_depth(panels * PANEL) * PANEL);
      halves.recurrent_t = Buffer(back * panels * PANEL);
      if (input.wants_gradient) halves.kernel_t = Buffer(back * input.layout.panels * PANEL);
      auto words = [](const Buffer &buffer) { return reinterpret_cast<std::uint32_t *>(buffer.data()); };
      halves.weights = {words(halves.kernel), words(halves.recurrent), words(halves.recurrent_t), words(halves.kernel_t)};
    }
    ways_.push_back(std::move(way));
  }
}

std::unique_ptr<Space> RecurrentLayer::space(int rows, Mode mode) const {
  const bool training = mode == Mode::training;
  auto mine = std::make_unique<Mine>();
  for (std::size_t w = 0; w < ways_.size(); w++) {
    const std::size_t state = ways_[w].direction->state_size(rows), steps = ways_[w].direction->steps;
    const std::size_t kept = training ? steps : 1;
    Mine::Memory &memory = mine->memory[w];
    memory.states = Buffer(state * (training || sequences_ ? steps + 1 : 2));
    memory.gates = Buffer(state * joint_gates(kind_) * kept);
    if (kind_ == CellKind::lstm) {
      memory.memory = Buffer(state * (training ? steps + 1 : 1));
      memory.squashed = Buffer(state * kept);
    }
    if (kind_ == CellKind::gru) {
      memory.split_x = Buffer(state * kept);
      memory.split_h = Buffer(state * kept);
    }
    if (training) {
      memory.state_gradient = Buffer(state);
      memory.memory_gradient = Buffer(kind_ == CellKind::lstm ? state : 0);
      if (precision_ == Precision::bfloat16) make_half_memory(memory, rows);
    }
  }
  if (!value_is_states()) mine->value_memory = Buffer(layout.size(rows));
  if (training) mine->gradient_memory = Buffer(layout.size(rows));
  return mine;
}

void RecurrentLayer::make_half_memory(Mine::Memory &memory, int rows) const {
  const int panels = panels_of(units_), joint = joint_gates(kind_) * panels, split = kind_ == CellKind::gru ? panels : 0;
  const std::size_t input_panels = inputs[0]->layout.panels, steps = ways_[0].direction->steps;
  // In floats, two halves or one pair each.
  const std::size_t block = (std::size_t)rows * HALVES / 2, columns = (std::size_t)rows * PANEL / 2;
  const std::size_t pairs = (std::size_t)rows / 2 * PANEL * HALF_STEPS;
  memory.x_rows = Buffer(half_panels_of((int)input_panels * PANEL) * block);
  memory.x_columns = Buffer(steps * input_panels * columns);
  memory.h_rows = Buffer(2 * half_panels_of(panels * PANEL) * block);
  memory.h_columns = Buffer(steps * panels * columns);
  memory.d_rows = Buffer(2 * half_panels_of(joint * PANEL) * block);
  memory.d_split_rows = Buffer(2 * half_panels_of(split * PANEL) * block);
  memory.d_split_x_rows = Buffer(half_panels_of(split * PANEL) * block);
  memory.d_pairs = Buffer(joint * pairs);
  memory.d_split_x_pairs = Buffer(split * pairs);
  memory.d_split_h_pairs = Buffer(split * pairs);
  auto halves = [](const Buffer &buffer) { return reinterpret_cast<Half *>(buffer.data()); };
  auto words = [](const Buffer &buffer) { return reinterpret_cast<std::uint32_t *>(buffer.data()); };
  memory.half = {halves(memory.x_rows), halves(memory.x_columns), halves(memory.h_rows), halves(memory.h_columns),
                 halves(memory.d_rows), halves(memory.d_split_rows), halves(memory.d_split_x_rows), words(memory.d_pairs),
                 words(memory.d_split_x_pairs), words(memory.d_split_h_pairs)};
}

void RecurrentLayer::lay_tape(Mine &mine, int w, int rows, Mode mode) const {
  const std::ptrdiff_t state = ways_[w].direction->state_size(rows), kept = mode == Mode::training ? state : 0;
  const Mine::Memory &memory = mine.memory[w];
  Tape &tape = mine.tape[w];
  tape = Tape{memory.states.data(), mode == Mode::training || sequences_,
              {memory.gates.data(), kept * joint_gates(kind_)},
              {memory.memory.data(), kept}, {memory.squashed.data(), kept},
              {memory.split_x.data(), kept}, {memory.split_h.data(), kept},
              memory.state_gradient.data(), memory.memory_gradient.data(), true,
              mode == Mode::training && precision_ == Precision::bfloat16 ? &memory.half : nullptr};
  std::memset(tape.states, 0, state * sizeof(float));
  if (tape.memory.data) std::memset(tape.memory.data, 0, state * sizeof(float));
}

DirectionWeights RecurrentLayer::weights(const Store &store, const Way &way) const {
  const Layout &input = inputs[0]->layout;
  const int split = joint_gates(kind_) * panels_of(units_) * PANEL;
  return {input.depth(),
          input.panels * PANEL,
          norm_ ? way.folded_kernel.data() : store.value(way.kernel),
          store.value(way.recurrent),
          way.summed_bias.data(),
          way.recurrent_bias < 0 ? nullptr : store.value(way.recurrent_bias) + split,
          way.recurrent_t.data(),
          way.kernel_t.data(),
          &way.halves.weights};
}

void RecurrentLayer::forward(Pass &pass) const {
  Mine &mine = static_cast<Mine &>(pass.open(*this));
  const Sequence x = pass.spaces[inputs[0]->index]->value;
  const int rows = pass.rows;
  for (std::size_t w = 0; w < ways_.size(); w++) {
    const Direction &direction = *ways_[w].direction;
    lay_tape(mine, (int)w, rows, pass.batch.mode);
    direction.forward(weights(*pass.batch.store, ways_[w]), mine.tape[w], x, rows, *pass.batch.cancel);
    const std::ptrdiff_t size = direction.state_size(rows);
    if (value_is_states()) {
      mine.value = {mine.tape[w].states + size, size};
      continue;
    }
    for (int t = 0; t < layout.steps; t++) {
      const int s = sequences_ ? direction.place(t) + 1 : direction.steps;
      std::memcpy(mine.value.at(t) + w * size, direction.state(mine.tape[w], s, rows), size * sizeof(float));
    }
  }
}

void RecurrentLayer::backward(Pass &pass) const {
  Mine &mine = pass.at<Mine>(*this);
  const Space &before = *pass.spaces[inputs[0]->index];
  const Sequence d_x = inputs[0]->wants_gradient ? before.gradient : Sequence{};
  const Store &store = *pass.batch.store;
  for (std::size_t w = 0; w < ways_.size(); w++) {
    const Way &way = ways_[w];
    const std::ptrdiff_t size = way.direction->state_size(pass.rows);
    const int split = joint_gates(kind_) * panels_of(units_) * PANEL;
    const DirectionGradients into{
        store.in(pass.gradients, way.kernel), store.in(pass.gradients, way.recurrent), store.in(pass.gradients, way.bias),
        way.recurrent_bias < 0 ? nullptr : store.in(pass.gradients, way.recurrent_bias) + split};
    const Sequence d_states{mine.gradient.data + w * size, mine.gradient.step};
    way.direction->backward(weights(store, way), into, mine.tape[w], before.value, d_states, !sequences_, d_x, w > 0,
                            pass.rows, *pass.batch.cancel);
  }
}

void RecurrentLayer::refresh(const Store &store, Mode mode, int part, int parts) {
  const int panels = panels_of(units_), columns = gates_of(kind_) * panels;
  const int input_panels = inputs[0]->layout.panels, input_rows = input_panels * PANEL;
  for (Way &way : ways_) {
    const float *kernel = store.value(way.kernel), *bias = store.value(way.bias);
    if (mode == Mode::training) {
      transpose(store.value(way.recurrent), panels * PANEL, columns * PANEL, panels * part / parts,
                panels * (part + 1) / parts, way.recurrent_t.data());
      if (inputs[0]->wants_gradient)
        transpose(kernel, input_rows, columns * PANEL, input_panels * part / parts, input_panels * (part + 1) / parts,
                  way.kernel_t.data());
    }
    for (int p = columns * part / parts; p < columns * (part + 1) / parts; p++)
      for (int v = 0; v < PIECES; v++) {
        const int at = p * PANEL + v * LANES;
        Vec total = load(bias + at);
        if (way.recurrent_bias >= 0 && p < joint_gates(kind_) * panels) total += load(store.value(way.recurrent_bias) + at);
        if (norm_) {
          const float *gamma = store.value(norm_->gamma), *beta = store.value(norm_->beta);
          for (int k = 0; k < input_rows; k++) {
            const std::ptrdiff_t row = ((std::ptrdiff_t)p * input_rows + k) * PANEL + v * LANES;
            const Vec w = load(kernel + row);
            rowwise::store(way.folded_kernel.data() + row, w * gamma[k]);
            total += w * beta[k];
          }
        }
        rowwise::store(way.summed_bias.data() + at, total);
      }
    if (mode == Mode::training && precision_ == Precision::bfloat16) refresh_halves(store, way, part, parts);
  }
}

// From the float32 forms that the same part has just brought up to date.
void RecurrentLayer::refresh_halves(const Store &store, Way &way, int part, int parts) {
  const int panels = panels_of(units_), columns = gates_of(kind_) * panels, joint = joint_gates(kind_) * panels;
  const int input_panels = inputs[0]->layout.panels, input_rows = input_panels * PANEL;
  Way::Halves &halves = way.halves;
  auto words = [](const Buffer &buffer) { return reinterpret_cast<std::uint32_t *>(buffer.data()); };
  auto pack = [&](const float *from, int rows, int panel, int depth, const Buffer &to) {
    to_pairs(from + (std::ptrdiff_t)panel * rows * PANEL, rows, words(to) + (std::ptrdiff_t)panel * depth * PANEL);
  };
  const float *kernel = norm_ ? way.folded_kernel.data() : store.value(way.kernel);
  for (int p = columns * part / parts; p < columns * (part + 1) / parts; p++) {
    pack(kernel, input_rows, p, half_depth(inputs[0]->layout.depth()), halves.kernel);
    pack(store.value(way.recurrent), panels * PANEL, p, half_depth(panels * PANEL), halves.recurrent);
  }
  // The joint gates' rows, and from the next multiple of 32 on the split gate's.
  const int first = half_depth(joint * PANEL), depth = first + (columns > joint ? half_depth(panels * PANEL) : 0);
  auto pack_back = [&](const Buffer &from, int p, const Buffer &to) {
    const float *rows = from.data() + (std::ptrdiff_t)p * columns * PANEL * PANEL;
    std::uint32_t *pairs = words(to) + (std::ptrdiff_t)p * depth * PANEL;
    to_pairs(rows, joint * PANEL, pairs);
    to_pairs(rows + (std::ptrdiff_t)joint * PANEL * PANEL, (columns - joint) * PANEL, pairs + first * PANEL);
  };
  for (int p = panels * part / parts; p < panels * (part + 1) / parts; p++) pack_back(way.recurrent_t, p, halves.recurrent_t);
  if (inputs[0]->wants_gradient)
    for (int p = input_panels * part / parts; p < input_panels * (part + 1) / parts; p++)
      pack_back(way.kernel_t, p, halves.kernel_t);
}

// With x̂ as input and W' = γ W, b' = b + β W in the products, G = dW' and db = db' are known:
// dγ = Σ W ∘ G, dβ = W db, dW = γ G + β db (each over the columns of W).
void RecurrentLayer::finish(Store &store, float *gradients, bool) {
  const int panels = panels_of(units_), columns = gates_of(kind_) * panels, joint = joint_gates(kind_) * panels;
  const int input_rows = inputs[0]->layout.panels * PANEL;
  for (Way &way : ways_) {
    float *d_bias = store.in(gradients, way.bias);
    if (way.recurrent_bias >= 0)
      std::memcpy(store.in(gradients, way.recurrent_bias), d_bias, (std::size_t)joint * PANEL * sizeof(float));
    if (!norm_) continue;
    const float *kernel = store.value(way.kernel), *gamma = store.value(norm_->gamma), *beta = store.value(norm_->beta);
    float *d_kernel = store.in(gradients, way.kernel);
    float *d_gamma = store.in(gradients, norm_->gamma), *d_beta = store.in(gradients, norm_->beta);
    for (int k = 0; k < input_rows; k++) {
      Vec gamma_sum = {}, beta_sum = {};
      for (int p = 0; p < columns; p++)
        for (int v = 0; v < PIECES; v++) {
          const std::ptrdiff_t row = ((std::ptrdiff_t)p * input_rows + k) * PANEL + v * LANES;
          const Vec w = load(kernel + row), g = load(d_kernel + row), b = load(d_bias + p * PANEL + v * LANES);
          gamma_sum += w * g;
          beta_sum += w * b;
          // Rows that pad the input have weights of zero, and keep them.
          rowwise::store(d_kernel + row, g * gamma[k] + b * beta[k]);
        }
      d_gamma[k] += sum(gamma_sum);
      d_beta[k] += sum(beta_sum);
    }
  }
}

// --- dense layers -----------------------------------------------------------------------------

namespace {

template <class Act>
void activate(float *z, std::size_t size) {
  for (std::size_t k = 0; k < size; k += LANES) store(z + k, Act::of(load(z + k)));
}

template <class Act>
void scale_by_slope(float *gradient, const float *y, std::size_t size) {
  for (std::size_t k = 0; k < size; k += LANES) store(gradient + k, Act::scaled_by_slope(load(gradient + k), load(y + k)));
}

// What pads the last panel is zero, which a sigmoid would make a half.
void clear_padding(float *last_panel, int used, int rows) {
  for (int m = 0; m < rows; m++)
    for (int j = used; j < PANEL; j++) last_panel[m * PANEL + j] = 0;
}

}  // namespace

Dense::Dense(Store &store, const Node &input, int units, int activation) : activation_(activation) {
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
  transpose(store.value(kernel_), panels * PANEL, layout.panels * PANEL, panels * part / parts, panels * (part + 1) / parts,
            kernel_t_.data());
}

// --- layers without weights -------------------------------------------------------------------

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
  const std::array<std::uint32_t, 2> key{(std::uint32_t)batch.seed, (std::uint32_t)(batch.seed >> 32) ^ (std::uint32_t)index};
  const double threshold = rate_ * 4294967296.0;
  const float kept = 1.0f / (1.0f - rate_);
  Sequence factors{pass.at<Mine>(*this).factors.data(), size};
  for (int t = 0; t < layout.steps; t++)
    for (int p = 0; p < layout.panels; p++)
      for (int m = 0; m < pass.rows; m++) {
        const std::ptrdiff_t at = ((std::ptrdiff_t)p * pass.rows + m) * PANEL;
        float *line = factors.at(t) + at;
        for (int j = 0; j < PANEL; j += 4) {
          const auto words = philox({(std::uint32_t)batch.step, (std::uint32_t)(batch.step >> 32), (std::uint32_t)(pass.first + m),
                                     (std::uint32_t)((t * layout.panels + p) * (PANEL / 4) + j / 4)}, key);
          for (int i = 0; i < 4; i++) line[j + i] = words[i] >= threshold ? kept : 0.0f;
        }
        for (int j = 0; j < PANEL; j += LANES)
          store(space.value.at(t) + at + j, load(x.at(t) + at + j) * load(line + j));
      }
}

void Dropout::backward(Pass &pass) const {
  if (!inputs[0]->wants_gradient) return;
  const Mine &mine = pass.at<Mine>(*this);
  const Sequence dx = pass.spaces[inputs[0]->index]->gradient, factors{mine.factors.data(), layout.step_size(pass.rows)};
  for (int t = 0; t < layout.steps; t++)
    for (std::ptrdiff_t k = 0; k < factors.step; k += LANES)
      store(dx.at(t) + k, load(mine.gradient.at(t) + k) * load(factors.at(t) + k));
}

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

void Pool::forward(Pass &pass) const {
  Space &space = pass.open(*this);
  const Sequence x = pass.spaces[inputs[0]->index]->value;
  const int steps = inputs[0]->layout.steps;
  const float share = 1.0f / (float)steps;
  for (std::ptrdiff_t k = 0; k < layout.step_size(pass.rows); k += LANES) {
    Vec y = load(x.at(0) + k);
    for (int t = 1; t < steps; t++) {
      const Vec next = load(x.at(t) + k);
      if (largest_)
        y = (next > y) | (next != next) ? next : y;  // a NaN goes on
      else
        y += next;
    }
    store(space.value.data + k, largest_ ? y : y * share);
  }
}

void Pool::backward(Pass &pass) const {
  if (!inputs[0]->wants_gradient) return;
  const Space &mine = pass.at(*this), &before = *pass.spaces[inputs[0]->index];
  const int steps = inputs[0]->layout.steps;
  const float share = 1.0f / (float)steps;
  for (std::ptrdiff_t k = 0; k < layout.step_size(pass.rows); k += LANES) {
    const Vec d = load(mine.gradient.data + k), y = load(mine.value.data + k);
    Vec count = {};
    if (largest_)
      for (int t = 0; t < steps; t++) count += load(before.value.at(t) + k) == y ? splat(1) : splat(0);
    for (int t = 0; t < steps; t++) {
      const Vec mean = d * share;
      store(before.gradient.at(t) + k, largest_ ? (load(before.value.at(t) + k) == y ? d / count : splat(0)) : mean);
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

// --- the graph --------------------------------------------------------------------------------

Model::Model(const rowwise_layer *layers, int count, Precision precision) : precision(precision) {
  for (int i = 0; i < count; i++) {
    const rowwise_layer &layer = layers[i];
    std::vector<const Node *> inputs;
    for (int k = 0; k < layer.input_count; k++) inputs.push_back(nodes[layer.inputs[k]].get());
    std::unique_ptr<Node> node;
    switch (layer.kind) {
      case ROWWISE_READING: node = std::make_unique<Reading>(layer.steps, layer.features, layer.order); break;
      case ROWWISE_BATCH_NORM: node = std::make_unique<BatchNorm>(store, *inputs[0], layer.momentum, layer.epsilon); break;
      case ROWWISE_RECURRENT: {
        auto *norm = dynamic_cast<BatchNorm *>(nodes[layer.inputs[0]].get());
        if (norm && !norm->inputs[0]->wants_gradient) {
          norm->folded = true;
          norm->wants_gradient = false;
        } else {
          norm = nullptr;
        }
        node = std::make_unique<RecurrentLayer>(store, *inputs[0], layer, norm, precision);
        break;
      }
      case ROWWISE_DENSE: node = std::make_unique<Dense>(store, *inputs[0], layer.units, layer.activation); break;
      case ROWWISE_DROPOUT: node = std::make_unique<Dropout>(*inputs[0], layer.rate); break;
      case ROWWISE_FLATTEN: node = std::make_unique<Flatten>(*inputs[0]); break;
      case ROWWISE_POOL: node = std::make_unique<Pool>(*inputs[0], layer.largest); break;
      default: node = std::make_unique<Join>(std::move(inputs));
    }
    node->index = i;
    nodes.push_back(std::move(node));
  }
  store.values = Buffer(store.size);
  store.moving = Buffer(store.moving_size);
}

std::vector<std::unique_ptr<Space>> Model::spaces(int rows, Mode mode) const {
  std::vector<std::unique_ptr<Space>> spaces;
  for (const auto &node : nodes) spaces.push_back(node->space(rows, mode));
  return spaces;
}

void Model::share(int workers) {
  for (auto &node : nodes)
    if (auto *norm = dynamic_cast<BatchNorm *>(node.get())) norm->share(workers);
}

void Model::refresh(Mode mode, int part, int parts) {
  for (auto &node : nodes) node->refresh(store, mode, part, parts);
}

void Model::forward(Pass &pass) const {
  for (const auto &node : nodes) node->forward(pass);
}

void Model::backward(Pass &pass) const {
  for (auto node = nodes.rbegin(); node != nodes.rend(); ++node) (*node)->backward(pass);
}

void Model::finish(float *gradients, bool apply) {
  for (auto &node : nodes) node->finish(store, gradients, apply);
}

}  // namespace rowwise
