#include "exec/redistribute.h"

#include <algorithm>
#include <limits>
#include <map>
#include <utility>

#include "base/check.h"
#include "exec/kv_view.h"
#include "exec/prepared_plan.h"
#include "exec/region.h"
#include "layout/redistribute.h"

namespace weir {
namespace {

// Reads and writes what a node's transfers name, on one device.
class Parts {
 public:
  Parts(const StepView& step, DeviceState& device, const Node& node)
      : step_(step),
        device_(device),
        node_(node),
        kind_(step.bound(node.inputs[0]).kind),
        adds_at_once_(kind_ == LayoutKind::sum &&
                      (node.kind == OpKind::reduce_scatter || node.kind == OpKind::reduce)) {
    if (node.kind != OpKind::kv_copy && kind_ == LayoutKind::softmax && targets_are_whole()) {
      merged_lse_.resize(step.bound(node.outputs[0]).by_device[index_of(device.id)].size());
    }
  }

  [[nodiscard]] bool partial_attention() const { return kind_ == LayoutKind::softmax; }

  // Floats that a transfer carries.
  [[nodiscard]] std::int64_t floats_of(const Transfer& transfer) const {
    std::int64_t floats = transfer.box.elements();
    if (partial_attention()) floats += transfer.box.token.size() * transfer.box.head.size();
    return floats;
  }

  // Copies the part into dense memory.
  void pack(const Transfer& transfer, float* to) {
    if (from_store(transfer) || node_.kind == OpKind::kv_copy) {
      pack_kv(transfer, to);
      return;
    }
    copy_region(*device_.team, dense(to, transfer.box, partial_attention()),
                source_region(transfer));
  }

  // The part itself, if it lies densely in its buffer already.
  [[nodiscard]] const float* in_place(const Transfer& transfer) {
    if (node_.kind == OpKind::kv_copy || from_store(transfer) || partial_attention())
      return nullptr;
    const Region region = source_region(transfer);
    const bool whole_rows = region.row_stride == region.heads * region.dims;
    return whole_rows || region.rows == 1 ? region.data : nullptr;
  }

  // Clears what partial terms will be added to one by one.
  void clear_targets() {
    if (kind_ == LayoutKind::whole || node_.kind == OpKind::kv_copy || adds_at_once_) return;
    const BoundLayout& bound = step_.bound(node_.outputs[0]);
    const auto& buffers = bound.by_device[index_of(device_.id)];
    LocalValue& output = device_.values[index_of(node_.outputs[0])];
    for (std::size_t part = 0; part < buffers.size(); ++part) {
      const BoundBuffer& buffer = bound.buffers[buffers[part]];
      std::fill_n(output.parts[part].data(), buffer.elements, 0.0F);
      if (kind_ != LayoutKind::softmax) continue;
      const std::int64_t lse_count = buffer.rows * buffer.head.size();
      if (!merged_lse_.empty()) merged_lse_[part] = device_.pool.take(lse_count);
      std::fill_n(target_lse(part), lse_count, -std::numeric_limits<float>::infinity());
    }
  }

  // Puts dense memory where the transfer's target is: copied, added or merged.
  void unpack(const Transfer& transfer, const float* from) {
    if (node_.kind == OpKind::kv_copy) {
      unpack_kv(transfer, from);
      return;
    }
    // NOLINTNEXTLINE(cppcoreguidelines-pro-type-const-cast): only read; one type for both sides.
    auto* const unwritten = const_cast<float*>(from);
    fold(transfer, dense(unwritten, transfer.box, partial_attention()));
  }

  void copy_within(const Transfer& transfer) {
    if (node_.kind != OpKind::kv_copy && !from_store(transfer)) {
      fold(transfer, source_region(transfer));
      return;
    }
    const PooledBuffer packed = device_.pool.take(floats_of(transfer));
    pack(transfer, packed.data());
    unpack(transfer, packed.data());
  }

  // Adds up the terms that were taken last.
  void finish_sum() {
    if (summed_ == nullptr) return;
    CommMemory& memory = device_.comm_memory;
    sum_regions(*device_.team, target_region(*summed_), memory.terms, memory.term_views);
    memory.terms.clear();
    summed_ = nullptr;
  }

