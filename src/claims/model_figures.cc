#include "claims/model_figures.h"

#include <algorithm>
#include <map>
#include <optional>
#include <string_view>

#include <fmt/format.h>

#include "base/check.h"
#include "claims/vocabulary.h"

namespace weir {
namespace {

std::int64_t count_of(const ModelSpec& model, ModelPart part) {
  const ParameterCount count = count_parameters(model);
  const std::int64_t heads = model.num_q_heads * model.head_dim;
  const std::int64_t kv_heads = model.num_kv_heads * model.head_dim;
  const std::int64_t down = model.intermediate_size * model.hidden_size;
  switch (part) {
    case ModelPart::total:
      return count.total;
    case ModelPart::embedding:
      return count.embedding;
    case ModelPart::qkv:
      return model.hidden_size * (heads + 2 * kv_heads);
    case ModelPart::attention_output:
      return heads * model.hidden_size;
    case ModelPart::attention_layer:
      return count.attention_per_layer;
    case ModelPart::ffn_up:
      return down * (model.gated_ffn ? 2 : 1);
    case ModelPart::ffn_down:
      return down;
    case ModelPart::ffn_layer:
      return count.ffn_per_layer;
    case ModelPart::layer:
      return count.per_layer();
    case ModelPart::lm_head:
      return count.lm_head;
  }
  CHECK(false, "unknown part");
}

template <class Quantity>
std::optional<double> value_of(const std::optional<Quantity>& quantity) {
  if (!quantity) return std::nullopt;
  return static_cast<double>(quantity->value);
}

std::optional<double> nic_bandwidth(const NodeType& node) {
  if (!node.nics || !node.nics->bandwidth) return std::nullopt;
  return node.nics->bandwidth->value;
}

std::optional<double> link_bandwidth(const NodeType& node) {
  if (node.fabrics.empty()) return std::nullopt;
  return value_of(node.fabrics.front().bandwidth);
}

std::map<std::string, std::optional<double>, std::less<>> device_figures(const ClusterSpec& cluster,
                                                                         DType dtype) {
  const DeviceType& type = cluster.type_of(DeviceId{0});
  const NodeType& node = cluster.node_type_of(DeviceId{0});
  return {{"device_memory", static_cast<double>(type.memory.value)},
          {"l2_bytes", value_of(type.l2)},
          {"max_watts", type.max_watts},
          {"memory_bandwidth", value_of(type.memory_bandwidth)},
          {"peak_flops", value_of(type.matrix_flops.of(dtype))},
          {"link_bandwidth", link_bandwidth(node)},
          {"nic_bandwidth", nic_bandwidth(node)}};
}

std::map<std::string, std::int64_t, std::less<>> whole_figures(const ModelSpec& model,
                                                               const Assumptions& assumptions) {
  const bool every_tpot_is_a_step =
      assumptions.tpot_tokens == TpotTokens::request && assumptions.tps_tokens != TpsTokens::decode;
  return {{"batch_size", assumptions.batch_size},
          {"tokens_per_tpot", every_tpot_is_a_step ? assumptions.batch_size : 1},
          {"output_len", assumptions.output_len},
          {"unstated_len", assumptions.unstated_len},
          {"num_layers", model.num_layers},
          {"hidden_size", model.hidden_size},
          {"intermediate_size", model.intermediate_size},
          {"num_heads", model.num_q_heads},
          {"head_dim", model.head_dim},
          {"vocab_size", model.vocab_size},
          {"dtype_bytes", size_in_bytes(assumptions.dtype)}};
}

}  // namespace

double parameters_of(const ModelSpec& model, const std::string& part) {
  const auto* found = std::ranges::find(kModelParts, part);
  CHECK(found != kModelParts.end(), "the part's name has been checked");
  return static_cast<double>(count_of(model, static_cast<ModelPart>(found - kModelParts.begin())));
}

Result<double> named_figure(const std::string& name, const ModelSpec& model,
                            const Assumptions& assumptions, const ClusterSpec& cluster) {
  const auto whole = whole_figures(model, assumptions);
  if (const auto found = whole.find(name); found != whole.end())
    return static_cast<double>(found->second);
  const auto devices = device_figures(cluster, assumptions.dtype);
  const auto found = devices.find(name);
  CHECK(found != devices.end(), "the name has been checked");
  if (found->second) return *found->second;
  return invalid_input(fmt::format("cluster: {} does not state {}", cluster.name, name));
}

}  // namespace weir
