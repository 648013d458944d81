// Any bytes as what a rank says: read or refused, never worse; what is read is said in the same
// bytes again, padding aside, and a plan's document is a valid plan or refused.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "base/check.h"
#include "exec/rank_words.h"
#include "plan/plan_json.h"

namespace {

using namespace weir;

void read_word(std::span<const std::byte> bytes) {
  const auto word = unpack_word(bytes);
  if (!word) return;
  const std::vector<std::byte> said = pack(*word);
  CHECK(std::ranges::equal(said, bytes), "a word that is read is said in the same way");
  const auto* const prepare = std::get_if<PrepareWord>(&*word);
  if (prepare == nullptr) return;
  const auto plan = read_plan_document(prepare->document);
  if (!plan) {
    CHECK(plan.error().message.find('\n') == std::string::npos, "an error is one line");
    return;
  }
  const auto again = read_plan_document(plan_to_json_text(plan->plan()));
  CHECK(again.has_value() && again->plan() == plan->plan(), "a plan that is sent reads back equal");
}

void read_report(std::span<const std::byte> bytes) {
  const auto report = unpack_report(bytes);
  if (!report) return;
  const auto again = unpack_report(pack(*report));
  CHECK(again.has_value(), "what is said is read");
  CHECK(again->failure == report->failure && again->records.size() == report->records.size() &&
            again->logits.size() == report->logits.size(),
        "a report reads back equal");
  for (std::size_t i = 0; i < report->records.size(); ++i) {
    CHECK(again->records[i].task == report->records[i].task &&
              again->records[i].partners == report->records[i].partners,
          "a record reads back equal");
  }
}

}  // namespace

// The first byte says which of the two it is.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  if (size == 0) return 0;
  const auto message = std::as_bytes(std::span(bytes, size)).subspan(1);
  bytes[0] % 2 == 0 ? read_word(message) : read_report(message);
  return 0;
}
