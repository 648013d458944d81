#include "measure/model_on_disk.h"

#include "checkpoint/random_model.h"

namespace weir {

Result<ModelOnDisk> ModelOnDisk::make(const ModelSpec& model) {
  auto folder = TemporaryFolder::make("measure");
  if (!folder) return tl::unexpected(folder.error());
  const std::string path = folder->path() + "/model";
  if (auto written = write_random_model(path, model); !written)
    return tl::unexpected(written.error());
  auto spec = load_model_spec(path);
  if (!spec) return tl::unexpected(spec.error());
  auto checkpoint = Checkpoint::open(path, *spec);
  if (!checkpoint) return tl::unexpected(checkpoint.error());
  return ModelOnDisk(*std::move(folder), *std::move(spec), *std::move(checkpoint));
}

}  // namespace weir
