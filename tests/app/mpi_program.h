#pragma once
// `weir` started by mpiexec as several ranks, and the processes of such a run.

#include <sys/types.h>

#include <string>
#include <vector>

#include "tests/app/program.h"

namespace weir {

using Arguments = std::vector<std::string>;

// `rest` is what follows mpiexec. `mark` tells the processes of this run from those of others.
[[nodiscard]] Arguments mpiexec(const std::string& mark, const Arguments& rest);
// "-n RANKS weir ARGUMENTS".
[[nodiscard]] Arguments weir_on(int ranks, const Arguments& arguments);
[[nodiscard]] ProgramResult run_ranks(int ranks, const Arguments& arguments);

// A mark that no other run has.
[[nodiscard]] std::string new_mark();
// The weir processes that carry the mark, by rank.
struct RankProcess {
  int rank = -1;
  pid_t pid = 0;
};
[[nodiscard]] std::vector<RankProcess> marked_ranks(const std::string& mark);
// Waits until there are so many; fewer where they do not come.
[[nodiscard]] std::vector<RankProcess> await_ranks(const std::string& mark, std::size_t count);

[[nodiscard]] std::size_t count_of(const std::string& text, const std::string& part);

}  // namespace weir
