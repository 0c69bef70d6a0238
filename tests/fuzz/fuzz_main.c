/* Runs a fuzz target over its committed corpus and over mutations that are the same in every
 * run: fuzz_replay_NAME CORPUS MUTATIONS so that targets and parsers are exercised in builds
 * without libFuzzer. */
#include "proto/base/buf.h"
#include "proto/base/fsx.h"
#include "tests/fuzz/fuzz.h"
#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEEDS_MAX = 256, SEED_BYTES_MAX = 64 * 1024, EDITS_MAX = 6 };

struct seeds {
    struct buf items[SEEDS_MAX];
    size_t count;
};

/* SplitMix64 (Steele, Lea, Flood 2014): small, and the same everywhere. */
static uint64_t random_next(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static size_t below(uint64_t *state, size_t limit) /* limit > 0 */
{
    return (size_t)(random_next(state) % limit);
}

static int read_seeds(struct seeds *seeds, const char *folder)
{
    struct dirent **entries;
    int count = scandir(folder, &entries, NULL, alphasort);
    if (count < 0) {
        perror(folder);
        return -1;
    }
    int rc = 0;
    for (int i = 0; i < count; i++) {
        char path[FSX_PATH_MAX];
        struct err err = {0};
        if (entries[i]->d_name[0] != '.' && seeds->count < SEEDS_MAX && !rc) {
            struct buf *seed = &seeds->items[seeds->count++];
            buf_init(seed, SEED_BYTES_MAX);
            rc = fsx_path(path, &err, "%s/%s", folder, entries[i]->d_name);
            if (!rc)
                rc = fsx_read(seed, path, &err);
            if (rc)
                fprintf(stderr, "%s\n", err.text);
        }
        free(entries[i]);
    }
    free(entries);
    if (!rc && seeds->count == 0) {
        fprintf(stderr, "%s holds no seed\n", folder);
        rc = -1;
    }
    return rc;
}

/* Changes bytes[0..size) in one way of seven; returns the new size, at most SEED_BYTES_MAX. */
static size_t edit(uint8_t *bytes, size_t size, const struct buf *other, uint64_t *state)
{
    static const uint64_t numbers[] = {
        0, 1, 2, 127, 128, 255, 65535, UINT32_MAX, UINT64_C(1) << 53, INT64_MAX, UINT64_MAX};
    size_t at = size ? below(state, size) : 0, length = size - at;
    uint64_t number = numbers[below(state, sizeof(numbers) / sizeof(numbers[0]))];
    switch (random_next(state) % 7) {
    case 0: /* flip a bit */
        if (size)
            bytes[at] = (uint8_t)(bytes[at] ^ 1u << below(state, 8));
        return size;
    case 1: /* any byte */
        if (size)
            bytes[at] = (uint8_t)random_next(state);
        return size;
    case 2: /* cut the end off */
        return at;
    case 3: /* take a part out */
        length = length ? below(state, length) : 0;
        memmove(bytes + at, bytes + at + length, size - at - length);
        return size - length;
    case 4: /* repeat a part */
        if (length > SEED_BYTES_MAX - size)
            length = SEED_BYTES_MAX - size;
        memmove(bytes + at + length, bytes + at, size - at);
        return size + length;
    case 5: /* an integer at a bound, of 1, 2, 4 or 8 bytes */
        length = (size_t)1 << below(state, 4);
        if (size - at >= length)
            memcpy(bytes + at, &number, length);
        return size;
    default: /* go on as another seed does */
        if (other->len <= at)
            return size;
        memcpy(bytes + at, other->data + at, other->len - at);
        return other->len;
    }
}

static void run_mutations(const struct seeds *seeds, size_t count)
{
    /* inputs are copied to blocks of their own size: a read past the end is found by the
     * sanitizer */
    uint8_t *work = malloc(SEED_BYTES_MAX);
    FUZZ_CHECK(work != NULL);
    uint64_t state = 1;
    for (size_t i = 0; i < count; i++) {
        const struct buf *seed = &seeds->items[i % seeds->count];
        size_t size = seed->len;
        if (size > 0)
            memcpy(work, seed->data, size);
        for (size_t edits = 1 + below(&state, EDITS_MAX); edits > 0; edits--)
            size = edit(work, size, &seeds->items[below(&state, seeds->count)], &state);
        uint8_t *input = malloc(size ? size : 1);
        FUZZ_CHECK(input != NULL);
        memcpy(input, work, size);
        LLVMFuzzerTestOneInput(input, size);
        free(input);
    }
    free(work);
}

int main(int argc, char **argv)
{
    static struct seeds seeds;
    if (argc != 3) {
        fprintf(stderr, "usage: %s CORPUS MUTATIONS\n", argv[0]);
        return 2;
    }
    int rc = read_seeds(&seeds, argv[1]);
    for (size_t i = 0; i < seeds.count && !rc; i++)
        LLVMFuzzerTestOneInput((const uint8_t *)seeds.items[i].data, seeds.items[i].len);
    if (!rc && fuzz_accepted == 0) {
        fprintf(stderr, "%s: the parser took none of the %zu seeds\n", argv[1], seeds.count);
        rc = -1;
    }
    if (!rc)
        run_mutations(&seeds, strtoul(argv[2], NULL, 10));
    printf("%zu seeds, %s mutations, %zu inputs were legal\n", seeds.count, argv[2],
           fuzz_accepted);
    for (size_t i = 0; i < seeds.count; i++)
        buf_release(&seeds.items[i]);
    return rc ? 1 : 0;
}
