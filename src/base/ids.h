#pragma once
// Ids are types, so that a device cannot be passed for a node. Each indexes the table of its kind.

#include <cstddef>
#include <cstdint>

namespace weir {

enum class DeviceId : std::uint32_t {};
enum class LayoutId : std::uint32_t {};
enum class ValueId : std::uint32_t {};
enum class NodeId : std::uint32_t {};
enum class GroupId : std::uint32_t {};

// The table index behind an id.
template <class Id>
[[nodiscard]] constexpr std::size_t index_of(Id id) {
  return static_cast<std::size_t>(id);
}

}  // namespace weir
