#include "exec/worker.h"

#include <algorithm>
#include <exception>
#include <new>
#include <utility>

#include <fmt/format.h>

#include "base/patience.h"
#include "exec/compute.h"
#include "exec/logits.h"
#include "exec/redistribute.h"

namespace weir {
namespace {

constexpr int kLooksBeforeYield = 64;

// Returns once `word` differs from `old`.
void wait_while_equal(const std::atomic<std::uint32_t>& word, std::uint32_t old) {
  Patience patience(kLooksBeforeYield);
  do {
    if (word.load(std::memory_order_acquire) != old) return;
  } while (patience.pause());
  word.wait(old, std::memory_order_acquire);
}

void load_slice(OpKind kind, const WeightSlice& slice, Team& team, DeviceWeights& weights,
                BufferWeights& loaded) {
  // A matrix of one row comes before its bias.
  const bool is_matrix = slice.rows() != 1 || loaded.matrix == nullptr;
  if (kind == OpKind::embed) {
    loaded.table = weights.table(slice);
  } else if (class_of(kind) == OpClass::linear && is_matrix) {
    loaded.matrix = &weights.matrix(team, slice);
  } else {
    loaded.vector = weights.vector(slice);
  }
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
        for (const WeightSlice& slice : weight_slices(plan, node, output, piece))
          load_slice(node.kind, slice, team, weights, loaded);
      }
    }
  }
  return tasks;
}

}  // namespace

Worker::Worker(DeviceId id, const ExecDevice& device, Thread thread,
               std::unique_ptr<Communicator> communicator, DeviceWeights weights)
    : communicator_(std::move(communicator)),
      team_(std::max(1, static_cast<int>(device.cores.size())), device.cores),
      weights_(std::move(weights)) {
  state_.id = id;
  state_.communicator = communicator_.get();
  state_.team = &team_;
  if (thread == Thread::own) thread_ = std::thread([this] { main(); });
}

Worker::~Worker() {
  do_own_jobs();
  if (!thread_.joinable()) return;
  post({.kind = Job::Kind::stop});
  thread_.join();
}

std::uint32_t Worker::post(const Job& job) {
  const std::uint32_t number = posted_.load(std::memory_order_relaxed);
  wait_done(number + 1 - kMostJobs);
  jobs_[number % kMostJobs] = job;
  posted_.store(number + 1, std::memory_order_release);
  posted_.notify_one();
  return number + 1;
}

void Worker::wait_done(std::uint32_t number) {
  for (;;) {
    const std::uint32_t done = done_.load(std::memory_order_acquire);
    // Numbers come round again: what lies behind is as near as that.
    if (static_cast<std::int32_t>(done - number) >= 0) return;
    if (thread_.joinable()) {
      wait_while_equal(done_, done);
    } else {
      do_next();
    }
  }
}

Executor::Held Worker::held() const {
  return {
      .weights = weights_.bytes(), .kv_cache = state_.kv.bytes(), .buffers = state_.pool.bytes()};
}

void Worker::main() {
  team_.pin_caller();
  for (bool stop = false; !stop;) {
    const std::uint32_t next = done_.load(std::memory_order_relaxed);
    wait_while_equal(posted_, next);
    stop = jobs_[next % kMostJobs].kind == Job::Kind::stop;
    do_next();
  }
}

void Worker::do_next() {
  const std::uint32_t number = done_.load(std::memory_order_relaxed);
  run(jobs_[number % kMostJobs]);
  done_.store(number + 1, std::memory_order_release);
  done_.notify_one();
}

void Worker::run(const Job& job) {
  if (job.kind == Job::Kind::stop) return;
  if (job.kind == Job::Kind::release) {
    state_.kv.release(job.sequence);
    return;
  }
  try {
    job.kind == Job::Kind::prepare ? prepare(job) : walk(job);
  } catch (const std::bad_alloc&) {
    fail(*job.result, fmt::format("device {}: out of memory", index_of(state_.id)));
  } catch (const std::exception& error) {
    fail(*job.result, fmt::format("device {}: {}", index_of(state_.id), error.what()));
  }
}

void Worker::fail(JobResult& result, std::string text) {
  result.failure = std::move(text);
  communicator_->abort();
}

