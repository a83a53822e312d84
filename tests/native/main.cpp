// Runs the tests of the C++ core: `driver [--quick] [NAME ...]`. `--list` shows their names, `--paths`
// the processor paths that can run here.
//
// Exit status 0 where all hold, 1 where one does not, 77 where the processor lacks this path. This
// file is compiled without the path's flags, so that it can say so.
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdarg>
#include <cstring>
#include <mutex>
#include <utility>

#include "check.h"
#include "cpu.h"

namespace check {

namespace {

std::atomic<long> compared{0}, failed{0};
const char *watched = "";
constexpr long SHOWN = 10;  // failures of one test

// Printed by a signal handler, so by nothing but write().
void say(const char *words) {
  if (write(STDERR_FILENO, words, std::strlen(words)) < 0) _exit(2);
}

void ended(int reason) {
  say("\n");
  say(watched);
  say(reason == SIGALRM ? ": it does not come to an end\n" : ": it touches memory that is not its own\n");
  abort();
}

}  // namespace

Conditions &conditions() {
  static Conditions ours;
  return ours;
}

std::vector<const Test *> &tests() {
  static std::vector<const Test *> all;
  return all;
}

Test::Test(const char *name, void (*run)()) : name(name), run(run) { tests().push_back(this); }

long comparisons() { return compared; }
long failures() { return failed; }
void count(bool holds) {
  compared.fetch_add(1, std::memory_order_relaxed);
  if (!holds) failed.fetch_add(1, std::memory_order_relaxed);
}

void report(const std::string &what, std::source_location where) {
  static std::mutex mutex;
  static long shown = 0;
  static const char *of = nullptr;
  std::lock_guard<std::mutex> hold(mutex);
  if (of != watched) of = watched, shown = 0;
  if (++shown > SHOWN) return;
  const char *slash = std::strrchr(where.file_name(), '/');
  std::fprintf(stderr, "  %s:%u: %s\n", slash ? slash + 1 : where.file_name(), (unsigned)where.line(), what.c_str());
  if (shown == SHOWN) std::fprintf(stderr, "  further ones are not shown\n");
}

std::string text(const char *format, ...) {
  char line[400];
  va_list values;
  va_start(values, format);
  std::vsnprintf(line, sizeof line, format, values);
  va_end(values);
  return line;
}

void watch(const char *what, unsigned seconds) {
  watched = what;
  signal(SIGALRM, ended);
  if (!SANITIZED) signal(SIGSEGV, ended);  // they say more themselves
  alarm(seconds);
}

}  // namespace check

namespace {

// From worst to best; each needs what the one before it needs, and a feature more.
constexpr std::pair<const char *, std::int32_t> PATHS[] = {{"portable", 0},
                                                          {"avx2", rowwise::AVX2},
                                                          {"avx512", rowwise::AVX512},
                                                          {"avx512_bf16", rowwise::AVX512_BF16},
                                                          {"amx", rowwise::AMX}};

bool can_run(const char *path) {
  std::int32_t needs = 0;
  for (const auto &[name, feature] : PATHS) {
    needs |= feature;
    if (!std::strcmp(name, path)) return (rowwise_cpu() & needs) == needs;
  }
  return false;
}

bool chosen(const char *name, const std::vector<const char *> &names) {
  if (names.empty()) return true;
  for (const char *wanted : names)
    if (std::strstr(name, wanted)) return true;
  return false;
}

// Once with each side of the buffers at a guard page. Returns whether all held.
bool run(const check::Test &test) {
  const auto start = std::chrono::steady_clock::now();
  const long compared = check::comparisons(), failed = check::failures();
  for (check::Flush flush : {check::Flush::end, check::Flush::start}) {
    // The sanitizers, which look before buffers too, are slow.
    if (flush == check::Flush::start && (check::SANITIZED || check::conditions().quick)) continue;
    check::conditions().flush = flush;
    check::watch(test.name, check::SANITIZED ? 400 : 200);
    test.run();
  }
  check::watch("", 0);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const bool held = check::failures() == failed;
  std::printf("%-4s %-28s %9ld comparisons %6.1f s\n", held ? "ok" : "FAIL", test.name, check::comparisons() - compared, seconds);
  std::fflush(stdout);
  return held;
}

}  // namespace

int main(int count, char **words) {
  std::vector<const char *> names;
  for (int i = 1; i < count; i++) {
    if (!std::strcmp(words[i], "--quick")) {
      check::conditions().quick = true;
    } else if (!std::strcmp(words[i], "--list")) {
      for (const check::Test *test : check::tests()) std::puts(test->name);
      return 0;
    } else if (!std::strcmp(words[i], "--paths")) {
      for (const auto &[path, feature] : PATHS)
        if (can_run(path)) std::puts(path);
      return 0;
    } else {
      names.push_back(words[i]);
    }
  }
  if (!can_run(rowwise_path())) {
    std::printf("skipped: this processor (or its system) lacks what the path %s needs\n", rowwise_path());
    return 77;
  }
  bool held = true;
  int ran = 0;
  for (const check::Test *test : check::tests())
    if (chosen(test->name, names)) held = run(*test) && held, ran++;
  if (ran == 0) std::puts("no test has such a name; --list shows them");
  return held && ran ? 0 : 1;
}
