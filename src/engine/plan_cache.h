#pragma once
// Plans of a run, made once per structure: the strategy's layouts for a step, lowered and
// validated, are kept and found again by every step with equal layouts, whatever its lengths. What
// a step spends here after the first of its kind is asking the strategy for layouts and comparing
// them with those of the last step.

#include <cstdint>
#include <list>
#include <string>
#include <unordered_map>

#include "base/result.h"
#include "base/units.h"
#include "plan/lower.h"
#include "plan/validate.h"
#include "strategy/strategy.h"

namespace weir {

// What a step is planned for.
struct PlanRequest {
  StepShape shape;
  // The largest lengths that steps of this kind reach: the plan's limits, for which memory is
  // checked. One per request, not below the shape.
  StepLengths limits;
  LogitsWanted logits = LogitsWanted::last;
};

struct PlanningRecord {
  std::int64_t lookups = 0;
  std::int64_t plans = 0;  // Of which this many made a plan.
};

// Not copyable: it hands out references.
class PlanCache {
 public:
  // `header` says all but limits and logits. The strategy must outlive the cache.
  PlanCache(const Strategy& strategy, PlanHeader header);
  PlanCache(const PlanCache&) = delete;
  PlanCache& operator=(const PlanCache&) = delete;
  ~PlanCache() = default;

  // Fails where no valid plan exists: memory that does not suffice, above all. A plan stays valid
  // as long as the cache; the result is never null.
  [[nodiscard]] Result<const ValidPlan*> find(const PlanRequest& request);

  [[nodiscard]] const PlanningRecord& record() const { return record_; }
  [[nodiscard]] const PlanHeader& header() const { return header_; }

 private:
  struct Entry {
    StepShape shape;  // For which the layouts were made.
    StepLayouts layouts;
    StepLengths limits;
    LogitsWanted logits = LogitsWanted::last;
    ValidPlan plan;
  };
  // Whether the plan is for such limits and logits.
  [[nodiscard]] static bool serves(const Entry& entry, const PlanRequest& request);
  Result<const ValidPlan*> make(StepLayouts layouts, const PlanRequest& request, std::size_t hash);

  const Strategy& strategy_;
  PlanHeader header_;
  std::list<Entry> entries_;
  std::unordered_multimap<std::size_t, const Entry*> by_hash_;
  const Entry* last_ = nullptr;
  PlanningRecord record_;
};

}  // namespace weir
