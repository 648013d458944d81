#pragma once
// CHECK states what must be true if the program is right. It stays on in release builds and ends
// the process with the place and the message. User input is never CHECKed: it is refused with a
// `Result` (base/result.h).

#include <string_view>

namespace weir {

[[noreturn]] void check_failed(const char* condition, const char* file, int line,
                               std::string_view message);

}  // namespace weir

#define CHECK(condition, message)                                    \
  do {                                                               \
    if (!(condition)) [[unlikely]] {                                 \
      ::weir::check_failed(#condition, __FILE__, __LINE__, message); \
    }                                                                \
  } while (false)
