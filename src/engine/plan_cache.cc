#include "engine/plan_cache.h"

#include <utility>

#include <fmt/format.h>

namespace weir {

PlanCache::PlanCache(const Strategy& strategy, PlanHeader header)
    : strategy_(strategy), header_(std::move(header)) {}

bool PlanCache::serves(const Entry& entry, const PlanRequest& request) {
  return entry.logits == request.logits && entry.limits == request.limits;
}

Result<const ValidPlan*> PlanCache::find(const PlanRequest& request) {
  ++record_.lookups;
  if (last_ != nullptr && serves(*last_, request) &&
      strategy_.same_layouts(last_->shape, request.shape)) {
    return &last_->plan;
  }
  StepLayouts layouts = strategy_.layouts(request.shape);
  const std::size_t hash = hash_of(layouts);
  const auto [first, end] = by_hash_.equal_range(hash);
  for (auto it = first; it != end; ++it) {
    if (!serves(*it->second, request) || it->second->layouts != layouts) continue;
    last_ = it->second;
    return &last_->plan;
  }
  return make(std::move(layouts), request, hash);
}

Result<const ValidPlan*> PlanCache::make(StepLayouts layouts, const PlanRequest& request,
                                         std::size_t hash) {
  ++record_.plans;
  PlanHeader header = header_;
  header.limits = request.limits;
  header.logits = request.logits;
  auto plan = validate(lower(header, layouts));
  if (!plan) {
    return invalid_input(
        fmt::format("{}: no valid plan: {}", header.strategy, join_problems(plan.error())));
  }
  entries_.push_back({.shape = request.shape,
                      .layouts = std::move(layouts),
                      .limits = request.limits,
                      .logits = request.logits,
                      .plan = *std::move(plan)});
  last_ = &entries_.back();
  by_hash_.emplace(hash, last_);
  return &last_->plan;
}

}  // namespace weir
