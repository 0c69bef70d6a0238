/* Questions: their files, and likelihoods against a slow computation of the whole softmax. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/data.h"
#include "worker/tools/eval_score.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Log-likelihoods of at most 40 tokens, from logits in single precision. */
static const double TOLERANCE = 1e-4;

enum { WINDOW = 24 };

/* --- files --- */

static int read_text(struct eval_items *items, enum eval_kind kind, const char *delimiter,
                     const char *text, struct err *err)
{
    char path[] = "/tmp/hebb-test-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    int rc = eval_items_read(items, path, kind, delimiter, err);
    unlink(path);
    return rc;
}

static void one_space_is_put_where_there_is_none(void **state)
{
    (void)state;
    struct eval_items items;
    static const char text[] =
        "{\"context\": \"a\", \"choices\": [\"b\", \" c\"], \"answer\": 1, \"id\": 7}\n"
        "\n"
        "{\"context\": \"a \", \"choices\": [\"b\", \"c\"], \"answer\": 0}\n"
        "{\"context\": \"\", \"choices\": [\"b\", \"c\"], \"answer\": 0}";
    assert_int_equal(read_text(&items, EVAL_CHOICES, NULL, text, NULL), 0);
    assert_int_equal(items.count, 3);
    assert_string_equal(items.items[0].continuations[0], " b");
    assert_string_equal(items.items[0].continuations[1], " c");
    assert_int_equal(items.items[0].answer, 1);
    assert_string_equal(items.items[1].continuations[0], "b");
    assert_int_equal(items.items[1].line, 3);
    assert_string_equal(items.items[2].continuations[1], "c");
    eval_items_release(&items);
    assert_int_equal(read_text(&items, EVAL_CHOICES, ": ", text, NULL), 0);
    assert_string_equal(items.items[0].continuations[1], ":  c");
    assert_string_equal(items.items[2].continuations[0], ": b");
    eval_items_release(&items);
}

static void last_word_is_split_off_with_its_space(void **state)
{
    (void)state;
    struct eval_items items;
    assert_int_equal(read_text(&items, EVAL_LAST_WORD, NULL,
                               "{\"text\": \"to be  or\\nnot \\n\"}\n"
                               "{\"context\": \"to\", \"answer\": \"be\"}\n",
                               NULL),
                     0);
    assert_string_equal(items.items[0].context, "to be  or");
    assert_string_equal(items.items[0].continuations[0], "\nnot");
    assert_string_equal(items.items[1].context, "to");
    assert_string_equal(items.items[1].continuations[0], " be");
    eval_items_release(&items);
}

/* What is printed on stderr while a faulty text is read. */
static char *faults_of(enum eval_kind kind, const char *text)
{
    static char shown[8192];
    FILE *kept = tmpfile();
    int saved = dup(STDERR_FILENO);
    struct eval_items items;
    struct err err = {0};
    fflush(stderr);
    dup2(fileno(kept), STDERR_FILENO);
    int rc = read_text(&items, kind, NULL, text, &err);
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    close(saved);
    assert_int_equal(rc, ERR_CORRUPT);
    assert_null(items.items);
    rewind(kept);
    shown[fread(shown, 1, sizeof shown - 1, kept)] = '\0';
    fclose(kept);
    return shown;
}

