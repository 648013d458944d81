#include "comm/watch_words.h"

#include <algorithm>

namespace weir {

std::string cause_line(std::string_view cause) {
  std::string line(1, static_cast<char>(WatchWord::cause));
  line += cause.substr(0, kLongestCause);
  std::ranges::replace(line, '\n', ' ');
  return line + '\n';
}

WatchEar::Heard WatchEar::hear(std::string_view bytes) {
  for (const char word : bytes) {
    if (heard_ != Heard::nothing) break;
    hear(word);
  }
  return heard_;
}

void WatchEar::hear(char word) {
  if (in_cause_) {
    if (word == '\n') {
      heard_ = Heard::cause;
    } else if (cause_.size() < kLongestCause) {
      cause_ += word;
    }
    return;
  }
  switch (static_cast<WatchWord>(word)) {
    case WatchWord::beat:
      return;
    case WatchWord::goodbye:
      heard_ = Heard::goodbye;
      return;
    case WatchWord::cause:
      in_cause_ = true;
      return;
    case WatchWord::end:
      heard_ = Heard::end;
      return;
  }
  // Anything else shows that the sender runs, as a beat does.
}

}  // namespace weir
