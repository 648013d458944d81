#include <memory>
#include <optional>
#include <string>

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "app/command.h"
#include "app/flags.h"
#include "app/output.h"
#include "measure/calibrate.h"
#include "report/format.h"
#include "report/table.h"

namespace weir {
namespace {

constexpr std::int64_t kMostThreads = 4096;

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
                {.min = 1, .max = kMostThreads}, devices_.cores_per_device);
    add_number(app,
               {.name = "--least-seconds",
                .help = "of each of some 900 timings (default 0.03); less is quick and rough"},
               {.min = 0, .max = 60}, least_seconds_);
    add_switch(app, {.name = "--progress", .help = "progress on stderr even if it is no terminal"},
               progress_);
    add_switch(app, {.name = "--json", .help = "the cluster file on stdout too"}, json_);
    add_examples(app,
                 "  weir calibrate --out here.json\n"
                 "  weir simulate -m MODEL -c here.json -s tp_pp --tp 2");
  }

  Result<ExitCode> run() override {
    if (auto checked = check_output_path("--out", out_); !checked)
      return tl::unexpected(checked.error());
    ProgressLine line(progress_ ? ProgressLine::Shown::always : ProgressLine::Shown::on_terminal);
    const auto cluster = calibrate({.devices = devices_,
                                    .least_seconds = least_seconds_,
                                    .progress = [&](std::string_view next) { line.show(next); }});
    line.clear();
    if (!cluster) return tl::unexpected(cluster.error());
    if (auto written = write_cluster_file(out_, *cluster); !written)
      return tl::unexpected(written.error());
    if (json_) {
      print_json(cluster_to_json(*cluster));
    } else {
      print_summary(*cluster);
    }
    return ExitCode::success;
  }

 private:
  void print_summary(const ClusterSpec& cluster) const {
    const DeviceType& type = cluster.device_types.front();
    const Fabric& fabric = cluster.node_types.front().fabrics.front();
    Table table{.columns = {{"measured", Align::left}, {""}}, .rows = {}};
    const auto add = [&](std::string what, std::string value) {
      table.rows.push_back({.cells = {std::move(what), std::move(value)}});
    };
    const auto rate = [&](std::optional<BytesPerSecond> value) {
      return format_quantity(value->value, "B/s");
    };
    add("devices", fmt::format("{} of {} cores", cluster.devices.size(), *type.num_cores));
    add("f32 multiply-adds", format_quantity(type.vector_flops.f32->value, "FLOP/s"));
    if (type.l2_bandwidth) add("reading L2", rate(type.l2_bandwidth));
    if (type.l3_bandwidth) add("reading L3", rate(type.l3_bandwidth));
    add("reading memory", rate(type.memory_bandwidth));
    add("starting a task", format_duration(*type.launch_latency));
    const Host& host = cluster.node_types.front().host;
    add("between two steps", format_duration(*host.step_latency));
    add(fmt::format("between two of up to {}", format_duration(*host.short_step)),
        format_duration(*host.short_step_latency));
    if (fabric.latency) add("a message between devices", format_duration(*fabric.latency));
    if (fabric.bandwidth) add("large messages", rate(fabric.bandwidth));
    print(render(table));
    print(fmt::format("\nwritten to {}\n", printable(out_)));
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
