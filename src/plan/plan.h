#pragma once
// The plan: the narrow waist between those who decide how a model is split (strategies, lowering)
// and those who read the decision (validator, executor, simulator, export). A third reader can be
// written from this header alone.
//
// A plan is one step (a prefill chunk or a decode, they differ only in lengths) of a batch of
// requests, as a DAG of nodes.
//
// Value: one logical tensor in one layout: "the residual of layer 3, whole on devices 0..7".
//   Written by exactly one node. A device's part of a value is one buffer per distinct box that the
//   layout gives it, rows ordered by request, then token; row contents ordered by head, then dim.
//
// Node: one op. A compute node is a bundle of independent tasks, one per device that holds a piece
//   of its outputs; a task reads only its own device's buffers, and for each output box the input
//   boxes that the op's rule names (locality.h). A communication node is joint: its output is the
//   same logical tensor as its input, held as the output's layout says; `sum` and `softmax`
//   partials that meet are added or merged on the way. Its members are the devices of its inputs
//   and outputs.
//
// Queue: each device has one for compute and one for communication: the order in which it does its
//   nodes. A task may start when its predecessor in its queue is done and so are its device's tasks
//   of the nodes that make its inputs; nothing else orders anything.
//
// State: the K and V caches of a layer are values too: `kv_append` or `kv_copy` turns the caches
//   before the step into those after it. What a device holds of them stays there from step to step,
//   as weights do. Positions are absolute. (A `copy` of a cache is a passing value like any.)
//
// Length: q_len (new tokens) and kv_len (tokens attended, the new ones included) of every request
//   are not in a plan. They are bound when it is read (`StepLengths`), within the plan's `limits`.
//   Nor are there seconds.
//
// Rows: where only the logits of each request's last token are wanted, the rows of the others end
//   with the last layer's K and V: nothing reads what the rest of it would make of them. Where none
//   are wanted, that layer ends there. (`Value::rows`; in a step of one new token a request, the
//   last row is all there is.)
//
// Head dimensions are counted in rotary-pair order: dimensions 2i and 2i + 1 are the pair that RoPE
// rotates together (checkpoints keep them rotary_dim / 2 apart); dimensions beyond rotary_dim
// follow in order. So any even cut of the head dimension keeps pairs together. Values (v, attention
// output) use the plain order; v and o_proj are never rotated.
//
// Biases of contracting ops (o_proj, ffn_down) are added by the piece whose `over` begins at 0.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/ids.h"
#include "layout/layout.h"
#include "spec/model.h"

namespace weir {

enum class Role : std::uint8_t {
  residual,      // [q_len, 1, H]
  normed,        // [q_len, 1, H]
  q,             // [q_len, N, D]
  k,             // [q_len, G, D]
  v,             // [q_len, G, D]
  k_cache,       // [kv_len, G, D]
  v_cache,       // [kv_len, G, D]
  scores,        // [q_len, N, kv_len]
  attention,     // [q_len, N, D]; a softmax partial carries an lse [q_len, N] beside it
  attn_branch,   // [q_len, 1, H]: what attention adds to the residual
  ffn_branch,    // [q_len, 1, H]: what the FFN adds
  gate,          // [q_len, 1, F]
  up,            // [q_len, 1, F]
  ffn_hidden,    // [q_len, 1, F]
  final_normed,  // [q_len, 1, H]
  logits,        // [q_len, 1, vocab_size]
};

enum class OpKind : std::uint8_t {
  // Compute. Inputs -> outputs, by role.
  embed,      // token ids of the step -> residual
  attn_norm,  // residual -> normed
  qkv_proj,   // normed -> q, k, v; or k, v, where nothing attends; or normed, normed -> q, k, v,
              // where q has last rows only, which are the first input
  rope,       // q, k -> q, k; or k -> k; q/k norms first where the model has them
  kv_append,  // k, v, k_cache, v_cache before -> k_cache, v_cache after; every device appends what
              // it
              // has computed itself
  attention,  // q, k_cache, v_cache -> attention
  score_slice,    // q, k_cache -> scores: products over a slice of the head dimension
  attend_scores,  // scores, v_cache -> attention: softmax of complete scores times V
  merge,          // attention, attention -> attention: of disjoint key ranges, on one device
  o_proj,         // attention -> attn_branch
  add,            // residual, a branch -> residual
  ffn_norm,       // residual -> normed
  ffn_up,         // normed -> up, or gate and up
  activation,     // up, or gate and up -> ffn_hidden
  ffn_down,       // ffn_hidden -> ffn_branch
  slice,          // a value -> the same value, every device keeping a part of what it holds
  final_norm,     // residual -> final_normed
  lm_head,        // final_normed -> logits
  // Communication: a value -> the same value in another layout.
  all_reduce,
  reduce_scatter,
  all_gather,
  all_to_all,
  broadcast,
  gather,
  reduce,
  copy,     // Point-to-point copies of box intersections: whatever is not one of the above.
  kv_copy,  // k, v, k_cache, v_cache before -> k_cache, v_cache after, where devices get K and V
            // that
            // others have computed or hold.
};

enum class Queue : std::uint8_t { compute, comm };

// The new tokens whose logits a step computes.
enum class LogitsWanted : std::uint8_t { none, last, all };

// The new tokens of each request that a value has rows of.
enum class Rows : std::uint8_t { all, last };

struct Value {
  Role role = Role::residual;
  std::int32_t layer = -1;  // -1: the embedding. The logits count to the last layer.
  std::int32_t microbatch = 0;
  LayoutId layout{};
  DType dtype = DType::f32;
  Rows rows =
      Rows::all;  // `last`, from q on, in the last layer of steps that want the last logits.

