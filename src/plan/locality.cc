#include "plan/locality.h"

#include <algorithm>

#include <fmt/format.h>

#include "layout/redistribute.h"

namespace weir {
namespace {

constexpr std::size_t kMostProblems = 8;

bool at_most(Bound a, Bound b) {
  const auto order = compare_for_every_extent(a, b);
  return order && *order != std::weak_ordering::greater;
}

bool same_rows(const Box& a, const Box& b) { return a.request == b.request && a.token == b.token; }

class LocalityCheck {
 public:
  LocalityCheck(const Plan& plan, const Node& node) : plan_(plan), node_(node) {}

  std::vector<std::string> run() {
    using enum OpKind;
    switch (node_.kind) {
      case embed:
        each_output(
            [](const Piece& piece) {
              return piece.box.dim.begin == Bound{} && piece.over.head.begin == Bound{};
            },
            "embeds whole rows only");
        whole_dims();
        break;
      case attn_norm:
      case ffn_norm:
      case final_norm:
        inputs_equal_outputs();
        whole_dims();
        break;
      case qkv_proj:
      case ffn_up:
      case lm_head:
        rows_of_input();
        break;
      case rope:
        inputs_equal_outputs();
        whole_pairs();
        break;
      case add:
      case activation:
        inputs_equal_outputs();
        break;
      case kv_append:
        appended_where_projected();
        break;
      case attention:
        tiles_have_q_and_kv();
        break;
      case o_proj:
      case ffn_down:
        contracts_its_input();
        break;
      case slice:
        redistribution_is(Redistribution::slice);
        break;
      case all_reduce:
        redistribution_is(Redistribution::all_reduce);
        break;
      case reduce_scatter:
        redistribution_is(Redistribution::reduce_scatter);
        break;
      case all_gather:
        redistribution_is(Redistribution::all_gather);
        break;
      case all_to_all:
        redistribution_is(Redistribution::all_to_all);
        break;
      case broadcast:
        redistribution_is(Redistribution::broadcast);
        break;
      case gather:
        redistribution_is(Redistribution::gather);
        break;
      case reduce:
        redistribution_is(Redistribution::reduce);
        break;
      case copy:
        copies_are_possible();
        break;
      case kv_copy:
        break;  // Any whole K, V and cache can become any cache.
    }
    return std::move(problems_);
  }

 private:
  [[nodiscard]] const Layout& in(std::size_t i) const { return plan_.layout_of(node_.inputs[i]); }
  [[nodiscard]] const Layout& out(std::size_t i) const { return plan_.layout_of(node_.outputs[i]); }

  void problem(const Piece& piece, const std::string& text) {
    if (problems_.size() < kMostProblems) {
      problems_.push_back(fmt::format("device {}, piece {}: {}", index_of(piece.device),
                                      to_string(piece.box), text));
    }
  }

  template <class Predicate>
  void each_output(Predicate holds, const char* rule) {
    for (std::size_t i = 0; i < node_.outputs.size(); ++i) {
      for (const Piece& piece : out(i).pieces) {
        if (!holds(piece)) problem(piece, rule);
      }
    }
  }

  template <class Predicate>
  static bool any_on(const Layout& layout, DeviceId device, Predicate holds) {
    return std::ranges::any_of(
        layout.pieces, [&](const Piece& piece) { return piece.device == device && holds(piece); });
  }

  // The output spans the whole of its last axis.
  void whole_dims() {
    const TensorShape shape = shape_of(plan_, plan_.at(node_.outputs[0]));
    each_output([&](const Piece& piece) { return piece.box.dim == shape.domain.box.dim; },
                "needs whole rows");
  }

  void inputs_equal_outputs() {
    // q follows q and k follows k; otherwise every input has the one layout of the outputs.
    for (std::size_t i = 0; i < node_.inputs.size(); ++i) {
      const std::size_t o = node_.outputs.size() == node_.inputs.size() ? i : 0;
      if (plan_.at(node_.inputs[i]).layout != plan_.at(node_.outputs[o]).layout) {
        problems_.push_back(fmt::format("input {} is laid out otherwise than the output", i));
      }
    }
  }

