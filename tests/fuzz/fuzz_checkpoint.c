/* A checkpoint's train.json (first byte T) and its weights (M) without the manifest's digests,
 * which whoever forges one can make: what is accepted is a legal shape, a bounded guard, legal
 * codes, and no memory is taken for a shape that the file cannot hold. The engine is the double
 * one. */
#include "engine/checkpoint_files.h"
#include "tests/fuzz/fuzz.h"
#include <math.h>
#include <string.h>
#include <unistd.h>

/* Memory that a shape may take here for a file of `size` bytes. */
enum { SLACK = 64 };

static const char *checkpoint(const char *train)
{
    static char path[FSX_PATH_MAX];
    char file[FSX_PATH_MAX];
    if (path[0] == '\0') {
        FUZZ_CHECK(fsx_path(path, NULL, "%s/step", fuzz_folder()) == 0);
        FUZZ_CHECK(fsx_mkdirs(path, 0700, NULL) == 0);
        FUZZ_CHECK(fsx_path(file, NULL, "%s/%s", path, CHECKPOINT_TRAIN_FILE) == 0);
        FUZZ_CHECK(symlink(train, file) == 0);
    }
    return path;
}

static void fuzz_train(const uint8_t *data, size_t size)
{
    struct checkpoint_info info;
    struct err err = {0};
    const char *file = fuzz_file(data, size);
    int rc = checkpoint_describe(&info, checkpoint(file), &err);
    FUZZ_CHECK(rc == 0 || err.text[0] != '\0');
    if (rc != 0)
        return;
    fuzz_accepted++;
    FUZZ_CHECK(info.guard.count <= GUARD_WINDOW_MAX && info.guard.next <= GUARD_WINDOW_MAX);
    for (size_t i = 0; i < info.guard.count; i++)
        FUZZ_CHECK(isfinite(info.guard.losses[i]));
    FUZZ_CHECK(memchr(info.method, '\0', sizeof info.method) != NULL);
    if (model_shape_check(&info.shape, &err) == 0 &&
        checkpoint_size_check(&info.shape, file, &err) == 0) {
        struct model_bytes bytes;
        model_sizes(&bytes, "ref", 1, &info.shape, 1, 1, false);
        FUZZ_CHECK(bytes.weights <= SLACK * (size + 4096));
    }
}

/* One model for all inputs: 1:4, a layer, both kinds of parameters. */
static struct model *model_of(struct device **dev)
{
    static struct device *device;
    static struct model *model;
    const struct model_shape shape = {.hidden = 8,
                                      .intermediate = 8,
                                      .layers = 1,
                                      .heads = 2,
                                      .kv_heads = 1,
                                      .vocab = 5,
                                      .context = 4,
                                      .rope_theta = 10000,
                                      .norm_eps = 1e-6,
                                      .n = 1,
                                      .m = 4};
    if (!model) {
        FUZZ_CHECK(device_create(&device, "ref", NULL, NULL) == 0);
        FUZZ_CHECK(model_create(&model, device, &shape, 1, 4, false, NULL) == 0);
    }
    *dev = device;
    return model;
}

static void fuzz_weights(const uint8_t *data, size_t size)
{
    struct device *dev;
    struct model *model = model_of(&dev);
    struct checkpoint_tensors tensors;
    struct err err = {0};
    FUZZ_CHECK(checkpoint_model_tensors(&tensors, model, &err) == 0);
    int rc = checkpoint_tensors_read(&tensors, fuzz_file(data, size), &err);
    FUZZ_CHECK(rc == 0 || err.text[0] != '\0');
    checkpoint_tensors_release(&tensors);
    for (size_t i = 0; rc == 0 && i < model->param_count; i++)
        if (model->params[i].nm)
            rc = nm_check(model->params[i].nm, &err);
    if (rc != 0)
        return;
    fuzz_accepted++;
    const int32_t tokens[4] = {0, 4, 2, 1}, targets[4] = {4, 2, 1, 3};
    real losses[4];
    model_repack(model);
    model_loss(model, tokens, targets, losses, 1, 4); /* every weight and code is used */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 0 && data[0] == 'T')
        fuzz_train(data + 1, size - 1);
    else if (size > 0 && data[0] == 'M')
        fuzz_weights(data + 1, size - 1);
    return 0;
}
