#include "cli/show/table.hpp"

#include <algorithm>

namespace pitcrew::cli {

std::string Table::render(const Terminal& terminal, size_t indent) const {
  std::vector<size_t> widths;
  std::vector<bool> right;
  for (const std::string& heading : headings_) {
    right.push_back(heading.starts_with('>'));
    widths.push_back(columns(heading) - (right.back() ? 1 : 0));
  }
  for (const auto& row : rows_) {
    for (size_t i = 0; i < row.size() && i < widths.size(); ++i) widths[i] = std::max(widths[i], columns(row[i].text));
  }
  std::string out;
  const auto line = [&](const std::vector<Cell>& cells) {
    std::string text(indent, ' ');
    size_t used = indent;
    for (size_t i = 0; i < cells.size() && i < widths.size() && used < terminal.width; ++i) {
      const size_t room = terminal.width - used;
      const bool last = i + 1 == cells.size() || i + 1 == widths.size() || widths[i] + 2 >= room;
      const std::string shown = cut(cells[i].text, std::min(last ? room : widths[i], room));
      const size_t width = std::min(widths[i], room);
      const size_t gap = width > columns(shown) ? width - columns(shown) : 0;
      if (right[i]) text.append(gap, ' ');
      text += terminal.paint(cells[i].tone, shown);
      if (last) break;
      text.append((right[i] ? 0 : gap) + 2, ' ');
      used += widths[i] + 2;
    }
    out += text + "\n";
  };
  std::vector<Cell> heads;
  for (size_t i = 0; i < headings_.size(); ++i)
    heads.push_back({right[i] ? headings_[i].substr(1) : headings_[i], Tone::kDim});
  line(heads);
  for (const auto& row : rows_) line(row);
  return out;
}

}  // namespace pitcrew::cli
