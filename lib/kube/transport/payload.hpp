#pragma once

#include <memory>
#include <string>
#include <typeinfo>

#include "lib/base/json_selection.hpp"

namespace pitcrew::kube {

// The body of a request, an answer or a watch event: text, JSON, or both, whichever came first, made into the other on
// demand and once. A copy shares the bytes, the parsed tree and the struct it was decoded into, so that an object which
// ten watchers look at is parsed and decoded once. Immutable to the outside. Not thread-safe: it stays on one loop.
class Payload {
 public:
  Payload() = default;
  static Payload of(Json json);
  static Payload text(std::string text);

  bool empty() const { return body_ == nullptr; }
  // The parsed tree; owned by the payload. An error (kDataLoss) where the text isn't JSON.
  Result<const Json*> json() const;
  // The text, dumped once where the payload was made of JSON.
  const std::string& text() const;
  // metadata.resourceVersion, or "".
  std::string resource_version() const;
  // Decodes the object as a T and lets go of text and tree: what a cache of typed structs needs, at a hundredth of the
  // memory. What can't be decoded stays as it is. Not for a payload that somebody else reads as JSON.
  template <typename T>
  void reduce_to() const {
    if (auto value = as<T>()) let_go((*value)->metadata.resource_version);
  }

  // The tree by value: moved out where nobody else shares it, else copied.
  Result<Json> take() &&;

  // The object as a T, decoded by T::decode at the first call and shared from then on. Where T says which members it
  // reads (T::selection()), no more of the text is built than that.
  template <typename T>
  Result<std::shared_ptr<const T>> as() const {
    if (auto known = decoded(typeid(T))) return std::static_pointer_cast<const T>(std::move(known));
    Result<T> value = decode<T>();
    if (!value) return std::move(value).error();
    auto shared = std::make_shared<const T>(*std::move(value));
    remember(typeid(T), shared);
    return shared;
  }

 private:
  struct Body;

  template <typename T>
  Result<T> decode() const {
    if constexpr (requires { T::selection(); }) {
      if (only_text()) {
        PITCREW_ASSIGN(const Json part, select(T::selection()));
        return T::decode(part);
      }
    }
    PITCREW_ASSIGN(const Json* const tree, json());
    return T::decode(*tree);
  }
  bool only_text() const;
  Result<Json> select(const JsonSelection& selection) const;
  std::shared_ptr<const void> decoded(const std::type_info& type) const;
  void let_go(const std::string& resource_version) const;
  void remember(const std::type_info& type, std::shared_ptr<const void> value) const;

  std::shared_ptr<Body> body_;
};

}  // namespace pitcrew::kube