  void rows_of_input() {
    const TensorShape shape = shape_of(plan_, plan_.at(node_.inputs[0]));
    for (std::size_t i = 0; i < node_.outputs.size(); ++i) {
      for (const Piece& piece : out(i).pieces) {
        const bool found = any_on(in(0), piece.device, [&](const Piece& source) {
          return same_rows(source.box, piece.box) && source.box.dim == shape.domain.box.dim;
        });
        if (!found)
          problem(piece, fmt::format("its rows of {} are not there whole",
                                     to_string(plan_.at(node_.inputs[0]).role)));
      }
    }
  }

  void whole_pairs() {
    const ModelSpec& model = plan_.model;
    for (std::size_t i = 0; i < node_.outputs.size(); ++i) {
      for (const Piece& piece : out(i).pieces) {
        const Interval dims = resolve(piece.box.dim, model.head_dim);
        for (const std::int64_t cut : {dims.begin, dims.end}) {
          if (cut < model.rope.rotary_dim && cut % 2 != 0) problem(piece, "cuts a rotary pair");
        }
        if (model.qk_norm && dims.size() != model.head_dim)
          problem(piece, "q/k norm needs whole heads");
      }
    }
  }

  void appended_where_projected() {
    if (plan_.at(node_.inputs[2]).layout != plan_.at(node_.outputs[0]).layout) {
      problems_.push_back(
          "the cache before and after are laid out differently, which needs a kv_copy");
    }
    for (const Piece& piece : out(0).pieces) {
      for (const std::size_t source : {0, 1}) {
        const bool found =
            piece.box.token == Range::all() &&
            any_on(in(source), piece.device, [&](const Piece& p) { return p.box == piece.box; });
        if (!found)
          problem(piece, fmt::format("its {} is not computed there", source == 0 ? "k" : "v"));
      }
    }
  }

  void tiles_have_q_and_kv() {
    const ModelSpec& model = plan_.model;
    const Range whole_dim = Range::of(0, model.head_dim);
    for (const Piece& tile : out(0).pieces) {
      const bool has_q = any_on(in(0), tile.device, [&](const Piece& q) {
        return same_rows(q.box, tile.box) && q.box.head == tile.box.head && q.box.dim == whole_dim;
      });
      if (!has_q) problem(tile, "its q is not there");
      const Range keys = out(0).kind == LayoutKind::whole ? Range::all() : tile.over.token;
      const Interval heads = kv_heads_of(model, resolve(tile.box.head, model.num_q_heads));
      if (!cached(tile.device, tile.box.request, keys, heads)) {
        problem(tile, fmt::format("K and V of heads [{}, {}) at positions {} are not all there",
                                  heads.begin, heads.end, to_string(keys)));
      }
    }
  }

  // Do the device's pieces of the cache together span these positions, for each of the requests?
  [[nodiscard]] bool cached(DeviceId device, const Range& requests, const Range& keys,
                            Interval heads) const {
    const Interval which = requests_of({.request = requests}, plan_.batch_size());
    std::int64_t request = which.begin;
    while (request < which.end) {
      std::int64_t next = which.end;  // Up to here the same pieces serve all requests.
      std::vector<Range> spans;
      for (const Piece& piece : in(1).pieces) {
        if (piece.device != device) continue;
        const Interval served = requests_of(piece.box, plan_.batch_size());
        if (served.begin > request) next = std::min(next, served.begin);
        if (request < served.begin || request >= served.end) continue;
        next = std::min(next, served.end);
        const Interval held = resolve(piece.box.head, plan_.model.num_kv_heads);
        if (held.contains(heads) &&
            resolve(piece.box.dim, plan_.model.head_dim).size() == plan_.model.head_dim) {
          spans.push_back(piece.box.token);
        }
      }
      if (!spanned(std::move(spans), keys)) return false;
      request = next;
    }
    return true;
  }

  static bool spanned(std::vector<Range> spans, const Range& keys) {
    Bound reached = keys.begin;
    while (!at_most(keys.end, reached)) {
      const auto next = std::ranges::find_if(spans, [&](const Range& span) {
        return at_most(span.begin, reached) && !at_most(span.end, reached);
      });
      if (next == spans.end()) return false;
      reached = next->end;
      spans.erase(next);
    }
    return true;
  }

