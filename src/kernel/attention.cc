#include <algorithm>
#include <atomic>
#include <functional>

#include "base/check.h"
#include "kernel/attention_plan.h"
#include "kernel/kernel.h"
#include "kernel/merge.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernel/attention.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernel/attention_block-inl.h"
#include "kernel/attention_stream-inl.h"
#include "kernel/attention_stream_tiles-inl.h"
#include "kernel/attention_tiles-inl.h"

HWY_BEFORE_NAMESPACE();
namespace weir::kernel {
namespace HWY_NAMESPACE {

void attend(std::span<const AttentionTask> job) {
  const bool few = job.front().rows() <= kMostStreamedRows;
#if HWY_TARGET == HWY_AVX3
  if (amx_enabled()) {
    if (few && fits_tiles(job.front()) && attend_in_runs_of_tiles(job)) return;
    if (!few && attend_in_tiles(job.front())) return;
  }
#endif
  if (few) {
    attend_in_runs(job);
    return;
  }
  attend_in_blocks(job.front());
}

}  // namespace HWY_NAMESPACE
}  // namespace weir::kernel
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace weir::kernel {
namespace {

HWY_EXPORT(attend);

AttentionPlan& plan_of_this_thread() {
  thread_local AttentionPlan plan;
  return plan;
}

// Merges the partial results of all rows, each row's in the order of their keys.
void merge_pieces(const AttentionMerge& merge) {
  const AttentionTask& task = merge.whole;
  const std::int64_t dim = task.tile->value_dim;
  for (std::int64_t row = task.row_begin; row < task.row_end; ++row) {
    std::int64_t at = row - task.row_begin;
    float* const out = task.out(row);
    std::copy_n(merge.partial_out + at * dim, dim, out);
    float lse = merge.partial_lse[at];
    for (std::int64_t piece = 1; piece < merge.count; ++piece) {
      at += task.rows();
      merge_head(dim, out, lse, merge.partial_out + at * dim, merge.partial_lse[at]);
    }
    if (float* const whole = task.lse(row)) *whole = lse;
  }
}

}  // namespace

void attention(Team& team, std::span<const AttentionTile> tiles) {
  AttentionPlan& plan = plan_of_this_thread();
  plan.make(tiles, team.size());
  const std::span<const AttentionJob> jobs = plan.jobs();
  // Below about 10 us of arithmetic on one core the team is not worth waking.
  constexpr std::int64_t kAloneBelow = std::int64_t{1} << 18U;  // Multiply-adds.
  if (plan.cost() < kAloneBelow || jobs.size() == 1 || team.size() == 1) {
    for (const AttentionJob& job : jobs) HWY_DYNAMIC_DISPATCH(attend)(plan.tasks_of(job));
    for (const AttentionMerge& merge : plan.merges()) merge_pieces(merge);
    return;
  }
  std::atomic<std::size_t> next{0};
  const auto take_jobs = [&](int) {
    for (std::size_t index = next++; index < jobs.size(); index = next++) {
      HWY_DYNAMIC_DISPATCH(attend)(plan.tasks_of(jobs[index]));
    }
  };
  team.run(std::ref(take_jobs));
  const auto merge_some = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t index = begin; index < end; ++index) {
      merge_pieces(plan.merges()[static_cast<std::size_t>(index)]);
    }
  };
  // Partial results of 8 heads of 128 values are some 10 us of merging.
  team.parallel_for(static_cast<std::int64_t>(plan.merges().size()), 8, std::ref(merge_some));
}

}  // namespace weir::kernel
#endif
