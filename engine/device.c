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
#ifdef HEBB_CUDA
    &device_cuda,
    &device_cuda_fp32,
#endif
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
    return err_set(err, ERR_UNSUPPORTED, "/resources/device is \"%s\": this build has %s", name,
                   names);
}

int device_create(struct device **out, const char *name, struct pool *pool, struct err *err)
{
    return device_create_at(out, name, 0, pool, err);
}

int device_create_at(struct device **out, const char *name, unsigned index, struct pool *pool,
                     struct err *err)
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
    dev->index = index;
    dev->memory = row->memory;
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
    device_free(dev, dev->scratch);
    if (row->close)
        row->close(dev);
    free(dev);
}

const struct ops *device_ops(const char *name)
{
    const struct device_row *row = device_row_find(name);
    return row ? row->ops : NULL;
}

int device_reserve(struct device *dev, const struct device_limits *limits, struct err *err)
{
    const struct device_row *row = device_row_of(dev);
    size_t bytes = row->scratch_bytes(limits, pool_threads(dev->pool));
    int rc = row->admit ? row->admit(limits, err) : 0;
    if (rc != 0)
        return rc;
    if (bytes <= dev->scratch_bytes)
        return 0;
    void *scratch = bytes == SIZE_MAX ? NULL : device_alloc(dev, bytes, 1);
    if (!scratch)
        return err_set(err, ERR_NO_MEMORY,
                       "no memory for %zu bytes of scratch on device \"%s\"", bytes,
                       dev->ops->name);
    device_free(dev, dev->scratch);
    dev->scratch = scratch;
    dev->scratch_bytes = bytes;
    return 0;
}

static const struct device_memory *memory_of(const struct device *dev)
{
    return dev->memory;
}

void *device_alloc(struct device *dev, size_t count, size_t size)
{
    const struct device_memory *memory = memory_of(dev);
    size_t bytes = 0;
    if (!memory)
        return mem_aligned(count, size);
    return size_mul(&bytes, count, size) ? memory->alloc(dev, bytes) : NULL;
}

void device_free(struct device *dev, void *memory)
{
    const struct device_memory *own = memory_of(dev);
    if (own)
        own->free(dev, memory);
    else
        mem_aligned_free(memory);
}

void device_push(struct device *dev, const void *memory, size_t bytes)
{
    const struct device_memory *own = memory_of(dev);
    if (own && bytes > 0)
        own->push(dev, memory, bytes);
}

void device_pull(struct device *dev, const void *memory, size_t bytes)
{
    const struct device_memory *own = memory_of(dev);
    if (own && bytes > 0)
        own->pull(dev, memory, bytes);
}

void device_zero(struct device *dev, void *memory, size_t bytes)
{
    const struct device_memory *own = memory_of(dev);
    if (own && bytes > 0)
        own->zero(dev, memory, bytes);
    else
        memset(memory, 0, bytes);
}

bool device_shares_memory(const struct device *dev) { return memory_of(dev) == NULL; }

void *device_address(struct device *dev, const void *memory)
{
    const struct device_memory *own = memory_of(dev);
    return own ? own->address(dev, memory) : (void *)(uintptr_t)memory;
}

void *device_queue(struct device *dev)
{
    const struct device_memory *own = memory_of(dev);
    return own ? own->queue(dev) : NULL;
}

bool device_choice(const struct device *dev, size_t index, char *text, size_t size)
{
    const struct device_row *row = device_row_of(dev);
    return row->choice && row->choice(dev, index, text, size);
}

int device_check(struct device *dev, struct err *err)
{
    const struct device_memory *own = memory_of(dev);
    return own ? own->check(dev, err) : 0;
}

size_t device_scratch_bytes(const char *name, const struct device_limits *limits,
                            unsigned threads)
{
    const struct device_row *row = device_row_find(name);
    return row ? row->scratch_bytes(limits, threads) : 0;
}
