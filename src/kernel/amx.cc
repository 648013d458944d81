#include "kernel/amx.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>

namespace weir::kernel {
namespace {

// Whether the operating system keeps the registers of tiles (XCR0, bits 17 and 18).
bool registers_are_kept() {
  unsigned low = 0;
  unsigned high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  constexpr unsigned kTileConfigAndData = 3U << 17U;
  return (low & kTileConfigAndData) == kTileConfigAndData;
}

bool detect() {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  constexpr unsigned kOsXsave = 1U << 27U;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0 || (ecx & kOsXsave) == 0) return false;
  constexpr unsigned kBf16AndTile = (1U << 22U) | (1U << 24U);
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0 ||
      (edx & kBf16AndTile) != kBf16AndTile || !registers_are_kept()) {
    return false;
  }
  // Linux wants to be asked, once per process: the registers make a thread's saved state 8 KiB
  // larger.
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

std::atomic<bool>& enabled_flag() {
  static std::atomic<bool> enabled{amx_available()};
  return enabled;
}

}  // namespace

bool amx_available() {
  static const bool available = detect();
  return available;
}

bool amx_enabled() { return enabled_flag().load(std::memory_order_relaxed); }

void enable_amx(bool enabled) {
  enabled_flag().store(enabled && amx_available(), std::memory_order_relaxed);
}

}  // namespace weir::kernel
