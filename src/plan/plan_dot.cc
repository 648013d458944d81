#include "plan/plan_dot.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <utility>

#include <fmt/format.h>

#include "plan/shape_text.h"

namespace weir {
namespace {

// Text inside a quoted DOT label: quotes and backslashes escaped, entities kept from being read as
// such, control characters dropped. Line breaks are added as "\n" by the caller.
std::string escaped(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      result += '\\';
      result += c;
    } else if (c == '&') {
      result += "&amp;";
    } else {
      const auto code = static_cast<unsigned char>(c);
      result += code < 0x20 || code == 0x7F ? ' ' : c;
    }
  }
  return result;
}

const char* fill_of(OpClass op_class) {
  switch (op_class) {
    case OpClass::attention:
      return "#ffd8a8";
    case OpClass::linear:
      return "#bcd7f5";
    case OpClass::elementwise:
      return "#f1f3f5";
    case OpClass::communication:
      break;
  }
  return "#b9e6c3";
}

// Borders of ops, and tints of frames, by set of devices in order of appearance; reused in turn
// where a plan has more sets.
struct DeviceColour {
  const char* border;
  const char* tint;
};
constexpr std::array kDeviceColours = {
    DeviceColour{.border = "#37517e", .tint = "#f5f8fd"},
    DeviceColour{.border = "#b3541e", .tint = "#fdf7f2"},
    DeviceColour{.border = "#2b7a4b", .tint = "#f3faf5"},
    DeviceColour{.border = "#7b3f98", .tint = "#f9f4fb"},
    DeviceColour{.border = "#a1273d", .tint = "#fdf4f6"},
    DeviceColour{.border = "#1b7f8c", .tint = "#f1f9fa"},
    DeviceColour{.border = "#7a6a12", .tint = "#fbf9ee"},
    DeviceColour{.border = "#555555", .tint = "#f6f6f6"},
};

bool follows_the_layers(const Plan& plan, const Node& node) {
  return std::ranges::any_of(node.outputs, [&](ValueId value) {
    const Role role = plan.at(value).role;
    return role == Role::final_normed || role == Role::logits;
  });
}

// A frame of the picture, in drawing order.
struct Frame {
  std::int32_t microbatch = 0;
  std::int32_t layer = -1;
  bool after_layers = false;

  auto operator<=>(const Frame&) const = default;
};

class DotWriter {
 public:
  DotWriter(const Plan& plan, const DotOptions& options) : plan_(plan), options_(options) {
    choose_layers();
    names_.resize(plan.nodes.size());
    producers_.resize(plan.values.size());
    consumed_.resize(plan.values.size(), false);
    for (std::size_t i = 0; i < plan.nodes.size(); ++i) place(static_cast<NodeId>(i));
  }

  std::string write() {
    text_ = "digraph plan {\n";
    text_ += fmt::format(
        "  graph [label=\"{}\\n{}\", labelloc=t, fontsize=16, fontname=\"Helvetica\", "
        "nodesep=0.35, ranksep=0.45, newrank=true];\n",
        escaped(plan_.model.name), escaped(plan_.strategy));
    text_ +=
        "  node [shape=box, style=\"filled,rounded\", fontname=\"Helvetica\", fontsize=11, "
        "penwidth=1.6, margin=\"0.14,0.06\"];\n"
        "  edge [fontname=\"Helvetica\", fontsize=9, color=\"#868e96\", fontcolor=\"#495057\", "
        "arrowsize=0.7];\n";
    for (const auto& [frame, nodes] : frames_) write_frame(frame, nodes);
    for (const auto& [name, label] : gaps_) {
      text_ += fmt::format(
          "  {} [label=\"{}\", shape=box, style=\"dashed\", color=\"#868e96\", "
          "fontcolor=\"#495057\"];\n",
          name, label);
    }
    for (std::size_t i = 0; i < plan_.nodes.size(); ++i) write_edges(static_cast<NodeId>(i));
    write_results();
    if (options_.legend) write_legend();
    text_ += "}\n";
    return std::move(text_);
  }

 private:
  void choose_layers() {
    const auto num_layers =
        static_cast<std::size_t>(std::max<std::int64_t>(0, plan_.model.num_layers));
    drawn_.assign(num_layers,
                  !options_.layers && std::cmp_less_equal(num_layers, kMostLayersDrawn));
    const auto last = static_cast<std::int32_t>(num_layers) - 1;
    for (const std::int32_t layer :
         options_.layers.value_or(std::vector<std::int32_t>{0, 1, last})) {
      if (layer >= 0 && layer <= last) drawn_[static_cast<std::size_t>(layer)] = true;
    }
  }

  [[nodiscard]] bool takes_part(const Node& node) const {
    return !options_.device || std::ranges::binary_search(plan_.at(node.devices), *options_.device);
  }

