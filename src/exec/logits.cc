#include "exec/logits.h"

#include <algorithm>

namespace weir {
namespace {

// Buffers of one value.
bool are_replicas(const BoundBuffer& a, const BoundBuffer& b) {
  return a.dim == b.dim &&
         std::ranges::equal(a.spans, b.spans, [](const RowSpan& x, const RowSpan& y) {
           return x.request == y.request && x.token == y.token;
         });
}

void add_parts(const BoundLayout& bound, ValueId value, std::vector<LogitsPart>& parts) {
  for (std::uint32_t buffer = 0; buffer < bound.buffers.size(); ++buffer) {
    const auto before = std::span(bound.buffers).first(buffer);
    const BoundBuffer& own = bound.buffers[buffer];
    if (std::ranges::any_of(before, [&](const BoundBuffer& b) { return are_replicas(b, own); }))
      continue;
    const auto& places = bound.by_device[index_of(own.device)];
    const auto place = std::ranges::find(places, buffer) - places.begin();
    parts.push_back({.value = value,
                     .buffer = buffer,
                     .device = own.device,
                     .place = static_cast<std::size_t>(place)});
  }
}

}  // namespace

std::vector<LogitsPart> logits_parts(const StepView& step) {
  const Plan& plan = step.plan.plan();
  std::vector<bool> read(plan.values.size(), false);
  for (const Node& node : plan.nodes) {
    for (const ValueId input : node.inputs) read[index_of(input)] = true;
  }
  std::vector<LogitsPart> parts;
  for (std::size_t i = 0; i < plan.values.size(); ++i) {
    if (plan.values[i].role != Role::logits || read[i]) continue;
    const auto value = static_cast<ValueId>(i);
    add_parts(step.bound(value), value, parts);
  }
  return parts;
}

std::vector<float> own_logits(const StepView& step, const DeviceState& device) {
  std::vector<float> logits;
  for (const LogitsPart& part : step.logits) {
    if (part.device != device.id) continue;
    const float* const data = device.values[index_of(part.value)].parts[part.place].data();
    logits.insert(logits.end(), data, data + step.bound(part.value).buffers[part.buffer].elements);
  }
  return logits;
}

void place_logits(const StepView& step, const LogitsPart& part, const float* data,
                  StepOutput& output) {
  const BoundBuffer& buffer = step.bound(part.value).buffers[part.buffer];
  const std::int64_t vocab_size = step.plan->model.vocab_size;
  for (const RowSpan& span : buffer.spans) {
    const std::int64_t q_len = step.input.lengths[static_cast<std::size_t>(span.request)].q_len;
    const std::int64_t first_wanted = step.plan->logits == LogitsWanted::all ? 0 : q_len - 1;
    auto& rows = output.logits[static_cast<std::size_t>(span.request)];
    rows.resize(static_cast<std::size_t>((q_len - first_wanted) * vocab_size));
    for (std::int64_t row = 0; row < span.token.size(); ++row) {
      const float* first = data + (span.first_row + row) * buffer.width();
      std::copy_n(
          first, buffer.width(),
          rows.data() + (span.token.begin + row - first_wanted) * vocab_size + buffer.dim.begin);
    }
  }
}

}  // namespace weir
