#include "sim/accuracy.h"

#include <filesystem>
#include <fstream>
#include <string>

#include <gtest/gtest.h>

namespace weir {
namespace {

class AccuracyFolder : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(testing::TempDir()) /
              testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name) << text;
  }
  std::filesystem::path folder_;
};
using Accuracy = AccuracyFolder;

TEST(ErrorSummary, SaysMedianBiasAndRank) {
  const ErrorSummary summary = summarize_errors({1.1, 1.8, 3.3}, {1, 2, 3});
  EXPECT_EQ(summary.count, 3);
  EXPECT_NEAR(summary.median, 0.1, 1e-12);
  EXPECT_NEAR(summary.bias, 0.1, 1e-12);
  EXPECT_NEAR(summary.rank_correlation, 1, 1e-12);
  EXPECT_NEAR(summarize_errors({3, 2, 1}, {1, 2, 3}).rank_correlation, -1, 1e-12);
  EXPECT_EQ(summarize_errors({}, {}).count, 0);
}

TEST_F(Accuracy, HoldsRowsAgainstTheModels) {
  write("aic_gemm_h100.csv",
        "gpu,dtype,m,n,k,time_us,l2_warm\n"
        "H100-SXM,bfloat16,512,12288,4096,64.4,0\n"
        "H100-SXM,fp8,512,12288,4096,40,0\n");
  write("aic_collectives.csv",
        "gpu,impl,op,gpus,bytes,time_us\nH100-SXM,NCCL,all_reduce,8,536870912,2111\n");
  const auto report = measure_accuracy(folder_);
  ASSERT_TRUE(report.has_value()) << report.error().message;
  ASSERT_EQ(report->rows.size(), 2U);
  EXPECT_EQ(report->rows[0].what, "gemm");
  EXPECT_EQ(report->rows[0].model.count, 1);
  EXPECT_LT(report->rows[0].model.median, 0.15);
  EXPECT_GT(report->rows[0].roofline.median, report->rows[0].model.median);
  EXPECT_EQ(report->rows[1].what, "all_reduce");
  EXPECT_EQ(report->skipped, 1);
  EXPECT_FALSE(report->absent.empty());
}

TEST_F(Accuracy, NamesTheFileThatIsNotOfItsFormat) {
  write("aic_gemm_a100.csv", "gpu,m\nA100-SXM\n");
  const auto report = measure_accuracy(folder_);
  ASSERT_FALSE(report.has_value());
  EXPECT_EQ(report.error().message,
            "aic_gemm_a100.csv: row 2: found 1 fields, allowed 2 as in the header");
}

TEST_F(Accuracy, RefusesWhatIsNoFolder) {
  const auto report = measure_accuracy(folder_ / "nothing");
  ASSERT_FALSE(report.has_value());
  EXPECT_NE(report.error().message.find("allowed a folder"), std::string::npos);
}

}  // namespace
}  // namespace weir
