#include "plan/transfers.h"

#include <algorithm>
#include <functional>
#include <span>

#include "base/check.h"
#include "layout/redistribute.h"
#include "plan/equal_lengths.h"

namespace weir {
namespace {

ResolvedBox intersect(const ResolvedBox& a, const ResolvedBox& b) {
  return {.request = a.request,
          .token = weir::intersect(a.token, b.token),
          .head = weir::intersect(a.head, b.head),
          .dim = weir::intersect(a.dim, b.dim)};
}

// Cuts `removed` out of disjoint boxes: per box at most two parts per axis are left.
void cut_out(const ResolvedBox& removed, std::vector<ResolvedBox>& boxes) {
  const std::size_t before = boxes.size();
  std::size_t untouched = 0;
  for (std::size_t i = 0; i < before; ++i) {
    ResolvedBox box = boxes[i];
    const ResolvedBox common = intersect(box, removed);
    if (common.elements() == 0) {
      boxes[untouched++] = box;
      continue;
    }
    for (Interval ResolvedBox::*axis :
         {&ResolvedBox::token, &ResolvedBox::head, &ResolvedBox::dim}) {
      const auto keep = [&](Interval part) {
        if (part.empty()) return;
        boxes.push_back(box);
        boxes.back().*axis = part;
      };
      keep({.begin = (box.*axis).begin, .end = (common.*axis).begin});
      keep({.begin = (common.*axis).end, .end = (box.*axis).end});
      box.*axis = common.*axis;
    }
  }
  boxes.erase(boxes.begin() + static_cast<std::ptrdiff_t>(untouched),
              boxes.begin() + static_cast<std::ptrdiff_t>(before));
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
    for (output_ = 0; output_ < node_.outputs.size(); ++output_) fill_output();
    return std::move(transfers_);
  }

 private:
  void fill_output() {
    const TensorShape shape = shape_of(plan_, plan_.at(node_.outputs[output_]));
    const std::vector<Buffer> targets = buffers_of(plan_.layout_of(node_.outputs[output_]));
    for (std::uint32_t target = 0; target < targets.size(); ++target) {
      const Interval requests = requests_of(targets[target].box, plan_.batch_size());
      std::size_t first = transfers_.size();  // Of the request before.
      for (std::int64_t request = requests.begin; request < requests.end; ++request) {
        if (request > requests.begin && is_as_before(request)) {
          repeat(first, request);
          continue;
        }
        first = transfers_.size();
        const RequestLengths lengths = lengths_[static_cast<std::size_t>(request)];
        const ResolvedBox wanted = resolve(targets[target].box, shape, request, lengths);
        if (wanted.elements() == 0) continue;
        if (node_.kind == OpKind::kv_copy) {
          fill_cache(target, targets[target].device, wanted, lengths);
        } else {
          fill(target, targets[target], wanted, sources_of(0, request, 0));
        }
      }
    }
  }

  // Whether the request gets just what the one before it got, of its own.
  [[nodiscard]] bool is_as_before(std::int64_t request) {
    const auto place = static_cast<std::size_t>(request);
    if (lengths_[place] != lengths_[place - 1]) return false;
    return std::ranges::none_of(buffers_, [&](const std::vector<Buffer>& buffers) {
      return std::ranges::any_of(buffers, [&](const Buffer& buffer) {
        const Interval served = requests_of(buffer.box, plan_.batch_size());
        return served.begin == request || served.end == request;
      });
    });
  }

  // Adds the transfers from `first` on again, as those of `request`.
  void repeat(std::size_t& first, std::int64_t request) {
    const std::size_t end = transfers_.size();
    transfers_.reserve(end + end - first);
    for (std::size_t i = first; i < end; ++i) {
      transfers_.push_back(transfers_[i]);
      transfers_.back().box.request = request;
    }
    first = end;
  }

  // `shift` is added to token coordinates: new tokens become positions.
  std::vector<Source> sources_of(std::uint32_t input, std::int64_t request, std::int64_t shift) {
    if (buffers_.size() <= input) buffers_.resize(input + 1);
    auto& buffers = buffers_[input];
    if (buffers.empty()) buffers = buffers_of(plan_.layout_of(node_.inputs[input]));
    const TensorShape shape = shape_of(plan_, plan_.at(node_.inputs[input]));
    std::vector<Source> sources;
    sources.reserve(buffers.size());
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
    transfers_.push_back({.output = output_,
                          .input = source.input,
                          .source = source.buffer,
                          .target = target,
                          .from = source.device,
                          .to = to,
                          .box = box});
  }

  void fill(std::uint32_t target, const Buffer& buffer, const ResolvedBox& wanted,
            const std::vector<Source>& sources) {
    const Layout& from = plan_.layout_of(node_.inputs[0]);
    if (from.kind == LayoutKind::whole) {
      fill_whole(target, buffer.device, wanted, sources);
      return;
    }
    const Layout& to = plan_.layout_of(node_.outputs[0]);
    for (const Source& source : sources) {
      const ResolvedBox part = intersect(source.box, wanted);
      if (part.elements() == 0) continue;
      const bool wants_it =
          to.kind == LayoutKind::whole || holds_terms(to, buffer, from, buffers_[0][source.buffer]);
      if (wants_it) add(target, buffer.device, source, part);
    }
  }

