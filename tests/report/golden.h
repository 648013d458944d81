#pragma once
// Exact expected texts, kept in tests/report/golden. With WEIR_REWRITE_GOLDENS=1 in the environment
// they are written instead of compared; the difference is then for review.

#include <cstdlib>
#include <fstream>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "base/json.h"

namespace weir {

inline void expect_golden(std::string_view name, const std::string& text) {
  const std::string path =
      std::string(WEIR_SOURCE_DIR).append("/tests/report/golden/").append(name);
  const char* rewrite = std::getenv("WEIR_REWRITE_GOLDENS");
  if (rewrite != nullptr && std::string_view(rewrite) == "1") {
    std::ofstream(path, std::ios::binary) << text;
    return;
  }
  const Result<std::string> expected = read_text_file(path);
  ASSERT_TRUE(expected) << expected.error().message;
  EXPECT_EQ(text, *expected) << "If this is meant: WEIR_REWRITE_GOLDENS=1 rewrites " << path;
}

}  // namespace weir
