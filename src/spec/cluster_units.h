#pragma once
// Factors from the units in a cluster file's keys to those of ClusterSpec.

namespace weir {

inline constexpr double kKib = 0x1p10;
inline constexpr double kMib = 0x1p20;
inline constexpr double kGib = 0x1p30;
inline constexpr double kGigabytesPerSecond = 1e9;
inline constexpr double kTeraflops = 1e12;
inline constexpr double kMicrosecondsPerSecond = 1e6;

}  // namespace weir
