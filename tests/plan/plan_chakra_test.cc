#include "plan/plan_chakra.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <utility>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "plan/transfers.h"
#include "plan/work.h"
#include "plans_for_tests.h"
#include "strategy/strategy.h"

namespace weir {
namespace {

// Reads the wire format without the writer's help.
class Wire {
 public:
  explicit Wire(std::string_view bytes) : bytes_(bytes) {}
  [[nodiscard]] bool done() const { return bytes_.empty(); }

  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= std::uint64_t{byte & 0x7FU} << shift;
      if ((byte & 0x80U) == 0) return value;
    }
    ADD_FAILURE() << "a varint of more than 64 bits";
    return 0;
  }
  std::string_view delimited() { return take(varint()); }
  std::string_view take(std::size_t size) {
    if (size > bytes_.size()) {
      ADD_FAILURE() << "a message ends early";
      bytes_ = {};
      return std::string_view("\0", 1);
    }
    const std::string_view taken = bytes_.substr(0, size);
    bytes_.remove_prefix(size);
    return taken;
  }

 private:
  std::string_view bytes_;
};

struct Field {
  std::uint64_t number = 0;
  std::uint64_t value = 0;
  std::string_view text;
};

std::vector<Field> fields_of(std::string_view message) {
  std::vector<Field> fields;
  for (Wire wire(message); !wire.done();) {
    const std::uint64_t key = wire.varint();
    Field field{.number = key >> 3, .value = 0, .text = {}};
    if ((key & 7) == 0) {
      field.value = wire.varint();
    } else {
      EXPECT_EQ(key & 7, 2U) << "a wire type that the schema's fields do not have";
      field.text = wire.delimited();
    }
    fields.push_back(field);
  }
  return fields;
}

struct TraceNode {
  std::uint64_t id = 0;
  std::string name;
  std::uint64_t type = 0;
  std::vector<std::uint64_t> ctrl_deps;
  std::vector<std::uint64_t> data_deps;
  std::map<std::string, std::int64_t> numbers;
  std::map<std::string, std::string> texts;
};
constexpr std::uint64_t kComp = 4;
constexpr std::uint64_t kSend = 5;
constexpr std::uint64_t kRecv = 6;
constexpr std::uint64_t kColl = 7;

std::vector<std::uint64_t> packed(std::string_view text) {
  std::vector<std::uint64_t> values;
  for (Wire wire(text); !wire.done();) values.push_back(wire.varint());
  return values;
}

void add_attribute(std::string_view message, TraceNode& node) {
  // The field of the value says its type: those that readers of schema 0.0.4 look at.
  static const std::map<std::string, std::uint64_t> kFields = {
      {"is_cpu_op", 27}, {"num_ops", 9},       {"tensor_size", 13}, {"comm_type", 9},
      {"comm_size", 9},  {"comm_priority", 7}, {"comm_src", 7},     {"comm_dst", 7},
      {"comm_tag", 7},   {"pg_name", 29}};
  const std::vector<Field> fields = fields_of(message);
  ASSERT_EQ(fields.size(), 2U);
  const std::string name(fields[0].text);
  ASSERT_TRUE(kFields.contains(name)) << name;
  EXPECT_EQ(fields[1].number, kFields.at(name)) << name;
  if (fields[1].number == 29) {
    node.texts[name] = fields[1].text;
  } else {
    node.numbers[name] = static_cast<std::int64_t>(fields[1].value);
  }
}

TraceNode node_of(std::string_view message) {
  TraceNode node;
  for (const Field& field : fields_of(message)) {
    if (field.number == 1) node.id = field.value;
    if (field.number == 2) node.name = field.text;
    if (field.number == 3) node.type = field.value;
    if (field.number == 4) node.ctrl_deps = packed(field.text);
    if (field.number == 5) node.data_deps = packed(field.text);
    if (field.number == 10) add_attribute(field.text, node);
  }
  return node;
}

std::vector<TraceNode> nodes_of(const std::string& trace) {
  Wire wire(trace);
  const std::vector<Field> metadata = fields_of(wire.delimited());
  EXPECT_EQ(metadata[0].number, 1U);
  EXPECT_EQ(metadata[0].text, "0.0.4");
  std::vector<TraceNode> nodes;
  while (!wire.done()) nodes.push_back(node_of(wire.delimited()));
  return nodes;
}

struct Case {
  std::string label;
  ValidPlan plan;
  StepLengths lengths;
};

