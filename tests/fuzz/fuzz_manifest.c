/* manifest.json in a folder that holds a.bin ("abc"). */
#include "proto/base/fsx.h"
#include "proto/format/manifest.h"
#include "tests/fuzz/fuzz.h"
#include <unistd.h>

/* The folder; its manifest.json is a link to the file in memory: writing to a disk is slow. */
static const char *checkpoint(const char *manifest)
{
    static char path[FSX_PATH_MAX];
    char file[FSX_PATH_MAX];
    if (path[0] == '\0') {
        FUZZ_CHECK(fsx_path(path, NULL, "%s/step", fuzz_folder()) == 0);
        FUZZ_CHECK(fsx_mkdirs(path, 0700, NULL) == 0);
        FUZZ_CHECK(fsx_path(file, NULL, "%s/a.bin", path) == 0);
        FUZZ_CHECK(fsx_publish(file, "abc", 3, 0600, NULL) == 0);
        FUZZ_CHECK(fsx_path(file, NULL, "%s/manifest.json", path) == 0);
        FUZZ_CHECK(symlink(manifest, file) == 0);
    }
    return path;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t bytes = 0;
    struct err err = {0};
    int rc = manifest_verify(checkpoint(fuzz_file(data, size)), &bytes, &err);
    FUZZ_CHECK(rc == 0 || err.text[0] != '\0');
    if (rc == 0) {
        fuzz_accepted++;
        FUZZ_CHECK(bytes == 0 || bytes == 3); /* a.bin is all that can be listed */
    }
    return 0;
}
