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
#include "plan/plan_json.h"

namespace weir {

// Devices live in this process, all of them, or only the first where there are ranks: the others'
// live in those.
struct Executor::Impl {
  struct KnownPlan {
    std::uint64_t number = 0;  // As the other ranks call it.
    PreparedPlan prepared;
  };

  // A job of the devices of one plan, and what they leave behind: by worker, and by other rank.
  struct Work {
    std::vector<std::uint32_t> numbers;
    std::vector<JobResult> results;
    std::vector<DeviceReport> reports;
    bool settled = false;  // All of it is there.
  };
  struct StepUnderWay {
    const ValidPlan* plan = nullptr;
    StepInput input;
    std::optional<BoundStep> bound;
    StepOutput output;
    Work work;
  };

  const Checkpoint& checkpoint;
  ModelSpec model;
  ExecutorOptions options;
  std::map<const Plan*, KnownPlan> plans;  // Of each, while a copy of the plan is alive.
  std::uint64_t next_plan = 0;
  // First begun, first ended. Those that have ended are kept to be used again.
  std::vector<std::unique_ptr<StepUnderWay>> under_way;
  std::vector<std::unique_ptr<StepUnderWay>> spare;
  std::vector<Record> records;  // Of the step that is being taken down.
  // When each device came to each communication of a step: by node, then device.
  std::vector<SimTime> comm_starts;
  std::optional<Error> failure;
  std::vector<std::unique_ptr<Worker>> workers;  // Last: they look at the rest until they are gone.

