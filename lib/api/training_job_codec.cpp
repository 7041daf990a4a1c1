#include "lib/api/training_job_codec.hpp"

namespace pitcrew::api {

Json TrainingJob::encode() const {
  Json json{{"apiVersion", type().api_version()},
            {"kind", type().kind},
            {"metadata", to_json(metadata)},
            {"spec", codec::write_spec(spec)}};
  if (status != TrainingJobStatus{}) json["status"] = codec::write_status(status);
  return json;
}

TrainingJob decode_training_job(const Json& json, Problems& problems) {
  TrainingJob job;
  ObjectReader reader(json, "", problems);
  std::string api_version, kind;
  if (!reader.read("apiVersion", api_version) || api_version != TrainingJob::type().api_version()) {
    reader.problem("apiVersion", "must be " + TrainingJob::type().api_version());
  }
  if (!reader.read("kind", kind) || kind != TrainingJob::type().kind) reader.problem("kind", "must be TrainingJob");
  if (const Json* metadata = reader.raw("metadata")) {
    read_object_meta(*metadata, job.metadata, problems);
  } else {
    reader.problem("metadata", "is missing; give the job a name");
  }
  if (const Json* spec = reader.raw("spec")) {
    codec::read_spec(*spec, job.spec, problems);
  } else {
    reader.problem("spec", "is missing");
  }
  if (const Json* status = reader.raw("status")) codec::read_status(*status, job.status, problems);
  reader.finish();
  return job;
}

}  // namespace pitcrew::api
