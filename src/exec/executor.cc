#include "exec/executor.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <map>
#include <new>
#include <thread>
#include <tuple>

#include <fmt/format.h>

#include "base/check.h"
#include "comm/communicator.h"
#include "exec/compute.h"
#include "exec/device_state.h"
#include "exec/redistribute.h"
#include "plan/work.h"

namespace weir {
namespace {

// What follows from a plan alone: made when the plan is first seen.
struct PreparedPlan {
  std::weak_ptr<const void> identity;  // Of the plan.
  std::vector<std::uint32_t>
      layout_of;                   // By value: which distinct (layout, shape) it is laid out by.
  std::vector<ValueId> examples;   // One value for each of those.
  std::vector<BoundLayout> bound;  // Of the examples, for these lengths.
  StepLengths bound_for;
  std::vector<PreparedDevice> devices;
};

// Binds the examples to a step's lengths, those only that differ from the last step's.
void bind_examples(const Plan& plan, const StepLengths& lengths, PreparedPlan& prepared) {
  const bool same_tokens = prepared.bound.size() == prepared.examples.size() &&
                           std::ranges::equal(lengths, prepared.bound_for, {},
                                              &RequestLengths::q_len, &RequestLengths::q_len);
  prepared.bound.resize(prepared.examples.size());
  for (std::size_t i = 0; i < prepared.examples.size(); ++i) {
    const Value& value = plan.at(prepared.examples[i]);
    const TensorShape shape = shape_of(plan, value);
    if (same_tokens && !shape.counts_positions && !shape.dim_is_positions) continue;
    prepared.bound[i] = bind(plan, value, lengths);
  }
  prepared.bound_for = lengths;
}

PreparedPlan prepare_values(const ValidPlan& valid) {
  const Plan& plan = valid.plan();
  PreparedPlan prepared;
  prepared.identity = valid.identity();
  std::map<std::tuple<LayoutId, Role, std::int32_t>, std::uint32_t> known;
  for (std::size_t i = 0; i < plan.values.size(); ++i) {
    const Value& value = plan.values[i];
    const auto next = static_cast<std::uint32_t>(prepared.examples.size());
    const auto [place, added] =
        known.try_emplace({value.layout, value.role, value.microbatch}, next);
    if (added) prepared.examples.push_back(static_cast<ValueId>(i));
    prepared.layout_of.push_back(place->second);
  }
  prepared.devices.resize(plan.devices.size());
  for (std::size_t device = 0; device < plan.devices.size(); ++device) {
    auto& readers = prepared.devices[device].readers;
    readers.assign(plan.values.size(), 0);
    for (const auto* queue : {&plan.devices[device].compute, &plan.devices[device].comm}) {
      for (const NodeId node : *queue) {
        for (const ValueId input : plan.at(node).inputs) ++readers[index_of(input)];
      }
    }
  }
  return prepared;
}

// Loads the weights of every compute task of the device, in queue order.
std::vector<TaskWeights> load_weights(const Plan& plan, DeviceId device, Team& team,
                                      DeviceWeights& weights) {
  std::vector<TaskWeights> tasks;
  for (const NodeId id : plan.devices[index_of(device)].compute) {
    const Node& node = plan.at(id);
    TaskWeights& task = tasks.emplace_back();
    for (std::size_t output = 0; output < node.outputs.size(); ++output) {
      auto& buffers = task.emplace_back();
      const Layout& layout = plan.layout_of(node.outputs[output]);
      std::vector<Box> seen;
      for (const Piece& piece : layout.pieces) {
        if (piece.device != device || std::ranges::find(seen, piece.box) != seen.end()) continue;
        seen.push_back(piece.box);
        BufferWeights& loaded = buffers.emplace_back();
        for (const WeightSlice& slice : weight_slices(plan, node, output, piece)) {
          if (node.kind == OpKind::embed) {
            loaded.table = weights.table(slice);
          } else if (class_of(node.kind) == OpClass::linear && slice.rows() != 1) {
            loaded.matrix = &weights.matrix(team, slice);
          } else if (class_of(node.kind) == OpClass::linear && loaded.matrix == nullptr) {
            loaded.matrix =
                &weights.matrix(team, slice);  // A matrix of one row comes before its bias.
          } else {
            loaded.vector = weights.vector(slice);
          }
        }
      }
    }
  }
  return tasks;
}

// What a worker is to do next.
struct Job {
  enum class Kind { prepare, step, stop } kind = Kind::stop;
  const ValidPlan* plan = nullptr;
  PreparedPlan* prepared = nullptr;
  const StepView* step = nullptr;
  std::int32_t step_index = 0;
  bool record = false;
};

// A task as its device saw it. When partners came is known when all devices are done.
struct Record {
  TaskRecord task;
  std::vector<DeviceId> partners;  // Of a communication.
};

// Waking a blocked thread costs some 40 us, as long as a small decode step takes. Spinning for as
// long before blocking costs at most twice what the best choice in hindsight would have (Karlin et
// al., SODA 1990); yielding meanwhile leaves the core to whoever has work for it.
constexpr std::chrono::microseconds kSpinTime{50};
constexpr int kLooksPerYield = 64;

constexpr std::size_t kCacheLine = 64;

// Returns once `word` differs from `old`.
void wait_while_equal(const std::atomic<std::uint32_t>& word, std::uint32_t old) {
  const auto deadline = std::chrono::steady_clock::now() + kSpinTime;
  do {
    for (int look = 0; look < kLooksPerYield; ++look) {
      if (word.load(std::memory_order_acquire) != old) return;
    }
    std::this_thread::yield();
  } while (std::chrono::steady_clock::now() < deadline);
  word.wait(old, std::memory_order_acquire);
}

// One device: its cores, what it holds, and the thread that walks its queues.
class Worker {
 public:
  Worker(DeviceId id, const ExecDevice& device, std::unique_ptr<Communicator> communicator,
         const Checkpoint& checkpoint, const ModelSpec& model)
      : cores_(device.cores), communicator_(std::move(communicator)), weights_(checkpoint, model) {
    state_.id = id;
    state_.communicator = communicator_.get();
    thread_ = std::jthread([this] { main(); });
  }
  ~Worker() { post({.kind = Job::Kind::stop}); }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // Only when the last job is done.
  void post(const Job& job) {
    job_ = job;
    posted_.fetch_add(1, std::memory_order_release);
    posted_.notify_one();
  }
  void wait_done() {
    const std::uint32_t posted = posted_.load(std::memory_order_relaxed);
    if (done_.load(std::memory_order_acquire) != posted) wait_while_equal(done_, posted - 1);
  }

