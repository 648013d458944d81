#pragma once
// Tests that run on several ranks at once: every rank runs the same tests in the same order, and
// what a test asks of the others it asks of the same test there. rank_tests.cc is their main.

#include "comm/ranks.h"

namespace weir {

[[nodiscard]] Ranks& test_ranks();

}  // namespace weir