  // Drops what a change of layout has left behind in the store.
  void tidy_store() {
    for (const ValueId cache : node_.outputs) {
      const BoundLayout& bound = step_.bound(cache);
      std::map<std::int64_t, std::vector<KvStrip::Shape>> kept;
      for (const std::uint32_t index : bound.by_device[index_of(device_.id)]) {
        const BoundBuffer& buffer = bound.buffers[index];
        const Interval requests = requests_of(buffer.box, step_.plan->batch_size());
        for (std::int64_t request = requests.begin; request < requests.end; ++request) {
          kept[request].push_back(shape_of_strip(buffer));
        }
      }
      for (const auto& [request, shapes] : kept) {
        device_.kv.keep_only(key_of(step_, cache, request), shapes);
      }
    }
  }

 private:
  [[nodiscard]] bool targets_are_whole() const {
    return step_.bound(node_.outputs[0]).kind == LayoutKind::whole;
  }

  [[nodiscard]] std::size_t part_of(ValueId value, std::uint32_t buffer) const {
    const auto& buffers = step_.bound(value).by_device[index_of(device_.id)];
    return static_cast<std::size_t>(std::ranges::find(buffers, buffer) - buffers.begin());
  }

  [[nodiscard]] float* target_lse(std::size_t part) {
    return merged_lse_.empty() ? device_.values[index_of(node_.outputs[0])].lse[part].data()
                               : merged_lse_[part].data();
  }

  Region source_region(const Transfer& transfer) {
    const ValueId value = node_.inputs[transfer.input];
    const std::size_t part = part_of(value, transfer.source);
    LocalValue& local = device_.values[index_of(value)];
    float* const lse = partial_attention() ? local.lse[part].data() : nullptr;
    return region_of(step_.bound(value).buffers[transfer.source], local.parts[part].data(), lse,
                     transfer.box, 0);
  }

  Region target_region(const Transfer& transfer) {
    const ValueId value = node_.outputs[0];
    const std::size_t part = part_of(value, transfer.target);
    float* const lse = partial_attention() ? target_lse(part) : nullptr;
    return region_of(step_.bound(value).buffers[transfer.target],
                     device_.values[index_of(value)].parts[part].data(), lse, transfer.box, 0);
  }

  void fold(const Transfer& transfer, const Region& source) {
    switch (kind_) {
      case LayoutKind::whole:
        copy_region(*device_.team, target_region(transfer), source);
        break;
      case LayoutKind::sum:
        if (adds_at_once_) {
          add_later(transfer, source);
        } else {
          add_region(*device_.team, target_region(transfer), source);
        }
        break;
      case LayoutKind::softmax:
        merge_region(*device_.team, target_region(transfer), source);
        break;
    }
  }

  // Terms of the same part come one after the other.
  void add_later(const Transfer& transfer, const Region& source) {
    const bool same =
        summed_ != nullptr && summed_->target == transfer.target && summed_->box == transfer.box;
    if (!same) finish_sum();
    summed_ = &transfer;
    device_.comm_memory.terms.push_back(source);
  }

  // Is the source in the KV store, not in a buffer?
  [[nodiscard]] bool from_store(const Transfer& transfer) const {
    const ValueId value = node_.inputs[transfer.input];
    return is_cache(step_.plan->at(value).role) && is_state(step_.plan, value);
  }

  [[nodiscard]] KvStrip::Shape shape_of_strip(const BoundBuffer& buffer) const {
    return {.heads = buffer.head, .dims = buffer.dim, .dtype = step_.plan->kv_dtype};
  }

  // K or V of the transfer's positions, heads and dims, as f32. New tokens come from what was
  // projected, earlier ones from the store.
  void pack_kv(const Transfer& transfer, float* to) {
    const Region target = dense(to, transfer.box, false);
    if (from_store(transfer)) {
      read_store(transfer, target);
      return;
    }
    const RequestLengths lengths =
        step_.input.lengths[static_cast<std::size_t>(transfer.box.request)];
    const ValueId value = node_.inputs[transfer.input];
    const std::size_t part = part_of(value, transfer.source);
    copy_region(*device_.team, target,
                region_of(step_.bound(value).buffers[transfer.source],
                          device_.values[index_of(value)].parts[part].data(), nullptr, transfer.box,
                          lengths.kv_len - lengths.q_len));
  }

  void read_store(const Transfer& transfer, const Region& target) {
    const ResolvedBox& box = transfer.box;
    std::list<const void*> pointers;
    const KvView view = find_kv(step_, device_,
                                {.cache = node_.inputs[transfer.input],
                                 .request = box.request,
                                 .heads = box.head,
                                 .dims = box.dim,
                                 .positions = box.token},
                                pointers);
    kernel::read_kv(view.blocks,
                    {.first_position = box.token.begin,
                     .rows = box.token.size(),
                     .first_head = box.head.begin - view.first_head,
                     .num_heads = box.head.size(),
                     .first_dim = box.dim.begin - view.first_dim,
                     .head_dim = box.dim.size()},
                    target.data, target.row_stride);
  }