  // The following only while no job runs.
  [[nodiscard]] const std::string& failure() const { return failure_; }
  [[nodiscard]] DeviceState& state() { return state_; }
  [[nodiscard]] Communicator& communicator() { return *communicator_; }
  [[nodiscard]] std::vector<Record>& records() { return records_; }
  // When this device came to a communication of the step, which must have been recorded.
  [[nodiscard]] SimTime start_of(NodeId node) const { return comm_starts_[index_of(node)]; }
  [[nodiscard]] Executor::Held held() const {
    return {
        .weights = weights_.bytes(), .kv_cache = state_.kv.bytes(), .buffers = state_.pool.bytes()};
  }

 private:
  void main() {
    Team team(std::max(1, static_cast<int>(cores_.size())), cores_);
    team.pin_caller();
    state_.team = &team;
    for (std::uint32_t seen = 0;;) {
      wait_while_equal(posted_, seen);
      ++seen;
      const Job job = job_;
      if (job.kind != Job::Kind::stop)
        guarded([&] { job.kind == Job::Kind::prepare ? prepare(job) : walk(job); });
      done_.store(seen, std::memory_order_release);
      done_.notify_one();
      if (job.kind == Job::Kind::stop) return;
    }
  }

  template <class Body>
  void guarded(Body body) {
    try {
      body();
    } catch (const std::bad_alloc&) {
      fail(fmt::format("device {}: out of memory", index_of(state_.id)));
    } catch (const std::exception& error) {
      fail(fmt::format("device {}: {}", index_of(state_.id), error.what()));
    }
  }

  void fail(std::string text) {
    failure_ = std::move(text);
    communicator_->abort();
  }

