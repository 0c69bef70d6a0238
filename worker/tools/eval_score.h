/* Likelihood of texts under a model with the byte tokenizer, and the answers to questions. */
#ifndef HEBB_TOOLS_EVAL_SCORE_H
#define HEBB_TOOLS_EVAL_SCORE_H

#include "engine/model.h"
#include "worker/tools/eval_tasks.h"

struct text_scorer {
    struct model *model; /* not owned */
    size_t window;       /* tokens of a pass at most */
    int32_t *tokens;     /* (window + 1) */
    real *logits;        /* (window, vocab) */
};

/* window: at most the context that the model was made for. ERR_UNSUPPORTED unless the model's
 * vocab is the byte tokenizer's. */
int text_scorer_init(struct text_scorer *out, struct model *model, size_t window,
                     struct err *err);
void text_scorer_release(struct text_scorer *scorer);

struct text_score {
    double log_likelihood; /* sum over the continuation's tokens of ln p(token | all before) */
    size_t tokens;         /* of the continuation */
    bool greedy;           /* every one of them is the likeliest (ties: the lowest token) */
    bool truncated;        /* the context lost its beginning */
};

/* Scores continuation after the document separator and context. What does not fit the window is
 * cut off at the left. ERR_CORRUPT: the continuation alone does not fit. */
int text_score(struct text_scorer *scorer, const char *context, const char *continuation,
               struct text_score *out, struct err *err);

struct eval_answers {
    size_t questions, truncated; /* truncated: questions whose context was cut */
    size_t tokens;               /* of all continuations */
    /* choices */
    size_t right;      /* the answer has the highest log-likelihood (ties: the first) */
    size_t right_norm; /* the same by log-likelihood per token */
    double chance;     /* expected share of right answers of a guess */
    /* last word: right counts greedy matches */
    double log_likelihood; /* summed over all words */
};

/* Called after every question; may be NULL. */
typedef void eval_progress_fn(void *context, size_t done, size_t all);

/* The error of a question names its line. */
int eval_answer(struct eval_answers *out, struct text_scorer *scorer,
                const struct eval_items *items, enum eval_kind kind, const char *path,
                eval_progress_fn *progress, void *context, struct err *err);

#endif
