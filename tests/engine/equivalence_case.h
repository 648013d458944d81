#pragma once
// One instance of Law 1: a small model of any architecture, a strategy with its options, and a
// batch. Drawn at random, printed so that it can be read, and made smaller where it fails.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"
#include "spec/model.h"
#include "strategy/strategy.h"

namespace weir {

struct RequestCase {
  std::int64_t prompt_len = 1;
  std::int64_t new_tokens = 0;

  bool operator==(const RequestCase&) const = default;
};

struct EquivalenceCase {
  ModelSpec model;
  std::string strategy;
  OptionValues options;
  DType kv_dtype = DType::f32;
  std::int64_t prefill_chunk = 1;
  std::int64_t in_flight = 1;  // Groups of requests.
  std::vector<RequestCase> requests;
  std::uint64_t seed = 0;  // Of the prompts.

  bool operator==(const EquivalenceCase&) const = default;
};

// Devices are threads here, so there are not many.
inline constexpr std::int64_t kMostCaseDevices = 8;

// What strategies are told of the devices: a cache that holds a few layers of the models drawn
// here.
inline constexpr DeviceFacts kCaseDevices = {.l2_bytes = 256 * 1024, .l3_bytes = {}};

// Any model, batch and strategy but `single`, or the one that is named; options are drawn again
// until the strategy accepts them. nullopt where it accepts none of two thousand.
[[nodiscard]] std::optional<EquivalenceCase> draw_case(Random& random, std::string_view only = {});

[[nodiscard]] std::string to_string(const EquivalenceCase& instance);

// The smallest case that still fails which dropping and halving parts one by one leads to.
[[nodiscard]] EquivalenceCase shrink(EquivalenceCase failing,
                                     const std::function<bool(const EquivalenceCase&)>& fails);

}  // namespace weir
