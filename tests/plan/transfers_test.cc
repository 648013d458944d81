#include "plan/transfers.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include <gtest/gtest.h>

#include "base/random.h"
#include "layout/redistribute.h"
#include "tests/plan/broken_plans.h"
#include "tests/plan/tensor_pipeline_plans.h"

namespace weir {
namespace {

// One node that moves one value, on as many devices as asked for.
Plan movement(OpKind kind, const Layout& from, const Layout& to, Role role = Role::q) {
  const PlanHeader header = tiny_header(6, 1, 2);
  Plan plan;
  plan.model = header.model;
  plan.activation_dtype = DType::bf16;
  plan.kv_dtype = DType::bf16;
  plan.limits = {{.q_len = 5, .kv_len = 9}, {.q_len = 2, .kv_len = 2}};
  plan.microbatches = {{.begin = 0, .end = 2}};
  plan.devices.resize(6);
  plan.groups = {device_range(0, 6)};
  plan.layouts = {from, to};
  plan.values = {{.role = role, .layer = 0, .layout = LayoutId{0}, .dtype = DType::bf16},
                 {.role = role, .layer = 0, .layout = LayoutId{1}, .dtype = DType::bf16}};
  plan.nodes = {{.kind = kind, .layer = 0, .inputs = {ValueId{0}}, .outputs = {ValueId{1}}}};
  return plan;
}

constexpr NodeId kMovement{0};

// Tokens x heads in cells, each cell on one or two devices.
Layout random_grid(Random& random) {
  Layout layout;
  const std::int64_t token_parts = random.integer(1, 3);
  const std::int64_t head_parts = random.integer(1, 4);
  for (std::int64_t token = 0; token < token_parts; ++token) {
    for (std::int64_t head = 0; head < head_parts; ++head) {
      const Interval heads = even_part(4, head, head_parts);
      const auto device = static_cast<std::uint32_t>(random.integer(0, 5));
      const Box box = {.token = Range::block(token, token_parts),
                       .head = Range::of(heads.begin, heads.end)};
      layout.pieces.push_back({.device = DeviceId{device}, .box = box, .over = {}});
      if (random.integer(0, 2) == 0)
        layout.pieces.push_back({.device = DeviceId{(device + 1) % 6}, .box = box, .over = {}});
    }
  }
  return layout;
}

// Target buffer, request, token, head, dim.
using Element = std::tuple<std::uint32_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t>;

template <class Visit>
void each_element(std::uint32_t target, const ResolvedBox& box, Visit visit) {
  for (std::int64_t token = box.token.begin; token < box.token.end; ++token) {
    for (std::int64_t head = box.head.begin; head < box.head.end; ++head) {
      for (std::int64_t dim = box.dim.begin; dim < box.dim.end; ++dim)
        visit(Element{target, box.request, token, head, dim});
    }
  }
}

bool lies_in(const ResolvedBox& inner, const ResolvedBox& outer) {
  return outer.token.contains(inner.token) && outer.head.contains(inner.head) &&
         outer.dim.contains(inner.dim);
}

// The buffer's box for one request of a value.
ResolvedBox box_of(const Plan& plan, ValueId value, std::uint32_t buffer, std::int64_t request) {
  return resolve(buffers_of(plan.layout_of(value))[buffer].box, shape_of(plan, plan.at(value)),
                 request, plan.limits[static_cast<std::size_t>(request)]);
}

// How often each element of each target is delivered, by source buffer.
std::map<Element, std::multiset<std::uint32_t>> deliveries(const Plan& plan, NodeId id,
                                                           std::uint32_t output = 0) {
  std::map<Element, std::multiset<std::uint32_t>> delivered;
  for (const Transfer& transfer : transfers_of(plan, id, plan.limits)) {
    if (transfer.output != output) continue;
    each_element(transfer.target, transfer.box,
                 [&](const Element& element) { delivered[element].insert(transfer.source); });
  }
  return delivered;
}

// The elements of all target buffers.
std::set<Element> wanted_elements(const Plan& plan, NodeId id) {
  std::set<Element> wanted;
  const ValueId output = plan.at(id).outputs[0];
  const auto count = static_cast<std::uint32_t>(buffers_of(plan.layout_of(output)).size());
  for (std::uint32_t target = 0; target < count; ++target) {
    const Interval requests =
        requests_of(buffers_of(plan.layout_of(output))[target].box, plan.batch_size());
    for (std::int64_t request = requests.begin; request < requests.end; ++request) {
      each_element(target, box_of(plan, output, target, request),
                   [&](const Element& element) { wanted.insert(element); });
    }
  }
  return wanted;
}

TEST(Transfers, CoverEveryElementOfEveryTargetOnce) {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    Random random(seed);
    const Layout from = random_grid(random);
    const Plan plan = movement(OpKind::copy, from, random_grid(random));
    const auto delivered = deliveries(plan, kMovement);
    const std::set<Element> wanted = wanted_elements(plan, kMovement);
    EXPECT_EQ(delivered.size(), wanted.size()) << "seed " << seed;
    for (const auto& [element, sources] : delivered) {
      ASSERT_TRUE(wanted.contains(element)) << "seed " << seed;
      ASSERT_EQ(sources.size(), 1U) << "seed " << seed;
    }
  }
}

TEST(Transfers, GoFromTheBufferThatHasThePartToTheOneThatWantsIt) {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    Random random(seed);
    const Layout from = random_grid(random);
    const Plan plan = movement(OpKind::copy, from, random_grid(random));
    const auto sources = buffers_of(plan.layouts[0]);
    const auto targets = buffers_of(plan.layouts[1]);
    for (const Transfer& t : transfers_of(plan, kMovement, plan.limits)) {
      EXPECT_EQ(sources[t.source].device, t.from);
      EXPECT_EQ(targets[t.target].device, t.to);
      EXPECT_TRUE(lies_in(t.box, box_of(plan, ValueId{0}, t.source, t.box.request)));
      EXPECT_TRUE(lies_in(t.box, box_of(plan, ValueId{1}, t.target, t.box.request)));
      if (t.from == t.to) continue;
      for (std::uint32_t i = 0; i < sources.size(); ++i) {
        const bool was_there =
            sources[i].device == t.to && lies_in(t.box, box_of(plan, ValueId{0}, i, t.box.request));
        EXPECT_FALSE(was_there) << "seed " << seed << ": sent what the receiver holds";
      }
    }
  }
}

