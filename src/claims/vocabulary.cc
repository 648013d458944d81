#include "claims/vocabulary.h"

#include <algorithm>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/check.h"

namespace weir {
namespace {

using enum ParameterKind;
constexpr ParameterKind kSetupAtLength[] = {setup, number};
constexpr ParameterKind kShare[] = {setup, group, time, number};
constexpr ParameterKind kMemory[] = {setup, group, memory, number};
constexpr ParameterKind kLength[] = {number};
constexpr ParameterKind kFourSetups[] = {setup, setup, setup, setup, number};
constexpr ParameterKind kPart[] = {part};

constexpr std::array kFunctions = {
    FunctionSpec{"tpot", "time per output token, as assumed", kSetupAtLength},
    FunctionSpec{"tps", "tokens per second, as assumed", kSetupAtLength},
    FunctionSpec{"prefill", "time of the whole batch's prompts", kSetupAtLength},
    FunctionSpec{"step", "mean decode step", kSetupAtLength},
    FunctionSpec{"comm_per_token", "communication and synchronisation within tpot", kSetupAtLength},
    FunctionSpec{"share", "of the devices' time over a generation", kShare},
    FunctionSpec{"memory", "bytes on the fullest device at the end of a generation", kMemory},
    FunctionSpec{"gpus", "devices that take part", kSetupAtLength},
    FunctionSpec{"pool", "of these, pool devices", kSetupAtLength},
    FunctionSpec{"rule_pool", "min(ceil(length / 1024), 32) above 4096, otherwise 0", kLength},
    FunctionSpec{"best_pool",
                 "pool devices of the setup with the most tokens per second and device",
                 kFourSetups},
    FunctionSpec{"peak_watts", "of all devices that take part, at their limit", kSetupAtLength},
    FunctionSpec{"mean_watts", "of all devices that take part, over a generation", kSetupAtLength},
    FunctionSpec{"tokens_per_joule", "tokens as tps counts them, by energy", kSetupAtLength},
    FunctionSpec{"parameters", "of the model or of a part", kPart},
};

template <std::size_t n>
bool contains(const std::array<std::string_view, n>& words, std::string_view word) {
  return std::ranges::find(words, word) != words.end();
}

class WordCheck {
 public:
  WordCheck(const std::set<std::string, std::less<>>& setups,
            const std::set<std::string, std::less<>>& names)
      : setups_(setups), names_(names) {}

  Status check(const Expression& expression) const {
    if (expression.kind == Expression::Kind::name) return check_name(expression.name);
    if (expression.kind == Expression::Kind::call && !is_arithmetic(expression))
      return check_call(expression);
    for (const Expression& operand : expression.operands) {
      if (auto status = check(operand); !status) return status;
    }
    return {};
  }

 private:
  static bool is_arithmetic(const Expression& call) {
    const std::size_t count = call.operands.size();
    return ((call.name == "min" || call.name == "max") && count >= 1) ||
           ((call.name == "ceil" || call.name == "floor") && count == 1);
  }

  Status check_name(const std::string& name) const {
    if (contains(kNames, name) || names_.contains(name)) return {};
    return invalid_input(fmt::format("found the name {}, allowed {}{}{}", name,
                                     fmt::join(names_, ", "), names_.empty() ? "" : ", ",
                                     fmt::join(kNames, ", ")));
  }

  Status check_call(const Expression& call) const {
    const auto* spec = std::ranges::find(kFunctions, call.name, &FunctionSpec::name);
    if (spec == kFunctions.end()) {
      std::vector<std::string_view> known;
      for (const FunctionSpec& one : kFunctions) known.push_back(one.name);
      return invalid_input(fmt::format(
          "found the function {} of {}, allowed {}, min and max of some, ceil and floor of one",
          call.name, call.operands.size(), fmt::join(known, ", ")));
    }
    if (call.operands.size() != spec->parameters.size()) {
      return invalid_input(fmt::format("found {} with {} arguments, allowed {}", call.name,
                                       call.operands.size(), spec->parameters.size()));
    }
    for (std::size_t i = 0; i < call.operands.size(); ++i) {
      if (auto status = check_argument(spec->parameters[i], call.operands[i]); !status)
        return status;
    }
    return {};
  }

  Status check_argument(ParameterKind kind, const Expression& argument) const {
    const auto word = [&](const auto& allowed, std::string_view what) -> Status {
      const bool found = argument.kind == Expression::Kind::name &&
                         std::ranges::find(allowed, argument.name) != allowed.end();
      if (found) return {};
      return invalid_input(fmt::format("found {}, allowed as {}: {}",
                                       argument.name.empty() ? "no name" : argument.name, what,
                                       fmt::join(allowed, ", ")));
    };
    switch (kind) {
      case setup:
        return word(setups_, "a setup");
      case group:
        return word(kDeviceSets, "devices");
      case time:
        return word(kTimeShares, "a share of time");
      case memory:
        return word(kMemoryParts, "a part of memory");
      case part:
        return word(kModelParts, "a part of the model");
      case number:
        return check(argument);
    }
    CHECK(false, "unknown kind");
  }

  const std::set<std::string, std::less<>>& setups_;
  const std::set<std::string, std::less<>>& names_;
};

}  // namespace

std::span<const FunctionSpec> function_specs() { return kFunctions; }

const FunctionSpec& spec_of(Function function) {
  return kFunctions.at(static_cast<std::size_t>(function));
}

Function function_of(std::string_view name) {
  const auto* found = std::ranges::find(kFunctions, name, &FunctionSpec::name);
  CHECK(found != kFunctions.end(), "the function's name has been checked");
  return static_cast<Function>(found - kFunctions.begin());
}

Status check_words(const Expression& expression, const std::set<std::string, std::less<>>& setups,
                   const std::set<std::string, std::less<>>& names) {
  return WordCheck(setups, names).check(expression);
}

bool is_word(std::string_view name) {
  return contains(kDeviceSets, name) || contains(kTimeShares, name) ||
         contains(kMemoryParts, name) || contains(kModelParts, name);
}

bool is_free_name(std::string_view name) {
  const auto parsed = parse_expression(name);
  return parsed && parsed->kind == Expression::Kind::name && parsed->name == name &&
         !contains(kNames, name);
}

}  // namespace weir
