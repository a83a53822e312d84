#include "api.h"

#include "outcome.h"
#include "train.h"

using namespace rowwise;

struct rowwise_network {
  Network network;
};

namespace {

Pictures of(const rowwise_pictures *pictures) { return {pictures->data, pictures->bytes != 0, pictures->pixels}; }

// Row-major [steps][features] of one row of a value.
void copy_row(const Layout &layout, Sequence value, int rows, int row, float *to) {
  for (int t = 0; t < layout.steps; t++)
    for (int place : layout.place) *to++ = value.at(t)[place_in_panels(rows, row, place)];
}

}  // namespace

int32_t rowwise_new(const rowwise_layer *layers, int32_t count, int32_t threads, int32_t precision,
                    rowwise_network **network) {
  return outcome_of([&] {
    *network = new rowwise_network{Network(layers, count, threads, (Precision)known(precision, 2))};
    return true;
  });
}

void rowwise_free(rowwise_network *network) { delete network; }

int32_t rowwise_set(rowwise_network *network, int32_t index, int32_t slot, const float *from) {
  return outcome_of([&] { return network->network.set(index, slot, from), true; });
}

int32_t rowwise_get(rowwise_network *network, int32_t index, int32_t slot, float *to) {
  return outcome_of([&] { return network->network.get(index, slot, to), true; });
}

int32_t rowwise_train(rowwise_network *network, const rowwise_pictures *pictures, const int64_t *labels,
                      const int64_t *order, int64_t count, int32_t batch, int64_t first_step, uint64_t seed,
                      const double *rates, const rowwise_optimizer *optimizer, const rowwise_loss *loss, int32_t apply,
                      double *losses, int64_t *right, int64_t *steps_done, const volatile int32_t *cancel) {
  Network::Training training{of(pictures), labels, order, count, batch, first_step, seed, rates,
                             *optimizer, *loss, apply != 0, losses, right, 0, cancel};
  const int32_t code = outcome_of([&] { return network->network.train(training); });
  *steps_done = training.done;
  return code;
}

int32_t rowwise_read(rowwise_network *network, const rowwise_pictures *pictures, int32_t batch, float *probabilities,
                     int32_t every_step, int32_t layer, float *values, const volatile int32_t *cancel) {
  const Model &model = network->network.model();
  return outcome_of([&] {
    return network->network.read(of(pictures), pictures->count, batch, cancel, [&](Pass &pass, int64_t first) {
      const Layout &end = model.nodes.back()->layout, &wanted = model.nodes[layer]->layout;
      const int from = every_step ? 0 : end.steps - 1, told = end.steps - from;
      for (int m = 0; m < pass.rows; m++) {
        for (int t = from; probabilities && t < end.steps; t++)
          softmax(end, pass.spaces.back()->value.at(t), pass.rows, m,
                  probabilities + ((first + m) * told + t - from) * end.features());
        if (values)
          copy_row(wanted, pass.spaces[layer]->value, pass.rows, m,
                   values + (first + m) * (int64_t)wanted.steps * wanted.features());
      }
    });
  });
}

int32_t rowwise_evaluate(rowwise_network *network, const rowwise_pictures *pictures, const int64_t *labels,
                         int32_t batch, const rowwise_loss *loss, double *sum, int64_t *right,
                         const volatile int32_t *cancel) {
  // Each batch's sums apart, so that the total does not depend on which thread read which batch.
  const Layout &end = network->network.model().nodes.back()->layout;
  return outcome_of([&] {
    const int64_t batches = (pictures->count + batch - 1) / batch;
    std::vector<double> losses(batches);
    std::vector<int64_t> hits(batches);
    const bool whole = network->network.read(
        of(pictures), pictures->count, batch, cancel, [&](Pass &pass, int64_t first) {
          for (int m = 0; m < pass.rows; m++) {
            const auto [one, hit] =
                loss_of(*loss, end, pass.spaces.back()->value, pass.rows, m, (int)labels[first + m]);
            losses[first / batch] += one;
            hits[first / batch] += hit;
          }
        });
    *sum = 0;
    *right = 0;
    for (int64_t i = 0; i < batches; i++) *sum += losses[i], *right += hits[i];
    return whole;
  });
}
