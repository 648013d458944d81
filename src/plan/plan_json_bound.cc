#include "plan/plan_json_bound.h"

#include <charconv>

#include <fmt/format.h>

namespace weir {
namespace {

// Reads decimal digits off the front of `text`: no sign, no spaces.
std::optional<std::int32_t> take_number(std::string_view& text) {
  if (text.empty() || text.front() < '0' || text.front() > '9') return std::nullopt;
  std::int32_t number = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{}) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(rest - text.data()));
  return number;
}

}  // namespace

std::string text_of(Bound bound) {
  std::string text =
      bound.index == 1 && bound.parts == 1 ? "end" : fmt::format("{}/{}", bound.index, bound.parts);
  if (bound.offset != 0) text += fmt::format("{:+}", bound.offset);
  return text;
}

std::optional<Bound> parse_bound(std::string_view text) {
  Bound bound = Bound::end();
  if (text.starts_with("end")) {
    text.remove_prefix(3);
  } else {
    const auto index = take_number(text);
    if (!index || !text.starts_with('/')) return std::nullopt;
    text.remove_prefix(1);
    const auto parts = take_number(text);
    if (!parts || *parts < 1 || *index > *parts) return std::nullopt;
    bound = {.offset = 0, .index = *index, .parts = *parts};
  }
  if (text.empty()) return bound;
  const bool back = text.starts_with('-');
  if (!back && !text.starts_with('+')) return std::nullopt;
  text.remove_prefix(1);
  const auto offset = take_number(text);
  if (!offset || !text.empty()) return std::nullopt;
  bound.offset = back ? -*offset : *offset;
  return bound;
}

}  // namespace weir
