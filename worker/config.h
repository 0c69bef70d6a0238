/* From a job to the engine's configurations. The results point into the spec, which must
 * outlive them. */
#ifndef HEBB_WORKER_CONFIG_H
#define HEBB_WORKER_CONFIG_H

#include "engine/trainer.h"
#include "proto/msg/spec.h"

/* The shape of the job's model; n = m = 1 for a dense one. */
void config_shape(const struct job_spec *spec, struct model_shape *out);

/* ranks: the world that really runs, which may differ from the spec's; the passes are then made
 * to fit. ERR_INVALID if train.batch is not a multiple of it. ERR_UNSUPPORTED names an adapter
 * or layout that this build does not have. */
int config_trainer(const struct job_spec *spec, size_t ranks, struct trainer_config *out,
                   struct err *err);

void config_dataset(const struct job_spec *spec, struct dataset_config *out);

/* The engine's name of the device that the job asks for: "cpu" for "auto". */
const char *config_device(const struct job_spec *spec);

#endif
