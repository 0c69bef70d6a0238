/* The hash of a mask: what ranks compare after a refresh and what topology files carry. */
#define XXH_STATIC_LINKING_ONLY /* the state's size, so that hashing allocates nothing */
#include "proto/format/topology.h"
#include <assert.h>
#include <xxhash.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files and hashes are little-endian");

uint64_t topology_mask_hash(uint64_t dout, uint64_t din, uint64_t n, uint64_t m,
                            const uint16_t *codes, size_t count)
{
    const uint64_t head[4] = {dout, din, n, m};
    XXH3_state_t state;
    XXH3_INITSTATE(&state);
    XXH_errorcode status = XXH3_64bits_reset(&state);
    assert(status == XXH_OK);
    status = XXH3_64bits_update(&state, head, sizeof(head));
    assert(status == XXH_OK);
    if (count > 0) {
        status = XXH3_64bits_update(&state, codes, count * sizeof(*codes));
        assert(status == XXH_OK);
    }
    return XXH3_64bits_digest(&state);
}
