#include "plan/locality.h"

#include <algorithm>
#include <initializer_list>
#include <map>
#include <tuple>
#include <utility>

#include <fmt/format.h>

#include "layout/redistribute.h"

namespace weir {
namespace {

constexpr std::size_t kMostPiecesNamed = 8;

bool at_most(Bound a, Bound b) { return at_most_for_every_extent(a, b); }

// The boxes share nothing, for any extent.
bool apart(const Box& a, const Box& b) {
  return std::ranges::any_of(kAllAxes, [&](Axis axis) {
    return at_most(a[axis].end, b[axis].begin) || at_most(b[axis].end, a[axis].begin);
  });
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
      case score_slice:
        scores_have_q_and_k();
        break;
      case attend_scores:
        tiles_have_scores_and_v();
        break;
      case merge:
        merges_disjoint_keys();
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
    if (problems_.size() < kMostPiecesNamed) {
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
        const bool found =
            any_on(in(input_of_rows(node_, i)), piece.device, [&](const Piece& source) {
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
    for (const std::size_t tensor : {0, 1}) {
      if (plan_.at(node_.inputs[2 + tensor]).layout != plan_.at(node_.outputs[tensor]).layout) {
        problems_.emplace_back(
            "the cache before and after are laid out differently, which needs a kv_copy");
      }
      for (const Piece& piece : out(tensor).pieces) {
        const bool found =
            piece.box.token == Range::all() &&
            any_on(in(tensor), piece.device, [&](const Piece& p) { return p.box == piece.box; });
        if (!found) {
          problem(piece, fmt::format("its {} is not computed there", tensor == 0 ? "k" : "v"));
        }
      }
    }
  }

  // Key positions that a tile attends to.
  static Range keys_of(const Layout& attention, const Piece& tile) {
    return attention.kind == LayoutKind::whole ? Range::all() : tile.over.token;
  }

  void needs_cache(const Piece& tile, std::size_t input, const Range& keys, const Range& dims) {
    const Interval heads =
        kv_heads_of(plan_.model, resolve(tile.box.head, plan_.model.num_q_heads));
    const CacheRead read = {
        .requests = tile.box.request, .keys = keys, .heads = heads, .dims = dims};
    if (!cached(in(input), tile.device, read)) {
      problem(tile, fmt::format("{} of heads [{}, {}) at positions {} is not all there",
                                to_string(plan_.at(node_.inputs[input]).role), heads.begin,
                                heads.end, to_string(keys)));
    }
  }

  // q with the tile's rows and heads, and `dims` of the head dimension.
  void needs_q(const Piece& tile, const Range& dims) {
    const bool has_q = any_on(in(0), tile.device, [&](const Piece& q) {
      return same_rows(q.box, tile.box) && q.box.head == tile.box.head && q.box.dim == dims;
    });
    if (!has_q) problem(tile, "its q is not there");
  }

  void tiles_have_q_and_kv() {
    const Range whole_dim = Range::of(0, plan_.model.head_dim);
    for (const Piece& tile : out(0).pieces) {
      needs_q(tile, whole_dim);
      needs_cache(tile, 1, keys_of(out(0), tile), whole_dim);
      needs_cache(tile, 2, keys_of(out(0), tile), tile.box.dim);
    }
  }

  void scores_have_q_and_k() {
    const Range whole_dim = Range::of(0, plan_.model.head_dim);
    for (const Piece& piece : out(0).pieces) {
      const Range dims = out(0).kind == LayoutKind::whole ? whole_dim : piece.over.dim;
      needs_q(piece, dims);
      needs_cache(piece, 1, piece.box.dim, dims);
    }
  }

  void tiles_have_scores_and_v() {
    for (const Piece& tile : out(0).pieces) {
      const Range keys = keys_of(out(0), tile);
      const bool has_scores = any_on(in(0), tile.device, [&](const Piece& scores) {
        return same_rows(scores.box, tile.box) && scores.box.head == tile.box.head &&
               scores.box.dim == keys;
      });
      if (in(0).kind != LayoutKind::whole || !has_scores) problem(tile, "its scores are not there");
      needs_cache(tile, 1, keys, tile.box.dim);
    }
  }

  // The terms of both inputs, each once, are the terms of the output.
  void merges_disjoint_keys() {
    for (const Piece& tile : out(0).pieces) {
      std::vector<Range> terms;
      for (const std::size_t i : {0, 1}) {
        for (const Piece& part : in(i).pieces) {
          if (part.device == tile.device && part.box == tile.box) terms.push_back(part.over.token);
        }
      }
      if (out(0).kind == LayoutKind::whole) {
        Layout together = {.kind = LayoutKind::softmax, .pieces = {}};
        const TensorShape shape = shape_of(plan_, plan_.at(node_.outputs[0]));
        for (const Range& term : terms) {
          Box over = shape.domain.over;
          over.token = term;
          together.pieces.push_back({.device = tile.device, .box = tile.box, .over = over});
        }
        const bool complete =
            problems_of(together, {.box = tile.box, .over = shape.domain.over}).empty();
        if (!complete) problem(tile, "its parts do not make up all keys");
        continue;
      }
      const auto wanted = std::ranges::count_if(out(0).pieces, [&](const Piece& other) {
        return other.device == tile.device && other.box == tile.box;
      });
      const bool found = std::ranges::find(terms, tile.over.token) != terms.end();
      if (!found || static_cast<std::size_t>(wanted) != terms.size()) {
        problem(tile, "its terms are not those of its parts");
      }
    }
    const bool partial = in(0).kind == LayoutKind::softmax && in(1).kind == LayoutKind::softmax;
    if (!partial) problems_.emplace_back("only partial attention can be merged");
  }

  // Heads and dimensions: pieces of different ones are stored apart, and a tile reads one store.
  using Stored = std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t>;
  using SpansByStore = std::map<Stored, std::vector<Range>>;

  struct CacheRead {
    Range requests;
    Range keys;
    Interval heads;
    Range dims;
  };

  // Do the device's pieces of the cache together span these positions, for each of the requests?
  [[nodiscard]] bool cached(const Layout& cache, DeviceId device, const CacheRead& read) const {
    const Interval wanted_dims = resolve(read.dims, plan_.model.head_dim);
    const Interval which = requests_of({.request = read.requests}, plan_.batch_size());
    std::int64_t request = which.begin;
    while (request < which.end) {
      std::int64_t next = which.end;  // Up to here the same pieces serve all requests.
      bool found = spanned({}, read.keys);
      SpansByStore spans;  // Of the pieces that do not span all positions by themselves.
      for (const Piece& piece : cache.pieces) {
        if (piece.device != device) continue;
        const Interval served = requests_of(piece.box, plan_.batch_size());
        if (served.begin > request) next = std::min(next, served.begin);
        if (request < served.begin || request >= served.end) continue;
        next = std::min(next, served.end);
        const Interval held = resolve(piece.box.head, plan_.model.num_kv_heads);
        const Interval held_dims = resolve(piece.box.dim, plan_.model.head_dim);
        if (found || !held.contains(read.heads) || !held_dims.contains(wanted_dims)) continue;
        const Range& span = piece.box.token;
        found = at_most(span.begin, read.keys.begin) && at_most(read.keys.end, span.end);
        if (!found) {
          spans[{held.begin, held.end, held_dims.begin, held_dims.end}].push_back(piece.box.token);
        }
      }
      if (!found && !any_spans(spans, read.keys)) return false;
      request = next;
    }
    return true;
  }

  static bool any_spans(const SpansByStore& spans, const Range& keys) {
    return std::ranges::any_of(spans,
                               [&](const auto& stored) { return spanned(stored.second, keys); });
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

  // Into partials, a buffer is copied as it is, with all its terms or not at all.
  void copies_are_possible() {
    if (out(0).kind == LayoutKind::whole) return;
    if (in(0).kind != out(0).kind) {
      problems_.push_back(fmt::format("a {} value cannot become {} partials", to_string(in(0).kind),
                                      to_string(out(0).kind)));
      return;
    }
    // Rounds of attention hold a part of all terms: what is named must be one of theirs.
    const bool all_there =
        problems_of(in(0), shape_of(plan_, plan_.at(node_.inputs[0])).domain).empty();
    for (const Piece& wanted : out(0).pieces) {
      const bool known = all_there || std::ranges::any_of(in(0).pieces, [&](const Piece& term) {
                           return term.box == wanted.box && term.over == wanted.over;
                         });
      const bool torn = !known || std::ranges::any_of(in(0).pieces, [&](const Piece& term) {
        return !apart(term.box, wanted.box) && !apart(term.over, wanted.over) &&
               !takes_all_terms(wanted, term);
      });
      if (torn) problem(wanted, "its terms are not those of the parts that it is sent");
    }
  }

  // Does the target that `wanted` is a piece of name every term of the buffer that holds `term`?
  [[nodiscard]] bool takes_all_terms(const Piece& wanted, const Piece& term) const {
    return std::ranges::all_of(in(0).pieces, [&](const Piece& sent) {
      if (sent.device != term.device || sent.box != term.box) return true;
      return any_on(out(0), wanted.device, [&](const Piece& target) {
        return target.box == wanted.box && target.over == sent.over;
      });
    });
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

std::size_t input_of_rows(const Node& node, std::size_t output) {
  return std::min(output, node.inputs.size() - 1);
}

bool has_signature(OpKind kind, const ModelSpec& model, std::span<const Role> inputs,
                   std::span<const Role> outputs) {
  using Roles = std::initializer_list<Role>;
  const auto is = [&](Roles in, Roles out) {
    return std::ranges::equal(inputs, in) && std::ranges::equal(outputs, out);
  };
  using enum Role;
  switch (kind) {
    case OpKind::embed:
      return is({}, {residual});
    case OpKind::attn_norm:
    case OpKind::ffn_norm:
      return is({residual}, {normed});
    case OpKind::qkv_proj:
      return is({normed}, {q, k, v}) || is({normed}, {k, v}) || is({normed, normed}, {q, k, v});
    case OpKind::rope:
      return is({q, k}, {q, k}) || is({k}, {k});
    case OpKind::kv_append:
    case OpKind::kv_copy:
      return is({k, v, k_cache, v_cache}, {k_cache, v_cache});
    case OpKind::attention:
      return is({q, k_cache, v_cache}, {attention});
    case OpKind::score_slice:
      return is({q, k_cache}, {scores});
    case OpKind::attend_scores:
      return is({scores, v_cache}, {attention});
    case OpKind::merge:
      return is({attention, attention}, {attention});
    case OpKind::o_proj:
      return is({attention}, {attn_branch});
    case OpKind::add:
      return is({residual, attn_branch}, {residual}) || is({residual, ffn_branch}, {residual});
    case OpKind::ffn_up:
      return model.gated_ffn ? is({normed}, {gate, up}) : is({normed}, {up});
    case OpKind::activation:
      return model.gated_ffn ? is({gate, up}, {ffn_hidden}) : is({up}, {ffn_hidden});
    case OpKind::ffn_down:
      return is({ffn_hidden}, {ffn_branch});
    case OpKind::final_norm:
      return is({residual}, {final_normed});
    case OpKind::lm_head:
      return is({final_normed}, {logits});
    case OpKind::slice:
    case OpKind::all_reduce:
    case OpKind::reduce_scatter:
    case OpKind::all_gather:
    case OpKind::all_to_all:
    case OpKind::broadcast:
    case OpKind::gather:
    case OpKind::reduce:
    case OpKind::copy:
      return inputs.size() == 1 && std::ranges::equal(inputs, outputs);
  }
  return false;
}

std::vector<std::string> locality_problems(const Plan& plan, const Node& node) {
  return LocalityCheck(plan, node).run();
}

}  // namespace weir
