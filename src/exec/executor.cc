#include "exec/executor.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <optional>
#include <system_error>
#include <utility>

#include <fmt/format.h>

#include "base/check.h"
#include "comm/communicator.h"
#include "exec/logits.h"
#include "exec/prepared_plan.h"
#include "exec/rank_words.h"
#include "exec/worker.h"

namespace weir {

// Devices live in this process, all of them, or only the first where there are ranks: the others'
// live in those.
struct Executor::Impl {
  struct KnownPlan {
    std::uint64_t number = 0;  // As the other ranks call it.
    PreparedPlan prepared;
  };

  const Checkpoint& checkpoint;
  ModelSpec model;
  ExecutorOptions options;
  std::vector<std::unique_ptr<Worker>> workers;
  std::map<const Plan*, KnownPlan> plans;  // Of each, while a copy of the plan is alive.
  std::uint64_t next_plan = 0;
  std::vector<DeviceReport> reports;  // Of the other ranks, the latest ones.
  std::vector<Record> records;        // Of the step that is being taken down.
  // When each device came to each communication of a step: by node, then device.
  std::vector<SimTime> comm_starts;
  std::optional<Error> failure;

  Impl(const Checkpoint& source, ModelSpec spec, ExecutorOptions wanted)
      : checkpoint(source), model(std::move(spec)), options(std::move(wanted)) {}
  ~Impl() {
    if (options.ranks != nullptr) tell(CloseWord{});
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  [[nodiscard]] std::size_t num_others() const {
    return options.ranks == nullptr ? 0 : options.ranks->size() - 1;
  }

  void tell(const RankWord& word) const {
    if (num_others() == 0) return;
    const std::vector<std::byte> bytes = pack(word);
    for (std::size_t rank = 1; rank <= num_others(); ++rank) options.ranks->send(rank, bytes);
  }

  void hear_reports() {
    reports.clear();
    for (std::size_t rank = 1; rank <= num_others(); ++rank)
      reports.push_back(unpack_report(options.ranks->receive(rank)));
  }

  Status start_workers() {
    auto communicators = make_communicators();
    for (std::size_t i = 0; i < communicators.size(); ++i) {
      try {
        workers.push_back(std::make_unique<Worker>(static_cast<DeviceId>(i), options.devices[i],
                                                   std::move(communicators[i]), checkpoint, model));
      } catch (const std::system_error& error) {
        return run_failed(fmt::format("device {}: cannot start a thread: {}", i, error.what()));
      }
    }
    return {};
  }

  [[nodiscard]] std::vector<std::unique_ptr<Communicator>> make_communicators() const {
    if (options.ranks == nullptr) return make_thread_communicators(options.devices.size());
    std::vector<std::unique_ptr<Communicator>> own;
    own.push_back(options.ranks->communicator());
    return own;
  }

  // One job on all devices of the plan: the others have been told. Waits for all.
  Status on_all(const ValidPlan& plan, const Job& job) {
    const std::size_t count = std::min(workers.size(), plan->devices.size());
    for (std::size_t i = 0; i < count; ++i) workers[i]->post(job);
    for (std::size_t i = 0; i < count; ++i) workers[i]->wait_done();
    for (std::size_t i = 0; i < count; ++i) {
      if (!workers[i]->failure().empty()) note_failure(0, workers[i]->failure());
    }
    hear_reports();
    for (std::size_t i = 0; i < reports.size(); ++i) {
      if (!reports[i].failure.empty()) note_failure(i + 1, reports[i].failure);
    }
    if (failure) return tl::unexpected(*failure);
    return {};
  }

  void note_failure(std::size_t rank, const std::string& text) {
    failure = Error{ErrorKind::run_failed, text};
    if (options.ranks != nullptr) {
      failure->message =
          fmt::format("rank {} on host {}: {}", rank, options.ranks->host(rank), text);
    }
  }

  Result<KnownPlan*> known_plan(const ValidPlan& plan) {
    const auto known = plans.find(&plan.plan());
    if (known != plans.end() && !known->second.prepared.identity.expired()) return &known->second;
    // Others of which the last copy is gone will not come again.
    std::erase_if(plans, [this](const auto& entry) {
      if (!entry.second.prepared.identity.expired()) return false;
      tell(ForgetPlanWord{entry.second.number});
      return true;
    });
    CHECK(plan->devices.size() <= options.devices.size(),
          "a plan names devices that the executor does not have");
    CHECK(plan->activation_dtype == DType::f32, "CPU devices compute with f32 activations");
    KnownPlan& fresh =
        plans[&plan.plan()] = {.number = next_plan++, .prepared = prepare_values(plan)};
    if (num_others() > 0)
      tell(PrepareWord{.plan = fresh.number, .document = plan_document(plan.plan())});
    const Status loaded =
        on_all(plan, {.kind = Job::Kind::prepare, .plan = &plan, .prepared = &fresh.prepared});
    if (!loaded) return tl::unexpected(loaded.error());
    return &fresh;
  }

  void tell_step(const KnownPlan& plan, const StepInput& input, std::int32_t step_index,
                 bool record) const {
    if (num_others() == 0) return;
    StepWord word = {.plan = plan.number,
                     .step_index = step_index,
                     .record = record,
                     .lengths = input.lengths,
                     .sequences = input.sequences,
                     .tokens = {},
                     .rope_lengths = input.rope_lengths};
    for (const auto& tokens : input.tokens) word.tokens.emplace_back(tokens.begin(), tokens.end());
    tell(word);
  }

  // All records of a step, by the clock of this process.
  void take_records() {
    records.clear();
    for (const auto& worker : workers) {
      std::ranges::move(worker->records(), std::back_inserter(records));
      worker->records().clear();
    }
    for (std::size_t i = 0; i < reports.size(); ++i) {
      const SimTime offset = options.ranks->clock(i + 1).offset;
      for (Record& record : reports[i].records) {
        record.task.start += offset;
        record.task.ready += offset;
        record.task.end += offset;
        records.push_back(std::move(record));
      }
    }
  }

  // A partner's start is on this clock too; between hosts it may be off by the clocks' error, so it
  // is kept within the task.
  void append_records(const Plan& plan, std::vector<TaskRecord>& tasks) {
    take_records();
    const auto start_of = [&](NodeId node, DeviceId device) -> SimTime& {
      return comm_starts[index_of(node) * options.devices.size() + index_of(device)];
    };
    comm_starts.resize(plan.nodes.size() * options.devices.size());
    for (const Record& record : records) {
      if (!record.partners.empty())
        start_of(record.task.node, record.task.device) = record.task.start;
    }
    for (Record& record : records) {
      for (const DeviceId partner : record.partners) {
        record.task.ready =
            std::clamp(start_of(record.task.node, partner), record.task.ready, record.task.end);
      }
      tasks.push_back(record.task);
    }
  }

  void collect_logits(const StepView& step, StepOutput& output) const {
    output.logits.resize(step.input.lengths.size());
    for (std::vector<float>& logits : output.logits) logits.clear();
    std::vector<std::size_t> read(reports.size(), 0);  // Of each report's logits.
    for (const LogitsPart& part : step.logits) {
      const std::size_t device = index_of(part.device);
      if (device < workers.size()) {
        const LocalValue& value = workers[device]->state().values[index_of(part.value)];
        place_logits(step, part, value.parts[part.place].data(), output);
        continue;
      }
      const std::size_t report = device - 1;
      place_logits(step, part, reports[report].logits.data() + read[report], output);
      read[report] +=
          static_cast<std::size_t>(step.bound(part.value).buffers[part.buffer].elements);
    }
  }
};

Executor::Executor(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Executor::~Executor() = default;

Result<std::unique_ptr<Executor>> Executor::make(const Checkpoint& checkpoint,
                                                 const ModelSpec& model, ExecutorOptions options) {
  if (options.devices.empty()) return invalid_input("devices: found none, allowed at least 1");
  CHECK(options.ranks == nullptr ||
            (options.ranks->rank() == 0 && options.ranks->size() == options.devices.size()),
        "rank 0 makes the executor, with a device for every rank");
  auto impl = std::make_unique<Impl>(checkpoint, model, std::move(options));
  if (const Status started = impl->start_workers(); !started)
    return tl::unexpected(started.error());
  return std::unique_ptr<Executor>(new Executor(std::move(impl)));
}

Status Executor::prepare(const ValidPlan& plan) {
  if (impl_->failure) return tl::unexpected(*impl_->failure);
  const auto known = impl_->known_plan(plan);
  if (!known) return tl::unexpected(known.error());
  return {};
}

Result<StepOutput> Executor::run(const ValidPlan& plan, const StepInput& input, std::int32_t step,
                                 std::vector<TaskRecord>* tasks) {
  StepOutput output;
  if (const Status done = run(plan, input, step, tasks, output); !done)
    return tl::unexpected(done.error());
  return output;
}

Status Executor::run(const ValidPlan& plan, const StepInput& input, std::int32_t step,
                     std::vector<TaskRecord>* tasks, StepOutput& output) {
  if (impl_->failure) return tl::unexpected(*impl_->failure);
  CHECK(input.lengths.size() == plan->limits.size() &&
            input.sequences.size() == input.lengths.size() &&
            input.tokens.size() == input.lengths.size() &&
            input.rope_lengths.size() == input.lengths.size(),
        "a step's input is as long as the plan's batch");
  const auto known = impl_->known_plan(plan);
  if (!known) return tl::unexpected(known.error());
  const bool record = tasks != nullptr && impl_->options.record_tasks;
  impl_->tell_step(**known, input, step, record);

  const BoundStep bound(plan, (*known)->prepared, impl_->model, input);
  const Status done = impl_->on_all(plan, {.kind = Job::Kind::step,
                                           .plan = &plan,
                                           .prepared = &(*known)->prepared,
                                           .step = &bound.view,
                                           .step_index = step,
                                           .record = record});
  if (!done) return tl::unexpected(done.error());
  if (record) impl_->append_records(plan.plan(), *tasks);
  impl_->collect_logits(bound.view, output);
  return {};
}

void Executor::release(SequenceId sequence) {
  impl_->tell(ReleaseWord{sequence});
  for (const auto& worker : impl_->workers) worker->state().kv.release(sequence);
}

std::vector<Executor::Held> Executor::held() const {
  std::vector<Held> held;
  for (const auto& worker : impl_->workers) held.push_back(worker->held());
  impl_->tell(HeldWord{});
  impl_->hear_reports();
  for (const DeviceReport& report : impl_->reports) held.push_back(report.held);
  return held;
}

SimTime Executor::now() {
  const auto since = std::chrono::steady_clock::now().time_since_epoch();
  return {std::chrono::duration_cast<std::chrono::nanoseconds>(since).count()};
}

}  // namespace weir
