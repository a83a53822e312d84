// The outcome of a call, as a code of the C interface.
#pragma once

#include <new>

#include "api.h"

namespace rowwise {

// Runs `work`, which returns false where it was cancelled. Nothing that it throws reaches the caller.
template <class Work>
int32_t outcome_of(const Work &work) {
  try {
    return work() ? ROWWISE_DONE : ROWWISE_CANCELLED;
  } catch (const std::bad_alloc &) {
    return ROWWISE_NO_MEMORY;
  } catch (...) {
    return ROWWISE_REFUSED;  // the system gave no thread
  }
}

}  // namespace rowwise
