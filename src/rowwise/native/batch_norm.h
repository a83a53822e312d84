// Batch normalisation, on its own or taken into the recurrent layer that follows.
#pragma once

#include "model.h"

namespace rowwise {

// Batch normalisation over the last axis (Ioffe & Szegedy 2015): y = γ x̂ + β.
//
// Before a recurrent layer that reads the picture, the value is x̂ itself: the layer takes γ and β
// into its weights (`folded`), and the gradients of γ and β follow from those of its weights.
class BatchNorm final : public Node {
 public:
  BatchNorm(Store &store, const Node &input, float momentum, float epsilon);

  bool folded = false;
  int gamma, beta;  // indices of parameters

  std::unique_ptr<Space> space(int rows, Mode mode) const override;
  // To be called before passes by so many threads.
  void share(int workers);
  void forward(Pass &pass) const override;
  void backward(Pass &pass) const override;
  void finish(Store &store, float *gradients, bool apply) override;

 private:
  struct Mine : Space {
    Buffer normed;  // x̂, where it is not the value itself
    Buffer sums;    // this thread's [2][panels][16]: means and squared deviations
    Buffer scales;  // all threads' [2][panels][16]: means and 1 / √(variance + ε)
  };
  // What the threads of one pass share; who reads it has waited at the barrier before. One thread
  // may be on its way back while another still reads the sums of the way forward, so each way has
  // its own.
  struct Shared {
    std::vector<const float *> sums;   // one a thread: its Mine::sums
    std::vector<int> counts;           // one a thread: the rows and steps that it measured
    std::vector<float *> gradients;    // one a thread: its arena
    Buffer mean, variance, scale;      // [panels][16]
  };

  void measure(Pass &pass, Sequence x) const;
  void combine(Pass &pass, float *mean, float *variance) const;

  float momentum_, epsilon_;
  int mean_, variance_;
  mutable Shared shared_;
};

}  // namespace rowwise
