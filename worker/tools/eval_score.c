#include "worker/tools/eval_score.h"

#include "engine/data.h"
#include "proto/base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int text_scorer_init(struct text_scorer *out, struct model *model, size_t window,
                     struct err *err)
{
    size_t cells = 0;
    *out = (struct text_scorer){.model = model, .window = window};
    if (model->shape.vocab != DATA_BYTES_VOCAB) {
        return err_set(err, ERR_UNSUPPORTED,
                       "a vocabulary of %zu tokens; text can be scored with the byte "
                       "tokenizer (%d) only",
                       model->shape.vocab, DATA_BYTES_VOCAB);
    }
    if (size_mul(&cells, out->window, model->shape.vocab)) {
        out->tokens = mem_zeroed(out->window + 1, sizeof *out->tokens);
        out->logits = mem_zeroed(cells, sizeof *out->logits);
    }
    if (!out->tokens || !out->logits) {
        text_scorer_release(out);
        return err_set(err, ERR_NO_MEMORY, "no memory to score %zu tokens", window);
    }
    return 0;
}

void text_scorer_release(struct text_scorer *scorer)
{
    free(scorer->tokens);
    free(scorer->logits);
    *scorer = (struct text_scorer){0};
}

/* ln softmax(logits)[token]; *likeliest: it has the highest logit. */
static double log_probability(const real *logits, size_t vocab, size_t token, bool *likeliest)
{
    size_t best = 0;
    double sum = 0;
    for (size_t i = 1; i < vocab; i++) {
        best = logits[i] > logits[best] ? i : best;
    }
    for (size_t i = 0; i < vocab; i++) {
        sum += exp((double)logits[i] - (double)logits[best]);
    }
    *likeliest = best == token;
    return (double)logits[token] - (double)logits[best] - log(sum);
}

/* The last `window + 1` of separator, context and continuation; returns their number. */
static size_t fill_tokens(struct text_scorer *scorer, const char *context, size_t context_len,
                          const char *continuation, size_t len)
{
    size_t all = 1 + context_len + len;
    size_t skip = all > scorer->window + 1 ? all - scorer->window - 1 : 0;
    for (size_t i = skip; i < all; i++) {
        int32_t token = DATA_SEPARATOR;
        if (i > context_len) {
            token = (unsigned char)continuation[i - 1 - context_len];
        } else if (i > 0) {
            token = (unsigned char)context[i - 1];
        }
        scorer->tokens[i - skip] = token;
    }
    return all - skip;
}

int text_score(struct text_scorer *scorer, const char *context, const char *continuation,
               struct text_score *out, struct err *err)
{
    size_t vocab = scorer->model->shape.vocab;
    size_t context_len = strlen(context), len = strlen(continuation);
    *out = (struct text_score){.tokens = len, .greedy = true};
    if (len == 0 || len > scorer->window) {
        return err_set(err, ERR_CORRUPT,
                       "%zu tokens to score; from 1 to the context of %zu are possible", len,
                       scorer->window);
    }
    size_t inputs = fill_tokens(scorer, context, context_len, continuation, len) - 1;
    const int32_t *targets = scorer->tokens + 1 + inputs - len;
    out->truncated = context_len + len > scorer->window;
    model_logits(scorer->model, scorer->tokens, scorer->logits, 1, inputs, inputs - len, len);
    for (size_t i = 0; i < len; i++) {
        bool likeliest;
        out->log_likelihood +=
            log_probability(scorer->logits + i * vocab, vocab, (size_t)targets[i], &likeliest);
        out->greedy = out->greedy && likeliest;
    }
    return 0;
}

/* Scores all continuations of a question and adds the outcome. */
static int answer_one(struct eval_answers *out, struct text_scorer *scorer,
                      const struct eval_item *item, enum eval_kind kind, struct err *err)
{
    size_t best = 0, best_norm = 0;
    double most = -INFINITY, most_norm = -INFINITY;
    bool truncated = false, greedy = false;
    for (size_t i = 0; i < item->count; i++) {
        struct text_score score;
        int rc = text_score(scorer, item->context, item->continuations[i], &score, err);
        if (rc != 0) {
            return kind == EVAL_CHOICES ? err_wrap(err, rc, "/choices/%zu", i)
                                        : err_wrap(err, rc, "the last word");
        }
        double norm = score.log_likelihood / (double)score.tokens;
        if (score.log_likelihood > most) {
            most = score.log_likelihood;
            best = i;
        }
        if (norm > most_norm) {
            most_norm = norm;
            best_norm = i;
        }
        if (!isfinite(score.log_likelihood)) {
            return err_set(err, ERR_CORRUPT,
                           "the likelihood is not finite: the model is broken");
        }
        truncated = truncated || score.truncated;
        greedy = score.greedy;
        out->tokens += score.tokens;
        out->log_likelihood += score.log_likelihood;
    }
    out->questions++;
    out->truncated += truncated;
    out->right += kind == EVAL_CHOICES ? best == item->answer : greedy;
    out->right_norm += best_norm == item->answer;
    out->chance += 1 / (double)item->count;
    return 0;
}

int eval_answer(struct eval_answers *out, struct text_scorer *scorer,
                const struct eval_items *items, enum eval_kind kind, const char *path,
                eval_progress_fn *progress, void *context, struct err *err)
{
    *out = (struct eval_answers){0};
    for (size_t i = 0; i < items->count; i++) {
        int rc = answer_one(out, scorer, &items->items[i], kind, err);
        if (rc != 0) {
            return err_wrap(err, rc, "%s line %zu", path, items->items[i].line);
        }
        if (progress) {
            progress(context, i + 1, items->count);
        }
    }
    out->chance /= (double)items->count;
    return 0;
}
