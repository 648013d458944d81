#include "text/tokenizer.h"

#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace weir {
namespace {

using nlohmann::json;
using Ids = std::vector<std::int64_t>;

// A vocabulary of a, b, ab, c, abc, <unk>, with the merges a b and ab c.
json small_document() {
  return json::parse(R"({
    "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
    "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": {"type": "Fuse"},
    "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>",
              "vocab": {"a": 0, "b": 1, "ab": 2, "c": 3, "abc": 4, "<unk>": 5},
              "merges": ["a b", ["ab", "c"]]}})");
}

json added_token(std::int64_t id, const std::string& content) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", true}};
}

Tokenizer load(const json& document) {
  Result<Tokenizer> tokenizer = Tokenizer::from_json(document.dump(), "t.json");
  EXPECT_TRUE(tokenizer) << tokenizer.error().message;
  return *std::move(tokenizer);
}

// The document with `value` at `pointer`, and what loading it says.
std::string error_with(const char* pointer, const json& value) {
  json document = small_document();
  document[json::json_pointer(pointer)] = value;
  const Result<Tokenizer> tokenizer = Tokenizer::from_json(document.dump(), "t.json");
  return tokenizer ? "loads" : tokenizer.error().message;
}

TEST(Tokenizer, MergesByRank) {
  const Tokenizer tokenizer = load(small_document());
  EXPECT_EQ(tokenizer.encode("abcab"), (Ids{4, 2}));
  EXPECT_EQ(tokenizer.encode("ba?c"), (Ids{1, 0, 5, 3}));
  EXPECT_EQ(tokenizer.decode(Ids{4, 2, 99, -7}), "abcab");
  EXPECT_EQ(tokenizer.vocab_size(), 6);
}

TEST(Tokenizer, NamesTheByteThatIsNotUtf8) {
  const Tokenizer tokenizer = load(small_document());
  for (const char* const bad :
       {"ab\xFF", "ab\xC0\x80", "ab\xED\xA0\x80", "ab\xF4\x90\x80\x80", "ab\xE2\x82"}) {
    const auto ids = tokenizer.encode(bad);
    ASSERT_FALSE(ids);
    EXPECT_TRUE(ids.error().message.ends_with("at offset 2, allowed UTF-8")) << ids.error().message;
  }
  EXPECT_EQ(tokenizer.encode("ab\xFF").error().message,
            "text: found the byte 0xFF at offset 2, allowed UTF-8");
}

TEST(Tokenizer, RefusesTextsThatAreTooLong) {
  const auto ids = load(small_document()).encode(std::string(kMaxTextBytes + 1, 'a'));
  ASSERT_FALSE(ids);
  EXPECT_EQ(ids.error().message, "text: found 67108865 bytes, allowed at most 67108864");
}

TEST(Tokenizer, RefusesWhatItWouldReadWrongly) {
  EXPECT_EQ(error_with("/version", "2.0"),
            "t.json: version: found another version, allowed \"1.0\"");
  EXPECT_EQ(error_with("/truncation", {{"max_length", 5}}),
            "t.json: truncation: found an object, allowed null");
  EXPECT_EQ(error_with("/padding", {{"pad_id", 5}}),
            "t.json: padding: found an object, allowed null");
  EXPECT_EQ(error_with("/novelty", 1), "t.json: novelty: unknown key");
  EXPECT_EQ(error_with("/model/type", "Unigram"),
            "t.json: model.type: found \"Unigram\", allowed one of: BPE");
  EXPECT_EQ(error_with("/model/dropout", 0.1),
            "t.json: model.dropout: found a number, allowed null or 0");
  EXPECT_EQ(error_with("/model/continuing_subword_prefix", "##"),
            "t.json: model.continuing_subword_prefix: found \"##\", allowed null");
  EXPECT_EQ(error_with("/model/end_of_word_suffix", "</w>"),
            "t.json: model.end_of_word_suffix: found \"</w>\", allowed null");
  EXPECT_EQ(error_with("/normalizer", {{"type", "Lowercase"}}),
            "t.json: normalizer.type: found \"Lowercase\", allowed one of: NFC, Prepend, Replace, "
            "Sequence");
  EXPECT_EQ(error_with("/pre_tokenizer", {{"type", "Whitespace"}}),
            "t.json: pre_tokenizer.type: found \"Whitespace\", allowed one of: Split, Digits, "
            "ByteLevel, Metaspace, Sequence");
  EXPECT_EQ(error_with("/post_processor", {{"type", "BertProcessing"}}),
            "t.json: post_processor.type: found \"BertProcessing\", allowed one of: ByteLevel, one "
            "TemplateProcessing, Sequence");
  EXPECT_EQ(error_with("/decoder", {{"type", "WordPiece"}}),
            "t.json: decoder.type: found \"WordPiece\", allowed one of: ByteLevel, ByteFallback, "
            "Fuse, Metaspace, Replace, Strip, Sequence");
}

