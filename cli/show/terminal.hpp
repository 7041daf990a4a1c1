#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace pitcrew::cli {

enum class Tone { kPlain, kGood, kBad, kWarning, kDim, kBold };

// What is known of the place that output goes to. A value; passed to whatever renders, so that tests choose it.
struct Terminal {
  unsigned width = 100;
  bool colour = false;

  // `when` is auto, always or never. Colours only where the descriptor is a terminal, NO_COLOR is unset and TERM isn't
  // dumb; the width is the terminal's, else COLUMNS, else 100.
  static Terminal of(int fd, std::string_view when = "auto");

  std::string paint(Tone tone, std::string_view text) const;
};

// Columns that a text takes on a terminal: code points, without escape sequences.
size_t columns(std::string_view text);
// At most `width` columns, the last an ellipsis where something is cut.
std::string cut(std::string_view text, size_t width);
// Lines of at most `width` columns, broken at spaces; what has no spaces is broken anywhere.
std::vector<std::string> wrap(std::string_view text, size_t width);
// The text wrapped, each line after the first behind `indent` spaces; the first is expected to stand there already.
std::string hang(std::string_view text, size_t indent, size_t width);
std::string padded(std::string_view text, size_t width);

}  // namespace pitcrew::cli
