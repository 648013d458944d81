// Any bytes as a tokenizer.json, any text for it: loading, encoding, decoding and streaming must
// end without a crash, and streaming must give what decoding gives. The input is the document, a
// line with "%%", and the text.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace {

void decode_both_ways(const weir::Tokenizer& tokenizer, const std::vector<std::int64_t>& ids,
                      weir::DecodeOptions options) {
  weir::StreamDecoder stream(tokenizer, options);
  std::string streamed;
  for (const std::int64_t id : ids) {
    streamed += stream.push(id);
    CHECK(!weir::find_invalid_utf8(streamed), "streamed text is UTF-8");
  }
  streamed += stream.flush();
  CHECK(streamed == tokenizer.decode(ids, options), "streaming gives what decoding gives");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  constexpr std::string_view kSeparator = "\n%%\n";
  const std::size_t separator = input.find(kSeparator);
  const std::string_view text =
      separator == std::string_view::npos ? input : input.substr(separator + kSeparator.size());
  const auto tokenizer = weir::Tokenizer::from_json(input.substr(0, separator), "fuzz");
  if (!tokenizer) {
    CHECK(tokenizer.error().message.find('\n') == std::string::npos, "an error is one line");
    return 0;
  }
  std::vector<std::int64_t> ids;
  if (const auto encoded = tokenizer->encode(text)) {
    ids = *encoded;
    for (const std::int64_t id : ids) {
      CHECK(id >= 0 && id < tokenizer->vocab_size(), "ids are within the vocabulary");
    }
  }
  // Bytes of the text as ids reach rows that no text encodes to.
  for (const char c : text.substr(0, 64)) ids.push_back(static_cast<unsigned char>(c));
  if (ids.size() > 4096) ids.resize(4096);
  decode_both_ways(*tokenizer, ids, {});
  decode_both_ways(*tokenizer, ids, {.skip_special_tokens = true});
  return 0;
}