TEST(Tokenizer, RefusesVocabulariesThatContradictThemselves) {
  EXPECT_EQ(error_with("/model/vocab/b", 0),
            "t.json: model.vocab[\"b\"]: found the id 0 of \"a\", allowed a new one");
  EXPECT_EQ(error_with("/model/vocab/b", -1),
            "t.json: model.vocab[\"b\"]: found -1, allowed an integer in 0..4000000");
  EXPECT_EQ(error_with("/model/vocab/b", 4000001),
            "t.json: model.vocab[\"b\"]: found 4000001, allowed an integer in 0..4000000");
  EXPECT_EQ(error_with("/model/vocab/b", 1.5),
            "t.json: model.vocab[\"b\"]: found 1.5, allowed an integer in 0..4000000");
  EXPECT_EQ(error_with("/model/vocab", nullptr),
            "t.json: model.vocab: found null, allowed an object");
  EXPECT_EQ(error_with("/model/unk_token", "<u>"),
            "t.json: model.unk_token: found \"<u>\", allowed a token of the vocabulary");
}

TEST(Tokenizer, RefusesMergesThatAreMissingOrMalformed) {
  EXPECT_EQ(error_with("/model/merges", nullptr),
            "t.json: model.merges: found nothing, allowed an array of \"a b\" or [\"a\", \"b\"]");
  EXPECT_EQ(error_with("/model/merges/0", "a x"),
            "t.json: model.merges[0]: found the token \"x\", allowed tokens of the vocabulary");
  EXPECT_EQ(error_with("/model/merges/0", "b a"),
            "t.json: model.merges[0]: found the token \"ba\", allowed tokens of the vocabulary");
  EXPECT_EQ(error_with("/model/merges/0", "a b c"),
            "t.json: model.merges[0]: found \"a b c\", allowed \"a b\" or [\"a\", \"b\"]");
  EXPECT_EQ(error_with("/model/merges/0", {"a", "b", "c"}),
            "t.json: model.merges[0]: found an array of 3, allowed \"a b\" or [\"a\", \"b\"]");
}

TEST(Tokenizer, RefusesAddedTokensWithOtherIdsThanTheLibraryGives) {
  EXPECT_EQ(error_with("/added_tokens", json::array({added_token(9, "<s>")})),
            "t.json: added_tokens[0] \"<s>\": found the id 9, allowed 6 (the next new one)");
  EXPECT_EQ(error_with("/added_tokens", json::array({added_token(6, "ab")})),
            "t.json: added_tokens[0] \"ab\": found the id 6, allowed 2 (its id in model.vocab)");
  EXPECT_EQ(error_with("/added_tokens", json::array({added_token(6, std::string(300, 'x'))})),
            "t.json: added_tokens[0].content: found 300 bytes, allowed at most 256");
  json twice = json::array({added_token(6, "x"), added_token(6, "x")});
  EXPECT_EQ(error_with("/added_tokens", twice), "loads");
  twice[1]["lstrip"] = true;
  EXPECT_EQ(error_with("/added_tokens", twice),
            "t.json: added_tokens[1].content: found \"x\" a second time, with other properties");
}

