#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "lib/base/result.hpp"

namespace pitcrew::kube {

// Takes a stream of JSON documents apart as its bytes come, without a tree: the values that are wanted are handed over
// one by one as text, the rest of a document (its envelope, with an empty list or null in their place) at its end.
// Whether the parts are JSON is the parser's business; what is checked here is nesting and sizes. Pure.
class JsonSlicer {
 public:
  enum class Slice {
    kItems,   // the objects in the list "items" of a document: a list's answer
    kObject,  // the object under "object" of a document: a watch event
  };
  struct Settings {
    Slice slice = Slice::kItems;
    size_t max_value_bytes = 16 * 1024 * 1024;
    size_t max_envelope_bytes = 4 * 1024 * 1024;
    // Leaves out metadata.managedFields of the values, 43 % of a pod's text; null stands in its place.
    bool drop_managed_fields = false;
  };
  struct Sink {
    std::function<void(std::string value)> on_value;
    std::function<void(std::string envelope)> on_document;
  };

  JsonSlicer(Settings settings, Sink sink) : settings_(settings), sink_(std::move(sink)) {}

  // An error (kDataLoss, kResourceExhausted) is final. The sink must not destroy the slicer.
  Status feed(std::string_view bytes);
  // Whether the bytes so far end between two documents.
  bool complete() const { return stack_.empty(); }
  uint64_t documents() const { return documents_; }

 private:
  enum class Where { kEnvelope, kValue, kSkipped };

  size_t depth() const { return stack_.size(); }
  bool in_items() const;
  void begin_string();
  void end_string();
  Status open(char bracket, std::string_view run);
  Status close(char bracket, std::string_view run);
  Status put(std::string_view run);

  Settings settings_;
  Sink sink_;
  std::string stack_;  // the brackets that are open
  bool in_string_ = false;
  bool escaped_ = false;
  bool name_next_ = false;  // the next string is a member's name
  bool keeping_ = false;    // it is one that matters, and kept in name_
  std::string name_;
  std::string top_name_;    // where in the document we are
  std::string value_name_;  // where in the value
  Where where_ = Where::kEnvelope;
  size_t value_depth_ = 0;  // inside its outer brackets
  size_t skip_depth_ = 0;
  std::string envelope_;
  std::string value_;
  uint64_t documents_ = 0;
};

}  // namespace pitcrew::kube
