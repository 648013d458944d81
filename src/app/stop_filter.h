#pragma once
// Ends a streamed text where one of some stop strings begins. What might still become one is held
// back.

#include <string>
#include <string_view>
#include <vector>

namespace weir {

class StopFilter {
 public:
  // None of `stops` is empty.
  explicit StopFilter(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  // The part of the text so far that is now certain and has not been returned before.
  [[nodiscard]] std::string push(std::string_view text);
  // A stop string has been seen; nothing more is returned.
  [[nodiscard]] bool stopped() const { return stopped_; }
  // What has been held back; the text has ended.
  [[nodiscard]] std::string flush();

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace weir