static void every_faulty_line_is_named(void **state)
{
    (void)state;
    static const struct {
        enum eval_kind kind;
        const char *line, *words;
    } cases[] = {
        {EVAL_CHOICES, "{", " line 2: column 2: "},
        {EVAL_CHOICES, "[]", " line 2: must be an object, got an array"},
        {EVAL_CHOICES, "{\"choices\":[\"a\",\"b\"],\"answer\":0}",
         " line 2: /context: must be a string, got nothing"},
        {EVAL_CHOICES, "{\"context\":\"\",\"answer\":0}",
         " line 2: /choices: must be an array"},
        {EVAL_CHOICES, "{\"context\":\"\",\"choices\":[\"a\"],\"answer\":0}",
         " line 2: /choices: must have 2 to 64 items, has 1"},
        {EVAL_CHOICES, "{\"context\":\"\",\"choices\":[\"a\",7],\"answer\":0}",
         " line 2: /choices/1: must be a string, got a number"},
        {EVAL_CHOICES, "{\"context\":\"\",\"choices\":[\"a\",\"\"],\"answer\":0}",
         " line 2: /choices/1: is empty"},
        {EVAL_CHOICES, "{\"context\":\"\",\"choices\":[\"a\",\"b\"],\"answer\":2}",
         " line 2: /answer: must be an index from 0 to 1, got 2"},
        {EVAL_CHOICES, "{\"context\":\"\",\"choices\":[\"a\",\"b\"],\"answer\":\"A\"}",
         " line 2: /answer: must be an index from 0 to 1, got a string"},
        {EVAL_LAST_WORD, "{\"text\":\" one \"}",
         " line 2: /text: must have at least two words"},
        {EVAL_LAST_WORD, "{\"text\":\"a b\",\"answer\":\"b\"}", " line 2: /text: not beside"},
        {EVAL_LAST_WORD, "{\"context\":\"a\",\"answer\":\"\"}", " line 2: /answer: is empty"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[256];
        snprintf(text, sizeof text, "\n%s\n", cases[i].line);
        const char *shown = faults_of(cases[i].kind, text);
        if (!strstr(shown, cases[i].words))
            fail_msg("%s: %s", cases[i].line, shown);
    }
    const char *two = faults_of(EVAL_CHOICES, "{\n{}\n");
    assert_non_null(strstr(two, " line 1: "));
    assert_non_null(strstr(two, " line 2: /context"));
    assert_string_equal(faults_of(EVAL_CHOICES, "\n \n"), "");
}

/* --- scores --- */

struct fixture {
    struct device *dev;
    struct model *model;
    struct text_scorer scorer;
};

static void setup(struct fixture *f)
{
    const struct model_shape shape = {.hidden = 32,
                                      .intermediate = 64,
                                      .layers = 2,
                                      .heads = 2,
                                      .kv_heads = 2,
                                      .vocab = DATA_BYTES_VOCAB,
                                      .context = WINDOW,
                                      .rope_theta = 10000,
                                      .norm_eps = 1e-6,
                                      .n = 1,
                                      .m = 4};
    assert_int_equal(device_create(&f->dev, "cpu", NULL, NULL), 0);
    assert_int_equal(model_create(&f->model, f->dev, &shape, 1, WINDOW, false, NULL), 0);
    model_init(f->model, 5);
    for (size_t i = 0; i < f->model->count; i++) /* likelihoods far from uniform */
        f->model->weights[i] *= 3;
    assert_int_equal(text_scorer_init(&f->scorer, f->model, WINDOW, NULL), 0);
}

static void teardown(struct fixture *f)
{
    text_scorer_release(&f->scorer);
    model_destroy(f->model);
    device_destroy(f->dev);
}

/* ln p of the last `len` tokens of all, one pass per token over the last WINDOW tokens that the
 * scorer sees too, summing the softmax as it is written. */
static double slow(struct fixture *f, const int32_t *all, size_t count, size_t len,
                   bool *greedy)
{
    static real logits[DATA_BYTES_VOCAB];
    size_t first = count > WINDOW + 1 ? count - WINDOW - 1 : 0;
    double sum = 0;
    *greedy = true;
    for (size_t at = count - len; at < count; at++) {
        double total = 0;
        model_logits(f->model, all + first, logits, 1, at - first, at - first - 1, 1);
        for (size_t i = 0; i < DATA_BYTES_VOCAB; i++) {
            total += exp((double)logits[i]);
            *greedy = *greedy && logits[i] <= logits[all[at]];
        }
        sum += log(exp((double)logits[all[at]]) / total);
    }
    return sum;
}

static void scores_agree_with_one_pass_per_token(void **state)
{
    (void)state;
    struct fixture f;
    static const struct {
        const char *context, *text;
        bool cut;
    } cases[] = {
        {"", "x", false},
        {"The quick", " fox", false},
        {"The quick brown fox ", "jumps", true},
        {"\xc3\xa9t\xc3\xa9", "\xff\x80", false},
        {"", "exactly twenty-four toke", false},
        {"before", "exactly twenty-four toke", true},
        {"12345678901234567890123", "4", false},
        {"123456789012345678901234", "5", true},
    };
    setup(&f);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int32_t all[128] = {DATA_SEPARATOR};
        size_t count = 1, len = strlen(cases[i].text);
        for (const char *c = cases[i].context; *c; c++)
            all[count++] = (unsigned char)*c;
        for (const char *c = cases[i].text; *c; c++)
            all[count++] = (unsigned char)*c;
        struct text_score score;
        bool greedy;
        double want = slow(&f, all, count, len, &greedy);
        assert_int_equal(text_score(&f.scorer, cases[i].context, cases[i].text, &score, NULL),
                         0);
        assert_true(fabs(score.log_likelihood - want) < TOLERANCE);
        assert_true(want < -0.01);
        assert_int_equal(score.tokens, len);
        assert_int_equal(score.greedy, greedy);
        assert_int_equal(score.truncated, cases[i].cut);
    }
    struct text_score score;
    struct err err = {0};
    assert_int_equal(text_score(&f.scorer, "", "twenty-five tokens: 24 + ", &score, &err),
                     ERR_CORRUPT);
    assert_non_null(strstr(err.text, "25 tokens to score"));
    teardown(&f);
}

