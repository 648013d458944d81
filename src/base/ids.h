#pragma once
// Names of things by number, as types, so that one kind is never taken for another.

#include <cstddef>
#include <cstdint>

namespace weir {

// A device's place in ClusterSpec::devices.
enum class DeviceId : std::uint32_t {};

[[nodiscard]] constexpr std::size_t index_of(DeviceId id) { return static_cast<std::size_t>(id); }

}  // namespace weir