  void prepare(const Job& job) {
    const Plan& plan = job.plan->plan();
    PreparedDevice& prepared = job.prepared->devices[index_of(state_.id)];
    prepared.weights = load_weights(plan, state_.id, *state_.team, weights_);
    for (const NodeId node : plan.devices[index_of(state_.id)].comm)
      prepared.all_reduce_members.push_back(all_reduce_members(plan, node, state_.id));
  }

  // The queues of one step. Communication is looked at between compute tasks, so that it goes on
  // behind them; a device that can do neither sleeps until something arrives.
  void walk(const Job& job) {
    const StepView& step = *job.step;
    const Plan& plan = step.plan.plan();
    const PreparedDevice& prepared = job.prepared->devices[index_of(state_.id)];
    const PlanDevice& queues = plan.devices[index_of(state_.id)];
    begin_step(plan, prepared);
    if (job.record) comm_starts_.assign(plan.nodes.size(), SimTime{});
    std::size_t next_compute = 0;
    std::size_t next_comm = 0;
    std::optional<CommTask> comm;
    TaskRecord comm_record;
    while (next_compute < queues.compute.size() || next_comm < queues.comm.size()) {
      // Before anything is looked at, so that no change after the look is slept through.
      const std::uint32_t seen = communicator_->events();
      if (communicator_->aborted()) break;
      bool moved = false;
      if (!comm && next_comm < queues.comm.size() && is_ready(step, queues.comm[next_comm])) {
        const NodeId id = queues.comm[next_comm];
        if (job.record) {
          comm_record = open_record(plan, id, job.step_index);
          comm_starts_[index_of(id)] = comm_record.start;
        }
        comm.emplace(step, state_, id, prepared.all_reduce_members[next_comm],
                     (static_cast<std::uint64_t>(job.step_index) << 32) | index_of(id));
        comm->begin();
        moved = true;
      }
      if (comm) {
        while (comm->progress()) moved = true;
        if (comm->over()) {
          if (job.record) {
            comm_record.bytes = comm->received_bytes();
            close_record(comm_record, comm->partners());
          }
          comm.reset();
          complete(plan, queues.comm[next_comm]);
          ++next_comm;
          continue;
        }
      }
      if (next_compute < queues.compute.size() && is_ready(step, queues.compute[next_compute])) {
        const NodeId id = queues.compute[next_compute];
        TaskRecord record;
        if (job.record) record = open_record(plan, id, job.step_index);
        run_compute(step, state_, plan.at(id), prepared.weights[next_compute]);
        if (job.record) {
          const Work work = work_of(plan, plan.at(id), state_.id, step.input.lengths);
          record.flops = work.flops;
          record.bytes = work.bytes();
          close_record(record);
        }
        complete(plan, id);
        ++next_compute;
        moved = true;
      }
      if (!moved) communicator_->wait(seen);
    }
  }

  void begin_step(const Plan& plan, const PreparedDevice& prepared) {
    // Lists of buffers are emptied, not replaced, so that they need not grow again.
    state_.values.resize(plan.values.size());
    for (std::size_t i = 0; i < plan.values.size(); ++i) {
      LocalValue& value = state_.values[i];
      value.parts.clear();
      value.lse.clear();
      value.ready = false;
      value.readers_left = prepared.readers[i];
    }
  }

  // Are the node's inputs on this device? What has no part here, and the cache before the step,
  // always is.
  [[nodiscard]] bool is_ready(const StepView& step, NodeId id) const {
    for (const ValueId input : step.plan->at(id).inputs) {
      const bool needed =
          step.plan.producers()[index_of(input)] != static_cast<NodeId>(step.plan->nodes.size()) &&
          !step.bound(input).by_device[index_of(state_.id)].empty();
      if (needed && !state_.values[index_of(input)].ready) return false;
    }
    return true;
  }

  void complete(const Plan& plan, NodeId id) {
    const Node& node = plan.at(id);
    for (const ValueId output : node.outputs) state_.values[index_of(output)].ready = true;
    for (const ValueId input : node.inputs) state_.release(input);
  }

  [[nodiscard]] TaskRecord open_record(const Plan& plan, NodeId id, std::int32_t step) const {
    const Node& node = plan.at(id);
    const SimTime now = Executor::now();
    return {.step = step,
            .node = id,
            .device = state_.id,
            .kind = node.kind,
            .layer = node.layer,
            .microbatch = node.microbatch,
            .start = now,
            .ready = now,
            .end = now};
  }

