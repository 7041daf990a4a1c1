#pragma once

#include "crds/generate/schema.hpp"

namespace pitcrew::crd {

// The parts of TrainingJob's schema. Rules that look at several fields stand at the spec.
Schema spec_schema();
Schema template_schema();
Schema status_schema();

// Rules on the pod template that need to know which container trains; for the spec's schema.
void add_template_rules(Schema& spec);

}  // namespace pitcrew::crd
