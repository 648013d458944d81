#include "plan/step_layouts.h"

#include "base/check.h"

namespace weir {

std::vector<Phase> in_microbatch_order(std::int64_t num_microbatches, std::int64_t num_layers) {
  std::vector<Phase> order;
  order.reserve(static_cast<std::size_t>(num_microbatches * (2 + 4 * num_layers)));
  for (std::int32_t microbatch = 0; microbatch < num_microbatches; ++microbatch) {
    order.push_back({.microbatch = microbatch, .layer = -1, .part = Part::embed});
    for (std::int32_t layer = 0; layer < num_layers; ++layer) {
      for (const Part part : {Part::project, Part::attend, Part::output, Part::ffn}) {
        order.push_back({.microbatch = microbatch, .layer = layer, .part = part});
      }
    }
    order.push_back({.microbatch = microbatch,
                     .layer = static_cast<std::int32_t>(num_layers),
                     .part = Part::logits});
  }
  return order;
}

void check_order(std::span<const Phase> order, std::size_t num_microbatches,
                 std::int64_t num_layers) {
  const auto per_microbatch = static_cast<std::size_t>(2 + 4 * num_layers);
  CHECK(order.size() == num_microbatches * per_microbatch, "the order names every part once");
  std::vector<Phase> next(num_microbatches,
                          Phase{.microbatch = 0, .layer = -1, .part = Part::embed});
  for (const Phase& phase : order) {
    Phase& expected = next[static_cast<std::size_t>(phase.microbatch)];
    CHECK(phase.layer == expected.layer && phase.part == expected.part,
          "a microbatch's parts keep their order");
    switch (phase.part) {
      case Part::embed:
        expected = {.microbatch = phase.microbatch, .layer = 0, .part = Part::project};
        break;
      case Part::project:
        expected.part = Part::attend;
        break;
      case Part::attend:
        expected.part = Part::output;
        break;
      case Part::output:
        expected.part = Part::ffn;
        break;
      case Part::ffn:
        expected = {.microbatch = phase.microbatch,
                    .layer = phase.layer + 1,
                    .part = phase.layer + 1 < num_layers ? Part::project : Part::logits};
        break;
      case Part::logits:
        expected.part = Part::embed;  // None follows: the embedding is of another layer.
        break;
    }
  }
}

std::size_t hash_of(const StepLayouts& layouts) {
  std::size_t seed = layouts.order.size();
  const auto mix = [&seed](std::size_t value) {
    seed ^= value + 0x9E3779B97F4A7C15ULL + (seed << 6) + (seed >> 2);
  };
  for (const MicrobatchLayouts& microbatch : layouts.microbatches) {
    mix(static_cast<std::size_t>(microbatch.requests.begin));
    mix(static_cast<std::size_t>(microbatch.requests.end));
    for (const LayerLayouts& layer : microbatch.distinct) {
      for (const Layout* layout : {&layer.residual, &layer.q, &layer.kv, &layer.k_cache_before,
                                   &layer.v_cache_before, &layer.k_cache, &layer.v_cache,
                                   &layer.attention, &layer.attention_out, &layer.ffn_hidden}) {
        mix(hash_of(*layout));
      }
    }
  }
  return seed;
}

}  // namespace weir
