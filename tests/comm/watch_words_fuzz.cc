// Whatever a rank is sent over its watch's connection means the same in whatever pieces it comes,
// and is kept within its limit.

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "comm/watch_words.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  using namespace weir;
  if (size == 0) return 0;
  // The first byte says how long the pieces are.
  const std::size_t step = 1 + bytes[0] % 16;
  const std::string_view words(reinterpret_cast<const char*>(bytes) + 1, size - 1);
  WatchEar whole;
  const WatchEar::Heard heard = whole.hear(words);
  WatchEar parts;
  for (std::size_t at = 0; at < words.size(); at += step) parts.hear(words.substr(at, step));
  CHECK(parts.hear("") == heard && parts.cause() == whole.cause(), "pieces mean what they are");
  CHECK(whole.cause().size() <= kLongestCause, "a cause has a limit");
  if (heard != WatchEar::Heard::cause) return 0;
  WatchEar again;
  CHECK(again.hear(cause_line(whole.cause())) == heard && again.cause() == whole.cause(),
        "what is said is what was heard");
  return 0;
}
