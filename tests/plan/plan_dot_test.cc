#include "plan/plan_dot.h"

#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "tests/plan/plans_for_tests.h"

namespace weir {
namespace {

std::size_t count_of(std::string_view text, std::string_view part) {
  std::size_t count = 0;
  for (std::size_t at = text.find(part); at != std::string_view::npos;
       at = text.find(part, at + part.size()))
    ++count;
  return count;
}

bool has(std::string_view text, std::string_view part) { return count_of(text, part) > 0; }

Plan deep_plan() {
  const PlanHeader header = tiny_header(4, 32);
  return lower(header, two_stage_layouts(header, device_range(0, 2), device_range(2, 4)));
}

TEST(PlanDot, DrawsEveryOpOfASmallPlanOnce) {
  const Plan plan = tensor_parallel_plan();
  const std::string dot = plan_to_dot(plan);
  for (std::size_t i = 0; i < plan.nodes.size(); ++i)
    EXPECT_EQ(count_of(dot, "tooltip=\"node " + std::to_string(i) + "\""), 1U);
  EXPECT_TRUE(has(dot, "label=\"layer 0\""));
  EXPECT_TRUE(has(dot, "label=\"layer 1\""));
  EXPECT_TRUE(has(dot, "label=\"embedding\""));
  EXPECT_TRUE(has(dot, "label=\"logits\""));
}

TEST(PlanDot, SaysWhichDevicesAndWhichShapes) {
  const std::string dot = plan_to_dot(tensor_parallel_plan());
  EXPECT_TRUE(has(dot, "label=\"attention\\ndevices 0-1\""));
  EXPECT_TRUE(has(dot, "label=\"q\\n[q_len, 2, 8]\""));
  EXPECT_TRUE(has(dot, "label=\"k_cache\\n[kv_len, 1, 8]\""));
  EXPECT_TRUE(has(dot, "label=\"attn_branch (partial sums)\\n[q_len, 32]\""));
  EXPECT_TRUE(has(plan_to_dot(single_device_plan()), "label=\"attention\\ndevice 0\""));
}

TEST(PlanDot, TellsCommunicationFromComputation) {
  const std::string dot = plan_to_dot(tensor_parallel_plan());
  EXPECT_EQ(count_of(dot, "shape=ellipse"), 5U);  // Two all-reduces per layer and the gather.
  EXPECT_EQ(count_of(plan_to_dot(single_device_plan()), "shape=ellipse"), 0U);
}

TEST(PlanDot, ShowsTheResidualAndTheEnds) {
  const std::string dot = plan_to_dot(tensor_parallel_plan());
  // Into each norm and each addition, and to the logits.
  EXPECT_EQ(count_of(dot, "penwidth=2.6"), 2U * 4U + 1U);
  EXPECT_TRUE(has(dot, "token ids"));
  EXPECT_EQ(count_of(dot, "\"K cache\""), 2U);
  EXPECT_EQ(count_of(dot, "\"V cache\""), 2U);
  EXPECT_TRUE(has(dot, "label=\"sampler\""));
}

TEST(PlanDot, DeepPlansShowTheFirstTwoLayersAndTheLast) {
  const std::string dot = plan_to_dot(deep_plan());
  EXPECT_TRUE(has(dot, "label=\"layer 1\""));
  EXPECT_FALSE(has(dot, "label=\"layer 2\""));
  EXPECT_TRUE(has(dot, "label=\"layers 2-30\\n...\""));
  EXPECT_TRUE(has(dot, "label=\"layer 31\""));
  EXPECT_EQ(count_of(dot, "-> gap_0_2 "), 1U);
  // The residual goes on to the norm and to the addition.
  EXPECT_EQ(count_of(dot, "gap_0_2 -> "), 2U);
}

TEST(PlanDot, DrawsTheLayersThatAreAskedFor) {
  const std::string dot = plan_to_dot(deep_plan(), {.layers = {{16, 99}}});
  EXPECT_FALSE(has(dot, "label=\"layer 0\""));
  EXPECT_TRUE(has(dot, "label=\"layer 16\""));
  EXPECT_TRUE(has(dot, "label=\"layers 0-15\\n...\""));
  EXPECT_TRUE(has(dot, "label=\"layers 17-31\\n...\""));
}

TEST(PlanDot, DrawsWhatOneDeviceDoes) {
  const Plan plan = two_stage_plan();
  const std::string dot = plan_to_dot(plan, {.device = DeviceId{3}, .legend = false});
  EXPECT_EQ(count_of(dot, "tooltip=\"node "),
            plan.devices[3].compute.size() + plan.devices[3].comm.size());
  EXPECT_FALSE(has(dot, "devices 0-1"));
  EXPECT_FALSE(has(dot, "legend"));
}

TEST(PlanDot, ColoursOpsByTheirDevices) {
  const std::string dot = plan_to_dot(two_stage_plan());
  EXPECT_TRUE(has(dot,
                  "label=\"attention\\ndevices 0-1\", tooltip=\"node 5\", shape=box, "
                  "style=\"filled,rounded\", fillcolor=\"#ffd8a8\", color=\"#37517e\""));
  EXPECT_TRUE(has(dot, "label=\"attention\\ndevices 2-3\""));
  EXPECT_TRUE(has(dot, "color=\"#b3541e\""));
}

TEST(PlanDot, EscapesNames) {
  Plan plan = single_device_plan();
  plan.strategy = "a \"b\" \\N &lt; \n c";
  EXPECT_TRUE(has(plan_to_dot(plan), "tiny\\na \\\"b\\\" \\\\N &amp;lt;   c\""));
}

TEST(PlanDot, BrokenPlansCanBeLookedAt) {
  Plan plan = single_device_plan();
  plan.nodes[0].outputs.clear();  // Nothing writes the residual now.
  EXPECT_TRUE(has(plan_to_dot(plan), "residual: never written"));
}

TEST(PlanDot, DevicesAreWrittenAsRanges) {
  const auto text = [](const std::vector<std::uint32_t>& numbers) {
    std::vector<DeviceId> devices;
    for (const std::uint32_t number : numbers) devices.push_back(DeviceId{number});
    return to_string(devices);
  };
  EXPECT_EQ(text({}), "");
  EXPECT_EQ(text({3}), "3");
  EXPECT_EQ(text({0, 1, 2, 3}), "0-3");
  EXPECT_EQ(text({0, 1, 4, 7, 8}), "0-1,4,7-8");
}

}  // namespace
}  // namespace weir
