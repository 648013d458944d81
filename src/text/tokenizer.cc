#include "text/tokenizer.h"

#include <algorithm>
#include <set>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "text/unicode.h"

namespace weir {
namespace {

using nlohmann::json;

void refuse_unless_null(ObjectReader& document, std::string_view key) {
  const json& value = document.raw(key);
  if (!value.is_null()) document.problem(key, fmt::format("found {}, allowed null", shown(value)));
}

}  // namespace

Result<Tokenizer> Tokenizer::from_json(std::string_view text, std::string_view source) {
  const Result<json> document = parse_json(text, source);
  if (!document) return tl::unexpected(document.error());
  std::vector<std::string> problems;
  Tokenizer tokenizer = read(*document, problems);
  if (!problems.empty())
    return invalid_input(fmt::format("{}: {}", source, join_problems(problems)));
  return tokenizer;
}

Result<Tokenizer> Tokenizer::load(const std::string& folder) {
  const std::string path = folder + "/tokenizer.json";
  return read_text_file(path).and_then(
      [&](const std::string& text) { return from_json(text, path); });
}

Tokenizer Tokenizer::read(const json& value, std::vector<std::string>& problems) {
  Tokenizer tokenizer;
  ObjectReader document(value, "", problems);
  if (document.optional_string("version").value_or("1.0") != "1.0")
    document.problem("version", "found another version, allowed \"1.0\"");
  refuse_unless_null(document, "truncation");
  refuse_unless_null(document, "padding");
  tokenizer.normalizer_ = Normalizer::from_json(document.raw("normalizer"), "normalizer", problems);
  tokenizer.pre_tokenizer_ =
      PreTokenizer::from_json(document.raw("pre_tokenizer"), "pre_tokenizer", problems);
  tokenizer.model_ = Bpe::from_json(document.raw("model"), problems);
  tokenizer.post_processor_ =
      PostProcessor::from_json(document.raw("post_processor"), "post_processor", problems);
  tokenizer.decoder_ = Decoder::from_json(document.raw("decoder"), "decoder", problems);
  tokenizer.added_tokens_ = read_added_tokens(document, problems);
  document.refuse_unknown_keys();
  if (tokenizer.pre_tokenizer_.looks_at_beginning() && !tokenizer.normalizer_.keeps_beginning()) {
    document.problem(
        "pre_tokenizer",
        "found Metaspace with prepend_scheme first, allowed with no normalizer or NFC");
  }
  if (problems.empty()) tokenizer.index_added_tokens(problems);
  if (problems.empty()) tokenizer.check_ids(problems);
  return tokenizer;
}

void Tokenizer::index_added_tokens(std::vector<std::string>& problems) {
  std::vector<AddedTokenMatcher::Pattern> before;
  std::vector<AddedTokenMatcher::Pattern> after;
  std::set<std::pair<bool, std::string>> patterns;
  std::set<std::string> special_contents;
  for (const AddedToken& token : added_tokens_) {
    if (token.special) special_contents.insert(token.content);
  }
  // The library numbers new tokens itself, upwards from the number of tokens that the model has.
  auto next_id = static_cast<std::int64_t>(model_.num_tokens());
  std::int64_t largest_id = model_.largest_id();
  for (std::size_t i = 0; i < added_tokens_.size() && problems.size() < kMaxListedProblems; ++i) {
    const AddedToken& token = added_tokens_[i];
    const std::string path = fmt::format("added_tokens[{}] {}", i, shown(token.content));
    const std::optional<std::int64_t> model_id = model_.token_to_id(token.content);
    const std::int64_t id = model_id ? *model_id : next_id++;
    if (token.id != id) {
      problems.push_back(fmt::format("{}: found the id {}, allowed {} ({})", path, token.id, id,
                                     model_id ? "its id in model.vocab" : "the next new one"));
    } else if (!model_id && model_.id_to_token(id) != nullptr) {
      problems.push_back(fmt::format("{}: found the id {}, which model.vocab gives to {}", path, id,
                                     shown(*model_.id_to_token(id))));
    }
    Result<std::string> text =
        token.normalized ? normalizer_.normalize(token.content) : token.content;
    if (!text || text->empty() || !patterns.emplace(token.normalized, *text).second) {
      problems.push_back(fmt::format(
          "{}: found a normalized form that is empty or that of another added token", path));
      continue;
    }
    (token.normalized ? after : before).push_back({.text = *text, .token = token});
    const bool skippable = special_contents.contains(*text);
    added_by_id_[id] = {.index = i, .text = *std::move(text), .skippable = skippable};
    added_ids_.emplace(token.content, id);
    largest_id = std::max(largest_id, id);
  }
  before_normalization_ = AddedTokenMatcher(std::move(before));
  after_normalization_ = AddedTokenMatcher(std::move(after));
  vocab_size_ = largest_id + 1;
}

void Tokenizer::check_ids(std::vector<std::string>& problems) const {
  const auto check = [&](std::int64_t id) {
    if (id_to_token(id) == nullptr) {
      problems.push_back(fmt::format(
          "post_processor: found the id {}, allowed ids of tokens in model.vocab or added_tokens",
          id));
    }
  };
  std::ranges::for_each(post_processor_.before, check);
  std::ranges::for_each(post_processor_.after, check);
}

Result<std::vector<std::int64_t>> Tokenizer::encode(std::string_view text,
                                                    EncodeOptions options) const {
  if (text.size() > kMaxTextBytes) {
    return invalid_input(
        fmt::format("text: found {} bytes, allowed at most {}", text.size(), kMaxTextBytes));
  }
  if (const std::optional<std::size_t> at = find_invalid_utf8(text)) {
    return invalid_input(fmt::format("text: found the byte 0x{:02X} at offset {}, allowed UTF-8",
                                     static_cast<unsigned char>(text[*at]), *at));
  }
  std::vector<std::int64_t> ids;
  if (options.add_special_tokens) ids = post_processor_.before;
  RegexScratch scratch;
  BpeWorkspace workspace;
  for (const auto& segment : before_normalization_.split(text)) {
    if (segment.id) {
      ids.push_back(*segment.id);
      continue;
    }
    const auto [begin, end] = segment.span;
    const Status done = encode_between_added_tokens(text.substr(begin, end - begin), begin == 0,
                                                    scratch, workspace, ids);
    if (!done) return tl::unexpected(done.error());
  }
  if (options.add_special_tokens)
    ids.insert(ids.end(), post_processor_.after.begin(), post_processor_.after.end());
  return ids;
}

Status Tokenizer::encode_between_added_tokens(std::string_view text, bool at_beginning,
                                              RegexScratch& scratch, BpeWorkspace& workspace,
                                              std::vector<std::int64_t>& ids) const {
  Result<std::string> changed;
  if (!normalizer_.changes_nothing()) {
    changed = normalizer_.normalize(text);
    if (!changed) return tl::unexpected(changed.error());
    text = *changed;
  }
  for (const auto& segment : after_normalization_.split(text)) {
    if (segment.id) {
      ids.push_back(*segment.id);
      continue;
    }
    const auto [begin, end] = segment.span;
    const Result<Pieces> pieces =
        pre_tokenizer_.cut(text.substr(begin, end - begin), at_beginning && begin == 0, scratch);
    if (!pieces) return tl::unexpected(pieces.error());
    const std::string_view cut = pieces->text;
    for (const TextSpan& span : pieces->spans) {
      model_.encode(cut.substr(span.begin, span.end - span.begin), workspace, ids);
    }
  }
  return {};
}

std::string Tokenizer::decode(std::span<const std::int64_t> ids, DecodeOptions options) const {
  Decoder decoder = decoder_;
  std::string text;
  for (const std::int64_t id : ids) {
    if (const auto token = token_text(id, options)) decoder.push(*token, text);
  }
  decoder.finish(text);
  return text;
}

std::optional<std::string_view> Tokenizer::token_text(std::int64_t id,
                                                      DecodeOptions options) const {
  if (const auto added = added_by_id_.find(id); added != added_by_id_.end()) {
    if (options.skip_special_tokens && added->second.skippable) return std::nullopt;
    return added->second.text;
  }
  const std::string* const token = model_.id_to_token(id);
  if (token == nullptr) return std::nullopt;
  return *token;
}

std::optional<std::int64_t> Tokenizer::token_to_id(std::string_view token) const {
  if (const auto found = added_ids_.find(token); found != added_ids_.end()) return found->second;
  return model_.token_to_id(token);
}

const std::string* Tokenizer::id_to_token(std::int64_t id) const {
  if (const auto found = added_by_id_.find(id); found != added_by_id_.end())
    return &added_tokens_[found->second.index].content;
  return model_.id_to_token(id);
}

bool Tokenizer::is_special(std::int64_t id) const {
  const auto found = added_by_id_.find(id);
  return found != added_by_id_.end() && added_tokens_[found->second.index].special;
}

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, DecodeOptions options)
    : tokenizer_(&tokenizer), options_(options), decoder_(tokenizer.decoder()) {}

std::string StreamDecoder::push(std::int64_t id) {
  std::string text;
  if (const auto token = tokenizer_->token_text(id, options_)) decoder_.push(*token, text);
  return text;
}

std::string StreamDecoder::flush() {
  std::string text;
  decoder_.finish(text);
  decoder_ = tokenizer_->decoder();
  return text;
}

}  // namespace weir
