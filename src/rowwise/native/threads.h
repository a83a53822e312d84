// Threads of our own: a crew that is kept between calls, and a barrier.
//
// A crew sleeps (in the kernel, at no cost) while nothing is asked of it. Each call leases one, so
// that two trainings in two threads of one process never wait for each other, and gives it back. A
// forked child has no threads but its own: it forgets the parent's crews and starts new ones.
#pragma once

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace rowwise {

// All of `count` threads arrive before any goes on. Waits by spinning for some microseconds, since
// the others are about to come, then gives the processor away, so that a machine that is busy with
// other work is not slowed by waiting.
class Barrier {
 public:
  explicit Barrier(int count) : count_(count) {}

  void wait() {
    if (count_ == 1) return;
    const unsigned turn = turn_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == count_) {
      arrived_.store(0, std::memory_order_relaxed);
      turn_.store(turn + 1, std::memory_order_release);
      turn_.notify_all();
      return;
    }
    for (int i = 0; i < SPINS; i++) {
      if (turn_.load(std::memory_order_acquire) != turn) return;
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
    turn_.wait(turn, std::memory_order_acquire);
  }

 private:
  static constexpr int SPINS = 4000;
  const int count_;
  std::atomic<int> arrived_{0};
  std::atomic<unsigned> turn_{0};
};

// What falls to part `index` of `count`, as equal as can be: [first, last) of `total`.
template <class Number>
struct Share {
  Number first, last;
};
template <class Number>
constexpr Share<Number> share_of(Number total, int index, int count) {
  return {(Number)((std::int64_t)total * index / count), (Number)((std::int64_t)total * (index + 1) / count)};
}

// Any callable, borrowed: for a parameter, and gone with the call. std::function would serve, but its
// header takes long to compile.
template <class... Arguments>
class Borrowed {
 public:
  template <class Callable>
  Borrowed(const Callable &callable)
      : callable_(&callable),
        call_([](const void *it, Arguments... arguments) { (*static_cast<const Callable *>(it))(arguments...); }) {}
  void operator()(Arguments... arguments) const { call_(callable_, arguments...); }

 private:
  const void *callable_;
  void (*call_)(const void *, Arguments...);
};
using Work = Borrowed<int>;  // called with the number of the thread

// Some threads that run one function at a time, each with its number, the caller among them as 0.
class Crew {
 public:
  // Throws std::system_error where the system gives it no thread.
  explicit Crew(int size) {
    try {
      for (int i = 1; i < size; i++) threads_.emplace_back([this, i] { serve(i); });
    } catch (...) {
      end();  // a thread that is not joined would end the process
      throw;
    }
  }

  ~Crew() { end(); }

  int size() const { return 1 + (int)threads_.size(); }

  // Runs `work(i)` for 0 <= i < count, count <= size(), and returns when all have returned.
  void run(int count, const Work &work) {
    {
      std::lock_guard<std::mutex> hold(mutex_);
      work_ = &work;
      count_ = count;
      running_ = count - 1;
      call_++;
    }
    if (count > 1) called_.notify_all();
    work(0);
    std::unique_lock<std::mutex> hold(mutex_);
    done_.wait(hold, [this] { return running_ == 0; });
    work_ = nullptr;
  }

 private:
  void end() {
    {
      std::lock_guard<std::mutex> hold(mutex_);
      ended_ = true;
    }
    called_.notify_all();
    for (std::thread &thread : threads_) thread.join();
  }

  void serve(int index) {
    unsigned long seen = 0;
    for (;;) {
      const Work *work;
      {
        std::unique_lock<std::mutex> hold(mutex_);
        called_.wait(hold, [&] { return ended_ || call_ != seen; });
        if (ended_) return;
        seen = call_;
        if (index >= count_) continue;
        work = work_;
      }
      (*work)(index);
      std::lock_guard<std::mutex> hold(mutex_);
      if (--running_ == 0) done_.notify_one();
    }
  }

  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable called_, done_;
  const Work *work_ = nullptr;
  int count_ = 0, running_ = 0;
  unsigned long call_ = 0;
  bool ended_ = false;
};

// The crews that no call has at the moment.
class Crews {
 public:
  static Crews &all() {
    // Never destroyed: threads may still be asleep in it when the process ends.
    static Crews *crews = [] {
      auto *made = new Crews;
      pthread_atfork([] { all().mutex_.lock(); }, [] { all().mutex_.unlock(); }, [] { all().forget(); });
      return made;
    }();
    return *crews;
  }

  std::unique_ptr<Crew> take(int size) {
    std::lock_guard<std::mutex> hold(mutex_);
    for (auto &crew : idle_)
      if (crew->size() >= size) {
        std::unique_ptr<Crew> taken = std::move(crew);
        crew = std::move(idle_.back());
        idle_.pop_back();
        return taken;
      }
    return std::make_unique<Crew>(size);
  }

  void give_back(std::unique_ptr<Crew> crew) {
    std::lock_guard<std::mutex> hold(mutex_);
    if (idle_.size() < KEPT) idle_.push_back(std::move(crew));
  }

 private:
  // In a forked child: the threads of these crews are not here, so nothing may wait for them.
  void forget() {
    for (auto &crew : idle_) crew.release();
    idle_.clear();
    mutex_.unlock();
  }

  static constexpr std::size_t KEPT = 4;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Crew>> idle_;
};

// Runs `work(i)` on `count` threads and returns when all have returned. What one of them throws is
// thrown again here.
inline void in_parallel(int count, const Work &work) {
  if (count <= 0) return;
  if (count == 1) return work(0);
  std::unique_ptr<Crew> crew = Crews::all().take(count);
  std::exception_ptr thrown;
  std::mutex throwing;
  crew->run(count, [&](int index) {
    try {
      work(index);
    } catch (...) {
      std::lock_guard<std::mutex> hold(throwing);
      thrown = std::current_exception();
    }
  });
  Crews::all().give_back(std::move(crew));
  if (thrown) std::rethrow_exception(thrown);
}

}  // namespace rowwise
