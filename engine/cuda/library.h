/* Libraries of the CUDA family are loaded at run time, so that the programs start on machines without them and without a
 * driver, and a job that needs one gets a message instead. Headers give the types at build time. */
#ifndef HEBB_ENGINE_CUDA_LIBRARY_H
#define HEBB_ENGINE_CUDA_LIBRARY_H

#include "proto/base/err.h"

struct library_symbol {
    const char *name;
    void *at; /* address of the function pointer to set */
};

/* Opens a library by its soname where the loader finds it, else in the folder that the build found it in. Sets the symbols; the
 * last has name NULL. ERR_UNSUPPORTED names library and reason. *out is closed by library_close. */
int library_open(void **out, const char *soname, const struct library_symbol *symbols, struct err *err);
void library_close(void *library);

#endif
