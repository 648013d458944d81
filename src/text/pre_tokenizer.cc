#include "text/pre_tokenizer.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include <fmt/format.h>
#include <unicode/uchar.h>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "text/byte_alphabet.h"
#include "text/normalizer.h"
#include "text/unicode.h"

namespace weir {
namespace {

using nlohmann::json;

// What ByteLevel splits by, when it does: the pattern published with GPT-2 (encoder.py).
constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

struct Cut {
  TextSpan span;
  bool is_match = false;
};

// Everything that the cuts have in common, so that the steps below are about one piece each.
struct Workshop {
  RegexScratch& scratch;
  std::vector<TextSpan> matches;
  std::vector<Cut> cuts;
};

void find_literal(std::string_view text, std::string_view pattern, std::vector<TextSpan>& matches) {
  for (std::size_t at = text.find(pattern); at != std::string_view::npos;
       at = text.find(pattern, at + pattern.size())) {
    matches.push_back({.begin = at, .end = at + pattern.size()});
  }
}

// Runs of numeric characters, or each of them.
void find_digits(std::string_view text, bool individual, std::vector<TextSpan>& matches) {
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Unit unit = utf8_unit(text, at);
    const TextSpan span{.begin = at, .end = at + unit.length};
    at = span.end;
    if ((U_GET_GC_MASK(static_cast<UChar32>(unit.code_point)) & U_GC_N_MASK) == 0) continue;
    if (!individual && !matches.empty() && matches.back().end == span.begin) {
      matches.back().end = span.end;
    } else {
      matches.push_back(span);
    }
  }
}

// The matches and what lies between them, in order, within a text of `size` bytes.
void make_cuts(std::size_t size, bool invert, Workshop& workshop) {
  auto& cuts = workshop.cuts;
  cuts.clear();
  std::size_t at = 0;
  for (const TextSpan& match : workshop.matches) {
    if (at < match.begin) cuts.push_back({.span = {at, match.begin}, .is_match = invert});
    cuts.push_back({.span = match, .is_match = !invert});
    at = match.end;
  }
  if (at < size) cuts.push_back({.span = {at, size}, .is_match = invert});
}

// Joins each match to the piece before it, unless that is a match itself.
void merge_with_previous(std::vector<Cut>& cuts) {
  std::vector<Cut> joined;
  bool previous_match = false;
  for (const Cut& cut : cuts) {
    if (cut.is_match && !previous_match && !joined.empty()) {
      joined.back().span.end = cut.span.end;
    } else {
      joined.push_back(cut);
    }
    previous_match = cut.is_match;
  }
  cuts = std::move(joined);
}

void merge_with_next(std::vector<Cut>& cuts) {
  std::vector<Cut> joined;
  bool previous_match = false;
  for (auto cut = cuts.rbegin(); cut != cuts.rend(); ++cut) {
    if (cut->is_match && !previous_match && !joined.empty()) {
      joined.back().span.begin = cut->span.begin;
    } else {
      joined.push_back(*cut);
    }
    previous_match = cut->is_match;
  }
  std::ranges::reverse(joined);
  cuts = std::move(joined);
}

void merge_alike(std::vector<Cut>& cuts) {
  std::vector<Cut> joined;
  for (const Cut& cut : cuts) {
    if (!joined.empty() && joined.back().is_match == cut.is_match) {
      joined.back().span.end = cut.span.end;
    } else {
      joined.push_back(cut);
    }
  }
  cuts = std::move(joined);
}

void apply_behavior(SplitBehavior behavior, std::vector<Cut>& cuts) {
  switch (behavior) {
    case SplitBehavior::isolated:
      return;
    case SplitBehavior::removed:
      std::erase_if(cuts, [](const Cut& cut) { return cut.is_match; });
      return;
    case SplitBehavior::merged_with_previous:
      return merge_with_previous(cuts);
    case SplitBehavior::merged_with_next:
      return merge_with_next(cuts);
    case SplitBehavior::contiguous:
      return merge_alike(cuts);
  }
}

void append_spans(const std::vector<Cut>& cuts, std::size_t origin, std::vector<TextSpan>& spans) {
  for (const Cut& cut : cuts) {
    spans.push_back({.begin = origin + cut.span.begin, .end = origin + cut.span.end});
  }
}

std::string_view text_of(const Pieces& pieces, TextSpan span) {
  const std::string_view all = pieces.text;
  return all.substr(span.begin, span.end - span.begin);
}

Result<Pieces> apply(const PreTokenizer::Split& step, Pieces pieces, bool, Workshop& workshop) {
  std::vector<TextSpan> spans;
  for (const TextSpan& span : pieces.spans) {
    workshop.matches.clear();
    const std::string_view text = text_of(pieces, span);
    if (const auto* const literal = std::get_if<std::string>(&step.pattern)) {
      find_literal(text, *literal, workshop.matches);
    } else {
      const Status found =
          std::get<Regex>(step.pattern).find_all(text, workshop.scratch, workshop.matches);
      if (!found) return tl::unexpected(found.error());
    }
    make_cuts(text.size(), step.invert, workshop);
    apply_behavior(step.behavior, workshop.cuts);
    append_spans(workshop.cuts, span.begin, spans);
  }
  pieces.spans = std::move(spans);
  return pieces;
}

Result<Pieces> apply(const PreTokenizer::Digits& step, Pieces pieces, bool, Workshop& workshop) {
  std::vector<TextSpan> spans;
  for (const TextSpan& span : pieces.spans) {
    workshop.matches.clear();
    const std::string_view text = text_of(pieces, span);
    find_digits(text, step.individual, workshop.matches);
    make_cuts(text.size(), false, workshop);
    append_spans(workshop.cuts, span.begin, spans);
  }
  pieces.spans = std::move(spans);
  return pieces;
}

Result<Pieces> apply(const PreTokenizer::ByteLevel& step, const Pieces& pieces, bool,
                     Workshop& workshop) {
  Pieces result;
  result.text.reserve(pieces.text.size() * 2);
  std::string spaced;
  for (const TextSpan& span : pieces.spans) {
    std::string_view text = text_of(pieces, span);
    if (step.add_prefix_space && !text.starts_with(' ')) {
      spaced.assign(1, ' ');
      spaced += text;
      text = spaced;
    }
    workshop.matches.clear();
    if (step.regex) {
      const Status found = step.regex->find_all(text, workshop.scratch, workshop.matches);
      if (!found) return tl::unexpected(found.error());
    }
    make_cuts(text.size(), false, workshop);
    for (const Cut& cut : workshop.cuts) {
      const std::size_t begin = result.text.size();
      append_byte_characters(result.text,
                             text.substr(cut.span.begin, cut.span.end - cut.span.begin));
      result.spans.push_back({.begin = begin, .end = result.text.size()});
    }
  }
  return result;
}

bool wants_prefix(const PreTokenizer::Metaspace& step, bool at_beginning) {
  switch (step.prepend) {
    case PreTokenizer::PrependScheme::first:
      return at_beginning;
    case PreTokenizer::PrependScheme::never:
      return false;
    case PreTokenizer::PrependScheme::always:
      return true;
  }
  return false;
}

Result<Pieces> apply(const PreTokenizer::Metaspace& step, const Pieces& pieces, bool at_beginning,
                     Workshop& workshop) {
  Pieces result;
  for (const TextSpan& span : pieces.spans) {
    Result<std::string> text = replace_all(text_of(pieces, span), " ", step.replacement);
    if (!text) return tl::unexpected(text.error());
    if (wants_prefix(step, at_beginning) && !text->starts_with(step.replacement))
      text->insert(0, step.replacement);
    workshop.matches.clear();
    if (step.split) find_literal(*text, step.replacement, workshop.matches);
    make_cuts(text->size(), false, workshop);
    apply_behavior(SplitBehavior::merged_with_next, workshop.cuts);
    append_spans(workshop.cuts, result.text.size(), result.spans);
    result.text += *text;
    at_beginning = false;
  }
  return result;
}

std::variant<std::string, Regex> read_pattern(ObjectReader& step) {
  const json& pattern = step.raw("pattern");
  const bool is_regex = pattern.is_object() && pattern.size() == 1 && pattern.contains("Regex") &&
                        pattern["Regex"].is_string();
  if (!is_regex) return read_literal_pattern(step);
  Result<Regex> regex = Regex::compile(pattern["Regex"].get_ref<const std::string&>());
  if (regex) return *std::move(regex);
  step.problem("pattern.Regex", regex.error().message);
  return std::string("?");
}

PreTokenizer::Split read_split(ObjectReader& step) {
  constexpr std::array<std::string_view, 5> kBehaviors{"Isolated", "Removed", "MergedWithPrevious",
                                                       "MergedWithNext", "Contiguous"};
  PreTokenizer::Split split{.pattern = read_pattern(step)};
  split.behavior = static_cast<SplitBehavior>(step.choice("behavior", kBehaviors));
  split.invert = step.boolean("invert");
  return split;
}

PreTokenizer::ByteLevel read_byte_level(ObjectReader& step) {
  PreTokenizer::ByteLevel byte_level;
  byte_level.add_prefix_space = step.boolean("add_prefix_space");
  step.ignore("trim_offsets");  // Weir reports no offsets.
  if (step.optional_boolean("use_regex").value_or(true)) {
    Result<Regex> regex = Regex::compile(kGpt2Pattern);
    CHECK(regex.has_value(), "the pattern of GPT-2 compiles");
    byte_level.regex = *std::move(regex);
  }
  return byte_level;
}

PreTokenizer::Step read_pre_tokenizer_step(const NamedStep& named,
                                           std::vector<std::string>& problems) {
  ObjectReader step(*named.value, named.path, problems);
  step.ignore("type");
  PreTokenizer::Step result = PreTokenizer::Digits{};
  if (named.type == "Split") {
    result = read_split(step);
  } else if (named.type == "Digits") {
    result = PreTokenizer::Digits{.individual = step.boolean("individual_digits")};
  } else if (named.type == "ByteLevel") {
    result = read_byte_level(step);
  } else if (named.type == "Metaspace") {
    result = read_metaspace(step);
  } else {
    step.problem("type",
                 fmt::format("found {}, allowed one of: Split, Digits, ByteLevel, Metaspace, "
                             "Sequence",
                             shown(named.type)));
    return result;
  }
  step.refuse_unknown_keys();
  return result;
}

// ByteLevel and Metaspace rewrite the text, each into an alphabet of its own; each can double it.
void refuse_combinations(const std::vector<PreTokenizer::Step>& steps, const std::string& path,
                         std::vector<std::string>& problems) {
  const auto rewrites = [](const PreTokenizer::Step& step) {
    return std::holds_alternative<PreTokenizer::ByteLevel>(step) ||
           std::holds_alternative<PreTokenizer::Metaspace>(step);
  };
  if (std::ranges::count_if(steps, rewrites) > 1) {
    problems.push_back(
        fmt::format("{}: found ByteLevel or Metaspace more than once, allowed at most once", path));
  }
  for (std::size_t i = 1; i < steps.size(); ++i) {
    const auto* const metaspace = std::get_if<PreTokenizer::Metaspace>(&steps[i]);
    if (metaspace != nullptr && metaspace->prepend == PreTokenizer::PrependScheme::first) {
      problems.push_back(fmt::format(
          "{}: found a Metaspace with prepend_scheme first after another step, allowed only as "
          "the first step",
          path));
    }
  }
}

}  // namespace

