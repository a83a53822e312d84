// Guard pages, round the core's own buffers too, and allocations that fail when asked to.
//
// The linker redirects the core's aligned_alloc, free and operator new to the functions below
// (--wrap). Under a sanitizer, which watches the heap itself, buffers stay on the heap.
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <new>

#include "check.h"

namespace check {

namespace {

std::size_t page() {
  static const std::size_t size = (std::size_t)sysconf(_SC_PAGESIZE);
  return size;
}

std::size_t whole_pages(std::size_t bytes) { return (bytes + page() - 1) / page() * page(); }

void *must(void *mapped) {
  if (mapped != MAP_FAILED) return mapped;
  std::perror("mmap");
  std::abort();
}

// Where `bytes` lie in the pages from `first` on.
void *place(char *first, std::size_t bytes) {
  return conditions().flush == Flush::end ? first + whole_pages(bytes) - bytes : first;
}

void open(char *first, std::size_t bytes) {
  if (bytes && mprotect(first, whole_pages(bytes), PROT_READ | PROT_WRITE)) {
    std::perror("mprotect");
    std::abort();
  }
}

std::atomic<long> countdown{-1};
std::atomic<bool> failed{false};

bool fails_now() {
  if (countdown.load(std::memory_order_relaxed) < 0 || countdown.fetch_sub(1) != 0) return false;
  failed = true;
  return true;
}

// Buffers in one large range of addresses, none of which is ever used twice, so that what is freed
// stays forbidden.
class Heap {
 public:
  void *take(std::size_t bytes) {
    const std::size_t pages = whole_pages(bytes) / page();
    const std::size_t first = next_.fetch_add(pages + 1) + 1;  // a guard behind is the next one's before
    if (first + pages >= PAGES) std::abort();
    char *start = base_ + first * page();
    open(start, bytes);
    lengths_[first] = (std::uint32_t)pages;
    return place(start, bytes);
  }
  bool owns(const void *p) const { return p >= base_ && p < base_ + PAGES * page(); }
  void give_back(void *p) {
    const std::size_t first = (std::size_t)((char *)p - base_) / page();
    const std::size_t bytes = lengths_[first] * page();
    must(mmap(base_ + first * page(), bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0));
  }
  static Heap &only() {
    static Heap heap;
    return heap;
  }

 private:
  static constexpr std::size_t PAGES = std::size_t{1} << 26;
  static void *reserve(std::size_t bytes, int protection) {
    return must(mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  }
  char *base_ = (char *)reserve(PAGES * page(), PROT_NONE);
  std::uint32_t *lengths_ = (std::uint32_t *)reserve(PAGES * sizeof(std::uint32_t), PROT_READ | PROT_WRITE);
  std::atomic<std::size_t> next_{0};
};

}  // namespace

Pages::Pages(std::size_t bytes) : length_(whole_pages(bytes) + 2 * page()) {
  whole_ = must(mmap(nullptr, length_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  char *first = (char *)whole_ + page();
  open(first, bytes);
  data_ = place(first, bytes);
}
Pages::~Pages() {
  if (whole_) munmap(whole_, length_);
}
Pages::Pages(Pages &&other) noexcept : whole_(other.whole_), data_(other.data_), length_(other.length_) {
  other.whole_ = nullptr;
}

bool fail_allocation(long n) {
  countdown = n;
  return failed.exchange(false);
}

}  // namespace check

extern "C" {

void *__real_aligned_alloc(std::size_t alignment, std::size_t bytes);
void *__wrap_aligned_alloc(std::size_t alignment, std::size_t bytes) {
  if (check::fails_now()) return nullptr;
  return check::SANITIZED ? __real_aligned_alloc(alignment, bytes) : check::Heap::only().take(bytes);
}

void __real_free(void *p);
void __wrap_free(void *p) {
  if (!check::SANITIZED && check::Heap::only().owns(p))
    check::Heap::only().give_back(p);
  else
    __real_free(p);
}

void *__real__Znwm(std::size_t bytes);
void *__wrap__Znwm(std::size_t bytes) {
  if (check::fails_now()) throw std::bad_alloc();
  return __real__Znwm(bytes);
}
}
