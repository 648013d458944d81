#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace weir {

void check_failed(const char* condition, const char* file, int line, std::string_view message) {
  std::fprintf(stderr, "weir: internal error: %s:%d: CHECK(%s): %.*s\n", file, line, condition,
               static_cast<int>(message.size()), message.data());
  std::abort();
}

}  // namespace weir
