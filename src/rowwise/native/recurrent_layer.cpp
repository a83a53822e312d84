#include "recurrent_layer.h"

#include <cstring>

namespace rowwise {

RecurrentLayer::RecurrentLayer(Store &store, const Node &input, const rowwise_layer &settings, BatchNorm *norm,
                               Precision precision)
    : kind_(cell_kind(settings.cell)),
      units_(settings.units),
      sequences_(settings.sequences),
      norm_(norm),
      precision_(precision) {
  inputs = {&input};
  wants_gradient = true;
  const int ways = settings.bidirectional ? 2 : 1;
  layout.steps = sequences_ ? input.layout.steps : 1;
  layout.panels = ways * panels();
  for (int w = 0; w < ways; w++) {
    for (int u = 0; u < units_; u++) layout.place.push_back(w * panels() * PANEL + u);
    ways_.push_back(make_way(store, is_relu(settings.activation), w == 1));
  }
}

RecurrentLayer::Way RecurrentLayer::make_way(Store &store, bool relu, bool reverse) const {
  const Layout &input = inputs[0]->layout;
  const std::vector<int> gates = gate_places(kind_, units_);
  Way way;
  way.direction = make_direction(kind_, relu, input.steps, units_, reverse);
  way.kernel = store.add(input.place, input.panels * PANEL, gates, columns(), true);
  way.recurrent = store.add(Layout::plain(1, units_).place, panels() * PANEL, gates, columns(), true);
  way.bias = store.add({0}, 1, gates, columns(), true);
  way.recurrent_bias = splits() ? store.add({0}, 1, gates, columns(), true) : -1;
  const std::size_t recurrent = store.parameters[way.recurrent].size(), kernel = store.parameters[way.kernel].size();
  way.recurrent_t = Buffer(recurrent);
  if (inputs[0]->wants_gradient) way.kernel_t = Buffer(kernel);
  if (norm_) way.folded_kernel = Buffer(kernel);
  way.summed_bias = Buffer((std::size_t)columns() * PANEL);
  if (precision_ == Precision::bfloat16) way.halves = make_halves();
  return way;
}

// A pair of halves takes the room of one float.
RecurrentLayer::Way::Halves RecurrentLayer::make_halves() const {
  const std::size_t width = (std::size_t)columns() * PANEL, back = (std::size_t)back_depth() * PANEL;
  Way::Halves made;
  made.kernel = Buffer(width * half_depth(inputs[0]->layout.depth()));
  made.recurrent = Buffer(width * half_depth(panels() * PANEL));
  made.recurrent_t = Buffer(back * panels());
  if (inputs[0]->wants_gradient) made.kernel_t = Buffer(back * input_panels());
  made.weights = {made.kernel.as<std::uint32_t>(), made.recurrent.as<std::uint32_t>(),
                  made.recurrent_t.as<std::uint32_t>(), made.kernel_t.as<std::uint32_t>()};
  return made;
}

std::unique_ptr<Space> RecurrentLayer::space(int rows, Mode mode) const {
  auto mine = std::make_unique<Mine>();
  for (std::size_t w = 0; w < ways_.size(); w++) mine->memory[w] = make_memory(rows, mode);
  if (!value_is_states()) mine->value_memory = Buffer(layout.size(rows));
  if (mode == Mode::training) mine->gradient_memory = Buffer(layout.size(rows));
  return mine;
}

RecurrentLayer::Memory RecurrentLayer::make_memory(int rows, Mode mode) const {
  const bool training = mode == Mode::training, lstm = kind_ == CellKind::lstm;
  const std::size_t state = ways_[0].direction->state_size(rows), steps = inputs[0]->layout.steps;
  const std::size_t kept = training ? steps : 1;
  Memory made;
  made.states = Buffer(state * (training || sequences_ ? steps + 1 : 2));
  made.gates = Buffer(state * joint_gates(kind_) * kept);
  if (lstm) made.memory = Buffer(state * (training ? steps + 1 : 1));
  if (lstm) made.squashed = Buffer(state * kept);
  if (splits()) made.split_x = Buffer(state * kept);
  if (splits()) made.split_h = Buffer(state * kept);
  if (!training) {
    made.ahead = Buffer::uninitialised(ahead_size(kind_, units_, input_panels() * PANEL));
    return made;
  }
  made.state_gradient = Buffer(state);
  if (lstm) made.memory_gradient = Buffer(state);
  if (precision_ == Precision::bfloat16) made.halves = make_half_memory(rows);
  return made;
}

RecurrentLayer::Memory::Halves RecurrentLayer::make_half_memory(int rows) const {
  const int split = splits() ? panels() : 0;
  const std::size_t steps = inputs[0]->layout.steps;
  // In floats, two halves or one pair each.
  const std::size_t block = (std::size_t)rows * HALVES / 2, column = (std::size_t)rows * PANEL / 2;
  const std::size_t pairs = (std::size_t)rows / 2 * PANEL * HALF_STEPS;
  Memory::Halves made;
  made.x_rows = Buffer(half_panels_of(input_panels() * PANEL) * block);
  made.x_columns = Buffer(steps * input_panels() * column);
  made.h_rows = Buffer(2 * half_panels_of(panels() * PANEL) * block);
  made.h_columns = Buffer(steps * panels() * column);
  made.d_rows = Buffer(2 * half_panels_of(joint() * PANEL) * block);
  made.d_split_rows = Buffer(2 * half_panels_of(split * PANEL) * block);
  made.d_split_x_rows = Buffer(half_panels_of(split * PANEL) * block);
  made.d_pairs = Buffer(joint() * pairs);
  made.d_split_x_pairs = Buffer(split * pairs);
  made.d_split_h_pairs = Buffer(split * pairs);
  made.tape = {made.x_rows.as<Half>(),
               made.x_columns.as<Half>(),
               made.h_rows.as<Half>(),
               made.h_columns.as<Half>(),
               made.d_rows.as<Half>(),
               made.d_split_rows.as<Half>(),
               made.d_split_x_rows.as<Half>(),
               made.d_pairs.as<std::uint32_t>(),
               made.d_split_x_pairs.as<std::uint32_t>(),
               made.d_split_h_pairs.as<std::uint32_t>()};
  return made;
}

void RecurrentLayer::lay_tape(Mine &mine, int w, int rows, Mode mode) const {
  const std::ptrdiff_t state = ways_[w].direction->state_size(rows), kept = mode == Mode::training ? state : 0;
  const Memory &memory = mine.memory[w];
  Tape &tape = mine.tape[w];
  tape = Tape{memory.states.data(), mode == Mode::training || sequences_,
              {memory.gates.data(), kept * joint_gates(kind_)},
              {memory.memory.data(), kept}, {memory.squashed.data(), kept},
              {memory.split_x.data(), kept}, {memory.split_h.data(), kept},
              memory.state_gradient.data(), memory.memory_gradient.data(), true,
              mode == Mode::training && precision_ == Precision::bfloat16 ? &memory.halves.tape : nullptr,
              mode == Mode::reading && rows == 1 ? memory.ahead.data() : nullptr};
  std::memset(tape.states, 0, state * sizeof(float));
  if (tape.memory.data) std::memset(tape.memory.data, 0, state * sizeof(float));
}

DirectionWeights RecurrentLayer::weights(const Store &store, const Way &way) const {
  return {inputs[0]->layout.depth(),
          input_panels() * PANEL,
          norm_ ? way.folded_kernel.data() : store.value(way.kernel),
          store.value(way.recurrent),
          way.summed_bias.data(),
          splits() ? store.value(way.recurrent_bias) + joint() * PANEL : nullptr,
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
    const DirectionGradients into{
        store.in(pass.gradients, way.kernel), store.in(pass.gradients, way.recurrent),
        store.in(pass.gradients, way.bias),
        splits() ? store.in(pass.gradients, way.recurrent_bias) + joint() * PANEL : nullptr};
    const Sequence d_states{mine.gradient.data + w * size, mine.gradient.step};
    way.direction->backward(weights(store, way), into, mine.tape[w], before.value, d_states, !sequences_, d_x, w > 0,
                            pass.rows, *pass.batch.cancel);
  }
}

void RecurrentLayer::refresh(const Store &store, Mode mode, int part, int parts) {
  for (Way &way : ways_) {
    if (mode == Mode::training) {
      const auto units = share_of(panels(), part, parts);
      transpose(store.value(way.recurrent), panels() * PANEL, columns() * PANEL, units.first, units.last,
                way.recurrent_t.data());
      const auto features = share_of(input_panels(), part, parts);
      if (inputs[0]->wants_gradient)
        transpose(store.value(way.kernel), input_panels() * PANEL, columns() * PANEL, features.first, features.last,
                  way.kernel_t.data());
    }
    refresh_folded(store, way, part, parts);
    if (mode == Mode::training && precision_ == Precision::bfloat16) refresh_halves(store, way, part, parts);
  }
}

// W' = γ W and b' = b + β W for the normalisation before, and the sum of the GRU's biases.
void RecurrentLayer::refresh_folded(const Store &store, Way &way, int part, int parts) const {
  const int input_rows = input_panels() * PANEL;
  const float *kernel = store.value(way.kernel), *bias = store.value(way.bias);
  const auto gates = share_of(columns(), part, parts);
  for (int p = gates.first; p < gates.last; p++)
    for (int v = 0; v < PIECES; v++) {
      const int at = p * PANEL + v * LANES;
      Vec total = load(bias + at);
      if (splits() && p < joint()) total += load(store.value(way.recurrent_bias) + at);
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
}

// From the float32 forms that the same part has just brought up to date.
void RecurrentLayer::refresh_halves(const Store &store, Way &way, int part, int parts) const {
  Way::Halves &halves = way.halves;
  auto pack = [&](const float *from, int rows, int p, int depth, const Buffer &to) {
    to_pairs(from + (std::ptrdiff_t)p * rows * PANEL, rows, to.as<std::uint32_t>() + (std::ptrdiff_t)p * depth * PANEL);
  };
  const float *kernel = norm_ ? way.folded_kernel.data() : store.value(way.kernel);
  const auto gates = share_of(columns(), part, parts);
  for (int p = gates.first; p < gates.last; p++) {
    pack(kernel, input_panels() * PANEL, p, half_depth(inputs[0]->layout.depth()), halves.kernel);
    pack(store.value(way.recurrent), panels() * PANEL, p, half_depth(panels() * PANEL), halves.recurrent);
  }
  // The joint gates' rows, and from the next multiple of 32 on the split gate's.
  auto pack_back = [&](const Buffer &from, int p, const Buffer &to) {
    const float *rows = from.data() + (std::ptrdiff_t)p * columns() * PANEL * PANEL;
    std::uint32_t *pairs = to.as<std::uint32_t>() + (std::ptrdiff_t)p * back_depth() * PANEL;
    to_pairs(rows, joint() * PANEL, pairs);
    to_pairs(rows + (std::ptrdiff_t)joint() * PANEL * PANEL, (columns() - joint()) * PANEL,
             pairs + half_depth(joint() * PANEL) * PANEL);
  };
  const auto units = share_of(panels(), part, parts);
  for (int p = units.first; p < units.last; p++) pack_back(way.recurrent_t, p, halves.recurrent_t);
  if (!inputs[0]->wants_gradient) return;
  const auto features = share_of(input_panels(), part, parts);
  for (int p = features.first; p < features.last; p++) pack_back(way.kernel_t, p, halves.kernel_t);
}

void RecurrentLayer::finish(Store &store, float *gradients, bool) {
  for (const Way &way : ways_) {
    if (splits())
      std::memcpy(store.in(gradients, way.recurrent_bias), store.in(gradients, way.bias),
                  (std::size_t)joint() * PANEL * sizeof(float));
    if (norm_) unfold(store, way, gradients);
  }
}

// With x̂ as input and W' = γ W, b' = b + β W in the products, G = dW' and db = db' are known:
// dγ = Σ W ∘ G, dβ = W db, dW = γ G + β db (each over the columns of W).
void RecurrentLayer::unfold(Store &store, const Way &way, float *gradients) const {
  const int input_rows = input_panels() * PANEL;
  const float *kernel = store.value(way.kernel), *gamma = store.value(norm_->gamma), *beta = store.value(norm_->beta);
  const float *d_bias = store.in(gradients, way.bias);
  float *d_kernel = store.in(gradients, way.kernel);
  float *d_gamma = store.in(gradients, norm_->gamma), *d_beta = store.in(gradients, norm_->beta);
  for (int k = 0; k < input_rows; k++) {
    Vec gamma_sum = {}, beta_sum = {};
    for (int p = 0; p < columns(); p++)
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

}  // namespace rowwise
