#include "text/added_tokens.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "text/bpe.h"
#include "text/unicode.h"

namespace weir {
namespace {

// A search may compare this many bytes at every place of a text.
constexpr std::size_t kMaxAddedTokenBytes = 256;

// The start of the last character before `at`, which is not 0.
std::size_t previous_character(std::string_view text, std::size_t at) {
  do {
    --at;
  } while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80);
  return at;
}

bool stands_alone(std::string_view text, TextSpan span) {
  const bool word_before =
      span.begin > 0 &&
      is_word_character(utf8_unit(text, previous_character(text, span.begin)).code_point);
  const bool word_after =
      span.end < text.size() && is_word_character(utf8_unit(text, span.end).code_point);
  return !word_before && !word_after;
}

// Where the white space that ends at `end` begins, but not before `from`.
std::size_t white_space_begin(std::string_view text, std::size_t from, std::size_t end) {
  while (end > from) {
    const std::size_t before = previous_character(text, end);
    if (!is_white_space(utf8_unit(text, before).code_point)) break;
    end = before;
  }
  return end;
}

std::size_t white_space_end(std::string_view text, std::size_t begin) {
  while (begin < text.size()) {
    const Utf8Unit unit = utf8_unit(text, begin);
    if (!is_white_space(unit.code_point)) break;
    begin += unit.length;
  }
  return begin;
}

AddedToken read_token(ObjectReader& entry) {
  AddedToken token{.id = entry.integer("id", {.min = 0, .max = kMaxTokenId}),
                   .content = entry.string("content"),
                   .special = entry.boolean("special"),
                   .single_word = entry.boolean("single_word"),
                   .lstrip = entry.boolean("lstrip"),
                   .rstrip = entry.boolean("rstrip"),
                   .normalized = entry.boolean("normalized")};
  entry.refuse_unknown_keys();
  if (token.content.size() > kMaxAddedTokenBytes) {
    entry.problem("content", fmt::format("found {} bytes, allowed at most {}", token.content.size(),
                                         kMaxAddedTokenBytes));
  }
  return token;
}

}  // namespace

std::vector<AddedToken> read_added_tokens(ObjectReader& document,
                                          std::vector<std::string>& problems) {
  std::vector<AddedToken> tokens;
  if (!document.has("added_tokens")) {
    document.ignore("added_tokens");
    return tokens;
  }
  std::unordered_map<std::string, std::size_t> index_of;
  for (ObjectReader& entry : document.objects("added_tokens")) {
    AddedToken token = read_token(entry);
    if (problems.size() >= kMaxListedProblems) break;
    if (token.content.empty()) continue;
    const auto [place, is_new] = index_of.emplace(token.content, tokens.size());
    if (is_new) {
      tokens.push_back(std::move(token));
    } else if (tokens[place->second] != token) {
      entry.problem("content", fmt::format("found {} a second time, with other properties",
                                           shown(token.content)));
    }
  }
  return tokens;
}

AddedTokenMatcher::AddedTokenMatcher(std::vector<Pattern> patterns)
    : patterns_(std::move(patterns)), nodes_(1) {
  for (std::uint32_t i = 0; i < patterns_.size(); ++i) insert(i);
}

void AddedTokenMatcher::insert(std::uint32_t pattern) {
  const std::string& text = patterns_[pattern].text;
  begins_[static_cast<unsigned char>(text.front())] = true;
  std::uint32_t node = 0;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    auto& children = nodes_[node].children;
    const auto place =
        std::ranges::lower_bound(children, byte, {}, [](const auto& child) { return child.first; });
    if (place != children.end() && place->first == byte) {
      node = place->second;
    } else {
      const auto next = static_cast<std::uint32_t>(nodes_.size());
      children.emplace(place, byte, next);
      nodes_.emplace_back();
      node = next;
    }
  }
  nodes_[node].pattern = pattern;
}

std::optional<AddedTokenMatcher::Found> AddedTokenMatcher::longest_at(std::string_view text,
                                                                      std::size_t at) const {
  std::optional<Found> found;
  const Node* node = nodes_.data();
  for (std::size_t i = at; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const auto child = std::ranges::lower_bound(node->children, byte, {},
                                                [](const auto& each) { return each.first; });
    if (child == node->children.end() || child->first != byte) break;
    node = &nodes_[child->second];
    if (node->pattern) found = Found{.pattern = *node->pattern, .length = i + 1 - at};
  }
  return found;
}

std::vector<AddedTokenMatcher::Segment> AddedTokenMatcher::split(std::string_view text) const {
  std::vector<Segment> segments;
  std::size_t covered = 0;
  TextSpan stripped;  // The white space last stripped on the right; not to be walked again.
  for (std::size_t at = 0; at < text.size();) {
    const std::optional<Found> found =
        begins_[static_cast<unsigned char>(text[at])] ? longest_at(text, at) : std::nullopt;
    if (!found) {
      ++at;
      continue;
    }
    TextSpan span{.begin = at, .end = at + found->length};
    at = span.end;
    const AddedToken& token = patterns_[found->pattern].token;
    if (token.single_word && !stands_alone(text, span)) continue;
    if (token.lstrip) span.begin = std::max(white_space_begin(text, covered, span.begin), covered);
    if (token.rstrip) {
      const bool known = stripped.begin <= span.end && span.end < stripped.end;
      if (!known) stripped = {.begin = span.end, .end = white_space_end(text, span.end)};
      span.end = stripped.end;
    }
    if (covered < span.begin) segments.push_back({.span = {covered, span.begin}, .id = {}});
    if (span.begin < span.end) segments.push_back({.span = span, .id = token.id});
    covered = span.end;
  }
  if (covered < text.size()) segments.push_back({.span = {covered, text.size()}, .id = {}});
  return segments;
}

}  // namespace weir
