// Any bytes as a note: read or refused, never worse; what is read names only what there is.

#include <cstdint>
#include <string_view>

#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/json.h"
#include "claims/note.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  using namespace weir;
  const std::string_view text(reinterpret_cast<const char*>(bytes), size);
  if (const auto expression = parse_expression(text))
    CHECK(!parts_of(*expression, expression->kind).empty(), "an expression is a part of itself");
  const auto document = parse_json(text, "fuzz");
  if (!document) return 0;
  const auto note = note_from_json(*document);
  if (!note) return 0;
  CHECK(note->claims.size() <= kMaxClaims, "a note has a limit");
  for (const Claim& claim : note->claims) {
    CHECK(claim.unit != nullptr && claim.claimed.low <= claim.claimed.high, "a claim is whole");
    CHECK(find_claim(*note, claim.name, claim.row) == &claim, "names are unique");
  }
  static_cast<void>(check_figures({*note}));
  return 0;
}
