#include "plan/transfers.h"

#include <algorithm>
#include <span>

#include "base/check.h"
#include "layout/redistribute.h"

namespace weir {
namespace {

ResolvedBox intersect(const ResolvedBox& a, const ResolvedBox& b) {
  return {.request = a.request,
          .token = weir::intersect(a.token, b.token),
          .head = weir::intersect(a.head, b.head),
          .dim = weir::intersect(a.dim, b.dim)};
}

bool contains(const ResolvedBox& outer, const ResolvedBox& inner) {
  return outer.token.contains(inner.token) && outer.head.contains(inner.head) &&
         outer.dim.contains(inner.dim);
}

bool serves(const Buffer& buffer, std::int64_t request, std::int64_t batch_size) {
  const Interval requests = requests_of(buffer.box, batch_size);
  return requests.begin <= request && request < requests.end;
}

// One input's buffers as seen by one request, in the output's coordinates.
struct Source {
  std::uint32_t input;
  std::uint32_t buffer;
  DeviceId device;
  ResolvedBox box;
};

class TransferList {
 public:
  TransferList(const Plan& plan, const Node& node, const StepLengths& lengths)
      : plan_(plan), node_(node), lengths_(lengths) {}

  std::vector<Transfer> run() {
    const Value& output = plan_.at(node_.outputs[0]);
    const TensorShape shape = shape_of(plan_, output);
    const std::vector<Buffer> targets = buffers_of(plan_.layout_of(node_.outputs[0]));
    for (std::uint32_t target = 0; target < targets.size(); ++target) {
      const Interval requests = requests_of(targets[target].box, plan_.batch_size());
      for (std::int64_t request = requests.begin; request < requests.end; ++request) {
        const RequestLengths lengths = lengths_[static_cast<std::size_t>(request)];
        const ResolvedBox wanted = resolve(targets[target].box, shape, request, lengths);
        if (wanted.elements() == 0) continue;
        if (node_.kind == OpKind::kv_copy) {
          fill_cache(target, targets[target].device, wanted, lengths);
        } else {
          fill(target, targets[target].device, wanted, sources_of(0, request, 0));
        }
      }
    }
    return std::move(transfers_);
  }

 private:
  // `shift` is added to token coordinates: new tokens become positions.
  std::vector<Source> sources_of(std::uint32_t input, std::int64_t request, std::int64_t shift) {
    if (buffers_.size() <= input) buffers_.resize(input + 1);
    auto& buffers = buffers_[input];
    if (buffers.empty()) buffers = buffers_of(plan_.layout_of(node_.inputs[input]));
    const TensorShape shape = shape_of(plan_, plan_.at(node_.inputs[input]));
    std::vector<Source> sources;
    for (std::uint32_t i = 0; i < buffers.size(); ++i) {
      if (!serves(buffers[i], request, plan_.batch_size())) continue;
      ResolvedBox box =
          resolve(buffers[i].box, shape, request, lengths_[static_cast<std::size_t>(request)]);
      box.token.begin += shift;
      box.token.end += shift;
      sources.push_back({.input = input, .buffer = i, .device = buffers[i].device, .box = box});
    }
    return sources;
  }

  void add(std::uint32_t target, DeviceId to, const Source& source, const ResolvedBox& box) {
    transfers_.push_back({.input = source.input,
                          .source = source.buffer,
                          .target = target,
                          .from = source.device,
                          .to = to,
                          .box = box});
  }

  void fill(std::uint32_t target, DeviceId to, const ResolvedBox& wanted,
            const std::vector<Source>& sources) {
    if (plan_.layout_of(node_.inputs[0]).kind == LayoutKind::whole) {
      fill_whole(target, to, wanted, sources);
      return;
    }
    for (const Source& source : sources) {
      const ResolvedBox part = intersect(source.box, wanted);
      if (part.elements() > 0) add(target, to, source, part);
    }
  }

  void fill_whole(std::uint32_t target, DeviceId to, const ResolvedBox& wanted,
                  const std::vector<Source>& sources) {
    std::vector<ResolvedBox> filled;
    const auto take = [&](const Source& source) {
      const ResolvedBox part = intersect(source.box, wanted);
      if (part.elements() == 0) return;
      if (std::ranges::any_of(filled, [&](const ResolvedBox& box) { return contains(box, part); }))
        return;
      add(target, to, source, part);
      filled.push_back(part);
    };
    for (const Source& source : sources) {
      if (source.device == to) take(source);
    }
    for (std::size_t i = 0; i < sources.size(); ++i) {
      // The replicas of this part; the receiver's id says whose turn it is.
      std::vector<const Source*> replicas;
      for (const Source& other : sources) {
        if (other.box == sources[i].box && other.device != to) replicas.push_back(&other);
      }
      if (!replicas.empty()) take(*replicas[index_of(to) % replicas.size()]);
    }
  }

