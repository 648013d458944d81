#include "checkpoint/byte_tokenizer.h"

#include <array>
#include <set>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace weir {
namespace {

TEST(ByteTokenizer, GivesEveryIdOneText) {
  const std::array words = {WordToken{.text = "<a>", .special = true}, WordToken{.text = "<b>"}};
  const nlohmann::json tokenizer = byte_tokenizer(words, 300);
  const nlohmann::json& vocab = tokenizer["model"]["vocab"];
  std::set<std::int64_t> ids;
  for (const auto& [text, id] : vocab.items()) ids.insert(id.get<std::int64_t>());
  EXPECT_EQ(vocab.size(), 300U);
  EXPECT_EQ(ids.size(), 300U);
  EXPECT_EQ(*ids.rbegin(), 299);
  EXPECT_EQ(vocab["<b>"], 257);
  EXPECT_EQ(vocab["<unused-258>"], 258);
  EXPECT_EQ(tokenizer["added_tokens"].size(), 2U);
  EXPECT_EQ(tokenizer["added_tokens"][0]["special"], true);
  EXPECT_EQ(tokenizer["added_tokens"][1]["id"], 257);
}

TEST(ByteTokenizer, SpellsBytesInTheByteLevelAlphabet) {
  const nlohmann::json tokenizer = byte_tokenizer({}, 256);
  const nlohmann::json& vocab = tokenizer["model"]["vocab"];
  EXPECT_EQ(vocab["A"], 0x41);
  EXPECT_EQ(vocab["\u0100"], 0x00);
  EXPECT_EQ(vocab["\u010A"], 0x0A);
  EXPECT_EQ(vocab["\u0120"], 0x20);
  EXPECT_EQ(vocab["\u0121"], 0x7F);
  EXPECT_EQ(vocab["\u0143"], 0xAD);
  EXPECT_EQ(vocab["\u00FF"], 0xFF);
}

}  // namespace
}  // namespace weir
