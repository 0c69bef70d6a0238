/* One line of events.jsonl. */
#include "proto/msg/event.h"
#include "tests/fuzz/fuzz.h"
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct event event;
    struct err err = {0};
    int rc = event_parse(&event, (const char *)data, size, &err);
    if (rc) {
        FUZZ_CHECK(err.text[0] != '\0');
        return 0;
    }
    fuzz_accepted++;
    FUZZ_CHECK(event.seq > 0 && event.json != NULL && strlen(event.type) > 0);
    event_release(&event);
    return 0;
}
