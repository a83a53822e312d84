// A recurrent layer of a network: its directions, their weights, and what these are derived into.
#pragma once

#include "batch_norm.h"
#include "recurrent.h"

namespace rowwise {

// A recurrent layer, one direction or two side by side.
class RecurrentLayer final : public Node {
 public:
  // norm: the layer before this one, to be folded into the weights, or null. Borrowed.
  RecurrentLayer(Store &store, const Node &input, const rowwise_layer &settings, BatchNorm *norm, Precision precision);

  std::unique_ptr<Space> space(int rows, Mode mode) const override;
  void forward(Pass &pass) const override;
  void backward(Pass &pass) const override;
  void refresh(const Store &store, Mode mode, int part, int parts) override;
  void finish(Store &store, float *gradients, bool apply) override;

 private:
  // A direction: its parameters, and what is derived from them. The shapes are DirectionWeights'.
  struct Way {
    std::unique_ptr<Direction> direction;
    int kernel, recurrent, bias, recurrent_bias;  // indices of parameters, -1 where there is none
    Buffer recurrent_t, kernel_t;                 // transposed, for the pass back
    Buffer folded_kernel, summed_bias;
    struct Halves {
      Buffer kernel, recurrent, recurrent_t, kernel_t;
      HalfWeights weights;  // points into these
    } halves;  // for products in bfloat16
  };
  // One thread's memory for one direction, shapes as in Tape and HalfTape.
  struct Memory {
    Buffer states, gates, memory, squashed, split_x, split_h, state_gradient, memory_gradient, ahead;
    struct Halves {
      Buffer x_rows, x_columns, h_rows, h_columns, d_rows, d_split_rows, d_split_x_rows;
      Buffer d_pairs, d_split_x_pairs, d_split_h_pairs;
      HalfTape tape;  // points into these
    } halves;  // for products in bfloat16
  };
  struct Mine : Space {
    Memory memory[2];
    Tape tape[2];  // of the pass under way
  };

  Way make_way(Store &store, bool relu, bool reverse) const;
  Way::Halves make_halves() const;
  Memory make_memory(int rows, Mode mode) const;
  Memory::Halves make_half_memory(int rows) const;
  DirectionWeights weights(const Store &store, const Way &way) const;
  void lay_tape(Mine &mine, int w, int rows, Mode mode) const;
  void refresh_folded(const Store &store, Way &way, int part, int parts) const;
  void refresh_halves(const Store &store, Way &way, int part, int parts) const;
  void unfold(Store &store, const Way &way, float *gradients) const;
  // Whether the value is the states themselves, so that nothing is copied.
  bool value_is_states() const { return sequences_ && ways_.size() == 1; }

  bool splits() const { return kind_ == CellKind::gru; }
  int panels() const { return panels_of(units_); }
  int joint() const { return joint_gates(kind_) * panels(); }  // gate panels before the split gate's
  int columns() const { return gates_of(kind_) * panels(); }   // gate panels
  int input_panels() const { return inputs[0]->layout.panels; }
  // Pairs in a panel of the transposed weights: the joint gates', then the split gate's.
  int back_depth() const { return half_depth(joint() * PANEL) + (splits() ? half_depth(panels() * PANEL) : 0); }

  CellKind kind_;
  int units_;
  bool sequences_;
  BatchNorm *norm_;  // folded into the weights, or null
  Precision precision_;
  std::vector<Way> ways_;
};

}  // namespace rowwise
