#include <filesystem>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "app/command.h"
#include "app/flags.h"
#include "app/output.h"
#include "app/serving_accuracy.h"
#include "report/format.h"
#include "report/table.h"
#include "sim/accuracy.h"

namespace weir {
namespace {

nlohmann::json summary_to_json(const ErrorSummary& summary) {
  return {{"count", summary.count},
          {"median", summary.median},
          {"p90", summary.p90},
          {"bias", summary.bias},
          {"rank_correlation", summary.rank_correlation}};
}

nlohmann::json report_to_json(const AccuracyReport& report) {
  nlohmann::json rows = nlohmann::json::array();
  for (const AccuracyRow& row : report.rows) {
    rows.push_back({{"what", row.what},
                    {"on", row.on},
                    {"file", row.file},
                    {"model", summary_to_json(row.model)},
                    {"roofline", summary_to_json(row.roofline)}});
  }
  return {{"rows", rows}, {"absent", report.absent}, {"skipped_rows", report.skipped}};
}

Table table_of(const AccuracyReport& report) {
  Table table{.columns = {{"what", Align::left},
                          {"on", Align::left},
                          {"rows"},
                          {"median"},
                          {"p90"},
                          {"bias"},
                          {"rank corr."},
                          {"roofline median"},
                          {"p90"},
                          {"file", Align::left}},
              .rows = {}};
  for (const AccuracyRow& row : report.rows) {
    table.rows.push_back(
        {.cells = {row.what, row.on, fmt::format("{}", row.model.count),
                   format_share(row.model.median), format_share(row.model.p90),
                   fmt::format("{:+.1f}%", 100 * row.model.bias),
                   fmt::format("{:.3f}", row.model.rank_correlation),
                   format_share(row.roofline.median), format_share(row.roofline.p90), row.file}});
  }
  return table;
}

class AccuracyCommand final : public Command {
 public:
  void declare(CLI::App& app) override {
    add_text(app,
             {.name = "--data",
              .help = "a folder with measured kernels and collectives as CSV (docs/accuracy.md)",
              .required = true},
             data_);
    add_switch(app, {.name = "--json", .help = "machine-readable, on stdout"}, json_);
    add_examples(app, "  weir accuracy --data measurements");
  }

  Result<ExitCode> run() override {
    if (!std::filesystem::exists(data_)) {
      // JSON says the same with no rows.
      if (json_) {
        print_json(report_to_json({}));
      } else {
        print(fmt::format("skipped: {} is not there\n", printable(data_)));
      }
      return ExitCode::success;
    }
    auto report = measure_accuracy(data_);
    if (!report) return tl::unexpected(report.error());
    if (auto status = add_serving_accuracy(data_, *report); !status)
      return tl::unexpected(status.error());
    if (json_) {
      print_json(report_to_json(*report));
      return ExitCode::success;
    }
    print("|predicted / measured - 1|\n\n");
    print(render(table_of(*report)));
    print(fmt::format("\n{} rows skipped: devices, dtypes or operations that are not modelled\n",
                      report->skipped));
    if (!report->absent.empty())
      print(fmt::format("absent: {}\n", fmt::join(report->absent, ", ")));
    return ExitCode::success;
  }

 private:
  std::string data_;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_accuracy_command() { return std::make_unique<AccuracyCommand>(); }

}  // namespace weir
