#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cli/diagnose/judge.hpp"

namespace pitcrew::cli {

// One row of what is known: where a message has the text, this is the matter. Title, remedy and command may hold
// {kubectl} and {pitcrew} (with the flags that lead to this cluster), {ns}, {job}, {log} (shows what the job's ranks
// said, or what is left of it), and what the caller adds.
struct Rule {
  const char* text;  // a part of the message, without case; "" matches any
  const char* id;
  int weight;
  const char* title;
  const char* remedy;
  const char* command;
};

using Words = std::map<std::string, std::string>;

// The first that matches: what is special stands before what is general. Null: none.
const Rule* matching(std::span<const Rule> rules, std::string_view message);

// What a program's words mean, of the causes that are known: an exception, the kernel's or a library's error. Null:
// none.
const Rule* cause_of(const std::string& words);

// "{kubectl} describe pod {pod}" with its words filled in.
std::string filled(const Facts& facts, std::string_view text, const Words& more = {});

Finding finding_of(const Facts& facts, const Rule& rule, std::vector<std::string> evidence, const Words& more = {});

// The same thing of several pods is one finding; which pods it is about is its first evidence.
class Grouped {
 public:
  Grouped(const Facts& facts, Findings& findings) : facts_(facts), findings_(findings) {}

  // {pod} in the rule is the first pod's name; its evidence is kept, that of its fellows isn't.
  void add(const Rule& rule, const std::string& pod, const std::string& evidence);
  void add(Finding finding, const std::string& pod);
  void finish();

 private:
  struct Group {
    size_t at;
    std::vector<std::string> pods;
  };
  const Facts& facts_;
  Findings& findings_;
  std::map<std::string, Group> groups_;
};

}  // namespace pitcrew::cli
