#include "plan/lower.h"

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>
#include <unordered_map>
#include <utility>

#include "base/check.h"
#include "layout/redistribute.h"
#include "plan/last_rows.h"

namespace weir {
namespace {

OpKind op_of(Redistribution kind) {
  switch (kind) {
    case Redistribution::none:  // All of it is there, though the layouts differ.
    case Redistribution::slice:
      return OpKind::slice;
    case Redistribution::all_reduce:
      return OpKind::all_reduce;
    case Redistribution::reduce_scatter:
      return OpKind::reduce_scatter;
    case Redistribution::reduce:
      return OpKind::reduce;
    case Redistribution::all_gather:
      return OpKind::all_gather;
    case Redistribution::all_to_all:
      return OpKind::all_to_all;
    case Redistribution::broadcast:
      return OpKind::broadcast;
    case Redistribution::gather:
      return OpKind::gather;
    case Redistribution::copy:
      return OpKind::copy;
  }
  CHECK(false, "unknown redistribution");
}

// Bounds on axes of constant extent become constants, so that equal places have equal bounds.
Range constant_range(const Range& range, std::int64_t extent) {
  const Interval interval = resolve(range, extent);
  return Range::of(interval.begin, interval.end);
}

// What a device does for a layer, or somewhat more.
constexpr std::size_t kOpsOfOneLayer = 16;

// In place of an extent: the axis counts positions.
constexpr std::int64_t kPositions = -1;

void normalise(const Box& domain, std::int64_t batch_size, std::int64_t heads, std::int64_t dims,
               Box& box) {
  if (box.request == Range::all()) box.request = domain.request;
  if (box.token == Range::all()) box.token = domain.token;
  box.request = constant_range(box.request, batch_size);
  box.head = constant_range(box.head, heads);
  if (dims != kPositions) box.dim = constant_range(box.dim, dims);
}

// Writes the plan op by op. `state` of a microbatch is where its chain has got to.
class Lowering {
 public:
  Lowering(const PlanHeader& header, const StepLayouts& layouts,
           std::span<const std::uint32_t> layers, std::span<const Phase> order)
      : layouts_(layouts), layers_(layers), order_(order), cuts_(cuts_last_layer(header)) {
    plan_.model = header.model;
    plan_.strategy = header.strategy;
    plan_.activation_dtype = header.activation_dtype;
    plan_.kv_dtype = header.kv_dtype;
    plan_.logits = header.logits;
    plan_.limits = header.limits;
    for (const PlanHeader::Device& device : header.devices) {
      plan_.devices.push_back(
          {.name = device.name, .memory_bytes = device.memory_bytes, .compute = {}, .comm = {}});
      plan_.devices.back().compute.reserve(kOpsOfOneLayer);
      plan_.devices.back().comm.reserve(kOpsOfOneLayer / 2);
    }
    for (const MicrobatchLayouts& microbatch : layouts.microbatches)
      plan_.microbatches.push_back(microbatch.requests);
    chains_.resize(layouts.microbatches.size());
    for (std::size_t i = 0; i < chains_.size(); ++i) intern_layouts(static_cast<std::int32_t>(i));
  }

  PhasedPlan run() {
    std::vector<std::uint32_t> first_node;
    first_node.reserve(order_.size() + 1);
    constexpr std::size_t kOpsPerPhase = 5;  // Or fewer, mostly; each writes a value or more.
    plan_.nodes.reserve(kOpsPerPhase * order_.size());
    plan_.values.reserve(kOpsPerPhase * order_.size());
    for (const Phase& phase : order_) {
      first_node.push_back(static_cast<std::uint32_t>(plan_.nodes.size()));
      emit_part(phase);
    }
    first_node.push_back(static_cast<std::uint32_t>(plan_.nodes.size()));
    return {.plan = std::move(plan_), .first_node = std::move(first_node)};
  }

 private:
  void emit_part(const Phase& phase) {
    microbatch_ = phase.microbatch;
    // The logits count to the last layer.
    layer_ = std::min(phase.layer, static_cast<std::int32_t>(plan_.model.num_layers) - 1);
    const bool after_the_cache = phase.part != Part::embed && phase.part != Part::project;
    if (after_the_cache && is_last() && plan_.logits == LogitsWanted::none) return;
    rows_ = after_the_cache && is_last() && cuts_ ? Rows::last : Rows::all;
    switch (phase.part) {
      case Part::embed:
        emit_embed();
        break;
      case Part::project:
        emit_project();
        break;
      case Part::attend:
        emit_attend();
        break;
      case Part::output:
        emit_output();
        break;
      case Part::ffn:
        emit_ffn();
        break;
      case Part::logits:
        emit_logits();
        break;
    }
  }

