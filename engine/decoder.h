/* Decoding: a model's next-token logits from a cache of keys and values, so that a token costs
 * one product of every matrix with a vector and not a pass over all tokens before it.
 *
 * A decoder holds the caches of some sequences, each empty at first and at most `capacity`
 * tokens long. A long prompt goes through the model's forward pass, everything else through the
 * decode ops, a few tokens at a time. Logits are those of model_logits up to rounding; they
 * have the same bits for every number of threads, and for a sequence alone or beside others.
 *
 * The decoder packs the masks when it is made and uses the model's device: between its creation
 * and its end the model must not change, and calls on the two must not overlap. Nothing is
 * allocated after decoder_create. */
#ifndef HEBB_ENGINE_DECODER_H
#define HEBB_ENGINE_DECODER_H

#include "engine/model.h"

/* Tokens that go through the decode ops together. */
enum { DECODER_ROWS = 16 };

struct decoder;

/* capacity: tokens of a sequence, at most the context that the model was created for.
 * ERR_UNSUPPORTED if the device cannot decode, ERR_INVALID for a capacity or number of
 * sequences out of range, ERR_NO_MEMORY. */
int decoder_create(struct decoder **out, struct model *model, size_t sequences, size_t capacity,
                   struct err *err);
void decoder_destroy(struct decoder *decoder);

size_t decoder_capacity(const struct decoder *decoder);
/* Tokens of a sequence so far. */
size_t decoder_length(const struct decoder *decoder, size_t sequence);
/* Forgets all tokens of a sequence but the first `length`. */
void decoder_rewind(struct decoder *decoder, size_t sequence, size_t length);

/* Puts count >= 1 tokens at the end of a sequence, where there must be room for them. logits:
 * (want, vocab), what follows each of the last want <= count of them. */
void decoder_read(struct decoder *decoder, size_t sequence, const int32_t *tokens, size_t count,
                  real *logits, size_t want);

/* One token for each of count sequences, all different, each with room for it. logits: (count,
 * vocab). */
void decoder_step(struct decoder *decoder, const size_t *sequences, const int32_t *tokens,
                  size_t count, real *logits);

/* Copies the tokens of one sequence into another, which forgets its own. */
void decoder_copy(struct decoder *decoder, size_t to, size_t from);

/* Bytes of weights, codes and head that one token reads, without the cache. */
size_t decoder_token_bytes(const struct decoder *decoder);

#endif
