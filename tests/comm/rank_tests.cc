#include "tests/comm/rank_tests.h"

#include <unistd.h>

#include <cstdio>
#include <memory>
#include <optional>
#include <utility>

#include <gtest/gtest.h>

#include "base/check.h"

namespace weir {
namespace {

std::unique_ptr<Ranks>& joined() {
  static std::unique_ptr<Ranks> ranks;
  return ranks;
}

int run_tests() {
  const auto launch = detect_launch();
  if (!launch) {
    std::puts("to be started by mpiexec");
    return 1;
  }
  auto ranks = join_ranks(*launch, [](const std::optional<Error>& error) {
    if (error) std::puts(error->message.c_str());
    std::fflush(stdout);
    _exit(1);
  });
  if (!ranks) {
    std::puts(ranks.error().message.c_str());
    return 1;
  }
  joined() = *std::move(ranks);
  const int failed = RUN_ALL_TESTS();
  // The others may wait for what this rank has not sent.
  if (failed != 0) joined()->abort(failed);
  joined().reset();
  return 0;
}

}  // namespace

Ranks& test_ranks() {
  CHECK(joined() != nullptr, "main has joined the ranks");
  return *joined();
}

}  // namespace weir

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  return weir::run_tests();
}
