# Writes OUTPUT, a source that holds the text of every file in FILES (separated by "|") as bundled_notes().
# Run as: cmake -DOUTPUT=... -DFILES=a.json|b.json -P embed_notes.cmake

string(REPLACE "|" ";" FILES "${FILES}")
set(entries "")
foreach(file IN LISTS FILES)
  get_filename_component(name "${file}" NAME_WLE)
  file(READ "${file}" text)
  string(APPEND entries "    {\"${name}\", R\"weir_json(${text})weir_json\"},\n")
endforeach()
file(WRITE "${OUTPUT}" "#include \"claims/bundled_notes.h\"

namespace weir {
namespace {

constexpr BundledNote kNotes[] = {
${entries}};

}  // namespace

std::span<const BundledNote> bundled_notes() { return kNotes; }

}  // namespace weir
")
