#pragma once

#include <string>
#include <vector>

#include "cli/show/terminal.hpp"

namespace pitcrew::cli {

// Columns under a heading. Numbers to the right where the heading says so; where the terminal is too narrow the last
// column is cut.
class Table {
 public:
  struct Cell {
    std::string text;
    Tone tone = Tone::kPlain;
  };

  // A heading that begins with '>' is of a column that stands to the right.
  explicit Table(std::vector<std::string> headings) : headings_(std::move(headings)) {}
  void add(std::vector<Cell> row) { rows_.push_back(std::move(row)); }
  bool empty() const { return rows_.empty(); }

  std::string render(const Terminal& terminal, size_t indent = 0) const;

 private:
  std::vector<std::string> headings_;
  std::vector<std::vector<Cell>> rows_;
};

}  // namespace pitcrew::cli
