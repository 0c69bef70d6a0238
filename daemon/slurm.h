/* The daemon's view of a Slurm cluster: what squeue last said, and the calls of sbatch, scancel
 * and sacct. Every call goes through the poll loop (call.h); no function here waits for Slurm.
 *
 * An attempt is wanted while attempt-N/launch exists: the file is written before anything is
 * asked of Slurm and removed before the attempt is given up. sbatch is called only after a
 * squeue that began later than everything that may have submitted the attempt, and that does
 * not list it; sbatch holds a lock (attempt-N/submit.lock), so that a daemon that is started
 * anew waits for one that an earlier daemon left. The same attempt twice would still run once:
 * jobs of one name run one after the other (singleton), and the second finds shim.json. */
#ifndef HEBB_DAEMON_SLURM_H
#define HEBB_DAEMON_SLURM_H

#include "daemon/daemon.h"
#include "daemon/launcher.h"
#include "daemon/loop.h"
#include <sys/types.h>

enum {
    SLURM_CALL_MS = 20000, /* for a call of Slurm's commands */
    SLURM_POLL_MS = 5000,  /* between two calls of squeue */
    SLURM_GRACE_S = 60,    /* see slurm_config */
    SLURM_WARNING_S = 120,
    SLURM_SETTLE_S = 30,    /* from exit.json to Slurm's word that the job is over, at most */
    SLURM_AGAIN_MS = 10000, /* between two cancellations or submissions of one attempt */
    SLURM_ATTEMPT_IDLE_MS = 60000 /* an attempt that nobody asked for is dropped from memory */
};

struct slurm;

/* config must outlive it. */
int slurm_create(struct slurm **out, const struct slurm_config *config, struct loop *loop,
                 struct err *err);
void slurm_destroy(struct slurm *slurm);

/* To be told of every child that waitpid gave. */
void slurm_reaped(struct slurm *slurm, pid_t pid, int status);

/* True while Slurm answers or has not been asked. */
bool slurm_reached(const struct slurm *slurm);

/* launcher_slurm.c: the launcher's functions. launch->slurm may be NULL, which is ERR_CONFLICT.
 */
extern const struct launcher launcher_slurm;

#endif