  [[nodiscard]] bool is_last() const { return layer_ + 1 == plan_.model.num_layers; }

  // The interned layouts of one layer, with those that follow from the named ones.
  struct RoundIds {
    LayoutId k_cache{}, v_cache{}, queries{}, attention{};
    bool by_scores = false;
    LayoutId scores{}, scores_complete{};
  };
  struct LayerIds {
    LayoutId residual{}, q{}, kv{}, k_cache_before{}, v_cache_before{}, k_cache{}, v_cache{};
    std::vector<RoundIds> rounds;
    LayoutId attention{};
    std::vector<LayoutId> attention_via;
    LayoutId attention_out{}, ffn_hidden{};
    LayoutId projection_input{};  // normed, where q, k and v are projected
    LayoutId attn_branch{};       // partial sums of o_proj
    LayoutId ffn_input{};         // normed, where the FFN is
    LayoutId ffn_branch{};        // partial sums of ffn_down
    bool cache_is_local = false;
  };
  struct Chain {
    std::vector<LayerIds> distinct;
    LayerIds last;  // What the last layer does behind its cache, where that is less than in others.
    LayoutId embedding{}, final_residual{}, logits{}, logits_out{};
    ValueId residual{}, q{}, first_queries{}, k_cache{}, v_cache{}, attention{};
  };

  [[nodiscard]] Chain& chain() { return chains_[static_cast<std::size_t>(microbatch_)]; }
  [[nodiscard]] const LayerIds& ids() {
    const MicrobatchLayouts& microbatch =
        layouts_.microbatches[static_cast<std::size_t>(microbatch_)];
    return chain().distinct[microbatch.of_layer[layers_[static_cast<std::size_t>(layer_)]]];
  }

  // Of the rows that go on behind the cache: q, and what follows from it.
  [[nodiscard]] const LayerIds& rest() { return cuts_ && is_last() ? chain().last : ids(); }

  LayoutId intern(const Layout& named, Role role, std::int32_t microbatch) {
    const TensorShape shape = shape_of(
        plan_,
        {.role = role, .microbatch = microbatch, .rows = is_cache(role) ? Rows::all : rows_});
    Layout& layout = normalised_;
    layout = named;
    for (Piece& piece : layout.pieces) {
      normalise(shape.domain.box, plan_.batch_size(), shape.heads,
                shape.dim_is_positions ? kPositions : shape.dims, piece.box);
      if (layout.kind == LayoutKind::whole) {
        piece.over = {};
      } else {
        normalise(shape.domain.over, 1, shape.over_heads, shape.over_dims, piece.over);
      }
      if (layout.kind == LayoutKind::sum) piece.over.token = Range::of(0, 1);
    }
    // One term that is all of them is the whole.
    if (layout.kind != LayoutKind::whole &&
        std::ranges::all_of(layout.pieces,
                            [&](const Piece& piece) { return piece.over == shape.domain.over; })) {
      layout.kind = LayoutKind::whole;
      for (Piece& piece : layout.pieces) piece.over = {};
    }
    return intern_normalised(layout);
  }

  LayoutId intern_normalised(const Layout& layout) {
    const std::size_t hash = hash_of(layout);
    const auto [first, last] = interned_.equal_range(hash);
    for (auto candidate = first; candidate != last; ++candidate) {
      if (plan_.layouts[index_of(candidate->second)] == layout) return candidate->second;
    }
    const auto id = static_cast<LayoutId>(plan_.layouts.size());
    interned_.emplace(hash, id);
    layout_groups_.push_back(intern_group(devices_of(layout)));
    plan_.layouts.push_back(layout);
    return id;
  }

  GroupId intern_group(std::vector<DeviceId> devices) {
    const auto [place, added] =
        groups_.try_emplace(devices, static_cast<GroupId>(plan_.groups.size()));
    if (added) plan_.groups.push_back(std::move(devices));
    return place->second;
  }

  [[nodiscard]] const Layout& layout(LayoutId id) const { return plan_.layouts[index_of(id)]; }

