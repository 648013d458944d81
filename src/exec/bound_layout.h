#pragma once
// A layout with numbers: the rows and columns of every buffer for one step's lengths.

#include <cstdint>
#include <vector>

#include "plan/plan.h"

namespace weir {

// Rows of one request in a buffer.
struct RowSpan {
  std::int64_t request = 0;
  Interval token;  // New tokens of the request (or positions, where the tensor counts positions).
  std::int64_t first_row = 0;      // Where they begin in the buffer,
  std::int64_t first_element = 0;  // and the index of their first element.
  Interval dim;  // Differs between requests only where the dim axis counts positions (scores).
};

// One buffer: row-major, rows as in `spans`, columns head by head.
struct BoundBuffer {
  DeviceId device{};
  Box box;
  Interval head;
  Interval dim;
  std::vector<RowSpan> spans;  // By request; requests without rows are left out.
  std::int64_t rows = 0;
  std::int64_t elements = 0;
  std::vector<Range> key_ranges;  // Softmax partials: the key positions that it has attended to.

  // Of a row; not for scores.
  [[nodiscard]] std::int64_t width() const { return head.size() * dim.size(); }
  // The row of `token` of `request`, which the buffer must hold.
  [[nodiscard]] std::int64_t row_of(std::int64_t request, std::int64_t token) const;
};

struct BoundLayout {
  LayoutKind kind = LayoutKind::whole;
  std::vector<BoundBuffer> buffers;                   // As in buffers_of().
  std::vector<std::vector<std::uint32_t>> by_device;  // Indices of each device's buffers.
};

[[nodiscard]] BoundLayout bind(const Plan& plan, const Value& value, const StepLengths& lengths);
// The same for other lengths of a layout that has been bound before: allocates nothing where no
// request has gained rows.
void rebind(const Plan& plan, const Value& value, const StepLengths& lengths, BoundLayout& bound);

}  // namespace weir
