#include "comm/launch.h"

#include <map>
#include <string>

#include <gtest/gtest.h>

namespace weir {
namespace {

std::optional<Launch> launch_in(const std::map<std::string, std::string>& variables) {
  return detect_launch([&](const char* name) {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

TEST(Launch, IsSeenInWhatEachLauncherSets) {
  const auto open_mpi =
      launch_in({{"OMPI_COMM_WORLD_RANK", "1"}, {"OMPI_COMM_WORLD_SIZE", "4"}, {"PMIX_RANK", "1"}});
  ASSERT_TRUE(open_mpi);
  EXPECT_EQ(open_mpi->launcher, "Open MPI");
  EXPECT_EQ(open_mpi->rank, 1U);
  EXPECT_EQ(open_mpi->size, 4U);
  const auto mpich = launch_in({{"PMI_RANK", "0"}, {"PMI_SIZE", "2"}});
  ASSERT_TRUE(mpich);
  EXPECT_EQ(mpich->size, 2U);
  const auto slurm = launch_in({{"PMIX_RANK", "2"}, {"SLURM_STEP_NUM_TASKS", "3"}});
  ASSERT_TRUE(slurm);
  EXPECT_EQ(slurm->launcher, "Slurm");
  EXPECT_EQ(slurm->rank, 2U);
}

TEST(Launch, IsNotSeenInAJobScriptOrInNonsense) {
  EXPECT_FALSE(launch_in({}));
  EXPECT_FALSE(launch_in({{"SLURM_NTASKS", "8"}, {"SLURM_PROCID", "0"}}));
  EXPECT_FALSE(launch_in({{"PMI_RANK", "2"}, {"PMI_SIZE", "2"}}));
  EXPECT_FALSE(launch_in({{"PMI_RANK", "x"}, {"PMI_SIZE", "2"}}));
  EXPECT_FALSE(launch_in({{"PMI_RANK", "-1"}, {"PMI_SIZE", "2"}}));
}

std::optional<std::size_t> separate_tasks_in(const std::map<std::string, std::string>& variables) {
  return detect_separate_tasks([&](const char* name) {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

TEST(Launch, SaysOnceThatTasksOfSrunDoNotKnowOfEachOther) {
  EXPECT_EQ(separate_tasks_in({{"SLURM_PROCID", "0"}, {"SLURM_STEP_NUM_TASKS", "3"}}), 3U);
  EXPECT_FALSE(separate_tasks_in({{"SLURM_PROCID", "1"}, {"SLURM_STEP_NUM_TASKS", "3"}}));
  EXPECT_FALSE(separate_tasks_in({{"SLURM_PROCID", "0"}, {"SLURM_STEP_NUM_TASKS", "1"}}));
  EXPECT_FALSE(separate_tasks_in(
      {{"SLURM_PROCID", "0"}, {"SLURM_STEP_NUM_TASKS", "3"}, {"PMIX_RANK", "0"}}));
  EXPECT_FALSE(separate_tasks_in({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "3"}}));
}

}  // namespace
}  // namespace weir
