#include "sim/folded_pass.h"

#include <algorithm>
#include <map>
#include <tuple>

namespace weir {
namespace {

// Of what one device does: enough for most.
constexpr std::size_t kMostReserved = 256;

// From so many on, what repeats is looked at as a whole.
constexpr std::size_t kLeastRepetitions = 4;

// Where each phase comes again; the number of phases where it does not.
std::vector<std::size_t> next_alike(std::span<const std::uint32_t> phases) {
  std::vector<std::size_t> next(phases.size());
  std::vector<std::size_t> last(
      phases.empty() ? 0 : std::size_t{1} + *std::ranges::max_element(phases), phases.size());
  for (std::size_t i = phases.size(); i-- > 0;) {
    next[i] = last[phases[i]];
    last[phases[i]] = i;
  }
  return next;
}

}  // namespace

FoldedPass::FoldedPass(const FoldedPlan& folded, const Machine& machine, const StepCosts& costs,
                       bool record_spans)
    : folded_(folded),
      plan_(folded.plan().plan()),
      machine_(machine),
      costs_(costs),
      record_spans_(record_spans),
      times_done_(plan_.nodes.size(), 0) {
  for (const std::uint32_t phase : folded.phases()) {
    for (std::uint32_t n = folded.first_node()[phase]; n < folded.first_node()[phase + 1]; ++n)
      ++times_done_[n];
  }
  colour_devices();
  add_ops();
}

void FoldedPass::colour_devices() {
  colour_of_.assign(plan_.devices.size(), 0);
  while (refine_colours()) {
  }
  representative_.resize(num_colours_);
  for (std::size_t d = plan_.devices.size(); d-- > 0;)
    representative_[colour_of_[d]] = static_cast<DeviceId>(d);
}

// Devices stay of one colour where they do the same nodes in the same time and, in each
// communication, wait for the same colours. True where some were told apart.
bool FoldedPass::refine_colours() {
  std::vector<std::vector<std::int64_t>> signatures(plan_.devices.size());
  for (std::size_t d = 0; d < signatures.size(); ++d) {
    signatures[d].reserve(std::min(kMostReserved, 1 + 3 * costs_.classes().size()));
    signatures[d].push_back(colour_of_[d]);
  }
  std::map<std::vector<std::uint32_t>, std::int64_t> known_parts;
  std::vector<std::vector<std::uint32_t>> parts;
  std::vector<std::int64_t> part_names;
  for (std::size_t c = 0; c < costs_.classes().size(); ++c) {
    const NodeClass& node_class = costs_.classes()[c];
    const std::vector<DeviceId>& members = plan_.at(plan_.at(node_class.example).devices);
    parts.resize(std::max(parts.size(), node_class.part_sizes.size()));
    for (std::vector<std::uint32_t>& colours : parts) colours.clear();
    for (std::size_t place = 0; place < node_class.part.size(); ++place) {
      std::vector<std::uint32_t>& colours = parts[node_class.part[place]];
      const std::uint32_t colour = colour_of_[index_of(members[place])];
      if (colours.empty() || colours.back() != colour) colours.push_back(colour);
    }
    part_names.clear();
    for (std::size_t part = 0; part < node_class.part_sizes.size(); ++part) {
      std::vector<std::uint32_t>& colours = parts[part];
      std::ranges::sort(colours);
      colours.erase(std::unique(colours.begin(), colours.end()), colours.end());
      part_names.push_back(known_parts.try_emplace(colours, std::ssize(known_parts)).first->second);
    }
    for (std::size_t place = 0; place < members.size(); ++place) {
      std::vector<std::int64_t>& signature = signatures[index_of(members[place])];
      signature.push_back(static_cast<std::int64_t>(c));
      signature.push_back(node_class.tasks[place].time.ns);
      if (!part_names.empty()) signature.push_back(part_names[node_class.part[place]]);
    }
  }
  std::map<std::vector<std::int64_t>, std::uint32_t> colours;
  for (std::size_t d = 0; d < signatures.size(); ++d) {
    const auto next = static_cast<std::uint32_t>(colours.size());
    colour_of_[d] = colours.try_emplace(std::move(signatures[d]), next).first->second;
  }
  const std::uint32_t before = num_colours_;
  num_colours_ = static_cast<std::uint32_t>(colours.size());
  return num_colours_ > before;
}

void FoldedPass::add_ops() {
  ops_.reserve(plan_.nodes.size() + 1);
  std::uint32_t num_slots = 0;
  for (const std::uint32_t slot : folded_.slots()) num_slots = std::max(num_slots, slot + 1);
  for (std::size_t n = 0; n < plan_.nodes.size(); ++n) add_op(static_cast<NodeId>(n));
  ops_.push_back({.first_task = static_cast<std::uint32_t>(tasks_.size())});
  tasks_.push_back({.first_read = static_cast<std::uint32_t>(reads_.size()), .time = {}});
  cells_.resize(std::size_t{num_slots} * num_colours_);
  for (std::size_t queue = 0; queue < free_at_.size(); ++queue) {
    free_at_[queue].resize(num_colours_);
    spans_[queue].resize(num_colours_);
  }
}

void FoldedPass::add_op(NodeId id) {
  const Node& node = plan_.at(id);
  const NodeClass& cost = costs_.of(id);
  const std::vector<DeviceId>& members = plan_.at(node.devices);
  Op op{.first_task = static_cast<std::uint32_t>(tasks_.size()),
        .num_parts = static_cast<std::uint32_t>(cost.part_sizes.size()),
        .node_class = costs_.class_index(id),
        .is_comm = queue_of(node.kind) == Queue::comm,
        .watched = cost.uses_shared_links};
  for (std::size_t place = 0; place < members.size(); ++place) {
    const std::uint32_t colour = colour_of_[index_of(members[place])];
    if (representative_[colour] != members[place]) continue;
    tasks_.push_back({.colour = colour,
                      .part = op.is_comm ? cost.part[place] : 0,
                      .cell = cell_of(id, colour),
                      .first_read = static_cast<std::uint32_t>(reads_.size()),
                      .time = cost.tasks[place].time});
    for (const ValueId input : node.inputs) {
      const NodeId producer = folded_.plan().producers()[index_of(input)];
      if (index_of(producer) == plan_.nodes.size()) continue;  // State from before the step.
      const GroupId group = plan_.at(producer).devices;
      const bool there =
          group == node.devices || std::ranges::binary_search(plan_.at(group), members[place]);
      const std::uint32_t cell = cell_of(producer, colour);
      const bool known =
          std::find(reads_.begin() + tasks_.back().first_read, reads_.end(), cell) != reads_.end();
      if (there && !known) reads_.push_back(cell);
    }
  }
  if (op.is_comm) join_parts(op, cost, members);
  ops_.push_back(op);
}

// Parts are alike where they have the same colours, and then all members of one colour are in such
// parts: a part is named after the first of its kind that has a representative.
void FoldedPass::join_parts(const Op& op, const NodeClass& cost,
                            const std::vector<DeviceId>& members) {
  constexpr std::uint32_t kNone = 0xFFFFFFFFU;
  if (cost.part_sizes.size() == 1) return;
  std::vector<std::uint32_t> smallest(cost.part_sizes.size(), kNone);  // Colour, by part.
  for (std::size_t place = 0; place < members.size(); ++place) {
    std::uint32_t& colour = smallest[cost.part[place]];
    colour = std::min(colour, colour_of_[index_of(members[place])]);
  }
  std::map<std::uint32_t, std::uint32_t> part_of_colour;
  for (std::size_t t = op.first_task; t < tasks_.size(); ++t) {
    Task& task = tasks_[t];
    task.part = part_of_colour.try_emplace(smallest[task.part], task.part).first->second;
  }
}

void FoldedPass::run() {
  const std::span<const std::uint32_t> phases = folded_.phases();
  const std::vector<std::size_t> next = next_alike(phases);
  for (std::size_t i = 0; i < phases.size();) {
    const std::size_t period = next[i] - i;
    std::size_t alike = 0;  // Phases that are those of a period later.
    const bool may_repeat = !record_spans_ && next[i] < phases.size();
    while (may_repeat && i + period + alike < phases.size() &&
           phases[i + alike] == phases[i + period + alike])
      ++alike;
    const std::size_t times = may_repeat ? alike / period + 1 : 1;
    if (times < kLeastRepetitions) {
      play(phases[i++]);
      continue;
    }
    repeat(phases.subspan(i, period), times);
    i += period * times;
  }
}

void FoldedPass::play(std::uint32_t phase) {
  for (std::uint32_t n = folded_.first_node()[phase]; n < folded_.first_node()[phase + 1]; ++n) {
    const Op& op = ops_[n];
    const std::uint32_t end_task = ops_[n + 1].first_task;
    if (op.is_comm) {
      communicate(op, end_task);
    } else {
      compute(op, end_task);
    }
  }
}

// The queues go on where the phase's tasks end.
void FoldedPass::take_over_ends(std::uint32_t phase) {
  for (std::uint32_t n = folded_.first_node()[phase]; n < folded_.first_node()[phase + 1]; ++n) {
    for (std::uint32_t t = ops_[n].first_task; t < ops_[n + 1].first_task; ++t) {
      const SimTime end = cells_[tasks_[t].cell];
      free_at_[ops_[n].is_comm ? 1 : 0][tasks_[t].colour] = end;
      end_ = std::max(end_, end);
    }
  }
}

// A step's times are maxima and sums of earlier ones. So once all ends of a period lie equally much
// later than those of the period before, they do so in all that follow: what came from outside and
// does not move with them was no longer the latest.
void FoldedPass::repeat(std::span<const std::uint32_t> period, std::size_t times) {
  std::vector<std::uint32_t> cells;
  bool watched = false;
  for (const std::uint32_t phase : period) {
    for (std::uint32_t n = folded_.first_node()[phase]; n < folded_.first_node()[phase + 1]; ++n) {
      watched = watched || ops_[n].watched;
      for (std::uint32_t t = ops_[n].first_task; t < ops_[n + 1].first_task; ++t)
        cells.push_back(tasks_[t].cell);
    }
  }
  std::ranges::sort(cells);
  // Every use of a shared link is looked at, and a cell that is written twice does not keep both.
  const bool countable = !watched && std::ranges::adjacent_find(cells) == cells.end();

  std::vector<SimTime> before(cells.size());
  for (std::size_t played = 1; times > 0; ++played, --times) {
    for (std::size_t i = 0; i < cells.size(); ++i) before[i] = cells_[cells[i]];
    for (const std::uint32_t phase : period) play(phase);
    if (!countable || cells.empty() || played == 1) continue;
    const SimTime shift = cells_[cells.front()] - before.front();
    bool uniform = shift > SimTime{};
    for (std::size_t i = 0; i < cells.size() && uniform; ++i)
      uniform = cells_[cells[i]] - before[i] == shift;
    if (!uniform) continue;
    const SimTime rest = {shift.ns * static_cast<std::int64_t>(times - 1)};
    for (const std::uint32_t cell : cells) cells_[cell] += rest;
    for (const std::uint32_t phase : period) take_over_ends(phase);
    return;
  }
}

SimTime FoldedPass::arrival(std::uint32_t task, SimTime free) const {
  for (std::uint32_t r = tasks_[task].first_read; r < tasks_[task + 1].first_read; ++r)
    free = std::max(free, cells_[reads_[r]]);
  return free;
}

void FoldedPass::compute(const Op& op, std::uint32_t end_task) {
  for (std::uint32_t t = op.first_task; t < end_task; ++t) {
    const Task& task = tasks_[t];
    const SimTime start = arrival(t, free_at_[0][task.colour]);
    finish(task, 0, start, start);
  }
}

void FoldedPass::communicate(const Op& op, std::uint32_t end_task) {
  if (end_task - op.first_task == 1) {  // All members are alike.
    const Task& task = tasks_[op.first_task];
    const SimTime start = arrival(op.first_task, free_at_[1][task.colour]);
    finish(task, 1, start, start);
    if (op.watched)
      uses_.push_back({.node_class = op.node_class, .begin = start, .end = start + task.time});
    return;
  }
  last_arrival_.assign(op.num_parts, SimTime{});
  arrivals_.clear();
  for (std::uint32_t t = op.first_task; t < end_task; ++t) {
    const SimTime start = arrival(t, free_at_[1][tasks_[t].colour]);
    SimTime& last = last_arrival_[tasks_[t].part];
    last = std::max(last, start);
    arrivals_.push_back(start);
  }
  NodeUse use{
      .node_class = op.node_class, .begin = last_arrival_[tasks_[op.first_task].part], .end = {}};
  for (std::uint32_t t = op.first_task; t < end_task; ++t) {
    const Task& task = tasks_[t];
    const SimTime ready = last_arrival_[task.part];
    finish(task, 1, arrivals_[t - op.first_task], ready);
    use.begin = std::min(use.begin, ready);
    use.end = std::max(use.end, ready + task.time);
  }
  if (op.watched) uses_.push_back(use);
}

void FoldedPass::finish(const Task& task, std::size_t queue, SimTime start, SimTime ready) {
  const SimTime end = ready + task.time;
  cells_[task.cell] = end;
  free_at_[queue][task.colour] = end;
  end_ = std::max(end_, end);
  if (record_spans_) spans_[queue][task.colour].push_back({start, ready, end});
}

bool FoldedPass::shares_links() const {
  struct Use {
    LinkId link;
    SimTime begin;
    SimTime end;
  };
  std::map<std::uint32_t, std::vector<LinkId>> links_of;
  std::vector<Use> uses;
  for (const NodeUse& use : uses_) {
    const auto [place, added] = links_of.try_emplace(use.node_class);
    if (added) place->second = shared_links(costs_.classes()[use.node_class]);
    for (const LinkId link : place->second)
      uses.push_back({.link = link, .begin = use.begin, .end = use.end});
  }
  std::ranges::sort(uses, {},
                    [](const Use& use) { return std::tuple(use.link, use.begin, use.end); });
  for (std::size_t i = 1; i < uses.size(); ++i) {
    if (uses[i].link != uses[i - 1].link) continue;
    if (uses[i].begin < uses[i - 1].end) return true;
    uses[i].end = std::max(uses[i].end, uses[i - 1].end);
  }
  return false;
}

std::vector<LinkId> FoldedPass::shared_links(const NodeClass& node_class) const {
  std::vector<LinkId> links;
  for (const Flow& flow : node_class.flows) {
    for (const LinkUse& use : flow.uses) {
      if (machine_.topology().is_shared(use.link)) links.push_back(use.link);
    }
  }
  std::ranges::sort(links);
  links.erase(std::unique(links.begin(), links.end()), links.end());
  return links;
}

std::vector<double> FoldedPass::joules() const {
  std::vector<double> joules;
  for (std::size_t d = 0; d < plan_.devices.size(); ++d)
    joules.push_back(machine_.model_of(static_cast<DeviceId>(d)).resting_watts() *
                     to_seconds(end_));
  for (std::size_t n = 0; n < plan_.nodes.size(); ++n) {
    const NodeClass& cost = costs_.of(static_cast<NodeId>(n));
    const std::vector<DeviceId>& members = plan_.at(plan_.nodes[n].devices);
    for (std::size_t place = 0; place < members.size(); ++place) {
      joules[index_of(members[place])] +=
          static_cast<double>(times_done_[n]) * cost.tasks[place].joules;
    }
  }
  return joules;
}

std::vector<DeviceMetrics> FoldedPass::devices() const {
  std::vector<DeviceMetrics> devices(plan_.devices.size());
  add_work(devices);
  std::vector<CommTimes> times;
  for (std::uint32_t colour = 0; colour < num_colours_; ++colour)
    times.push_back(comm_times_of(colour));
  for (std::size_t d = 0; d < devices.size(); ++d) {
    DeviceMetrics& device = devices[d];
    const CommTimes& comm = times[colour_of_[d]];
    device.name = plan_.devices[d].name;
    Breakdown& breakdown = device.breakdown;
    breakdown[TimeClass::attention] = device.work[OpClass::attention].time;
    breakdown[TimeClass::linear] = device.work[OpClass::linear].time;
    breakdown[TimeClass::elementwise] = device.work[OpClass::elementwise].time;
    breakdown[TimeClass::exposed_comm] = comm.exposed;
    breakdown[TimeClass::synchronisation] = comm.exposed_waiting;
    breakdown[TimeClass::idle] = end_ - breakdown.total();
    device.waiting_for_others = comm.waiting;
    if (end_ > SimTime{}) device.utilisation = to_seconds(breakdown.compute()) / to_seconds(end_);
  }
  return devices;
}

void FoldedPass::add_work(std::vector<DeviceMetrics>& devices) const {
  for (std::size_t n = 0; n < plan_.nodes.size(); ++n) {
    const Node& node = plan_.nodes[n];
    const NodeClass& cost = costs_.of(static_cast<NodeId>(n));
    const std::vector<DeviceId>& members = plan_.at(node.devices);
    const auto times = static_cast<double>(times_done_[n]);
    for (std::size_t place = 0; place < members.size(); ++place) {
      const TaskCost& task = cost.tasks[place];
      devices[index_of(members[place])].work[class_of(node.kind)] +=
          {.tasks = times_done_[n],
           .time = {times_done_[n] * task.time.ns},
           .flops = times * static_cast<double>(task.flops),
           .bytes = times * static_cast<double>(task.bytes)};
    }
  }
}

// A queue does one task after the other, so what communication there is behind compute is found by
// going along both.
FoldedPass::CommTimes FoldedPass::comm_times_of(std::uint32_t colour) const {
  const std::vector<Span>& busy = spans_[0][colour];
  std::size_t first = 0;
  const auto exposed = [&](SimTime begin, SimTime end) {
    SimTime left = end - begin;
    while (first < busy.size() && busy[first].end <= begin) ++first;
    for (std::size_t i = first; i < busy.size() && busy[i].start < end; ++i)
      left = left - (std::min(end, busy[i].end) - std::max(begin, busy[i].start));
    return left;
  };
  CommTimes times;
  for (const Span& span : spans_[1][colour]) {
    times.waiting += span.ready - span.start;
    times.exposed_waiting += exposed(span.start, span.ready);
    times.exposed += exposed(span.ready, span.end);
  }
  return times;
}

}  // namespace weir
