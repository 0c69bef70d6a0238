/* How an attempt becomes a batch job: the fixed script, the file `launch` that it reads, and
 * the arguments of sbatch. Nothing that a user wrote is in the script, and no shell sees any of
 * it. */
#ifndef HEBB_DAEMON_SLURM_SCRIPT_H
#define HEBB_DAEMON_SLURM_SCRIPT_H

#include "daemon/daemon.h"
#include "daemon/launcher.h"
#include "proto/base/buf.h"
#include "proto/msg/spec.h"

enum {
    SLURM_ARGUMENTS_MAX = 48,
    SLURM_TEXT_MAX = 64 * 1024,
    SLURM_HUNG_MIN_S = 120 /* heartbeats cross a shared file system, which may show them late */
};

/* sbatch reads it from its standard input. */
extern const char slurm_script[];

/* "ID.ATTEMPT": what the job's comment says after "hebb:". */
void slurm_key(char *out, size_t size, const struct launch *launch);

/* attempt-N/launch: one argument of hebb-shim a line. ERR_INVALID if a path holds a newline. */
int slurm_launch_text(struct buf *out, const struct slurm_config *config,
                      const struct launch *launch, const struct job_spec *spec,
                      struct err *err);

/* The arguments of sbatch; their texts are in *store, which the caller releases. The user's own
 * options come first, so that ours win. */
int slurm_arguments(const char *argv[SLURM_ARGUMENTS_MAX], struct buf *store,
                    const struct slurm_config *config, const struct launch *launch,
                    const struct job_spec *spec, struct err *err);

/* Why the option may not be given to sbatch, NULL if it may: the administrator's patterns
 * decide (fnmatch on the whole option), but what the launcher itself needs is never open. */
const char *slurm_option_fault(const struct slurm_config *config, const char *option);

#endif
