/* The data set: exact tokens, every kind of file, every bad file, the same order for everyone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/data.h"
#include "engine/data_paths.h"
#include "engine/data_stream.h"
#include "proto/base/fsx.h"
#include "proto/format/shard.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CONTEXT = 4 };

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/hebb-data-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return fsx_remove_tree(folder, NULL);
}

/* A few paths may be alive at once. */
static const char *in_folder(const char *name)
{
    static char paths[8][FSX_PATH_MAX];
    static unsigned next;
    char *path = paths[next++ % 8];
    assert_int_equal(fsx_path(path, NULL, "%s/%s", folder, name), 0);
    return path;
}

static void put_bytes(const char *name, const void *data, size_t bytes)
{
    int fd = open(in_folder(name), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(fsx_write_all(fd, data, bytes, NULL), 0);
    close(fd);
}

static void put(const char *name, const char *text) { put_bytes(name, text, strlen(text)); }

static void put_shard(const char *name, unsigned token_bytes, uint64_t vocab, uint32_t tokens)
{
    struct shard_writer *writer = NULL;
    assert_int_equal(shard_writer_open(&writer, in_folder(name), token_bytes, vocab, "x", NULL),
                     0);
    for (uint32_t t = 0; t < tokens; t++) {
        uint32_t token = (uint32_t)(t % vocab);
        assert_int_equal(shard_writer_add(writer, &token, 1, false, NULL), 0);
    }
    assert_int_equal(shard_writer_finish(writer, NULL), 0);
}

static struct dataset_config config_of(const char *const *train, size_t count)
{
    return (struct dataset_config){.train = train,
                                   .train_count = count,
                                   .format = "auto",
                                   .context = CONTEXT,
                                   .vocab = DATA_BYTES_VOCAB,
                                   .seed = 1};
}

static struct dataset *open_fine(const struct dataset_config *config)
{
    struct dataset *data = NULL;
    struct err err = {0};
    if (dataset_open(&data, config, 0, 1, &err))
        fail_msg("%s", err.text);
    return data;
}

static void refuses(const struct dataset_config *config, int code, const char *reason)
{
    struct dataset *data = NULL;
    struct err err = {0};
    assert_int_equal(dataset_open(&data, config, 0, 1, &err), code);
    assert_null(data);
    if (!strstr(err.text, reason))
        fail_msg("'%s' does not say '%s'", err.text, reason);
}

static void refuses_file(const char *name, int code, const char *reason)
{
    const char *train[] = {in_folder(name)};
    const struct dataset_config config = config_of(train, 1);
    refuses(&config, code, reason);
    refuses(&config, code, name);
}

/* The whole stream as tokens, from the windows of a data set in which nothing is shuffled. */
static size_t stream_of(const char *const *paths, size_t count, const char *format,
                        size_t vocab, int32_t *out, size_t capacity)
{
    put("train-aside.txt", "aside aside aside");
    const char *train[] = {in_folder("train-aside.txt")};
    struct dataset_config config = config_of(train, 1);
    config.validation = paths;
    config.validation_count = count;
    config.context = 1;
    config.vocab = vocab;
    config.format = format;
    if (strcmp(format, "auto") != 0 && strcmp(format, "text") != 0) {
        config.train = paths;
        config.train_count = count;
    }
    struct dataset *data = open_fine(&config);
    size_t windows = dataset_windows(data, SPLIT_VALIDATION);
    assert_true(windows < capacity);
    for (size_t w = 0; w < windows; w++)
        assert_int_equal(dataset_window(data, SPLIT_VALIDATION, w, &out[w], &out[w + 1], NULL),
                         0);
    dataset_close(data);
    return windows + 1;
}

static void documents_are_bytes_that_end_with_a_separator(void **state)
{
    (void)state;
    put("a.txt", "ab");
    put("b.txt", "\xff");
    put("c.txt", "cde");
    const char *paths[] = {in_folder("a.txt"), in_folder("b.txt"), in_folder("c.txt")};
    int32_t tokens[32];
    const int32_t expected[] = {'a', 'b', 256, 255, 256, 'c', 'd', 'e', 256};
    assert_int_equal(stream_of(paths, 3, "auto", 257, tokens, 32), 9);
    assert_memory_equal(tokens, expected, sizeof(expected));
}

static void windows_cross_documents_and_share_one_token(void **state)
{
    (void)state;
    put("a.txt", "ab");
    put("b.txt", "cdefgh");
    const char *paths[] = {in_folder("a.txt"), in_folder("b.txt")};
    struct dataset_config config = config_of(paths, 2);
    config.validation = paths;
    config.validation_count = 2;
    struct dataset *data = open_fine(&config);
    /* a b S c d e f g h S: windows a b S c d and d e f g h; the last S has no window */
    assert_int_equal(dataset_windows(data, SPLIT_VALIDATION), 2);
    assert_int_equal(dataset_tokens(data, SPLIT_VALIDATION), 8);
    int32_t inputs[CONTEXT], targets[CONTEXT];
    const int32_t first[] = {'a', 'b', 256, 'c', 'd'}, second[] = {'d', 'e', 'f', 'g', 'h'};
    assert_int_equal(dataset_window(data, SPLIT_VALIDATION, 0, inputs, targets, NULL), 0);
    assert_memory_equal(inputs, first, sizeof(inputs));
    assert_memory_equal(targets, first + 1, sizeof(targets));
    assert_int_equal(dataset_window(data, SPLIT_VALIDATION, 1, inputs, targets, NULL), 0);
    assert_memory_equal(inputs, second, sizeof(inputs));
    assert_memory_equal(targets, second + 1, sizeof(targets));
    assert_int_equal(dataset_window(data, SPLIT_VALIDATION, 2, inputs, targets, NULL),
                     ERR_INVALID);
    dataset_close(data);
}

static void shards_and_raw_arrays_give_their_tokens(void **state)
{
    (void)state;
    int32_t tokens[64];
    put_shard("s2.tok", 2, 300, 20);
    put_shard("s4.tok", 4, 70000, 20);
    const char *both[] = {in_folder("s2.tok"), in_folder("s4.tok")};
    assert_int_equal(stream_of(both, 2, "hebb", 70000, tokens, 64), 40);
    for (int32_t i = 0; i < 40; i++)
        assert_int_equal(tokens[i], i % 20);
    const uint16_t narrow[4] = {1, 40000, 3, 65535};
    put_bytes("raw.bin", narrow, sizeof(narrow));
    const char *raw[] = {in_folder("raw.bin")};
    assert_int_equal(stream_of(raw, 1, "raw-uint16", 65536, tokens, 64), 4);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(tokens[i], narrow[i]);
    const uint32_t wide[3] = {1, 100000, 3};
    put_bytes("raw.bin", wide, sizeof(wide));
    assert_int_equal(stream_of(raw, 1, "raw-uint32", 100001, tokens, 64), 3);
    assert_int_equal(tokens[1], 100000);
    int32_t llmc[256 + 2] = {20240801, 7, 2, [256] = 9, [257] = 8};
    put_bytes("llmc.bin", llmc, sizeof(llmc));
    const char *l[] = {in_folder("llmc.bin")};
    assert_int_equal(stream_of(l, 1, "auto", 257, tokens, 64), 2);
    assert_int_equal(tokens[0], 9);
    assert_int_equal(tokens[1], 8);
}

static void a_window_may_span_read_buffers_and_many_files(void **state)
{
    (void)state;
    enum { BYTES = 30000, SMALL = 200 };
    char *text = malloc(BYTES + 1);
    int32_t *inputs = malloc(BYTES * sizeof(*inputs)),
            *targets = malloc(BYTES * sizeof(*targets));
    assert_true(text && inputs && targets);
    for (size_t i = 0; i < BYTES; i++)
        text[i] = (char)(i % 251 + 1);
    put_bytes("many.d-long", text, BYTES);
    assert_int_equal(fsx_mkdirs(in_folder("many.d"), 0755, NULL), 0);
    for (int i = 0; i < SMALL; i++) { /* more files than keep a descriptor */
        char name[64];
        snprintf(name, sizeof(name), "many.d/%03d", i);
        put(name, i % 2 ? "x" : "yz");
    }
    _Static_assert((int)SMALL > (int)DATA_OPEN_MAX, "some files are opened for each read");
    const char *paths[] = {in_folder("many.d-long"), in_folder("many.d")};
    struct dataset_config config = config_of(paths, 2);
    config.context = BYTES + SMALL * 5 / 2; /* all but the separator of the last document */
    config.validation = paths;
    config.validation_count = 2;
    struct dataset *data = open_fine(&config);
    inputs = realloc(inputs, config.context * sizeof(*inputs));
    targets = realloc(targets, config.context * sizeof(*targets));
    assert_int_equal(dataset_windows(data, SPLIT_VALIDATION), 1);
    assert_int_equal(dataset_window(data, SPLIT_VALIDATION, 0, inputs, targets, NULL), 0);
    for (size_t i = 0; i < BYTES; i++)
        assert_int_equal(inputs[i], i % 251 + 1);
    static const int32_t period[] = {256, 'y', 'z', 256, 'x'};
    for (size_t i = BYTES; i < config.context; i++) {
        assert_int_equal(inputs[i], period[(i - BYTES) % 5]);
        assert_int_equal(targets[i], period[(i - BYTES + 1) % 5]);
    }
    dataset_close(data);
    free(text);
    free(inputs);
    free(targets);
}

/* A corpus in which every token position can be told from what is read there: 4-byte tokens 0,
 * 1, 2, ... */
static struct dataset_config numbered(const char **path, uint32_t tokens, double fraction)
{
    put_shard("numbered.tok", 4, tokens, tokens);
    *path = in_folder("numbered.tok");
    struct dataset_config config = config_of(path, 1);
    config.vocab = tokens;
    config.validation_fraction = fraction;
    return config;
}

/* Number of the window that a sample got; checks its content. */
static size_t window_of(const struct dataset *data, enum dataset_split split, uint64_t sample)
{
    int32_t inputs[CONTEXT], targets[CONTEXT];
    assert_int_equal(dataset_window(data, split, sample, inputs, targets, NULL), 0);
    assert_int_equal(inputs[0] % CONTEXT, 0);
    for (int32_t i = 0; i < CONTEXT; i++) {
        assert_int_equal(inputs[i], inputs[0] + i);
        assert_int_equal(targets[i], inputs[0] + i + 1);
    }
    return (size_t)inputs[0] / CONTEXT;
}

static void an_epoch_draws_every_training_window_once_and_no_other(void **state)
{
    (void)state;
    enum { WINDOWS = 777 };
    const char *path;
    struct dataset_config config = numbered(&path, WINDOWS * CONTEXT + 2, 0.1);
    struct dataset *data = open_fine(&config);
    const size_t train = dataset_windows(data, SPLIT_TRAIN);
    const size_t held = dataset_windows(data, SPLIT_VALIDATION);
    assert_int_equal(train + held, WINDOWS);
    assert_in_range(held, 48, 80);
    assert_int_equal(dataset_tokens(data, SPLIT_TRAIN), train * CONTEXT);
    for (uint64_t epoch = 0; epoch < 3; epoch++) {
        unsigned char seen[WINDOWS] = {0};
        size_t moved = 0;
        for (size_t i = 0; i < train; i++) {
            size_t w = window_of(data, SPLIT_TRAIN, epoch * train + i);
            assert_int_equal(seen[w]++, 0);
            moved += w != window_of(data, SPLIT_TRAIN, (epoch + 1) * train + i);
        }
        for (size_t i = 0; i < held; i++)
            assert_int_equal(seen[window_of(data, SPLIT_VALIDATION, i)]++, 0);
        assert_true(moved > train * 9 / 10);
    }
    int32_t tokens[CONTEXT];
    assert_int_equal(
        dataset_window(data, SPLIT_TRAIN, (uint64_t)train << 24, tokens, tokens, NULL),
        ERR_LIMIT);
    dataset_close(data);
}

static void the_order_depends_on_the_seed_and_on_nothing_else(void **state)
{
    (void)state;
    const char *path;
    struct dataset_config config = numbered(&path, 801, 0.1);
    struct dataset *one = open_fine(&config), *two = open_fine(&config), *other = NULL;
    config.seed = 2;
    other = open_fine(&config);
    size_t train = dataset_windows(one, SPLIT_TRAIN), same = 0;
    for (size_t i = train;
         i-- > 0;) { /* `one` in another order than `two`: there is no state */
        size_t w = window_of(one, SPLIT_TRAIN, i);
        same += w == window_of(other, SPLIT_TRAIN, i);
        (void)window_of(two, SPLIT_TRAIN, train - 1 - i);
        assert_int_equal(w, window_of(two, SPLIT_TRAIN, i));
    }
    assert_true(same < train / 10);
    for (size_t i = 0; i < dataset_windows(one, SPLIT_VALIDATION); i++)
        assert_int_equal(window_of(one, SPLIT_VALIDATION, i),
                         window_of(other, SPLIT_VALIDATION, i));
    dataset_close(one);
    dataset_close(two);
    dataset_close(other);
}

static void validation_files_are_the_whole_validation_split(void **state)
{
    (void)state;
    put("v.txt", "0123456789");
    const char *path, *validation[] = {in_folder("v.txt")};
    struct dataset_config config = numbered(&path, 257, 0.1);
    config.validation = validation;
    config.validation_count = 1;
    struct dataset *data = open_fine(&config);
    assert_int_equal(dataset_windows(data, SPLIT_TRAIN), 64); /* nothing is held out */
    assert_int_equal(dataset_windows(data, SPLIT_VALIDATION), 2);
    dataset_close(data);
    config.validation_count = 0;
    config.validation_fraction = 0;
    data = open_fine(&config);
    assert_int_equal(dataset_windows(data, SPLIT_TRAIN), 64);
    assert_int_equal(dataset_windows(data, SPLIT_VALIDATION), 0);
    dataset_close(data);
}

static void folders_and_globs_are_sorted_and_pass_hidden_files_over(void **state)
{
    (void)state;
    assert_int_equal(fsx_mkdirs(in_folder("walk/sub/deep"), 0755, NULL), 0);
    assert_int_equal(fsx_mkdirs(in_folder("walk/.git"), 0755, NULL), 0);
    assert_int_equal(fsx_mkdirs(in_folder("walk-nothing/.x"), 0755, NULL), 0);
    static const char *const made[] = {"walk/b.txt",      "walk/B.txt",     "walk/.hidden",
                                       "walk/sub/deep/z", "walk/sub/a",     "walk/.git/c",
                                       "walk/sub.txt",    "walk-nothing/.y"};
    for (size_t i = 0; i < sizeof(made) / sizeof(made[0]); i++)
        put(made[i], made[i]);
    assert_int_equal(symlink("b.txt", in_folder("walk/link")), 0);
    assert_int_equal(symlink(".", in_folder("walk/loop")), 0);
    assert_int_equal(mkfifo(in_folder("walk/fifo"), 0644), 0);
    struct data_paths paths;
    struct err err = {0};
    const char *entries[] = {in_folder("walk/sub.txt"), in_folder("walk"),
                             in_folder("walk/?.t[x]t")};
    assert_int_equal(data_paths_expand(&paths, entries, 3, &err), 0);
    static const char *const expected[] = {"walk/sub.txt", "walk/B.txt", "walk/b.txt",
                                           "walk/sub.txt", "walk/sub/a", "walk/sub/deep/z",
                                           "walk/B.txt",   "walk/b.txt"};
    assert_int_equal(paths.count, 8);
    for (size_t i = 0; i < 8; i++)
        assert_string_equal(paths.items[i], in_folder(expected[i]));
    data_paths_release(&paths);
    const char *link[] = {in_folder("walk/link")}; /* a link that is named is followed */
    assert_int_equal(data_paths_expand(&paths, link, 1, &err), 0);
    assert_int_equal(paths.count, 1);
    data_paths_release(&paths);
    put("literal[1].txt", "a file of that very name is no glob");
    const char *literal[] = {in_folder("literal[1].txt")};
    assert_int_equal(data_paths_expand(&paths, literal, 1, &err), 0);
    assert_int_equal(paths.count, 1);
    data_paths_release(&paths);
    refuses_file("walk-nothing", ERR_NOT_FOUND, "no file");
    refuses_file("walk/*.zip", ERR_NOT_FOUND, "nothing matches");
    refuses_file("walk/fifo", ERR_INVALID, "neither a file nor a folder");
    refuses_file("absent.txt", ERR_NOT_FOUND, "No such file");
}

static void bad_files_are_named(void **state)
{
    (void)state;
    put("empty.txt", "");
    refuses_file("empty.txt", ERR_CORRUPT, "is empty");
    put_bytes("binary.dat", "text\0binary", 11);
    refuses_file("binary.dat", ERR_INVALID, "a NUL at byte 4");
    put("plain.bin", "0123456789");
    refuses_file("plain.bin", ERR_INVALID, "raw-uint16 or raw-uint32");
    put_bytes("array.npy", "\x93NUMPY\x01\x00", 8);
    refuses_file("array.npy", ERR_UNSUPPORTED, "NumPy");
    put_bytes("mega.idx", "MMIDIDX\0\0", 9);
    refuses_file("mega.idx", ERR_UNSUPPORTED, "Megatron");
    put_shard("cut.tok", 2, 257, 100);
    assert_int_equal(truncate(in_folder("cut.tok"), 256 + 199), 0);
    refuses_file("cut.tok", ERR_CORRUPT, "truncated");
    if (geteuid() != 0) { /* root reads everything */
        put("secret.txt", "0123456789");
        assert_int_equal(chmod(in_folder("secret.txt"), 0), 0);
        refuses_file("secret.txt", ERR_IO, "Permission denied");
    }
}

static void text_and_raw_formats_may_be_forced(void **state)
{
    (void)state;
    put_bytes("binary.dat", "text\0binary", 11);
    const char *train[] = {in_folder("binary.dat")};
    struct dataset_config config = config_of(train, 1);
    config.format = "text";
    dataset_close(open_fine(&config));
    config.format = "raw-uint16";
    refuses(&config, ERR_CORRUPT, "11 bytes are not a multiple of 2");
    config.format = "hebb";
    refuses(&config, ERR_INVALID, "HEBBTOK1");
    config.format = "shards"; /* text is none */
    refuses(&config, ERR_INVALID, "has no shard's magic");
    config.format = "parquet";
    refuses(&config, ERR_INVALID, "parquet");
}

static void data_too_short_for_a_window_say_what_they_have_and_need(void **state)
{
    (void)state;
    put("short.txt", "abc");
    const char *train[] = {in_folder("short.txt")};
    struct dataset_config config = config_of(train, 1);
    refuses(&config, ERR_INVALID, "data.train: 4 tokens in 1 files");
    refuses(&config, ERR_INVALID, "context 4 needs 5");
    put("short.txt", "abcd"); /* with the separator exactly one window */
    struct dataset *data = open_fine(&config);
    assert_int_equal(dataset_windows(data, SPLIT_TRAIN), 1);
    int32_t inputs[CONTEXT], targets[CONTEXT];
    for (uint64_t s = 0; s < 5; s++) {
        assert_int_equal(dataset_window(data, SPLIT_TRAIN, s, inputs, targets, NULL), 0);
        assert_int_equal(targets[CONTEXT - 1], DATA_SEPARATOR);
    }
    dataset_close(data);
    config.validation_fraction = 0.05;
    refuses(&config, ERR_INVALID, "needs 9");
    put("v.txt", "ab");
    const char *validation[] = {in_folder("v.txt")};
    config.validation = validation;
    config.validation_count = 1;
    refuses(&config, ERR_INVALID, "data.validation: 3 tokens");
}

static void tokens_must_be_below_the_vocab(void **state)
{
    (void)state;
    put("text.txt", "0123456789");
    const char *text[] = {in_folder("text.txt")};
    struct dataset_config config = config_of(text, 1);
    config.vocab = 256;
    refuses(&config, ERR_INVALID, "need a vocab of 257, the model's is 256");
    put_shard("v300.tok", 2, 300, 1000);
    refuses_file("v300.tok", ERR_CORRUPT, "token 257 at index 257 is not below the vocab 257");
    int32_t llmc[256 + 6] = {20240801, 7, 6, [256] = 9, [257] = 8, [258] = -1};
    put_bytes("llmc.bin", llmc, sizeof(llmc));
    refuses_file("llmc.bin", ERR_CORRUPT, "token 4294967295 at index 2");
    put_shard("v257.tok", 2, 257, 1000);
    const char *fine[] = {in_folder("v257.tok")};
    config = config_of(fine, 1);
    dataset_close(open_fine(&config));
}

static void ranks_share_the_check_and_one_of_them_finds_the_fault(void **state)
{
    (void)state;
    enum { WORLD = 3, TOKENS = 100 };
    for (uint32_t bad = 0; bad < TOKENS; bad += 7) {
        uint16_t tokens[TOKENS] = {0};
        tokens[bad] = 999;
        put_bytes("bad.bin", tokens, sizeof(tokens));
        const char *train[] = {in_folder("bad.bin")};
        struct data_stream stream;
        struct err err = {0};
        assert_int_equal(data_stream_init(&stream, train, 1, "raw-uint16", 257, &err), 0);
        int found = 0;
        _Atomic uint64_t progress = 0;
        const struct dataset_config config = {.vocab = 257, .progress = &progress};
        for (int rank = 0; rank < WORLD; rank++)
            found += data_stream_check(&stream, &config, rank, WORLD, &err) == ERR_CORRUPT;
        assert_int_equal(progress, WORLD - 1); /* a piece each, but for the one that failed */
        assert_int_equal(found, 1);
        char reason[64];
        snprintf(reason, sizeof(reason), "token 999 at index %u ", bad);
        assert_non_null(strstr(err.text, reason));
        data_stream_release(&stream);
    }
}

static void a_damaged_shard_fails_its_checksum_on_one_rank(void **state)
{
    (void)state;
    put_shard("fine.tok", 2, 257, 100);
    put_shard("damaged.tok", 2, 257, 100);
    int fd = open(in_folder("damaged.tok"), O_WRONLY);
    assert_int_equal(pwrite(fd, "\x42", 1, 256 + 2 * 50), 1); /* another legal token */
    close(fd);
    const char *train[] = {in_folder("fine.tok"), in_folder("damaged.tok")};
    struct dataset_config config = config_of(train, 2);
    struct dataset *data = NULL;
    struct err err = {0};
    assert_int_equal(dataset_open(&data, &config, 0, 2, &err), 0);
    dataset_close(data);
    assert_int_equal(dataset_open(&data, &config, 1, 2, &err), ERR_CORRUPT);
    assert_non_null(strstr(err.text, "damaged.tok"));
    assert_non_null(strstr(err.text, "checksum"));
}

static void a_file_that_shrinks_or_goes_while_training_is_an_error(void **state)
{
    (void)state;
    put("shrinks.txt", "0123456789");
    const char *train[] = {in_folder("shrinks.txt")};
    struct dataset_config config = config_of(train, 1);
    struct dataset *data = open_fine(&config);
    int32_t inputs[CONTEXT], targets[CONTEXT];
    struct err err = {0};
    assert_int_equal(truncate(train[0], 1), 0);
    assert_int_equal(dataset_window(data, SPLIT_TRAIN, 0, inputs, targets, &err), ERR_CORRUPT);
    assert_non_null(strstr(err.text, "shrinks.txt has changed"));
    dataset_close(data);
    assert_int_equal(fsx_mkdirs(in_folder("gone"), 0755, NULL), 0);
    for (int i = 0; i <= DATA_OPEN_MAX; i++) {
        char name[64];
        snprintf(name, sizeof(name), "gone/%03d", i);
        put(name, "abc"); /* 4 tokens: window i begins with file i */
    }
    const char *gone[] = {in_folder("gone")};
    config = config_of(gone, 1);
    config.validation = gone;
    config.validation_count = 1;
    data = open_fine(&config);
    char last[64];
    snprintf(last, sizeof(last), "gone/%03d", DATA_OPEN_MAX);
    put(last, "abcd");
    assert_int_equal(
        dataset_window(data, SPLIT_VALIDATION, DATA_OPEN_MAX - 1, inputs, targets, &err),
        ERR_CORRUPT);
    assert_non_null(strstr(err.text, "has changed: 4 bytes, it had 3"));
    assert_int_equal(unlink(in_folder(last)), 0);
    assert_int_equal(
        dataset_window(data, SPLIT_VALIDATION, DATA_OPEN_MAX - 1, inputs, targets, &err),
        ERR_NOT_FOUND);
    assert_int_equal(
        dataset_window(data, SPLIT_VALIDATION, DATA_OPEN_MAX - 2, inputs, targets, &err), 0);
    dataset_close(data);
}

static void wrong_configurations_are_refused(void **state)
{
    (void)state;
    put("text.txt", "0123456789");
    const char *train[] = {in_folder("text.txt")};
    struct dataset_config config = config_of(train, 0);
    refuses(&config, ERR_INVALID, "data.train");
    config = config_of(train, 1);
    config.context = 0;
    refuses(&config, ERR_INVALID, "context 0");
    config = config_of(train, 1);
    config.vocab = 0;
    refuses(&config, ERR_INVALID, "vocab 0");
    config = config_of(train, 1);
    config.validation_fraction = 0.6;
    refuses(&config, ERR_INVALID, "validation_fraction");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(documents_are_bytes_that_end_with_a_separator),
        cmocka_unit_test(windows_cross_documents_and_share_one_token),
        cmocka_unit_test(shards_and_raw_arrays_give_their_tokens),
        cmocka_unit_test(a_window_may_span_read_buffers_and_many_files),
        cmocka_unit_test(an_epoch_draws_every_training_window_once_and_no_other),
        cmocka_unit_test(the_order_depends_on_the_seed_and_on_nothing_else),
        cmocka_unit_test(validation_files_are_the_whole_validation_split),
        cmocka_unit_test(folders_and_globs_are_sorted_and_pass_hidden_files_over),
        cmocka_unit_test(bad_files_are_named),
        cmocka_unit_test(text_and_raw_formats_may_be_forced),
        cmocka_unit_test(data_too_short_for_a_window_say_what_they_have_and_need),
        cmocka_unit_test(tokens_must_be_below_the_vocab),
        cmocka_unit_test(ranks_share_the_check_and_one_of_them_finds_the_fault),
        cmocka_unit_test(a_damaged_shard_fails_its_checksum_on_one_rank),
        cmocka_unit_test(a_file_that_shrinks_or_goes_while_training_is_an_error),
        cmocka_unit_test(wrong_configurations_are_refused),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