Case made(const char* name, const OptionValues& options, StepLengths lengths) {
  const auto requests = static_cast<std::int64_t>(lengths.size());
  const ModelSpec model = tiny_model(3);
  const auto named = make_strategy(name, options, model);
  EXPECT_TRUE(named.has_value()) << named.error().message;
  const PlanHeader header = tiny_header(named->strategy->num_devices(), 3, requests);
  const StepShape shape(lengths.size(), {.past_len = 48, .q_len = 16, .max_len = 64});
  auto plan = validate(lower(header, named->strategy->layouts(shape)));
  EXPECT_TRUE(plan.has_value()) << join_problems(plan.error());
  return {.label = named->label, .plan = *std::move(plan), .lengths = std::move(lengths)};
}

std::vector<Case> cases() {
  const StepLengths decode = {{.q_len = 1, .kv_len = 50}, {.q_len = 1, .kv_len = 64}};
  const StepLengths mixed = {{.q_len = 16, .kv_len = 60}, {.q_len = 0, .kv_len = 0}};
  std::vector<Case> all;
  for (const StepLengths& lengths : {decode, mixed}) {
    all.push_back(made("single", {}, lengths));
    all.push_back(made("tp_pp", {{"tp", "3"}, {"pp", "2"}, {"microbatches", "2"}}, lengths));
    all.push_back(made("tp_pp", {{"tp", "3"}, {"sequence_parallel", "8"}}, lengths));
    all.push_back(made("attention_pool",
                       {{"tp", "2"},
                        {"pool", "3"},
                        {"pool_policy", "fixed"},
                        {"threshold", "16"},
                        {"kv_block", "16"}},
                       lengths));
    all.push_back(made("two_level", {{"head_groups", "2"}, {"dim_slices", "2"}}, lengths));
    all.push_back(made("context_parallel", {{"cp", "3"}, {"kv_block", "16"}}, lengths));
    all.push_back(made("context_parallel", {{"cp", "2"}, {"exchange", "all_to_all"}}, lengths));
    all.push_back(made("context_parallel", {{"cp", "2"}, {"exchange", "all_gather"}}, lengths));
  }
  all.push_back(made("attention_pool",
                     {{"tp", "1"},
                      {"pool", "3"},
                      {"pool_policy", "fixed"},
                      {"threshold", "16"},
                      {"kv_block", "16"}},
                     {{.q_len = 1, .kv_len = 50}}));
  return all;
}

std::vector<std::vector<TraceNode>> ranks_of(const Case& made) {
  const ChakraTraces traces(made.plan, made.lengths);
  std::vector<std::vector<TraceNode>> ranks;
  for (std::size_t d = 0; d < made.plan->devices.size(); ++d)
    ranks.push_back(nodes_of(traces.of(static_cast<DeviceId>(d))));
  return ranks;
}

TEST(PlanChakra, NodesComeAfterWhatTheyDependOn) {
  for (const Case& made : cases()) {
    for (const auto& nodes : ranks_of(made)) {
      std::set<std::uint64_t> seen;
      for (const TraceNode& node : nodes) {
        for (const auto* deps : {&node.ctrl_deps, &node.data_deps}) {
          for (const std::uint64_t dep : *deps) EXPECT_TRUE(seen.contains(dep)) << made.label;
        }
        EXPECT_TRUE(seen.insert(node.id).second) << made.label << ": an id twice";
      }
    }
  }
}

TEST(PlanChakra, SendsMatchReceives) {
  using Message = std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t>;
  std::size_t messages = 0;
  for (const Case& made : cases()) {
    std::multiset<Message> sent;
    std::multiset<Message> received;
    const auto ranks = ranks_of(made);
    for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
      for (const TraceNode& node : ranks[rank]) {
        if (node.type != kSend && node.type != kRecv) continue;
        const auto& n = node.numbers;
        const bool sends = node.type == kSend;
        EXPECT_EQ(n.at(sends ? "comm_src" : "comm_dst"), static_cast<std::int64_t>(rank));
        (sends ? sent : received)
            .emplace(n.at("comm_src"), n.at("comm_dst"), n.at("comm_tag"), n.at("comm_size"));
      }
    }
    EXPECT_EQ(sent, received) << made.label;
    EXPECT_EQ(std::set<Message>(sent.begin(), sent.end()).size(), sent.size()) << made.label;
    messages += sent.size();
  }
  EXPECT_GT(messages, 50U);
}

