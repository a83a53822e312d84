// The outcome of a call, as a code of the C interface.
#pragma once

#include <exception>
#include <new>

#include "api.h"

namespace rowwise {

// A kind of layer, cell, activation or optimiser that this core does not have. Numbers become kinds at
// the border, by functions that throw it: nothing inside takes an unknown one for another.
struct Unknown : std::exception {};

// The number itself where it is one of `count` kinds from `first` on.
inline int known(int number, int count, int first = 0) {
  if (number < first || number >= first + count) throw Unknown();
  return number;
}

// Runs `work`, which returns false where it was cancelled. Nothing that it throws reaches the caller.
template <class Work>
int32_t outcome_of(const Work &work) {
  try {
    return work() ? ROWWISE_DONE : ROWWISE_CANCELLED;
  } catch (const std::bad_alloc &) {
    return ROWWISE_NO_MEMORY;
  } catch (const Unknown &) {
    return ROWWISE_UNKNOWN;
  } catch (...) {
    return ROWWISE_REFUSED;  // the system gave no thread
  }
}

}  // namespace rowwise
