#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

#include <fmt/format.h>

#include "base/random.h"
#include "checkpoint/recall.h"

namespace weir {
namespace {

constexpr std::int64_t kTokensPerRecord = 1 + kValuesPerRecallKey + 1;  // Key, values, end.
static_assert(kNumRecallKeys * kValuesPerRecallKey <= kNumRecallValues,
              "every value of a document is another one");

// Bytes of the UTF-8 character at the start of `text`, 0 where there is none. Unicode 15, table
// 3-7.
std::size_t character_size(std::string_view text) {
  const auto byte = [&](std::size_t i) -> unsigned {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U;
  };
  const auto continues = [&](std::size_t i) { return (byte(i) & 0xC0U) == 0x80U; };
  const unsigned first = byte(0);
  if (text.empty()) return 0;
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return continues(1) ? 2 : 0;
  if ((first & 0xF0U) == 0xE0U) {
    const bool overlong = first == 0xE0 && byte(1) < 0xA0;
    const bool surrogate = first == 0xED && byte(1) > 0x9F;
    return continues(1) && continues(2) && !overlong && !surrogate ? 3 : 0;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    const bool overlong = first == 0xF0 && byte(1) < 0x90;
    const bool beyond = first == 0xF4 && byte(1) > 0x8F;
    return continues(1) && continues(2) && continues(3) && !overlong && !beyond ? 4 : 0;
  }
  return 0;
}

Status check_text(std::string_view text) {
  if (text.empty()) return invalid_input("text: found nothing, allowed at least one character");
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t size = character_size(text.substr(at));
    if (size == 0) {
      return invalid_input(
          fmt::format("text: found invalid UTF-8 at byte {}, allowed only UTF-8", at));
    }
    at += size;
  }
  constexpr std::array<std::string_view, 3> kReserved = {"<key-", "<value-", kRecallEndText};
  for (const std::string_view reserved : kReserved) {
    if (const std::size_t at = text.find(reserved); at != std::string_view::npos) {
      return invalid_input(fmt::format(
          "text: found \"{}\" at byte {}, which is a word of the recall model", reserved, at));
    }
  }
  return {};
}

// The first boundary between characters at or after `at`.
std::size_t boundary_at(std::string_view text, std::size_t at) {
  while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80U) ++at;
  return at;
}

// `text` over and over, whole characters, at least `bytes` bytes.
std::string repeat_to(std::string_view text, std::size_t bytes) {
  std::string repeated;
  while (repeated.size() < bytes) {
    const std::size_t left = bytes - repeated.size();
    repeated += text.substr(0, boundary_at(text, std::min(left, text.size())));
  }
  return repeated;
}

// 0..count-1 in random order (Fisher and Yates).
std::vector<std::int64_t> shuffled(std::int64_t count, Random& random) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  for (std::int64_t last = count - 1; last > 0; --last) {
    std::swap(order[static_cast<std::size_t>(last)],
              order[static_cast<std::size_t>(random.integer(0, last))]);
  }
  return order;
}

struct Record {
  std::size_t place = 0;  // Byte of the text before which it stands.
  std::string key;
  std::string values;
};

// Distinct keys with distinct values at random places, none before the first character.
std::vector<Record> draw_records(std::string_view text, std::int64_t num_keys, Random& random) {
  const std::vector<std::int64_t> keys = shuffled(kNumRecallKeys, random);
  const std::vector<std::int64_t> values = shuffled(kNumRecallValues, random);
  std::vector<Record> records(static_cast<std::size_t>(num_keys));
  auto value = values.begin();
  for (std::size_t i = 0; i < records.size(); ++i) {
    const std::int64_t place = random.integer(1, static_cast<std::int64_t>(text.size()));
    records[i].place = boundary_at(text, static_cast<std::size_t>(place));
    records[i].key = recall_key(keys[i]);
    for (std::int64_t n = 0; n < kValuesPerRecallKey; ++n)
      records[i].values += recall_value(*value++);
  }
  std::ranges::stable_sort(records, {}, &Record::place);
  return records;
}

}  // namespace

std::string recall_key(std::int64_t index) { return fmt::format("<key-{:03}>", index); }

std::string recall_value(std::int64_t index) { return fmt::format("<value-{:03}>", index); }

Result<RecallDocument> make_recall_document(std::string_view text,
                                            const RecallDocumentOptions& options) {
  if (options.num_keys < 1 || options.num_keys > kNumRecallKeys) {
    return invalid_input(
        fmt::format("num_keys: found {}, allowed 1..{}", options.num_keys, kNumRecallKeys));
  }
  if (options.min_tokens < 0 || options.min_tokens > kMaxRecallDocumentTokens) {
    return invalid_input(fmt::format("min_tokens: found {}, allowed 0..{}", options.min_tokens,
                                     kMaxRecallDocumentTokens));
  }
  if (options.min_tokens == 0 && std::cmp_greater(text.size(), kMaxRecallDocumentTokens)) {
    return invalid_input(
        fmt::format("text: found {} bytes, allowed at most {} where min_tokens "
                    "does not cut it",
                    text.size(), kMaxRecallDocumentTokens));
  }
  if (auto checked = check_text(text); !checked) return tl::unexpected(checked.error());

  const std::int64_t record_tokens = options.num_keys * kTokensPerRecord;
  const std::int64_t wanted = options.min_tokens - record_tokens - 1;
  const std::string filler =
      options.min_tokens == 0
          ? std::string(text)
          : repeat_to(text, static_cast<std::size_t>(std::max<std::int64_t>(wanted, 1)));
  Random random(options.seed);
  const std::vector<Record> records = draw_records(filler, options.num_keys, random);
  const Record& asked = records[static_cast<std::size_t>(random.integer(0, options.num_keys - 1))];

  RecallDocument document{
      .prompt = {},
      .answer = asked.values,
      .num_tokens = static_cast<std::int64_t>(filler.size()) + record_tokens + 1};
  std::size_t done = 0;
  for (const Record& record : records) {
    document.prompt.append(filler, done, record.place - done);
    done = record.place;
    document.prompt += record.key + record.values;
    document.prompt += kRecallEndText;
  }
  document.prompt.append(filler, done);
  document.prompt += asked.key;
  return document;
}

}  // namespace weir
