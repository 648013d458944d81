#include "claims/bounds.h"

#include <gtest/gtest.h>

#include "claims/assumptions.h"
#include "claims/simulated_setup.h"
#include "spec/cluster.h"
#include "spec/sizes.h"

namespace weir {
namespace {

ModelSpec model() { return *assumed_model("fa-pool-4l", *make_assumptions({}, "test")); }

const DeviceType& a100() {
  static const ClusterSpec cluster = *load_cluster("a100-sxm-80gb");
  return cluster.type_of(DeviceId{0});
}

TEST(LeastTime, OfALoneDecodeStepReadsTheWeightsOnce) {
  const auto least =
      least_time(model(), {.batch_size = 1, .seq_len = 3, .output_len = 2}, a100(), 1);
  ASSERT_TRUE(least);
  const double weights =
      2.0 * (static_cast<double>(count_parameters(model()).total) - 32000.0 * 4096);
  const double cache = 2.0 * 4096 * 2 * 4 * 2;  // Two positions of 4 layers.
  EXPECT_NEAR(least->decode_step, (weights + cache) / 2039e9, 1e-12);
  EXPECT_NE(least->says.find("reading weights and KV cache"), std::string::npos) << least->says;
}

TEST(LeastTime, OfLongPromptsIsArithmeticAtThePeak) {
  const auto least =
      least_time(model(), {.batch_size = 1024, .seq_len = 8192, .output_len = 128}, a100(), 16);
  ASSERT_TRUE(least);
  const double tokens = 1024.0 * (8192 - 128);
  // Three layers, and K and V of the fourth.
  const double linear = 2.0 * 3 * (4.0 * 4096 * 4096 + 3.0 * 4096 * 16384) + 2.0 * 2 * 4096 * 4096;
  EXPECT_GT(least->prefill, tokens * linear / (16 * 312e12));
  EXPECT_LT(least->prefill, 1.2 * tokens * linear / (16 * 312e12));
  EXPECT_DOUBLE_EQ(least->total, least->prefill + 127 * least->decode_step);
}

TEST(LeastTime, HalvesWithTwiceTheDevices) {
  const BatchWork work{.batch_size = 64, .seq_len = 4096, .output_len = 128};
  const auto few = least_time(model(), work, a100(), 8);
  const auto many = least_time(model(), work, a100(), 16);
  ASSERT_TRUE(few && many);
  EXPECT_NEAR(few->total, 2 * many->total, 1e-12);
}

TEST(LeastTime, IsNotKnownWithoutAPeak) {
  DeviceType type = a100();
  type.memory_bandwidth.reset();
  EXPECT_FALSE(least_time(model(), {}, type, 1));
}

TEST(LeastTime, IsBelowWhatIsSimulated) {
  for (const char* batch : {"1", "64"}) {
    for (const std::int64_t length : {512, 8192}) {
      const auto assumptions = *make_assumptions({{"batch_size", batch}}, "test");
      const auto setup = SimulatedSetup::make(
          model(), {.strategy = "tp_pp", .options = {{"tp", "8"}}}, assumptions);
      ASSERT_TRUE(setup);
      RunCache runs;
      const auto run = setup->run(length, runs);
      ASSERT_TRUE(run);
      const auto least = least_time(
          model(), {.batch_size = assumptions.batch_size, .seq_len = length, .output_len = 128},
          a100(), 8);
      ASSERT_TRUE(least);
      EXPECT_LT(least->prefill, (*run)->prefill);
      EXPECT_LT(least->decode_step, (*run)->decode_step);
      EXPECT_LT(least->total, (*run)->total);
    }
  }
}

}  // namespace
}  // namespace weir
