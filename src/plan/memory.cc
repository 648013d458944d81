#include "plan/memory.h"

#include <algorithm>
#include <limits>
#include <map>
#include <tuple>
#include <utility>

#include "plan/equal_lengths.h"
#include "plan/placement.h"
#include "plan/queue_overlap.h"

namespace weir {
namespace {

// The bytes of a buffer of the value.
std::int64_t bytes_of(const Plan& plan, const Value& value, const TensorShape& shape,
                      const Box& buffer, const StepLengths& lengths) {
  std::int64_t elements = 0;
  std::int64_t rows = 0;
  each_of_equal_lengths(requests_of(buffer, plan.batch_size()), lengths,
                        [&](std::int64_t request, std::int64_t count, RequestLengths length) {
                          const ResolvedBox box = resolve(buffer, shape, request, length);
                          elements += count * box.elements();
                          rows += count * box.token.size() * box.head.size();
                        });
  const bool has_lse = plan.layouts[index_of(value.layout)].kind == LayoutKind::softmax;
  return elements * size_in_bytes(value.dtype) + (has_lse ? rows * size_in_bytes(DType::f32) : 0);
}

// The member of DeviceMemory that a buffer counts in.
using Category = std::int64_t DeviceMemory::*;

class MemoryPlanner {
 public:
  MemoryPlanner(const Plan& plan, const StepLengths& lengths,
                std::span<const std::int64_t> layer_repeats)
      : plan_(plan), lengths_(lengths), layer_repeats_(layer_repeats) {
    producer_.resize(plan.values.size(), nullptr);
    bytes_.resize(plan.values.size(), nullptr);
    for (const Node& node : plan.nodes) {
      for (const ValueId output : node.outputs) {
        producer_[index_of(output)] = &node;
        bytes_[index_of(output)] = &bytes_by_device(output);
      }
    }
    places_.resize(plan.values.size());
  }

  std::vector<DeviceMemory> run() {
    std::vector<DeviceMemory> memory(plan_.devices.size());
    const std::vector<std::int64_t> weights = weight_bytes_by_device(plan_, layer_repeats_);
    for (std::size_t d = 0; d < memory.size(); ++d)
      memory[d] = d > 0 && is_like_previous(d) ? memory[d - 1] : at_fullest(lifetimes(d));
    for (std::size_t d = 0; d < memory.size(); ++d) {
      memory[d].weights = weights[d];
      memory[d].kv_cache = 0;
    }
    for (const Node& node : plan_.nodes) {
      if (!writes_state(node.kind)) continue;
      const std::int64_t count =
          layer_repeats_.empty() ? 1 : layer_repeats_[static_cast<std::size_t>(node.layer)];
      for (const ValueId cache : node.outputs) {
        for (std::size_t d = 0; d < memory.size(); ++d)
          memory[d].kv_cache += count * (*bytes_[index_of(cache)])[d];
      }
    }
    return memory;
  }

 private:
  // Ranks of a group mostly do and hold the same.
  [[nodiscard]] bool is_like_previous(std::size_t device) const {
    const PlanDevice& here = plan_.devices[device];
    const PlanDevice& before = plan_.devices[device - 1];
    if (here.compute != before.compute || here.comm != before.comm) return false;
    return std::ranges::all_of(known_, [device](const auto& entry) {
      return entry.second[device] == entry.second[device - 1];
    });
  }

  // Of a value on the device at hand: its buffer, and who writes it.
  struct Place {
    std::size_t device = std::numeric_limits<std::size_t>::max();
    Queue queue = Queue::compute;
    std::int32_t writer = 0;
    std::int32_t last_compute = -1;
    std::int32_t last_comm = -1;
  };

  const std::vector<std::int64_t>& bytes_by_device(ValueId id) {
    const Value& value = plan_.at(id);
    const auto [place, added] = known_.try_emplace({value.layout, value.role, value.microbatch});
    if (added) place->second = value_bytes_by_device(plan_, id, lengths_);
    return place->second;
  }

  [[nodiscard]] Category category_of(ValueId id) const {
    if (queue_of(producer_[index_of(id)]->kind) == Queue::comm) return &DeviceMemory::comm_buffers;
    const Role role = plan_.at(id).role;
    return role == Role::attention || role == Role::scores ? &DeviceMemory::attention
                                                           : &DeviceMemory::activations;
  }