  // New positions come from k and v, earlier ones that this device does not hold from the cache
  // before.
  void fill_cache(std::uint32_t target, DeviceId to, const ResolvedBox& wanted,
                  RequestLengths lengths) {
    const std::int64_t past = lengths.kv_len - lengths.q_len;
    ResolvedBox fresh = wanted;
    fresh.token = weir::intersect(wanted.token, {.begin = past, .end = lengths.kv_len});
    if (fresh.elements() > 0) fill_whole(target, to, fresh, sources_of(0, wanted.request, past));
    ResolvedBox earlier = wanted;
    earlier.token = weir::intersect(wanted.token, {.begin = 0, .end = past});
    if (earlier.elements() > 0) fill_whole(target, to, earlier, sources_of(2, wanted.request, 0));
  }

  const Plan& plan_;
  const Node& node_;
  const StepLengths& lengths_;
  std::vector<std::vector<Buffer>> buffers_;  // By input.
  std::vector<Transfer> transfers_;
};

// Bytes of the box that a collective group holds together.
std::int64_t bytes_of_box(const Plan& plan, ValueId id, const Box& box,
                          const StepLengths& lengths) {
  const Value& value = plan.at(id);
  const TensorShape shape = shape_of(plan, value);
  const bool partial_attention = plan.layout_of(id).kind == LayoutKind::softmax;
  const Interval requests = requests_of(box, plan.batch_size());
  std::int64_t bytes = 0;
  for (std::int64_t request = requests.begin; request < requests.end; ++request) {
    const ResolvedBox resolved =
        resolve(box, shape, request, lengths[static_cast<std::size_t>(request)]);
    bytes += resolved.elements() * size_in_bytes(value.dtype);
    if (partial_attention)
      bytes += resolved.token.size() * resolved.head.size() * size_in_bytes(DType::f32);
  }
  return bytes;
}

}  // namespace

std::vector<Transfer> transfers_of(const Plan& plan, NodeId node, const StepLengths& lengths) {
  return TransferList(plan, plan.at(node), lengths).run();
}

std::vector<std::vector<DeviceId>> partners_of(const Plan& plan, NodeId id,
                                               const StepLengths& lengths) {
  const Node& node = plan.at(id);
  const std::vector<DeviceId>& members = plan.at(node.devices);
  std::vector<std::vector<DeviceId>> partners;
  for (const DeviceId member : members) partners.push_back({member});
  const auto join = [&](DeviceId member, DeviceId partner) {
    auto& known = partners[static_cast<std::size_t>(std::ranges::lower_bound(members, member) -
                                                    members.begin())];
    const auto place = std::ranges::lower_bound(known, partner);
    if (place == known.end() || *place != partner) known.insert(place, partner);
  };
  // Sums are reduced in parts and handed round: everybody waits for everybody, whatever the parts.
  if (node.kind == OpKind::all_reduce && plan.layout_of(node.inputs[0]).kind == LayoutKind::sum) {
    const RedistributionPlan movement =
        classify(plan.layout_of(node.inputs[0]), plan.layout_of(node.outputs[0]));
    for (const CollectiveGroup& group : movement.groups) {
      for (const DeviceId member : group.members) {
        for (const DeviceId partner : group.members) join(member, partner);
      }
    }
    return partners;
  }
  for (const Transfer& transfer : transfers_of(plan, id, lengths)) {
    join(transfer.from, transfer.to);
    join(transfer.to, transfer.from);
  }
  return partners;
}

std::int64_t bytes_of(const Plan& plan, const Node& node, const Transfer& transfer) {
  const Value& value = plan.at(node.inputs[transfer.input]);
  if (node.kind == OpKind::kv_copy) return 2 * transfer.box.elements() * size_in_bytes(value.dtype);
  std::int64_t bytes = transfer.box.elements() * size_in_bytes(value.dtype);
  if (value.role == Role::kv_cache) bytes *= 2;
  if (plan.layout_of(node.inputs[0]).kind == LayoutKind::softmax) {
    bytes += transfer.box.token.size() * transfer.box.head.size() * size_in_bytes(DType::f32);
  }
  return bytes;
}

std::int64_t bytes_sent(const Plan& plan, NodeId id, const StepLengths& lengths) {
  const Node& node = plan.at(id);
  if (queue_of(node.kind) == Queue::compute) return 0;
  std::int64_t bytes = 0;
  using enum OpKind;
  if (node.kind == copy || node.kind == kv_copy || node.kind == all_to_all) {
    for (const Transfer& transfer : transfers_of(plan, id, lengths)) {
      if (transfer.from != transfer.to) bytes += bytes_of(plan, node, transfer);
    }
    return bytes;
  }
  const std::int64_t factor = node.kind == all_reduce ? 2 : 1;
  const RedistributionPlan movement =
      classify(plan.layout_of(node.inputs[0]), plan.layout_of(node.outputs[0]));
  for (const CollectiveGroup& group : movement.groups) {
    const auto others = static_cast<std::int64_t>(group.members.size()) - 1;
    bytes += factor * others * bytes_of_box(plan, node.inputs[0], group.box, lengths);
  }
  return bytes;
}

}  // namespace weir