  void contracts_its_input() {
    const TensorShape shape = shape_of(plan_, plan_.at(node_.outputs[0]));
    const bool whole = out(0).kind == LayoutKind::whole;
    for (const Piece& piece : out(0).pieces) {
      if (piece.box.dim != shape.domain.box.dim) problem(piece, "needs whole rows");
      const Box& over = whole ? shape.domain.over : piece.over;
      const bool found = any_on(in(0), piece.device, [&](const Piece& source) {
        return same_rows(source.box, piece.box) && source.box.head == over.head &&
               source.box.dim == over.dim;
      });
      if (!found) problem(piece, fmt::format("its input {} is not there", to_string(over)));
    }
  }

  void redistribution_is(Redistribution expected) {
    const Redistribution kind = classify(in(0), out(0)).kind;
    const bool same_slice = expected == Redistribution::slice && kind == Redistribution::none;
    if (kind != expected && !same_slice) {
      problems_.push_back(fmt::format("its layouts do not make a {}", to_string(node_.kind)));
    }
  }

  void copies_are_possible() {
    // Partials that meet are added or merged, whatever terms the output says: only a whole value
    // can come of it.
    if (out(0).kind != LayoutKind::whole) {
      problems_.push_back(fmt::format("a {} value cannot be copied into {} partials",
                                      to_string(in(0).kind), to_string(out(0).kind)));
    }
  }

  const Plan& plan_;
  const Node& node_;
  std::vector<std::string> problems_;
};

}  // namespace

Interval kv_heads_of(const ModelSpec& model, Interval q_heads) {
  const std::int64_t group = model.num_q_heads / model.num_kv_heads;
  if (q_heads.empty()) return {};
  return {.begin = q_heads.begin / group, .end = (q_heads.end + group - 1) / group};
}

std::vector<OpSignature> signatures_of(OpKind kind, const ModelSpec& model) {
  using enum Role;
  using S = std::vector<OpSignature>;
  switch (kind) {
    case OpKind::embed:
      return S{{{}, {residual}}};
    case OpKind::attn_norm:
    case OpKind::ffn_norm:
      return S{{{residual}, {normed}}};
    case OpKind::qkv_proj:
      return S{{{normed}, {q, k, v}}};
    case OpKind::rope:
      return S{{{q, k}, {q, k}}};
    case OpKind::kv_append:
    case OpKind::kv_copy:
      return S{{{k, v, kv_cache}, {kv_cache}}};
    case OpKind::attention:
      return S{{{q, kv_cache}, {attention}}};
    case OpKind::o_proj:
      return S{{{attention}, {attn_branch}}};
    case OpKind::add:
      return S{{{residual, attn_branch}, {residual}}, {{residual, ffn_branch}, {residual}}};
    case OpKind::ffn_up:
      return model.gated_ffn ? S{{{normed}, {gate, up}}} : S{{{normed}, {up}}};
    case OpKind::activation:
      return model.gated_ffn ? S{{{gate, up}, {ffn_hidden}}} : S{{{up}, {ffn_hidden}}};
    case OpKind::ffn_down:
      return S{{{ffn_hidden}, {ffn_branch}}};
    case OpKind::final_norm:
      return S{{{final_hidden}, {final_normed}}};
    case OpKind::lm_head:
      return S{{{final_normed}, {logits}}};
    case OpKind::slice:
    case OpKind::all_reduce:
    case OpKind::reduce_scatter:
    case OpKind::all_gather:
    case OpKind::all_to_all:
    case OpKind::broadcast:
    case OpKind::gather:
    case OpKind::reduce:
    case OpKind::copy: {
      S all;
      for (const Role role : {residual, normed, q, k, v, attention, attn_branch, ffn_branch, gate,
                              up, ffn_hidden, final_hidden, final_normed, logits}) {
        all.push_back({{role}, {role}});
      }
      all.push_back({{residual}, {final_hidden}});
      return all;
    }
  }
  return {};
}

std::vector<std::string> locality_problems(const Plan& plan, const Node& node) {
  return LocalityCheck(plan, node).run();
}

}  // namespace weir