  void close_record(TaskRecord& record, std::vector<DeviceId> partners = {}) {
    record.end = Executor::now();
    records_.push_back({.task = record, .partners = std::move(partners)});
  }

  std::vector<int> cores_;
  std::unique_ptr<Communicator> communicator_;
  DeviceWeights weights_;
  DeviceState state_;
  std::vector<Record> records_;
  std::vector<SimTime> comm_starts_;  // By node.
  std::string failure_;

  Job job_;  // The poster's until `posted_` grows, the worker's until `done_` has caught up.
  alignas(kCacheLine) std::atomic<std::uint32_t> posted_{0};
  alignas(kCacheLine) std::atomic<std::uint32_t> done_{0};
  std::jthread thread_;  // Last: starts when everything else is there.
};

}  // namespace

struct Executor::Impl {
  const Checkpoint& checkpoint;
  ModelSpec model;
  ExecutorOptions options;
  std::vector<std::unique_ptr<Worker>> workers;
  std::map<const Plan*, PreparedPlan> prepared;  // Of each, while a copy of the plan is alive.
  std::optional<Error> failure;

  Impl(const Checkpoint& source, ModelSpec spec, ExecutorOptions wanted)
      : checkpoint(source), model(std::move(spec)), options(std::move(wanted)) {}

  // Posts one job to the plan's devices and waits for all.
  Status on_all(const ValidPlan& plan, const Job& job) {
    const std::size_t count = plan->devices.size();
    for (std::size_t i = 0; i < count; ++i) workers[i]->post(job);
    for (std::size_t i = 0; i < count; ++i) workers[i]->wait_done();
    for (std::size_t i = 0; i < count; ++i) {
      if (!workers[i]->failure().empty())
        failure = Error{ErrorKind::run_failed, workers[i]->failure()};
    }
    if (failure) return tl::unexpected(*failure);
    return {};
  }

  Result<PreparedPlan*> prepared_for(const ValidPlan& plan) {
    const auto known = prepared.find(&plan.plan());
    if (known != prepared.end() && !known->second.identity.expired()) return &known->second;
    // Others of which the last copy is gone will not come again.
    std::erase_if(prepared, [](const auto& entry) { return entry.second.identity.expired(); });
    CHECK(plan->devices.size() <= workers.size(),
          "a plan names devices that the executor does not have");
    CHECK(plan->activation_dtype == DType::f32, "CPU devices compute with f32 activations");
    PreparedPlan& fresh = prepared[&plan.plan()] = prepare_values(plan);
    const Status loaded =
        on_all(plan, {.kind = Job::Kind::prepare, .plan = &plan, .prepared = &fresh});
    if (!loaded) return tl::unexpected(loaded.error());
    return &fresh;
  }

  // All devices read one clock, so a partner's start is a time of this device too.
  void append_records(std::vector<TaskRecord>& tasks) {
    for (const auto& worker : workers) {
      for (Record& record : worker->records()) {
        for (const DeviceId partner : record.partners) {
          record.task.ready =
              std::max(record.task.ready, workers[index_of(partner)]->start_of(record.task.node));
        }
        tasks.push_back(record.task);
      }
      worker->records().clear();
    }
  }

  StepOutput collect_logits(const StepView& step) {
    StepOutput output;
    output.logits.resize(step.input.lengths.size());
    const Plan& plan = step.plan.plan();
    std::vector<bool> read(plan.values.size(), false);
    for (const Node& node : plan.nodes) {
      for (const ValueId input : node.inputs) read[index_of(input)] = true;
    }
    for (std::size_t i = 0; i < plan.values.size(); ++i) {
      if (plan.values[i].role != Role::logits || read[i]) continue;
      append_logits(step, static_cast<ValueId>(i), output);
    }
    return output;
  }

