#include "plan/memory.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "plan/placement.h"

namespace weir {
namespace {

struct DeviceBytes {
  DeviceId device;
  std::int64_t bytes;
};

// Each distinct (device, box) is one buffer, however many `over` parts it has.
std::vector<DeviceBytes> bytes_of(const Plan& plan, const Value& value,
                                  const StepLengths& lengths) {
  const Layout& layout = plan.layouts[index_of(value.layout)];
  const TensorShape shape = shape_of(plan, value);
  std::vector<DeviceBytes> result;
  result.reserve(layout.pieces.size());
  for (const Buffer& buffer : buffers_of(layout)) {
    std::int64_t elements = 0;
    std::int64_t rows = 0;
    const Interval requests = requests_of(buffer.box, plan.batch_size());
    ResolvedBox box;
    for (std::int64_t request = requests.begin; request < requests.end; ++request) {
      const auto r = static_cast<std::size_t>(request);
      const bool as_before = request > requests.begin && lengths[r] == lengths[r - 1];
      if (!as_before) box = resolve(buffer.box, shape, request, lengths[r]);
      elements += box.elements();
      rows += box.token.size() * box.head.size();
    }
    std::int64_t bytes = elements * size_in_bytes(value.dtype);
    if (layout.kind == LayoutKind::softmax) bytes += rows * size_in_bytes(DType::f32);
    result.push_back({.device = buffer.device, .bytes = bytes});
  }
  return result;
}

class Liveness {
 public:
  Liveness(const Plan& plan, const StepLengths& lengths, std::span<const NodeId> order,
           std::span<const std::int64_t> layer_repeats)
      : plan_(plan),
        lengths_(lengths),
        order_(order),
        layer_repeats_(layer_repeats),
        current_(plan.devices.size()),
        peak_(plan.devices.size()),
        of_value_(plan.values.size(), nullptr) {}

  std::vector<DeviceMemory> run() {
    std::vector<std::uint32_t> readers_left(plan_.values.size(), 0);
    for (const Node& node : plan_.nodes) {
      for (const ValueId input : node.inputs) ++readers_left[index_of(input)];
    }
    for (const NodeId id : order_) {
      const Node& node = plan_.at(id);
      for (const ValueId output : node.outputs) change(node, output, +1);
      for (const DeviceId device : plan_.at(node.devices)) note_peak(device);
      for (const ValueId input : node.inputs) {
        if (--readers_left[index_of(input)] == 0) release(input);
      }
    }
    return finished();
  }

 private:
  const std::vector<DeviceBytes>& bytes(ValueId id) {
    const std::vector<DeviceBytes>*& found = of_value_[index_of(id)];
    if (found != nullptr) return *found;
    const Value& value = plan_.at(id);
    const auto [place, added] = known_.try_emplace({value.layout, value.role, value.microbatch});
    if (added) place->second = bytes_of(plan_, value, lengths_);
    found = &place->second;
    return *found;
  }

  void change(const Node& node, ValueId id, std::int64_t sign) {
    if (writes_state(node.kind)) return;  // State: counted once, below.
    producer_.resize(plan_.values.size(), OpKind::kv_append);
    producer_[index_of(id)] = node.kind;
    apply(id, node.kind, sign);
  }

  void release(ValueId id) {
    const bool state = is_cache(plan_.at(id).role) && producer_[index_of(id)] == OpKind::kv_append;
    if (!state) apply(id, producer_[index_of(id)], -1);
  }

  void apply(ValueId id, OpKind producer, std::int64_t sign) {
    for (const DeviceBytes& entry : bytes(id)) {
      DeviceMemory& memory = current_[index_of(entry.device)];
      const std::int64_t bytes = sign * entry.bytes;
      if (queue_of(producer) == Queue::comm) {
        memory.comm_buffers += bytes;
      } else if (plan_.at(id).role == Role::attention || plan_.at(id).role == Role::scores) {
        memory.attention += bytes;
      } else {
        memory.activations += bytes;
      }
    }
  }

  void note_peak(DeviceId device) {
    const std::size_t i = index_of(device);
    if (current_[i].total() > peak_[i].total()) peak_[i] = current_[i];
  }

  std::vector<DeviceMemory> finished() {
    const std::vector<std::int64_t> weights = weight_bytes_by_device(plan_, layer_repeats_);
    for (std::size_t device = 0; device < peak_.size(); ++device)
      peak_[device].weights = weights[device];
    for (const Node& node : plan_.nodes) {
      if (!writes_state(node.kind)) continue;
      const std::int64_t count =
          layer_repeats_.empty() ? 1 : layer_repeats_[static_cast<std::size_t>(node.layer)];
      for (const ValueId cache : node.outputs) {
        for (const DeviceBytes& entry : bytes(cache)) {
          peak_[index_of(entry.device)].kv_cache += count * entry.bytes;
        }
      }
    }
    return std::move(peak_);
  }

  const Plan& plan_;
  const StepLengths& lengths_;
  std::span<const NodeId> order_;
  std::span<const std::int64_t> layer_repeats_;
  std::vector<DeviceMemory> current_;
  std::vector<DeviceMemory> peak_;
  std::vector<OpKind> producer_;
  std::map<std::tuple<LayoutId, Role, std::int32_t>, std::vector<DeviceBytes>> known_;
  std::vector<const std::vector<DeviceBytes>*> of_value_;
};

}  // namespace

std::vector<std::int64_t> value_bytes_by_device(const Plan& plan, ValueId value,
                                                const StepLengths& lengths) {
  std::vector<std::int64_t> bytes(plan.devices.size(), 0);
  for (const DeviceBytes& entry : bytes_of(plan, plan.at(value), lengths))
    bytes[index_of(entry.device)] += entry.bytes;
  return bytes;
}

std::vector<DeviceMemory> memory_by_device(const Plan& plan, const StepLengths& lengths,
                                           std::span<const NodeId> order,
                                           std::span<const std::int64_t> layer_repeats) {
  return Liveness(plan, lengths, order, layer_repeats).run();
}

}  // namespace weir
