// Any bytes as a plan: read or refused, never worse; what is read is written and read back equal,
// can be drawn, and is valid or has problems. Mutations keep the document a JSON document half of
// the time, so that they get past the parser and change what a plan says.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/json.h"
#include "base/random.h"
#include "plan/plan_dot.h"
#include "plan/plan_json.h"
#include "plan/validate.h"

namespace {

using nlohmann::json;

void collect(json& value, std::vector<json*>& places) {
  places.push_back(&value);
  for (json& item : value) {
    if (item.is_structured()) {
      collect(item, places);
    } else {
      places.push_back(&item);
    }
  }
}

std::size_t pick(weir::Random& random, std::size_t count) {
  return static_cast<std::size_t>(random.integer(0, static_cast<std::int64_t>(count) - 1));
}

// One change somewhere in the document: another number or name, or a row less, twice or moved.
void mutate(json& document, weir::Random& random) {
  std::vector<json*> places;
  collect(document, places);
  json& place = *places[pick(random, places.size())];
  const json& other = *places[pick(random, places.size())];
  if (place.is_array() && !place.empty()) {
    const std::size_t row = pick(random, place.size());
    switch (random.integer(0, 2)) {
      case 0:
        place.erase(row);
        break;
      case 1:
        place.push_back(json(place[row]));
        break;
      default:
        std::swap(place[row], place[pick(random, place.size())]);
    }
  } else if (place.is_number_integer() && random.integer(0, 3) != 0) {
    place = place.get<std::int64_t>() % (std::int64_t{1} << 40) + random.integer(-2, 2);
  } else if (!place.is_object() && !other.is_structured()) {
    place = json(other);
  }
}

}  // namespace

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* bytes, std::size_t size,
                                        std::size_t max_size);

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* bytes, std::size_t size,
                                               std::size_t max_size, unsigned seed) {
  weir::Random random(seed);
  const std::string_view text(reinterpret_cast<const char*>(bytes), size);
  auto document = weir::parse_json(text, "fuzz");
  if (!document || random.integer(0, 1) == 0) return LLVMFuzzerMutate(bytes, size, max_size);
  for (std::int64_t changes = random.integer(1, 3); changes > 0; --changes)
    mutate(*document, random);
  const std::string changed = document->dump();
  if (changed.size() > max_size) return LLVMFuzzerMutate(bytes, size, max_size);
  std::memcpy(bytes, changed.data(), changed.size());
  return changed.size();
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  using namespace weir;
  const std::string_view text(reinterpret_cast<const char*>(bytes), size);
  const auto document = parse_json(text, "fuzz");
  if (!document) return 0;
  const auto plan = plan_from_json(*document, "fuzz");
  if (!plan) {
    CHECK(plan.error().message.find('\n') == std::string::npos, "an error is one line");
    return 0;
  }
  const auto written = parse_json(plan_to_json_text(*plan), "fuzz");
  CHECK(written.has_value(), "what is written is JSON");
  CHECK(*written == plan_to_json(*plan), "the text is the document");
  const auto again = plan_from_json(*written, "fuzz");
  CHECK(again.has_value(), again ? "" : again.error().message);
  CHECK(*again == *plan, "a plan that is written reads back equal");
  CHECK(!plan_to_dot(*plan).empty(), "every plan can be drawn");
  const auto valid = validate(*plan);
  CHECK(valid.has_value() || !valid.error().empty(), "what is not valid has a problem");
  return 0;
}
