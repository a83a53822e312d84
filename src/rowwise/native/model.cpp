#include "model.h"

#include <utility>

#include "batch_norm.h"
#include "layers.h"
#include "outcome.h"
#include "recurrent_layer.h"

namespace rowwise {

Model::Model(const rowwise_layer *layers, int count, Precision precision) : precision(precision) {
  for (int i = 0; i < count; i++) {
    nodes.push_back(make_node(layers[i]));
    nodes.back()->index = i;
  }
  store.values = Buffer(store.size);
  store.moving = Buffer(store.moving_size);
}

std::unique_ptr<Node> Model::make_node(const rowwise_layer &layer) {
  std::vector<const Node *> inputs;
  for (int k = 0; k < layer.input_count; k++) inputs.push_back(nodes[layer.inputs[k]].get());
  switch (layer.kind) {
    case ROWWISE_READING: return std::make_unique<Reading>(layer.steps, layer.features, layer.order);
    case ROWWISE_BATCH_NORM: return std::make_unique<BatchNorm>(store, *inputs[0], layer.momentum, layer.epsilon);
    case ROWWISE_RECURRENT: {
      auto *norm = dynamic_cast<BatchNorm *>(nodes[layer.inputs[0]].get());
      if (norm && norm->inputs[0]->wants_gradient) norm = nullptr;
      if (norm) {
        norm->folded = true;
        norm->wants_gradient = false;
      }
      return std::make_unique<RecurrentLayer>(store, *inputs[0], layer, norm, precision);
    }
    case ROWWISE_DENSE: return std::make_unique<Dense>(store, *inputs[0], layer.units, layer.activation);
    case ROWWISE_DROPOUT: return std::make_unique<Dropout>(*inputs[0], layer.rate);
    case ROWWISE_FLATTEN: return std::make_unique<Flatten>(*inputs[0]);
    case ROWWISE_POOL: return std::make_unique<Pool>(*inputs[0], layer.pool);
    case ROWWISE_JOIN: return std::make_unique<Join>(std::move(inputs));
  }
  throw Unknown();
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