  // Decides where a node is drawn: in a frame, as part of a gap, or (an empty name) not at all.
  void place(NodeId id) {
    const Node& node = plan_.at(id);
    if (!takes_part(node)) return;
    for (const ValueId value : node.outputs) producers_[index_of(value)] = id;
    for (const ValueId value : node.inputs) consumed_[index_of(value)] = true;
    const bool after = follows_the_layers(plan_, node);
    if (!after && node.layer >= 0 && !drawn_[static_cast<std::size_t>(node.layer)]) {
      names_[index_of(id)] = gap_of(node);
      return;
    }
    names_[index_of(id)] = fmt::format("n{}", index_of(id));
    const Frame frame = {.microbatch = node.microbatch, .layer = node.layer, .after_layers = after};
    frames_[frame].push_back(id);
  }

  // The node that stands for the run of layers that are not drawn.
  std::string gap_of(const Node& node) {
    std::int32_t first = node.layer;
    std::int32_t last = node.layer;
    const auto hidden = [this](std::int32_t layer) {
      return layer >= 0 && static_cast<std::size_t>(layer) < drawn_.size() &&
             !drawn_[static_cast<std::size_t>(layer)];
    };
    while (hidden(first - 1)) --first;
    while (hidden(last + 1)) ++last;
    std::string name = fmt::format("gap_{}_{}", node.microbatch, first);
    gaps_.try_emplace(name, first == last ? fmt::format("layer {}", first)
                                          : fmt::format("layers {}-{}\\n...", first, last));
    return name;
  }

  std::size_t colour_of(const std::vector<DeviceId>& devices) {
    const auto [place, added] = colours_.try_emplace(devices, colours_.size());
    if (added) colour_order_.push_back(devices);
    return place->second % kDeviceColours.size();
  }

  // The devices that compute in a frame.
  [[nodiscard]] std::vector<DeviceId> devices_of_frame(const std::vector<NodeId>& nodes) const {
    std::set<DeviceId> devices;
    for (const NodeId id : nodes) {
      const Node& node = plan_.at(id);
      if (queue_of(node.kind) != Queue::compute) continue;
      devices.insert(plan_.at(node.devices).begin(), plan_.at(node.devices).end());
    }
    return {devices.begin(), devices.end()};
  }

  void write_frame(const Frame& frame, const std::vector<NodeId>& nodes) {
    std::string label = frame.after_layers ? "logits"
                        : frame.layer < 0  ? "embedding"
                                           : fmt::format("layer {}", frame.layer);
    if (plan_.microbatches.size() > 1) label += fmt::format(", microbatch {}", frame.microbatch);
    const std::vector<DeviceId> devices = devices_of_frame(nodes);
    const DeviceColour colour = kDeviceColours[colour_of(devices)];
    text_ += fmt::format(
        "  subgraph cluster_{}_{}_{} {{\n    label=\"{}\"; labeljust=l; fontsize=13; "
        "style=\"filled,rounded\"; color=\"{}\"; fillcolor=\"{}\";\n",
        frame.microbatch, frame.layer + 1, frame.after_layers ? 1 : 0, label, colour.border,
        colour.tint);
    for (const NodeId id : nodes) write_node(id);
    text_ += "  }\n";
  }

  void write_node(NodeId id) {
    const Node& node = plan_.at(id);
    const std::vector<DeviceId>& devices = plan_.at(node.devices);
    const bool comm = queue_of(node.kind) == Queue::comm;
    text_ += fmt::format(
        "    n{} [label=\"{}\\n{} {}\", tooltip=\"node {}\", shape={}, style=\"{}\", "
        "fillcolor=\"{}\", color=\"{}\"];\n",
        index_of(id), to_string(node.kind), devices.size() == 1 ? "device" : "devices",
        to_string(devices), index_of(id), comm ? "ellipse" : "box",
        comm ? "filled" : "filled,rounded", fill_of(class_of(node.kind)),
        kDeviceColours[colour_of(devices)].border);
    if (node.kind == OpKind::embed) {
      write_source(fmt::format("tokens{}", index_of(id)), "token ids", "plain");
      text_ += fmt::format("    tokens{0} -> n{0};\n", index_of(id));
    }
    for (const ValueId value : node.inputs) {
      if (producers_[index_of(value)]) continue;
      // The cache before the step, or a value that a broken plan never writes.
      const Role role = plan_.at(value).role;
      const bool cache = is_cache(role);
      if (cache || !options_.device) {
        const std::string label = cache ? (role == Role::k_cache ? "K cache" : "V cache")
                                        : fmt::format("{}: never written", to_string(role));
        write_source(fmt::format("v{}", index_of(value)), label, cache ? "cylinder" : "plain");
        text_ += fmt::format("    v{} -> n{} [label=\"{}\"];\n", index_of(value), index_of(id),
                             tensor_text(value));
      }
    }
  }

