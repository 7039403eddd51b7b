/* reading.c: see reading.h. */
#include "daemon/engine/reading.h"

#include <limits.h>
#include <stdlib.h>

#include "daemon/engine/lance_model.h"
#include "daemon/engine/model/decoder.h"
#include "daemon/engine/model/finite.h"
#include "daemon/engine/model/tokenizer/tokenizer.h"
#include "kernels/kernels.h"

enum { LOGIT_ROWS = 16 }; /* that are on the device at a time: those of a large vocabulary are 0.6 MB a row */

struct reading {
    struct kernels *kernels;
    const struct decoder *decoder;
    const int32_t *ids;
    int count;
    struct kv_cache *cache;
    struct decoder_workspace *workspace;
    act *logits;        /* [LOGIT_ROWS, vocabulary] */
    float *host_logits; /* the same */
};

int lance_text_tokens(const struct lance_model *model, const char *text, int32_t **ids, int *count,
                      struct error *error)
{
    size_t found;
    int code = tokenizer_encode(model->tokenizer, text, ids, &found, error);
    if (code != 0)
        return code;
    if (found > INT_MAX) {
        free(*ids);
        *ids = NULL;
        return error_set(error, ERROR_TOO_LARGE, "a text of %zu tokens", found);
    }
    *count = (int)found;
    return 0;
}

static int open_reading(struct reading *r, struct error *error)
{
    const size_t values = LOGIT_ROWS * (size_t)decoder_vocab_size(r->decoder);
    int code = kv_cache_open(&r->cache, r->decoder, NULL, r->count, error);
    if (code == 0)
        code = decoder_workspace_open(&r->workspace, r->decoder, r->count, 1, error);
    if (code == 0)
        code = r->kernels->memory_alloc(r->kernels, (void **)&r->logits, values * r->kernels->act_bytes, error);
    r->host_logits = malloc(values * sizeof *r->host_logits);
    if (code == 0 && !r->host_logits)
        code = error_set(error, ERROR_NO_MEMORY, "reading: no memory");
    return code;
}

static void close_reading(struct reading *r)
{
    r->kernels->memory_free(r->kernels, r->logits);
    decoder_workspace_close(r->workspace);
    kv_cache_close(r->cache);
    free(r->host_logits);
}

/* The tokens' hidden states, in the workspace. */
static int run(struct reading *r, struct error *error)
{
    const struct decoder_block block = {
        .sequences = 1, .und_rows = r->count, .caches = &r->cache, .causal = true, .store = true};
    int32_t *positions = malloc((size_t)r->count * sizeof *positions);
    if (!positions)
        return error_set(error, ERROR_NO_MEMORY, "reading: no memory");
    for (int i = 0; i < r->count; i++)
        positions[i] = i;
    const int32_t *const axes[3] = {positions, positions, positions};
    int code = decoder_embed(r->decoder, r->ids, r->count, decoder_workspace_x(r->workspace), error);
    if (code == 0)
        code = decoder_set_positions(r->decoder, r->workspace, 0, axes, r->count, error);
    if (code == 0) {
        decoder_run(r->decoder, r->workspace, &block);
        code = r->kernels->sync(r->kernels, error);
    }
    free(positions);
    return code;
}

static int show(const struct reading *r, lance_reading_watch *watch, void *context, struct error *error)
{
    struct kernels *k = r->kernels;
    const size_t vocabulary = (size_t)decoder_vocab_size(r->decoder), hidden = (size_t)decoder_hidden_size(r->decoder);
    int code = 0;
    for (int first = 0; first < r->count && code == 0; first += LOGIT_ROWS) {
        const int rows = r->count - first < LOGIT_ROWS ? r->count - first : LOGIT_ROWS;
        const size_t values = (size_t)rows * vocabulary;
        decoder_logits(r->decoder, act_at(k, decoder_workspace_x(r->workspace), (size_t)first * hidden), rows,
                       r->logits);
        k->download(k, r->host_logits, r->logits, values);
        code = k->sync(k, error);
        if (code == 0)
            code = finite_check(r->host_logits, values, "reading", error);
        for (int row = 0; row < rows && code == 0; row++)
            watch(context, first + row, r->host_logits + (size_t)row * vocabulary, (int)vocabulary);
    }
    return code;
}

int lance_read(struct lance_model *model, const int32_t *ids, int count, lance_reading_watch *watch, void *context,
               struct error *error)
{
    struct reading reading = {.kernels = model->kernels, .decoder = model->decoder, .ids = ids, .count = count};
    if (count < 1 || count > LANCE_READING_TOKENS)
        return error_set(error, ERROR_TOO_LARGE, "reading: %d tokens; 1 to %d can be read at a time", count,
                         LANCE_READING_TOKENS);
    int code = open_reading(&reading, error);
    if (code == 0)
        code = run(&reading, error);
    if (code == 0)
        code = show(&reading, watch, context, error);
    close_reading(&reading);
    return code;
}
