// Many steps of training, and reading, by several threads.
#pragma once

#include "model.h"

namespace rowwise {

// A model with what it takes to train and to read: the optimiser's slots, each thread's memory.
class Network {
 public:
  Network(const rowwise_layer *layers, int count, int threads, Precision precision);

  void set(int index, int slot, const float *from);
  void get(int index, int slot, float *to);

  struct Training {
    Pictures pictures;
    const std::int64_t *labels, *order;
    std::int64_t count;
    int batch;
    std::int64_t first_step;
    std::uint64_t seed;
    const double *rates;
    rowwise_optimizer optimizer;
    rowwise_loss loss;
    bool apply;
    double *losses;
    std::int64_t *right;
    std::int64_t done = 0;
    const volatile std::int32_t *cancel;
  };
  // Returns false where it was cancelled.
  bool train(Training &training);

  // What is done with a batch that was read, on the thread that read it; its first picture's index.
  using Take = Borrowed<Pass &, std::int64_t>;
  // Reads pictures [0, count). Returns false where it was cancelled.
  bool read(Pictures pictures, std::int64_t count, int batch, const volatile std::int32_t *cancel, const Take &take);

  const Model &model() const { return model_; }

 private:
  struct Worker {
    std::vector<std::unique_ptr<Space>> training, reading;
    int training_rows = 0, reading_rows = 0;
    Buffer gradients;
    double loss = 0;
    std::int64_t right = 0;
  };
  void prepare(Mode mode, int rows, int workers);
  void refresh(Mode mode);
  bool step(Training &training, std::int64_t index, int w, Barrier &barrier, Cancel &cancel);
  void reduce(std::size_t first, std::size_t last);
  void clip(const rowwise_optimizer &optimizer);
  float *arena(int slot);

  Model model_;
  int threads_;
  Buffer slots_[2];
  std::vector<Worker> workers_;
  bool fresh_[2] = {false, false};  // by mode: what is derived from the parameters is up to date
};

// Softmax over the classes of one row of a step's logits; probabilities [classes].
void softmax(const Layout &layout, const float *logits, int rows, int row, float *probabilities);

// A picture's loss, and whether the last step's largest logit is its label's. `row` of logits is the
// picture's. Where `gradient` has memory, its row there becomes the loss' gradient times `scale`.
std::pair<double, bool> loss_of(const rowwise_loss &loss, const Layout &layout, Sequence logits, int rows, int row,
                                int label, float scale = 0, Sequence gradient = {});

}  // namespace rowwise
