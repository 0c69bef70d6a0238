/* adapter.safetensors of a model's folder: the branches of every target, in fp32, each under
 * its parameter's name and B as (dout, rank), as others know it. */
#ifndef HEBB_ENGINE_ADAPTER_FILE_H
#define HEBB_ENGINE_ADAPTER_FILE_H

#include "engine/model.h"

/* Writes folder/adapter.safetensors; the model has an adapter. */
int adapter_file_write(const struct model *model, const char *folder, struct err *err);

/* Reads it into a model whose shape has that adapter. ERR_CORRUPT unless every part is there in
 * its shape. */
int adapter_file_read(struct model *model, const char *folder, struct err *err);

#endif
