#include "app/stop_filter.h"

#include <algorithm>
#include <utility>

namespace weir {
namespace {

// Length of the longest end of `text` with which `stop` begins, short of all of it.
std::size_t longest_overlap(std::string_view text, std::string_view stop) {
  std::size_t length = std::min(text.size(), stop.size() - 1);
  while (length > 0 && !text.ends_with(stop.substr(0, length))) --length;
  return length;
}

}  // namespace

std::string StopFilter::push(std::string_view text) {
  if (stopped_) return {};
  held_ += text;
  std::size_t first = std::string::npos;
  std::size_t overlap = 0;
  for (const std::string& stop : stops_) {
    first = std::min(first, held_.find(stop));
    overlap = std::max(overlap, longest_overlap(held_, stop));
  }
  stopped_ = first != std::string::npos;
  const std::size_t certain = stopped_ ? first : held_.size() - overlap;
  std::string result = held_.substr(0, certain);
  held_ = stopped_ ? std::string() : held_.substr(certain);
  return result;
}

std::string StopFilter::flush() { return std::exchange(held_, {}); }

}  // namespace weir
