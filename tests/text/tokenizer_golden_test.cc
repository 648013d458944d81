// Token for token against the reference library: tests/text/golden is written by make_goldens.py.

#include <span>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "text/tokenizer.h"

namespace weir {
namespace {

using nlohmann::json;
using Ids = std::vector<std::int64_t>;

class TokenizerGolden : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::string folder = std::string(WEIR_SOURCE_DIR "/tests/text/golden/") + GetParam();
    tokenizer_ = Tokenizer::load(folder);
    ASSERT_TRUE(tokenizer_) << tokenizer_.error().message;
    Result<json> golden = read_json_file(folder + "/golden.json");
    ASSERT_TRUE(golden) << golden.error().message;
    golden_ = *std::move(golden);
    ASSERT_FALSE(golden_["encode"].empty());
    ASSERT_FALSE(golden_["decode"].empty());
  }

  std::string streamed(const Ids& ids, DecodeOptions options) const {
    StreamDecoder decoder(*tokenizer_, options);
    std::string text;
    for (const std::int64_t id : ids) text += decoder.push(id);
    return text + decoder.flush();
  }

  Result<Tokenizer> tokenizer_ = invalid_input("not loaded");
  json golden_;
};

TEST_P(TokenizerGolden, EncodesTokenForToken) {
  for (const json& each : golden_["encode"]) {
    const auto text = each["text"].get<std::string>();
    const auto ids = tokenizer_->encode(text, {.add_special_tokens = false});
    ASSERT_TRUE(ids) << ids.error().message;
    EXPECT_EQ(*ids, each["ids"].get<Ids>()) << each["text"];
    const auto with_special = tokenizer_->encode(text);
    ASSERT_TRUE(with_special) << with_special.error().message;
    EXPECT_EQ(*with_special, each["ids_with_special"].get<Ids>()) << each["text"];
  }
}

TEST_P(TokenizerGolden, DecodesCharacterForCharacter) {
  for (const json& each : golden_["encode"]) {
    const auto ids = each["ids_with_special"].get<Ids>();
    EXPECT_EQ(tokenizer_->decode(ids), each["decoded"].get<std::string>());
    EXPECT_EQ(tokenizer_->decode(ids, {.skip_special_tokens = true}),
              each["decoded_skipping"].get<std::string>());
  }
  for (const json& each : golden_["decode"]) {
    const auto ids = each["ids"].get<Ids>();
    EXPECT_EQ(tokenizer_->decode(ids), each["decoded"].get<std::string>()) << each["ids"];
    EXPECT_EQ(tokenizer_->decode(ids, {.skip_special_tokens = true}),
              each["decoded_skipping"].get<std::string>())
        << each["ids"];
  }
}

TEST_P(TokenizerGolden, StreamsWhatDecodeGives) {
  for (const char* const list : {"encode", "decode"}) {
    for (const json& each : golden_[list]) {
      const auto ids =
          each[each.contains("ids_with_special") ? "ids_with_special" : "ids"].get<Ids>();
      EXPECT_EQ(streamed(ids, {}), each["decoded"].get<std::string>()) << json(ids);
      EXPECT_EQ(streamed(ids, {.skip_special_tokens = true}),
                each["decoded_skipping"].get<std::string>())
          << json(ids);
    }
  }
}

TEST_P(TokenizerGolden, KnowsItsVocabulary) {
  const auto size = golden_["vocab_size"].get<std::int64_t>();
  EXPECT_EQ(tokenizer_->vocab_size(), size);
  for (std::int64_t id = 0; id < size; ++id) {
    const std::string* const token = tokenizer_->id_to_token(id);
    ASSERT_NE(token, nullptr) << id;
    EXPECT_EQ(tokenizer_->token_to_id(*token), id) << *token;
  }
  EXPECT_EQ(tokenizer_->id_to_token(size), nullptr);
  EXPECT_EQ(tokenizer_->id_to_token(-1), nullptr);
  EXPECT_FALSE(tokenizer_->added_tokens().empty());
  for (const AddedToken& token : tokenizer_->added_tokens()) {
    EXPECT_EQ(tokenizer_->token_to_id(token.content), token.id);
    EXPECT_EQ(tokenizer_->is_special(token.id), token.special);
  }
}

INSTANTIATE_TEST_SUITE_P(Styles, TokenizerGolden,
                         testing::Values("llama3", "qwen2", "gpt2", "deepseek", "llama2", "mistral",
                                         "metaspace_unknown"),
                         [](const auto& style) { return std::string(style.param); });

}  // namespace
}  // namespace weir
