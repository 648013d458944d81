#pragma once
// A strategy decides who holds what and who does what: it turns the shape of a step into layouts
// (plan/lower.h). It emits no ops, no communication and no seconds. A new strategy is one file and
// one line in strategies().

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "plan/lower.h"
#include "plan/plan.h"
#include "spec/model.h"

namespace weir {

// One request of a step.
struct RequestShape {
  std::int64_t past_len = 0;  // Tokens already in the KV cache.
  std::int64_t q_len = 0;     // New tokens in this step.
  std::int64_t max_len = 0;   // What it may grow to: prompt and all output. >= past_len + q_len.

  bool operator==(const RequestShape&) const = default;
};
using StepShape = std::vector<RequestShape>;

// What a strategy can be told, beyond its name: --tp 8 --pp 2. Spelled alike as flag and JSON key.
struct OptionSpec {
  std::string_view name;
  std::string_view help;           // One line.
  std::string_view default_value;  // As it would be written.
  // Either a number within limits, or one of `choices` where there are any.
  std::int64_t min = 1;
  std::int64_t max = 1;
  std::span<const std::string_view> choices = {};
};

// Option values by name, as written by the user. Those not given have their default.
using OptionValues = std::map<std::string, std::string, std::less<>>;

// The options of one strategy, checked against its specs.
class Options {
 public:
  // Refuses names that the specs do not have and values outside their limits, all at once.
  static Result<Options> parse(std::string_view strategy, std::span<const OptionSpec> specs,
                               const OptionValues& values);

  [[nodiscard]] std::int64_t number(std::string_view name) const;
  // Index among the spec's choices.
  [[nodiscard]] std::size_t choice(std::string_view name) const;
  // "tp=8 pp=2": what was given, in the order of the specs.
  [[nodiscard]] std::string to_string() const;

 private:
  std::span<const OptionSpec> specs_;
  std::vector<std::int64_t> values_;  // Numbers, or indices of choices, in the order of the specs.
  std::vector<bool> given_;           // Was it said, or is it the default?
};

class Strategy {
 public:
  Strategy() = default;
  Strategy(const Strategy&) = delete;
  Strategy& operator=(const Strategy&) = delete;
  virtual ~Strategy() = default;

  // Devices 0..n-1 are those that a step may use.
  [[nodiscard]] virtual std::int64_t num_devices() const = 0;
  // Pure: the same step gives the same layouts, and layouts that differ only in lengths are equal.
  // Never fails: what the model or the options make impossible is refused when the strategy is
  // made.
  [[nodiscard]] virtual StepLayouts layouts(const StepShape& step) const = 0;
  // True only where layouts(a) == layouts(b), told without making them: what lets a decode step
  // keep the plan of the step before. False may mean either.
  [[nodiscard]] virtual bool same_layouts(const StepShape& a, const StepShape& b) const {
    return a == b;
  }
};

// What a strategy may know of the devices that it is made for.
struct DeviceFacts {
  std::optional<std::int64_t> l2_bytes;  // Of one device.
  std::optional<std::int64_t> l3_bytes;
};

struct StrategyEntry {
  std::string_view name;
  // Three lines: what it splits, what it sends, when it pays.
  std::string_view help;
  std::span<const OptionSpec> options;
  Result<std::unique_ptr<Strategy>> (*make)(const ModelSpec& model, const Options& options,
                                            const DeviceFacts& devices);
};

// All strategies, in the order in which they are listed to people.
[[nodiscard]] std::span<const StrategyEntry> strategies();
[[nodiscard]] const StrategyEntry* find_strategy(std::string_view name);

// A strategy made from its name and option values; the label is the name with the given options.
struct NamedStrategy {
  std::string label;
  std::unique_ptr<Strategy> strategy;
};
[[nodiscard]] Result<NamedStrategy> make_strategy(std::string_view name, const OptionValues& values,
                                                  const ModelSpec& model,
                                                  const DeviceFacts& devices = {});

}  // namespace weir