TEST(Transfers, BringEveryTermOfAPartialValueOnce) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    Random random(seed);
    Layout partial = {.kind = LayoutKind::softmax, .pieces = {}};
    const std::int64_t parts = random.integer(1, 4);
    for (std::int64_t part = 0; part < parts; ++part) {
      partial.pieces.push_back({.device = DeviceId{static_cast<std::uint32_t>(part)},
                                .box = {},
                                .over = {.token = Range::block(part, parts)}});
    }
    const Plan plan = movement(OpKind::copy, partial, random_grid(random), Role::attention);
    const auto delivered = deliveries(plan, kMovement);
    EXPECT_EQ(delivered.size(), wanted_elements(plan, kMovement).size());
    for (const auto& [element, sources] : delivered) {
      EXPECT_EQ(sources.size(), static_cast<std::size_t>(parts));
      EXPECT_EQ(std::set(sources.begin(), sources.end()).size(), sources.size());
    }
  }
}

// The cache on devices 0 and 1 by heads becomes one in key blocks on devices 1, 2 and 3.
Plan moved_cache() {
  Layout heads;
  for (const std::uint32_t i : {0, 1}) {
    heads.pieces.push_back(
        {.device = DeviceId{i}, .box = {.head = Range::of(i, i + 1)}, .over = {}});
  }
  Layout blocks;
  for (const std::uint32_t i : {0, 1, 2}) {
    blocks.pieces.push_back(
        {.device = DeviceId{i + 1}, .box = {.token = Range::block(i, 3)}, .over = {}});
  }
  Plan plan = movement(OpKind::kv_copy, heads, blocks);
  plan.values.clear();
  for (const Role role : {Role::k, Role::v, Role::k_cache, Role::v_cache})
    plan.values.push_back({.role = role, .layer = 0, .layout = LayoutId{0}, .dtype = DType::bf16});
  for (const Role role : {Role::k_cache, Role::v_cache})
    plan.values.push_back({.role = role, .layer = 0, .layout = LayoutId{1}, .dtype = DType::bf16});
  plan.nodes[0].inputs = {ValueId{0}, ValueId{1}, ValueId{2}, ValueId{3}};
  plan.nodes[0].outputs = {ValueId{4}, ValueId{5}};
  return plan;
}

