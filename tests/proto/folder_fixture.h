/* A folder of its own for each test: make_folder and remove_folder as setup and teardown. */
#ifndef HEBB_TESTS_PROTO_FOLDER_FIXTURE_H
#define HEBB_TESTS_PROTO_FOLDER_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/base/fsx.h"
#include <stdlib.h>
#include <string.h>

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/hebb-proto-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return fsx_remove_tree(folder, NULL);
}

/* The path of a file there, in a static buffer. */
static const char *in_folder(const char *name)
{
    static char path[FSX_PATH_MAX];
    assert_int_equal(fsx_path(path, NULL, "%s/%s", folder, name), 0);
    return path;
}

#endif
