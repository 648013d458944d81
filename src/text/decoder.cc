#include "text/decoder.h"

#include <algorithm>
#include <charconv>
#include <functional>
#include <optional>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "text/byte_alphabet.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"
#include "text/unicode.h"

namespace weir {
namespace {

using nlohmann::json;

// Steps could otherwise multiply a token's length without end.
constexpr std::size_t kMaxReplaceSteps = 4;
constexpr std::size_t kMaxReplacedBytes = 4;
constexpr std::int64_t kMaxStripCount = 1'000'000;

// Where a step leaves its tokens; they belong to the step and are gone when the call returns.
using Next = std::function<void(std::string_view)>;

std::string replaced(std::string_view token, std::string_view pattern, std::string_view content) {
  std::string result;
  for (std::size_t at = 0;;) {
    const std::size_t found = token.find(pattern, at);
    result += token.substr(at, found - at);
    if (found == std::string_view::npos) return result;
    result += content;
    at = found + pattern.size();
  }
}

// The byte that <0xHH> stands for. The reference reads the digits as Rust's from_str_radix does,
// so that <0x+A> is a byte too.
std::optional<char> byte_of(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || !token.ends_with(">")) return std::nullopt;
  std::string_view digits = token.substr(3, 2);
  if (digits.front() == '+') digits.remove_prefix(1);
  unsigned value = 0;
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
  if (error != std::errc{} || end != digits.data() + digits.size()) return std::nullopt;
  return static_cast<char>(static_cast<unsigned char>(value));
}

void end_run(Decoder::ByteFallback& step, const Next& next) {
  if (step.run.empty()) return;
  std::string run;
  run.swap(step.run);
  if (!find_invalid_utf8(run)) return next(run);
  for (std::size_t i = 0; i < run.size(); ++i) next(kReplacementCharacter);
}

void push(Decoder::Join& step, std::string_view token, const Next& next) {
  if (!step.is_first) next(" ");
  step.is_first = false;
  next(token);
}

void push(Decoder::Replace& step, std::string_view token, const Next& next) {
  next(replaced(token, step.pattern, step.content));
}

void push(Decoder::ByteFallback& step, std::string_view token, const Next& next) {
  if (const std::optional<char> byte = byte_of(token)) {
    step.run += *byte;
    return;
  }
  end_run(step, next);
  next(token);
}

void push(Decoder::Strip& step, std::string_view token, const Next& next) {
  if (!step.of_whole) step.stripped = 0;
  while (step.stripped < step.count && token.starts_with(step.character)) {
    token.remove_prefix(step.character.size());
    ++step.stripped;
  }
  if (!token.empty()) step.stripped = step.count;  // Something else begins the text.
  next(token);
}

void push(Decoder::Metaspace& step, std::string_view token, const Next& next) {
  const bool drop = step.is_first && step.drop_in_first;
  step.is_first = false;
  next(replaced(token, step.replacement, drop ? "" : " "));
}

void push(Decoder::ByteLevel& step, std::string_view token, const Next& next) {
  append_token_bytes(step.bytes, token);
  std::string text;
  drain_utf8(step.bytes, text);
  next(text);
}

void finish_step(Decoder::Join&, const Next&) {}
void finish_step(Decoder::Replace&, const Next&) {}
void finish_step(Decoder::ByteFallback& step, const Next& next) { end_run(step, next); }
void finish_step(Decoder::Strip&, const Next&) {}
void finish_step(Decoder::Metaspace&, const Next&) {}
void finish_step(Decoder::ByteLevel& step, const Next& next) {
  if (!step.bytes.empty()) next(kReplacementCharacter);
  step.bytes.clear();
}

Decoder::Replace read_replace(ObjectReader& step) {
  Decoder::Replace replace{.pattern = read_literal_pattern(step),
                           .content = step.string("content")};
  if (replace.content.size() > kMaxReplacedBytes) {
    step.problem("content", fmt::format("found {} bytes, allowed at most {}",
                                        replace.content.size(), kMaxReplacedBytes));
  }
  return replace;
}

Decoder::Strip read_strip(ObjectReader& step, bool of_whole) {
  Decoder::Strip strip{.character = step.string("content"), .of_whole = of_whole};
  strip.count = static_cast<std::size_t>(step.integer("start", {.min = 0, .max = kMaxStripCount}));
  static_cast<void>(step.integer("stop", {.min = 0, .max = 0}));
  const bool one_character =
      !strip.character.empty() && utf8_unit(strip.character, 0).length == strip.character.size();
  if (!one_character) {
    step.problem("content", fmt::format("found {}, allowed one character", shown(strip.character)));
    strip.character.assign(1, '?');
  }
  return strip;
}

// One step; nullopt for Fuse, which only says that what follows sees the whole text as one token.
std::optional<Decoder::Step> read_step(const NamedStep& named, bool fused,
                                       std::vector<std::string>& problems) {
  ObjectReader step(*named.value, named.path, problems);
  step.ignore("type");
  std::optional<Decoder::Step> result;
  if (named.type == "ByteLevel") {
    result = Decoder::ByteLevel{};
    // Settings of the pre-tokenizer of the same name.
    for (const char* const key : {"add_prefix_space", "trim_offsets", "use_regex"})
      step.ignore(key);
  } else if (named.type == "ByteFallback") {
    result = Decoder::ByteFallback{};
  } else if (named.type == "Metaspace") {
    PreTokenizer::Metaspace metaspace = read_metaspace(step);
    result = Decoder::Metaspace{
        .replacement = std::move(metaspace.replacement),
        .drop_in_first = metaspace.prepend != PreTokenizer::PrependScheme::never};
  } else if (named.type == "Replace") {
    result = read_replace(step);
  } else if (named.type == "Strip") {
    result = read_strip(step, fused);
  } else if (named.type != "Fuse") {
    step.problem("type", fmt::format("found {}, allowed one of: ByteLevel, ByteFallback, Fuse, "
                                     "Metaspace, Replace, Strip, Sequence",
                                     shown(named.type)));
    return std::nullopt;
  }
  step.refuse_unknown_keys();
  if (fused && named.type != "Strip" && named.type != "Fuse")
    step.problem("type", fmt::format("found {} after Fuse or ByteLevel, allowed only Strip",
                                     shown(named.type)));
  return result;
}

}  // namespace