  Impl(const Checkpoint& source, ModelSpec spec, ExecutorOptions wanted)
      : checkpoint(source), model(std::move(spec)), options(std::move(wanted)) {}
  // Devices wait for each other in what has been begun, so all of it is done before any is gone.
  ~Impl() {
    do_own_jobs();
    for (const auto& worker : workers) worker->wait_all_done();
    if (options.ranks != nullptr) tell(CloseWord{});
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  [[nodiscard]] std::size_t num_others() const {
    return options.ranks == nullptr ? 0 : options.ranks->size() - 1;
  }

  // The first device's part of what has been begun, which is this thread's to do: all of it, for
  // other devices may be waiting for any.
  void do_own_jobs() const {
    if (!workers.empty()) workers.front()->do_own_jobs();
  }

  void tell(const RankWord& word) const {
    if (num_others() == 0) return;
    const std::vector<std::byte> bytes = pack(word);
    for (std::size_t rank = 1; rank <= num_others(); ++rank) options.ranks->send(rank, bytes);
  }

  [[nodiscard]] std::vector<DeviceReport> hear_reports() const {
    std::vector<DeviceReport> reports;
    for (std::size_t rank = 1; rank <= num_others(); ++rank) {
      DeviceReport& report = reports.emplace_back();
      if (auto heard = unpack_report(options.ranks->receive(rank))) {
        report = *std::move(heard);
      } else {
        report.failure = heard.error().message;
      }
    }
    return reports;
  }

  Status start_workers() {
    auto communicators = make_communicators();
    for (std::size_t i = 0; i < communicators.size(); ++i) {
      try {
        workers.push_back(std::make_unique<Worker>(
            static_cast<DeviceId>(i), options.devices[i],
            i == 0 ? Worker::Thread::posters : Worker::Thread::own, std::move(communicators[i]),
            DeviceWeights(checkpoint, model)));
      } catch (const std::system_error& error) {
        return run_failed(fmt::format("device {}: cannot start a thread: {}", i, error.what()));
      }
    }
    return {};
  }

  [[nodiscard]] std::vector<std::unique_ptr<Communicator>> make_communicators() const {
    if (options.ranks == nullptr)
      return make_thread_communicators(options.devices.size(), options.awake);
    std::vector<std::unique_ptr<Communicator>> own;
    own.push_back(options.ranks->communicator());
    return own;
  }

  // One job on all devices of the plan: the others have been told.
  void post(const ValidPlan& plan, Job job, Work& work) {
    const std::size_t count = std::min(workers.size(), plan->devices.size());
    work.settled = false;
    work.numbers.clear();
    work.results.resize(count);
    for (std::size_t i = 0; i < count; ++i) {
      work.results[i].failure.clear();
      work.results[i].interrupted = false;
      work.results[i].records.clear();
      job.result = &work.results[i];
      work.numbers.push_back(workers[i]->post(job));
    }
  }

  // Waits for all devices. The other ranks answer in the order in which they were told.
  void settle(Work& work) {
    if (work.settled) return;
    do_own_jobs();
    for (std::size_t i = 0; i < work.numbers.size(); ++i) workers[i]->wait_done(work.numbers[i]);
    for (const JobResult& result : work.results) {
      if (!result.failure.empty()) note_failure(0, result.failure);
    }
    work.reports = hear_reports();
    for (std::size_t i = 0; i < work.reports.size(); ++i) {
      if (!work.reports[i].failure.empty()) note_failure(i + 1, work.reports[i].failure);
    }
    work.settled = true;
  }

  void settle_steps() {
    for (const auto& step : under_way) settle(step->work);
  }

  // The first one counts: what fails later fails because of it.
  void note_failure(std::size_t rank, const std::string& text) {
    if (failure) return;
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
    settle_steps();
    if (failure) return tl::unexpected(*failure);
    if (num_others() > 0)
      tell(PrepareWord{.plan = fresh.number, .document = plan_to_json_text(plan.plan())});
    Work loading;
    post(plan, {.kind = Job::Kind::prepare, .plan = &plan, .prepared = &fresh.prepared}, loading);
    settle(loading);
    if (failure) return tl::unexpected(*failure);
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
  void take_records(Work& work) {
    records.clear();
    for (JobResult& result : work.results)
      std::ranges::move(result.records, std::back_inserter(records));
    for (std::size_t i = 0; i < work.reports.size(); ++i) {
      const SimTime offset = options.ranks->clock(i + 1).offset;
      for (Record& record : work.reports[i].records) {
        record.task.start += offset;
        record.task.ready += offset;
        record.task.end += offset;
        records.push_back(std::move(record));
      }
    }
  }

  // A partner's start is on this clock too; between hosts it may be off by the clocks' error, so it
  // is kept within the task.
  void append_records(const Plan& plan, Work& work, std::vector<TaskRecord>& tasks) {
    take_records(work);
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

  StepUnderWay& add_step() {
    if (spare.empty()) spare.push_back(std::make_unique<StepUnderWay>());
    under_way.push_back(std::move(spare.back()));
    spare.pop_back();
    return *under_way.back();
  }
  // The first one.
  void drop_step() {
    under_way.front()->bound.reset();
    spare.push_back(std::move(under_way.front()));
    under_way.erase(under_way.begin());
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
  if (auto done = run(plan, input, step, tasks, output); !done) return tl::unexpected(done.error());
  return output;
}

Status Executor::run(const ValidPlan& plan, const StepInput& input, std::int32_t step,
                     std::vector<TaskRecord>* tasks, StepOutput& output) {
  CHECK(impl_->under_way.empty(), "a step that is run is the only one");
  if (auto begun = begin(plan, input, step, tasks != nullptr); !begun) return begun;
  return end(tasks, output);
}

Status Executor::begin(const ValidPlan& plan, const StepInput& input, std::int32_t step,
                       bool record) {
  Impl& impl = *impl_;
  if (impl.failure) return tl::unexpected(*impl.failure);
  CHECK(input.lengths.size() == plan->limits.size() &&
            input.sequences.size() == input.lengths.size() &&
            input.tokens.size() == input.lengths.size() &&
            input.rope_lengths.size() == input.lengths.size(),
        "a step's input is as long as the plan's batch");
  CHECK(impl.under_way.size() < kMostStepsUnderWay, "some steps end before others are begun");
  const auto known = impl.known_plan(plan);
  if (!known) return tl::unexpected(known.error());
  record = record && impl.options.record_tasks;
  impl.tell_step(**known, input, step, record);

  Impl::StepUnderWay& begun = impl.add_step();
  begun.plan = &plan;
  begun.input = input;
  begun.bound.emplace(plan, (*known)->prepared, impl.model, begun.input);
  make_room(begun.bound->view(), begun.output);
  impl.post(plan,
            {.kind = Job::Kind::step,
             .plan = &plan,
             .prepared = &(*known)->prepared,
             .step = &begun.bound->view(),
             .output = &begun.output,
             .step_index = step,
             .record = record},
            begun.work);
  return {};
}

Result<StepOutput> Executor::end(std::vector<TaskRecord>* tasks) {
  StepOutput output;
  if (auto ended = end(tasks, output); !ended) return tl::unexpected(ended.error());
  return output;
}

Status Executor::end(std::vector<TaskRecord>* tasks, StepOutput& output) {
  Impl& impl = *impl_;
  CHECK(!impl.under_way.empty(), "a step that ends was begun");
  Impl::StepUnderWay& step = *impl.under_way.front();
  impl.settle(step.work);
  if (impl.failure) {
    impl.drop_step();
    return tl::unexpected(*impl.failure);
  }
  if (tasks != nullptr && impl.options.record_tasks)
    impl.append_records(step.plan->plan(), step.work, *tasks);
  for (std::size_t i = 0; i < step.work.reports.size(); ++i) {
    place_logits(step.bound->view(), static_cast<DeviceId>(i + 1),
                 step.work.reports[i].logits.data(), step.output);
  }
  output.logits.swap(step.output.logits);
  impl.drop_step();
  return {};
}

void Executor::abandon() {
  impl_->settle_steps();
  while (!impl_->under_way.empty()) impl_->drop_step();
}

PinnedThread Executor::pin_caller() const {
  const std::vector<int>& cores = impl_->options.devices.front().cores;
  return PinnedThread(cores.empty() ? std::optional<int>() : cores.front());
}

void Executor::release(SequenceId sequence) {
  impl_->tell(ReleaseWord{sequence});
  for (const auto& worker : impl_->workers)
    worker->post({.kind = Job::Kind::release, .sequence = sequence});
  if (impl_->under_way.empty()) impl_->do_own_jobs();
}

std::vector<Executor::Held> Executor::held() const {
  CHECK(impl_->under_way.empty(), "no step is under way");
  std::vector<Held> held;
  for (const auto& worker : impl_->workers) {
    worker->wait_all_done();
    held.push_back(worker->held());
  }
  impl_->tell(HeldWord{});
  for (const DeviceReport& report : impl_->hear_reports()) held.push_back(report.held);
  return held;
}

SimTime Executor::now() {
  const auto since = std::chrono::steady_clock::now().time_since_epoch();
  return {std::chrono::duration_cast<std::chrono::nanoseconds>(since).count()};
}

}  // namespace weir
