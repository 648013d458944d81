#pragma once
// Requests of a batch mostly have the same lengths as their neighbours, and then whatever is
// counted of one holds for all of them.

#include <cstddef>
#include <cstdint>

#include "plan/plan.h"

namespace weir {

// Calls visit(request, count, lengths) for each stretch of requests of equal lengths: `count` of
// them, `request` the first.
template <class Visit>
void each_of_equal_lengths(Interval requests, const StepLengths& lengths, Visit visit) {
  for (std::int64_t request = requests.begin; request < requests.end;) {
    const RequestLengths& length = lengths[static_cast<std::size_t>(request)];
    std::int64_t next = request + 1;
    while (next < requests.end && lengths[static_cast<std::size_t>(next)] == length) ++next;
    visit(request, next - request, length);
    request = next;
  }
}

}  // namespace weir
