#include <algorithm>
#include <array>
#include <limits>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "plan/plan_json.h"
#include "plan/plan_json_bound.h"

namespace weir {
namespace {

using nlohmann::json;

constexpr std::int64_t kMostLength = kMaxModelPosition;
// Reading stops once there are this many problems: more would help nobody, and a hostile file could
// have one per byte.
constexpr std::size_t kEnoughProblems = 200;

constexpr std::array kDTypes = {DType::f32, DType::bf16, DType::f16};
constexpr std::array kLogits = {LogitsWanted::none, LogitsWanted::last, LogitsWanted::all};
constexpr std::array kRows = {Rows::all, Rows::last};
constexpr std::array kLayoutKinds = {LayoutKind::whole, LayoutKind::sum, LayoutKind::softmax};

struct Table {
  std::string_view key = {};
  const json* rows = nullptr;
  [[nodiscard]] std::size_t size() const { return rows->size(); }
};

// Reads a plan table by table; ids are held against the sizes of the tables that they index, which
// are known before any row is read.
class PlanReader {
 public:
  explicit PlanReader(const json& document) : root_(document, "", problems_) {}

  Plan read() {
    read_format();
    read_model();
    plan_.strategy = root_.string("strategy");
    plan_.activation_dtype = dtype(root_, "activation_dtype");
    plan_.kv_dtype = dtype(root_, "kv_dtype");
    plan_.logits = choice(root_, "logits", kLogits);
    limits_ = table("limits", kMaxPlanRequests);
    microbatches_ = table("microbatches", kMaxPlanRequests);
    devices_ = table("devices", kMaxPlanDevices);
    groups_ = table("groups", kMaxPlanGroups);
    layouts_ = table("layouts", kMaxPlanLayouts);
    values_ = table("values", kMaxPlanValues);
    nodes_ = table("nodes", kMaxPlanNodes);
    read_rows(limits_, plan_.limits, &PlanReader::read_lengths);
    read_microbatches();
    read_rows(devices_, plan_.devices, &PlanReader::read_device);
    read_rows(groups_, plan_.groups, &PlanReader::read_group);
    read_rows(layouts_, plan_.layouts, &PlanReader::read_layout);
    read_rows(values_, plan_.values, &PlanReader::read_value);
    read_rows(nodes_, plan_.nodes, &PlanReader::read_node);
    root_.refuse_unknown_keys();
    return std::move(plan_);
  }

  [[nodiscard]] const std::vector<std::string>& problems() const { return problems_; }

 private:
  [[nodiscard]] bool enough() const { return problems_.size() >= kEnoughProblems; }

  void read_format() {
    if (const std::string format = root_.string("format"); format != kPlanFormat) {
      root_.problem("format",
                    fmt::format("found {}, allowed \"{}\"", shown(json(format)), kPlanFormat));
    }
    (void)root_.integer("version", {.min = kPlanFormatVersion, .max = kPlanFormatVersion});
  }

  void read_model() {
    ObjectReader reader = root_.object("model");
    const std::string name = reader.string("name");
    if (const json& config = reader.raw("config"); config.is_object()) {
      if (Result<ModelSpec> model = model_from_config(config, name)) {
        plan_.model = *std::move(model);
        num_layers_ = plan_.model.num_layers;
      } else {
        problems_.push_back("model." + model.error().message);
      }
    } else {
      reader.problem("config", fmt::format("found {}, allowed an object", shown(config)));
    }
    reader.refuse_unknown_keys();
  }

  // The array under a top-level key; an empty one where there is none or it is too long.
  Table table(std::string_view key, std::size_t most) {
    static const json empty = json::array();
    const json& value = root_.raw(key);
    if (!value.is_array()) {
      root_.problem(key, fmt::format("found {}, allowed an array", shown(value)));
      return {.key = key, .rows = &empty};
    }
    if (value.size() > most) {
      root_.problem(key, fmt::format("found {} rows, allowed at most {}", value.size(), most));
      return {.key = key, .rows = &empty};
    }
    return {.key = key, .rows = &value};
  }

  template <class Row>
  void read_rows(const Table& table, std::vector<Row>& rows,
                 Row (PlanReader::*read_row)(ObjectReader&)) {
    rows.reserve(table.size());
    for (std::size_t i = 0; i < table.size() && !enough(); ++i) {
      ObjectReader reader((*table.rows)[i], fmt::format("{}[{}]", table.key, i), problems_);
      // Redundant, so that people find their way; a wrong one means that a row is missing.
      const auto place = static_cast<std::int64_t>(i);
      (void)reader.integer("id", {.min = place, .max = place});
      rows.push_back((this->*read_row)(reader));
      reader.refuse_unknown_keys();
    }
  }