  void unpack_kv(const Transfer& transfer, const float* from) {
    const ResolvedBox& box = transfer.box;
    const ValueId cache = node_.outputs[transfer.output];
    const BoundBuffer& buffer = step_.bound(cache).buffers[transfer.target];
    KvStrip& strip = device_.kv.strip(key_of(step_, cache, box.request), shape_of_strip(buffer));
    strip.reserve(box.token);
    kernel::write_kv(*device_.team,
                     {.source = from,
                      .source_row_stride = box.head.size() * box.dim.size(),
                      .rows = box.token.size(),
                      .num_heads = box.head.size(),
                      .head_dim = box.dim.size(),
                      .first_position_of_rows = box.token.begin,
                      .first_head = box.head.begin - buffer.head.begin,
                      .first_dim = box.dim.begin - buffer.dim.begin},
                     strip.mutable_blocks(box.token));
  }

  const StepView& step_;
  DeviceState& device_;
  const Node& node_;
  LayoutKind kind_;
  // Every member has a term of the same box, of which each wants its part or one all: nothing has
  // to be cleared, and memory is passed over once.
  bool adds_at_once_;
  const Transfer* summed_ = nullptr;  // The last whose term waits to be added.
  std::vector<PooledBuffer>
      merged_lse_;  // Of whole targets of partial attention, while terms are merged.
};

const std::vector<DeviceId>* group_with(const RedistributionPlan& movement, DeviceId device) {
  for (const CollectiveGroup& group : movement.groups) {
    if (std::ranges::binary_search(group.members, device)) return &group.members;
  }
  return nullptr;
}

std::span<const std::byte> bytes_of(const float* data, std::int64_t floats) {
  return std::as_bytes(std::span(data, static_cast<std::size_t>(floats)));
}

const float* floats_of(std::span<const std::byte> bytes) {
  return reinterpret_cast<const float*>(
      bytes.data());  // NOLINT(cppcoreguidelines-pro-type-reinterpret-cast)
}

kernel::ConstMatrix row_of(const float* data, std::int64_t floats) {
  return {.data = data, .rows = 1, .cols = floats, .row_stride = floats};
}
kernel::Matrix row_of(float* data, std::int64_t floats) {
  return {.data = data, .rows = 1, .cols = floats, .row_stride = floats};
}

}  // namespace

void copy_local(const StepView& step, DeviceState& device, const Node& node,
                std::span<const Transfer> transfers) {
  Parts parts(step, device, node);
  for (const Transfer& transfer : transfers) {
    if (transfer.to == device.id) parts.copy_within(transfer);
  }
}

std::vector<DeviceId> all_reduce_members(const Plan& plan, NodeId id, DeviceId device) {
  const Node& node = plan.at(id);
  if (node.kind != OpKind::all_reduce) return {};
  const Layout& from = plan.layout_of(node.inputs[0]);
  if (from.kind != LayoutKind::sum) return {};
  const RedistributionPlan movement = classify(from, plan.layout_of(node.outputs[0]));
  const auto* members = group_with(movement, device);
  CHECK(members != nullptr, "every member of an all-reduce is in one of its groups");
  return *members;
}

CommTask::CommTask(const StepView& step, DeviceState& device, NodeId node,
                   std::span<const DeviceId> members, std::uint64_t tag)
    : step_(step),
      plan_(step.plan.plan()),
      device_(device),
      node_(plan_.at(node)),
      tag_(tag),
      memory_(device.comm_memory) {
  all_reduce_.members = members;
  memory_.clear();
}

void CommTask::begin(TaskFacts& facts) {
  if (is_all_reduce()) {
    begin_all_reduce();
  } else {
    if (node_.kind != OpKind::kv_copy) device_.allocate(step_, node_.outputs[0]);
    const auto id = static_cast<NodeId>(&node_ - plan_.nodes.data());
    transfers_ = task_transfers(step_, device_.id, id, facts);
    begin_transfers();
  }
  note_partners();
  start_exchange();
}

void CommTask::note_partners() {
  std::vector<DeviceId>& partners = memory_.partners;
  for (const OutgoingMessage& message : memory_.outgoing) partners.push_back(message.to);
  for (const IncomingMessage& message : memory_.incoming) partners.push_back(message.from);
  std::ranges::sort(partners);
  partners.erase(std::unique(partners.begin(), partners.end()), partners.end());
}

void CommTask::start_exchange() {
  device_.communicator->start(tag_, memory_.outgoing, memory_.incoming);
  phase_ = Phase::reading;
}

void CommTask::begin_transfers() {
  offer_transfers();
  await_transfers();
}

// A message to each device that gets something, with its transfers in their order.
void CommTask::offer_transfers() {
  Parts parts(step_, device_, node_);
  auto& sent = memory_.by_peer;
  for (const Transfer& transfer : transfers_) {
    if (transfer.from == device_.id && transfer.to != device_.id) sent.push_back(&transfer);
  }
  std::ranges::sort(sent, {}, [](const Transfer* t) { return std::pair(t->to, t); });
  for (auto first = sent.begin(); first != sent.end();) {
    const DeviceId peer = (*first)->to;
    const auto last =
        std::find_if(first, sent.end(), [peer](const Transfer* t) { return t->to != peer; });
    const std::span<const Transfer*> list(first, last);
    first = last;
    if (list.size() == 1) {
      if (const float* data = parts.in_place(*list.front())) {
        const std::int64_t floats = parts.floats_of(*list.front());
        memory_.outgoing.push_back({.to = peer, .bytes = bytes_of(data, floats)});
        continue;
      }
    }
    std::int64_t floats = 0;
    for (const Transfer* transfer : list) floats += parts.floats_of(*transfer);
    PooledBuffer& packed = memory_.packed.emplace_back(device_.pool.take(floats));
    memory_.outgoing.push_back({.to = peer, .bytes = bytes_of(packed.data(), floats)});
    float* out = packed.data();
    for (const Transfer* transfer : list) {
      parts.pack(*transfer, out);
      out += parts.floats_of(*transfer);
    }
  }
}

// A message from each device that gives something, ascending.
void CommTask::await_transfers() {
  const Parts parts(step_, device_, node_);
  auto& received = memory_.by_peer;
  received.clear();
  for (const Transfer& transfer : transfers_) {
    if (transfer.to == device_.id && transfer.from != device_.id) received.push_back(&transfer);
  }
  std::ranges::sort(received, {}, [](const Transfer* t) { return std::pair(t->from, t); });
  for (const Transfer* transfer : received) {
    if (memory_.incoming.empty() || memory_.incoming.back().from != transfer->from)
      memory_.incoming.push_back({.from = transfer->from, .size = 0});
    memory_.incoming.back().size +=
        static_cast<std::size_t>(parts.floats_of(*transfer)) * sizeof(float);
  }
}

void CommTask::begin_all_reduce() {
  const std::span<const DeviceId> members = all_reduce_.members;
  const auto rank = std::ranges::lower_bound(members, device_.id) - members.begin();
  const BoundLayout& bound = step_.bound(node_.inputs[0]);
  const std::int64_t elements =
      bound.buffers[bound.by_device[index_of(device_.id)].front()].elements;
  all_reduce_ = {
      .members = members,
      .rank = static_cast<std::size_t>(rank),
      .elements = elements,
      .one_shot = is_one_shot(members.size(), elements * static_cast<std::int64_t>(sizeof(float)))};
  LocalValue& source = device_.values[index_of(node_.inputs[0])];
  LocalValue& target = device_.values[index_of(node_.outputs[0])];
  // In two rounds each part of the input is read by one member only, and written again when that
  // one has: the sum can take its place, which is in the caches, where new memory would not be.
  if (!all_reduce_.one_shot && source.readers_left == 1) {
    target.parts.swap(source.parts);
    all_reduce_.input = target.parts.front().data();
  } else {
    device_.allocate(step_, node_.outputs[0]);
    all_reduce_.input = source.parts.front().data();
  }
  const float* const input = all_reduce_.input;
  const auto n = static_cast<std::int64_t>(members.size());
  for (std::size_t i = 0; i < members.size(); ++i) {
    if (i == all_reduce_.rank) continue;
    // In one shot everything goes to everybody; otherwise the part that the other reduces.
    const Interval whole = {.begin = 0, .end = elements};
    const Interval theirs =
        all_reduce_.one_shot ? whole : even_part(elements, static_cast<std::int64_t>(i), n);
    const Interval mine = all_reduce_.one_shot ? whole : even_part(elements, rank, n);
    memory_.outgoing.push_back(
        {.to = members[i], .bytes = bytes_of(input + theirs.begin, theirs.size())});
    memory_.incoming.push_back(
        {.from = members[i], .size = static_cast<std::size_t>(mine.size()) * sizeof(float)});
  }
}

void CommTask::begin_hand_round() {
  all_reduce_.handing_round = true;
  memory_.outgoing.clear();
  memory_.incoming.clear();
  const auto n = static_cast<std::int64_t>(all_reduce_.members.size());
  const float* output = device_.values[index_of(node_.outputs[0])].parts.front().data();
  const Interval mine =
      even_part(all_reduce_.elements, static_cast<std::int64_t>(all_reduce_.rank), n);
  for (std::size_t i = 0; i < all_reduce_.members.size(); ++i) {
    if (i == all_reduce_.rank) continue;
    const Interval theirs = even_part(all_reduce_.elements, static_cast<std::int64_t>(i), n);
    memory_.outgoing.push_back(
        {.to = all_reduce_.members[i], .bytes = bytes_of(output + mine.begin, mine.size())});
    memory_.incoming.push_back({.from = all_reduce_.members[i],
                                .size = static_cast<std::size_t>(theirs.size()) * sizeof(float)});
  }
  start_exchange();
}

bool CommTask::progress() {
  if (phase_ == Phase::reading && device_.communicator->arrived()) {
    consume();
    device_.communicator->finish();
    phase_ = Phase::draining;
    return true;
  }
  if (phase_ == Phase::draining && device_.communicator->over()) {
    if (is_all_reduce() && !all_reduce_.one_shot && !all_reduce_.handing_round) {
      begin_hand_round();
    } else {
      memory_.packed.clear();
      phase_ = Phase::over;
    }
    return true;
  }
  return false;
}

void CommTask::consume() {
  for (const IncomingMessage& message : memory_.incoming)
    received_bytes_ += static_cast<std::int64_t>(message.size);
  if (is_all_reduce()) {
    consume_all_reduce();
  } else {
    consume_transfers();
  }
}

void CommTask::consume_all_reduce() {
  float* const output = device_.values[index_of(node_.outputs[0])].parts.front().data();
  const float* const input = all_reduce_.input;
  const auto n = static_cast<std::int64_t>(all_reduce_.members.size());
  const auto message_of = [&](std::size_t member) {
    return floats_of(
        device_.communicator->message(member < all_reduce_.rank ? member : member - 1));
  };
  if (all_reduce_.handing_round) {
    for (std::size_t i = 0; i < all_reduce_.members.size(); ++i) {
      if (i == all_reduce_.rank) continue;
      const Interval part = even_part(all_reduce_.elements, static_cast<std::int64_t>(i), n);
      kernel::copy(*device_.team, row_of(message_of(i), part.size()),
                   row_of(output + part.begin, part.size()));
    }
    return;
  }
  const Interval part =
      all_reduce_.one_shot
          ? Interval{.begin = 0, .end = all_reduce_.elements}
          : even_part(all_reduce_.elements, static_cast<std::int64_t>(all_reduce_.rank), n);
  // In the order of ranks, so that all members add the same way.
  std::vector<kernel::ConstMatrix>& terms = memory_.term_views;
  for (std::size_t i = 0; i < all_reduce_.members.size(); ++i) {
    const float* const term = i == all_reduce_.rank ? input + part.begin : message_of(i);
    terms.push_back(row_of(term, part.size()));
  }
  kernel::sum(*device_.team, terms, row_of(output + part.begin, part.size()));
}

void CommTask::consume_transfers() {
  Parts parts(step_, device_, node_);
  parts.clear_targets();
  std::vector<const float*>& cursors = memory_.sources;
  for (std::size_t i = 0; i < memory_.incoming.size(); ++i) {
    cursors.push_back(floats_of(device_.communicator->message(i)));
  }
  for (const Transfer& transfer : transfers_) {
    if (transfer.to != device_.id) continue;
    if (transfer.from == device_.id) {
      parts.copy_within(transfer);
      continue;
    }
    const auto message =
        std::ranges::lower_bound(memory_.incoming, transfer.from, {}, &IncomingMessage::from);
    const float*& cursor = cursors[static_cast<std::size_t>(message - memory_.incoming.begin())];
    parts.unpack(transfer, cursor);
    cursor += parts.floats_of(transfer);
  }
  parts.finish_sum();
  if (node_.kind == OpKind::kv_copy) parts.tidy_store();
}

}  // namespace weir