  // Rows (requests and tokens) of the given layouts, whole in every other axis: where a projection
  // finds its input.
  LayoutId rows_of(std::initializer_list<LayoutId> outputs, Role role, std::int32_t microbatch) {
    Layout rows;
    for (const LayoutId output : outputs) {
      for (const Piece& piece : layout(output).pieces) {
        const Piece row = {
            .device = piece.device,
            .box = {.request = piece.box.request, .token = piece.box.token, .head = {}, .dim = {}},
            .over = {}};
        Piece whole = row;
        whole.box.head = Range::all();
        whole.box.dim = Range::all();
        if (std::ranges::find(rows.pieces, whole) == rows.pieces.end())
          rows.pieces.push_back(whole);
      }
    }
    return intern(rows, role, microbatch);
  }

  // The output of a linear layer that contracts what `input` cuts: partial sums over the pieces'
  // heads and dims.
  LayoutId contracted(LayoutId input, Role role, std::int32_t microbatch) {
    Layout output = {.kind = LayoutKind::sum, .pieces = {}};
    for (const Piece& piece : layout(input).pieces) {
      output.pieces.push_back({.device = piece.device,
                               .box = {.request = piece.box.request, .token = piece.box.token},
                               .over = {.request = Range::of(0, 1),
                                        .token = Range::of(0, 1),
                                        .head = piece.box.head,
                                        .dim = piece.box.dim}});
    }
    return intern(output, role, microbatch);
  }

  // q as the tiles want it: their rows and heads with the whole head dimension, whatever keys they
  // attend to; or with the slice of it that scores are computed from.
  LayoutId queries_of(LayoutId tiles, bool by_scores, std::int32_t microbatch) {
    Layout queries;
    for (const Piece& tile : layout(tiles).pieces) {
      Piece query = {.device = tile.device, .box = tile.box, .over = {}};
      const bool sliced = by_scores && layout(tiles).kind == LayoutKind::sum;
      query.box.dim = sliced ? tile.over.dim : Range::all();
      if (std::ranges::find(queries.pieces, query) == queries.pieces.end()) {
        queries.pieces.push_back(query);
      }
    }
    return intern(queries, Role::q, microbatch);
  }

  RoundIds intern_round(const AttentionRound& round, std::int32_t microbatch) {
    RoundIds ids;
    ids.k_cache = intern(round.k_cache, Role::k_cache, microbatch);
    ids.v_cache = intern(round.v_cache, Role::v_cache, microbatch);
    ids.attention = intern(round.attention, Role::attention, microbatch);
    ids.by_scores = !round.scores.pieces.empty();
    if (ids.by_scores) {
      ids.scores = intern(round.scores, Role::scores, microbatch);
      ids.scores_complete = intern(round.scores_complete, Role::scores, microbatch);
    }
    ids.queries = queries_of(ids.by_scores ? ids.scores : ids.attention, ids.by_scores, microbatch);
    return ids;
  }

  // Every device appends exactly what it projects: equal pieces but for the token axis, which spans
  // everything.
  [[nodiscard]] bool is_local(LayoutId kv, LayoutId before, LayoutId after) const {
    if (before != after) return false;
    const auto& projected = layout(kv).pieces;
    const auto& cached = layout(after).pieces;
    return std::ranges::all_of(cached, [&](const Piece& piece) {
      return piece.box.token == Range::all() &&
             std::ranges::any_of(projected, [&](const Piece& source) {
               return source.device == piece.device && source.box == piece.box;
             });
    });
  }

  void intern_layouts(std::int32_t microbatch) {
    const MicrobatchLayouts& named = layouts_.microbatches[static_cast<std::size_t>(microbatch)];
    Chain& chain = chains_[static_cast<std::size_t>(microbatch)];
    const std::uint32_t kind_of_last = named.of_layer[layers_.back()];
    // Whether it has a layer that does all.
    std::vector<bool> is_whole(named.distinct.size(), !cuts_);
    for (const std::uint32_t layer : layers_.first(layers_.size() - 1))
      is_whole[named.of_layer[layer]] = true;
    rows_ = Rows::all;
    for (std::size_t kind = 0; kind < named.distinct.size(); ++kind) {
      LayerIds ids;
      intern_projection(named.distinct[kind], microbatch, ids);
      if (is_whole[kind]) intern_rest(named.distinct[kind], microbatch, ids);
      chain.distinct.push_back(std::move(ids));
    }
    chain.embedding = intern(named.embedding, Role::residual, microbatch);
    if (plan_.logits == LogitsWanted::none) return;
    if (cuts_) {
      rows_ = Rows::last;
      const LayerLayouts last = last_rows_of(named.distinct[kind_of_last]);
      chain.last.residual = intern(last.residual, Role::residual, microbatch);
      chain.last.q = intern(last.q, Role::q, microbatch);
      chain.last.projection_input = rows_of({chain.last.q}, Role::normed, microbatch);
      intern_rest(last, microbatch, chain.last);
    }
    chain.logits = intern(named.logits, Role::logits, microbatch);
    chain.logits_out = intern(named.logits_out, Role::logits, microbatch);
    chain.final_residual = rows_of({chain.logits}, Role::residual, microbatch);
  }

