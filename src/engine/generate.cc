#include "engine/generate.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include <fmt/format.h>

namespace weir {
namespace {

void check_tokens(std::string_view field, std::span<const std::int64_t> tokens,
                  const ModelSpec& model, std::vector<std::string>& problems) {
  const auto outside = std::ranges::find_if(
      tokens, [&](std::int64_t token) { return token < 0 || token >= model.vocab_size; });
  if (outside == tokens.end()) return;
  problems.push_back(fmt::format("{}[{}]: found token {}, allowed 0..{} (vocab_size {})", field,
                                 outside - tokens.begin(), *outside, model.vocab_size - 1,
                                 model.vocab_size));
}

void check_request(const std::string& name, const GenerationRequest& request,
                   const ModelSpec& model, std::vector<std::string>& problems) {
  const auto prompt_len = static_cast<std::int64_t>(request.prompt.size());
  if (prompt_len == 0)
    problems.push_back(fmt::format("{}.prompt: found 0 tokens, allowed at least 1", name));
  if (prompt_len > model.max_position) {
    problems.push_back(fmt::format("{}.prompt: found {} tokens, allowed 1..{} (max_position)", name,
                                   prompt_len, model.max_position));
  } else if (const std::int64_t most = model.max_position - prompt_len;
             request.max_new_tokens < 0 || request.max_new_tokens > most) {
    problems.push_back(
        fmt::format("{}.max_new_tokens: found {}, allowed 0..{} (max_position {}, prompt {})", name,
                    request.max_new_tokens, most, model.max_position, prompt_len));
  }
  const auto num_forced = static_cast<std::int64_t>(request.forced.size());
  if (num_forced != 0 && num_forced != request.max_new_tokens) {
    problems.push_back(fmt::format("{}.forced: found {} tokens, allowed {} (max_new_tokens)", name,
                                   num_forced, request.max_new_tokens));
  }
  check_tokens(name + ".prompt", request.prompt, model, problems);
  check_tokens(name + ".forced", request.forced, model, problems);
  if (const auto sampling = check_sampling(request.sampling); !sampling)
    problems.push_back(fmt::format("{}.sampling: {}", name, sampling.error().message));
}

Status check_run(std::span<const GenerationRequest> requests, const GenerationOptions& options,
                 const ModelSpec& model) {
  std::vector<std::string> problems;
  if (requests.empty()) problems.emplace_back("requests: found none, allowed at least 1");
  if (options.prefill_chunk < 1 || options.prefill_chunk > kMaxPrefillChunk) {
    problems.push_back(fmt::format("prefill_chunk: found {}, allowed 1..{}", options.prefill_chunk,
                                   kMaxPrefillChunk));
  }
  if (options.in_flight < 1 || options.in_flight > kMostInFlight) {
    problems.push_back(
        fmt::format("in_flight: found {}, allowed 1..{}", options.in_flight, kMostInFlight));
  }
  for (std::size_t i = 0; i < requests.size(); ++i)
    check_request(fmt::format("requests[{}]", i), requests[i], model, problems);
  if (!problems.empty()) return invalid_input(join_problems(problems));
  return {};
}

void keep_largest(const std::vector<DeviceMemory>& memory, std::vector<DeviceMemory>& largest) {
  if (largest.empty()) largest.resize(memory.size());
  for (std::size_t i = 0; i < memory.size(); ++i) {
    if (memory[i].total() > largest[i].total()) largest[i] = memory[i];
  }
}

// A device is in a step of one group at a time, but holds the KV cache of all of them.
std::vector<DeviceMemory> together(const std::vector<std::vector<DeviceMemory>>& groups) {
  std::vector<DeviceMemory> all;
  for (const std::vector<DeviceMemory>& group : groups) {
    std::vector<DeviceMemory> with_caches = group;
    for (const std::vector<DeviceMemory>& other : groups) {
      if (&other == &group) continue;
      for (std::size_t i = 0; i < other.size(); ++i) with_caches[i].kv_cache += other[i].kv_cache;
    }
    keep_largest(with_caches, all);
  }
  return all;
}

}  // namespace

std::string_view to_string(FinishReason reason) {
  switch (reason) {
    case FinishReason::length:
      return "length";
    case FinishReason::stop:
      return "stop";
    case FinishReason::cancelled:
      break;
  }
  return "cancelled";
}

double Generation::decode_planning_share() const {
  SimTime spent;
  SimTime running;
  for (std::size_t i = 0; i < timeline.steps.size(); ++i) {
    const StepRecord& step = timeline.steps[i];
    if (step.prefill) continue;
    spent += planning_times[i];
    running += step.end - step.start;
  }
  const SimTime all = spent + running;
  return all.ns == 0 ? 0 : to_seconds(spent) / to_seconds(all);
}

// One run: the requests with what has become of them so far.
class Generator::Batch {
 public:
  Batch(Generator& generator, std::span<const GenerationRequest> requests,
        const GenerationOptions& options)
      : executor_(generator.executor_), plans_(generator.plans_), options_(options) {
    const PlanningRecord before = plans_.record();
    lookups_before_ = before.lookups;
    plans_before_ = before.plans;
    sequences_.reserve(requests.size());
    for (std::size_t i = 0; i < requests.size(); ++i) {
      Sequence& sequence = sequences_.emplace_back();
      sequence.request = &requests[i];
      sequence.index = i;
      sequence.id = SequenceId{generator.next_sequence_++};
      sequence.group = i * num_groups(requests.size()) / requests.size();
      progress_.prompt_tokens += sequence.prompt_len();
    }
    groups_.resize(num_groups(requests.size()));
    generation_.outputs.resize(requests.size());
    generation_.timeline.requests.resize(requests.size());
  }

