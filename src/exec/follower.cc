#include "exec/follower.h"

#include <map>
#include <system_error>
#include <utility>

#include <fmt/format.h>

#include "base/check.h"
#include "exec/rank_words.h"
#include "exec/worker.h"

namespace weir {
namespace {

class Follower {
 public:
  Follower(Ranks& ranks, const Checkpoint& checkpoint, const ModelSpec& model)
      : ranks_(ranks), checkpoint_(checkpoint), model_(model) {}

  // Without a worker it still answers, so that rank 0 learns why there is none. What is told and
  // what is to be done is heard and done by one thread.
  void start_worker(const ExecDevice& device) {
    try {
      worker_ = std::make_unique<Worker>(static_cast<DeviceId>(ranks_.rank()), device,
                                         Worker::Thread::posters, ranks_.communicator(),
                                         DeviceWeights(checkpoint_, model_));
    } catch (const std::system_error& error) {
      failure_ = fmt::format("device {}: cannot start a thread: {}", ranks_.rank(), error.what());
    }
  }

  // False when there is nothing more to do.
  bool obey(const RankWord& word) { return std::visit(*this, word); }
  [[nodiscard]] const std::string& failure() const { return failure_; }

  bool operator()(const PrepareWord& word) {
    auto plan = read_plan_document(word.document);
    if (!plan) {
      fail(plan.error().message);
    } else if (failure_.empty()) {
      Known& known = plans_[word.plan];
      known.plan = *std::move(plan);
      known.prepared = prepare_values(*known.plan);
      run({.kind = Job::Kind::prepare, .plan = &*known.plan, .prepared = &known.prepared});
    }
    report({});
    return true;
  }

  bool operator()(const StepWord& word) {
    const auto known = plans_.find(word.plan);
    CHECK(known != plans_.end() || !failure_.empty(), "a plan is prepared before it is run");
    if (!failure_.empty()) {
      report({});
      return true;
    }
    StepInput input = {.lengths = word.lengths,
                       .sequences = word.sequences,
                       .tokens = {word.tokens.begin(), word.tokens.end()},
                       .rope_lengths = word.rope_lengths};
    const ValidPlan& plan = *known->second.plan;
    const BoundStep step(plan, known->second.prepared, model_, input);
    JobResult result = run({.kind = Job::Kind::step,
                            .plan = &plan,
                            .prepared = &known->second.prepared,
                            .step = &step.view(),
                            .step_index = word.step_index,
                            .record = word.record});
    report({.failure = {},
            .records = std::move(result.records),
            .logits = std::move(result.logits),
            .held = {}});
    return true;
  }

  bool operator()(const ForgetPlanWord& word) {
    plans_.erase(word.plan);
    return true;
  }
  bool operator()(const ReleaseWord& word) {
    if (worker_ != nullptr) worker_->post({.kind = Job::Kind::release, .sequence = word.sequence});
    return true;
  }
  bool operator()(const HeldWord&) {
    if (worker_ != nullptr) worker_->wait_all_done();
    report({});
    return true;
  }
  bool operator()(const CloseWord&) { return false; }

 private:
  struct Known {
    std::optional<ValidPlan> plan;
    PreparedPlan prepared;
  };

  // A plan may be for fewer devices than there are ranks.
  [[nodiscard]] bool takes_part(const ValidPlan& plan) const {
    return ranks_.rank() < plan->devices.size();
  }
  JobResult run(Job job) {
    JobResult result;
    if (!takes_part(*job.plan)) return result;
    job.result = &result;
    worker_->wait_done(worker_->post(job));
    if (!result.failure.empty()) fail(result.failure);
    return result;
  }
  void fail(std::string text) {
    if (failure_.empty()) failure_ = std::move(text);
  }
  void report(DeviceReport done) {
    done.failure = failure_;
    if (worker_ != nullptr) done.held = worker_->held();
    ranks_.send(0, pack(done));
  }

  Ranks& ranks_;
  const Checkpoint& checkpoint_;
  const ModelSpec& model_;
  std::string failure_;
  std::map<std::uint64_t, Known> plans_;
  std::unique_ptr<Worker> worker_;
};

}  // namespace

Status follow(Ranks& ranks, const Checkpoint& checkpoint, const ModelSpec& model,
              const ExecDevice& device) {
  CHECK(ranks.rank() != 0, "rank 0 leads");
  const PinnedThread pinned(device.cores.empty() ? std::optional<int>() : device.cores.front());
  Follower follower(ranks, checkpoint, model);
  follower.start_worker(device);
  for (bool more = true; more;) {
    const auto word = unpack_word(ranks.receive(0));
    if (!word) return tl::unexpected(word.error());
    more = follower.obey(*word);
  }
  if (follower.failure().empty()) return {};
  return run_failed(follower.failure());
}

}  // namespace weir
