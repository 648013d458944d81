#include "text/bpe.h"

#include <algorithm>
#include <bit>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "text/unicode.h"

namespace weir {
namespace {

using nlohmann::json;

// Only words shorter than this are remembered, and only so many: text repeats short words.
constexpr std::size_t kLongestKnownWord = 64;
constexpr std::size_t kMaxKnownWords = 1U << 16U;

std::uint64_t pair_of(std::uint32_t left, std::uint32_t right) {
  return (std::uint64_t{left} << 32U) | right;
}

// The two parts of "left right"; nullopt unless there is exactly one space.
std::optional<std::pair<std::string_view, std::string_view>> split_merge(std::string_view line) {
  const std::size_t space = line.find(' ');
  if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos)
    return std::nullopt;
  return std::pair{line.substr(0, space), line.substr(space + 1)};
}

std::optional<std::pair<std::string_view, std::string_view>> read_merge(const json& value) {
  if (value.is_string()) return split_merge(value.get_ref<const std::string&>());
  if (!value.is_array() || value.size() != 2 || !value[0].is_string() || !value[1].is_string())
    return std::nullopt;
  return std::pair<std::string_view, std::string_view>{value[0].get_ref<const std::string&>(),
                                                       value[1].get_ref<const std::string&>()};
}

void refuse_affix(ObjectReader& model, std::string_view key) {
  const std::optional<std::string> affix = model.optional_string(key);
  if (affix && !affix->empty())
    model.problem(key, fmt::format("found {}, allowed null", shown(*affix)));
}

}  // namespace

void MergeTable::reserve(std::size_t count) {
  const std::size_t size = std::bit_ceil(std::max<std::size_t>(2 * count, 16));
  slots_.assign(size, {});
  shift_ = 64U - static_cast<unsigned>(std::countr_zero(size));
}

std::size_t MergeTable::slot_of(std::uint64_t pair) const {
  // Fibonacci hashing; then the next slots in turn.
  std::size_t slot = (pair * 0x9E3779B97F4A7C15U) >> shift_;
  while (slots_[slot].pair != kEmpty && slots_[slot].pair != pair) {
    slot = (slot + 1) & (slots_.size() - 1);
  }
  return slot;
}

void MergeTable::set(std::uint32_t left, std::uint32_t right, Merge merge) {
  const std::uint64_t pair = pair_of(left, right);
  slots_[slot_of(pair)] = {.pair = pair, .merge = merge};
}

std::optional<MergeTable::Merge> MergeTable::find(std::uint32_t left, std::uint32_t right) const {
  if (slots_.empty()) return std::nullopt;
  const Slot& slot = slots_[slot_of(pair_of(left, right))];
  if (slot.pair == kEmpty) return std::nullopt;
  return slot.merge;
}

Bpe Bpe::from_json(const json& value, std::vector<std::string>& problems) {
  Bpe bpe;
  ObjectReader model(value, "model", problems);
  constexpr std::array<std::string_view, 1> kTypes{"BPE"};
  static_cast<void>(model.choice("type", kTypes));
  if (model.optional_number("dropout", {}).value_or(0.0) != 0.0)
    model.problem("dropout", "found a number, allowed null or 0");
  refuse_affix(model, "continuing_subword_prefix");
  refuse_affix(model, "end_of_word_suffix");
  bpe.fuse_unknown_ = model.optional_boolean("fuse_unk").value_or(false);
  bpe.byte_fallback_ = model.optional_boolean("byte_fallback").value_or(false);
  bpe.ignore_merges_ = model.optional_boolean("ignore_merges").value_or(false);
  const std::size_t before = problems.size();
  bpe.read_vocab(model, problems);
  if (problems.size() == before) {
    bpe.read_merges(model, problems);
    bpe.read_unknown_token(model);
  } else {  // They would be misread for the vocabulary's fault.
    model.ignore("merges");
    model.ignore("unk_token");
  }
  bpe.index_characters();
  model.refuse_unknown_keys();
  return bpe;
}

void Bpe::read_vocab(ObjectReader& model, std::vector<std::string>& problems) {
  const json& vocab = model.raw("vocab");
  if (!vocab.is_object()) {
    model.problem("vocab", fmt::format("found {}, allowed an object", shown(vocab)));
    return;
  }
  ids_.reserve(vocab.size());
  tokens_.reserve(vocab.size());
  for (const auto& [token, value] : vocab.items()) {
    if (problems.size() >= kMaxListedProblems) return;
    if (!value.is_number_integer() || value < 0 || value > kMaxTokenId) {
      problems.push_back(fmt::format("model.vocab[{}]: found {}, allowed an integer in 0..{}",
                                     shown(token), shown(value), kMaxTokenId));
      continue;
    }
    const auto id = value.get<std::uint32_t>();
    const auto [place, is_new] = tokens_.emplace(id, token);
    if (!is_new) {
      problems.push_back(fmt::format("model.vocab[{}]: found the id {} of {}, allowed a new one",
                                     shown(token), id, shown(place->second)));
    }
    ids_.emplace(token, id);
  }
}

