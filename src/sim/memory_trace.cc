#include "sim/memory_trace.h"

#include <algorithm>
#include <array>
#include <map>
#include <tuple>

#include <fmt/format.h>

#include "base/check.h"
#include "plan/placement.h"

namespace weir {
namespace {

// The member of DeviceMemory that a buffer counts in.
using Category = std::int64_t DeviceMemory::*;

Category category_of(OpKind producer, Role role) {
  if (queue_of(producer) == Queue::comm) return &DeviceMemory::comm_buffers;
  return role == Role::attention || role == Role::scores ? &DeviceMemory::attention
                                                         : &DeviceMemory::activations;
}

struct Change {
  SimTime time;
  std::int64_t bytes = 0;  // Negative where a buffer is freed.
  Category category = nullptr;
};

class Tracer {
 public:
  Tracer(const Timeline& timeline, std::int32_t step, const Plan& plan, const StepLengths& lengths)
      : timeline_(timeline), step_(step), plan_(plan), lengths_(lengths) {
    const std::size_t devices = plan.devices.size();
    start_.assign(plan.nodes.size() * devices, kNever);
    end_.assign(plan.nodes.size() * devices, kNever);
    for (const TaskRecord& task : timeline.tasks) {
      if (task.step != step) continue;
      start_[at(index_of(task.node), index_of(task.device))] = task.start;
      end_[at(index_of(task.node), index_of(task.device))] = task.end;
    }
  }

  MemoryTrace run() {
    std::vector<std::vector<NodeId>> readers(plan_.values.size());
    for (std::size_t n = 0; n < plan_.nodes.size(); ++n) {
      for (const ValueId input : plan_.nodes[n].inputs)
        readers[index_of(input)].push_back(static_cast<NodeId>(n));
    }
    changes_.resize(plan_.devices.size());
    constant_.resize(plan_.devices.size());
    const std::vector<std::int64_t> weights = weight_bytes_by_device(plan_);
    for (std::size_t d = 0; d < constant_.size(); ++d) constant_[d].weights = weights[d];
    for (std::size_t n = 0; n < plan_.nodes.size(); ++n) {
      const Node& node = plan_.nodes[n];
      for (const ValueId output : node.outputs) {
        if (writes_state(node.kind)) {
          add_cache(output);
        } else {
          add_buffer(n, output, readers[index_of(output)]);
        }
      }
    }
    return samples();
  }

 private:
  static constexpr SimTime kNever{-1};

  [[nodiscard]] std::size_t at(std::size_t node, std::size_t device) const {
    return node * plan_.devices.size() + device;
  }

  const std::vector<std::int64_t>& bytes_of(ValueId id) {
    const Value& value = plan_.at(id);
    const auto [place, added] = bytes_.try_emplace({value.layout, value.role, value.microbatch});
    if (added) place->second = value_bytes_by_device(plan_, id, lengths_);
    return place->second;
  }

  void add_cache(ValueId id) {
    const std::vector<std::int64_t>& bytes = bytes_of(id);
    for (std::size_t d = 0; d < bytes.size(); ++d) constant_[d].kv_cache += bytes[d];
  }

  void add_buffer(std::size_t node, ValueId id, const std::vector<NodeId>& readers) {
    const std::vector<std::int64_t>& bytes = bytes_of(id);
    const Category category = category_of(plan_.nodes[node].kind, plan_.at(id).role);
    for (const DeviceId device : plan_.at(plan_.nodes[node].devices)) {
      const std::size_t d = index_of(device);
      if (bytes[d] == 0) continue;
      SimTime freed = end_[at(node, d)];
      for (const NodeId reader : readers) freed = std::max(freed, end_[at(index_of(reader), d)]);
      changes_[d].push_back({start_[at(node, d)], bytes[d], category});
      changes_[d].push_back({freed, -bytes[d], category});
    }
  }

  MemoryTrace samples() {
    MemoryTrace trace;
    const SimTime begin = timeline_.steps[static_cast<std::size_t>(step_)].start;
    for (std::size_t d = 0; d < changes_.size(); ++d) {
      // What ends at an instant makes room for what begins then.
      std::ranges::stable_sort(changes_[d], {}, [](const Change& change) {
        return std::tuple(change.time, change.bytes > 0);
      });
      std::vector<MemorySample> samples = {{.time = begin, .memory = constant_[d]}};
      for (const Change& change : changes_[d]) {
        if (samples.back().time != change.time) {
          samples.push_back(samples.back());
          samples.back().time = change.time;
        }
        samples.back().memory.*change.category += change.bytes;
      }
      trace.devices.push_back(std::move(samples));
    }
    return trace;
  }

  const Timeline& timeline_;
  std::int32_t step_;
  const Plan& plan_;
  const StepLengths& lengths_;
  std::vector<SimTime> start_;  // Both by node, then device.
  std::vector<SimTime> end_;
  std::vector<std::vector<Change>> changes_;
  std::vector<DeviceMemory> constant_;
  std::map<std::tuple<LayoutId, Role, std::int32_t>, std::vector<std::int64_t>> bytes_;
};

constexpr std::array kCategories = {
    std::pair{std::string_view("weights"), &DeviceMemory::weights},
    std::pair{std::string_view("kv_cache"), &DeviceMemory::kv_cache},
    std::pair{std::string_view("activations"), &DeviceMemory::activations},
    std::pair{std::string_view("attention"), &DeviceMemory::attention},
    std::pair{std::string_view("comm_buffers"), &DeviceMemory::comm_buffers},
};

double gigabytes(std::int64_t bytes) { return static_cast<double>(bytes) * 1e-9; }

}  // namespace

MemoryTrace trace_memory(const Timeline& timeline, std::int32_t step, const Plan& plan,
                         const StepLengths& lengths) {
  return Tracer(timeline, step, plan, lengths).run();
}

std::optional<MemoryShortage> find_shortage(std::span<const PlanHeader::Device> devices,
                                            const std::vector<DeviceMemory>& need) {
  for (std::size_t d = 0; d < need.size(); ++d) {
    const auto capacity = devices[d].memory_bytes;
    if (!capacity || need[d].total() <= *capacity) continue;
    const auto largest = std::ranges::max_element(
        kCategories, {}, [&](const auto& entry) { return need[d].*entry.second; });
    return MemoryShortage{.device = static_cast<DeviceId>(d),
                          .capacity = *capacity,
                          .need = need[d],
                          .category = largest->first,
                          .missing = need[d].total() - *capacity};
  }
  return std::nullopt;
}

std::string describe(std::span<const PlanHeader::Device> devices, const MemoryShortage& shortage) {
  const auto category = std::ranges::find(kCategories, shortage.category,
                                          [](const auto& entry) { return entry.first; });
  CHECK(category != kCategories.end(), "a shortage names a category");
  return fmt::format(
      "device {} needs {:.2f} GB and has {:.2f} GB; the largest part is {}, {:.2f} GB",
      devices[index_of(shortage.device)].name, gigabytes(shortage.need.total()),
      gigabytes(shortage.capacity), shortage.category, gigabytes(shortage.need.*category->second));
}

}  // namespace weir
