#pragma once
// What a device's tasks work in beside their activations: lists that keep their room from task to
// task, so that steps of equal shape allocate nothing. For one compute and one communication task
// at a time.

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "comm/communicator.h"
#include "exec/buffer_pool.h"
#include "exec/region.h"
#include "kernel/kernel.h"
#include "plan/transfers.h"

namespace weir {

// Lists that are taken one after the other and stay where they are until all are given back.
template <class T>
class ReusedLists {
 public:
  // An empty one.
  [[nodiscard]] std::vector<T>& take() {
    if (taken_ == lists_.size()) lists_.emplace_back();
    lists_[taken_].clear();
    return lists_[taken_++];
  }
  void give_back_all() { taken_ = 0; }

 private:
  std::deque<std::vector<T>> lists_;
  std::size_t taken_ = 0;
};

struct ComputeMemory {
  std::vector<std::int64_t> numbers;  // Token ids, or positions.
  std::vector<kernel::AttentionTile> tiles;
  // What tiles point to.
  ReusedLists<std::int64_t> head_maps;
  ReusedLists<const void*> shifted_blocks;
};

struct CommMemory {
  std::vector<const Transfer*> by_peer;
  std::vector<PooledBuffer> packed;
  std::vector<OutgoingMessage> outgoing;
  std::vector<IncomingMessage> incoming;
  std::vector<const float*> sources;  // Where each incoming message is read next.
  std::vector<Region> terms;          // Of a sum, not yet added.
  std::vector<kernel::ConstMatrix> term_views;
  std::vector<DeviceId> partners;  // Ascending.

  void clear() {
    by_peer.clear();
    packed.clear();
    outgoing.clear();
    incoming.clear();
    sources.clear();
    terms.clear();
    term_views.clear();
    partners.clear();
  }
};

}  // namespace weir