void Worker::prepare(const Job& job) {
  const Plan& plan = job.plan->plan();
  PreparedDevice& prepared = job.prepared->devices[index_of(state_.id)];
  prepared.weights = load_weights(plan, state_.id, *state_.team, weights_);
  for (const NodeId node : plan.devices[index_of(state_.id)].comm)
    prepared.all_reduce_members.push_back(all_reduce_members(plan, node, state_.id));
}

// The queues of one step. Communication is looked at between compute tasks, so that it goes on
// behind them; a device that can do neither sleeps until something arrives.
void Worker::walk(const Job& job) {
  const StepView& step = *job.step;
  JobResult& result = *job.result;
  const Plan& plan = step.plan.plan();
  const PreparedDevice& prepared = job.prepared->devices[index_of(state_.id)];
  const PlanDevice& queues = plan.devices[index_of(state_.id)];
  TaskFactsOfDevice& facts = step.facts[index_of(state_.id)];
  begin_step(plan, prepared);
  std::size_t next_compute = 0;
  std::size_t next_comm = 0;
  std::optional<CommTask> comm;
  TaskRecord comm_record;
  while (next_compute < queues.compute.size() || next_comm < queues.comm.size()) {
    // Before anything is looked at, so that no change after the look is slept through.
    const std::uint32_t seen = communicator_->events();
    if (communicator_->aborted()) {
      result.interrupted = true;
      return;
    }
    bool moved = false;
    if (!comm && next_comm < queues.comm.size() && is_ready(plan.at(queues.comm[next_comm]))) {
      const NodeId id = queues.comm[next_comm];
      if (job.record) comm_record = open_record(plan, id, job.step_index);
      comm.emplace(step, state_, id, prepared.all_reduce_members[next_comm],
                   (static_cast<std::uint64_t>(job.step_index) << 32) | index_of(id));
      comm->begin(facts.comm[next_comm]);
      moved = true;
    }
    if (comm) {
      while (comm->progress()) moved = true;
      if (comm->over()) {
        if (job.record) {
          comm_record.bytes = comm->received_bytes();
          close_record(comm_record, result, comm->partners());
        }
        comm.reset();
        complete(plan, queues.comm[next_comm]);
        ++next_comm;
        continue;
      }
    }
    if (next_compute < queues.compute.size() && is_ready(plan.at(queues.compute[next_compute]))) {
      const NodeId id = queues.compute[next_compute];
      TaskRecord record;
      if (job.record) record = open_record(plan, id, job.step_index);
      run_compute(step, state_, id, prepared.weights[next_compute], facts.compute[next_compute]);
      if (job.record) {
        const Work work = task_work(step, state_.id, id, facts.compute[next_compute]);
        record.flops = work.flops;
        record.bytes = work.bytes();
        close_record(record, result);
      }
      complete(plan, id);
      ++next_compute;
      moved = true;
    }
    if (!moved) communicator_->wait(seen);
  }
  if (job.output != nullptr) {
    place_own_logits(step, state_, *job.output);
  } else {
    result.logits = own_logits(step, state_);
  }
}

void Worker::begin_step(const Plan& plan, const PreparedDevice& prepared) {
  // Lists of buffers are emptied, not replaced, so that they need not grow again.
  state_.values.resize(plan.values.size());
  for (std::size_t i = 0; i < plan.values.size(); ++i) {
    LocalValue& value = state_.values[i];
    value.parts.clear();
    value.lse.clear();
    value.ready = !prepared.made_here[i];
    value.readers_left = prepared.readers[i];
  }
}

// Has this device done its part in all that the node reads?
bool Worker::is_ready(const Node& node) const {
  return std::ranges::all_of(node.inputs,
                             [&](ValueId input) { return state_.values[index_of(input)].ready; });
}

void Worker::complete(const Plan& plan, NodeId id) {
  const Node& node = plan.at(id);
  for (const ValueId output : node.outputs) state_.values[index_of(output)].ready = true;
  for (const ValueId input : node.inputs) state_.release(input);
}

TaskRecord Worker::open_record(const Plan& plan, NodeId id, std::int32_t step) const {
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

void Worker::close_record(TaskRecord& record, JobResult& result, std::vector<DeviceId> partners) {
  record.end = Executor::now();
  result.records.push_back({.task = record, .partners = std::move(partners)});
}

}  // namespace weir
