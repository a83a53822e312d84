// simd.h and random.h against the C library in double precision, and against published numbers.
#include <cmath>
#include <cstring>
#include <limits>

#include "check.h"
#include "random.h"
#include "simd.h"

using namespace rowwise;

namespace {

constexpr double INF = std::numeric_limits<double>::infinity();
constexpr double SMALLEST = 0x1p-126;  // below it floats lose digits, or are flushed to zero

float from_bits(std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

std::uint32_t bits_of(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

// `function` of every lane; all lanes hold different numbers, so that a mixed-up one is seen.
template <class Function>
void apply(Function function, const float *x, float *y) {
  Vec in;
  std::memcpy(&in, x, sizeof in);
  const Vec out = function(in);
  std::memcpy(y, &out, sizeof out);
}

// Compares over all floats in steps of `stride` bit patterns, with the ends of each range beside them.
template <class Function, class Exact>
void compare(const char *name, Function function, Exact exact, double relative, double absolute) {
  const std::uint32_t stride = check::conditions().quick || check::SANITIZED ? 400'009 : 10'007;
  float x[LANES], y[LANES];
  auto flush = [&] {
    apply(function, x, y);
    for (int i = 0; i < LANES; i++) {
      const double expected = exact((double)x[i]);
      auto what = [&] { return check::text("%s(%.9g)", name, x[i]); };
      // Arithmetic makes NaNs whose lower bits are zero, and hands them on; exponential() may lose others.
      if (std::isnan(x[i]) && bits_of(x[i]) & 0x1FF) continue;
      if (std::isnan(expected))
        check::that(std::isnan(y[i]), [&] { return what() + " must be NaN"; });
      else
        check::close(y[i], expected, relative * std::fabs(expected) + absolute, what);
    }
  };
  int lane = 0;
  auto add = [&](float value) {
    x[lane++] = value;
    if (lane == LANES) flush(), lane = 0;
  };
  for (std::uint64_t bits = 0; bits < 0x1'0000'0000u; bits += stride) add(from_bits((std::uint32_t)bits));
  for (std::uint32_t bits : {0x00000000u, 0x80000000u, 0x00000001u, 0x80000001u, 0x007FFFFFu, 0x00800000u, 0x7F7FFFFFu,
                             0xFF7FFFFFu, 0x7F800000u, 0xFF800000u, 0x7FC00000u, 0xFFC00000u, 0x7FA00000u, 0xFFFFFE00u})
    add(from_bits(bits));
  while (lane) add(0.5f);
}

double clamped(double x, double limit) { return std::isnan(x) ? x : std::fmax(-limit, std::fmin(limit, x)); }
double logistic(double x) { return 1 / (1 + std::exp(-clamped(x, 87))); }

void functions() {
  compare("exponential", [](Vec x) { return exponential(x); }, [](double x) { return std::exp(clamped(x, 87)); }, 2e-7, 0);
  compare("sigmoid", [](Vec x) { return sigmoid(x); }, logistic, 3e-7, 0);
  compare("hyperbolic_tangent", [](Vec x) { return hyperbolic_tangent(x); }, [](double x) { return std::tanh(x); }, 4e-7, SMALLEST);
  compare("quick_sigmoid", [](Vec x) { return quick_sigmoid(x); }, logistic, 2e-4, 0);
  compare("quick_tanh", [](Vec x) { return quick_tanh(x); }, [](double x) { return std::tanh(x); }, 2e-4, 0x1p-125);
  compare("square_root", [](Vec x) { return square_root(x); }, [](double x) { return std::sqrt(x); }, 6e-8, 0x1p-63);
  compare("Relu::of", [](Vec x) { return Relu::of(x); }, [](double x) { return x < 0 ? 0 : x; }, 0, 0);
  compare("Tanh::of", [](Vec x) { return Tanh::of(x); }, [](double x) { return std::tanh(x); }, 4e-7, SMALLEST);
  compare("Sigmoid::of", [](Vec x) { return Sigmoid::of(x); }, logistic, 3e-7, 0);
  compare("Linear::of", [](Vec x) { return Linear::of(x); }, [](double x) { return x; }, 0, 0);
  compare("at_least", [](Vec x) { return at_least(x, -1.5f); }, [](double x) { return x < -1.5 ? -1.5 : x; }, 0, 0);
  compare("at_most", [](Vec x) { return at_most(x, 2.5f); }, [](double x) { return x > 2.5 ? 2.5 : x; }, 0, 0);
  compare("between", [](Vec x) { return between(x, -3, 4); }, [](double x) { return x < -3 ? -3 : x > 4 ? 4 : x; }, 0, 0);
  compare("splat", [](Vec x) { return x * 0 + splat(0.1f); }, [](double x) { return x * 0 + (double)0.1f; }, 0, 0);
}

// Of f(z) = y: g f'(z), from g and y alone.
void slopes() {
  check::Random random(3);
  for (int round = 0; round < 1000; round++) {
    float g[LANES], y[LANES], tanh[LANES], relu[LANES], logistic[LANES], linear[LANES];
    for (int i = 0; i < LANES; i++) g[i] = random.within(5), y[i] = i % 5 == 4 ? 0.0f : random.within(1);
    Vec out;
    std::memcpy(&out, y, sizeof out);
    apply([&](Vec x) { return Tanh::scaled_by_slope(x, out); }, g, tanh);
    apply([&](Vec x) { return Relu::scaled_by_slope(x, out); }, g, relu);
    apply([&](Vec x) { return Sigmoid::scaled_by_slope(x, out); }, g, logistic);
    apply([&](Vec x) { return Linear::scaled_by_slope(x, out); }, g, linear);
    for (int i = 0; i < LANES; i++) {
      const double up = g[i], value = y[i];
      check::close(tanh[i], up * (1 - value * value), 1e-6, [] { return std::string("slope of tanh"); });
      check::close(relu[i], value > 0 ? up : 0, 0, [] { return std::string("slope of relu"); });
      check::close(logistic[i], up * value * (1 - value), 2e-6, [] { return std::string("slope of sigmoid"); });
      check::close(linear[i], up, 0, [] { return std::string("slope of the identity"); });
    }
  }
}

void memory() {
  check::Random random(4);
  const check::Floats from = check::drawn(LANES, 9, random), to(LANES);
  store(to.data(), load(from.data()));
  check::that(!std::memcmp(from.data(), to.data(), LANES * sizeof(float)), "what is stored is what was loaded");
  double total = 0;
  for (float x : from) total += x;
  check::close(sum(load(from.data())), total, 1e-5, [] { return std::string("sum"); });
}

// kat_vectors of Random123 (Salmon et al. 2011), philox4x32 with 10 rounds.
void random_words() {
  typedef std::array<std::uint32_t, 4> Four;
  struct Known {
    Four counter;
    std::array<std::uint32_t, 2> key;
    Four words;
  };
  constexpr std::uint32_t ALL = 0xffffffff;
  const Known known[] = {
      {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {{ALL, ALL, ALL, ALL}, {ALL, ALL}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0},
       {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
  };
  for (const Known &one : known) check::that(philox(one.counter, one.key) == one.words, "philox4x32-10 gives the published words");
}

const check::Test of_functions{"vectors: functions", functions};
const check::Test of_slopes{"vectors: slopes", slopes};
const check::Test of_memory{"vectors: load, store, sum", memory};
const check::Test of_random{"random words", random_words};

}  // namespace
