#pragma once
// A model whose answer is known: a Llama whose weights are computed such that it looks up a key
// planted anywhere in a text, at any length up to a million tokens. A real model of that size would
// need training and would sometimes err; this one is right unless whoever runs it is wrong.
//
// The circuit is the induction head of Olsson et al., arXiv:2209.11895, built by hand:
//   layer 0  A constant query and a constant key, rotated by the fast rotary pairs, have their
//            highest score at distance 1. So every token fetches the code of the token before it.
//   layer 1  The code of the current token is the query, the code of the previous token the key.
//            The slow rotary pairs carry them, which hardly turn within a million tokens. So a
//            token finds the places where it stood before, and fetches the code of what came next.
// The output weights read the fetched code. Every token has a code of random signs, one slice per
// KV head; within a slice, two codes differ in at least kMinCodeDistance signs, so that one match
// outweighs any number of near misses. Both query heads of a group find the match; each fetches
// half of the slice. The FFN is random and writes to dimensions of its own, which the logits read
// faintly: enough to see an error in it, too little to change the answer.
//
// Generation from "... <key-017><value-103><value-022><value-200><end> ... <key-017>" yields
// <value-103><value-022><value-200><end>, because each of these tokens stood once before. What the
// model needs: a key or value stands at most once in the text, and not as its very first token
// (which is its own previous token).

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/result.h"
#include "checkpoint/model_folder.h"
#include "spec/model.h"

namespace weir {

inline constexpr std::int64_t kNumRecallKeys = 64;
inline constexpr std::int64_t kNumRecallValues = 256;
inline constexpr std::int64_t kFirstRecallKey = kNumByteTokens;  // Token ids.
inline constexpr std::int64_t kFirstRecallValue = kFirstRecallKey + kNumRecallKeys;
inline constexpr std::int64_t kRecallEnd = kFirstRecallValue + kNumRecallValues;

[[nodiscard]] std::string recall_key(std::int64_t index);    // "<key-017>"
[[nodiscard]] std::string recall_value(std::int64_t index);  // "<value-103>"
inline constexpr std::string_view kRecallEndText = "<end>";

// Signs of a code that one KV head compares, and in how many of them two tokens differ at least.
inline constexpr std::int64_t kRecallSliceSize = 32;
inline constexpr int kMinCodeDistance = 10;

[[nodiscard]] ModelSpec recall_model(DType dtype);

// Writes the model to `folder`, see write_model_folder. The seed draws the codes and the FFN; the
// answers do not depend on it.
[[nodiscard]] Status write_recall_model(const std::string& folder, DType dtype,
                                        const WriteModelOptions& options = {});

struct RecallDocument {
  std::string prompt;
  std::string answer;           // What greedy generation yields, up to and without "<end>".
  std::int64_t num_tokens = 0;  // Of the prompt.
};

struct RecallDocumentOptions {
  std::int64_t num_keys = 8;  // Planted, 1..64; the prompt asks for one of them.
  // Length of the prompt: the text is repeated or cut so that there are so many tokens, or up to
  // three more to keep a character whole. 0: the text once. At most kMaxRecallDocumentTokens.
  std::int64_t min_tokens = 0;
  std::uint64_t seed = 0;  // Chooses keys, values, places and question.
};

inline constexpr std::int64_t kValuesPerRecallKey = 3;
inline constexpr std::int64_t kMaxRecallDocumentTokens = 1'000'000;

// Plants `num_keys` keys with three values each between the characters of `text` and asks for one.
// Fails when the text is empty, not UTF-8, or holds one of the model's own words.
[[nodiscard]] Result<RecallDocument> make_recall_document(std::string_view text,
                                                          const RecallDocumentOptions& options);

}  // namespace weir