TEST(Tokenizer, RefusesAbsurdPatternsByPlace) {
  const json split = {{"type", "Split"},
                      {"pattern", {{"Regex", "(a+)+"}}},
                      {"behavior", "Isolated"},
                      {"invert", false}};
  EXPECT_EQ(error_with("/pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", {split}}}),
            "t.json: pre_tokenizer.pretokenizers[0].pattern.Regex: at byte 5: found an unlimited "
            "repetition of an unlimited repetition, allowed at most one level of * or +");
}

TEST(Tokenizer, RefusesTemplatesThatItCannotFill) {
  const json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const json bos = {{"SpecialToken", {{"id", "a"}, {"type_id", 0}}}};
  const auto with_template = [](const json& single, const json& ids) {
    return error_with(
        "/post_processor",
        {{"type", "TemplateProcessing"},
         {"single", single},
         {"pair", json::array()},
         {"special_tokens", {{"a", {{"id", "a"}, {"ids", ids}, {"tokens", {"a"}}}}}}});
  };
  EXPECT_EQ(with_template({bos, text, bos}, {0}), "loads");
  EXPECT_EQ(with_template({bos, text}, {77}),
            "t.json: post_processor: found the id 77, allowed ids of tokens in model.vocab or "
            "added_tokens");
  EXPECT_EQ(
      with_template(json::array({bos}), {0}),
      "t.json: post_processor.single: found no text, allowed {\"Sequence\": {\"id\": \"A\"}}");
  EXPECT_EQ(
      with_template({text, text}, {0}),
      "t.json: post_processor.single[1].Sequence.id: found another text, allowed only A, once");
}

TEST(Tokenizer, RefusesStepsThatTheyCannotFollow) {
  const json first = {{"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", "first"}};
  json document = small_document();
  document["pre_tokenizer"] = first;
  EXPECT_TRUE(Tokenizer::from_json(document.dump(), "t.json"));
  document["normalizer"] = {{"type", "Prepend"}, {"prepend", "_"}};
  EXPECT_EQ(Tokenizer::from_json(document.dump(), "t.json").error().message,
            "t.json: pre_tokenizer: found Metaspace with prepend_scheme first, allowed with no "
            "normalizer or NFC");
  EXPECT_EQ(error_with("/pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", {first, first}}}),
            "t.json: pre_tokenizer: found ByteLevel or Metaspace more than once, allowed at most "
            "once; pre_tokenizer: found a Metaspace with prepend_scheme first after another step, "
            "allowed only as the first step");
  EXPECT_EQ(
      error_with("/decoder", {{"type", "Sequence"},
                              {"decoders", {{{"type", "Fuse"}}, {{"type", "ByteFallback"}}}}}),
      "t.json: decoder.decoders[1].type: found \"ByteFallback\" after Fuse or ByteLevel, "
      "allowed only Strip");
}

TEST(Tokenizer, RefusesAFolderWithoutTheFile) {
  const Result<Tokenizer> tokenizer = Tokenizer::load("/nonexistent");
  ASSERT_FALSE(tokenizer);
  EXPECT_EQ(tokenizer.error().message, "/nonexistent/tokenizer.json: cannot be opened for reading");
}

TEST(Tokenizer, TakesTheLongestAddedToken) {
  json document = small_document();
  document["added_tokens"] = json::array({added_token(6, "<x>"), added_token(7, "<x><y>")});
  const Tokenizer tokenizer = load(document);
  EXPECT_EQ(tokenizer.encode("a<x><y><x>b<x"), (Ids{0, 7, 6, 1, 5, 5}));
  EXPECT_EQ(tokenizer.decode(Ids{0, 7, 1}, {.skip_special_tokens = true}), "ab");
}