  bool operator==(const Value&) const = default;
};

struct Node {
  OpKind kind = OpKind::embed;
  std::int32_t layer = -1;
  std::int32_t microbatch = 0;
  GroupId devices{};  // Where it has tasks.
  std::vector<ValueId> inputs;
  std::vector<ValueId> outputs;

  bool operator==(const Node&) const = default;
};

struct PlanDevice {
  std::string name;
  std::optional<std::int64_t> memory_bytes;  // Capacity; unknown is not checked.
  std::vector<NodeId> compute;               // The queues.
  std::vector<NodeId> comm;

  bool operator==(const PlanDevice&) const = default;
};

struct RequestLengths {
  std::int64_t q_len = 0;
  std::int64_t kv_len = 0;  // After the step: past + q_len.

  bool operator==(const RequestLengths&) const = default;
};
// One entry per request of the plan.
using StepLengths = std::vector<RequestLengths>;

struct Plan {
  ModelSpec model;
  std::string strategy;  // Name and options, for people.
  DType activation_dtype = DType::f32;
  DType kv_dtype = DType::f32;
  LogitsWanted logits = LogitsWanted::last;
  StepLengths
      limits;  // The largest lengths for which memory has been checked; its size is the batch size.
  std::vector<Interval> microbatches;  // Requests of each; they partition the batch in order.
  std::vector<PlanDevice> devices;
  std::vector<Layout> layouts;
  std::vector<std::vector<DeviceId>> groups;  // Ascending.
  std::vector<Value> values;
  std::vector<Node> nodes;

  bool operator==(const Plan&) const = default;

  [[nodiscard]] const Layout& layout_of(ValueId value) const {
    return layouts[index_of(values[index_of(value)].layout)];
  }
  [[nodiscard]] const Value& at(ValueId value) const { return values[index_of(value)]; }
  [[nodiscard]] const Node& at(NodeId node) const { return nodes[index_of(node)]; }
  [[nodiscard]] const std::vector<DeviceId>& at(GroupId group) const {
    return groups[index_of(group)];
  }
  [[nodiscard]] std::int64_t batch_size() const { return static_cast<std::int64_t>(limits.size()); }
};

[[nodiscard]] std::string_view to_string(Role role);
[[nodiscard]] std::string_view to_string(OpKind kind);
[[nodiscard]] std::string_view to_string(Queue queue);
[[nodiscard]] std::string_view to_string(LogitsWanted logits);
[[nodiscard]] std::string_view to_string(Rows rows);
[[nodiscard]] std::optional<Role> parse_role(std::string_view name);
[[nodiscard]] std::optional<OpKind> parse_op_kind(std::string_view name);
// Every name, in the order of the enumerators.
[[nodiscard]] std::vector<std::string_view> role_names();
[[nodiscard]] std::vector<std::string_view> op_kind_names();
[[nodiscard]] Queue queue_of(OpKind kind);
// k_cache and v_cache.
[[nodiscard]] bool is_cache(Role role);
// kv_append and kv_copy: their outputs are the caches that outlive the step.
[[nodiscard]] bool writes_state(OpKind kind);

// Classes in which times and bytes are reported.
enum class OpClass : std::uint8_t { attention, linear, elementwise, communication };
[[nodiscard]] OpClass class_of(OpKind kind);
[[nodiscard]] std::string_view to_string(OpClass op_class);

// What the tensor of a value is, for layouts to be checked against and for sizes.
struct TensorShape {
  LayoutDomain domain;  // What a layout must cover; over: what a partial layout contracts. Constant
                        // axes: constant bounds.
  std::int64_t heads = 1;
  std::int64_t dims = 1;        // Extents of the constant axes, of box
  std::int64_t over_heads = 1;  // and of over.
  std::int64_t over_dims = 1;
  bool dim_is_positions = false;  // The dim axis has the extent kv_len (scores).
  bool counts_positions = false;  // The token axis counts kv_len positions, not q_len new tokens.
  bool over_counts_positions =
      false;  // The token axis of `over` counts positions (softmax partials).
};
[[nodiscard]] TensorShape shape_of(const Plan& plan, const Value& value);

// A box with numbers, of one request.
struct ResolvedBox {
  std::int64_t request = 0;
  Interval token;
  Interval head;
  Interval dim;
  [[nodiscard]] std::int64_t elements() const { return token.size() * head.size() * dim.size(); }
  bool operator==(const ResolvedBox&) const = default;
};
// What `box` of a tensor of this shape is for request `request`.
[[nodiscard]] ResolvedBox resolve(const Box& box, const TensorShape& shape, std::int64_t request,
                                  RequestLengths lengths);
// The requests of a box.
[[nodiscard]] Interval requests_of(const Box& box, std::int64_t batch_size);

}  // namespace weir
