#include "kernel/amx.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

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

TileRegisters::TileRegisters(int rows) {
  constexpr std::uint16_t kBytesInRow = 64;
  constexpr std::uint8_t kRows = 16;
  struct alignas(64) Shape {
    std::uint8_t palette = 1;
    std::uint8_t start_row = 0;
    std::array<std::uint8_t, 14> reserved = {};
    std::array<std::uint16_t, 16> bytes_in_row = {};
    std::array<std::uint8_t, 16> rows = {};
  } shape;
  constexpr std::size_t kTiles = 8;
  constexpr std::size_t kFirst = 6;
  std::fill_n(shape.bytes_in_row.begin(), kTiles, kBytesInRow);
  std::fill_n(shape.rows.begin(), kTiles, kRows);
  std::fill_n(shape.rows.begin(), kFirst, static_cast<std::uint8_t>(rows));
  asm volatile("ldtilecfg %0" ::"m"(shape));
}

TileRegisters::~TileRegisters() { asm volatile("tilerelease"); }

double multiply_tiles_in_registers(std::int64_t rounds) {
  if (!amx_available()) return 0;
  const TileRegisters registers;
  asm volatile("tilezero %tmm0; tilezero %tmm1; tilezero %tmm2; tilezero %tmm3");
  asm volatile("tilezero %tmm4; tilezero %tmm5");
  for (std::int64_t round = 0; round < rounds; ++round) {
    asm volatile("tdpbf16ps %tmm5, %tmm4, %tmm0; tdpbf16ps %tmm5, %tmm4, %tmm1");
    asm volatile("tdpbf16ps %tmm5, %tmm4, %tmm2; tdpbf16ps %tmm5, %tmm4, %tmm3");
  }
  // Four tiles of 16 x 16 sums of 32 products.
  constexpr double kFlopsPerRound = 4.0 * 16 * 16 * 32 * 2;
  return kFlopsPerRound * static_cast<double>(rounds);
}

void enable_amx(bool enabled) {
  enabled_flag().store(enabled && amx_available(), std::memory_order_relaxed);
}

}  // namespace weir::kernel