TEST(Transfers, OfACacheTakeNewPositionsFromKAndVAndEarlierOnesFromTheCacheBefore) {
  const Plan plan = moved_cache();
  for (const std::uint32_t output : {0U, 1U}) {
    const auto delivered = deliveries(plan, kMovement, output);
    EXPECT_EQ(delivered.size(), wanted_elements(plan, kMovement).size());
    for (const auto& [element, sources] : delivered) EXPECT_EQ(sources.size(), 1U);
  }
  for (const Transfer& transfer : transfers_of(plan, kMovement, plan.limits)) {
    const RequestLengths lengths = plan.limits[static_cast<std::size_t>(transfer.box.request)];
    const std::int64_t past = lengths.kv_len - lengths.q_len;
    EXPECT_EQ(transfer.input, transfer.output + (transfer.box.token.begin >= past ? 0 : 2));
    EXPECT_TRUE(transfer.box.token.begin >= past || transfer.box.token.end <= past);
  }
}

TEST(Transfers, OfACacheLeaveWhatADeviceHoldsWhereItIs) {
  // By heads before and after, but on one more device: only the new positions are written.
  Plan plan = moved_cache();
  plan.layouts[1] = plan.layouts[0];
  plan.layouts[1].pieces.push_back(
      {.device = DeviceId{2}, .box = {.head = Range::of(0, 1)}, .over = {}});
  for (const Transfer& transfer : transfers_of(plan, kMovement, plan.limits)) {
    const RequestLengths lengths = plan.limits[static_cast<std::size_t>(transfer.box.request)];
    if (transfer.from == transfer.to)
      EXPECT_GE(transfer.box.token.begin, lengths.kv_len - lengths.q_len);
    else
      EXPECT_EQ(transfer.to, DeviceId{2});
  }
}

// Heads 0..3 by device, and everything on each of the first n devices.
Layout by_head() {
  Layout layout;
  for (const std::uint32_t i : {0, 1, 2, 3}) {
    layout.pieces.push_back(
        {.device = DeviceId{i}, .box = {.head = Range::of(i, i + 1)}, .over = {}});
  }
  return layout;
}

Layout by_token() {
  Layout layout;
  for (const std::uint32_t i : {0, 1, 2, 3}) {
    layout.pieces.push_back(
        {.device = DeviceId{i}, .box = {.token = Range::block(i, 4)}, .over = {}});
  }
  return layout;
}

Layout by_key_block() {
  Layout layout = {.kind = LayoutKind::softmax, .pieces = {}};
  for (const std::uint32_t i : {0, 1, 2, 3}) {
    layout.pieces.push_back(
        {.device = DeviceId{i}, .box = {}, .over = {.token = Range::block(i, 4)}});
  }
  return layout;
}

// 7 tokens of 4 heads of 8, in bf16; an f32 lse per token and head beside partial attention.
constexpr std::int64_t kWhole = 7 * 4 * 8 * 2;
constexpr std::int64_t kWholeWithLse = kWhole + 7 * 4 * 4;

std::int64_t sent(OpKind kind, const Layout& from, const Layout& to, Role role = Role::q) {
  const Plan plan = movement(kind, from, to, role);
  EXPECT_EQ(classify(from, to).kind == Redistribution::copy, kind == OpKind::copy);
  return bytes_sent(plan, kMovement, plan.limits);
}

TEST(Transfers, CollectivesSendWhatTheStandardAlgorithmsDo) {
  const Layout on_four = replicated(device_range(0, 4));
  const Layout on_first = replicated(device_range(0, 1));
  EXPECT_EQ(sent(OpKind::all_gather, by_head(), on_four), 3 * kWhole);
  EXPECT_EQ(sent(OpKind::gather, by_head(), on_first), 3 * kWhole / 4);  // What crosses.
  EXPECT_EQ(sent(OpKind::broadcast, on_first, on_four), 3 * kWhole);
  EXPECT_EQ(sent(OpKind::all_reduce, by_key_block(), on_four, Role::attention),
            2 * 3 * kWholeWithLse);
  EXPECT_EQ(sent(OpKind::reduce_scatter, by_key_block(), by_head(), Role::attention),
            3 * kWholeWithLse);
  EXPECT_EQ(sent(OpKind::reduce, by_key_block(), on_first, Role::attention), 3 * kWholeWithLse);
}

