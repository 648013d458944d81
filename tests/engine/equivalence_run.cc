#include "tests/engine/equivalence_run.h"

#include <utility>
#include <vector>

#include "engine/check.h"
#include "result/timeline_check.h"

namespace weir {
namespace {

std::vector<GenerationRequest> requests_of(const EquivalenceCase& instance) {
  std::vector<GenerationRequest> requests;
  for (std::size_t i = 0; i < instance.requests.size(); ++i) {
    requests.push_back({.prompt = random_prompt(instance.model, instance.requests[i].prompt_len,
                                                instance.seed + i),
                        .max_new_tokens = instance.requests[i].new_tokens});
  }
  return requests;
}

}  // namespace

std::optional<std::string> problem_of(const EquivalenceCase& instance) {
  return problem_of(instance, SmallModel(instance.model), nullptr);
}

std::optional<std::string> problem_of(const EquivalenceCase& instance, const SmallModel& model,
                                      Ranks* ranks) {
  const std::vector<GenerationRequest> requests = requests_of(instance);
  SmallRun single(model, make_strategy("single", {}, instance.model).value(), instance.kv_dtype);
  const auto reference =
      single.generator().run(requests, {.prefill_chunk = 64, .keep_logits = true});
  if (!reference) return "single: " + reference.error().message;

  auto strategy = make_strategy(instance.strategy, instance.options, instance.model, kCaseDevices);
  SmallRun split(model, *std::move(strategy), instance.kv_dtype, ranks);
  const auto generation = split.generator().run(forced_to_follow(requests, *reference),
                                                {.prefill_chunk = instance.prefill_chunk,
                                                 .in_flight = instance.in_flight,
                                                 .keep_logits = true});
  if (!generation) return split.label() + ": " + generation.error().message;
  const std::vector<std::string> untrue = problems_of(generation->timeline);
  if (!untrue.empty()) return split.label() + ": timeline: " + untrue.front();
  const double tolerance = run_tolerance(instance.model, {.kv = instance.kv_dtype}, 64);
  return compare(*reference, *generation, requests, tolerance).first_problem;
}

}  // namespace weir
