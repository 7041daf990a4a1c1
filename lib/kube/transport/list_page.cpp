#include "lib/kube/transport/list_page.hpp"

#include "lib/kube/types/fields.hpp"

namespace pitcrew::kube {

Result<ListPage> split_list(Response response) {
  ListPage page;
  page.items = std::move(response.items);
  auto tree = response.body.json();
  if (!tree) return tree.error().with_context("list");
  const Json* metadata = fields::find(**tree, "metadata");
  if (metadata == nullptr) {
    return Error(Code::kDataLoss, "list: the answer has no metadata; it is not a list of the Kubernetes API");
  }
  fields::read(*metadata, "resourceVersion", page.resource_version);
  fields::read(*metadata, "continue", page.continue_token);
  if (!page.items.empty() || fields::find(**tree, "items") == nullptr) return page;
  auto whole = std::move(response.body).take();
  if (!whole) return whole.error();
  Json& items = (*whole)["items"];
  if (!items.is_array()) return Error(Code::kDataLoss, "list: `items` is not a list");
  page.items.reserve(items.size());
  for (Json& item : items) page.items.push_back(Payload::of(std::move(item)));
  return page;
}

}  // namespace pitcrew::kube
