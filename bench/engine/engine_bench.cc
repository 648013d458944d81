// Measures whole runs beside their ceilings, and writes what it finds into a document:
//
//   engine_bench [--out docs/performance.md] [--section NAME]... [--long]
//                [--peer llama.cpp=LLAMA_BENCH] [--peer torch=PYTHON]
//
// Each section replaces what lies between its two marks in the document; without --out it is
// printed.

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include "bench/engine/figures.h"
#include "bench/engine/sections.h"

namespace weir::bench {
namespace {

struct Section {
  std::string_view name;
  Result<std::string> (*measure)(const SectionOptions& options);
  bool only_if_named;
};

constexpr Section kSections[] = {
    {"costs", costs_section, false},
    {"kernels", kernels_section, false},
    {"small-model", small_model_section, false},
    {"notes-model", notes_model_section, false},
    {"two-cores", two_cores_section, false},
    {"cache-fit", cache_fit_section, false},
    {"long-prompt", long_prompt_section, true},
    {"peers", peers_section, true},
};

struct Arguments {
  std::optional<std::string> out;
  std::vector<std::string> sections;
  std::vector<std::string> peers;
  bool long_prompts = false;
};

std::string names_of_sections() {
  std::string names;
  for (const Section& section : kSections) names += fmt::format(" {}", section.name);
  return names;
}

Result<std::vector<const Section*>> chosen(const Arguments& arguments) {
  std::vector<const Section*> result;
  for (const std::string& name : arguments.sections) {
    if (std::ranges::find(kSections, name, &Section::name) == std::end(kSections))
      return invalid_input(
          fmt::format("--section: found {}, allowed{}", name, names_of_sections()));
  }
  for (const Section& section : kSections) {
    const bool is_named =
        std::ranges::find(arguments.sections, section.name) != arguments.sections.end() ||
        (section.name == "long-prompt" && arguments.long_prompts) ||
        (section.name == "peers" && !arguments.peers.empty());
    if (is_named || (arguments.sections.empty() && !section.only_if_named))
      result.push_back(&section);
  }
  return result;
}

Status read_peers(const Arguments& arguments, SectionOptions& options) {
  for (const std::string& peer : arguments.peers) {
    const std::size_t equals = peer.find('=');
    const std::string name = peer.substr(0, equals);
    if (equals == std::string::npos || (name != "llama.cpp" && name != "torch")) {
      return invalid_input(
          fmt::format("--peer: found {}, allowed llama.cpp=LLAMA_BENCH or torch=PYTHON", peer));
    }
    (name == "torch" ? options.torch : options.llama_cpp) = peer.substr(equals + 1);
  }
  return {};
}

Result<std::string> read_document(const std::string& path) {
  std::ifstream file(path);
  std::string text(std::istreambuf_iterator<char>(file), {});
  if (!file || text.empty()) return invalid_input(fmt::format("--out: {} cannot be read", path));
  return text;
}

// The document as it is after this section; written at once, so that a later failure loses nothing.
Status write_section(const std::string& path, std::string_view name, const std::string& content) {
  const auto text = read_document(path);
  if (!text) return tl::unexpected(text.error());
  const auto replaced = replace_section(*text, fmt::format("bench {}", name), content);
  if (!replaced) return invalid_input(fmt::format("--out: {}: {}", path, replaced.error().message));
  std::ofstream file(path);
  file << *replaced;
  file.close();
  if (!file) return run_failed(fmt::format("--out: {} cannot be written", path));
  return {};
}

Status run(const Arguments& arguments, const std::filesystem::path& program) {
  SectionOptions options;
  options.progress = [](std::string_view next) { fmt::print(stderr, "{}\n", next); };
  options.programs = program.parent_path().string();
  const std::filesystem::path beside =
      std::filesystem::path(arguments.out.value_or("")).parent_path();
  options.pictures = beside.empty() ? "." : beside.string();
  if (auto read = read_peers(arguments, options); !read) return read;
  const auto sections = chosen(arguments);
  if (!sections) return tl::unexpected(sections.error());
  const auto machine = describe_machine();
  if (!machine) return tl::unexpected(machine.error());
  for (const Section* section : *sections) {
    const auto measured = section->measure(options);
    if (!measured) return tl::unexpected(measured.error());
    const std::string content = fmt::format("{}\n\n{}", *machine, *measured);
    if (!arguments.out) {
      fmt::print("## {}\n\n{}\n", section->name, content);
    } else if (auto written = write_section(*arguments.out, section->name, content); !written) {
      return written;
    }
  }
  return {};
}

}  // namespace
}  // namespace weir::bench

int main(int argc, char** argv) {
  weir::bench::Arguments arguments;
  CLI::App app("Measures whole runs beside their ceilings.");
  app.add_option("--out", arguments.out, "a document whose marked sections are replaced");
  app.add_option("--section", arguments.sections,
                 "repeatable; allowed:" + weir::bench::names_of_sections());
  app.add_option("--peer", arguments.peers, "llama.cpp=LLAMA_BENCH or torch=PYTHON, repeatable");
  app.add_flag("--long", arguments.long_prompts, "prompts of up to 131,072 tokens too (minutes)");
  CLI11_PARSE(app, argc, argv);
  const auto done = weir::bench::run(arguments, argv[0]);
  if (done) return 0;
  fmt::print(stderr, "engine_bench: {}\n", done.error().message);
  return 1;
}
