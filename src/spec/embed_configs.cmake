# Writes OUTPUT, a source that holds the text of every file in FILES (separated by "|") as catalogue_files().
# Run as: cmake -DOUTPUT=... -DFILES=a.json|b.json -P embed_configs.cmake

string(REPLACE "|" ";" FILES "${FILES}")
set(entries "")
foreach(file IN LISTS FILES)
  get_filename_component(name "${file}" NAME_WLE)
  file(READ "${file}" text)
  string(APPEND entries "    {\"${name}\", R\"weir_json(${text})weir_json\"},\n")
endforeach()
file(WRITE "${OUTPUT}" "#include \"spec/catalogue.h\"

namespace weir {
namespace {

constexpr CatalogueFile kFiles[] = {
${entries}};

}  // namespace

std::span<const CatalogueFile> catalogue_files() { return kFiles; }

}  // namespace weir
")
