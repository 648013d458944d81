#include <memory>
#include <optional>
#include <string>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "app/command.h"
#include "app/flags.h"
#include "app/output.h"
#include "app/rank_session.h"
#include "app/rank_setup.h"
#include "app/setup.h"
#include "measure/calibrate.h"
#include "measure/rank_calibration.h"
#include "report/format.h"
#include "report/table.h"

namespace weir {
namespace {

class CalibrateCommand final : public Command {
 public:
  void declare(CLI::App& app) override {
    add_text(app, {.name = "--out", .help = "the cluster file to write", .required = true}, out_);
    add_integer(app,
                {.name = "--devices", .help = "devices of this machine (default: one per core)"},
                {.min = 1, .max = kMaxDevices}, devices_.num_devices);
    add_integer(app,
                {.name = "--threads-per-device",
                 .help = "cores of each device (default: all cores shared out)"},
                {.min = 1, .max = kMostThreadsPerDevice}, devices_.cores_per_device);
    add_number(app,
               {.name = "--least-seconds",
                .help = "of each of some 900 timings (default 0.03); less is quick and rough"},
               {.min = 0, .max = 60}, least_seconds_);
    add_switch(app, {.name = "--progress", .help = "progress on stderr even if it is no terminal"},
               progress_);
    add_switch(app, {.name = "--json", .help = "the cluster file on stdout too"}, json_);
    add_examples(app,
                 "  weir calibrate --out here.json\n"
                 "  mpirun -n 2 weir calibrate --out ranks.json\n"
                 "  weir simulate -m MODEL -c here.json -s tp_pp --tp 2");
  }

  Result<ExitCode> run() override {
    return take_role({.lead = [this](Ranks* ranks) { return lead(ranks); },
                      .obey = [this](Ranks& ranks) { return obey(ranks); }});
  }

 private:
  Result<ExitCode> lead(Ranks* ranks) {
    ProgressLine line(progress_ ? ProgressLine::Shown::always : ProgressLine::Shown::on_terminal);
    const CalibrationOptions options = {
        .devices = devices_,
        .least_seconds = least_seconds_,
        .progress = [&](std::string_view next) { line.show(next); }};
    auto calibrated = measure(ranks, options);
    line.clear();
    if (!calibrated) return tl::unexpected(calibrated.error());
    if (auto written = write_cluster_file(out_, *calibrated); !written)
      return tl::unexpected(written.error());
    if (json_) {
      print_json(cluster_to_json(*calibrated));
    } else {
      print_summary(*calibrated);
    }
    return ExitCode::success;
  }

  // The part of any rank but 0, which says nothing.
  Result<ExitCode> obey(Ranks& ranks) {
    const auto device = await_go(ranks, identity(), devices_.cores_per_device);
    if (!device) return ExitCode::success;
    const Status followed = follow_calibration(ranks, *device, least_seconds_);
    if (followed) return ExitCode::success;
    give_up(ranks, followed.error());
  }

  // Ranks that measure together do it in the same way.
  [[nodiscard]] RankIdentity identity() const {
    if (devices_.num_devices) {
      return invalid_input(
          fmt::format("--devices: found {} with ranks, allowed none, as every rank "
                      "is a device",
                      *devices_.num_devices));
    }
    return nlohmann::json{{"command", "calibrate"}, {"--least-seconds", least_seconds_}};
  }

  Result<ClusterSpec> measure(Ranks* ranks, const CalibrationOptions& options) const {
    std::optional<RankLeader> leader;
    if (ranks != nullptr) {
      leader.emplace(*ranks);
      if (auto all = leader->gather(identity(), devices_.cores_per_device); !all)
        return tl::unexpected(all.error());
    }
    // Other ranks' hosts need not have that folder.
    if (auto checked = check_output_path("--out", out_); !checked)
      return tl::unexpected(checked.error());
    if (!leader) return calibrate(options);
    leader->go(rank_devices(leader->machine()));
    auto calibrated = calibrate_ranks(*ranks, leader->machine(), options);
    if (!calibrated) end_all(*ranks, calibrated.error());
    return calibrated;
  }