  void intern_projection(const LayerLayouts& layer, std::int32_t microbatch, LayerIds& ids) {
    ids.residual = intern(layer.residual, Role::residual, microbatch);
    ids.q = intern(layer.q, Role::q, microbatch);
    ids.kv = intern(layer.kv, Role::k, microbatch);
    ids.k_cache_before = intern(layer.k_cache_before, Role::k_cache, microbatch);
    ids.v_cache_before = intern(layer.v_cache_before, Role::v_cache, microbatch);
    ids.k_cache = intern(layer.k_cache, Role::k_cache, microbatch);
    ids.v_cache = intern(layer.v_cache, Role::v_cache, microbatch);
    ids.projection_input = rows_of({ids.q, ids.kv}, Role::normed, microbatch);
    ids.cache_is_local = is_local(ids.kv, ids.k_cache_before, ids.k_cache) &&
                         is_local(ids.kv, ids.v_cache_before, ids.v_cache);
  }

  // What follows q, of the rows at hand.
  void intern_rest(const LayerLayouts& layer, std::int32_t microbatch, LayerIds& ids) {
    for (const AttentionRound& round : layer.rounds)
      ids.rounds.push_back(intern_round(round, microbatch));
    ids.attention = intern(layer.attention, Role::attention, microbatch);
    for (const Layout& station : layer.attention_via)
      ids.attention_via.push_back(intern(station, Role::attention, microbatch));
    ids.attention_out = intern(layer.attention_out, Role::attention, microbatch);
    ids.ffn_hidden = intern(layer.ffn_hidden, Role::ffn_hidden, microbatch);
    ids.attn_branch = contracted(ids.attention_out, Role::attn_branch, microbatch);
    ids.ffn_input = rows_of({ids.ffn_hidden}, Role::normed, microbatch);
    ids.ffn_branch = contracted(ids.ffn_hidden, Role::ffn_branch, microbatch);
  }

  ValueId add_value(Role role, LayoutId layout_id) {
    const bool cache = is_cache(role);
    plan_.values.push_back({.role = role,
                            .layer = layer_,
                            .microbatch = microbatch_,
                            .layout = layout_id,
                            .dtype = cache ? plan_.kv_dtype : plan_.activation_dtype,
                            .rows = cache ? Rows::all : rows_});
    return static_cast<ValueId>(plan_.values.size() - 1);
  }

  [[nodiscard]] LayoutId layout_id(ValueId value) const {
    return plan_.values[index_of(value)].layout;
  }

  GroupId union_of(const std::vector<ValueId>& inputs, const std::vector<ValueId>& outputs) {
    std::vector<LayoutId>& ids = union_key_;
    ids.clear();
    ids.reserve(inputs.size() + outputs.size());
    for (const ValueId value : inputs) ids.push_back(layout_id(value));
    for (const ValueId value : outputs) ids.push_back(layout_id(value));
    const bool one = std::ranges::adjacent_find(ids, std::not_equal_to<>{}) == ids.end();
    if (one) return layout_groups_[index_of(ids.front())];
    const auto known = unions_.find(ids);
    if (known != unions_.end()) return known->second;
    std::vector<DeviceId> members;
    for (const LayoutId id : ids) {
      const auto& group = plan_.groups[index_of(layout_groups_[index_of(id)])];
      members.insert(members.end(), group.begin(), group.end());
    }
    std::ranges::sort(members);
    members.erase(std::unique(members.begin(), members.end()), members.end());
    return unions_[ids] = intern_group(std::move(members));
  }

  void emit(OpKind kind, std::vector<ValueId> inputs, std::vector<ValueId> outputs) {
    const bool joint = queue_of(kind) == Queue::comm;
    const GroupId devices = joint ? union_of(inputs, outputs) : union_of({}, outputs);
    const auto id = static_cast<NodeId>(plan_.nodes.size());
    for (const DeviceId device : plan_.groups[index_of(devices)]) {
      if (index_of(device) >= plan_.devices.size())
        continue;  // validate() names the missing device.
      PlanDevice& queues = plan_.devices[index_of(device)];
      (joint ? queues.comm : queues.compute).push_back(id);
    }
    plan_.nodes.push_back({.kind = kind,
                           .layer = layer_,
                           .microbatch = microbatch_,
                           .devices = devices,
                           .inputs = std::move(inputs),
                           .outputs = std::move(outputs)});
  }

