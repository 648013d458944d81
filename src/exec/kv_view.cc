#include "exec/kv_view.h"

#include "base/check.h"

namespace weir {
namespace {

// A buffer is one block: its rows are positions.
KvView view_of(const BoundBuffer& buffer, const RowSpan& span, const float* data,
               std::list<const void*>& pointers) {
  pointers.push_back(data + span.first_element);
  return {.blocks = {.blocks = std::span(&pointers.back(), 1),
                     .dtype = DType::f32,
                     .block_size = span.token.size(),
                     .first_position = span.token.begin,
                     .head_stride = buffer.dim.size(),
                     .position_stride = buffer.width()},
          .first_head = buffer.head.begin,
          .first_dim = buffer.dim.begin};
}

}  // namespace

bool is_state(const ValidPlan& plan, ValueId cache) {
  const NodeId producer = plan.producers()[index_of(cache)];
  return index_of(producer) >= plan->nodes.size() || writes_state(plan->at(producer).kind);
}

KvKey key_of(const StepView& step, ValueId cache, std::int64_t request) {
  const Value& value = step.plan->at(cache);
  return {.sequence = step.input.sequences[static_cast<std::size_t>(request)],
          .layer = value.layer,
          .tensor = value.role == Role::k_cache ? KvTensor::keys : KvTensor::values};
}

KvView find_kv(const StepView& step, const DeviceState& device, const KvWanted& wanted,
               std::list<const void*>& pointers) {
  if (is_state(step.plan, wanted.cache)) {
    const KvStrip* strip =
        device.kv.find(key_of(step, wanted.cache, wanted.request),
                       {.heads = wanted.heads, .dims = wanted.dims, .positions = wanted.positions});
    CHECK(strip != nullptr, "K and V are on the device where a valid plan reads them");
    return {.blocks = strip->blocks(wanted.positions),
            .first_head = strip->shape().heads.begin,
            .first_dim = strip->shape().dims.begin};
  }
  const BoundLayout& bound = step.bound(wanted.cache);
  const auto& buffers = bound.by_device[index_of(device.id)];
  for (std::size_t part = 0; part < buffers.size(); ++part) {
    const BoundBuffer& buffer = bound.buffers[buffers[part]];
    if (!buffer.head.contains(wanted.heads) || !buffer.dim.contains(wanted.dims)) continue;
    for (const RowSpan& span : buffer.spans) {
      if (span.request != wanted.request || !span.token.contains(wanted.positions)) continue;
      return view_of(buffer, span, device.values[index_of(wanted.cache)].parts[part].data(),
                     pointers);
    }
  }
  CHECK(false, "K and V are on the device where a valid plan reads them");
}

}  // namespace weir
