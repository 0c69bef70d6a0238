/* The data set: streams, their split into windows, and the order in which windows are drawn. */
#include "engine/data.h"
#include "engine/data_order.h"
#include "engine/data_stream.h"
#include "proto/base/mem.h"
#include "proto/format/digest.h"
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

struct dataset {
    struct data_stream train;
    struct data_stream validation; /* empty unless files of its own were named */
    struct data_holdout holdout;   /* of the windows of train */
    uint64_t validation_windows;   /* of the validation stream */
    size_t context;
    uint64_t seed;
};

/* Window w covers tokens [w * context, (w + 1) * context]; a last part is dropped. */
static uint64_t window_count(const struct data_stream *stream, size_t context)
{
    return stream->tokens == 0 ? 0 : (stream->tokens - 1) / context;
}

static int check_length(const struct data_stream *stream, const char *field, size_t context,
                        struct err *err)
{
    if (window_count(stream, context) > 0)
        return 0;
    return err_set(err, ERR_INVALID,
                   "%s: %" PRIu64 " tokens in %zu files, one window of context %zu needs %zu",
                   field, stream->tokens, stream->paths.count, context, context + 1);
}

static int check_config(const struct dataset_config *config, struct err *err)
{
    if (config->train_count == 0)
        return err_set(err, ERR_INVALID, "data.train names no file");
    if (config->context < 1 || config->context >= INT32_MAX)
        return err_set(err, ERR_INVALID, "data: context %zu is not in [1, 2^31 - 2]",
                       config->context);
    if (config->vocab < 1 || config->vocab > INT32_MAX)
        return err_set(err, ERR_INVALID, "data: vocab %zu is not in [1, 2^31 - 1]",
                       config->vocab);
    if (!(config->validation_fraction >= 0 && config->validation_fraction <= 0.5))
        return err_set(err, ERR_INVALID, "data.validation_fraction %g is not in [0, 0.5]",
                       config->validation_fraction);
    return 0;
}

static int open_validation(struct dataset *data, const struct dataset_config *config,
                           struct err *err)
{
    int rc = data_stream_init(&data->validation, config->validation, config->validation_count,
                              config->format ? config->format : "auto", config->vocab, err);
    if (!rc)
        rc = check_length(&data->validation, "data.validation", config->context, err);
    if (!rc)
        data->validation_windows = window_count(&data->validation, config->context);
    return rc;
}

static int open_streams(struct dataset *data, const struct dataset_config *config,
                        struct err *err)
{
    int rc = data_stream_init(&data->train, config->train, config->train_count,
                              config->format ? config->format : "auto", config->vocab, err);
    if (!rc)
        rc = check_length(&data->train, "data.train", config->context, err);
    if (!rc && config->validation_count > 0)
        rc = open_validation(data, config, err);
    if (rc)
        return rc;
    const double fraction = config->validation_count > 0 ? 0 : config->validation_fraction;
    if (!data_holdout_init(&data->holdout, window_count(&data->train, config->context),
                           fraction))
        return err_set(err, ERR_INVALID,
                       "data.train: %" PRIu64 " tokens are one window of context %zu; holding "
                       "data.validation_fraction %g out needs %zu",
                       data->train.tokens, config->context, fraction, 2 * config->context + 1);
    return 0;
}

int dataset_open(struct dataset **out, const struct dataset_config *config, int rank, int world,
                 struct err *err)
{
    *out = NULL;
    int rc = check_config(config, err);
    if (rc)
        return rc;
    struct dataset *data = mem_zeroed(1, sizeof(*data));
    if (!data)
        return err_set(err, ERR_NO_MEMORY, "no memory for the data set");
    data->context = config->context;
    data->seed = config->seed;
    rc = open_streams(data, config, err);
    if (!rc)
        rc = data_stream_check(&data->train, config, rank, world, err);
    if (!rc)
        rc = data_stream_check(&data->validation, config, rank, world, err);
    if (rc)
        dataset_close(data);
    else
        *out = data;
    return rc;
}

void dataset_close(struct dataset *data)
{
    if (!data)
        return;
    data_stream_release(&data->train);
    data_stream_release(&data->validation);
    free(data);
}

size_t dataset_windows(const struct dataset *data, enum dataset_split split)
{
    if (split == SPLIT_VALIDATION && data->validation_windows > 0)
        return (size_t)data->validation_windows;
    return (size_t)data_holdout_count(&data->holdout, split);
}

uint64_t dataset_tokens(const struct dataset *data, enum dataset_split split)
{
    return (uint64_t)dataset_windows(data, split) * data->context;
}

static void measure_stream(const struct data_stream *stream, struct dataset_extent *out)
{
    const uint64_t head[2] = {stream->paths.count, stream->tokens};
    out->tokens += stream->tokens;
    out->files = digest_u64(head, sizeof head, out->files);
    for (size_t i = 0; i < stream->paths.count; i++)
        out->files = digest_u64(&stream->files[i].tokens, sizeof(uint64_t), out->files);
}

void dataset_measure(const struct dataset *data, struct dataset_extent *out)
{
    *out = (struct dataset_extent){0};
    measure_stream(&data->train, out);
    measure_stream(&data->validation, out);
}

int dataset_window(const struct dataset *data, enum dataset_split split, uint64_t sample,
                   int32_t *inputs, int32_t *targets, struct err *err)
{
    const uint64_t windows = dataset_windows(data, split);
    if (split == SPLIT_VALIDATION) {
        if (sample >= windows)
            return err_set(err, ERR_INVALID, "validation window %" PRIu64 " of %" PRIu64,
                           sample, windows);
        const bool own = data->validation_windows > 0;
        uint64_t window = own ? sample : data_holdout_window(&data->holdout, split, sample);
        return data_stream_window(own ? &data->validation : &data->train,
                                  window * data->context, data->context, inputs, targets, err);
    }
    const uint64_t epoch = sample / windows;
    if (epoch >= DATA_EPOCHS_MAX)
        return err_set(err, ERR_LIMIT,
                       "training sample %" PRIu64 " is in epoch %" PRIu64 ", at most %" PRIu64
                       " are drawn",
                       sample, epoch, DATA_EPOCHS_MAX);
    uint64_t index =
        data_permute(data->seed, (uint32_t)split, epoch, sample % windows, windows);
    uint64_t window = data_holdout_window(&data->holdout, split, index);
    return data_stream_window(&data->train, window * data->context, data->context, inputs,
                              targets, err);
}
