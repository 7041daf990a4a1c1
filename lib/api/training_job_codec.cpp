#include "lib/api/training_job_codec.hpp"

namespace pitcrew::api {

Json TrainingJob::encode() const {
  Json json = object_head(type(), metadata);
  json["spec"] = codec::write_spec(spec);
  if (status != TrainingJobStatus{}) json["status"] = codec::write_status(status);
  return json;
}

TrainingJob decode_training_job(const Json& json, Problems& problems) {
  TrainingJob job;
  ObjectReader reader(json, "", problems);
  read_object_head(reader, TrainingJob::type(), job.metadata, problems, "give the job a name");
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
