#pragma once
// Comparisons with other engines, whose programs are given.

#include <string>
#include <vector>

#include "base/result.h"
#include "bench/engine/sections.h"

namespace weir::bench {

inline constexpr int kPeerRounds = 5;

// Tokens per second that llama-bench says of one run of `test` on two threads.
[[nodiscard]] Result<double> llama_rate(const std::string& program, const std::string& gguf,
                                        bool flash_attention, const std::vector<std::string>& test);

// Tables of attention alone.
[[nodiscard]] Result<std::string> compare_with_flash_attention(const std::string& llama_bench,
                                                               const SectionOptions& options);
[[nodiscard]] Result<std::string> compare_with_torch(const std::string& python,
                                                     const SectionOptions& options);

}  // namespace weir::bench
