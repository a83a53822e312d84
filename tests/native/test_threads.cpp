// threads.h: barrier, crews and what they do with exceptions and forks.
//
// The numbers that the threads share are plain ones, so that ThreadSanitizer sees every order that
// the barrier and the crews fail to give.
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <stdexcept>
#include <string>

#include "check.h"
#include "threads.h"

using namespace rowwise;

namespace {

int rounds(int many) { return check::conditions().quick ? many / 20 : check::SANITIZED ? many / 10 : many; }

// Every thread writes its number, and then reads everyone's.
void barriers() {
  for (int threads = 1; threads <= 5; threads++) {
    Barrier barrier(threads);
    std::vector<int> written(threads);
    const int count = rounds(threads > 2 ? 200 : 4000);  // those that find no core wait long
    in_parallel(threads, [&](int self) {
      for (int round = 1; round <= count; round++) {
        written[self] = round;
        barrier.wait();
        for (int other : written)
          if (other != round) check::that(false, "nobody leaves a barrier before all have come");
        barrier.wait();
      }
    });
    for (int last : written) check::that(last == count, "everyone has come through all barriers");
  }
}

void crews() {
  Crew crew(6);
  check::that(crew.size() == 6, "a crew has the size that was asked for");
  std::vector<int> ran(6), expected(6);
  check::Random random(31);
  for (int round = 0; round < rounds(3000); round++) {
    const int count = 1 + random.below(6);
    crew.run(count, [&](int self) { ran[self]++; });
    for (int i = 0; i < count; i++) expected[i]++;
    if (ran != expected) check::that(false, "a crew runs a call once on each of as many threads as asked");
  }
  check::that(ran == expected, "a crew has run every call");
  for (int round = 0; round < rounds(400); round++) Crew idle(1 + round % 4);
}

void leases() {
  std::vector<std::thread> callers;
  std::vector<long> totals(4);
  for (int caller = 0; caller < 4; caller++)
    callers.emplace_back([&, caller] {
      check::Random random(caller);
      for (int round = 0; round < rounds(1500); round++) {
        const int count = 1 + random.below(5);
        std::vector<int> ran(count);
        in_parallel(count, [&](int self) {
          if (self > 0) ran[self] = 1;
          if (self > 0) return;
          in_parallel(2, [&](int inner) {  // a call within a call
            if (inner == 1) ran[0] = 1;
          });
        });
        for (int one : ran) totals[caller] += one - 1;
      }
    });
  for (std::thread &caller : callers) caller.join();
  for (long off : totals) check::that(off == 0, "callers at the same time each get their own threads");
}

void no_threads() {
  bool ran = false;
  in_parallel(0, [&](int) { ran = true; });
  check::that(!ran, "no threads run nothing");
}

void exceptions() {
  for (int thrower = -1; thrower < 4; thrower++)
    for (int round = 0; round < rounds(100) + 1; round++) {
      std::vector<int> ran(4);
      std::string caught;
      try {
        in_parallel(4, [&](int self) {
          ran[self] = 1;
          if (self == thrower || thrower < 0) throw std::runtime_error("thread");
        });
      } catch (const std::runtime_error &error) {
        caught = error.what();
      }
      check::that(caught == "thread" && ran == std::vector<int>(4, 1), "what a thread throws reaches the caller when all have ended");
    }
}

int in_child(const std::function<bool()> &work) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(30);
    _exit(work() ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  return status;
}

bool works() {
  std::vector<int> ran(3);
  in_parallel(3, [&](int self) { ran[self] = 1; });
  return ran == std::vector<int>(3, 1);
}

void forks() {
  for (int round = 0; round < rounds(60) + 2; round++) {
    check::that(works(), "crews work before a fork");
    check::that(in_child([] { return works() && works(); }) == 0, "a forked child makes crews of its own");
    check::that(works(), "crews work after a fork");
  }
}

// Forks at any moment of other threads' calls. The sanitizers' own locks do not survive that.
void forks_amid() {
  if (check::SANITIZED) return;
  std::atomic<bool> enough{false};
  std::vector<std::thread> callers;
  for (int i = 0; i < 2; i++)
    callers.emplace_back([&] {
      while (!enough) check::that(works(), "crews work while others fork");
    });
  for (int round = 0; round < rounds(200); round++)
    check::that(in_child(works) == 0, "a child forked amid calls makes crews of its own");
  enough = true;
  for (std::thread &caller : callers) caller.join();
}

const check::Test of_barriers{"threads: barriers", barriers};
const check::Test of_crews{"threads: crews", crews};
const check::Test of_leases{"threads: leases", leases};
const check::Test of_none{"threads: none", no_threads};
const check::Test of_exceptions{"threads: exceptions", exceptions};
const check::Test of_forks{"threads: forks", forks};
const check::Test of_forks_amid{"threads: forks amid calls", forks_amid};

}  // namespace