  Result<Generation> run() {
    if (auto status = prepare(); !status) return tl::unexpected(status.error());
    const PinnedThread pinned = executor_.pin_caller();
    start();
    // A group's step that ends makes room for its next one.
    for (Group& group : groups_) {
      if (auto status = begin_step(group); !status) return tl::unexpected(status.error());
    }
    while (!under_way_.empty()) {
      Group& group = *under_way_.front();
      under_way_.erase(under_way_.begin());
      if (auto status = end_step(group); !status) return tl::unexpected(status.error());
      if (is_cancelled()) continue;
      if (auto status = begin_step(group); !status) return tl::unexpected(status.error());
    }
    finish();
    return std::move(generation_);
  }

  // Steps that have not ended still read the requests' tokens.
  ~Batch() { executor_.abandon(); }
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;

 private:
  struct Sequence {
    const GenerationRequest* request = nullptr;
    std::size_t index = 0;
    std::size_t group = 0;
    SequenceId id{};
    std::int64_t past_len = 0;  // Tokens in the KV cache.
    std::int64_t next_token = 0;
    std::int64_t num_generated = 0;
    bool ended = false;

    [[nodiscard]] std::int64_t prompt_len() const {
      return static_cast<std::int64_t>(request->prompt.size());
    }
    [[nodiscard]] bool in_prefill() const { return past_len < prompt_len(); }
    [[nodiscard]] std::int64_t max_len() const { return prompt_len() + request->max_new_tokens; }
    [[nodiscard]] std::int64_t q_len(std::int64_t chunk) const {
      return in_prefill() ? std::min(chunk, prompt_len() - past_len) : 1;
    }
    // Whether the next step with `chunk` ends in a token.
    [[nodiscard]] bool yields(std::int64_t chunk) const {
      return request->max_new_tokens > 0 && past_len + q_len(chunk) >= prompt_len();
    }
    [[nodiscard]] std::span<const std::int64_t> new_tokens(std::int64_t chunk) const {
      if (!in_prefill()) return {&next_token, 1};
      return std::span(request->prompt)
          .subspan(static_cast<std::size_t>(past_len), static_cast<std::size_t>(q_len(chunk)));
    }
  };

  // A batch by itself, with its present step. Lists keep their room from step to step.
  struct Group {
    std::vector<Sequence*> members;  // Of the step.
    PlanRequest request;
    StepInput input;
    std::size_t step = 0;              // In the timeline.
    std::vector<DeviceMemory> memory;  // By device, the most that any plan needs.
  };

  [[nodiscard]] std::size_t num_groups(std::size_t num_requests) const {
    return std::min(static_cast<std::size_t>(options_.in_flight), num_requests);
  }

  // Those with prompt left, while there are such; then all that have not ended.
  void find_members(Group& group) {
    const auto own = static_cast<std::size_t>(&group - groups_.data());
    const auto select = [&](auto wanted) {
      group.members.clear();
      for (Sequence& sequence : sequences_) {
        if (sequence.group == own && wanted(sequence)) group.members.push_back(&sequence);
      }
    };
    select([](const Sequence& s) { return s.in_prefill(); });
    if (group.members.empty()) select([](const Sequence& s) { return !s.ended; });
  }