/* The text that the model itself likes best after context. */
static void greedy_text(struct fixture *f, const char *context, size_t len, char *out)
{
    static real logits[DATA_BYTES_VOCAB];
    int32_t tokens[WINDOW + 1] = {DATA_SEPARATOR};
    size_t count = 1;
    for (; *context; context++)
        tokens[count++] = (unsigned char)*context;
    for (size_t i = 0; i < len; i++) {
        size_t best = 1;
        model_logits(f->model, tokens, logits, 1, count, count - 1, 1);
        for (size_t k = 0; k < DATA_BYTES_VOCAB; k++)
            best = logits[k] > logits[best] ? k : best;
        assert_true(best > 0 && best < DATA_SEPARATOR); /* else choose another seed */
        tokens[count++] = (int32_t)best;
        out[i] = (char)best;
    }
    out[len] = '\0';
}

static void answers_count_the_likeliest_choice_and_the_greedy_word(void **state)
{
    (void)state;
    struct fixture f;
    char liked[4], context[] = "ab", other[] = "\x01", *choices[] = {other, liked};
    setup(&f);
    greedy_text(&f, context, 2, liked);
    struct eval_item item = {
        .line = 1, .context = context, .continuations = choices, .count = 2, .answer = 1};
    struct eval_items items = {.items = &item, .count = 1};
    struct text_score scores[2];
    struct eval_answers answers;
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(text_score(&f.scorer, context, choices[i], &scores[i], NULL), 0);
    bool by_sum = scores[1].log_likelihood > scores[0].log_likelihood;
    bool by_token = scores[1].log_likelihood / 2 > scores[0].log_likelihood;
    assert_int_equal(
        eval_answer(&answers, &f.scorer, &items, EVAL_CHOICES, "f", NULL, NULL, NULL), 0);
    assert_int_equal(answers.right, by_sum);
    assert_int_equal(answers.right_norm, by_token);
    assert_true(by_token && answers.chance == 0.5 && answers.tokens == 3);

    char *word[] = {liked};
    item = (struct eval_item){.line = 1, .context = context, .continuations = word, .count = 1};
    assert_int_equal(
        eval_answer(&answers, &f.scorer, &items, EVAL_LAST_WORD, "f", NULL, NULL, NULL), 0);
    assert_int_equal(answers.right, 1);
    assert_true(answers.log_likelihood == scores[1].log_likelihood);
    word[0] = other;
    assert_int_equal(
        eval_answer(&answers, &f.scorer, &items, EVAL_LAST_WORD, "f", NULL, NULL, NULL), 0);
    assert_int_equal(answers.right, 0);
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_space_is_put_where_there_is_none),
        cmocka_unit_test(last_word_is_split_off_with_its_space),
        cmocka_unit_test(every_faulty_line_is_named),
        cmocka_unit_test(scores_agree_with_one_pass_per_token),
        cmocka_unit_test(answers_count_the_likeliest_choice_and_the_greedy_word),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