  // Fills `categories_`, one per buffer, as well.
  DeviceLifetimes lifetimes(std::size_t device) {
    const PlanDevice& queues = plan_.devices[device];
    for (const auto& [queue, nodes] :
         {std::pair{Queue::compute, &queues.compute}, std::pair{Queue::comm, &queues.comm}}) {
      for (std::size_t i = 0; i < nodes->size(); ++i) {
        for (const ValueId output : plan_.at((*nodes)[i]).outputs) {
          places_[index_of(output)] = {
              .device = device, .queue = queue, .writer = static_cast<std::int32_t>(i)};
        }
      }
    }
    DeviceLifetimes result;
    result.compute_after_comm = read(device, queues.compute, Queue::compute);
    result.comm_after_compute = read(device, queues.comm, Queue::comm);
    categories_.clear();
    for (const auto* nodes : {&queues.compute, &queues.comm}) {
      for (const NodeId node : *nodes) add_buffers(device, plan_.at(node), result.buffers);
    }
    return result;
  }

  // Notes who reads what, and returns for each task the last task of the other queue that writes
  // for it.
  std::vector<std::int32_t> read(std::size_t device, const std::vector<NodeId>& nodes,
                                 Queue queue) {
    std::vector<std::int32_t> after(nodes.size(), -1);
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      for (const ValueId input : plan_.at(nodes[i]).inputs) {
        Place& place = places_[index_of(input)];
        if (place.device != device) continue;  // Nothing of it is written here.
        (queue == Queue::compute ? place.last_compute : place.last_comm) =
            static_cast<std::int32_t>(i);
        if (place.queue != queue) after[i] = std::max(after[i], place.writer);
      }
    }
    return after;
  }

  void add_buffers(std::size_t device, const Node& node, std::vector<Lifetime>& buffers) {
    if (writes_state(node.kind)) return;  // There all the time.
    for (const ValueId output : node.outputs) {
      const std::int64_t bytes = (*bytes_[index_of(output)])[device];
      if (bytes == 0) continue;
      const Place& place = places_[index_of(output)];
      Lifetime buffer = {.queue = place.queue,
                         .writer = place.writer,
                         .last_compute = place.last_compute,
                         .last_comm = place.last_comm,
                         .bytes = bytes};
      if (buffer.last_compute < 0 && buffer.last_comm < 0)
        (place.queue == Queue::compute ? buffer.last_compute : buffer.last_comm) = place.writer;
      buffers.push_back(buffer);
      categories_.push_back(category_of(output));
    }
  }

  [[nodiscard]] DeviceMemory at_fullest(const DeviceLifetimes& device) const {
    const QueueState state = fullest_state(device);
    DeviceMemory memory;
    for (std::size_t i = 0; i < device.buffers.size(); ++i) {
      if (is_alive(device.buffers[i], state)) memory.*categories_[i] += device.buffers[i].bytes;
    }
    return memory;
  }

  const Plan& plan_;
  const StepLengths& lengths_;
  std::span<const std::int64_t> layer_repeats_;
  std::vector<const Node*> producer_;  // By ValueId.
  std::vector<const std::vector<std::int64_t>*> bytes_;
  std::vector<Place> places_;
  std::vector<Category> categories_;
  std::map<std::tuple<LayoutId, Role, std::int32_t>, std::vector<std::int64_t>> known_;
};

}  // namespace

// Each distinct (device, box) is one buffer, however many `over` parts it has.
std::vector<std::int64_t> value_bytes_by_device(const Plan& plan, ValueId id,
                                                const StepLengths& lengths) {
  const Value& value = plan.at(id);
  const TensorShape shape = shape_of(plan, value);
  std::vector<std::int64_t> bytes(plan.devices.size(), 0);
  const Box* last = nullptr;
  std::int64_t bytes_of_last = 0;
  const auto add = [&](DeviceId device, const Box& box) {
    const bool replica = last != nullptr && box == *last;
    if (!replica) bytes_of_last = bytes_of(plan, value, shape, box, lengths);
    last = &box;
    bytes[index_of(device)] += bytes_of_last;
  };
  const Layout& layout = plan.layout_of(id);
  if (layout.kind == LayoutKind::whole) {  // A buffer each: no device has a piece twice.
    for (const Piece& piece : layout.pieces) add(piece.device, piece.box);
    return bytes;
  }
  const std::vector<Buffer> buffers = buffers_of(layout);
  for (const Buffer& buffer : buffers) add(buffer.device, buffer.box);
  return bytes;
}

std::vector<DeviceMemory> memory_by_device(const Plan& plan, const StepLengths& lengths,
                                           std::span<const std::int64_t> layer_repeats) {
  return MemoryPlanner(plan, lengths, layer_repeats).run();
}

}  // namespace weir
