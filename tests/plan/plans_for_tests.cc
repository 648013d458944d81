#include "tests/plan/plans_for_tests.h"

#include <cstddef>

#include <fmt/format.h>

namespace weir {
namespace {

enum class Cut { head, dim };

// Even parts of `count` heads or dims, one per device.
Layout cut(const std::vector<DeviceId>& group, Cut axis, std::int64_t count) {
  Layout layout;
  for (std::size_t i = 0; i < group.size(); ++i) {
    const Interval part =
        even_part(count, static_cast<std::int64_t>(i), static_cast<std::int64_t>(group.size()));
    Piece piece = {.device = group[i], .box = {}, .over = {}};
    (axis == Cut::head ? piece.box.head : piece.box.dim) = Range::of(part.begin, part.end);
    layout.pieces.push_back(piece);
  }
  return layout;
}

// The embedding and the logits of a microbatch, around layers that are filled in by the caller.
MicrobatchLayouts ends(const PlanHeader& header, const std::vector<DeviceId>& first,
                       const std::vector<DeviceId>& last) {
  MicrobatchLayouts layouts;
  layouts.requests = {.begin = 0, .end = static_cast<std::int64_t>(header.limits.size())};
  layouts.embedding = replicated(first);
  layouts.logits = cut(last, Cut::dim, header.model.vocab_size);
  layouts.logits_out = replicated(std::vector{last.front()});
  return layouts;
}

}  // namespace

ModelSpec tiny_model(std::int64_t num_layers) {
  return {.name = "tiny",
          .architecture = Architecture::llama,
          .num_layers = num_layers,
          .hidden_size = 32,
          .intermediate_size = 64,
          .vocab_size = 96,
          .num_q_heads = 4,
          .num_kv_heads = 2,
          .head_dim = 8,
          .max_position = 256,
          .rope = {.theta = 10000, .rotary_dim = 8}};
}

PlanHeader tiny_header(std::int64_t num_devices, std::int64_t num_layers,
                       std::int64_t num_requests) {
  PlanHeader header = {
      .model = tiny_model(num_layers),
      .strategy = "by hand",
      .activation_dtype = DType::bf16,
      .kv_dtype = DType::bf16,
      .logits = LogitsWanted::all,
      .limits = StepLengths(static_cast<std::size_t>(num_requests), {.q_len = 16, .kv_len = 64}),
      .devices = {}};
  for (std::int64_t i = 0; i < num_devices; ++i)
    header.devices.push_back({.name = fmt::format("device {}", i), .memory_bytes = {}});
  return header;
}

std::vector<DeviceId> device_range(std::uint32_t begin, std::uint32_t end) {
  std::vector<DeviceId> devices;
  for (std::uint32_t i = begin; i < end; ++i) devices.push_back(DeviceId{i});
  return devices;
}

LayerLayouts tensor_parallel_layer(const ModelSpec& model, const std::vector<DeviceId>& group) {
  const Layout q_heads = cut(group, Cut::head, model.num_q_heads);
  const Layout kv_heads = cut(group, Cut::head, model.num_kv_heads);
  return {.residual = replicated(group),
          .q = q_heads,
          .kv = kv_heads,
          .k_cache_before = kv_heads,
          .v_cache_before = kv_heads,
          .k_cache = kv_heads,
          .v_cache = kv_heads,
          .rounds = {{.k_cache = kv_heads,
                      .v_cache = kv_heads,
                      .attention = q_heads,
                      .scores = {},
                      .scores_complete = {}}},
          .attention = q_heads,
          .attention_via = {},
          .attention_out = q_heads,
          .ffn_hidden = cut(group, Cut::dim, model.intermediate_size)};
}

StepLayouts tensor_parallel_layouts(const PlanHeader& header, const std::vector<DeviceId>& group) {
  MicrobatchLayouts layouts = ends(header, group, group);
  layouts.distinct = {tensor_parallel_layer(header.model, group)};
  layouts.of_layer.assign(static_cast<std::size_t>(header.model.num_layers), 0);
  return {.microbatches = {layouts}, .order = in_microbatch_order(1, header.model.num_layers)};
}

StepLayouts two_stage_layouts(const PlanHeader& header, const std::vector<DeviceId>& first,
                              const std::vector<DeviceId>& second) {
  MicrobatchLayouts layouts = ends(header, first, second);
  layouts.distinct = {tensor_parallel_layer(header.model, first),
                      tensor_parallel_layer(header.model, second)};
  for (std::int64_t layer = 0; layer < header.model.num_layers; ++layer)
    layouts.of_layer.push_back(layer < header.model.num_layers / 2 ? 0 : 1);
  return {.microbatches = {layouts}, .order = in_microbatch_order(1, header.model.num_layers)};
}

Plan single_device_plan() {
  const PlanHeader header = tiny_header(1);
  return lower(header, tensor_parallel_layouts(header, device_range(0, 1)));
}

Plan tensor_parallel_plan(std::int64_t tp) {
  const PlanHeader header = tiny_header(tp);
  return lower(header,
               tensor_parallel_layouts(header, device_range(0, static_cast<std::uint32_t>(tp))));
}

Plan two_stage_plan() {
  const PlanHeader header = tiny_header(4);
  return lower(header, two_stage_layouts(header, device_range(0, 2), device_range(2, 4)));
}

}  // namespace weir