  // All members are in the same phase.
  void make_request(Group& group) const {
    PlanRequest& request = group.request;
    request.shape.clear();
    request.limits.clear();
    request.logits = LogitsWanted::none;
    for (const Sequence* member : group.members) {
      const std::int64_t q_len = member->q_len(options_.prefill_chunk);
      request.shape.push_back(
          {.past_len = member->past_len, .q_len = q_len, .max_len = member->max_len()});
      const std::int64_t most_q_len =
          member->in_prefill() ? std::min(options_.prefill_chunk, member->prompt_len()) : 1;
      request.limits.push_back({.q_len = most_q_len, .kv_len = member->max_len()});
      if (member->yields(options_.prefill_chunk)) request.logits = LogitsWanted::last;
    }
  }

  // A new plan also brings its weights.
  Result<const ValidPlan*> find_plan(Group& group, const PlanRequest& request) {
    const std::int64_t made_before = plans_.record().plans;
    auto plan = plans_.find(request);
    if (!plan) return plan;
    keep_largest((*plan)->memory(), group.memory);
    if (plans_.record().plans == made_before) return plan;
    if (auto loaded = executor_.prepare(**plan); !loaded) return tl::unexpected(loaded.error());
    return plan;
  }

  // Plans and weights of the first prefill and of the first and the longest decode, so that a run
  // that cannot end does not begin, and that no step is charged for loading.
  Status prepare() {
    for (Group& group : groups_) {
      if (auto status = prepare(group); !status) return status;
    }
    return check_memory();
  }

  // Each group's plans fit by themselves.
  [[nodiscard]] Status check_memory() const {
    const std::vector<DeviceMemory> need = together(memory_of_groups());
    for (std::size_t i = 0; i < need.size(); ++i) {
      const PlanHeader::Device& device = plans_.header().devices[i];
      if (!device.memory_bytes || need[i].total() <= *device.memory_bytes) continue;
      return invalid_input(fmt::format(
          "in_flight: found {}, with which device {} ({}) needs {} bytes (kv_cache {}), allowed {}",
          groups_.size(), i, device.name, need[i].total(), need[i].kv_cache, *device.memory_bytes));
    }
    return {};
  }

  [[nodiscard]] std::vector<std::vector<DeviceMemory>> memory_of_groups() const {
    std::vector<std::vector<DeviceMemory>> memory;
    for (const Group& group : groups_) memory.push_back(group.memory);
    return memory;
  }

  Status prepare(Group& group) {
    find_members(group);
    make_request(group);
    if (auto plan = find_plan(group, group.request); !plan) return tl::unexpected(plan.error());
    std::vector<Sequence*> all = group.members;
    std::erase_if(all, [](const Sequence* s) { return s->request->max_new_tokens < 2; });
    if (all.empty()) return {};
    PlanRequest decode{.shape = {}, .limits = {}, .logits = LogitsWanted::last};
    for (const Sequence* member : all) {
      decode.shape.push_back(
          {.past_len = member->prompt_len(), .q_len = 1, .max_len = member->max_len()});
      decode.limits.push_back({.q_len = 1, .kv_len = member->max_len()});
    }
    if (auto plan = find_plan(group, decode); !plan) return tl::unexpected(plan.error());
    for (RequestShape& shape : decode.shape) shape.past_len = shape.max_len - 2;
    if (auto plan = find_plan(group, decode); !plan) return tl::unexpected(plan.error());
    return {};
  }

  void start() {
    Timeline& timeline = generation_.timeline;
    for (const PlanHeader::Device& device : plans_.header().devices)
      timeline.devices.push_back(device.name);
    timeline.start = Executor::now();
    for (const Sequence& sequence : sequences_) {
      timeline.requests[sequence.index] = {
          .input_tokens = sequence.prompt_len(), .arrival = timeline.start, .token_times = {}};
    }
  }

  // Nothing begins where the group has nothing more to do.
  Status begin_step(Group& group) {
    if (is_cancelled()) return {};
    find_members(group);
    if (group.members.empty()) return {};
    const SimTime planning_start = Executor::now();
    make_request(group);
    const auto plan = find_plan(group, group.request);
    if (!plan) return tl::unexpected(plan.error());
    generation_.planning_times.push_back(Executor::now() - planning_start);

    StepRecord record;
    record.prefill = group.members.front()->in_prefill();
    fill_input(group);
    group.step = generation_.timeline.steps.size();
    record.start = Executor::now();
    auto begun = executor_.begin(**plan, group.input, static_cast<std::int32_t>(group.step),
                                 options_.record_tasks);
    if (!begun) return begun;
    generation_.timeline.steps.push_back(record);
    under_way_.push_back(&group);
    return {};
  }