  // The value in the wanted layout: itself, or what a redistribution makes of it.
  ValueId redistribute(ValueId value, LayoutId wanted) {
    const LayoutId held = layout_id(value);
    if (held == wanted) return value;
    const auto [place, added] = movements_.try_emplace({held, wanted}, Redistribution::none);
    if (added) place->second = classify(layout(held), layout(wanted)).kind;
    const ValueId moved = add_value(plan_.at(value).role, wanted);
    emit(op_of(place->second), {value}, {moved});
    return moved;
  }

  void emit_embed() {
    const ValueId embedded = add_value(Role::residual, chain().embedding);
    emit(OpKind::embed, {}, {embedded});
    chain().residual = embedded;
  }

  void emit_project() {
    chain().residual = redistribute(chain().residual, ids().residual);
    const ValueId normed = add_value(Role::normed, ids().residual);
    emit(OpKind::attn_norm, {chain().residual}, {normed});
    const ValueId input = redistribute(normed, ids().projection_input);
    const bool attends = !is_last() || plan_.logits != LogitsWanted::none;
    std::vector<ValueId> rows_of_q;  // Where they are not those of k and v.
    std::vector<ValueId> q;
    std::vector<ValueId> rotated_q;
    if (attends) {
      if (cuts_ && is_last()) {
        rows_ = Rows::last;
        rows_of_q.push_back(redistribute(input, rest().projection_input));
      }
      q.push_back(add_value(Role::q, rest().q));
      rotated_q.push_back(add_value(Role::q, rest().q));
      rows_ = Rows::all;
    }
    const ValueId k = add_value(Role::k, ids().kv);
    const ValueId v = add_value(Role::v, ids().kv);
    emit(OpKind::qkv_proj, joined(rows_of_q, {input}), joined(q, {k, v}));
    const ValueId rotated_k = add_value(Role::k, ids().kv);
    emit(OpKind::rope, joined(q, {k}), joined(rotated_q, {rotated_k}));
    const ValueId k_before = add_value(Role::k_cache, ids().k_cache_before);
    const ValueId v_before = add_value(Role::v_cache, ids().v_cache_before);
    chain().k_cache = add_value(Role::k_cache, ids().k_cache);
    chain().v_cache = add_value(Role::v_cache, ids().v_cache);
    emit(ids().cache_is_local ? OpKind::kv_append : OpKind::kv_copy,
         {rotated_k, v, k_before, v_before}, {chain().k_cache, chain().v_cache});
    if (!attends) return;
    if (cuts_ && is_last()) rows_ = Rows::last;
    chain().q = rotated_q.front();
    chain().first_queries = redistribute(chain().q, rest().rounds.front().queries);
  }

  static std::vector<ValueId> joined(std::vector<ValueId> values,
                                     std::initializer_list<ValueId> more) {
    values.insert(values.end(), more);
    return values;
  }

  // One round's attention, in one op or by scores that are made complete on the way.
  ValueId emit_round(const RoundIds& round, ValueId queries, ValueId k_cache, ValueId v_cache) {
    const ValueId attention = add_value(Role::attention, round.attention);
    if (!round.by_scores) {
      emit(OpKind::attention, {queries, k_cache, v_cache}, {attention});
      return attention;
    }
    const ValueId scores = add_value(Role::scores, round.scores);
    emit(OpKind::score_slice, {queries, k_cache}, {scores});
    const ValueId complete = redistribute(scores, round.scores_complete);
    emit(OpKind::attend_scores, {complete, v_cache}, {attention});
    return attention;
  }

  // What two rounds have together: the pieces of both.
  LayoutId merged(LayoutId a, LayoutId b) {
    Layout both = layout(a);
    const auto& more = layout(b).pieces;
    both.pieces.insert(both.pieces.end(), more.begin(), more.end());
    return intern_normalised(both);
  }