  RequestLengths read_lengths(ObjectReader& reader) {
    return {.q_len = reader.integer("q_len", {.min = 0, .max = kMostLength}),
            .kv_len = reader.integer("kv_len", {.min = 0, .max = kMostLength})};
  }

  void read_microbatches() {
    const std::size_t num_requests = limits_.size();
    for (std::size_t i = 0; i < microbatches_.size() && !enough(); ++i) {
      const json& entry = (*microbatches_.rows)[i];
      const bool pair = entry.is_array() && entry.size() == 2;
      const auto begin = pair ? index_in(entry[0], num_requests + 1) : std::nullopt;
      const auto end = pair ? index_in(entry[1], num_requests + 1) : std::nullopt;
      if (begin && end) {
        plan_.microbatches.push_back(
            {.begin = static_cast<std::int64_t>(*begin), .end = static_cast<std::int64_t>(*end)});
      } else {
        problems_.push_back(
            fmt::format("microbatches[{}]: found {}, allowed [begin, end] with "
                        "both in 0..{}",
                        i, shown_list(entry), num_requests));
      }
    }
  }

  PlanDevice read_device(ObjectReader& reader) {
    return {.name = reader.string("name"),
            .memory_bytes = reader.optional_integer("memory_bytes", {.min = 0}),
            .compute = ids<NodeId>(reader, "compute", nodes_.size(), kMaxPlanNodes),
            .comm = ids<NodeId>(reader, "comm", nodes_.size(), kMaxPlanNodes)};
  }

  std::vector<DeviceId> read_group(ObjectReader& reader) {
    return ids<DeviceId>(reader, "devices", devices_.size(), kMaxPlanDevices);
  }

  Layout read_layout(ObjectReader& reader) {
    Layout layout = {.kind = choice(reader, "kind", kLayoutKinds), .pieces = {}};
    const json& pieces = reader.raw("pieces");
    if (!pieces.is_array() || pieces.size() > kMaxPlanPieces) {
      reader.problem("pieces", fmt::format("found {}, allowed an array of at most {} objects",
                                           shown(pieces), kMaxPlanPieces));
      return layout;
    }
    layout.pieces.reserve(pieces.size());
    for (std::size_t i = 0; i < pieces.size() && !enough(); ++i) {
      ObjectReader piece(pieces[i], fmt::format("{}.pieces[{}]", reader.path(), i), problems_);
      layout.pieces.push_back(read_piece(piece));
      piece.refuse_unknown_keys();
    }
    return layout;
  }

  Piece read_piece(ObjectReader& reader) {
    Piece piece = {.device = id<DeviceId>(reader, "device", devices_.size()),
                   .box = read_box(reader),
                   .over = {}};
    if (reader.has("over")) {
      ObjectReader over = reader.object("over");
      piece.over = read_box(over);
      over.refuse_unknown_keys();
    }
    return piece;
  }

  Box read_box(ObjectReader& reader) {
    return {.request = read_range(reader, Axis::request),
            .token = read_range(reader, Axis::token),
            .head = read_range(reader, Axis::head),
            .dim = read_range(reader, Axis::dim)};
  }

  Range read_range(ObjectReader& reader, Axis axis) {
    const json& value = reader.raw(to_string(axis));
    if (value.is_null()) return Range::all();
    if (value.is_array() && value.size() == 2) {
      const auto begin = bound_of(value[0]);
      const auto end = bound_of(value[1]);
      if (begin && end) return {.begin = *begin, .end = *end};
    }
    reader.problem(to_string(axis),
                   fmt::format("found {}, allowed [begin, end], each an integer, \"end\", "
                               "\"end-1\", \"3/8\" or \"3/8+1\"",
                               shown_list(value)));
    return Range::all();
  }

  static std::optional<Bound> bound_of(const json& value) {
    if (value.is_string()) return parse_bound(value.get_ref<const std::string&>());
    if (!value.is_number_integer()) return std::nullopt;
    const auto number = value.get<std::int64_t>();
    const bool fits = number >= std::numeric_limits<std::int32_t>::min() &&
                      number <= std::numeric_limits<std::int32_t>::max();
    return fits ? std::optional(Bound::at(number)) : std::nullopt;
  }

