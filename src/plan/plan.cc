#include "plan/plan.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/check.h"

namespace weir {
namespace {

constexpr std::array kRoleNames = {
    std::pair{Role::residual, std::string_view("residual")},
    std::pair{Role::normed, std::string_view("normed")},
    std::pair{Role::q, std::string_view("q")},
    std::pair{Role::k, std::string_view("k")},
    std::pair{Role::v, std::string_view("v")},
    std::pair{Role::k_cache, std::string_view("k_cache")},
    std::pair{Role::v_cache, std::string_view("v_cache")},
    std::pair{Role::scores, std::string_view("scores")},
    std::pair{Role::attention, std::string_view("attention")},
    std::pair{Role::attn_branch, std::string_view("attn_branch")},
    std::pair{Role::ffn_branch, std::string_view("ffn_branch")},
    std::pair{Role::gate, std::string_view("gate")},
    std::pair{Role::up, std::string_view("up")},
    std::pair{Role::ffn_hidden, std::string_view("ffn_hidden")},
    std::pair{Role::final_normed, std::string_view("final_normed")},
    std::pair{Role::logits, std::string_view("logits")},
};

constexpr std::array kOpNames = {
    std::pair{OpKind::embed, std::string_view("embed")},
    std::pair{OpKind::attn_norm, std::string_view("attn_norm")},
    std::pair{OpKind::qkv_proj, std::string_view("qkv_proj")},
    std::pair{OpKind::rope, std::string_view("rope")},
    std::pair{OpKind::kv_append, std::string_view("kv_append")},
    std::pair{OpKind::attention, std::string_view("attention")},
    std::pair{OpKind::score_slice, std::string_view("score_slice")},
    std::pair{OpKind::attend_scores, std::string_view("attend_scores")},
    std::pair{OpKind::merge, std::string_view("merge")},
    std::pair{OpKind::o_proj, std::string_view("o_proj")},
    std::pair{OpKind::add, std::string_view("add")},
    std::pair{OpKind::ffn_norm, std::string_view("ffn_norm")},
    std::pair{OpKind::ffn_up, std::string_view("ffn_up")},
    std::pair{OpKind::activation, std::string_view("activation")},
    std::pair{OpKind::ffn_down, std::string_view("ffn_down")},
    std::pair{OpKind::slice, std::string_view("slice")},
    std::pair{OpKind::final_norm, std::string_view("final_norm")},
    std::pair{OpKind::lm_head, std::string_view("lm_head")},
    std::pair{OpKind::all_reduce, std::string_view("all_reduce")},
    std::pair{OpKind::reduce_scatter, std::string_view("reduce_scatter")},
    std::pair{OpKind::all_gather, std::string_view("all_gather")},
    std::pair{OpKind::all_to_all, std::string_view("all_to_all")},
    std::pair{OpKind::broadcast, std::string_view("broadcast")},
    std::pair{OpKind::gather, std::string_view("gather")},
    std::pair{OpKind::reduce, std::string_view("reduce")},
    std::pair{OpKind::copy, std::string_view("copy")},
    std::pair{OpKind::kv_copy, std::string_view("kv_copy")},
};

constexpr std::array kLogitsNames = {
    std::pair{LogitsWanted::none, std::string_view("none")},
    std::pair{LogitsWanted::last, std::string_view("last")},
    std::pair{LogitsWanted::all, std::string_view("all")},
};

template <class Table, class Key>
std::string_view name_in(const Table& table, Key key) {
  for (const auto& [value, name] : table) {
    if (value == key) return name;
  }
  CHECK(false, "a name is missing in its table");
}

template <class Table>
auto key_in(const Table& table, std::string_view text) -> std::optional<decltype(table[0].first)> {
  for (const auto& [value, name] : table) {
    if (name == text) return value;
  }
  return std::nullopt;
}

template <class Table>
std::vector<std::string_view> names_in(const Table& table) {
  std::vector<std::string_view> names;
  names.reserve(std::size(table));
  for (const auto& [value, name] : table) names.push_back(name);
  return names;
}

Range constant(std::int64_t extent) { return Range::of(0, extent); }

}  // namespace

std::string_view to_string(Role role) { return name_in(kRoleNames, role); }
std::string_view to_string(OpKind kind) { return name_in(kOpNames, kind); }
std::string_view to_string(LogitsWanted logits) { return name_in(kLogitsNames, logits); }
std::string_view to_string(Rows rows) { return rows == Rows::all ? "all" : "last"; }
std::optional<Role> parse_role(std::string_view name) { return key_in(kRoleNames, name); }
std::optional<OpKind> parse_op_kind(std::string_view name) { return key_in(kOpNames, name); }

std::vector<std::string_view> role_names() { return names_in(kRoleNames); }
std::vector<std::string_view> op_kind_names() { return names_in(kOpNames); }

std::string_view to_string(Queue queue) { return queue == Queue::compute ? "compute" : "comm"; }

Queue queue_of(OpKind kind) {
  using enum OpKind;
  switch (kind) {
    case embed:
    case attn_norm:
    case qkv_proj:
    case rope:
    case kv_append:
    case attention:
    case score_slice:
    case attend_scores:
    case merge:
    case o_proj:
    case add:
    case ffn_norm:
    case ffn_up:
    case activation:
    case ffn_down:
    case slice:
    case final_norm:
    case lm_head:
      return Queue::compute;
    case all_reduce:
    case reduce_scatter:
    case all_gather:
    case all_to_all:
    case broadcast:
    case gather:
    case reduce:
    case copy:
    case kv_copy:
      return Queue::comm;
  }
  CHECK(false, "unknown op");
}

bool is_cache(Role role) { return role == Role::k_cache || role == Role::v_cache; }

bool writes_state(OpKind kind) { return kind == OpKind::kv_append || kind == OpKind::kv_copy; }

OpClass class_of(OpKind kind) {
  using enum OpKind;
  switch (kind) {
    case embed:
    case attn_norm:
    case rope:
    case kv_append:
    case add:
    case ffn_norm:
    case activation:
    case slice:
    case final_norm:
      return OpClass::elementwise;
    case qkv_proj:
    case o_proj:
    case ffn_up:
    case ffn_down:
    case lm_head:
      return OpClass::linear;
    case attention:
    case score_slice:
    case attend_scores:
    case merge:
      return OpClass::attention;
    case all_reduce:
    case reduce_scatter:
    case all_gather:
    case all_to_all:
    case broadcast:
    case gather:
    case reduce:
    case copy:
    case kv_copy:
      return OpClass::communication;
  }
  CHECK(false, "unknown op");
}

std::string_view to_string(OpClass op_class) {
  switch (op_class) {
    case OpClass::attention:
      return "attention";
    case OpClass::linear:
      return "linear";
    case OpClass::elementwise:
      return "elementwise";
    case OpClass::communication:
      break;
  }
  return "communication";
}

TensorShape shape_of(const Plan& plan, const Value& value) {
  const ModelSpec& model = plan.model;
  TensorShape shape;
  using enum Role;
  switch (value.role) {
    case residual:  // Partial when the embedding is split by vocabulary.
      shape.dims = model.hidden_size;
      shape.over_dims = model.vocab_size;
      break;
    case normed:
    case final_normed:
      shape.dims = model.hidden_size;
      break;
    case q:
      shape.heads = model.num_q_heads;
      shape.dims = model.head_dim;
      break;
    case k:
    case v:
      shape.heads = model.num_kv_heads;
      shape.dims = model.head_dim;
      break;
    case k_cache:
    case v_cache:
      shape.heads = model.num_kv_heads;
      shape.dims = model.head_dim;
      shape.counts_positions = true;
      break;
    case scores:
      shape.heads = model.num_q_heads;
      shape.dim_is_positions = true;
      shape.over_dims = model.head_dim;
      break;
    case attention:
      shape.heads = model.num_q_heads;
      shape.dims = model.head_dim;
      shape.over_counts_positions = true;
      break;
    case attn_branch:
      shape.dims = model.hidden_size;
      shape.over_heads = model.num_q_heads;
      shape.over_dims = model.head_dim;
      break;
    case ffn_branch:
      shape.dims = model.hidden_size;
      shape.over_dims = model.intermediate_size;
      break;
    case gate:
    case up:
    case ffn_hidden:
      shape.dims = model.intermediate_size;
      break;
    case logits:
      shape.dims = model.vocab_size;
      break;
  }
  const Interval requests = plan.microbatches[static_cast<std::size_t>(value.microbatch)];
  Box& box = shape.domain.box;
  box.request = Range::of(requests.begin, requests.end);
  box.head = constant(shape.heads);
  if (!shape.dim_is_positions) box.dim = constant(shape.dims);
  if (value.rows == Rows::last) box.token = {.begin = Bound::before_end(1), .end = Bound::end()};
  Box& over = shape.domain.over;
  over.request = constant(1);
  over.token = shape.over_counts_positions ? Range::all() : constant(1);
  over.head = constant(shape.over_heads);
  over.dim = constant(shape.over_dims);
  return shape;
}

Interval requests_of(const Box& box, std::int64_t batch_size) {
  return resolve(box.request, batch_size);
}

ResolvedBox resolve(const Box& box, const TensorShape& shape, std::int64_t request,
                    RequestLengths lengths) {
  return {.request = request,
          .token = resolve(box.token, shape.counts_positions ? lengths.kv_len : lengths.q_len),
          .head = resolve(box.head, shape.heads),
          .dim = resolve(box.dim, shape.dim_is_positions ? lengths.kv_len : shape.dims)};
}

}  // namespace weir
