// Any text is an axis, with ascending values within their limits and not too many, or an error.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "app/sweep_axis.h"
#include "base/check.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const auto names = weir::sweep_names(*weir::find_strategy("attention_pool"));
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto axis = weir::parse_sweep_axis(text, names);
  if (!axis) return 0;
  const auto name = std::ranges::find(names, axis->name, &weir::SweepName::name);
  CHECK(name != names.end(), "an axis has a name that can be swept");
  CHECK(!axis->values.empty() && std::ssize(axis->values) <= weir::kMostSweepPoints,
        "an axis has values, and not too many");
  for (std::size_t i = 0; i < axis->values.size(); ++i) {
    CHECK(axis->values[i] >= name->min && axis->values[i] <= name->max, "values are in limits");
    CHECK(i == 0 || axis->values[i - 1] < axis->values[i], "values ascend");
  }
  return 0;
}
