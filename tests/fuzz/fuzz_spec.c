/* A job's JSON: an accepted job prints as one that is accepted and prints the same; a refused
 * one has faults. */
#include "proto/msg/spec.h"
#include "tests/fuzz/fuzz.h"
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct spec_faults faults;
    static struct job_spec spec, again;
    struct err err = {0};
    faults.count = 0;
    int rc = spec_parse(&spec, (const char *)data, size, &faults, &err);
    if (rc) {
        FUZZ_CHECK(err.text[0] != '\0' && faults.count > 0);
        return 0;
    }
    fuzz_accepted++;
    struct buf first, second;
    buf_init(&first, 1 << 20);
    buf_init(&second, 1 << 20);
    spec_print(&spec, &first);
    FUZZ_CHECK(!first.failed);
    FUZZ_CHECK(spec_parse(&again, first.data, first.len, &faults, &err) == 0);
    spec_print(&again, &second);
    FUZZ_CHECK(first.len == second.len && memcmp(first.data, second.data, first.len) == 0);
    buf_release(&first);
    buf_release(&second);
    spec_release(&spec);
    spec_release(&again);
    return 0;
}
