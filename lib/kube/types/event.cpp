#include "lib/kube/types/event.hpp"

#include "lib/kube/types/fields.hpp"

namespace pitcrew::kube {

const ResourceType& Event::type() {
  static const ResourceType kType{"events.k8s.io", "v1", "Event", "events", true};
  return kType;
}

Result<Event> Event::decode(const Json& json) {
  Event event;
  PITCREW_TRY(fields::read_meta(json, type(), event.metadata));
  if (const Json* regarding = fields::find(json, "regarding")) {
    fields::read(*regarding, "apiVersion", event.regarding.api_version);
    fields::read(*regarding, "kind", event.regarding.kind);
    fields::read(*regarding, "namespace", event.regarding.ns);
    fields::read(*regarding, "name", event.regarding.name);
    fields::read(*regarding, "uid", event.regarding.uid);
  }
  fields::read(json, "type", event.event_type);
  fields::read(json, "reason", event.reason);
  fields::read(json, "action", event.action);
  fields::read(json, "note", event.note);
  fields::read(json, "reportingController", event.reporting_controller);
  fields::read(json, "reportingInstance", event.reporting_instance);
  fields::read(json, "eventTime", event.time);
  if (const Json* series = fields::find(json, "series")) {
    fields::read(*series, "count", event.series_count);
    fields::read(*series, "lastObservedTime", event.series_last);
  }
  return event;
}

Json Event::encode() const {
  Json json = fields::envelope(type(), metadata);
  json["regarding"] = {{"apiVersion", regarding.api_version},
                       {"kind", regarding.kind},
                       {"name", regarding.name},
                       {"uid", regarding.uid}};
  if (!regarding.ns.empty()) json["regarding"]["namespace"] = regarding.ns;
  json["type"] = event_type;
  json["reason"] = reason;
  json["action"] = action;
  json["note"] = note;
  json["reportingController"] = reporting_controller;
  json["reportingInstance"] = reporting_instance;
  if (time) json["eventTime"] = to_rfc3339(*time, 6);
  if (series_count > 0) {
    json["series"] = {{"count", series_count}};
    if (series_last) json["series"]["lastObservedTime"] = to_rfc3339(*series_last, 6);
  }
  return json;
}

}  // namespace pitcrew::kube
