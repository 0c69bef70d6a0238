/* Inside the engine's devices: what a device adds to the table in device.c. Others include
 * ops.h. */
#ifndef HEBB_ENGINE_DEVICE_H
#define HEBB_ENGINE_DEVICE_H

#include "engine/ops.h"

/* Memory of a device that is not the host's; the contract is that of device_alloc and so on in ops.h. */
struct device_memory {
    void *(*alloc)(struct device *dev, size_t bytes);
    void (*free)(struct device *dev, void *memory);
    void (*push)(struct device *dev, const void *memory, size_t bytes);
    void (*pull)(struct device *dev, const void *memory, size_t bytes);
    void (*zero)(struct device *dev, void *memory, size_t bytes);
    int (*check)(struct device *dev, struct err *err);
    void *(*address)(struct device *dev, const void *memory);
    void *(*queue)(struct device *dev);
};

struct device_row {
    const char *name;
    const struct ops *ops;
    /* Bytes of scratch for these limits and threads; SIZE_MAX on overflow. */
    size_t (*scratch_bytes)(const struct device_limits *limits, unsigned threads);
    /* ERR_UNSUPPORTED for limits that the device's ops do not take; may be NULL. */
    int (*admit)(const struct device_limits *limits, struct err *err);
    /* Sets up and releases dev->ops and dev->private_data beyond the row's ops; both may be
     * NULL. */
    int (*open)(struct device *dev, struct err *err);
    void (*close)(struct device *dev);
    const struct device_memory *memory; /* NULL: the host's */
    bool (*choice)(const struct device *dev, size_t index, char *text, size_t size); /* may be NULL */
};

extern const struct device_row device_ref;
#ifndef HEBB_REAL_DOUBLE
extern const struct device_row device_cpu; /* float only */
#ifdef HEBB_CUDA
extern const struct device_row device_cuda, device_cuda_fp32;
#endif
#endif

#endif
