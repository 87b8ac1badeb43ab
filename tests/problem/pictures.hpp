// Tests as text: pictures in files, each under a line of fields. See windows.txt.
#pragma once

#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "support_environment.hpp"

namespace tilewright::testing {

/// One picture: the line of fields above it (the fields of the last line with a "canvas=", and its own) and its rows.
struct Picture {
  std::string fields, own_fields;
  std::string rows; // each ends with a line end
};

/// The pictures of a file under tests/. Lines that begin with "//" are comments; blank lines end a picture.
inline std::vector<Picture> read_pictures(const std::string& path) {
  std::ifstream file(source_folder() + "/tests/" + path);
  if (!file)
    throw std::runtime_error("tests/" + path +
                             " cannot be read; run in the source folder or set TILEWRIGHT_SOURCE_DIR");
  std::vector<Picture> pictures;
  std::string canvas_fields, own_fields;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("//"))
      continue;
    if (line.starts_with("canvas="))
      canvas_fields = line;
    else if (line.find('=') != std::string::npos)
      pictures.push_back({canvas_fields, line, ""});
    else if (!line.empty())
      pictures.back().rows += line + "\n";
  }
  return pictures;
}

} // namespace tilewright::testing
