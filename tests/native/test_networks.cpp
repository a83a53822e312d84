// Training and reading through the C interface: what must not change a result, and what it must be.
#include <algorithm>
#include <cstring>
#include <thread>

#include "networks.h"

using namespace check;

namespace check {

namespace {

constexpr int RNN = 0, LSTM = 1, GRU = 2;

// The pixels of rows x columns pictures, row by row or column by column.
std::vector<int> by_rows(int rows, int columns) {
  std::vector<int> order(rows * columns);
  for (int i = 0; i < rows * columns; i++) order[i] = i;
  return order;
}
std::vector<int> by_columns(int rows, int columns) {
  std::vector<int> order;
  for (int c = 0; c < columns; c++)
    for (int r = 0; r < rows; r++) order.push_back(r * columns + c);
  return order;
}

// Each row between the one above and the one below it; -1 beyond the edge.
std::vector<int> with_neighbours(int rows, int columns) {
  std::vector<int> order;
  for (int r = 0; r < rows; r++)
    for (int above = r - 1; above <= r + 1; above++)
      for (int c = 0; c < columns; c++) order.push_back(above < 0 || above >= rows ? -1 : above * columns + c);
  return order;
}

Sketch started(const char *name, int rows, int columns) {
  Sketch sketch(name);
  sketch.pixels = rows * columns;
  sketch.reading(by_rows(rows, columns), rows, columns);
  return sketch;
}

Sketch folded_norm() {
  Sketch s = started("batch norm, relu RNN, dense", 5, 7);
  s.dense(s.dense(s.recurrent(s.norm(0), RNN, 17, ROWWISE_RELU), 19, ROWWISE_RELU), 10);
  return s;
}
Sketch stacked() {
  Sketch s = started("batch norm, LSTM, dropout, GRU, dropout, 20 classes", 6, 18);
  const int states = s.dropout(s.recurrent(s.norm(0), LSTM, 20, ROWWISE_TANH, true), 0.25f);
  s.dense(s.dropout(s.dense(s.recurrent(states, GRU, 33, ROWWISE_TANH), 21, ROWWISE_TANH), 0.5f), 20);
  return s;
}
Sketch both_ways() {
  Sketch s = started("LSTM both ways, batch norm, GRU both ways, largest", 4, 9);
  const int states = s.norm(s.recurrent(0, LSTM, 11, ROWWISE_TANH, true, true));
  s.dense(s.norm(s.pool(s.recurrent(states, GRU, 18, ROWWISE_TANH, true, true), ROWWISE_MAX)), 3);
  return s;
}
Sketch averaged() {
  Sketch s = started("GRU relu both ways, mean and largest, sigmoid", 3, 16);
  s.dense(s.dense(s.pool(s.recurrent(s.norm(0), GRU, 16, ROWWISE_RELU, true, true), ROWWISE_MEAN_MAX), 18, ROWWISE_SIGMOID), 37);
  return s;
}
Sketch believing() {
  Sketch s("windows of three rows, LSTM, GRU, an answer at every step");
  s.pixels = 4 * 5;
  const int windows = s.reading(with_neighbours(4, 5), 4, 15);
  s.dense(s.recurrent(s.recurrent(s.norm(windows), LSTM, 12, ROWWISE_TANH, true), GRU, 7, ROWWISE_TANH, true), 11);
  return s;
}
Sketch branched() {
  Sketch s = started("rows and columns joined", 5, 6);
  const int columns = s.reading(by_columns(5, 6), 6, 5);
  const int one = s.recurrent(s.norm(0), RNN, 9, ROWWISE_TANH), other = s.recurrent(s.norm(columns), LSTM, 20, ROWWISE_RELU);
  s.dense(s.dropout(s.dense(s.join({one, other}), 17, ROWWISE_TANH), 0.3f), 10);
  return s;
}
Sketch flattened() {
  Sketch s = started("dense at each step, flattened", 4, 5);
  s.dense(s.flatten(s.dense(s.recurrent(s.dense(s.norm(0), 6, ROWWISE_TANH), LSTM, 3, ROWWISE_TANH, true, true), 19, ROWWISE_TANH)), 2);
  return s;
}
Sketch smallest() {
  Sketch s = started("one of everything", 1, 1);
  s.dense(s.recurrent(0, GRU, 1, ROWWISE_TANH), 2);
  return s;
}
Sketch without_states() {
  Sketch s = started("no recurrent layer", 3, 4);
  s.dense(s.norm(s.dense(s.flatten(0), 33, ROWWISE_TANH)), 18);
  return s;
}
Sketch many_steps() {
  Sketch s("many steps of one pixel");
  s.pixels = 100;
  s.dense(s.recurrent(s.reading(by_columns(10, 10), 100, 1), GRU, 40, ROWWISE_TANH), 10);
  return s;
}

}  // namespace

std::vector<Sketch> sketches() {
  std::vector<Sketch> all;
  all.push_back(stacked());
  all.push_back(branched());
  all.push_back(both_ways());
  all.push_back(believing());
  if (conditions().quick) return all;
  all.push_back(folded_norm());
  all.push_back(averaged());
  all.push_back(flattened());
  all.push_back(smallest());
  all.push_back(without_states());
  all.push_back(many_steps());
  return all;
}

}  // namespace check