  Value read_value(ObjectReader& reader) {
    return {.role = role(reader),
            .layer = layer(reader),
            .microbatch = microbatch(reader),
            .layout = id<LayoutId>(reader, "layout", layouts_.size()),
            .dtype = dtype(reader, "dtype"),
            .rows = choice(reader, "rows", kRows)};
  }

  Node read_node(ObjectReader& reader) {
    return {.kind = op_kind(reader),
            .layer = layer(reader),
            .microbatch = microbatch(reader),
            .devices = id<GroupId>(reader, "devices", groups_.size()),
            .inputs = ids<ValueId>(reader, "inputs", values_.size(), kMaxNodeValues),
            .outputs = ids<ValueId>(reader, "outputs", values_.size(), kMaxNodeValues)};
  }

  static Role role(ObjectReader& reader) {
    static const std::vector<std::string_view> names = role_names();
    return *parse_role(names[reader.choice("role", names)]);
  }

  static OpKind op_kind(ObjectReader& reader) {
    static const std::vector<std::string_view> names = op_kind_names();
    return *parse_op_kind(names[reader.choice("kind", names)]);
  }

  std::int32_t layer(ObjectReader& reader) const {
    return static_cast<std::int32_t>(reader.integer("layer", {.min = -1, .max = num_layers_ - 1}));
  }

  std::int32_t microbatch(ObjectReader& reader) {
    return static_cast<std::int32_t>(row(reader, "microbatch", microbatches_.size()));
  }

  template <class Enum, std::size_t n>
  static Enum choice(ObjectReader& reader, std::string_view key, const std::array<Enum, n>& all) {
    std::array<std::string_view, n> names;
    std::ranges::transform(all, names.begin(), [](Enum value) { return to_string(value); });
    return all[reader.choice(key, names)];
  }
  static DType dtype(ObjectReader& reader, std::string_view key) {
    return choice(reader, key, kDTypes);
  }

  // A row of a table with `size` rows; 0 with a problem where it is none.
  std::uint32_t row(ObjectReader& reader, std::string_view key, std::size_t size) {
    const json& value = reader.raw(key);
    if (const auto found = index_in(value, size)) return *found;
    reader.problem(key, fmt::format("found {}, allowed {}", shown(value), rows_allowed(size)));
    return 0;
  }
  template <class Id>
  Id id(ObjectReader& reader, std::string_view key, std::size_t size) {
    return static_cast<Id>(row(reader, key, size));
  }
  template <class Id>
  std::vector<Id> ids(ObjectReader& reader, std::string_view key, std::size_t size,
                      std::size_t most) {
    const json& value = reader.raw(key);
    std::vector<Id> found;
    if (!value.is_array() || value.size() > most) {
      reader.problem(
          key, fmt::format("found {}, allowed an array of at most {} ids", shown(value), most));
      return found;
    }
    found.reserve(value.size());
    for (std::size_t i = 0; i < value.size() && !enough(); ++i) {
      if (const auto index = index_in(value[i], size)) {
        found.push_back(static_cast<Id>(*index));
      } else {
        reader.problem(fmt::format("{}[{}]", key, i),
                       fmt::format("found {}, allowed {}", shown(value[i]), rows_allowed(size)));
      }
    }
    return found;
  }

  static std::optional<std::uint32_t> index_in(const json& value, std::size_t size) {
    if (!value.is_number_integer()) return std::nullopt;
    const auto number = value.get<std::int64_t>();
    if (number < 0 || number >= static_cast<std::int64_t>(size)) return std::nullopt;
    return static_cast<std::uint32_t>(number);
  }
  static std::string rows_allowed(std::size_t size) {
    return size == 0 ? "nothing, as there are none" : fmt::format("an integer in 0..{}", size - 1);
  }
  // Short lists are shown with their members.
  static std::string shown_list(const json& value) {
    if (!value.is_array() || value.size() > 4) return shown(value);
    std::string text;
    for (const json& item : value) text += (text.empty() ? "" : ", ") + shown(item);
    return fmt::format("[{}]", text);
  }

  std::vector<std::string> problems_;
  ObjectReader root_;
  Plan plan_;
  std::int64_t num_layers_ = kMaxModelLayers;
  Table limits_, microbatches_, devices_, groups_, layouts_, values_, nodes_;
};

}  // namespace

Result<Plan> plan_from_json(const json& document, std::string_view source) {
  PlanReader reader(document);
  Plan plan = reader.read();
  if (!reader.problems().empty())
    return invalid_input(fmt::format("{}: {}", source, join_problems(reader.problems())));
  return plan;
}

}  // namespace weir
