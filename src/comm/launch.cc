#include "comm/launch.h"

#include <unistd.h>

#include <array>
#include <charconv>
#include <cstdlib>
#include <string_view>

namespace weir {
namespace {

struct Variables {
  const char* launcher;
  const char* rank;
  const char* size;
};

// In this order: Open MPI's mpirun sets PMIX_RANK too, without SLURM_STEP_NUM_TASKS outside Slurm.
constexpr std::array kLaunchers = {
    Variables{
        .launcher = "Open MPI", .rank = "OMPI_COMM_WORLD_RANK", .size = "OMPI_COMM_WORLD_SIZE"},
    Variables{.launcher = "PMI", .rank = "PMI_RANK", .size = "PMI_SIZE"},
    Variables{.launcher = "Slurm", .rank = "PMIX_RANK", .size = "SLURM_STEP_NUM_TASKS"},
};

std::optional<std::size_t> number_in(const char* text) {
  if (text == nullptr) return std::nullopt;
  const std::string_view digits = text;
  std::size_t number = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (error != std::errc{} || end != digits.data() + digits.size()) return std::nullopt;
  return number;
}

}  // namespace

std::optional<Launch> detect_launch(const Environment& environment) {
  for (const Variables& variables : kLaunchers) {
    const auto rank = number_in(environment(variables.rank));
    const auto size = number_in(environment(variables.size));
    if (rank && size && *rank < *size)
      return Launch{.launcher = variables.launcher, .rank = *rank, .size = *size};
  }
  return std::nullopt;
}

std::optional<std::size_t> detect_separate_tasks(const Environment& environment) {
  if (detect_launch(environment)) return std::nullopt;
  const auto task = number_in(environment("SLURM_PROCID"));
  const auto tasks = number_in(environment("SLURM_STEP_NUM_TASKS"));
  if (!task || !tasks || *task != 0 || *tasks < 2) return std::nullopt;
  return tasks;
}

std::string host_name() {
  std::array<char, 256> name{};
  if (gethostname(name.data(), name.size() - 1) != 0) return "unknown";
  return name.data();
}

std::optional<Launch> detect_launch() {
  return detect_launch([](const char* name) { return std::getenv(name); });
}

std::optional<std::size_t> detect_separate_tasks() {
  return detect_separate_tasks([](const char* name) { return std::getenv(name); });
}

}  // namespace weir