TEST(Tokenizer, StripsOverlappingWhiteSpaceInLinearTime) {
  json document = small_document();
  document["added_tokens"] = json::array({added_token(6, " ")});
  document["added_tokens"][0]["lstrip"] = true;
  document["added_tokens"][0]["rstrip"] = true;
  const Tokenizer tokenizer = load(document);
  EXPECT_EQ(tokenizer.encode("a" + std::string(1 << 20, ' ') + "b"), (Ids{0, 6, 1}));
}

TEST(Tokenizer, MergesLongWordsInLinearithmicTime) {
  const Tokenizer tokenizer = *Tokenizer::load(WEIR_SOURCE_DIR "/tests/text/golden/llama3");
  std::string word;
  while (word.size() < (1U << 20U)) word += "the";
  for (const std::string& text :
       {word, std::string(1 << 20, ' '), std::string(1 << 20, 'a'), std::string(1 << 20, '\0')}) {
    const auto ids = tokenizer.encode(text);
    ASSERT_TRUE(ids) << ids.error().message;
    EXPECT_EQ(tokenizer.decode(*ids, {.skip_special_tokens = true}), text);
  }
}

TEST(Tokenizer, IsSharedBetweenThreads) {
  const Tokenizer tokenizer = *Tokenizer::load(WEIR_SOURCE_DIR "/tests/text/golden/qwen2");
  const std::string text = "e\u0301 Hello, world! It's 2024: \u4F60\u597D\n";
  const Ids expected = *tokenizer.encode(text);
  std::vector<Ids> results(4);
  {
    std::vector<std::jthread> threads;
    for (Ids& result : results) {
      threads.emplace_back([&] { result = *tokenizer.encode(text); });
    }
  }
  for (const Ids& result : results) EXPECT_EQ(result, expected);
}

TEST(StreamDecoder, HoldsBackIncompleteCharacters) {
  const Tokenizer tokenizer = *Tokenizer::load(WEIR_SOURCE_DIR "/tests/text/golden/llama3");
  const std::int64_t e2 = *tokenizer.token_to_id("\u00E2");   // Byte 0xE2.
  const std::int64_t h82 = *tokenizer.token_to_id("\u0124");  // Byte 0x82.
  const std::int64_t ac = *tokenizer.token_to_id("\u00AC");   // Byte 0xAC.
  StreamDecoder decoder(tokenizer);
  EXPECT_EQ(decoder.push(e2), "");
  EXPECT_EQ(decoder.push(h82), "");
  EXPECT_EQ(decoder.push(ac), "\u20AC");
  EXPECT_EQ(decoder.push(e2), "");
  EXPECT_EQ(decoder.push(e2), "\uFFFD");
  EXPECT_EQ(decoder.push(h82), "");
  EXPECT_EQ(decoder.flush(), "\uFFFD");
  EXPECT_EQ(decoder.flush(), "");
  EXPECT_EQ(decoder.push(-1), "");
}

TEST(StreamDecoder, HoldsBackRunsOfByteTokens) {
  const Tokenizer tokenizer = *Tokenizer::load(WEIR_SOURCE_DIR "/tests/text/golden/llama2");
  const auto id = [&](const char* token) { return *tokenizer.token_to_id(token); };
  StreamDecoder decoder(tokenizer);
  EXPECT_EQ(decoder.push(id("\u2581a")), "a");  // The space before the text is dropped.
  EXPECT_EQ(decoder.push(id("<0xC3>")), "");
  EXPECT_EQ(decoder.push(id("<0xA9>")), "");
  EXPECT_EQ(decoder.push(id("\u2581a")), "\u00E9 a");
  EXPECT_EQ(decoder.push(id("<0xC3>")), "");
  EXPECT_EQ(decoder.push(id("<0x41>")), "");
  EXPECT_EQ(decoder.flush(), "\uFFFD\uFFFD");  // The whole run is not UTF-8.
  EXPECT_EQ(decoder.push(id("\u2581a")), "a");
}

}  // namespace
}  // namespace weir