namespace {

constexpr int PRECISIONS = 2;

std::string named(const Sketch &sketch, int threads, int precision, const char *what) {
  return text("%s, %d threads, %s: %s", sketch.name.c_str(), threads, precision ? "bfloat16" : "float32", what);
}

void same(const Parameters &a, const Parameters &b, const std::string &what) {
  for (std::size_t i = 0; i < a.size(); i++) {
    const bool equal = !std::memcmp(a[i].data(), b[i].data(), a[i].size() * sizeof(float));
    check::that(equal, [&] {
      std::size_t k = 0;
      while (a[i][k] == b[i][k]) k++;
      return what + text(": parameter %zu differs at %zu of %zu, %.9g and %.9g", i, k, a[i].size(), a[i][k], b[i][k]);
    });
  }
}

// By the largest number in each.
void close_to(const Parameters &got, const Parameters &expected, double tolerance, const std::string &what) {
  for (std::size_t i = 0; i < got.size(); i++) {
    double largest = 1e-3;
    for (float x : expected[i]) largest = std::fmax(largest, std::fabs(x));
    for (std::size_t k = 0; k < got[i].size(); k++)
      close(got[i][k], expected[i][k], tolerance * largest, [&] { return what + text(", parameter %zu at %zu", i, k); });
  }
}

// A network with its weights.
Built ready(const Sketch &sketch, int threads, int precision) {
  Built network(sketch, threads, precision);
  network.set(draw(sketch, 5));
  return network;
}

// What a network is after some steps: its weights and its optimiser's slots.
struct State {
  Parameters values, first, second;
  explicit State(const Built &network) : values(network.get()), first(network.get(0)), second(network.get(1)) {}
  void put(const Built &network) const {
    network.set(values);
    network.set(first, 0);
    network.set(second, 1);
  }
};
void same(const State &a, const State &b, const std::string &what) {
  same(a.values, b.values, what);
  same(a.first, b.first, what + ", slot 0");
  same(a.second, b.second, what + ", slot 1");
}

Training with(int kind) {
  Training training;
  training.how = optimizer(kind, kind);  // each optimiser with another clipping
  training.loss.label_smoothing = kind % 2 ? 0.1 : 0;
  training.rate = kind == ROWWISE_SGD ? 0.1 : 0.01;
  return training;
}

// Two epochs with a partial batch each, an epoch in a call or, anew, a step.
State run(const Sketch &sketch, int threads, int precision, int kind, bool anew_each_step) {
  const Data data(sketch, 21, 6);
  Built network = ready(sketch, threads, precision);
  Training training = with(kind);
  for (int epoch = 0; epoch < 2; epoch++) {
    const std::vector<int64_t> order = shuffled(data.count, 7 + epoch);
    const int chunk = anew_each_step ? training.batch : data.count;
    for (int start = 0; start < data.count; start += chunk) {
      const std::vector<int64_t> part(order.begin() + start, order.begin() + std::min(data.count, start + chunk));
      if (anew_each_step) {
        const State before(network);
        network = Built(sketch, threads, precision);
        before.put(network);
      }
      const Trained trained = train(network, data, part, training, epoch == 0);
      const int64_t steps = ((int64_t)part.size() + training.batch - 1) / training.batch;
      check::that(trained.code == ROWWISE_DONE && trained.done == steps, "a training is done");
      for (double loss : trained.losses) check::that(loss > 0 && loss < 200, "a loss is a finite number");
      training.first_step += steps;
    }
  }
  return State(network);
}

std::vector<int> thread_counts() { return conditions().quick ? std::vector{3} : SANITIZED ? std::vector{1, 3} : std::vector{1, 2, 4}; }

// Trained again a network is the same. So is one that is made anew before each step from no more than
// weights and slots: a training that was stopped and resumed gives the same numbers, and no memory of
// other batches has a say.
void repeated() {
  int kind = 0;
  for (const Sketch &sketch : sketches())
    for (int precision = 0; precision < PRECISIONS; precision++)
      for (int threads : thread_counts()) {
        kind = (kind + 1) % 4;
        const State once = run(sketch, threads, precision, kind, false);
        same(run(sketch, threads, precision, kind, true), once, named(sketch, threads, precision, "anew at each step"));
        if (precision == 0) same(run(sketch, threads, precision, kind, false), once, named(sketch, threads, precision, "trained again"));
      }
}

Parameters gradients(const Sketch &sketch, int threads, int precision, double *loss = nullptr, const Parameters *weights = nullptr) {
  const Data data(sketch, 11, 8);
  const Built network = ready(sketch, threads, precision);
  if (weights) network.set(*weights);
  Training training;
  training.batch = data.count;
  training.apply = false;
  const Trained trained = train(network, data, shuffled(data.count, 9), training);
  check::that(trained.code == ROWWISE_DONE, "gradients are done");
  if (loss) *loss = trained.losses[0] / data.count;
  same(network.get(), weights ? *weights : draw(sketch, 5), named(sketch, threads, precision, "nothing moves where nothing is to be applied"));
  return network.get(2);
}

void shared_out() {
  for (const Sketch &sketch : sketches())
    for (int precision = 0; precision < PRECISIONS; precision++) {
      const Parameters alone = gradients(sketch, 1, precision);
      for (int threads : SANITIZED ? std::vector{3, 13} : std::vector{2, 3, 4, 13})
        close_to(gradients(sketch, threads, precision), alone, precision ? 2e-2 : 2e-5, named(sketch, threads, precision, "gradients as with one thread"));
    }
}

// bfloat16 keeps 8 bits of each factor, so its gradients are float32's but for some hundredths.
void precisions() {
  for (const Sketch &sketch : sketches()) {
    const Parameters exact = gradients(sketch, 2, 0), rounded = gradients(sketch, 2, 1);
    for (std::size_t i = 0; i < exact.size(); i++) {
      double off = 0, size = 1e-12;
      for (std::size_t k = 0; k < exact[i].size(); k++) {
        off += std::pow((double)rounded[i][k] - exact[i][k], 2);
        size += std::pow((double)exact[i][k], 2);
      }
      close(std::sqrt(off / size), 0, 0.1, [&] { return named(sketch, 2, 1, "gradient") + text(" of parameter %zu", i); });
    }
  }
}

// The gradient against the loss itself, along a direction in each parameter that is half the gradient's
// and half drawn. Dropout draws the same places each time, since seed and step are the same.
void slopes() {
  for (const Sketch &sketch : sketches()) {
    Random random(15);
    const Parameters at = draw(sketch, 5), gradient = gradients(sketch, 1, 0);
    for (std::size_t i = 0; i < at.size(); i++) {
      double size = 0, expected = 0;
      for (float g : gradient[i]) size += (double)g * g;
      size = std::sqrt(size);
      if (!sketch.parameters[i].trainable || size < 1e-4) continue;
      std::vector<double> way(at[i].size());
      const double drawn = 1.7 / std::sqrt((double)way.size());
      for (std::size_t k = 0; k < way.size(); k++) way[k] = gradient[i][k] / size + random.within(drawn), expected += way[k] * gradient[i][k];
      double losses[2];
      const double length = 4e-3;
      for (int side = 0; side < 2; side++) {
        Parameters moved = at;
        for (std::size_t k = 0; k < way.size(); k++) moved[i][k] += (float)((side ? length : -length) * way[k]);
        gradients(sketch, 1, 0, &losses[side], &moved);
      }
      close((losses[1] - losses[0]) / (2 * length), expected, 0.05 * size + 2e-4,
            [&] { return named(sketch, 1, 0, "slope of the loss") + text(" along parameter %zu", i); });
    }
  }
}

void read_all_ways() {
  for (const Sketch &sketch : sketches())
    for (int threads : thread_counts()) {
      const Data data(sketch, 23, 10);
      const Built network = ready(sketch, threads, 0);
      const std::vector<float> whole = read(network, sketch, data, 23);
      for (int m = 0; m < data.count * sketch.last_steps(); m++) {
        double total = 0;
        for (int c = 0; c < sketch.classes(); c++) total += whole[m * sketch.classes() + c];
        close(total, 1, 1e-6, [&] { return named(sketch, threads, 0, "sum of the probabilities"); });
      }
      for (int batch : {1, 2, 7, 22, 100}) {
        const std::vector<float> parts = read(network, sketch, data, batch, batch % 2);
        for (std::size_t i = 0; i < whole.size(); i++)
          close(parts[i], whole[i], 2e-6, [&] { return named(sketch, threads, 0, "probabilities") + text(" in batches of %d", batch); });
      }
    }
}

void read_layers() {
  for (const Sketch &sketch : sketches()) {
    const Data data(sketch, 9, 11);
    const Built network = ready(sketch, 2, 0);
    const rowwise_pictures pictures = data.as_bytes();
    for (int layer = 0; layer < sketch.count(); layer++) {
      const std::size_t size = (std::size_t)sketch.steps(layer) * sketch.width(layer);
      const Floats values(data.count * size, std::nanf("")), probabilities((std::size_t)data.count * sketch.last_steps() * sketch.classes());
      check::that(rowwise_read(network.handle(), &pictures, 4, probabilities.data(), 1, layer, values.data(), nullptr) == ROWWISE_DONE, "a layer is read");
      for (float x : values) check::that(std::isfinite(x), "every value of a layer is written");
      if (layer > 0) continue;
      for (std::size_t i = 0; i < values.size(); i++) {
        const int pixel = sketch.order[i % size];
        const float expected = pixel < 0 ? 0 : data.floats[i / size * sketch.pixels + pixel];
        check::that(values[i] == expected, "the first layer gives the picture in its order");
      }
    }
  }
}

void evaluated() {
  for (const Sketch &sketch : sketches())
    for (int threads : thread_counts()) {
      const Data data(sketch, 23, 12);
      const Built network = ready(sketch, threads, 0);
      const std::vector<float> probabilities = read(network, sketch, data, 5);
      const rowwise_pictures pictures = data.as_bytes();
      const int steps = sketch.last_steps(), classes = sketch.classes();
      for (const rowwise_loss &how : {rowwise_loss{0, 0}, rowwise_loss{0.2, 0.3}}) {
        double expected = 0, loss = -1;
        int64_t hits = 0, right = -1;
        for (int m = 0; m < data.count; m++)
          for (int t = 0; t < steps; t++) {
            const float *p = &probabilities[(m * steps + t) * classes];
            const bool last = t == steps - 1;
            hits += last && std::max_element(p, p + classes) - p == data.labels[m];
            const double weight = how.target_replication / steps + (last ? 1 - how.target_replication : 0);
            for (int c = 0; c < classes; c++)
              expected -= weight * (how.label_smoothing / classes + (c == data.labels[m] ? 1 - how.label_smoothing : 0)) * std::log((double)p[c]);
          }
        check::that(rowwise_evaluate(network.handle(), &pictures, data.labels.data(), 5, &how, &loss, &right, nullptr) == ROWWISE_DONE, "pictures are evaluated");
        close(loss, expected, 1e-4, [&] { return named(sketch, threads, 0, "loss"); });
        check::that(right == hits, "right answers are counted");
      }
    }
}

void nothing_to_do() {
  const Sketch sketch = std::move(sketches()[0]);
  const Data none(sketch, 0, 13);
  for (int threads : {1, 3}) {
    const Built network = ready(sketch, threads, 0);
    const rowwise_pictures pictures = none.as_bytes();
    double loss = -1;
    int64_t right = -1;
    check::that(train(network, none, {}, {}).code == ROWWISE_DONE, "a training without pictures is done");
    check::that(read(network, sketch, none, 4).empty(), "no pictures are read");
    const rowwise_loss how{};
    check::that(rowwise_evaluate(network.handle(), &pictures, none.labels.data(), 4, &how, &loss, &right, nullptr) == ROWWISE_DONE && loss == 0 && right == 0,
                "no pictures are evaluated");
    same(network.get(), draw(sketch, 5), "nothing has moved");
  }
}

// Several steps of gradients alone: none may see another's losses.
void gradients_of_many_steps() {
  for (const Sketch &sketch : sketches()) {
    const Data data(sketch, 40, 14);
    Training training;
    training.batch = 4;
    training.apply = false;
    const Built alone = ready(sketch, 1, 0), together = ready(sketch, 4, 0);
    const Trained one = train(alone, data, shuffled(40, 15), training), four = train(together, data, shuffled(40, 15), training);
    for (std::size_t i = 0; i < one.losses.size(); i++) {
      close(four.losses[i], one.losses[i], 1e-4, [&] { return named(sketch, 4, 0, "losses of steps that move nothing"); });
      check::that(four.right[i] == one.right[i], "right answers of steps that move nothing");
    }
    close_to(together.get(2), alone.get(2), 2e-5, named(sketch, 4, 0, "gradients of the last step"));
  }
}

const Test of_repeats{"networks: again and resumed", repeated};
const Test of_sharing{"networks: shared out", shared_out};
const Test of_precisions{"networks: precisions", precisions};
const Test of_slopes{"networks: slopes of the loss", slopes};
const Test of_reading{"networks: read", read_all_ways};
const Test of_layers{"networks: layers read", read_layers};
const Test of_evaluation{"networks: evaluated", evaluated};
const Test of_steps{"networks: gradients alone", gradients_of_many_steps};
const Test of_nothing{"networks: no pictures", nothing_to_do};

}  // namespace
