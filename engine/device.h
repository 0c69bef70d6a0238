/* Inside the engine's devices: what a device adds to the table in device.c. Others include
 * ops.h. */
#ifndef HEBB_ENGINE_DEVICE_H
#define HEBB_ENGINE_DEVICE_H

#include "engine/ops.h"

struct device_row {
    const char *name;
    const struct ops *ops;
    /* Bytes of scratch for these limits and threads; SIZE_MAX on overflow. */
    size_t (*scratch_bytes)(const struct device_limits *limits, unsigned threads);
    /* Sets up and releases dev->ops and dev->private_data beyond the row's ops; both may be
     * NULL. */
    int (*open)(struct device *dev, struct err *err);
    void (*close)(struct device *dev);
};

extern const struct device_row device_ref;
#ifndef HEBB_REAL_DOUBLE
extern const struct device_row device_cpu; /* float only */
#endif

#endif
