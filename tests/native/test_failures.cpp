// What may go wrong while the core works: it is cancelled, memory or threads are short, the process
// forks, other threads of it train too.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <thread>

#include "networks.h"

using namespace check;

namespace {

const rowwise_loss plain_loss{};

Built ready(const Sketch &sketch, int threads) {
  Built network(sketch, threads, 0);
  if (network) network.set(draw(sketch, 5));
  return network;
}

// --- cancelling -------------------------------------------------------------------------------

// Where a training is cancelled, it has done whole steps, and no part of another.
void cancel_training() {
  Random random(71);
  for (const Sketch &sketch : sketches())
    for (int threads : {1, 3}) {
      const Data data(sketch, 48, 16);
      std::vector<int64_t> order;
      for (int pass = 0; pass < 40; pass++)
        for (int64_t place : shuffled(data.count, 17)) order.push_back(place);
      const Built network = ready(sketch, threads);
      alignas(64) int32_t word = 0;
      std::thread asker([&word, wait = random.below(20'000)] {
        std::this_thread::sleep_for(std::chrono::microseconds(wait));
        __atomic_store_n(&word, 1, __ATOMIC_RELAXED);
      });
      Training training;
      training.cancel = &word;
      const Trained cancelled = train(network, data, order, training);
      asker.join();
      check::that(cancelled.code == ROWWISE_CANCELLED || cancelled.done == (int64_t)cancelled.losses.size(), "a training is cancelled or done");
      const Built other = ready(sketch, threads);
      order.resize((std::size_t)cancelled.done * training.batch);
      training.cancel = nullptr;
      const Trained whole = train(other, data, order, training);
      check::that(whole.code == ROWWISE_DONE, "as many steps are done again");
      check::that(network.get() == other.get() && network.get(0) == other.get(0), [&] {
        return sketch.name + text(": after %ld whole steps on %d threads the weights are others", (long)cancelled.done, threads);
      });
      const Trained further = train(network, data, order, training), same = train(other, data, order, training);
      check::that(further.losses == same.losses && network.get() == other.get(), "a cancelled training can go on");
    }
}

void cancel_reading() {
  for (const Sketch &sketch : sketches()) {
    const Data data(sketch, 30, 18);
    const Built network = ready(sketch, 2);
    const rowwise_pictures pictures = data.as_bytes();
    const Floats probabilities((std::size_t)data.count * sketch.last_steps() * sketch.classes());
    const int32_t word = 1;
    double loss;
    int64_t right;
    check::that(rowwise_read(network.handle(), &pictures, 4, probabilities.data(), 1, 0, nullptr, &word) == ROWWISE_CANCELLED, "reading is cancelled");
    check::that(rowwise_evaluate(network.handle(), &pictures, data.labels.data(), 4, &plain_loss, &loss, &right, &word) == ROWWISE_CANCELLED, "evaluation is cancelled");
    check::that(read(network, sketch, data, 4).size() == probabilities.size(), "and may be asked again");
  }
}

// --- at once ----------------------------------------------------------------------------------

void trained_at_once() {
  const std::vector<Sketch> all = sketches();
  std::vector<Parameters> alone(all.size()), together(all.size());
  auto work = [&](std::size_t i, Parameters &to) {
    const Data data(all[i], 19, 20);
    const Built network = ready(all[i], 2);
    for (int epoch = 0; epoch < (SANITIZED ? 2 : 6); epoch++) {
      train(network, data, shuffled(data.count, epoch), {});
      read(network, all[i], data, 4);
    }
    to = network.get();
  };
  for (std::size_t i = 0; i < all.size(); i++) work(i, alone[i]);
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < all.size(); i++) threads.emplace_back([&, i] { work(i, together[i]); });
  for (std::thread &thread : threads) thread.join();
  for (std::size_t i = 0; i < all.size(); i++)
    check::that(alone[i] == together[i], [&] { return all[i].name + ": trained beside others it is another"; });
}

void trained_in_a_fork() {
  for (const Sketch &sketch : sketches()) {
    const Data data(sketch, 19, 21);
    const Built network = ready(sketch, 3);
    train(network, data, shuffled(data.count, 1), {});
    const pid_t child = fork();
    const Trained next = train(network, data, shuffled(data.count, 2), {});
    if (child == 0) _exit(next.code == ROWWISE_DONE && next.losses[0] > 0 ? (int)(next.losses[0] * 1e6) & 0x7F : 0x80);
    int status = -1;
    waitpid(child, &status, 0);
    check::that(WIFEXITED(status) && WEXITSTATUS(status) == ((int)(next.losses[0] * 1e6) & 0x7F),
                [&] { return sketch.name + text(": a forked child trains on as its parent, status %x", status); });
  }
}

// --- unknown numbers ---------------------------------------------------------------------------

void refuse(int32_t code, const std::string &what) {
  check::that(code == ROWWISE_UNKNOWN, [&] { return what + text(": an unknown number gave the code %d", code); });
}

// A small network with one number replaced by `number`.
void unknown_in_a_layer(int number) {
  const std::vector<std::pair<std::string, std::function<void(rowwise_layer *)>>> changes{
      {"kind", [&](rowwise_layer *layers) { layers[2].kind = number; }},
      {"cell", [&](rowwise_layer *layers) { layers[1].cell = number; }},
      {"recurrent activation", [&](rowwise_layer *layers) { layers[1].activation = number; }},
      {"pool", [&](rowwise_layer *layers) { layers[2].pool = number; }},
      {"activation", [&](rowwise_layer *layers) { layers[3].activation = number; }},
  };
  Sketch sketch("unknown");
  const int x = sketch.reading({0, 1, 2, 3, 4, 5}, 2, 3);
  sketch.dense(sketch.pool(sketch.recurrent(x, ROWWISE_LSTM, 5, ROWWISE_TANH, true), ROWWISE_MAX), 4);
  for (const auto &[name, change] : changes) {
    const Guarded<rowwise_layer> layers = sketch.layers();
    change(layers.data());
    rowwise_network *network = nullptr;
    refuse(rowwise_new(layers.data(), sketch.count(), 1, 0, &network), name + text(" %d", number));
    check::that(!network, [&] { return name + " is not built"; });
  }
  refuse(Built(sketch, 1, number).code, text("precision %d", number));
}

void unknown_numbers() {
  for (int number : {-1, 8, 1 << 30}) unknown_in_a_layer(number);
  const Sketch sketch = std::move(sketches().front());
  const Data data(sketch, 4, 24);
  const Built network = ready(sketch, 2);
  const Parameters before = network.get();
  for (int number : {-1, 4, 1 << 30}) {
    Training training;
    training.how.kind = number;
    refuse(train(network, data, shuffled(4, 1), training).code, text("optimiser %d", number));
    training.how = optimizer(ROWWISE_SGD, number);
    refuse(train(network, data, shuffled(4, 1), training).code, text("clipping %d", number));
    const Floats room(sketch.parameters[0].size());
    refuse(rowwise_set(network.handle(), 0, number < 0 ? -2 : number, room.data()), text("slot %d", number));
  }
  check::that(network.get() == before, "what is refused moves nothing");
  for (const auto &[cell, activation] : std::vector<std::pair<int, int>>{{3, ROWWISE_TANH}, {-1, ROWWISE_RELU}, {0, ROWWISE_LINEAR}, {1, ROWWISE_SIGMOID}}) {
    const rowwise_recurrence shape{cell, activation, 0, 1, 2, 2, 2, 2};
    const Floats enough(64);
    float *any = enough.data();
    refuse(rowwise_recur(&shape, any, any, any, any, any, any, any, any, any, nullptr), text("recurrence %d with %d", cell, activation));
  }
}

// --- short of memory or threads ----------------------------------------------------------------

// Calls `work` on what `make` makes, and lets each allocation of the call fail in turn, until one time
// none does. A call that fails says so, and its object can still be given back.
void fail_each(const std::string &what, const std::function<std::function<int32_t()>()> &make) {
  for (long n = 0;; n++) {
    const std::function<int32_t()> work = make();
    fail_allocation(n);
    const int32_t code = work();
    if (!fail_allocation(-1)) {
      check::that(code == ROWWISE_DONE && n > 0, [&] { return what + text(": it is done where nothing fails, code %d after %ld", code, n); });
      return;
    }
    check::that(code == ROWWISE_NO_MEMORY, [&] { return what + text(": without allocation %ld it gave the code %d", n, code); });
  }
}

void short_of_memory_to_build() {
  for (const Sketch &sketch : sketches()) {
    const Guarded<rowwise_layer> layers = sketch.layers();
    for (int precision : {0, 1})
      fail_each("rowwise_new of " + sketch.name, [&]() -> std::function<int32_t()> {
        return [&] {
          rowwise_network *network = nullptr;
          const int32_t code = rowwise_new(layers.data(), sketch.count(), 3, precision, &network);
          check::that((code == ROWWISE_DONE) == (network != nullptr), [&] { return sketch.name + ": it is built, or the code says why not"; });
          rowwise_free(network);
          return code;
        };
      });
  }
}

void short_of_memory_to_run() {
  for (const Sketch &sketch : sketches()) {
    const Data data(sketch, 11, 22);
    const rowwise_pictures pictures = data.as_bytes();
    const Floats probabilities((std::size_t)data.count * sketch.last_steps() * sketch.classes());
    const Guarded<int64_t> order = Guarded<int64_t>::of(shuffled(data.count, 3)), right(3);
    const Guarded<double> rates(3, 0.01), losses(3);
    const rowwise_optimizer how = optimizer(ROWWISE_ADAM);
    double loss;
    int64_t done;
    auto on_a_network = [&](const std::function<int32_t(rowwise_network *)> &call) {
      return [&, call]() -> std::function<int32_t()> {
        auto network = std::make_shared<Built>(ready(sketch, 3));
        return [network, call] { return call(network->handle()); };
      };
    };
    fail_each("rowwise_read of " + sketch.name, on_a_network([&](rowwise_network *network) {
      return rowwise_read(network, &pictures, 4, probabilities.data(), 1, 0, nullptr, nullptr);
    }));
    fail_each("rowwise_evaluate of " + sketch.name, on_a_network([&](rowwise_network *network) {
      return rowwise_evaluate(network, &pictures, data.labels.data(), 4, &plain_loss, &loss, right.data(), nullptr);
    }));
    fail_each("rowwise_train of " + sketch.name, on_a_network([&](rowwise_network *network) {
      return rowwise_train(network, &pictures, data.labels.data(), order.data(), data.count, 4, 0, 1, rates.data(), &how, &plain_loss, 1, losses.data(),
                           right.data(), &done, nullptr);
    }));
  }
}

// In a child that may not map more memory than a few threads' stacks.
void short_of_threads() {
  if (SANITIZED) return;  // whose shadow memory is larger than any limit
  const std::vector<Sketch> all = sketches();
  for (const Sketch &sketch : all) {
    const pid_t child = fork();
    if (child == 0) {
      const Data data(sketch, 70, 23);
      const Built network = ready(sketch, 64);
      std::FILE *sizes = std::fopen("/proc/self/statm", "r");
      unsigned long pages = 0;
      if (!sizes || std::fscanf(sizes, "%lu", &pages) != 1) _exit(2);
      const rlim_t limit = pages * (rlim_t)sysconf(_SC_PAGESIZE) + (40u << 20);
      const rlimit tight{limit, limit};
      if (setrlimit(RLIMIT_AS, &tight)) _exit(3);
      Training training;
      training.batch = 70;
      const int32_t code = train(network, data, shuffled(70, 1), training).code;
      _exit(code == ROWWISE_REFUSED || code == ROWWISE_NO_MEMORY ? 0 : 4);
    }
    int status = -1;
    waitpid(child, &status, 0);
    check::that(status == 0, [&] { return sketch.name + text(": short of threads a training is refused, status %x", status); });
  }
}

const Test of_cancelled_training{"failures: training cancelled", cancel_training};
const Test of_cancelled_reading{"failures: reading cancelled", cancel_reading};
const Test of_unknown{"failures: unknown numbers", unknown_numbers};
const Test of_others{"failures: trained at once", trained_at_once};
const Test of_forks{"failures: trained in a fork", trained_in_a_fork};
const Test of_building{"failures: no memory to build", short_of_memory_to_build};
const Test of_running{"failures: no memory to run", short_of_memory_to_run};
const Test of_threads{"failures: short of threads", short_of_threads};

}  // namespace
