#include "spec/local_cluster.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <set>

#include <fmt/format.h>
#include <hwloc.h>
#include <unistd.h>

#include "spec/cgroup_limits.h"

namespace weir {
namespace {

struct TopologyDeleter {
  void operator()(hwloc_topology_t topology) const { hwloc_topology_destroy(topology); }
};
using Topology = std::unique_ptr<hwloc_topology, TopologyDeleter>;

struct BitmapDeleter {
  void operator()(hwloc_bitmap_t bitmap) const { hwloc_bitmap_free(bitmap); }
};
using Bitmap = std::unique_ptr<hwloc_bitmap_s, BitmapDeleter>;

// A physical core that this process may use, with its lowest usable hardware thread.
struct Core {
  std::int64_t cpu = 0;  // OS number of the thread.
  std::int64_t numa_node = 0;
  hwloc_obj_t thread = nullptr;
};

using CoreList = std::vector<std::size_t>;  // Indices into the usable cores.

Result<Topology> read_topology() {
  // hwloc reports what it cannot find on stderr, which belongs to our own one-line errors.
  setenv("HWLOC_HIDE_ERRORS", "2", 0);
  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0) return run_failed("local: hwloc cannot be started");
  Topology topology(raw);
  if (hwloc_topology_load(raw) != 0) {
    return run_failed("local: hwloc cannot read the topology of this machine");
  }
  return topology;
}

// hwloc leaves out what the cpuset forbids; the affinity mask of the process comes on top.
std::vector<Core> usable_cores(hwloc_topology_t topology) {
  const Bitmap allowed(hwloc_bitmap_alloc());
  if (hwloc_get_cpubind(topology, allowed.get(), HWLOC_CPUBIND_PROCESS) != 0) {
    hwloc_bitmap_copy(allowed.get(), hwloc_topology_get_allowed_cpuset(topology));
  }
  std::vector<Core> cores;
  std::set<hwloc_obj_t> seen;
  hwloc_obj_t thread = nullptr;
  while ((thread = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_PU, thread)) != nullptr) {
    if (hwloc_bitmap_isset(allowed.get(), thread->os_index) == 0) continue;
    hwloc_obj_t core = hwloc_get_ancestor_obj_by_type(topology, HWLOC_OBJ_CORE, thread);
    if (!seen.insert(core == nullptr ? thread : core).second) continue;
    const int numa = thread->nodeset == nullptr ? 0 : hwloc_bitmap_first(thread->nodeset);
    cores.push_back({.cpu = thread->os_index, .numa_node = std::max(numa, 0), .thread = thread});
  }
  return cores;
}

// A quota of 1.5 CPUs keeps two cores half busy; more cores than that would only wait.
void apply_quota(std::vector<Core>& cores, const CgroupLimits& limits) {
  if (!limits.cpus) return;
  const auto usable = static_cast<std::size_t>(
      std::clamp(std::ceil(*limits.cpus), 1.0, static_cast<double>(cores.size())));
  cores.resize(usable);
}

// Device d takes the next cores in turn, starting over when they run out.
std::vector<CoreList> assign_cores(std::size_t num_devices, std::size_t per_device,
                                   std::size_t num_cores) {
  std::vector<CoreList> devices(num_devices);
  std::size_t next = 0;
  for (CoreList& cores : devices) {
    for (std::size_t i = 0; i < per_device; ++i) cores.push_back(next++ % num_cores);
  }
  return devices;
}

std::optional<Bytes> l1_of(hwloc_topology_t topology, const Core& core) {
  const hwloc_obj* const cache =
      hwloc_get_ancestor_obj_by_type(topology, HWLOC_OBJ_L1CACHE, core.thread);
  if (cache == nullptr || cache->attr->cache.size == 0) return std::nullopt;
  return Bytes{static_cast<std::int64_t>(cache->attr->cache.size)};
}

struct CacheShare {
  Bytes bytes;
  std::int64_t devices = 1;  // That reach the same caches.
};

// The caches of one level that the first device reaches, each shared out among the devices that
// reach it.
std::optional<CacheShare> cache_share(hwloc_topology_t topology, hwloc_obj_type_t level,
                                      const std::vector<Core>& cores,
                                      const std::vector<CoreList>& devices) {
  const auto caches_of = [&](const CoreList& list) {
    std::set<hwloc_obj_t> caches;
    for (const std::size_t core : list) {
      caches.insert(hwloc_get_ancestor_obj_by_type(topology, level, cores[core].thread));
    }
    return caches;
  };
  std::map<hwloc_obj_t, std::int64_t> users;
  for (const CoreList& list : devices) {
    for (hwloc_obj_t cache : caches_of(list)) ++users[cache];
  }
  CacheShare share;
  for (hwloc_obj_t cache : caches_of(devices.front())) {
    if (cache == nullptr || cache->attr->cache.size == 0) return std::nullopt;
    share.bytes += Bytes{static_cast<std::int64_t>(cache->attr->cache.size) / users.at(cache)};
    share.devices = users.at(cache);
  }
  return share;
}

