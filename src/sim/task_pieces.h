#pragma once
// What a node's tasks have to do, task by task, and whether two of them are the same work: devices
// that share a node mostly do the same on other heads or columns, and then one has to be costed.

#include <cstdint>
#include <span>
#include <vector>

#include "plan/plan.h"

namespace weir {

class TaskPieces {
 public:
  explicit TaskPieces(const Plan& plan) : plan_(plan) {}

  // Begins with the pieces of the node's outputs. The plan outlives this.
  void begin(const Node& node);

  // Goes on to the pieces of `device`; devices ascend. True where they are the same work as those
  // of the device before, which had some: at the same tokens, and as large in the axes of constant
  // extent.
  bool next_is_alike(DeviceId device);

 private:
  // How much of the axes of constant extent a piece takes.
  struct Sizes {
    std::int64_t heads = 0;
    std::int64_t kv_heads = 0;
    std::int64_t dims = 0;  // 0 where the axis counts positions.
    std::int64_t over_heads = 0;
    std::int64_t over_dims = 0;
    bool is_first = false;  // It adds the bias.

    bool operator==(const Sizes&) const = default;
  };
  struct Entry {
    const Piece* piece = nullptr;
    const TensorShape* shape = nullptr;
    Sizes sizes;
  };

  [[nodiscard]] Sizes sizes_of(const Piece& piece, const TensorShape& shape) const;
  static bool are_alike(const Entry& a, const Entry& b);

  const Plan& plan_;
  std::vector<TensorShape> shapes_;  // By output.
  std::vector<Entry> entries_;       // Device by device.
  std::span<Entry> rest_;
  std::span<Entry> last_;
};

}  // namespace weir
