#include "plan/validate.h"

#include <algorithm>

#include "tests/plan/broken_plans.h"
#include "tests/plan/tensor_pipeline_plans.h"

namespace weir {
namespace {

// Two devices that share each of two layers; one request.
Plan valid_plan() { return tensor_pipeline_plan({.tp = 2}); }

// One microbatch per request, the parts of both taken in turns.
Plan interleaved_plan() {
  const TensorPipelineCase choice = {
      .tp = 2, .microbatches = 2, .limits = StepLengths(2, {.q_len = 4, .kv_len = 12})};
  StepLayouts layouts = tensor_pipeline_layouts(choice);
  std::ranges::stable_sort(layouts.order, {},
                           [](const Phase& phase) { return std::pair(phase.layer, phase.part); });
  return lower(tensor_pipeline_header(choice), layouts);
}

TEST(Validate, AcceptsTensorAndPipelineParallelPlans) {
  for (const std::int64_t tp : {1, 2, 3, 4}) {
    for (const std::int64_t pp : {1, 2}) {
      for (const std::int64_t microbatches : {1, 3}) {
        const Plan plan =
            tensor_pipeline_plan({.tp = tp,
                                  .pp = pp,
                                  .microbatches = microbatches,
                                  .limits = StepLengths(3, {.q_len = 4, .kv_len = 12})});
        EXPECT_EQ(problems_in(plan), Problems{}) << plan.strategy << tp << " x " << pp;
      }
    }
  }
}

TEST(Validate, AcceptsPlansWithoutLogitsAndWithAllOfThem) {
  EXPECT_EQ(problems_in(tensor_pipeline_plan({.tp = 2, .logits = LogitsWanted::none})), Problems{});
  EXPECT_EQ(problems_in(tensor_pipeline_plan({.tp = 2, .logits = LogitsWanted::all})), Problems{});
}

TEST(Validate, GivesAnOrderInWhichWritersAndPredecessorsComeFirst) {
  const auto valid = validate(interleaved_plan());
  ASSERT_TRUE(valid);
  const Plan& plan = valid->plan();
  std::vector<std::size_t> place(plan.nodes.size(), plan.nodes.size());
  for (std::size_t i = 0; i < valid->topological_order().size(); ++i)
    place[index_of(valid->topological_order()[i])] = i;
  for (std::size_t i = 0; i < plan.nodes.size(); ++i) {
    EXPECT_LT(place[i], plan.nodes.size());
    for (const ValueId input : plan.nodes[i].inputs) {
      const NodeId producer = valid->producers()[index_of(input)];
      if (index_of(producer) == plan.nodes.size()) continue;  // The cache before the step.
      EXPECT_LT(place[index_of(producer)], place[i]);
    }
  }
  for (const PlanDevice& device : plan.devices) {
    for (const auto* queue : {&device.compute, &device.comm}) {
      EXPECT_TRUE(
          std::ranges::is_sorted(*queue, {}, [&](NodeId id) { return place[index_of(id)]; }));
    }
  }
}

TEST(Validate, RejectsAPlanOfNothing) {
  EXPECT_EQ(problems_in(Plan{}), (Problems{"devices: found none, allowed at least 1",
                                           "microbatches: found none, allowed at least 1"}));
}

TEST(Validate, RejectsAMissingDevice) {
  Plan plan = valid_plan();
  plan.layouts[0].pieces[0].device = DeviceId{7};
  plan.groups[0].back() = DeviceId{9};
  EXPECT_EQ(problems_in(plan), (Problems{"layout 0: device 7 is missing, allowed 0..1",
                                         "group 0: device 9 is missing, allowed 0..1"}));
}

TEST(Validate, RejectsMicrobatchesThatDoNotPartitionTheBatch) {
  const TensorPipelineCase choice = {.microbatches = 2,
                                     .limits = StepLengths(4, {.q_len = 4, .kv_len = 12})};
  Plan plan = tensor_pipeline_plan(choice);
  plan.microbatches[1] = {.begin = 3, .end = 4};
  EXPECT_EQ(problems_in(plan),
            Problems{"microbatch 1: found requests [3, 4), allowed to begin at 2"});
  plan.microbatches[1] = {.begin = 2, .end = 3};
  EXPECT_EQ(problems_in(plan), Problems{"microbatches: cover 3 requests, allowed 4"});
}

TEST(Validate, RejectsLimitsWithMoreNewTokensThanPositions) {
  Plan plan = valid_plan();
  plan.limits[0] = {.q_len = 5, .kv_len = 4};
  EXPECT_EQ(problems_in(plan), Problems{"limits of request 0: found q_len 5 and kv_len 4, allowed "
                                        "0 <= q_len <= kv_len"});
  plan.limits[0] = {.q_len = -1, .kv_len = 4};
  EXPECT_EQ(problems_in(plan), Problems{"limits of request 0: found q_len -1 and kv_len 4, allowed "
                                        "0 <= q_len <= kv_len"});
}

TEST(Validate, RejectsIdsThatAreInNoTableAllAtOnce) {
  Plan plan = valid_plan();
  plan.layouts[1].pieces.clear();
  plan.groups[0] = {DeviceId{1}, DeviceId{0}};
  plan.values[2].layout = LayoutId{99};
  plan.values[3].layer = 2;
  plan.nodes[4].devices = GroupId{99};
  plan.nodes[5].microbatch = 1;
  plan.nodes[6].inputs[0] = ValueId{999};
  EXPECT_EQ(problems_in(plan),
            (Problems{"layout 1: found no pieces", "group 0: devices must ascend, at least 1",
                      "value 2: layout 99 is missing", "value 3: no such layer or microbatch",
                      "node 4: group 99 is missing", "node 5: no such layer or microbatch",
                      "node 6: value 999 is missing"}));
}

TEST(Validate, RejectsABoundOfNoParts) {
  Plan plan = valid_plan();
  plan.layouts[0].pieces[0].box.token.end = {.index = 1, .parts = 0};
  plan.layouts[0].pieces[1].over.dim.begin = {.index = 5, .parts = 4};
  EXPECT_EQ(problems_in(plan),
            (Problems{"layout 0: found a token bound at part 1 of 0, allowed 0..parts",
                      "layout 0: found a dim bound at part 5 of 4, allowed 0..parts"}));
}

TEST(Validate, RejectsAPieceThatIsThereTwice) {
  Plan plan = valid_plan();
  std::vector<Piece>& pieces = plan.layouts[0].pieces;
  pieces.push_back(pieces[1]);
  EXPECT_EQ(problems_in(plan), Problems{"layout 0: piece 2 repeats piece 1"});
}

TEST(Validate, RejectsInputsOfTheWrongRole) {
  Plan plan = valid_plan();
  const NodeId norm = node_at(plan, OpKind::attn_norm);
  const NodeId rope = node_at(plan, OpKind::rope);
  std::swap(at(plan, rope).inputs[0], at(plan, rope).inputs[1]);
  at(plan, norm).inputs.clear();
  EXPECT_EQ(problems_in(plan),
            (Problems{name(plan, norm) + ": its inputs or outputs are not those of the op",
                      name(plan, rope) + ": its inputs or outputs are not those of the op"}));
}

TEST(Validate, RejectsAnUngatedFfnInAGatedModel) {
  Plan plan = valid_plan();
  plan.model.gated_ffn = false;
  Problems expected;
  for (const OpKind kind : {OpKind::ffn_up, OpKind::activation}) {
    for (const std::int32_t layer : {0, 1}) {
      expected.push_back(name(plan, node_at(plan, kind, {.layer = layer})) +
                         ": its inputs or outputs are not those of the op");
    }
  }
  std::swap(expected[1], expected[2]);  // In the order of the nodes.
  EXPECT_EQ(problems_in(plan), expected);
}

TEST(Validate, RejectsAValueOfAnotherMicrobatch) {
  Plan plan = interleaved_plan();
  const NodeId norm = node_at(plan, OpKind::attn_norm);
  const ValueId other =
      at(plan, node_at(plan, OpKind::attn_norm, {.microbatch = 1})).inputs.front();
  at(plan, norm).inputs[0] = other;
  EXPECT_EQ(problems_in(plan), Problems{name(plan, norm) + ": " + name(plan, other) +
                                        " belongs to another microbatch"});
}

TEST(Validate, RejectsAnOutputOfAnotherLayer) {
  Plan plan = valid_plan();
  const NodeId norm = node_at(plan, OpKind::ffn_norm);
  at(plan, norm).layer = 1;
  const ValueId normed = at(plan, norm).outputs[0];
  EXPECT_EQ(problems_in(plan),
            Problems{name(plan, norm) + ": " + name(plan, normed) + " belongs to another layer"});
}

TEST(Validate, RejectsAValueOfAnotherDtype) {
  Plan plan = valid_plan();
  const ValueId normed = at(plan, node_at(plan, OpKind::ffn_norm)).outputs[0];
  at(plan, normed).dtype = DType::f32;
  const ValueId cache = at(plan, node_at(plan, OpKind::kv_append, {.layer = 1})).outputs[0];
  at(plan, cache).dtype = DType::f16;
  EXPECT_EQ(problems_in(plan), (Problems{name(plan, normed) + ": found dtype f32, allowed bf16",
                                         name(plan, cache) + ": found dtype f16, allowed bf16"}));
}

TEST(Validate, RejectsAValueWrittenTwiceAndOneWrittenByNobody) {
  Plan plan = valid_plan();
  const NodeId first = node_at(plan, OpKind::attn_norm);
  const NodeId second = node_at(plan, OpKind::ffn_norm);
  const ValueId twice = at(plan, first).outputs[0];
  const ValueId never = at(plan, second).outputs[0];
  at(plan, second).outputs[0] = twice;
  EXPECT_EQ(problems_in(plan), (Problems{name(plan, twice) + ": written by " + name(plan, first) +
                                             " and again by " + name(plan, second),
                                         name(plan, never) + ": nothing writes it"}));
}

TEST(Validate, RejectsAResidualThatDangles) {
  Plan plan = valid_plan();
  // The second layer starts from the embedding again.
  const ValueId embedded = at(plan, node_at(plan, OpKind::attn_norm)).inputs[0];
  const NodeId last_add = node_at(plan, OpKind::add, {.skip = 1});
  for (const NodeId reader :
       {node_at(plan, OpKind::attn_norm, {.layer = 1}), node_at(plan, OpKind::add, {.layer = 1})}) {
    at(plan, reader).inputs[0] = embedded;
  }
  EXPECT_EQ(problems_in(plan),
            Problems{name(plan, at(plan, last_add).outputs[0]) + ": dangling, nothing reads it"});
}

TEST(Validate, RejectsACacheThatNoOpTouches) {
  Plan plan = valid_plan();
  const ValueId cache = at(plan, node_at(plan, OpKind::kv_append)).inputs[2];
  plan.values.push_back(plan.at(cache));
  const auto extra = static_cast<ValueId>(plan.values.size() - 1);
  EXPECT_EQ(problems_in(plan), Problems{name(plan, extra) + ": dangling, nothing reads it"});
}

TEST(Validate, RejectsTilesThatLeaveAGap) {
  Plan plan = valid_plan();
  const ValueId q = at(plan, node_at(plan, OpKind::qkv_proj)).outputs[0];
  Layout& layout = own_layout(plan, q);
  layout.pieces.pop_back();
  EXPECT_EQ(problems_in(plan),
            Problems{fmt::format("{}, layout {} (whole): gap at request [0, 1) head [2, 4) dim "
                                 "[0, 8)",
                                 name(plan, q), plan.layouts.size() - 1)});
}

TEST(Validate, RejectsTermsThatAreCountedTwice) {
  Plan plan = valid_plan();
  const ValueId branch = at(plan, node_at(plan, OpKind::o_proj)).outputs[0];
  Layout& layout = own_layout(plan, branch);
  layout.pieces[1].over.head = Range::of(1, 4);
  EXPECT_EQ(problems_in(plan),
            Problems{fmt::format("{}, layout {} (sum): 2 pieces overlap at request [0, 1) head "
                                 "[0, 1) dim [0, 32) over request [0, 1) over token [0, 1) over "
                                 "head [1, 2) over dim [0, 8)",
                                 name(plan, branch), plan.layouts.size() - 1)});
}

TEST(Validate, RejectsAPieceOutsideTheTensor) {
  Plan plan = valid_plan();
  const ValueId q = at(plan, node_at(plan, OpKind::qkv_proj)).outputs[0];
  Layout& layout = own_layout(plan, q);
  layout.pieces[1].box.head = Range::of(2, 5);
  EXPECT_EQ(problems_in(plan), Problems{fmt::format("{}, layout {} (whole): piece 1 on device 1 "
                                                    "leaves the tensor: head [2, 5) is not in "
                                                    "[0, 4)",
                                                    name(plan, q), plan.layouts.size() - 1)});
}

TEST(Validate, RejectsPartialsOfWhatIsNoSum) {
  Plan plan = tensor_pipeline_plan({});
  const ValueId normed = at(plan, node_at(plan, OpKind::ffn_norm)).outputs[0];
  Layout& sum = own_layout(plan, normed);
  sum.kind = LayoutKind::sum;
  for (Piece& piece : sum.pieces)
    piece.over = {.request = Range::of(0, 1),
                  .token = Range::of(0, 1),
                  .head = Range::of(0, 1),
                  .dim = Range::of(0, 1)};
  EXPECT_EQ(problems_in(plan),
            Problems{name(plan, normed) + ": a normed cannot be held as sum partials"});
}

TEST(Validate, RejectsANodeThatIsInNoQueueOfAMember) {
  Plan plan = valid_plan();
  const NodeId reduce = node_at(plan, OpKind::all_reduce, {.layer = 1});
  std::erase(plan.devices[1].comm, reduce);
  EXPECT_EQ(problems_in(plan),
            Problems{name(plan, reduce) + ": unmatched, queued on 1 of its 2 devices"});
}

TEST(Validate, RejectsANodeThatIsQueuedTwice) {
  Plan plan = valid_plan();
  const NodeId reduce = node_at(plan, OpKind::all_reduce, {.layer = 1});
  plan.devices[1].comm.push_back(reduce);
  EXPECT_EQ(problems_in(plan), Problems{name(plan, reduce) + ": queued twice on device 1"});
}

TEST(Validate, RejectsANodeOnADeviceThatIsNoMember) {
  Plan plan = tensor_pipeline_plan({.tp = 1, .pp = 2});
  const NodeId norm = node_at(plan, OpKind::attn_norm);
  plan.devices[1].compute.push_back(norm);
  EXPECT_EQ(problems_in(plan),
            Problems{name(plan, norm) + ": queued on device 1, which is no member"});
}

TEST(Validate, RejectsANodeInTheWrongQueue) {
  Plan plan = valid_plan();
  const NodeId norm = node_at(plan, OpKind::ffn_norm);
  std::erase(plan.devices[0].compute, norm);
  plan.devices[0].comm.push_back(norm);
  EXPECT_EQ(problems_in(plan),
            Problems{name(plan, norm) + ": found in the comm queue of device 0"});
}

TEST(Validate, RejectsAQueueWithAMissingNode) {
  Plan plan = valid_plan();
  plan.devices[1].comm.push_back(NodeId{999});
  EXPECT_EQ(problems_in(plan), Problems{"comm queue of device 1: node 999 is missing"});
}

TEST(Validate, RejectsACycleAndNamesItsNodes) {
  Plan plan = tensor_pipeline_plan({});
  // The FFN of layer 0 reads what it adds to the residual.
  const ValueId after_ffn = at(plan, node_at(plan, OpKind::add, {.skip = 1})).outputs[0];
  at(plan, node_at(plan, OpKind::ffn_norm)).inputs[0] = after_ffn;
  EXPECT_EQ(problems_in(plan),
            Problems{"cycle: node 8 (ffn_norm, layer 0, microbatch 0), node 9 (ffn_up, layer 0, "
                     "microbatch 0), node 10 (activation, layer 0, microbatch 0), node 11 "
                     "(ffn_down, layer 0, microbatch 0), node 12 (add, layer 0, microbatch 0) wait "
                     "for each other in a circle"});
}

TEST(Validate, RejectsAQueueThatContradictsItsData) {
  Plan plan = tensor_pipeline_plan({});
  std::swap(plan.devices[0].compute[1], plan.devices[0].compute[2]);
  EXPECT_EQ(problems_in(plan),
            Problems{"cycle: node 1 (attn_norm, layer 0, microbatch 0), node 2 (qkv_proj, layer 0, "
                     "microbatch 0) wait for each other in a circle"});
}

TEST(Validate, NamesTheFirstNodesOfALongCycleAndCountsTheRest) {
  Plan plan = tensor_pipeline_plan({});
  const ValueId last = at(plan, node_at(plan, OpKind::add, {.layer = 1, .skip = 1})).outputs[0];
  at(plan, node_at(plan, OpKind::ffn_norm)).inputs[0] = last;
  Problems names;
  for (std::uint32_t node = 8; node < 20; ++node) names.push_back(name(plan, NodeId{node}));
  EXPECT_EQ(problems_in(plan), Problems{fmt::format("cycle: {}, 5 more wait for each other in a "
                                                    "circle",
                                                    fmt::join(names, ", "))});
}

TEST(Validate, RejectsCollectivesInDifferentOrdersAsADeadlock) {
  Plan plan = interleaved_plan();
  const NodeId first = node_at(plan, OpKind::all_reduce);
  const NodeId second = node_at(plan, OpKind::all_reduce, {.microbatch = 1});
  auto& queue = plan.devices[1].comm;
  std::iter_swap(std::ranges::find(queue, first), std::ranges::find(queue, second));
  EXPECT_EQ(problems_in(plan), Problems{"deadlock: " + name(plan, first) + ", " +
                                        name(plan, second) + " wait for each other in a circle"});
}

TEST(Validate, RejectsAPlanThatDoesNotFitWithItsBytesByCategory) {
  const Plan plan = tensor_pipeline_plan({.model = tiny_model(1), .memory_bytes = 1000});
  const auto valid = validate(tensor_pipeline_plan({.model = tiny_model(1)}));
  ASSERT_TRUE(valid);
  const DeviceMemory memory = valid->memory()[0];
  EXPECT_EQ(problems_in(plan),
            Problems{fmt::format(
                "memory of device 0 (device 0): needs {} bytes (weights {}, kv_cache {}, "
                "activations {}, attention {}, comm_buffers {}), allowed 1000",
                memory.total(), memory.weights, memory.kv_cache, memory.activations,
                memory.attention, memory.comm_buffers)});
  EXPECT_EQ(
      problems_in(tensor_pipeline_plan({.model = tiny_model(1), .memory_bytes = memory.total()})),
      Problems{});
}

TEST(Validate, ReportsEveryProblemOfAKind) {
  Plan plan = valid_plan();
  const NodeId first = node_at(plan, OpKind::all_reduce);
  const NodeId second = node_at(plan, OpKind::attn_norm, {.layer = 1});
  const NodeId third = node_at(plan, OpKind::lm_head, {.layer = 1});
  std::erase(plan.devices[0].comm, first);
  std::erase(plan.devices[0].compute, second);
  plan.devices[1].compute.push_back(third);
  EXPECT_EQ(problems_in(plan),
            (Problems{name(plan, third) + ": queued twice on device 1",
                      name(plan, first) + ": unmatched, queued on 1 of its 2 devices",
                      name(plan, second) + ": unmatched, queued on 1 of its 2 devices"}));
}

TEST(Validate, StopsReportingAWhollyWrongPlanAtAThousandProblems) {
  Plan plan = valid_plan();
  plan.limits.assign(5000, {.q_len = 1, .kv_len = 0});
  EXPECT_EQ(problems_in(plan).size(), 1000U);
}

}  // namespace
}  // namespace weir