  void emit_attend() {
    const std::vector<RoundIds>& rounds = rest().rounds;
    ValueId k_cache = chain().k_cache;
    ValueId v_cache = chain().v_cache;
    ValueId queries = chain().first_queries;
    ValueId attention{};
    for (std::size_t i = 0; i < rounds.size(); ++i) {
      // From where the last round had them, as in a ring. Queries that are there are not moved.
      k_cache = redistribute(k_cache, rounds[i].k_cache);
      v_cache = redistribute(v_cache, rounds[i].v_cache);
      if (layout_id(queries) != rounds[i].queries) {
        queries = redistribute(chain().q, rounds[i].queries);
      }
      const ValueId part = emit_round(rounds[i], queries, k_cache, v_cache);
      if (i == 0) {
        attention = part;
        continue;
      }
      const bool last = i + 1 == rounds.size();
      const ValueId both = add_value(
          Role::attention, last ? rest().attention : merged(layout_id(attention), layout_id(part)));
      emit(OpKind::merge, {attention, part}, {both});
      attention = both;
    }
    for (const LayoutId station : rest().attention_via)
      attention = redistribute(attention, station);
    chain().attention = redistribute(attention, rest().attention_out);
  }

  void add_branch(ValueId branch) {
    const ValueId complete = redistribute(branch, rest().residual);
    const ValueId sum = add_value(Role::residual, rest().residual);
    emit(OpKind::add, {chain().residual, complete}, {sum});
    chain().residual = sum;
  }

  void emit_output() {
    chain().residual = redistribute(chain().residual, rest().residual);
    const ValueId branch = add_value(Role::attn_branch, rest().attn_branch);
    emit(OpKind::o_proj, {chain().attention}, {branch});
    add_branch(branch);
  }

  void emit_ffn() {
    const ValueId normed = add_value(Role::normed, rest().residual);
    emit(OpKind::ffn_norm, {chain().residual}, {normed});
    const ValueId input = redistribute(normed, rest().ffn_input);
    std::vector<ValueId> products;
    if (plan_.model.gated_ffn) products.push_back(add_value(Role::gate, rest().ffn_hidden));
    products.push_back(add_value(Role::up, rest().ffn_hidden));
    emit(OpKind::ffn_up, {input}, products);
    const ValueId hidden = add_value(Role::ffn_hidden, rest().ffn_hidden);
    emit(OpKind::activation, products, {hidden});
    const ValueId branch = add_value(Role::ffn_branch, rest().ffn_branch);
    emit(OpKind::ffn_down, {hidden}, {branch});
    add_branch(branch);
  }

  void emit_logits() {
    chain().residual = redistribute(chain().residual, chain().final_residual);
    const ValueId normed = add_value(Role::final_normed, chain().final_residual);
    emit(OpKind::final_norm, {chain().residual}, {normed});
    const ValueId logits = add_value(Role::logits, chain().logits);
    emit(OpKind::lm_head, {normed}, {logits});
    redistribute(logits, chain().logits_out);
  }

  const StepLayouts& layouts_;
  std::span<const std::uint32_t> layers_;  // By layer of the plan: that of the layouts.
  std::span<const Phase> order_;
  bool cuts_;  // The last layer does less (cuts_last_layer).
  Plan plan_;
  std::vector<Chain> chains_;
  std::int32_t microbatch_ = 0;
  std::int32_t layer_ = -1;
  Rows rows_ = Rows::all;  // Of the values that are added, and of the layouts that are interned.
  Layout normalised_;      // The layout at hand.
  std::unordered_multimap<std::size_t, LayoutId> interned_;  // By hash.
  std::map<std::vector<DeviceId>, GroupId> groups_;
  std::vector<GroupId> layout_groups_;  // Devices of each layout.
  std::map<std::vector<LayoutId>, GroupId> unions_;
  std::vector<LayoutId> union_key_;  // Of the op at hand.
  std::map<std::pair<LayoutId, LayoutId>, Redistribution> movements_;
};

}  // namespace

bool cuts_last_layer(const PlanHeader& header) {
  return header.logits == LogitsWanted::none ||
         (header.logits == LogitsWanted::last &&
          std::ranges::any_of(header.limits,
                              [](const RequestLengths& lengths) { return lengths.q_len > 1; }));
}

Plan lower(const PlanHeader& header, const StepLayouts& layouts) {
  std::vector<std::uint32_t> layers(static_cast<std::size_t>(header.model.num_layers));
  std::iota(layers.begin(), layers.end(), 0U);
  return lower_layers(header, layouts, layers, layouts.order).plan;
}

PhasedPlan lower_layers(const PlanHeader& header, const StepLayouts& layouts,
                        std::span<const std::uint32_t> layers, std::span<const Phase> order) {
  check_order(order, layouts.microbatches.size(), header.model.num_layers);
  return Lowering(header, layouts, layers, order).run();
}

}  // namespace weir
