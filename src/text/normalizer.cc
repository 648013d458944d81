#include "text/normalizer.h"

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "text/unicode.h"

namespace weir {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxSteps = 32;
constexpr std::size_t kMaxNormalizedBytes = 256;  // Published: one to three.

void read_steps(const json& value, const std::string& path, std::string_view key,
                std::vector<std::string>& problems, std::vector<NamedStep>& steps) {
  if (value.is_null()) return;
  ObjectReader reader(value, path, problems);
  const std::string type = reader.string("type");
  if (type != "Sequence") {
    if (steps.size() < kMaxSteps) {
      steps.push_back({.path = path, .type = type, .value = &value});
    } else if (steps.size() == kMaxSteps) {
      problems.push_back(fmt::format("{}: found more than {} steps", path, kMaxSteps));
    }
    return;
  }
  const json& members = reader.raw(key);
  reader.refuse_unknown_keys();
  if (!members.is_array()) {
    reader.problem(key, fmt::format("found {}, allowed an array of objects", shown(members)));
    return;
  }
  for (std::size_t i = 0; i < members.size(); ++i) {
    read_steps(members[i], fmt::format("{}.{}[{}]", path, key, i), key, problems, steps);
  }
}

std::string bounded_string(ObjectReader& step, std::string_view key) {
  std::string text = step.string(key);
  if (text.size() > kMaxNormalizedBytes) {
    step.problem(
        key, fmt::format("found {} bytes, allowed at most {}", text.size(), kMaxNormalizedBytes));
  }
  return text;
}

Normalizer::Step read_normalizer_step(const NamedStep& named, std::vector<std::string>& problems) {
  ObjectReader step(*named.value, named.path, problems);
  step.ignore("type");
  Normalizer::Step result = Normalizer::Nfc{};
  if (named.type == "Prepend") {
    result = Normalizer::Prepend{.prefix = bounded_string(step, "prepend")};
  } else if (named.type == "Replace") {
    result = Normalizer::Replace{.pattern = read_literal_pattern(step),
                                 .content = bounded_string(step, "content")};
  } else if (named.type != "NFC") {
    step.problem("type", fmt::format("found {}, allowed one of: NFC, Prepend, Replace, Sequence",
                                     shown(named.type)));
    return result;
  }
  step.refuse_unknown_keys();
  return result;
}

Result<std::string> normalised(const Normalizer::Nfc&, const std::string& text) {
  return to_nfc(text);
}

Result<std::string> normalised(const Normalizer::Prepend& step, std::string text) {
  if (!text.empty()) text.insert(0, step.prefix);
  return text;
}

Result<std::string> normalised(const Normalizer::Replace& step, const std::string& text) {
  return replace_all(text, step.pattern, step.content);
}

}  // namespace

std::vector<NamedStep> flatten_steps(const json& value, const std::string& path,
                                     std::string_view key, std::vector<std::string>& problems) {
  std::vector<NamedStep> steps;
  read_steps(value, path, key, problems, steps);
  return steps;
}

std::string read_literal_pattern(ObjectReader& step) {
  const json& pattern = step.raw("pattern");
  const bool is_literal = pattern.is_object() && pattern.size() == 1 &&
                          pattern.contains("String") && pattern["String"].is_string() &&
                          !pattern["String"].get_ref<const std::string&>().empty();
  if (is_literal) return pattern["String"].get<std::string>();
  step.problem("pattern",
               fmt::format("found {}, allowed {{\"String\": a text that is not empty}}",
                           pattern.is_object() ? pattern.dump().substr(0, 60) : shown(pattern)));
  return "?";
}

Result<std::string> replace_all(std::string_view text, std::string_view pattern,
                                std::string_view content) {
  std::string result;
  result.reserve(text.size());
  for (std::size_t at = 0;;) {
    const std::size_t found = text.find(pattern, at);
    result += text.substr(at, found - at);
    if (result.size() > kMaxStageBytes) {
      return invalid_input(fmt::format(
          "found a text that normalization makes longer than {} bytes, which is the most allowed",
          kMaxStageBytes));
    }
    if (found == std::string_view::npos) return result;
    result += content;
    at = found + pattern.size();
  }
}

Normalizer Normalizer::from_json(const json& value, const std::string& path,
                                 std::vector<std::string>& problems) {
  Normalizer normalizer;
  for (const NamedStep& step : flatten_steps(value, path, "normalizers", problems)) {
    normalizer.steps_.push_back(read_normalizer_step(step, problems));
  }
  return normalizer;
}

Result<std::string> Normalizer::normalize(std::string_view text) const {
  Result<std::string> result = std::string(text);
  for (const Step& step : steps_) {
    result =
        std::visit([&](const auto& each) { return normalised(each, *std::move(result)); }, step);
    if (!result) return result;
  }
  return result;
}

bool Normalizer::keeps_beginning() const {
  return std::ranges::all_of(steps_, [](const Step& s) { return std::holds_alternative<Nfc>(s); });
}

}  // namespace weir