PreTokenizer::Metaspace read_metaspace(ObjectReader& step) {
  constexpr std::array<std::string_view, 3> kSchemes{"first", "never", "always"};
  using enum PreTokenizer::PrependScheme;
  PreTokenizer::Metaspace metaspace{.replacement = step.string("replacement")};
  const std::string& replacement = metaspace.replacement;
  const bool one_character =
      !replacement.empty() && utf8_unit(replacement, 0).length == replacement.size();
  if (!one_character) {
    step.problem("replacement", fmt::format("found {}, allowed one character", shown(replacement)));
    metaspace.replacement.assign(1, '?');
  }
  // Before there were schemes, there was add_prefix_space.
  const bool add_prefix_space = step.optional_boolean("add_prefix_space").value_or(true);
  if (step.has("prepend_scheme")) {
    metaspace.prepend =
        static_cast<PreTokenizer::PrependScheme>(step.choice("prepend_scheme", kSchemes));
  }
  if (!add_prefix_space && metaspace.prepend != never) {
    step.problem("add_prefix_space", "found false, allowed true unless prepend_scheme is never");
  }
  metaspace.split = step.optional_boolean("split").value_or(true);
  step.ignore("str_rep");  // The replacement again.
  return metaspace;
}

PreTokenizer PreTokenizer::from_json(const json& value, const std::string& path,
                                     std::vector<std::string>& problems) {
  PreTokenizer pre_tokenizer;
  for (const NamedStep& step : flatten_steps(value, path, "pretokenizers", problems)) {
    pre_tokenizer.steps_.push_back(read_pre_tokenizer_step(step, problems));
  }
  refuse_combinations(pre_tokenizer.steps_, path, problems);
  return pre_tokenizer;
}

Result<Pieces> PreTokenizer::cut(std::string_view text, bool at_beginning,
                                 RegexScratch& scratch) const {
  Workshop workshop{.scratch = scratch, .matches = {}, .cuts = {}};
  Pieces start{.text = std::string(text), .spans = {}};
  if (!text.empty()) start.spans.push_back({.begin = 0, .end = text.size()});
  Result<Pieces> pieces = std::move(start);
  for (const Step& step : steps_) {
    pieces = std::visit(
        [&](const auto& each) { return apply(each, *std::move(pieces), at_beginning, workshop); },
        step);
    if (!pieces) return pieces;
  }
  return pieces;
}

bool PreTokenizer::looks_at_beginning() const {
  return std::ranges::any_of(steps_, [](const Step& step) {
    const auto* const metaspace = std::get_if<Metaspace>(&step);
    return metaspace != nullptr && metaspace->prepend == PrependScheme::first;
  });
}

}  // namespace weir