void Bpe::read_merges(ObjectReader& model, std::vector<std::string>& problems) {
  const json& merges = model.raw("merges");
  if (!merges.is_array()) {
    model.problem("merges", fmt::format("found {}, allowed an array of \"a b\" or [\"a\", \"b\"]",
                                        merges.is_null() ? "nothing" : shown(merges)));
    return;
  }
  merges_.reserve(merges.size());
  for (std::size_t i = 0; i < merges.size(); ++i) {
    if (problems.size() >= kMaxListedProblems) return;
    // The first line of a merges.txt, where a converter has left it.
    const bool is_header =
        merges[i].is_string() && merges[i].get_ref<const std::string&>().starts_with("#version");
    if (is_header) continue;
    const std::string path = fmt::format("model.merges[{}]", i);
    if (const auto parts = read_merge(merges[i])) {
      add_merge(*parts, static_cast<std::uint32_t>(i), path, problems);
    } else {
      problems.push_back(
          fmt::format("{}: found {}, allowed \"a b\" or [\"a\", \"b\"]", path, shown(merges[i])));
    }
  }
}

void Bpe::add_merge(std::pair<std::string_view, std::string_view> parts, std::uint32_t rank,
                    const std::string& path, std::vector<std::string>& problems) {
  const std::string merged = std::string(parts.first) + std::string(parts.second);
  std::array<std::uint32_t, 3> ids{};
  const std::array<std::string_view, 3> names{parts.first, parts.second, merged};
  for (std::size_t i = 0; i < names.size(); ++i) {
    const auto found = ids_.find(names[i]);
    if (found == ids_.end()) {
      problems.push_back(fmt::format("{}: found the token {}, allowed tokens of the vocabulary",
                                     path, shown(names[i])));
      return;
    }
    ids[i] = found->second;
  }
  merges_.set(ids[0], ids[1], {.rank = rank, .merged = ids[2]});
}

void Bpe::read_unknown_token(ObjectReader& model) {
  const std::optional<std::string> token = model.optional_string("unk_token");
  if (!token) return;
  const auto found = ids_.find(*token);
  if (found != ids_.end()) {
    unknown_id_ = found->second;
  } else {
    model.problem("unk_token",
                  fmt::format("found {}, allowed a token of the vocabulary", shown(*token)));
  }
}

void Bpe::index_characters() {
  for (std::size_t c = 0; c < kDirectCharacters; ++c) {
    std::string character;
    append_utf8(character, static_cast<char32_t>(c));
    if (const auto found = ids_.find(character); found != ids_.end())
      character_ids_[c] = found->second;
  }
  for (std::size_t byte = 0; byte < byte_ids_.size(); ++byte) {
    if (const auto found = ids_.find(fmt::format("<0x{:02X}>", byte)); found != ids_.end())
      byte_ids_[byte] = found->second;
  }
}

std::optional<std::int64_t> Bpe::token_to_id(std::string_view token) const {
  const auto found = ids_.find(token);
  if (found == ids_.end()) return std::nullopt;
  return found->second;
}

const std::string* Bpe::id_to_token(std::int64_t id) const {
  if (id < 0 || id > kMaxTokenId) return nullptr;
  const auto found = tokens_.find(static_cast<std::uint32_t>(id));
  return found == tokens_.end() ? nullptr : &found->second;
}

std::int64_t Bpe::largest_id() const {
  std::int64_t largest = -1;
  for (const auto& [id, unused] : tokens_) largest = std::max(largest, std::int64_t{id});
  return largest;
}

