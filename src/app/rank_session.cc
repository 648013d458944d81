#include "app/rank_session.h"

#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <exception>
#include <new>
#include <optional>
#include <string>
#include <thread>

#include <fmt/format.h>

#include "app/output.h"
#include "app/rank_setup.h"
#include "comm/launch.h"

namespace weir {
namespace {

// How long rank 0 has for ending a run before the rank that has failed does.
constexpr std::chrono::seconds kLastWords{3};

void end_process(const std::optional<Error>& error) {
  if (error) (void)print_error(*error);
  _exit(static_cast<int>(ExitCode::run_failed));
}

// GCC 12 does not take a virtual function's word that it never returns.
[[noreturn]] void end_for(Ranks& ranks, const std::string& cause) {
  ranks.give_up(cause);
  std::abort();
}

Result<ExitCode> play(Ranks& ranks, const RankRoles& roles) {
  try {
    return ranks.rank() == 0 ? roles.lead(&ranks) : roles.obey(ranks);
  } catch (const std::bad_alloc&) {
    end_for(ranks, "out of memory");
  } catch (const std::exception& error) {
    end_for(ranks, error.what());
  }
}

}  // namespace

Result<ExitCode> take_role(const RankRoles& roles) {
  const auto launch = detect_launch();
  if (const auto tasks = detect_separate_tasks()) {
    print_note(
        fmt::format("srun has started {} tasks, each of them a run by itself (--mpi=pmix or "
                    "--mpi=pmi2 makes them ranks of one)",
                    *tasks));
  }
  if (!launch || launch->size == 1) return roles.lead(nullptr);
  const auto ranks = join_ranks(*launch, end_process);
  // All fail together. Rank 0 says why, and a launcher that sees another one fail first ends it.
  if (!ranks && launch->rank != 0) return ExitCode::success;
  if (!ranks) return tl::unexpected(ranks.error());
  return play(**ranks, roles);
}

Result<ExitCode> refuse(const Error& error) {
  return take_role({.lead = [&](Ranks* ranks) -> Result<ExitCode> {
                      if (ranks != nullptr)
                        (void)RankLeader(*ranks).gather(tl::unexpected(error), {});
                      return tl::unexpected(error);
                    },
                    .obey = [&](Ranks& ranks) -> Result<ExitCode> {
                      (void)await_go(ranks, tl::unexpected(error), {});
                      return ExitCode::success;
                    }});
}

void end_all(Ranks& ranks, const Error& error) {
  ranks.abort(static_cast<int>(print_error(error)));
  std::abort();
}

void give_up(Ranks& ranks, const Error& error) { end_for(ranks, error.message); }

void await_end(Ranks& ranks, const Error& error) {
  std::this_thread::sleep_for(kLastWords);
  end_for(ranks, error.message);
}

}  // namespace weir
