#include "app/model_source.h"

#include <filesystem>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "checkpoint/preset.h"

namespace weir {

Result<ModelSpec> load_model(const std::string& what) {
  std::error_code ignored;
  if (std::filesystem::is_directory(what, ignored)) return load_model_spec(what);
  if (std::filesystem::exists(what, ignored)) {
    const auto config = read_json_file(what);
    if (!config) return tl::unexpected(config.error());
    const auto folder = std::filesystem::absolute(what).parent_path();
    return model_from_config(*config, folder.filename().string());
  }
  for (const Preset& preset : presets()) {
    if (preset.name == what) return preset_model(what, {});
  }
  return invalid_input(
      fmt::format("--model: found {}, allowed a model folder, a config.json, or a preset: {}",
                  what.empty() ? "an empty name" : what, preset_names()));
}

std::string preset_names() {
  std::vector<std::string_view> names;
  for (const Preset& preset : presets()) names.push_back(preset.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

}  // namespace weir