Decoder Decoder::from_json(const json& value, const std::string& path,
                           std::vector<std::string>& problems) {
  Decoder decoder;
  if (value.is_null()) return decoder;
  decoder.steps_.clear();
  bool fused = false;
  for (const NamedStep& named : flatten_steps(value, path, "decoders", problems)) {
    if (auto step = read_step(named, fused, problems)) decoder.steps_.push_back(*std::move(step));
    fused = fused || named.type == "Fuse" || named.type == "ByteLevel";
  }
  const auto replaces = std::ranges::count_if(
      decoder.steps_, [](const Step& step) { return std::holds_alternative<Replace>(step); });
  if (static_cast<std::size_t>(replaces) > kMaxReplaceSteps) {
    problems.push_back(fmt::format("{}: found {} Replace steps, allowed at most {}", path, replaces,
                                   kMaxReplaceSteps));
  }
  return decoder;
}

void Decoder::push_from(std::size_t step, std::string_view token, std::string& text) {
  if (step == steps_.size()) {
    text += token;
    return;
  }
  const Next next = [&](std::string_view made) { push_from(step + 1, made, text); };
  std::visit([&](auto& each) { weir::push(each, token, next); }, steps_[step]);
}

void Decoder::finish(std::string& text) {
  for (std::size_t step = 0; step < steps_.size(); ++step) {
    const Next next = [&](std::string_view made) { push_from(step + 1, made, text); };
    std::visit([&](auto& each) { finish_step(each, next); }, steps_[step]);
  }
}

}  // namespace weir
