// Answers compare_with_tokenizers.py: for each line {"text": ...} or {"ids": [...]} on standard
// input, one line with the ids, or with the decoded, skipping and streamed texts.
// Usage: tokenizer_answers FOLDER

#include <iostream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "text/tokenizer.h"

namespace {

using nlohmann::json;

json answer(const weir::Tokenizer& tokenizer, const json& question) {
  if (question.contains("text")) {
    const auto ids = tokenizer.encode(question["text"].get<std::string>());
    return ids ? json(*ids) : json(ids.error().message);
  }
  const auto ids = question["ids"].get<std::vector<std::int64_t>>();
  weir::StreamDecoder stream(tokenizer);
  std::string streamed;
  for (const std::int64_t id : ids) streamed += stream.push(id);
  streamed += stream.flush();
  return {tokenizer.decode(ids), tokenizer.decode(ids, {.skip_special_tokens = true}), streamed};
}

}  // namespace

int main(int argc, char** argv) {
  const auto tokenizer = weir::Tokenizer::load(argc == 2 ? argv[1] : "");
  if (!tokenizer) {
    std::cerr << tokenizer.error().message << '\n';
    return 2;
  }
  for (std::string line; std::getline(std::cin, line);) {
    std::cout << answer(*tokenizer, json::parse(line)).dump() << '\n';
  }
}
