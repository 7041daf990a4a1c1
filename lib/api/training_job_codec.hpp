#pragma once

#include "lib/api/training_job.hpp"

// The halves of TrainingJob's codec, for training_job_codec.cpp alone.
namespace pitcrew::api::codec {

Json write_spec(const TrainingJobSpec& spec);
void read_spec(const Json& json, TrainingJobSpec& spec, Problems& problems);

Json write_status(const TrainingJobStatus& status);
void read_status(const Json& json, TrainingJobStatus& status, Problems& problems);

}  // namespace pitcrew::api::codec
