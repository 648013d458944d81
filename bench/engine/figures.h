#pragma once
// Medians with their spread, ceilings, and the document that figures are written to.

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace weir::bench {

inline constexpr double kMicro = 1e6;  // Microseconds in a second.
inline constexpr double kGiga = 1e9;

struct Summary {
  double median = 0;
  double least = 0;
  double most = 0;
};
// At least one value.
[[nodiscard]] Summary summary_of(std::vector<double> values);
// `amount` per each of the times.
[[nodiscard]] Summary rate_of(double amount, const Summary& seconds);
// "12.3 (11.9..12.8)", four digits.
[[nodiscard]] std::string to_string(const Summary& summary);

// What one core and all cores can do, measured now. Noise of other programs can only lower them, so
// the better of a measurement before and one after what they judge counts.
struct Ceilings {
  struct Of {
    double flops_per_s = 0;
    double bytes_per_s = 0;
    double amx_flops_per_s = 0;  // Of bf16; 0 where there are no tiles.
  };
  Of one_core;
  Of all_cores;
};
[[nodiscard]] Result<Ceilings> measure_ceilings();
[[nodiscard]] Ceilings better_of(const Ceilings& a, const Ceilings& b);
[[nodiscard]] std::string to_string(const Ceilings& ceilings);

// The processor, its caches and memory, in one line.
[[nodiscard]] Result<std::string> describe_machine();

// Replaces what lies between the lines "<!-- NAME: begin -->" and "<!-- NAME: end -->" of a text.
// Fails where it does not have both, in this order.
[[nodiscard]] Result<std::string> replace_section(std::string_view text, std::string_view name,
                                                  std::string_view content);

}  // namespace weir::bench