// Bytes of messages, and of collectives as their standard algorithms send them, are the plan's.
TEST(PlanChakra, BytesAreThoseOfThePlan) {
  for (const Case& made : cases()) {
    const Plan& plan = made.plan.plan();
    std::int64_t copied = 0;  // And what has a root, which is in messages too.
    std::int64_t reduced = 0;
    for (std::size_t n = 0; n < plan.nodes.size(); ++n) {
      const OpKind kind = plan.nodes[n].kind;
      const std::int64_t bytes = bytes_sent(plan, static_cast<NodeId>(n), made.lengths);
      if (kind == OpKind::copy || kind == OpKind::kv_copy || kind == OpKind::broadcast ||
          kind == OpKind::gather || kind == OpKind::reduce)
        copied += bytes;
      if (kind == OpKind::all_reduce) reduced += bytes;
    }
    const auto groups = nlohmann::json::parse(ChakraTraces(made.plan, made.lengths).groups_json());
    std::int64_t sent = 0;
    std::map<std::string, std::int64_t> all_reduced;  // By group, once for each of its members.
    for (const auto& nodes : ranks_of(made)) {
      for (const TraceNode& node : nodes) {
        if (node.type == kSend) sent += node.numbers.at("comm_size");
        if (node.type != kColl || node.numbers.at("comm_type") != 0) continue;
        all_reduced[node.texts.at("pg_name")] += node.numbers.at("comm_size");
      }
    }
    EXPECT_EQ(sent, copied) << made.label;
    for (const auto& [name, bytes] : all_reduced) {
      // n members together send 2 (n - 1) buffers.
      const auto n = static_cast<std::int64_t>(groups.at(name).size());
      reduced -= 2 * (n - 1) * bytes / n;
    }
    EXPECT_EQ(reduced, 0) << made.label;
  }
}

TEST(PlanChakra, ComputeNodesHaveTheWorkOfTheirTasks) {
  for (const Case& made : cases()) {
    const Plan& plan = made.plan.plan();
    const auto ranks = ranks_of(made);
    for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
      std::multiset<std::pair<std::int64_t, std::int64_t>> expected;
      for (const NodeId id : plan.devices[rank].compute) {
        const Work work = work_of(plan, plan.at(id), static_cast<DeviceId>(rank), made.lengths);
        if (work.bytes() > 0) expected.emplace(std::max<std::int64_t>(work.flops, 1), work.bytes());
      }
      std::multiset<std::pair<std::int64_t, std::int64_t>> found;
      for (const TraceNode& node : ranks[rank]) {
        const bool copies = node.name.starts_with("copy ") || node.name.starts_with("kv_copy ");
        if (node.type == kComp && !copies && node.name != "idle")
          found.emplace(node.numbers.at("num_ops"), node.numbers.at("tensor_size"));
      }
      EXPECT_EQ(found, expected) << made.label << " rank " << rank;
    }
  }
}

std::vector<std::pair<std::int64_t, std::int64_t>> calls_of(const std::vector<TraceNode>& nodes,
                                                            const std::string& group) {
  std::vector<std::pair<std::int64_t, std::int64_t>> calls;
  for (const TraceNode& node : nodes) {
    if (node.type == kColl && node.texts.at("pg_name") == group)
      calls.emplace_back(node.numbers.at("comm_type"), node.numbers.at("comm_size"));
  }
  return calls;
}

// In the same order with the same sizes: otherwise readers deadlock.
TEST(PlanChakra, MembersOfAGroupAgreeOnItsCollectives) {
  for (const Case& made : cases()) {
    const auto groups = nlohmann::json::parse(ChakraTraces(made.plan, made.lengths).groups_json());
    const auto ranks = ranks_of(made);
    for (const auto& [name, members] : groups.items()) {
      const auto calls = calls_of(ranks[members[0].get<std::size_t>()], name);
      EXPECT_FALSE(calls.empty()) << made.label << " group " << name;
      for (const auto& member : members)
        EXPECT_EQ(calls_of(ranks[member.get<std::size_t>()], name), calls) << made.label;
    }
  }
}

