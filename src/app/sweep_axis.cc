#include "app/sweep_axis.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "app/request_flags.h"

namespace weir {
namespace {

constexpr std::string_view kForms = "VALUE,VALUE,... or FIRST..LAST or FIRST..LAST:STEP";

std::string normalised(std::string_view name) {
  std::string text(name);
  std::ranges::replace(text, '_', '-');
  return text;
}

std::string_view shown(std::string_view text) { return text.empty() ? "nothing" : text; }

class AxisReader {
 public:
  explicit AxisReader(const SweepName& name) : name_(name) {}

  Result<SweepAxis> read(std::string_view text) {
    std::size_t begin = 0;
    while (begin <= text.size()) {
      const std::size_t end = std::min(text.find(',', begin), text.size());
      if (auto status = read_item(text.substr(begin, end - begin)); !status)
        return tl::unexpected(status.error());
      begin = end + 1;
    }
    std::ranges::sort(values_);
    values_.erase(std::unique(values_.begin(), values_.end()), values_.end());
    return SweepAxis{.name = std::string(name_.name), .values = std::move(values_)};
  }

 private:
  [[nodiscard]] Status refuse(std::string_view found, std::string_view allowed) const {
    return invalid_input(
        fmt::format("--sweep {}: found {}, allowed {}", name_.name, found, allowed));
  }

  Result<std::int64_t> number(std::string_view text, std::int64_t min, std::int64_t max) const {
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error == std::errc{} && end == text.data() + text.size() && value >= min && value <= max)
      return value;
    return tl::unexpected(
        refuse(shown(text), fmt::format("an integer in {}..{}", min, max)).error());
  }

  // "7", "1..9" or "1..9:2".
  Status read_item(std::string_view item) {
    const std::size_t dots = item.find("..");
    if (dots == std::string_view::npos) {
      const auto value = number(item, name_.min, name_.max);
      if (!value) return tl::unexpected(value.error());
      return add(*value);
    }
    std::string_view last_text = item.substr(dots + 2);
    std::optional<std::int64_t> step;
    if (const std::size_t colon = last_text.find(':'); colon != std::string_view::npos) {
      const std::string_view step_text = last_text.substr(colon + 1);
      const auto given = number(step_text, 1, name_.max);
      if (!given) return refuse(fmt::format("step {}", shown(step_text)), "a step of at least 1");
      step = *given;
      last_text = last_text.substr(0, colon);
    }
    const auto first = number(item.substr(0, dots), name_.min, name_.max);
    if (!first) return tl::unexpected(first.error());
    const auto last = number(last_text, name_.min, name_.max);
    if (!last) return tl::unexpected(last.error());
    if (*first > *last) return refuse(item, "a range whose first value is not above its last");
    if (!step && name_.one_by_one) step = 1;
    return add_range(*first, *last, step);
  }

  // nullopt: doubling. Limits keep the sums far from overflow.
  Status add_range(std::int64_t first, std::int64_t last, std::optional<std::int64_t> step) {
    for (std::int64_t value = first; value < last;
         value += step.value_or(std::max<std::int64_t>(value, 1))) {
      if (auto status = add(value); !status) return status;
    }
    return add(last);
  }

  Status add(std::int64_t value) {
    if (std::ssize(values_) == kMostSweepPoints) {
      return refuse(fmt::format("more than {} values", kMostSweepPoints),
                    fmt::format("at most {}", kMostSweepPoints));
    }
    values_.push_back(value);
    return {};
  }

  const SweepName& name_;
  std::vector<std::int64_t> values_;
};

}  // namespace

std::vector<SweepName> sweep_names(const StrategyEntry& strategy) {
  std::vector<SweepName> names = {
      {.name = "seq", .min = 2, .max = kPromptLimits.max},
      {.name = "prompt-len", .min = kPromptLimits.min, .max = kPromptLimits.max},
      {.name = "output-len", .min = kOutputLimits.min, .max = kOutputLimits.max},
      {.name = "batch", .min = kBatchLimits.min, .max = kBatchLimits.max}};
  for (const OptionSpec& option : strategy.options) {
    if (!option.choices.empty()) continue;
    names.push_back({.name = option.name,
                     .min = option.min,
                     .max = option.max,
                     .one_by_one = option.name == "pool"});
  }
  return names;
}

Result<SweepAxis> parse_sweep_axis(std::string_view text, std::span<const SweepName> names) {
  const std::size_t equals = text.find('=');
  const std::string name = normalised(text.substr(0, equals));
  const auto place =
      std::ranges::find(names, name, [](const SweepName& known) { return normalised(known.name); });
  if (place == names.end()) {
    std::vector<std::string_view> all;
    for (const SweepName& known : names) all.push_back(known.name);
    return invalid_input(fmt::format("--sweep: found {}, allowed NAME={}; NAME is one of: {}",
                                     shown(text), kForms, fmt::join(all, ", ")));
  }
  if (equals == std::string_view::npos || equals + 1 == text.size()) {
    return invalid_input(
        fmt::format("--sweep {}: found no values, allowed {}", place->name, kForms));
  }
  return AxisReader(*place).read(text.substr(equals + 1));
}

}  // namespace weir
