#include <vector>

#include <gtest/gtest.h>

#include "measure/executor_costs.h"

namespace weir {
namespace {

TEST(FitLink, TakesTheLeastTimeForTheLatency) {
  const LinkCosts link = fit_link({.messages = {{1000, 10}, {1000000, 1010}}, .exchanges = {}});
  EXPECT_NEAR(link.latency.value, 1e-5, 1e-9);
  EXPECT_NEAR(link.bandwidth.value, 1e9, 1e6);
}

// The middle of what large messages come to, as ratios.
TEST(FitLink, MeansTheRatesOfLargeMessages) {
  const LinkCosts link = fit_link(
      {.messages = {{1000, 10}, {2000, 11}, {1000000, 1010}, {4000000, 16010}}, .exchanges = {}});
  EXPECT_NEAR(link.bandwidth.value, 0.5e9, 1e6);
}

// No message is large enough to tell, so the largest has to.
TEST(FitLink, HasARateWhereAllTakeAsLong) {
  const LinkCosts link = fit_link({.messages = {{1000, 10}, {2000, 11}}, .exchanges = {}});
  EXPECT_NEAR(link.bandwidth.value, 2000 / 1.1e-5, 1);
}

TEST(FitLink, LooksAtExchangesWhereNoMessageWasMeasured) {
  const MeasuredTransfers exchanges{
      .messages = {}, .exchanges = {{.members = 2, .times = {{1000, 20}, {1000000, 2020}}}}};
  EXPECT_NEAR(fit_link(exchanges).latency.value, 2e-5, 1e-9);
  EXPECT_NEAR(fit_link(exchanges).bandwidth.value, 0.5e9, 1e6);
}

}  // namespace
}  // namespace weir