// Those that ASTRA-sim simulates: it throws at a gather or a reduce, and a broadcast takes 1 ns.
TEST(PlanChakra, CollectivesWithARootAreMessages) {
  static const std::set<std::int64_t> kSimulated = {0, 2, 6, 7};
  std::map<std::string, std::size_t> messages;
  for (const Case& made : cases()) {
    for (const auto& nodes : ranks_of(made)) {
      for (const TraceNode& node : nodes) {
        if (node.type == kColl) {
          EXPECT_TRUE(kSimulated.contains(node.numbers.at("comm_type"))) << node.name;
        }
        const std::string op = node.name.substr(0, node.name.find(' '));
        if (op != "broadcast" && op != "gather" && op != "reduce") continue;
        EXPECT_TRUE(node.type == kSend || node.type == kRecv) << made.label << ": " << node.name;
        ++messages[op];
      }
    }
  }
  EXPECT_EQ(messages.size(), 3U);
}

TEST(PlanChakra, ARootWaitsForItsOwnPart) {
  const Case tp = made("tp_pp", {{"tp", "3"}}, {{.q_len = 1, .kv_len = 9}});
  const auto nodes = nodes_of(ChakraTraces(tp.plan, tp.lengths).of(DeviceId{0}));
  const auto lm_head =
      std::ranges::find_if(nodes, [](const auto& n) { return n.name.starts_with("lm_head "); });
  ASSERT_NE(lm_head, nodes.end());
  std::size_t received = 0;
  for (const TraceNode& node : nodes) {
    if (!node.name.starts_with("gather ")) continue;
    EXPECT_EQ(node.type, kRecv);
    EXPECT_EQ(node.data_deps, std::vector{lm_head->id});
    ++received;
  }
  EXPECT_EQ(received, 2U);
}

// ASTRA-sim issues no node after one of no bytes, and aborts at a trace of no nodes.
TEST(PlanChakra, EveryRankHasNodesAndAllButAnIdleOnesHaveBytes) {
  std::vector<Case> all = cases();
  // One token for three devices, and a pool that nobody uses.
  all.push_back(made("context_parallel", {{"cp", "3"}}, {{.q_len = 1, .kv_len = 50}}));
  all.push_back(made("attention_pool",
                     {{"pool", "2"}, {"pool_policy", "fixed"}, {"threshold", "4096"}},
                     {{.q_len = 1, .kv_len = 50}}));
  std::size_t idle = 0;
  for (const Case& made : all) {
    for (const auto& nodes : ranks_of(made)) {
      EXPECT_FALSE(nodes.empty()) << made.label;
      for (const TraceNode& node : nodes) {
        if (node.name == "idle") {
          EXPECT_EQ(nodes.size(), 1U) << made.label;
          ++idle;
          continue;
        }
        const char* const size = node.type == kComp ? "tensor_size" : "comm_size";
        EXPECT_GT(node.numbers.at(size), 0) << made.label << ": " << node.name;
      }
    }
  }
  EXPECT_EQ(idle, 2U);
}

TEST(PlanChakra, AnOpWaitsForTheOneBeforeItInItsQueueAndForItsInputs) {
  const Case tp = made("tp_pp", {{"tp", "2"}}, {{.q_len = 1, .kv_len = 9}});
  const auto nodes = nodes_of(ChakraTraces(tp.plan, tp.lengths).of(DeviceId{1}));
  const auto find = [&](const std::string& name) {
    return std::ranges::find(nodes, name, &TraceNode::name);
  };
  const auto o_proj = find("o_proj layer 0 microbatch 0");
  const auto reduce = std::ranges::find_if(nodes, [&](const TraceNode& node) {
    return node.type == kColl && node.data_deps == std::vector{o_proj->id};
  });
  ASSERT_NE(reduce, nodes.end());
  EXPECT_EQ(reduce->name, "all_reduce layer 0 microbatch 0");
  const auto add = find("add layer 0 microbatch 0");
  EXPECT_EQ(add->ctrl_deps, std::vector{o_proj->id});
  EXPECT_TRUE(std::ranges::binary_search(add->data_deps, reduce->id));
  EXPECT_EQ(o_proj->ctrl_deps, o_proj->data_deps);  // Attention, both.
}

TEST(PlanChakra, IsByteIdenticalOnRepeat) {
  for (const Case& made : cases()) {
    const ChakraTraces a(made.plan, made.lengths);
    const ChakraTraces b(made.plan, made.lengths);
    EXPECT_EQ(a.groups_json(), b.groups_json());
    for (std::size_t d = 0; d < made.plan->devices.size(); ++d)
      EXPECT_EQ(a.of(static_cast<DeviceId>(d)), b.of(static_cast<DeviceId>(d)));
  }
}

}  // namespace
}  // namespace weir
