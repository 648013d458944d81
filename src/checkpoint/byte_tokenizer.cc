#include "checkpoint/byte_tokenizer.h"

#include <array>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/check.h"

namespace weir {
namespace {

using nlohmann::json;

// The code point that stands for each byte in the byte-level alphabet that GPT-2 introduced:
// printable Latin-1 stands for itself, the rest counts upwards from U+0100.
std::array<std::uint32_t, kNumByteTokens> byte_alphabet() {
  std::array<std::uint32_t, kNumByteTokens> code_points{};
  std::uint32_t next = 0x100;
  for (std::uint32_t byte = 0; byte < code_points.size(); ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
    code_points[byte] = printable ? byte : next++;
  }
  return code_points;
}

// UTF-8 of a code point below U+0800.
std::string utf8(std::uint32_t code_point) {
  if (code_point < 0x80) return {static_cast<char>(code_point)};
  return {static_cast<char>(0xC0 | (code_point >> 6)),
          static_cast<char>(0x80 | (code_point & 0x3F))};
}

}  // namespace

json byte_tokenizer(std::span<const WordToken> words, std::int64_t vocab_size) {
  const auto first_unused = kNumByteTokens + static_cast<std::int64_t>(words.size());
  CHECK(vocab_size >= first_unused, "the vocabulary has room for the bytes and the words");
  json vocab = json::object();
  const auto alphabet = byte_alphabet();
  for (std::size_t byte = 0; byte < alphabet.size(); ++byte) vocab[utf8(alphabet[byte])] = byte;
  json added = json::array();
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::size_t id = alphabet.size() + i;
    vocab[words[i].text] = id;
    added.push_back({{"id", id},
                     {"content", words[i].text},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", words[i].special}});
  }
  for (std::int64_t id = first_unused; id < vocab_size; ++id) {
    vocab[fmt::format("<unused-{}>", id)] = id;
  }
  const json byte_level = {{"type", "ByteLevel"},
                           {"add_prefix_space", false},
                           {"trim_offsets", true},
                           {"use_regex", false}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added},
          {"normalizer", nullptr},
          {"pre_tokenizer", byte_level},
          {"post_processor", nullptr},
          {"decoder", byte_level},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", false},
            {"vocab", vocab},
            {"merges", json::array()}}}};
}

}  // namespace weir
