/* What the fuzz targets share. Each fuzz_NAME.c holds one target over one parser; the same
 * object runs under libFuzzer (clang, HEBB_FUZZ=ON) and in fuzz_main.c's replay of the corpus,
 * in every build. */
#ifndef HEBB_TESTS_FUZZ_H
#define HEBB_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Inputs that the parser under test took as legal; the replay fails if no seed is. */
extern size_t fuzz_accepted;

/* The path of a file in memory that holds these bytes until the next call. */
const char *fuzz_file(const void *data, size_t size);

/* A folder of this process under TMPDIR or /tmp, removed at exit. */
const char *fuzz_folder(void);

/* Ends the process with a message unless the condition holds: a finding. */
#define FUZZ_CHECK(condition)                                                                  \
    do {                                                                                       \
        if (!(condition))                                                                      \
            fuzz_fail(__FILE__, __LINE__, #condition);                                         \
    } while (0)
_Noreturn void fuzz_fail(const char *file, int line, const char *condition);

/* Reads every byte, so that a pointer past the map or the heap block is found; returns a sum
 * that keeps the compiler from leaving it out. */
uint64_t fuzz_touch(const void *data, size_t size);

#endif
