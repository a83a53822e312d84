// What the tests of the C++ core have in common: comparing, drawing numbers, memory between guards.
//
// A test runs with the data of each buffer flush with the guard page behind it, and again with the one
// before it: the sanitizers do not see what vector and tile instructions touch, an unmapped page does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <source_location>
#include <string>
#include <vector>

namespace check {

enum class Flush { end, start };

// How the tests of this process are run.
struct Conditions {
  bool quick = false;  // fewer sizes and networks, less hammering
  Flush flush = Flush::end;
};
Conditions &conditions();

// Sanitizers slow everything down, and know nothing of what guard pages and limits do.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool UNDER_ADDRESS = true, UNDER_THREAD = false;
#elif defined(__SANITIZE_THREAD__)
constexpr bool UNDER_ADDRESS = false, UNDER_THREAD = true;
#else
constexpr bool UNDER_ADDRESS = false, UNDER_THREAD = false;
#endif
constexpr bool SANITIZED = UNDER_ADDRESS || UNDER_THREAD;

// A function that main() calls under its name.
struct Test {
  Test(const char *name, void (*run)());
  const char *name;
  void (*run)();
};
std::vector<const Test *> &tests();

long comparisons();
long failures();
void count(bool holds);
void report(const std::string &what, std::source_location where);

[[gnu::format(printf, 1, 2)]] std::string text(const char *format, ...);

// `describe` makes the text of a failure, and is called for one alone.
template <class Describe>
void that(bool holds, Describe describe, std::source_location where = std::source_location::current()) {
  count(holds);
  if (!holds) report(describe(), where);
}
inline void that(bool holds, const char *rule, std::source_location where = std::source_location::current()) {
  that(holds, [rule] { return std::string(rule); }, where);
}

// |got - expected| <= allowed; never for a NaN.
template <class Describe>
void close(double got, double expected, double allowed, Describe describe,
           std::source_location where = std::source_location::current()) {
  const double off = got > expected ? got - expected : expected - got;
  that(off <= allowed || got == expected, [&] {
    return describe() + text(": got %.9g, expected %.9g, off by %.3g where %.3g is allowed", got, expected, off, allowed);
  }, where);
}

// SplitMix64 (Steele, Lea & Flood 2014): the same numbers everywhere.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t word() {
    std::uint64_t z = state_ += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  double uniform() { return (double)(word() >> 11) * 0x1p-53; }  // [0, 1)
  float within(double limit) { return (float)((2 * uniform() - 1) * limit); }
  int below(int limit) { return (int)(word() % (std::uint64_t)limit); }

 private:
  std::uint64_t state_;
};

// Memory with a page before and a page behind it that nobody may touch.
class Pages {
 public:
  explicit Pages(std::size_t bytes);
  ~Pages();
  Pages(Pages &&other) noexcept;
  Pages &operator=(Pages &&) = delete;
  void *data() const { return data_; }

 private:
  void *whole_, *data_;
  std::size_t length_;
};

// An array in such memory.
template <class T>
class Guarded {
 public:
  explicit Guarded(std::size_t size, T fill = T{}) : pages_(size * sizeof(T)), size_(size) {
    for (std::size_t i = 0; i < size; i++) data()[i] = fill;
  }
  template <class Source>
  static Guarded of(const Source &source) {
    Guarded made(source.size());
    for (std::size_t i = 0; i < made.size(); i++) made[i] = (T)source[i];
    return made;
  }
  T *data() const { return static_cast<T *>(pages_.data()); }
  std::size_t size() const { return size_; }
  T &operator[](std::size_t i) const { return data()[i]; }
  T *begin() const { return data(); }
  T *end() const { return data() + size_; }

 private:
  Pages pages_;
  std::size_t size_;
};
typedef Guarded<float> Floats;

inline Floats drawn(std::size_t size, double limit, Random &random) {
  Floats made(size);
  for (float &x : made) x = random.within(limit);
  return made;
}

// --- the core's own memory (memory.cpp) --------------------------------------------------------

// Lets the n-th allocation from now on fail (0: the next one), by std::bad_alloc or null; a negative
// number lets none fail. Returns whether the last one that was asked for has failed.
bool fail_allocation(long n);

// Ends the process with a message if it has not been called again after that many seconds; 0: never.
void watch(const char *what, unsigned seconds);

}  // namespace check