  // Does the target's list of terms name all terms of the source?
  static bool holds_terms(const Layout& to, const Buffer& target, const Layout& from,
                          const Buffer& source) {
    return std::ranges::all_of(from.pieces, [&](const Piece& term) {
      if (term.device != source.device || term.box != source.box) return true;
      return std::ranges::any_of(to.pieces, [&](const Piece& wanted) {
        return wanted.device == target.device && wanted.box == target.box &&
               wanted.over == term.over;
      });
    });
  }

  // `filled`: parts that need nothing.
  void fill_whole(std::uint32_t target, DeviceId to, const ResolvedBox& wanted,
                  const std::vector<Source>& sources, const std::vector<ResolvedBox>& filled = {}) {
    std::vector<ResolvedBox> missing = {wanted};
    for (const ResolvedBox& box : filled) cut_out(box, missing);
    const auto take = [&](const Source& source) {
      bool taken = false;
      for (const ResolvedBox& gap : missing) {
        const ResolvedBox part = intersect(source.box, gap);
        if (part.elements() == 0) continue;
        add(target, to, source, part);
        taken = true;
      }
      if (taken) cut_out(source.box, missing);
    };
    for (const Source& source : sources) {
      if (source.device == to) take(source);
    }
    if (missing.empty()) return;
    // Large parts first, so that whole replicas come before slices of them.
    std::vector<const Source*> others;
    others.reserve(sources.size());
    for (const Source& source : sources) {
      if (source.device != to) others.push_back(&source);
    }
    std::ranges::stable_sort(others, std::greater<>{}, [&](const Source* source) {
      return intersect(source->box, wanted).elements();
    });
    for (const Source* source : others) {
      if (missing.empty()) return;
      // Of the replicas of this part, the receiver's id says whose turn it is.
      const auto is_replica = [&](const Source* other) { return other->box == source->box; };
      auto turn =
          index_of(to) % static_cast<std::size_t>(std::ranges::count_if(others, is_replica));
      take(**std::ranges::find_if(
          others, [&](const Source* other) { return is_replica(other) && turn-- == 0; }));
    }
  }

  // New positions come from what was projected, earlier ones that this device does not hold from
  // the cache before: inputs 0 and 2 for K, 1 and 3 for V.
  void fill_cache(std::uint32_t target, DeviceId to, const ResolvedBox& wanted,
                  RequestLengths lengths) {
    const std::int64_t past = lengths.kv_len - lengths.q_len;
    ResolvedBox fresh = wanted;
    fresh.token = weir::intersect(wanted.token, {.begin = past, .end = lengths.kv_len});
    if (fresh.elements() > 0) {
      fill_whole(target, to, fresh, sources_of(output_, wanted.request, past));
    }
    ResolvedBox earlier = wanted;
    earlier.token = weir::intersect(wanted.token, {.begin = 0, .end = past});
    if (earlier.elements() == 0) return;
    const std::vector<Source> sources = sources_of(2 + output_, wanted.request, 0);
    // What lies on the device in the same heads and dims stays where it is.
    std::vector<ResolvedBox> kept;
    for (const Source& source : sources) {
      const bool stays =
          source.device == to && source.box.head == wanted.head && source.box.dim == wanted.dim;
      if (stays) kept.push_back(intersect(source.box, earlier));
    }
    fill_whole(target, to, earlier, sources, kept);
  }

  const Plan& plan_;
  const Node& node_;
  const StepLengths& lengths_;
  std::vector<std::vector<Buffer>> buffers_;  // By input.
  std::uint32_t output_ = 0;
  std::vector<Transfer> transfers_;
};

}  // namespace

std::vector<Transfer> transfers_of(const Plan& plan, NodeId node, const StepLengths& lengths) {
  return TransferList(plan, plan.at(node), lengths).run();
}

std::vector<std::vector<DeviceId>> partners_of(const Plan& plan, NodeId id,
                                               const StepLengths& lengths) {
  const Node& node = plan.at(id);
  const std::vector<DeviceId>& members = plan.at(node.devices);
  std::vector<std::vector<DeviceId>> partners;
  partners.reserve(members.size());
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
  std::int64_t bytes = transfer.box.elements() * size_in_bytes(value.dtype);
  if (plan.layout_of(node.inputs[0]).kind == LayoutKind::softmax) {
    bytes += transfer.box.token.size() * transfer.box.head.size() * size_in_bytes(DType::f32);
  }
  return bytes;
}

std::int64_t bytes_of_box(const Plan& plan, ValueId id, const Box& box,
                          const StepLengths& lengths) {
  const Value& value = plan.at(id);
  const TensorShape shape = shape_of(plan, value);
  const bool partial_attention = plan.layout_of(id).kind == LayoutKind::softmax;
  std::int64_t bytes = 0;
  const auto count = [&](std::int64_t request, std::int64_t alike, const RequestLengths& length) {
    const ResolvedBox resolved = resolve(box, shape, request, length);
    bytes += alike * resolved.elements() * size_in_bytes(value.dtype);
    if (partial_attention)
      bytes += alike * resolved.token.size() * resolved.head.size() * size_in_bytes(DType::f32);
  };
  each_of_equal_lengths(requests_of(box, plan.batch_size()), lengths, count);
  return bytes;
}

std::int64_t bytes_sent(const Plan& plan, NodeId id, const StepLengths& lengths) {
  const Node& node = plan.at(id);
  if (queue_of(node.kind) == Queue::compute) return 0;
  std::int64_t bytes = 0;
  using enum OpKind;
  if (node.kind == copy || node.kind == kv_copy || node.kind == all_to_all || node.kind == gather) {
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
