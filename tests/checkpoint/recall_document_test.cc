#include <set>
#include <string>

#include <gtest/gtest.h>

#include "checkpoint/recall.h"

namespace weir {
namespace {

constexpr std::string_view kText = "The crest of a weir – well below the bank – holds the river.\n";

// Everything between < and > in the prompt, in order.
std::vector<std::string> words_of(const std::string& prompt) {
  std::vector<std::string> words;
  for (std::size_t at = prompt.find('<'); at != std::string::npos; at = prompt.find('<', at + 1)) {
    words.push_back(prompt.substr(at, prompt.find('>', at) + 1 - at));
  }
  return words;
}

std::int64_t count_tokens(const std::string& prompt) {
  std::int64_t tokens = static_cast<std::int64_t>(prompt.size());
  for (const std::string& word : words_of(prompt)) {
    tokens -= static_cast<std::int64_t>(word.size()) - 1;
  }
  return tokens;
}

TEST(RecallDocument, AsksForAKeyThatItHasPlanted) {
  const auto document = make_recall_document(kText, {.num_keys = 3, .seed = 5});
  ASSERT_TRUE(document) << document.error().message;
  const std::vector<std::string> words = words_of(document->prompt);
  ASSERT_EQ(words.size(), 3U * 5U + 1U);
  EXPECT_TRUE(words.back().starts_with("<key-"));
  EXPECT_TRUE(document->prompt.ends_with(words.back()));
  EXPECT_NE(document->prompt.find(words.back() + document->answer + "<end>"), std::string::npos);
}

TEST(RecallDocument, NeverRepeatsAKeyOrAValue) {
  const auto document = make_recall_document(kText, {.num_keys = kNumRecallKeys});
  ASSERT_TRUE(document);
  std::multiset<std::string> words;
  for (const std::string& word : words_of(document->prompt)) words.insert(word);
  words.erase(std::string(kRecallEndText));
  words.erase(words.find(words_of(document->prompt).back()));
  EXPECT_EQ(words.size(), 64U * 4U);
  EXPECT_EQ(std::set<std::string>(words.begin(), words.end()).size(), words.size());
}

TEST(RecallDocument, KeepsTheTextAroundTheKeys) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    const auto document = make_recall_document(kText, {.num_keys = 9, .seed = seed});
    ASSERT_TRUE(document);
    EXPECT_NE(document->prompt.front(), '<') << "seed " << seed;
    std::string text = document->prompt;
    for (const std::string& word : words_of(document->prompt)) {
      text.erase(text.find(word), word.size());
    }
    EXPECT_EQ(text, kText) << "seed " << seed;
  }
}

TEST(RecallDocument, HasTheLengthThatWasAskedFor) {
  for (std::int64_t min_tokens = 50; min_tokens < 300; ++min_tokens) {
    const auto document = make_recall_document(kText, {.num_keys = 2, .min_tokens = min_tokens});
    ASSERT_TRUE(document);
    EXPECT_EQ(document->num_tokens, count_tokens(document->prompt));
    EXPECT_GE(document->num_tokens, min_tokens);
    EXPECT_LE(document->num_tokens, min_tokens + 3);
  }
}

TEST(RecallDocument, SameSeedGivesTheSameDocument) {
  const auto a = make_recall_document(kText, {.min_tokens = 500, .seed = 3});
  const auto b = make_recall_document(kText, {.min_tokens = 500, .seed = 3});
  const auto c = make_recall_document(kText, {.min_tokens = 500, .seed = 4});
  EXPECT_EQ(a->prompt, b->prompt);
  EXPECT_NE(a->prompt, c->prompt);
}

TEST(RecallDocument, RefusesTextsThatItCannotUse) {
  EXPECT_EQ(make_recall_document("", {}).error().message,
            "text: found nothing, allowed at least one character");
  EXPECT_EQ(make_recall_document("ab\xFF", {}).error().message,
            "text: found invalid UTF-8 at byte 2, allowed only UTF-8");
  EXPECT_EQ(make_recall_document("a\xE2\x82", {}).error().message,
            "text: found invalid UTF-8 at byte 1, allowed only UTF-8");
  EXPECT_EQ(make_recall_document("\xED\xA0\x80", {}).error().message,
            "text: found invalid UTF-8 at byte 0, allowed only UTF-8");
  EXPECT_EQ(make_recall_document("see <key-001>", {}).error().message,
            "text: found \"<key-\" at byte 4, which is a word of the recall model");
}

TEST(RecallDocument, RefusesMoreThanTheModelHas) {
  EXPECT_EQ(make_recall_document("a", {.num_keys = 65}).error().message,
            "num_keys: found 65, allowed 1..64");
  EXPECT_EQ(make_recall_document("a", {.num_keys = 0}).error().message,
            "num_keys: found 0, allowed 1..64");
  EXPECT_EQ(make_recall_document("a", {.min_tokens = -1}).error().message,
            "min_tokens: found -1, allowed 0..1000000");
  EXPECT_EQ(make_recall_document(std::string(2'000'000, 'a'), {.num_keys = 1}).error().message,
            "text: found 2000000 bytes, allowed at most 1000000 where min_tokens does not cut it");
}

}  // namespace
}  // namespace weir
