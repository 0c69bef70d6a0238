#include "engine/cuda/library.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

enum { PATH_BYTES = 4096 };

/* Folders that the build found the libraries in, separated by colons. */
static const char folders[] = HEBB_CUDA_FOLDERS;

static void *open_in_folders(const char *soname)
{
    char path[PATH_BYTES];
    for (const char *at = folders; *at;) {
        const size_t length = strcspn(at, ":");
        if (snprintf(path, sizeof path, "%.*s/%s", (int)length, at, soname) < PATH_BYTES) {
            void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
            if (library)
                return library;
        }
        at += length + (at[length] == ':');
    }
    return NULL;
}

int library_open(void **out, const char *soname, const struct library_symbol *symbols,
                 struct err *err)
{
    *out = dlopen(soname, RTLD_NOW | RTLD_LOCAL);
    if (!*out)
        *out = open_in_folders(soname);
    if (!*out)
        return err_set(err, ERR_UNSUPPORTED, "%s: %s", soname, dlerror());
    for (; symbols->name; symbols++) {
        void *symbol = dlsym(*out, symbols->name);
        if (!symbol) {
            int rc = err_set(err, ERR_UNSUPPORTED, "%s has no %s", soname, symbols->name);
            library_close(*out);
            *out = NULL;
            return rc;
        }
        memcpy(symbols->at, &symbol, sizeof symbol);
    }
    return 0;
}

void library_close(void *library)
{
    if (library)
        dlclose(library);
}
