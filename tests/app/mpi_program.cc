#include "tests/app/mpi_program.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <thread>

#include <fmt/format.h>

namespace weir {
namespace {

namespace fs = std::filesystem;

// Ranks hand it on to their processes.
constexpr const char* kMark = "WEIR_MPI_RUN_TEST";

std::vector<std::string> environment_of(const fs::path& process) {
  std::vector<std::string> variables;
  std::ifstream file(process / "environ", std::ios::binary);
  for (std::string variable; std::getline(file, variable, '\0');) variables.push_back(variable);
  return variables;
}

int rank_in(const std::vector<std::string>& variables) {
  for (const std::string_view name : {"OMPI_COMM_WORLD_RANK=", "PMI_RANK="}) {
    for (const std::string& variable : variables) {
      if (variable.starts_with(name)) return std::stoi(variable.substr(name.size()));
    }
  }
  return -1;
}

}  // namespace

Arguments mpiexec(const std::string& mark, const Arguments& rest) {
  // More ranks than cores, and root, are what Open MPI refuses unless told; others ignore it.
  Arguments command = {"env",
                       "OMPI_MCA_rmaps_base_oversubscribe=1",
                       "OMPI_ALLOW_RUN_AS_ROOT=1",
                       "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
                       fmt::format("{}={}", kMark, mark),
                       WEIR_MPIEXEC};
  command.insert(command.end(), rest.begin(), rest.end());
  return command;
}

Arguments weir_on(int ranks, const Arguments& arguments) {
  Arguments command = {"-n", std::to_string(ranks), WEIR_BINARY_DIR "/weir"};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return command;
}

ProgramResult run_ranks(int ranks, const Arguments& arguments) {
  return run_program(mpiexec(new_mark(), weir_on(ranks, arguments)));
}

std::string new_mark() {
  static std::atomic<int> runs{0};
  return fmt::format("{}-{}", getpid(), ++runs);
}

std::vector<RankProcess> marked_ranks(const std::string& mark) {
  std::vector<RankProcess> found;
  const std::string wanted = fmt::format("{}={}", kMark, mark);
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator("/proc", ignored)) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    std::string program;
    std::getline(std::ifstream(entry.path() / "comm"), program);
    if (program != "weir") continue;
    const std::vector<std::string> variables = environment_of(entry.path());
    if (std::ranges::find(variables, wanted) == variables.end()) continue;
    found.push_back({.rank = rank_in(variables), .pid = static_cast<pid_t>(std::stol(name))});
  }
  std::ranges::sort(found, {}, &RankProcess::rank);
  return found;
}

std::vector<RankProcess> await_ranks(const std::string& mark, std::size_t count) {
  std::vector<RankProcess> ranks;
  // Launchers have taken more than 10 s to start three ranks on a machine that was compiling.
  constexpr int kAttempts = 12000;
  for (int attempt = 0; attempt < kAttempts && ranks.size() < count; ++attempt) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    ranks = marked_ranks(mark);
  }
  return ranks;
}

std::size_t count_of(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

}  // namespace weir