void Bpe::encode(std::string_view word, BpeWorkspace& workspace,
                 std::vector<std::int64_t>& ids) const {
  if (ignore_merges_) {
    if (const auto found = ids_.find(word); found != ids_.end()) {
      ids.push_back(found->second);
      return;
    }
  }
  auto& known_ids = workspace.known_ids;
  auto& known_words = workspace.known_words;
  if (word.size() <= kLongestKnownWord) {
    if (const auto known = known_words.find(word); known != known_words.end()) {
      const auto [begin, end] = known->second;
      ids.insert(ids.end(), known_ids.data() + begin, known_ids.data() + end);
      return;
    }
  }
  cut_into_symbols(word, workspace);
  merge_symbols(workspace);
  const std::size_t before = ids.size();
  for (const auto& symbol : workspace.symbols) {
    if (!symbol.merged_away) ids.push_back(symbol.id);
  }
  if (word.size() <= kLongestKnownWord && known_words.size() < kMaxKnownWords) {
    const std::size_t begin = known_ids.size();
    known_ids.insert(known_ids.end(), ids.data() + before, ids.data() + ids.size());
    known_words.emplace(word, std::pair{begin, known_ids.size()});
  }
}

std::optional<std::uint32_t> Bpe::character_id(std::string_view character,
                                               char32_t code_point) const {
  if (code_point < kDirectCharacters) return character_ids_[code_point];
  const auto found = ids_.find(character);
  if (found == ids_.end()) return std::nullopt;
  return found->second;
}

bool Bpe::append_byte_symbols(std::string_view character, BpeWorkspace& workspace) const {
  const auto id_of = [&](char c) { return byte_ids_[static_cast<unsigned char>(c)]; };
  if (!std::ranges::all_of(character, [&](char c) { return id_of(c).has_value(); })) return false;
  for (const char c : character) workspace.symbols.push_back({.id = *id_of(c)});
  return true;
}

void Bpe::cut_into_symbols(std::string_view word, BpeWorkspace& workspace) const {
  auto& symbols = workspace.symbols;
  symbols.clear();
  // An unknown token waits for its end, where unknown characters fuse. Byte tokens do not end it:
  // they come before it, as in the reference.
  bool unknown_waits = false;
  const auto end_unknown = [&] {
    if (unknown_waits) symbols.push_back({.id = *unknown_id_});
    unknown_waits = false;
  };
  for (std::size_t at = 0; at < word.size();) {
    const Utf8Unit unit = utf8_unit(word, at);
    const std::string_view character = word.substr(at, unit.length);
    at += unit.length;
    if (const auto id = character_id(character, unit.code_point)) {
      end_unknown();
      symbols.push_back({.id = *id});
    } else if (byte_fallback_ && append_byte_symbols(character, workspace)) {
      continue;
    } else if (unknown_id_) {
      if (!fuse_unknown_) end_unknown();
      unknown_waits = true;
    }
  }
  end_unknown();
  const auto count = static_cast<std::int32_t>(symbols.size());
  for (std::int32_t i = 0; i < count; ++i) {
    symbols[i].previous = i - 1;
    symbols[i].next = i + 1 < count ? i + 1 : BpeWorkspace::Symbol::kNone;
  }
}

void Bpe::merge_symbols(BpeWorkspace& workspace) const {
  using Pending = BpeWorkspace::Pending;
  using Symbol = BpeWorkspace::Symbol;
  const auto later = [](const Pending& a, const Pending& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
  };
  auto& symbols = workspace.symbols;
  auto& heap = workspace.heap;
  heap.clear();
  const auto count = static_cast<std::int32_t>(symbols.size());
  for (std::int32_t i = 0; i + 1 < count; ++i) push_merge(i, workspace);
  std::ranges::make_heap(heap, later);
  const auto push = [&](std::int32_t left) {
    const std::size_t before = heap.size();
    push_merge(left, workspace);
    if (heap.size() > before) std::ranges::push_heap(heap, later);
  };
  while (!heap.empty()) {
    std::ranges::pop_heap(heap, later);
    const Pending top = heap.back();
    heap.pop_back();
    Symbol& left = symbols[top.position];
    if (left.merged_away || left.next == Symbol::kNone) continue;
    Symbol& right = symbols[left.next];
    // The pair may have changed since it was pushed.
    const auto merge = merges_.find(left.id, right.id);
    if (!merge || merge->merged != top.merged) continue;
    left.id = top.merged;
    right.merged_away = true;
    left.next = right.next;
    const auto position = static_cast<std::int32_t>(top.position);
    if (right.next != Symbol::kNone) symbols[right.next].previous = position;
    if (left.previous != Symbol::kNone) push(left.previous);
    if (left.next != Symbol::kNone) push(position);
  }
}

void Bpe::push_merge(std::int32_t left, BpeWorkspace& workspace) const {
  const auto& symbols = workspace.symbols;
  const auto merge = merges_.find(symbols[left].id, symbols[symbols[left].next].id);
  if (!merge) return;
  workspace.heap.push_back(
      {.rank = merge->rank, .position = static_cast<std::uint32_t>(left), .merged = merge->merged});
}

}  // namespace weir
