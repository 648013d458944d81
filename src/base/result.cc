#include "base/result.h"

#include <algorithm>

namespace weir {

std::string join_problems(const std::vector<std::string>& problems) {
  std::string joined;
  const std::size_t listed = std::min(problems.size(), kMaxListedProblems);
  for (std::size_t i = 0; i < listed; ++i) {
    if (i > 0) joined += "; ";
    joined += problems[i];
  }
  if (problems.size() > listed)
    joined += "; and " + std::to_string(problems.size() - listed) + " more";
  return joined;
}

}  // namespace weir
