#include "result/timeline_check.h"

#include <algorithm>
#include <numeric>
#include <tuple>

#include <fmt/format.h>

namespace weir {
namespace {

class Checker {
 public:
  explicit Checker(const Timeline& timeline) : timeline_(timeline) {}

  std::vector<std::string> run() && {
    if (timeline_.start > timeline_.end) {
      add("end", "found {} ns, allowed at least the start of {} ns", timeline_.end.ns,
          timeline_.start.ns);
    }
    for (std::size_t i = 0; i < timeline_.steps.size(); ++i) check_step(i);
    for (std::size_t i = 0; i < timeline_.requests.size(); ++i) check_request(i);
    for (std::size_t i = 0; i < timeline_.tasks.size(); ++i) check_task(i);
    check_queues();
    check_repetitions();
    return std::move(problems_);
  }

 private:
  template <class... Args>
  void add(const std::string& where, fmt::format_string<Args...> text, Args&&... args) {
    problems_.push_back(where + ": " + fmt::format(text, std::forward<Args>(args)...));
  }

  void check_step(std::size_t i) {
    const StepRecord& step = timeline_.steps[i];
    const std::string where = fmt::format("steps[{}]", i);
    if (step.start > step.end) {
      add(where, "found the end at {} ns, allowed at least the start of {} ns", step.end.ns,
          step.start.ns);
    } else if (step.start < timeline_.start || step.end > timeline_.end) {
      add(where, "found {}..{} ns, allowed within the run's {}..{} ns", step.start.ns, step.end.ns,
          timeline_.start.ns, timeline_.end.ns);
    }
    if (step.new_tokens < 0)
      add(where + ".new_tokens", "found {}, allowed at least 0", step.new_tokens);
  }

  void check_request(std::size_t i) {
    const RequestRecord& request = timeline_.requests[i];
    const std::string where = fmt::format("requests[{}]", i);
    if (request.input_tokens < 0)
      add(where + ".input_tokens", "found {}, allowed at least 0", request.input_tokens);
    SimTime earliest = std::max(request.arrival, timeline_.start);
    for (std::size_t t = 0; t < request.token_times.size(); ++t) {
      const SimTime time = request.token_times[t];
      if (time < earliest || time > timeline_.end) {
        add(fmt::format("{}.token_times[{}]", where, t),
            "found {} ns, allowed {}..{} ns (after the arrival and the token before)", time.ns,
            earliest.ns, timeline_.end.ns);
      }
      earliest = std::max(earliest, time);
    }
  }

  void check_task(std::size_t i) {
    const TaskRecord& task = timeline_.tasks[i];
    const std::string where = called(i);
    if (index_of(task.device) >= timeline_.devices.size()) {
      add(where + ".device", "found {}, allowed below {}", index_of(task.device),
          timeline_.devices.size());
    }
    if (!(task.start <= task.ready && task.ready <= task.end)) {
      add(where, "found start {}, ready {}, end {} ns, allowed start <= ready <= end",
          task.start.ns, task.ready.ns, task.end.ns);
    } else if (queue_of(task.kind) == Queue::compute && task.ready != task.start) {
      add(where + ".ready", "found {} ns, allowed the start of {} ns: compute waits for nobody",
          task.ready.ns, task.start.ns);
    }
    if (task.flops < 0) add(where + ".flops", "found {}, allowed at least 0", task.flops);
    if (task.bytes < 0) add(where + ".bytes", "found {}, allowed at least 0", task.bytes);
    if (task.layer < -1) add(where + ".layer", "found {}, allowed at least -1", task.layer);
    if (task.microbatch < 0)
      add(where + ".microbatch", "found {}, allowed at least 0", task.microbatch);
    if (task.step < 0 || static_cast<std::size_t>(task.step) >= timeline_.steps.size()) {
      add(where + ".step", "found {}, allowed at least 0 and below {}", task.step,
          timeline_.steps.size());
      return;
    }
    const StepRecord& step = timeline_.steps[static_cast<std::size_t>(task.step)];
    if (task.start < step.start || task.end > step.end) {
      add(where, "found {}..{} ns, allowed within the {}..{} ns of step {}", task.start.ns,
          task.end.ns, step.start.ns, step.end.ns, task.step);
    }
  }

  void check_queues() {
    const auto key = [&](std::size_t i) {
      const TaskRecord& task = timeline_.tasks[i];
      return std::tuple(task.device, queue_of(task.kind), task.start, task.end, i);
    };
    std::vector<std::size_t> order = all_tasks();
    std::ranges::sort(order, {}, key);
    for (std::size_t k = 1; k < order.size(); ++k) {
      const TaskRecord& before = timeline_.tasks[order[k - 1]];
      const TaskRecord& task = timeline_.tasks[order[k]];
      if (before.device == task.device && queue_of(before.kind) == queue_of(task.kind) &&
          task.start < before.end) {
        add(called(order[k]), "found the start at {} ns, allowed at least {} ns, the end of {}",
            task.start.ns, before.end.ns, called(order[k - 1]));
      }
    }
  }

  void check_repetitions() {
    const auto key = [&](std::size_t i) {
      const TaskRecord& task = timeline_.tasks[i];
      return std::tuple(task.step, task.node, task.device);
    };
    std::vector<std::size_t> order = all_tasks();
    std::ranges::stable_sort(order, {}, key);
    for (std::size_t k = 1; k < order.size(); ++k) {
      if (key(order[k - 1]) == key(order[k])) {
        add(called(order[k]), "found node {} of step {} a second time on its device, first as {}",
            index_of(timeline_.tasks[order[k]].node), timeline_.tasks[order[k]].step,
            called(order[k - 1]));
      }
    }
  }

  [[nodiscard]] std::vector<std::size_t> all_tasks() const {
    std::vector<std::size_t> order(timeline_.tasks.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    return order;
  }

  [[nodiscard]] std::string called(std::size_t i) const {
    const TaskRecord& task = timeline_.tasks[i];
    const std::size_t device = index_of(task.device);
    return fmt::format(
        "tasks[{}] ({} on {})", i, to_string(task.kind),
        device < timeline_.devices.size() ? timeline_.devices[device] : "an unknown device");
  }

  const Timeline& timeline_;
  std::vector<std::string> problems_;
};

}  // namespace

std::vector<std::string> problems_of(const Timeline& timeline) { return Checker(timeline).run(); }

}  // namespace weir
