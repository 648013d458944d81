#include "exec/logits.h"

#include <algorithm>
#include <span>

namespace weir {
namespace {

// Buffers of one value.
bool are_replicas(const BoundBuffer& a, const BoundBuffer& b) {
  return a.dim == b.dim &&
         std::ranges::equal(a.spans, b.spans, [](const RowSpan& x, const RowSpan& y) {
           return x.request == y.request && x.token == y.token;
         });
}

// Calls `visit` with each buffer of logits that nobody before has too, and its place among the
// buffers that its device has of the value.
template <class Visit>
void for_each_part(const StepView& step, const Visit& visit) {
  for (const ValueId value : step.logits) {
    const BoundLayout& bound = step.bound(value);
    for (std::uint32_t buffer = 0; buffer < bound.buffers.size(); ++buffer) {
      const auto before = std::span(bound.buffers).first(buffer);
      const BoundBuffer& own = bound.buffers[buffer];
      if (std::ranges::any_of(before, [&](const BoundBuffer& b) { return are_replicas(b, own); }))
        continue;
      const auto& places = bound.by_device[index_of(own.device)];
      visit(value, own,
            static_cast<std::size_t>(std::ranges::find(places, buffer) - places.begin()));
    }
  }
}

std::int64_t first_wanted(const StepView& step, std::int64_t request) {
  const std::int64_t q_len = step.input.lengths[static_cast<std::size_t>(request)].q_len;
  return step.plan->logits == LogitsWanted::all ? 0 : q_len - 1;
}

void place(const StepView& step, const BoundBuffer& buffer, const float* data, StepOutput& output) {
  for (const RowSpan& span : buffer.spans) {
    auto& rows = output.logits[static_cast<std::size_t>(span.request)];
    const std::int64_t first_row = span.token.begin - first_wanted(step, span.request);
    for (std::int64_t row = 0; row < span.token.size(); ++row) {
      const float* first = data + (span.first_row + row) * buffer.width();
      std::copy_n(first, buffer.width(),
                  rows.data() + (first_row + row) * step.plan->model.vocab_size + buffer.dim.begin);
    }
  }
}

}  // namespace

void make_room(const StepView& step, StepOutput& output) {
  output.logits.resize(step.input.lengths.size());
  for (std::size_t request = 0; request < output.logits.size(); ++request) {
    if (step.logits.empty() || step.input.lengths[request].q_len == 0)
      output.logits[request].clear();
  }
  for_each_part(step, [&](ValueId, const BoundBuffer& buffer, std::size_t) {
    for (const RowSpan& span : buffer.spans) {
      const auto request = static_cast<std::size_t>(span.request);
      const std::int64_t rows =
          step.input.lengths[request].q_len - first_wanted(step, span.request);
      output.logits[request].resize(static_cast<std::size_t>(rows * step.plan->model.vocab_size));
    }
  });
}

void place_own_logits(const StepView& step, const DeviceState& device, StepOutput& output) {
  for_each_part(step, [&](ValueId value, const BoundBuffer& buffer, std::size_t place_of) {
    if (buffer.device != device.id) return;
    place(step, buffer, device.values[index_of(value)].parts[place_of].data(), output);
  });
}

std::vector<float> own_logits(const StepView& step, const DeviceState& device) {
  std::vector<float> logits;
  for_each_part(step, [&](ValueId value, const BoundBuffer& buffer, std::size_t place_of) {
    if (buffer.device != device.id) return;
    const float* const data = device.values[index_of(value)].parts[place_of].data();
    logits.insert(logits.end(), data, data + buffer.elements);
  });
  return logits;
}

void place_logits(const StepView& step, DeviceId device, const float* data, StepOutput& output) {
  for_each_part(step, [&](ValueId, const BoundBuffer& buffer, std::size_t) {
    if (buffer.device != device) return;
    place(step, buffer, data, output);
    data += buffer.elements;
  });
}

}  // namespace weir
