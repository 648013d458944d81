#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "measure/executor_costs.h"

namespace weir {
namespace {

std::vector<LinkObservation> observed(double latency, double rate) {
  std::vector<LinkObservation> observations;
  for (double bytes = 1e3; bytes < 1e8; bytes *= 4) {
    for (const double messages : {1.0, 2.0}) {
      observations.push_back(
          {.messages = messages, .bytes = bytes, .seconds = messages * latency + bytes / rate});
    }
  }
  return observations;
}

TEST(FitLink, FindsTheCostsOfALinkThatHasThem) {
  for (const auto& [latency, rate] : {std::pair{50e-6, 117e6}, std::pair{0.8e-6, 20e9}}) {
    const LinkCosts link = fit_link(observed(latency, rate));
    EXPECT_NEAR(link.latency.value, latency, 0.01 * latency);
    EXPECT_NEAR(link.bandwidth.value, rate, 0.01 * rate);
  }
}

TEST(FitLink, DoesNotMindAFewThatWereDisturbed) {
  std::vector<LinkObservation> observations = observed(50e-6, 117e6);
  observations[0].seconds *= 100;
  observations[7].seconds *= 5;
  const LinkCosts link = fit_link(observations);
  EXPECT_NEAR(link.latency.value, 50e-6, 2.5e-6);
  EXPECT_NEAR(link.bandwidth.value, 117e6, 6e6);
}

TEST(FitLink, TakesTheLeastTimeForTheLatencyOfAPairAlone) {
  const LinkCosts link = fit_link({{1000, 1e-5}, {1000000, 1.01e-3}});
  EXPECT_NEAR(link.latency.value, 1e-5, 1e-9);
  EXPECT_NEAR(link.bandwidth.value, 1e9, 1e6);
  // No message is large enough to tell, so the largest has to.
  EXPECT_NEAR(fit_link({{1000, 1e-5}, {2000, 1.1e-5}}).bandwidth.value, 2000 / 1.1e-5, 1);
}

}  // namespace
}  // namespace weir