TEST(Transfers, AnAllToAllSendsAllButWhatStays) {
  // Tokens of request 0 in blocks of 2 (2, 2, 1, 0), of request 1 in blocks of 1 (1, 1, 0, 0):
  // every device keeps its own head of its own tokens.
  EXPECT_EQ(sent(OpKind::all_to_all, by_head(), by_token()), kWhole - 7 * 8 * 2);
}

TEST(Transfers, GroupsSideBySideAddUp) {
  // Heads [0, 2) gathered on devices 0 and 1, heads [2, 4) on devices 2 and 3.
  Layout halves;
  for (const std::uint32_t i : {0, 1, 2, 3}) {
    halves.pieces.push_back(
        {.device = DeviceId{i}, .box = {.head = Range::of(i / 2 * 2, i / 2 * 2 + 2)}, .over = {}});
  }
  EXPECT_EQ(sent(OpKind::all_gather, by_head(), halves), 2 * (kWhole / 2));
}

TEST(Transfers, NothingIsSentByComputeAndNothingByShiftingInPlace) {
  const Plan plan = tensor_pipeline_plan({.tp = 2});
  EXPECT_EQ(bytes_sent(plan, node_at(plan, OpKind::attention), plan.limits), 0);
  const Layout both = replicated(device_range(0, 2));
  EXPECT_EQ(bytes_sent(movement(OpKind::slice, both, by_head()), kMovement,
                       movement(OpKind::slice, both, by_head()).limits),
            0);
}

TEST(Transfers, ATensorParallelStepSendsTwoAllReducesPerLayer) {
  const auto sent = [](LogitsWanted logits) {
    const Plan plan =
        tensor_pipeline_plan({.tp = 4, .limits = {{.q_len = 5, .kv_len = 9}}, .logits = logits});
    std::int64_t bytes = 0;
    for (std::uint32_t i = 0; i < plan.nodes.size(); ++i)
      bytes += bytes_sent(plan, NodeId{i}, plan.limits);
    return bytes;
  };
  const std::int64_t row = 32 * 2;
  const std::int64_t all_reduce = 2 * 3 * 5 * row;
  const std::int64_t logits = 96 * 2 * 3 / 4;  // Of a token, to the sampler.
  EXPECT_EQ(sent(LogitsWanted::all),
            (1 + 2 * 2) * all_reduce + 5 * logits);  // And the embedding's.
  EXPECT_EQ(sent(LogitsWanted::last), (1 + 2) * all_reduce + 2 * 2 * 3 * row + logits);
  EXPECT_EQ(sent(LogitsWanted::none), (1 + 2) * all_reduce);
}

TEST(Law5BytesSent, AreBytesReceived) {
  // What copies send is what their targets hold less what was there before.
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    Random random(seed);
    const Layout from = random_grid(random);
    const Plan plan = movement(OpKind::copy, from, random_grid(random));
    std::map<DeviceId, std::int64_t> received;
    for (const Element& element : wanted_elements(plan, kMovement))
      received[buffers_of(plan.layouts[1])[std::get<0>(element)].device] += 2;
    std::int64_t sent_by_all = 0;
    for (const Transfer& transfer : transfers_of(plan, kMovement, plan.limits)) {
      const std::int64_t bytes = bytes_of(plan, plan.at(kMovement), transfer);
      if (transfer.from != transfer.to) sent_by_all += bytes;
      received[transfer.to] -= bytes;
    }
    for (const auto& [device, missing] : received) EXPECT_EQ(missing, 0) << "seed " << seed;
    EXPECT_EQ(bytes_sent(plan, kMovement, plan.limits), sent_by_all) << "seed " << seed;
  }
}

}  // namespace
}  // namespace weir
