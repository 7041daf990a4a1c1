#pragma once

#include <string>
#include <vector>

#include "lib/base/result.hpp"

namespace pitcrew {

// A shared library that is loaded where it is needed, so that nothing is linked with it. It stays loaded, whatever
// becomes of this object: functions that were found may be kept, and what the library started lives on in it. A value;
// any thread.
class DynamicLibrary {
 public:
  struct Wanted {
    std::string what;                 // "cuDNN", for messages
    std::vector<std::string> places;  // files, or names for where the system looks; the first that will do is taken
    std::string remedy;               // what to do where none will do: "install cuDNN, or set attention: own"
    std::string symbol = {};          // what it has to have; empty: nothing
  };
  // kNotFound: the message says what was tried, and the remedy. Of files that don't exist only the last is named.
  static Result<DynamicLibrary> load(Wanted wanted);

  // Null where it has no such symbol.
  void* symbol(const char* name) const;
  // Sets a pointer to a function, to null where it has none of that name; whether it has.
  template <typename Function>
  bool find(Function*& function, const char* name) const {
    function = reinterpret_cast<Function*>(symbol(name));
    return function != nullptr;
  }

  // dlopen()'s, for others' code that looks for itself.
  void* handle() const { return handle_; }
  // What was loaded, as it was named.
  const std::string& place() const { return place_; }
  // The file of a symbol of it; empty where that is not known.
  std::string file_of(const char* symbol) const;
  // Why it won't do after all, "is version 2.17.5", with the remedy.
  Error unfit(Code code, const std::string& why) const;

  // For one that may be replaced while the program runs. No function that was found may be called any more.
  void unload();

 private:
  DynamicLibrary() = default;

  Wanted wanted_;
  std::string place_;
  void* handle_ = nullptr;
};

// Where a library of ours is looked for: beside the program, in its ../lib, and where the system looks.
std::vector<std::string> beside_program(const std::string& library);

// `asked` where it names a file, else what the environment's `variable` does, else `usual`.
std::string library_name(const std::string& asked, const char* variable, const char* usual);

}  // namespace pitcrew
