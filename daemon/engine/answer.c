/* answer.c: the stage that writes an answer, token by token. Source: validation_und_KVcache in
 * modeling/lance/lance.py. */
#include "base/clock.h"
#include "daemon/engine/internal.h"
#include "daemon/engine/model/token_sampler.h"

#include <stdlib.h>
#include <string.h>

enum { TOKENS_PER_STEP = 16 };
static const double seconds_per_step = 0.05; /* a step ends after this time, so that text flows and a cancel is quick */

struct answer {
    struct lance_model *model;
    struct kernels *kernels;
    struct prefix *prefix;               /* borrowed, as the workspace is */
    struct decoder_workspace *workspace;
    struct token_sampler_options sampling;
    int choices;         /* ids that may be said: those the tokenizer knows */
    int32_t last;        /* the token to run next */
    int position;        /* its position, the same on all axes */
    int32_t *ids;
    int count, capacity;
    act *logits;
    struct graph *graph; /* of the pass for a token */
    float *host_logits;
    char *said;          /* all text so far, as decoded at the last step */
    size_t sent;         /* bytes of it already handed out */
    char *piece;
};

int answer_open(struct answer **out, struct lance_model *model, const struct job_plan *plan,
                const struct lance_request *request, struct prefix *prefix, struct decoder_workspace *workspace,
                struct error *error)
{
    *out = NULL;
    const struct prompt *prompt = plan->prompt;
    const int vocab = decoder_vocab_size(model->decoder), known = tokenizer_size(model->tokenizer);
    struct answer *a = calloc(1, sizeof *a);
    if (!a)
        return error_set(error, ERROR_NO_MEMORY, "answer: no memory");
    *a = (struct answer){
        .model = model,
        .kernels = model->kernels,
        .prefix = prefix,
        .workspace = workspace,
        .sampling = {request->temperature, request->top_k, request->top_p, request->repetition_penalty, request->seed},
        .choices = known < vocab ? known : vocab,
        .last = prompt->ids[prompt->tokens - 1],
        .position = prompt->positions[0][prompt->tokens - 1],
        .capacity = request->max_new_tokens,
        .ids = calloc((size_t)request->max_new_tokens, sizeof(int32_t)),
        .host_logits = malloc((size_t)vocab * sizeof(float)),
        .said = calloc(1, 1),
    };
    int code = a->ids && a->host_logits && a->said ? 0 : error_set(error, ERROR_NO_MEMORY, "answer: no memory");
    if (!code)
        code = a->kernels->memory_alloc(a->kernels, (void **)&a->logits, plan->logits_bytes, error);
    if (code)
        answer_close(a);
    else
        *out = a;
    return code;
}

void answer_close(struct answer *a)
{
    if (!a)
        return;
    a->kernels->memory_free(a->kernels, a->logits);
    a->kernels->graph_close(a->kernels, a->graph);
    free(a->ids);
    free(a->host_logits);
    free(a->said);
    free(a->piece);
    free(a);
}

int answer_tokens(const struct answer *a, const int32_t **ids)
{
    *ids = a->ids;
    return a->count;
}

static bool has_ended(const struct answer *a)
{
    return a->count > 0 &&
           (a->ids[a->count - 1] == checkpoint_config(a->model->checkpoint)->eos_token_id || a->count == a->capacity);
}

/* Run the last token and choose the one after it. */
static int next_token(struct answer *a, struct error *error)
{
    struct lance_model *m = a->model;
    const int32_t position = a->position + a->count;
    const int32_t *const positions[3] = {&position, &position, &position};
    struct kv_cache *const cache = prefix_cond(a->prefix);
    const struct decoder_block block = {
        .sequences = 1, .und_rows = 1, .caches = &cache, .causal = true, .store = true, .graph = &a->graph};
    act *x = decoder_workspace_x(a->workspace);
    int code = decoder_embed(m->decoder, &a->last, 1, x, error);
    if (!code)
        code = decoder_set_positions(m->decoder, a->workspace, 0, positions, 1, error);
    if (code)
        return code;
    decoder_run(m->decoder, a->workspace, &block);
    decoder_logits(m->decoder, x, 1, a->logits);
    const size_t vocabulary = (size_t)decoder_vocab_size(m->decoder);
    a->kernels->download(a->kernels, a->host_logits, a->logits, vocabulary);
    if ((code = a->kernels->sync(a->kernels, error)) || (code = finite_check(a->host_logits, vocabulary, "text", error)) ||
        (code = token_sampler_next(&a->sampling, a->host_logits, a->choices, a->ids, a->count, &a->last, error)))
        return code;
    a->ids[a->count++] = a->last;
    return 0;
}

/* Bytes of `text` that later tokens cannot change: all but replacement characters at the end, which may be the
 * beginning of a character whose other bytes are still to come. */
static size_t settled(const char *text)
{
    size_t length = strlen(text);
    while (length >= 3 && !memcmp(text + length - 3, "\xef\xbf\xbd", 3))
        length -= 3;
    return length;
}

/* Decode everything and hand out what is new. */
static int update_text(struct answer *a, struct error *error)
{
    int count = a->count;
    if (count > 0 && a->ids[count - 1] == checkpoint_config(a->model->checkpoint)->eos_token_id)
        count--;
    char *said;
    int code = tokenizer_decode(a->model->tokenizer, a->ids, (size_t)count, &said, error);
    if (code)
        return code;
    size_t end = has_ended(a) ? strlen(said) : settled(said);
    if (end < a->sent)
        end = a->sent;
    free(a->said);
    free(a->piece);
    a->said = said;
    a->piece = strndup(said + a->sent, end - a->sent);
    a->sent = end;
    return a->piece ? 0 : error_set(error, ERROR_NO_MEMORY, "answer: no memory");
}

int answer_step(struct answer *a, const char **piece, struct error *error)
{
    const double start = clock_seconds();
    int code = 0;
    for (int i = 0; !code && i < TOKENS_PER_STEP && !has_ended(a) && (i == 0 || clock_seconds() - start < seconds_per_step); i++)
        code = next_token(a, error);
    if (!code)
        code = update_text(a, error);
    if (code)
        return code;
    *piece = a->piece;
    return has_ended(a) ? LANCE_STEP_DONE : LANCE_STEP_MORE;
}

int answer_text(const struct answer *a, char **text, struct error *error)
{
    static const char blank[] = " \t\r\n\v\f";
    const char *start = a->said + strspn(a->said, blank);
    size_t length = strlen(start);
    while (length > 0 && strchr(blank, start[length - 1]))
        length--;
    *text = strndup(start, length);
    return *text ? 0 : error_set(error, ERROR_NO_MEMORY, "answer: no memory");
}
