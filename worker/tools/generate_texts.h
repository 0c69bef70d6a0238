/* Texts that a model with the byte tokenizer writes, several at a time. */
#ifndef HEBB_TOOLS_GENERATE_TEXTS_H
#define HEBB_TOOLS_GENERATE_TEXTS_H

#include "engine/decoder.h"
#include "worker/tools/sampler.h"

enum { TEXTS_MAX = 64 };

enum text_finish { TEXT_RUNNING, TEXT_LENGTH, TEXT_END, TEXT_STOP, TEXT_FULL };
extern const char *const text_finish_names[]; /* "running", "length", "end", "stop", "full" */

struct text {
    const char *prompt;
    int32_t *tokens; /* separator, prompt, and what follows */
    size_t prompt_count, count;
    unsigned char *bytes; /* what follows as bytes; of a separator two newlines */
    size_t byte_count;    /* of them; without the stop text */
    enum text_finish finish;
    real *logits; /* (vocab) of the next token */
};

struct texts_options {
    const char *const *prompts;
    size_t prompt_count, samples, tokens; /* samples texts a prompt, of that many new tokens */
    const char *const *stops;             /* a text ends before any of these */
    size_t stop_count;
    bool ignore_end; /* go on behind the end of a document */
    bool slide;      /* a full context loses its older half; else the text ends */
    struct sampler_options sampler;
};

struct texts {
    struct texts_options options;
    struct model *model; /* not owned */
    struct decoder *decoder;
    struct sampler sampler;
    struct text *items; /* (count), samples of a prompt together */
    size_t count, vocab;
    real *logits;      /* (count, vocab) of a step */
    size_t cut;        /* prompts that lost their beginning */
    size_t slides;     /* times that a context was full */
    double seconds[2]; /* for the prompts, for the new tokens */
    size_t generated;  /* new tokens of all texts */
};

/* options: what it points to must outlive the texts. ERR_UNSUPPORTED unless the model has the
 * byte tokenizer's vocabulary. */
int texts_init(struct texts *out, struct model *model, const struct texts_options *options,
               struct err *err);
void texts_release(struct texts *texts);

/* Reads the prompts. */
void texts_begin(struct texts *texts);
/* One more token for every text that runs; false when none does. */
bool texts_step(struct texts *texts);

/* Bytes of a text that no stop text can take back. */
size_t text_settled(const struct texts *texts, const struct text *text);

#endif