  void write_source(std::string_view name, std::string_view label, std::string_view shape) {
    text_ += fmt::format(
        "    {} [label=\"{}\", shape={}, style=\"{}\", fillcolor=\"white\", color=\"#868e96\"];\n",
        name, label, shape, shape == "plain" ? "" : "filled");
  }

  // Role, what the pieces are, and the shape per device.
  std::string tensor_text(ValueId id) {
    const Value& value = plan_.at(id);
    const auto [place, added] = tensor_texts_.try_emplace({value.role, value.layout});
    if (!added) return place->second;
    const char* form = "";
    switch (plan_.layout_of(id).kind) {
      case LayoutKind::whole:
        break;
      case LayoutKind::sum:
        form = " (partial sums)";
        break;
      case LayoutKind::softmax:
        form = " (partial softmax)";
        break;
    }
    place->second = fmt::format("{}{}\\n{}", to_string(value.role), form,
                                shape_text(plan_, value, options_.device));
    return place->second;
  }

  void write_edges(NodeId id) {
    const std::string& to = names_[index_of(id)];
    if (to.empty()) return;
    for (const ValueId value : plan_.at(id).inputs) {
      const auto producer = producers_[index_of(value)];
      if (!producer) continue;
      const std::string& from = names_[index_of(*producer)];
      // A gap has many edges inside, and may hand on one value to several readers.
      if (from == to && from.starts_with("gap")) continue;
      if (!drawn_edges_.emplace(from, to, value).second) continue;
      const bool residual = plan_.at(value).role == Role::residual;
      text_ += fmt::format("  {} -> {} [label=\"{}\"{}];\n", from, to, tensor_text(value),
                           residual ? ", penwidth=2.6, color=\"#37517e\", weight=8" : "");
    }
  }

  // Logits that nobody reads are the step's result.
  void write_results() {
    for (std::size_t i = 0; i < plan_.values.size(); ++i) {
      if (plan_.values[i].role != Role::logits || consumed_[i] || !producers_[i]) continue;
      text_ += fmt::format(
          "  result{0} [label=\"sampler\", shape=plain, style=\"\"];\n"
          "  {1} -> result{0} [label=\"{2}\"];\n",
          i, names_[index_of(*producers_[i])], tensor_text(static_cast<ValueId>(i)));
    }
  }

  void write_legend() {
    text_ +=
        "  legend [shape=plain, style=\"\", label=<<table border=\"0\" cellborder=\"0\" "
        "cellspacing=\"4\">";
    using enum OpClass;
    for (const OpClass op_class : {attention, linear, elementwise, communication}) {
      text_ +=
          fmt::format("<tr><td bgcolor=\"{}\" width=\"18\"> </td><td align=\"left\">{}</td></tr>",
                      fill_of(op_class), to_string(op_class));
    }
    for (std::size_t i = 0; i < colour_order_.size() && i < kDeviceColours.size(); ++i) {
      text_ += fmt::format(
          "<tr><td border=\"2\" color=\"{}\" width=\"18\"> </td><td align=\"left\">{} {}</td></tr>",
          kDeviceColours[i].border, colour_order_[i].size() == 1 ? "device" : "devices",
          to_string(colour_order_[i]));
    }
    text_ += "</table>>];\n";
  }

  const Plan& plan_;
  const DotOptions& options_;
  std::string text_;
  std::vector<bool> drawn_;         // By layer.
  std::vector<std::string> names_;  // By node: what it is drawn as.
  std::vector<std::optional<NodeId>> producers_;
  std::vector<bool> consumed_;
  std::map<Frame, std::vector<NodeId>> frames_;
  std::map<std::string, std::string> gaps_;  // Labels by name.
  std::map<std::vector<DeviceId>, std::size_t> colours_;
  std::vector<std::vector<DeviceId>> colour_order_;
  std::map<std::pair<Role, LayoutId>, std::string> tensor_texts_;
  std::set<std::tuple<std::string, std::string, ValueId>> drawn_edges_;
};

}  // namespace

std::string to_string(const std::vector<DeviceId>& ascending) {
  std::string text;
  for (std::size_t i = 0; i < ascending.size();) {
    std::size_t last = i;
    while (last + 1 < ascending.size() &&
           index_of(ascending[last + 1]) == index_of(ascending[last]) + 1)
      ++last;
    if (!text.empty()) text += ',';
    text += fmt::format("{}", index_of(ascending[i]));
    if (last > i) text += fmt::format("-{}", index_of(ascending[last]));
    i = last + 1;
  }
  return text;
}

std::string plan_to_dot(const Plan& plan, const DotOptions& options) {
  return DotWriter(plan, options).write();
}

}  // namespace weir