  void print_summary(const ClusterSpec& cluster) const {
    for (const NodeType& node : cluster.node_types) {
      if (cluster.node_types.size() > 1) print(fmt::format("{}\n", printable(node.name)));
      print_node(cluster, node);
      print("\n");
      for (const Fabric& fabric : node.fabrics) {
        if (fabric.transfers) print_transfers(*fabric.transfers, "devices");
      }
      if (node.nics && node.nics->transfers) print_transfers(*node.nics->transfers, "hosts");
    }
    print(fmt::format("written to {}\n", printable(out_)));
  }

  static void print_node(const ClusterSpec& cluster, const NodeType& node) {
    const DeviceGroup& group = node.devices.front();
    const DeviceType& type = cluster.device_types[group.type];
    const Fabric& fabric = node.fabrics.front();
    Table table{.columns = {{"measured", Align::left}, {""}}, .rows = {}};
    const auto add = [&](std::string what, std::string value) {
      table.rows.push_back({.cells = {std::move(what), std::move(value)}});
    };
    const auto rate = [&](std::optional<BytesPerSecond> value) {
      return format_quantity(value->value, "B/s");
    };
    add("devices", fmt::format("{} of {} cores", group.count, *type.num_cores));
    add("f32 multiply-adds", format_quantity(type.vector_flops.f32->value, "FLOP/s"));
    if (type.l2_bandwidth) add("reading L2", rate(type.l2_bandwidth));
    if (type.l3_bandwidth) add("reading L3", rate(type.l3_bandwidth));
    add("reading memory", rate(type.memory_bandwidth));
    add("starting a task", format_duration(*type.launch_latency));
    const Host& host = node.host;
    add("between two steps", format_duration(*host.step_latency));
    add(fmt::format("between two of up to {}", format_duration(*host.short_step)),
        format_duration(*host.short_step_latency));
    if (fabric.latency) add("a message between devices", format_duration(*fabric.latency));
    if (fabric.bandwidth) add("large messages", rate(fabric.bandwidth));
    if (node.nics) add("a message to another host", format_duration(*node.nics->latency));
    if (node.nics) add("large ones, as a card's rate", rate(node.nics->bandwidth));
    print(render(table));
  }

  static void print_transfers(const MeasuredTransfers& transfers, std::string_view between) {
    Table table{.columns = {{"measured", Align::left}, {"bytes"}, {"take"}, {"rate"}}, .rows = {}};
    const auto add = [&](const std::string& what, std::int64_t receives,
                         const std::vector<TransferTime>& times) {
      for (const TransferTime& time : times) {
        const double seconds = time.us * 1e-6;
        const auto bytes = static_cast<double>(time.bytes);
        table.rows.push_back(
            {.cells = {what, format_bytes(bytes), format_duration(Seconds{seconds}),
                       format_quantity(static_cast<double>(receives) * bytes / seconds, "B/s")}});
      }
    };
    add(fmt::format("a message between {}", between), 1, transfers.messages);
    for (const GroupCurve& curve : transfers.exchanges)
      add(fmt::format("each of {} {} to each", curve.members, between), curve.members - 1,
          curve.times);
    const auto add_all = [&](const char* what, const std::vector<GroupCurve>& curves) {
      for (const GroupCurve& curve : curves)
        add(fmt::format("{} of {} {}", what, curve.members, between), 1, curve.times);
    };
    add_all("an all_reduce", transfers.all_reduces);
    add_all("a reduce_scatter", transfers.reduce_scatters);
    add_all("an all_gather", transfers.all_gathers);
    print(render(table) + "\n");
  }

  std::string out_;
  LocalOptions devices_;
  double least_seconds_ = kUsualSeconds;
  bool progress_ = false;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_calibrate_command() { return std::make_unique<CalibrateCommand>(); }

}  // namespace weir
