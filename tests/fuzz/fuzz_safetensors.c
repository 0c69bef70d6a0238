/* safetensors: whatever is accepted can be read whole and found by name, and the tensors fill
 * the data. */
#include "proto/format/safetensors.h"
#include "tests/fuzz/fuzz.h"
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct st_file *file = NULL;
    struct err err = {0};
    int rc = st_open(&file, fuzz_file(data, size), &err);
    FUZZ_CHECK((rc == 0) == (file != NULL) && (rc == 0 || err.text[0] != '\0'));
    if (rc)
        return 0;
    fuzz_accepted++;
    uint64_t end = 0;
    for (size_t i = 0; i < st_count(file); i++) {
        const struct st_tensor *tensor = st_tensor(file, i);
        uint64_t elements = 1;
        for (size_t d = 0; d < tensor->rank; d++)
            elements *= tensor->shape[d];
        FUZZ_CHECK(tensor->bytes == elements * st_type_bytes(tensor->type));
        FUZZ_CHECK(tensor->offset == end);
        FUZZ_CHECK(st_find(file, tensor->name) == tensor);
        fuzz_touch(st_data(file, tensor), (size_t)tensor->bytes);
        end += tensor->bytes;
    }
    FUZZ_CHECK(end < size);
    (void)st_metadata(file, "format");
    st_close(file);
    return 0;
}
