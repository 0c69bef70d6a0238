/* Training data: token streams from text files and shards, cut into windows, drawn in a
 * shuffled order that is a pure function of (seed, position). */
#ifndef HEBB_ENGINE_DATA_H
#define HEBB_ENGINE_DATA_H

#include "proto/base/err.h"
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum dataset_split { SPLIT_TRAIN, SPLIT_VALIDATION };

/* Byte tokenizer: token = byte, DATA_SEPARATOR ends every document. */
enum { DATA_SEPARATOR = 256, DATA_BYTES_VOCAB = 257 };

struct dataset_config {
    const char *const *train; /* files, folders (walked, sorted by path), globs */
    size_t train_count;
    const char *const *validation;
    size_t validation_count;    /* 0: hold validation_fraction of train out */
    double validation_fraction; /* 0: no validation split */
    const char *format; /* auto | text | shards | hebb | llmc | raw-uint16 | raw-uint32 */
    size_t context;     /* window = context inputs and as many targets, one further on */
    size_t vocab;       /* every token must be below */
    uint64_t seed;
    _Atomic uint64_t *progress; /* counted up as the check goes on; may be NULL */
};

struct dataset; /* opaque; keeps the descriptors of its first files, opens the others for each
                   read */

/* Opens, checks and indexes all files; each fault (missing, empty, truncated, token >= vocab,
 * too short for one window) names file and reason. rank/world share the token check and the
 * shards' checksums: each rank reads its part, so that a fault may be seen by one rank only and
 * the ranks must agree on the outcome.
 *
 * Window w of a stream covers tokens [w * context, (w + 1) * context]: neighbours share one
 * token, as input of the one and target of the other; a last part is dropped. data_order.h says
 * which windows are held out and in which order the others are drawn. */
int dataset_open(struct dataset **out, const struct dataset_config *config, int rank, int world,
                 struct err *err);
void dataset_close(struct dataset *data);

size_t dataset_windows(const struct dataset *data, enum dataset_split split);
/* Targets of all windows of the split: windows * context. */
uint64_t dataset_tokens(const struct dataset *data, enum dataset_split split);

/* What tells the files of two attempts of a job apart without reading them. */
struct dataset_extent {
    uint64_t tokens; /* of all files, training and validation */
    uint64_t files;  /* hash of every file's length in tokens, in their order */
};

void dataset_measure(const struct dataset *data, struct dataset_extent *out);

/* Window number `sample` of the endless shuffled order (train) or of file order (validation,
 * sample < windows): inputs, targets (context) each. Every epoch is another permutation of all
 * windows. Allocates nothing. ERR_IO, ERR_CORRUPT: a file was removed or shortened since.
 * ERR_LIMIT: sample in epoch 2^24 or later. */
int dataset_window(const struct dataset *data, enum dataset_split split, uint64_t sample,
                   int32_t *inputs, int32_t *targets, struct err *err);

#endif