  // Of the group whose step was begun first.
  Status end_step(Group& group) {
    Timeline& timeline = generation_.timeline;
    auto ended = executor_.end(options_.record_tasks ? &timeline.tasks : nullptr, output_);
    const SimTime end = Executor::now();
    if (!ended) return ended;
    timeline.steps[group.step].end = end;
    for (std::size_t i = 0; i < group.members.size(); ++i) {
      const std::int64_t before = progress_.output_tokens;
      if (auto status = advance(*group.members[i], output_.logits[i]); !status) return status;
      timeline.steps[group.step].new_tokens += progress_.output_tokens - before;
    }
    if (options_.on_progress) options_.on_progress(progress_);
    return {};
  }

  void fill_input(Group& group) const {
    StepInput& input = group.input;
    input.lengths.clear();
    input.sequences.clear();
    input.tokens.clear();
    input.rope_lengths.clear();
    for (const Sequence* member : group.members) {
      const std::span<const std::int64_t> tokens = member->new_tokens(options_.prefill_chunk);
      const auto q_len = static_cast<std::int64_t>(tokens.size());
      input.lengths.push_back({.q_len = q_len, .kv_len = member->past_len + q_len});
      input.sequences.push_back(member->id);
      input.tokens.push_back(tokens);
      input.rope_lengths.push_back(member->max_len());
    }
  }

  // After a step: its tokens are in the cache, and its logits yield a token where the prompt is
  // done.
  Status advance(Sequence& sequence, std::vector<float>& logits) {
    const bool yields = sequence.yields(options_.prefill_chunk);
    const bool was_prefill = sequence.in_prefill();
    const std::int64_t q_len = sequence.q_len(options_.prefill_chunk);
    sequence.past_len += q_len;
    if (was_prefill) progress_.prompt_done += q_len;
    if (yields) return accept(sequence, logits);
    if (!sequence.in_prefill()) end(sequence, FinishReason::length);
    return {};
  }

  Status accept(Sequence& sequence, std::vector<float>& logits) {
    const GenerationRequest& request = *sequence.request;
    const auto token = sample_token(
        logits, request.sampling,
        {.request = sequence.index, .token = static_cast<std::uint64_t>(sequence.num_generated)});
    if (!token) return tl::unexpected(token.error());
    generation_.timeline.requests[sequence.index].token_times.push_back(Executor::now());
    GenerationOutput& output = generation_.outputs[sequence.index];
    output.tokens.push_back(*token);
    if (options_.keep_logits) output.logits.push_back(std::move(logits));
    ++progress_.output_tokens;
    const bool is_unwanted =
        options_.on_token && options_.on_token(sequence.index, *token) == AfterToken::stop;
    const bool is_stop = std::ranges::find(request.stop_ids, *token) != request.stop_ids.end();
    const bool is_forced = !request.forced.empty();
    sequence.next_token =
        is_forced ? request.forced[static_cast<std::size_t>(sequence.num_generated)] : *token;
    ++sequence.num_generated;
    if (!is_forced && (is_stop || is_unwanted)) {
      end(sequence, FinishReason::stop);
    } else if (sequence.num_generated == request.max_new_tokens) {
      end(sequence, FinishReason::length);
    }
    return {};
  }

  void end(Sequence& sequence, FinishReason reason) {
    sequence.ended = true;
    generation_.outputs[sequence.index].finish = reason;
    executor_.release(sequence.id);
  }

  [[nodiscard]] bool is_cancelled() const {
    return options_.cancel != nullptr && options_.cancel->load(std::memory_order_relaxed);
  }

  void finish() {
    for (Sequence& sequence : sequences_) {
      if (sequence.ended) continue;
      generation_.cancelled = true;
      end(sequence, FinishReason::cancelled);
    }
    generation_.timeline.end = Executor::now();
    generation_.memory = together(memory_of_groups());
    generation_.planning = {.lookups = plans_.record().lookups - lookups_before_,
                            .plans = plans_.record().plans - plans_before_};
  }

  Executor& executor_;
  PlanCache& plans_;
  const GenerationOptions& options_;
  std::vector<Sequence> sequences_;  // Which stay where they are.
  std::vector<Group> groups_;        // Likewise.
  std::vector<Group*> under_way_;  // Those with a step under way, in the order of their beginnings.
  StepOutput output_;              // Of the step that has ended last.
  GenerationProgress progress_;
  Generation generation_;
  std::int64_t lookups_before_ = 0;
  std::int64_t plans_before_ = 0;
};

Generator::Generator(Executor& executor, const Strategy& strategy, PlanHeader header)
    : executor_(executor), plans_(strategy, std::move(header)) {}

Result<Generation> Generator::run(std::span<const GenerationRequest> requests,
                                  const GenerationOptions& options) {
  if (auto checked = check_run(requests, options, plans_.header().model); !checked)
    return tl::unexpected(checked.error());
  return Batch(*this, requests, options).run();
}

}  // namespace weir
