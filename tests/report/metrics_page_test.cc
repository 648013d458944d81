#include "report/metrics_page.h"

#include <gtest/gtest.h>

#include "tests/report/golden.h"
#include "tests/result/sample_timeline.h"

namespace weir {
namespace {

bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

TEST(MetricsPage, IsAsKept) {
  expect_golden("metrics_page.txt", report_metrics(compute_metrics(sample_timeline())));
}

TEST(MetricsPage, ListsOnlySoManyDevices) {
  Timeline timeline = sample_timeline();
  timeline.devices.resize(20, "spare");
  const std::string page = report_metrics(compute_metrics(timeline), {.max_devices = 1});
  EXPECT_TRUE(contains(page, "  gpu0  ")) << page;
  EXPECT_FALSE(contains(page, "gpu1")) << page;
  EXPECT_TRUE(contains(page, "  and 19 more, utilised 0.0% to 42.0%\n")) << page;
}

TEST(MetricsPage, OfAStepByItselfSaysNothingOfRequests) {
  Timeline timeline = sample_timeline();
  timeline.requests.clear();
  const std::string page = report_metrics(compute_metrics(timeline), {.max_devices = 0});
  EXPECT_EQ(page.rfind("step  ", 0), 0U) << page;
  EXPECT_FALSE(contains(page, "ttft")) << page;
  EXPECT_FALSE(contains(page, "gpu0")) << page;
  EXPECT_TRUE(contains(page, "  2 devices, utilised 35.0% to 42.0%")) << page;
}

TEST(MetricsPage, LeavesOutWhatIsNotKnown) {
  EXPECT_EQ(report_metrics({}),
            "run   0 s on 0 devices: 0 requests, 0 tokens in, 0 out\n"
            "ttft  -\n"
            "tpot  -\n"
            "itl   -\n"
            "tps   -\n");
}

}  // namespace
}  // namespace weir
