/* The table of devices and their life. */
#include "engine/device.h"
#include "proto/base/mem.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

static const struct device_row *const device_rows[] = {
    &device_ref,
#ifndef HEBB_REAL_DOUBLE
    &device_cpu,
#endif
};

enum { DEVICE_COUNT = sizeof device_rows / sizeof device_rows[0], DEVICE_NAMES_MAX = 128 };

static const struct device_row *device_row_find(const char *name)
{
    for (size_t i = 0; i < DEVICE_COUNT; i++)
        if (strcmp(device_rows[i]->name, name) == 0)
            return device_rows[i];
    return NULL;
}

static const struct device_row *device_row_of(const struct device *dev)
{
    const struct device_row *row = device_row_find(dev->ops->name);
    assert(row && "the ops of a device carry its row's name");
    return row;
}

static int device_unknown(const char *name, struct err *err)
{
    char names[DEVICE_NAMES_MAX] = "";
    for (size_t i = 0; i < DEVICE_COUNT; i++) {
        if (i > 0)
            strncat(names, ", ", sizeof names - strlen(names) - 1);
        strncat(names, device_rows[i]->name, sizeof names - strlen(names) - 1);
    }
    return err_set(err, ERR_UNSUPPORTED, "device \"%s\": this build has %s", name, names);
}

int device_create(struct device **out, const char *name, struct pool *pool, struct err *err)
{
    *out = NULL;
    const struct device_row *row = device_row_find(name);
    if (!row)
        return device_unknown(name, err);
    struct device *dev = mem_zeroed(1, sizeof *dev);
    if (!dev)
        return err_set(err, ERR_NO_MEMORY, "no memory for device \"%s\"", name);
    dev->ops = row->ops;
    dev->pool = pool;
    int code = row->open ? row->open(dev, err) : 0;
    if (code < 0) {
        free(dev);
        return code;
    }
    *out = dev;
    return 0;
}

void device_destroy(struct device *dev)
{
    if (!dev)
        return;
    const struct device_row *row = device_row_of(dev);
    if (row->close)
        row->close(dev);
    mem_aligned_free(dev->scratch);
    free(dev);
}

const struct ops *device_ops(const char *name)
{
    const struct device_row *row = device_row_find(name);
    return row ? row->ops : NULL;
}

int device_reserve(struct device *dev, const struct device_limits *limits, struct err *err)
{
    size_t bytes = device_row_of(dev)->scratch_bytes(limits, pool_threads(dev->pool));
    if (bytes <= dev->scratch_bytes)
        return 0;
    void *scratch = bytes == SIZE_MAX ? NULL : mem_aligned(bytes, 1);
    if (!scratch)
        return err_set(err, ERR_NO_MEMORY,
                       "no memory for %zu bytes of scratch on device \"%s\"", bytes,
                       dev->ops->name);
    mem_aligned_free(dev->scratch);
    dev->scratch = scratch;
    dev->scratch_bytes = bytes;
    return 0;
}

size_t device_scratch_bytes(const char *name, const struct device_limits *limits,
                            unsigned threads)
{
    const struct device_row *row = device_row_find(name);
    return row ? row->scratch_bytes(limits, threads) : 0;
}
