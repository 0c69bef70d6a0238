#include "engine/guard.h"

#include <assert.h>
#include <math.h>
#include <string.h>

const char *const guard_verdict_names[] = {"accepted", "nonfinite", "spike", "ranks_disagree",
                                           NULL};

/* Standard deviations of a normal distribution in one median absolute deviation. */
static const double MAD_SCALE = 1.4826;

static uint64_t bits_of(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* An exponent of all ones. */
static bool bits_finite(double value)
{
    const uint64_t exponent = UINT64_C(0x7ff) << 52;
    return (bits_of(value) & exponent) != exponent;
}

/* Shell 1959 with Knuth's steps: small, in place, and without qsort's memory. */
static void sort(double *values, size_t count)
{
    size_t step = 1;
    while (step < count / 3)
        step = 3 * step + 1;
    for (; step > 0; step /= 3) {
        for (size_t i = step; i < count; i++) {
            const double value = values[i];
            size_t at = i;
            for (; at >= step && values[at - step] > value; at -= step)
                values[at] = values[at - step];
            values[at] = value;
        }
    }
}

/* values (count >= 1) are sorted. */
static double median(double *values, size_t count)
{
    sort(values, count);
    const double upper = values[count / 2];
    if (count % 2 == 1)
        return upper;
    const double lower = values[count / 2 - 1];
    return lower + (upper - lower) / 2;
}

double guard_limit(const struct guard *guard, const struct guard_config *config)
{
    double values[GUARD_WINDOW_MAX];
    if (config->window == 0 || guard->count == 0 || 2 * guard->count < config->window)
        return (double)INFINITY;
    memcpy(values, guard->losses, guard->count * sizeof *values);
    const double middle = median(values, guard->count);
    for (size_t i = 0; i < guard->count; i++)
        values[i] = fabs(values[i] - middle);
    const double spread = config->factor * MAD_SCALE * median(values, guard->count);
    return middle + (spread > config->rise ? spread : config->rise);
}

enum guard_verdict guard_judge(const struct guard *guard, const struct guard_config *config,
                               double loss, double norm)
{
    if (!bits_finite(loss) || !bits_finite(norm))
        return GUARD_NONFINITE;
    return loss > guard_limit(guard, config) ? GUARD_SPIKE : GUARD_ACCEPTED;
}

int guard_agree(struct comm *comm, double loss, double norm, enum guard_verdict *verdict,
                struct err *err)
{
    const uint64_t bits[2] = {bits_of(loss), bits_of(norm)};
    /* The maximum of the complements is the complement of the minimum. */
    uint64_t most[5] = {bits[0], bits[1], ~bits[0], ~bits[1],
                        !bits_finite(loss) || !bits_finite(norm)};
    *verdict = GUARD_ACCEPTED;
    if (comm->size == 1)
        return 0;
    int rc = comm->ops->max_u64(comm, most, sizeof most / sizeof *most, err);
    if (rc == 0 && most[4] != 0)
        *verdict = GUARD_NONFINITE;
    else if (rc == 0 && (most[0] != ~most[2] || most[1] != ~most[3]))
        *verdict = GUARD_DISAGREE;
    return rc;
}

void guard_accept(struct guard *guard, const struct guard_config *config, double loss)
{
    guard->streak = 0;
    if (config->window == 0)
        return;
    assert(config->window <= GUARD_WINDOW_MAX && guard->next < config->window);
    guard->losses[guard->next] = loss;
    guard->next = (guard->next + 1) % config->window;
    guard->count += guard->count < config->window;
}

void guard_reject(struct guard *guard)
{
    guard->skipped++;
    guard->streak++;
}

enum guard_action guard_next(const struct guard *guard, const struct guard_config *config,
                             enum guard_verdict verdict)
{
    if (guard->streak <= config->skips)
        return GUARD_GO_ON;
    if (guard->rollbacks < config->rollbacks)
        return GUARD_ROLL_BACK;
    return verdict == GUARD_SPIKE ? GUARD_ACCEPT : GUARD_GIVE_UP;
}

void guard_forget(struct guard *guard)
{
    guard->count = guard->next = 0;
    guard->streak = 0;
}

void guard_rolled_back(struct guard *guard, const struct guard *before, size_t from, size_t to)
{
    assert(to <= from);
    guard->skipped = before->skipped + (from - to);
    guard->rollbacks = before->rollbacks + 1;
    guard->streak = 0;
}
