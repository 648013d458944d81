#pragma once
// What a command does that a launcher may start as several ranks: rank 0 leads and talks to the
// user, the others do what it says. By itself, a process leads nobody.

#include <functional>

#include "app/command.h"
#include "base/result.h"
#include "comm/ranks.h"

namespace weir {

struct RankRoles {
  std::function<Result<ExitCode>(Ranks* ranks)> lead;  // nullptr where there is one process only.
  std::function<Result<ExitCode>(Ranks& ranks)> obey;
};

// Memory that runs out on any rank, and other exceptions, end the run on all of them.
[[nodiscard]] Result<ExitCode> take_role(const RankRoles& roles);

// What is wrong with this process's command line, before the command has begun. Other ranks may
// find nothing wrong with theirs, and wait: so ranks come together even for this. What rank 0 finds
// it says itself, what another one finds it says of that.
[[nodiscard]] Result<ExitCode> refuse(const Error& error);

// On rank 0, where others may wait in the middle of an exchange, so that none of them can come to
// an orderly end: says the error and ends all.
[[noreturn]] void end_all(Ranks& ranks, const Error& error);
// On another rank, of which rank 0 does not know yet that it has failed.
[[noreturn]] void give_up(Ranks& ranks, const Error& error);
// On another rank, after rank 0 has been told of a failure and is about to say so and to end all.
[[noreturn]] void await_end(Ranks& ranks, const Error& error);

}  // namespace weir
