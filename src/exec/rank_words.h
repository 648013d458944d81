#pragma once
// What rank 0 says to the ranks that hold the other devices of its executor, and what they answer.
// Binary, as both are the same build (they have checked that when they joined). A message that is
// none is an error; what one says is not checked against the plan.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"
#include "exec/executor.h"
#include "exec/worker.h"
#include "plan/validate.h"

namespace weir {

// Plans have numbers that are never used again, so that steps can refer to them.
struct PrepareWord {
  std::uint64_t plan = 0;
  std::string document;  // plan_to_json_text.
};
struct StepWord {
  std::uint64_t plan = 0;
  std::int32_t step_index = 0;
  bool record = false;
  StepLengths lengths;
  std::vector<SequenceId> sequences;
  std::vector<std::vector<std::int64_t>> tokens;
  std::vector<std::int64_t> rope_lengths;
};
struct ForgetPlanWord {
  std::uint64_t plan = 0;
};
struct ReleaseWord {
  SequenceId sequence{};
};
struct HeldWord {};
struct CloseWord {};

// PrepareWord, StepWord and HeldWord are answered by a DeviceReport.
using RankWord =
    std::variant<PrepareWord, StepWord, ForgetPlanWord, ReleaseWord, HeldWord, CloseWord>;

struct DeviceReport {
  std::string failure;          // Of this device; empty where another one failed, or none.
  std::vector<Record> records;  // Of a step that was to be recorded, by the rank's own clock.
  std::vector<float> logits;    // See own_logits.
  Executor::Held held;
};

[[nodiscard]] std::vector<std::byte> pack(const RankWord& word);
[[nodiscard]] Result<RankWord> unpack_word(std::span<const std::byte> bytes);
[[nodiscard]] std::vector<std::byte> pack(const DeviceReport& report);
[[nodiscard]] Result<DeviceReport> unpack_report(std::span<const std::byte> bytes);

[[nodiscard]] Result<ValidPlan> read_plan_document(std::string_view document);

}  // namespace weir
