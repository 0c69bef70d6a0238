/* manifest.json in a folder that holds a.bin ("abc"). */
#include "proto/base/fsx.h"
#include "proto/format/manifest.h"
#include "tests/fuzz/fuzz.h"
#include <fcntl.h>
#include <unistd.h>

static const char *checkpoint(void)
{
    static char path[FSX_PATH_MAX];
    char file[FSX_PATH_MAX];
    if (path[0] == '\0') {
        FUZZ_CHECK(fsx_path(path, NULL, "%s/step", fuzz_folder()) == 0);
        FUZZ_CHECK(fsx_mkdirs(path, 0700, NULL) == 0);
        FUZZ_CHECK(fsx_path(file, NULL, "%s/a.bin", path) == 0);
        FUZZ_CHECK(fsx_publish(file, "abc", 3, 0600, NULL) == 0);
    }
    return path;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[FSX_PATH_MAX];
    uint64_t bytes = 0;
    struct err err = {0};
    FUZZ_CHECK(fsx_path(path, NULL, "%s/manifest.json", checkpoint()) == 0);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    FUZZ_CHECK(fd >= 0);
    FUZZ_CHECK(fsx_write_all(fd, data, size, NULL) == 0);
    close(fd);
    int rc = manifest_verify(checkpoint(), &bytes, &err);
    FUZZ_CHECK(rc == 0 || err.text[0] != '\0');
    if (rc == 0) {
        fuzz_accepted++;
        FUZZ_CHECK(bytes == 0 || bytes == 3); /* a.bin is all that can be listed */
    }
    return 0;
}
