#pragma once
// What is put around the ids of a text when special tokens are wanted: nothing, or a template.

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"

namespace weir {

struct PostProcessor {
  std::vector<std::int64_t> before;
  std::vector<std::int64_t> after;

  // Reads TemplateProcessing (its "single" template, with the text in it exactly once), ByteLevel
  // (which concerns offsets only), Sequences of them, or null. What it cannot read is added to the
  // problems.
  [[nodiscard]] static PostProcessor from_json(const nlohmann::json& value, const std::string& path,
                                               std::vector<std::string>& problems);

  bool operator==(const PostProcessor&) const = default;
};

}  // namespace weir
