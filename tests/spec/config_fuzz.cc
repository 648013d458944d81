// Any bytes as a config.json: read or refused, never worse; what is read can be counted, rotated,
// written and read back.

#include <cmath>
#include <cstdint>
#include <string_view>

#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/json.h"
#include "spec/model.h"
#include "spec/sizes.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  using namespace weir;
  const std::string_view text(reinterpret_cast<const char*>(bytes), size);
  const auto document = parse_json(text, "fuzz");
  if (!document) return 0;
  const auto model = model_from_config(*document, "fuzz");
  if (!model) return 0;
  const std::int64_t longest = model->max_position;
  CHECK(weight_bytes(*model, DType::f32).value > 0, "sizes do not overflow");
  CHECK(linear_flops_per_token(*model) > 0, "counts do not overflow");
  CHECK(attention_flops(*model, {.q_len = longest, .kv_len = longest}) > 0,
        "attention can be counted");
  if (model->rope.rotary_dim <= 4096) {
    for (const std::int64_t seq_len : {std::int64_t{1}, longest}) {
      for (const double frequency : rope_frequencies(model->rope, seq_len).inverse_frequency) {
        CHECK(std::isfinite(frequency) && frequency >= 0, "frequencies are finite");
      }
    }
  }
  const auto again = model_from_config(config_of(*model), "fuzz");
  CHECK(again.has_value(), again ? "" : again.error().message);
  CHECK(*again == *model, "a config that is written reads back equal");
  return 0;
}
