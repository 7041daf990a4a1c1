#pragma once

#include "lib/base/random.hpp"
#include "lib/local/api/store.hpp"

namespace pitcrew::local {

// What changes objects: create, update, patch and apply, bind, delete, and the garbage collector's part.
class Writes {
 public:
  Writes(Loop& loop, Store& store, Random& random) : loop_(loop), store_(store), random_(random) {}

  // `managers`: metadata.managedFields of an apply.
  kube::Response create(Store::Type& type, const kube::Request& request, const Json* managers = nullptr);
  kube::Response update(Store::Type& type, const kube::Request& request);
  kube::Response patch(Store::Type& type, const kube::Request& request);
  kube::Response bind(Store::Type& type, const kube::Request& request);
  kube::Response remove(Store::Type& type, const kube::Request& request);
  // Deletes what the dead owner owned alone, and takes its name off what has a living owner besides.
  void collect(const std::string& owner);

 private:
  kube::Response apply(Store::Type& type, const kube::Request& request);
  // The end of every update: what the caller may change is taken over, and committed if anything differs.
  kube::Response replace(Store::Type& type, const kube::Request& request, const kube::Payload& stored, Json next,
                         const Json* managers = nullptr);

  Loop& loop_;
  Store& store_;
  Random& random_;
};

// As Kubernetes makes names and UIDs.
std::string random_text(Random& random, size_t length);
std::string random_uid(Random& random);

}  // namespace pitcrew::local