  // Replicas hold the same values; whichever comes last stays.
  void append_logits(const StepView& step, ValueId value, StepOutput& output) {
    const BoundLayout& bound = step.bound(value);
    const std::int64_t vocab_size = model.vocab_size;
    std::vector<std::size_t> next_part(workers.size(), 0);
    for (const BoundBuffer& buffer : bound.buffers) {
      const std::size_t part = next_part[index_of(buffer.device)]++;
      const float* data =
          workers[index_of(buffer.device)]->state().values[index_of(value)].parts[part].data();
      for (const RowSpan& span : buffer.spans) {
        const std::int64_t q_len = step.input.lengths[static_cast<std::size_t>(span.request)].q_len;
        const std::int64_t first_wanted = step.plan->logits == LogitsWanted::all ? 0 : q_len - 1;
        auto& rows = output.logits[static_cast<std::size_t>(span.request)];
        rows.resize(static_cast<std::size_t>((q_len - first_wanted) * vocab_size));
        for (std::int64_t row = 0; row < span.token.size(); ++row) {
          const float* first = data + (span.first_row + row) * buffer.width();
          std::copy_n(first, buffer.width(),
                      rows.data() + (span.token.begin + row - first_wanted) * vocab_size +
                          buffer.dim.begin);
        }
      }
    }
  }
};

Executor::Executor(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Executor::~Executor() = default;

Result<std::unique_ptr<Executor>> Executor::make(const Checkpoint& checkpoint,
                                                 const ModelSpec& model, ExecutorOptions options) {
  if (options.devices.empty()) return invalid_input("devices: found none, allowed at least 1");
  auto impl = std::make_unique<Impl>(checkpoint, model, std::move(options));
  auto communicators = make_thread_communicators(impl->options.devices.size());
  for (std::size_t i = 0; i < impl->options.devices.size(); ++i) {
    try {
      impl->workers.push_back(
          std::make_unique<Worker>(static_cast<DeviceId>(i), impl->options.devices[i],
                                   std::move(communicators[i]), impl->checkpoint, impl->model));
    } catch (const std::system_error& error) {
      return run_failed(fmt::format("device {}: cannot start a thread: {}", i, error.what()));
    }
  }
  return std::unique_ptr<Executor>(new Executor(std::move(impl)));
}

Status Executor::prepare(const ValidPlan& plan) {
  if (impl_->failure) return tl::unexpected(*impl_->failure);
  const auto prepared = impl_->prepared_for(plan);
  if (!prepared) return tl::unexpected(prepared.error());
  return {};
}

Result<StepOutput> Executor::run(const ValidPlan& plan, const StepInput& input, std::int32_t step,
                                 std::vector<TaskRecord>* tasks) {
  if (impl_->failure) return tl::unexpected(*impl_->failure);
  CHECK(input.lengths.size() == plan->limits.size() &&
            input.sequences.size() == input.lengths.size() &&
            input.tokens.size() == input.lengths.size() &&
            input.rope_lengths.size() == input.lengths.size(),
        "a step's input is as long as the plan's batch");
  const auto prepared = impl_->prepared_for(plan);
  if (!prepared) return tl::unexpected(prepared.error());

  bind_examples(plan.plan(), input.lengths, **prepared);
  std::vector<RopeFrequencies> frequencies;
  for (const std::int64_t length : input.rope_lengths) {
    frequencies.push_back(rope_frequencies(impl_->model.rope, length));
  }
  const StepView view = {.plan = plan,
                         .input = input,
                         .layouts = (*prepared)->bound,
                         .layout_of = (*prepared)->layout_of,
                         .frequencies = frequencies};
  const bool record = tasks != nullptr && impl_->options.record_tasks;
  const Status done = impl_->on_all(plan, {.kind = Job::Kind::step,
                                           .plan = &plan,
                                           .prepared = *prepared,
                                           .step = &view,
                                           .step_index = step,
                                           .record = record});
  if (!done) return tl::unexpected(done.error());
  if (record) impl_->append_records(*tasks);
  return impl_->collect_logits(view);
}

void Executor::release(SequenceId sequence) {
  for (const auto& worker : impl_->workers) worker->state().kv.release(sequence);
}

std::vector<Executor::Held> Executor::held() const {
  std::vector<Held> held;
  for (const auto& worker : impl_->workers) held.push_back(worker->held());
  return held;
}

SimTime Executor::now() {
  const auto since = std::chrono::steady_clock::now().time_since_epoch();
  return {std::chrono::duration_cast<std::chrono::nanoseconds>(since).count()};
}

}  // namespace weir