Bytes usable_memory(hwloc_topology_t topology, const CgroupLimits& limits) {
  Bytes installed{static_cast<std::int64_t>(hwloc_get_root_obj(topology)->total_memory)};
  // Where /sys is not mounted (some containers) hwloc sees no memory; the kernel still tells.
  if (installed.value == 0)
    installed = {std::int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE)};
  return std::min(installed, limits.memory.value_or(installed));
}

Status check_options(const LocalOptions& options, std::int64_t num_cores) {
  std::vector<std::string> problems;
  if (options.num_devices && (*options.num_devices < 1 || *options.num_devices > kMaxDevices)) {
    problems.push_back(fmt::format("local.num_devices: found {}, allowed an integer in 1..{}",
                                   *options.num_devices, kMaxDevices));
  }
  if (options.cores_per_device &&
      (*options.cores_per_device < 1 || *options.cores_per_device > num_cores)) {
    problems.push_back(fmt::format(
        "local.cores_per_device: found {}, allowed an integer in 1..{}, the cores of this machine",
        *options.cores_per_device, num_cores));
  }
  if (!problems.empty()) return invalid_input(join_problems(problems));
  return {};
}

struct Division {
  std::int64_t num_devices = 1;
  std::int64_t cores_per_device = 1;
};

Division divide(const LocalOptions& options, std::int64_t num_cores) {
  if (options.cores_per_device) {
    return {.num_devices = options.num_devices.value_or(num_cores / *options.cores_per_device),
            .cores_per_device = *options.cores_per_device};
  }
  const std::int64_t num_devices = options.num_devices.value_or(num_cores);
  return {.num_devices = num_devices,
          .cores_per_device = std::max<std::int64_t>(1, num_cores / num_devices)};
}

}  // namespace

Result<ClusterSpec> local_cluster(const LocalOptions& options) {
  auto loaded = read_topology();
  if (!loaded) return tl::unexpected(loaded.error());
  hwloc_topology_t topology = loaded->get();
  const CgroupLimits limits = cgroup_limits();
  std::vector<Core> cores = usable_cores(topology);
  if (cores.empty()) return run_failed("local: hwloc shows no core that this process may use");
  apply_quota(cores, limits);
  const auto num_cores = static_cast<std::int64_t>(cores.size());
  if (const Status checked = check_options(options, num_cores); !checked) {
    return tl::unexpected(checked.error());
  }
  const Division division = divide(options, num_cores);
  const std::vector<CoreList> assigned =
      assign_cores(static_cast<std::size_t>(division.num_devices),
                   static_cast<std::size_t>(division.cores_per_device), cores.size());

  const Bytes memory = usable_memory(topology, limits);
  const std::string hwloc_source = "hwloc, on this machine";
  DeviceType type{.name = "cores",
                  .kind = DeviceKind::cpu,
                  .memory = memory / division.num_devices,
                  .l1 = l1_of(topology, cores.front()),
                  .num_cores = division.cores_per_device};
  type.sources = {{"memory_gib", hwloc_source}, {"num_cores", hwloc_source}};
  if (const auto l2 = cache_share(topology, HWLOC_OBJ_L2CACHE, cores, assigned))
    type.l2 = l2->bytes;
  if (const auto l3 = cache_share(topology, HWLOC_OBJ_L3CACHE, cores, assigned)) {
    type.l3 = l3->bytes;
    if (l3->devices > 1) type.l3_devices = l3->devices;
  }
  if (type.l1) type.sources["l1_kib"] = hwloc_source;
  if (type.l2) type.sources["l2_mib"] = hwloc_source;
  if (type.l3) type.sources["l3_mib"] = hwloc_source;
  if (type.l3_devices) type.sources["l3_devices"] = hwloc_source;

  DeviceGroup group{.count = division.num_devices};
  for (const CoreList& list : assigned) {
    std::vector<std::int64_t>& cpus = group.cpus.emplace_back();
    for (const std::size_t core : list) cpus.push_back(cores[core].cpu);
    group.numa_nodes.push_back(cores[list.front()].numa_node);
  }
  NodeType node{.name = "local",
                .devices = {std::move(group)},
                .fabrics = {{.kind = FabricKind::shared_memory}},
                .host = {.memory = memory,
                         .num_cores = num_cores,
                         .sources = {{"memory_gib", hwloc_source}, {"num_cores", hwloc_source}}}};
  ClusterSpec cluster{
      .name = "local", .device_types = {std::move(type)}, .node_types = {std::move(node)}};
  list_devices(cluster);
  return cluster;
}

}  // namespace weir
