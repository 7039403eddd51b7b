/* text.c: the stage that writes an answer, token by token. Source: validation_und_KVcache in
 * modeling/lance/lance.py. */
#include "base/clock.h"
#include "daemon/engine/model/finite.h"
#include "daemon/engine/model/token_sampler.h"
#include "daemon/engine/stages/stages.h"
#include "kernels/kernels.h"

#include <stdlib.h>
#include <string.h>

enum { TOKENS_PER_STEP = 16 };
static const double seconds_per_step = 0.05; /* a step ends after this time, so that text flows and a cancel is quick */

struct text_stage {
    struct job *job;
    struct token_sampler_options sampling;
    int choices;         /* ids that may be said: those the tokenizer knows */
    int32_t last;        /* the token to run next */
    int position;        /* of the first token run, the same on all axes */
    int32_t *ids;
    int count, capacity;
    act *logits;
    struct graph *graph; /* of the pass for a token */
    float *host_logits;
    char *said;          /* all text so far, as decoded at the last step */
    size_t sent;         /* bytes of it already handed out */
    char *piece;
};

static int steps_of(const struct job *job) { return task_answers(job->request.task) ? job->request.max_new_tokens : 0; }

static size_t vocabulary(const struct job *job) { return (size_t)decoder_vocab_size(job->model->decoder); }
static uint64_t logits_bytes(const struct job *job) { return vocabulary(job) * job->kernels->act_bytes; }
static uint64_t host_logits_bytes(const struct job *job) { return vocabulary(job) * sizeof(float); }
static uint64_t ids_bytes(const struct job *job) { return (uint64_t)job->request.max_new_tokens * sizeof(int32_t); }

static void need(const struct job *job, struct stage_need *need)
{
    const struct handover_sizes sizes = handover_sizes_of(job);
    need->own = (struct stage_bytes){.device = logits_bytes(job), .host = host_logits_bytes(job)};
    need->leaves.host = ids_bytes(job);
    need->frees.device = sizes.prefix + sizes.workspace;
}

static int take_up(struct text_stage *s, const struct job_state *state, struct error *error);

static int text_open(void **out, struct job *job, struct error *error)
{
    const struct prompt *prompt = job->plan.prompt;
    const struct lance_request *r = &job->request;
    const int vocab = (int)vocabulary(job), known = tokenizer_size(job->model->tokenizer);
    struct text_stage *s = *out = calloc(1, sizeof *s);
    if (!s)
        return error_set(error, ERROR_NO_MEMORY, "text: no memory");
    int code = 0;
    *s = (struct text_stage){
        .job = job,
        .sampling = {r->temperature, r->top_k, r->top_p, r->repetition_penalty, r->seed},
        .choices = known < vocab ? known : vocab,
        .last = prompt->ids[prompt->tokens - 1],
        .position = prompt->positions[0][prompt->tokens - 1],
        .capacity = r->max_new_tokens,
        .ids = host_alloc(ids_bytes(job), "an answer", &code, error),
        .host_logits = host_alloc(host_logits_bytes(job), "an answer", &code, error),
        .said = host_alloc(1, "an answer", &code, error),
    };
    if (!code)
        code = device_alloc(job, &s->logits, logits_bytes(job), error);
    if (!code)
        code = job_open_workspace(job, error);
    return code || !job_resumes(job, STAGE_TEXT) ? code : take_up(s, job->resumed, error);
}

static void text_close(void *stage)
{
    struct text_stage *s = stage;
    if (!s)
        return;
    device_free(s->job, &s->logits);
    s->job->kernels->graph_close(s->job->kernels, s->graph);
    free(s->ids);
    free(s->host_logits);
    free(s->said);
    free(s->piece);
    free(s);
}

static bool has_ended(const struct text_stage *s)
{
    return s->count > 0 && (s->ids[s->count - 1] == checkpoint_config(s->job->model->checkpoint)->eos_token_id ||
                            s->count == s->capacity);
}

static int fetch_logits(struct text_stage *s, struct error *error)
{
    struct kernels *k = s->job->kernels;
    k->download(k, s->host_logits, s->logits, vocabulary(s->job));
    const int code = k->sync(k, error);
    return code ? code : finite_check(s->host_logits, vocabulary(s->job), "text", error);
}

/* Choose the token after those so far, from the logits. When nothing is drawn or weighed the device finds it itself,
 * and the logits stay there, unless one is not finite: then they are fetched for the message. */
static int choose_token(struct text_stage *s, struct error *error)
{
    const struct given_answer *given = &s->job->given_answer;
    struct kernels *k = s->job->kernels;
    const size_t vocab = vocabulary(s->job);
    int code;
    if (given->ids) {
        if ((code = fetch_logits(s, error)))
            return code;
        given->watch(given->context, s->count - 1, s->host_logits, (int)vocab);
        s->last = given->ids[s->count];
        return 0;
    }
    if (s->sampling.temperature == 0 && s->sampling.repetition_penalty == 1) {
        int32_t largest = k->largest(k, s->logits, s->choices, (int)vocab);
        if ((code = k->sync(k, error)))
            return code;
        if (largest >= 0) {
            s->last = largest;
            return 0;
        }
    }
    if ((code = fetch_logits(s, error)))
        return code;
    return token_sampler_next(&s->sampling, s->host_logits, s->choices, s->ids, s->count, &s->last, error);
}

/* Run the last token and choose the one after it. */
static int next_token(struct text_stage *s, struct error *error)
{
    const struct lance_model *m = s->job->model;
    const int32_t position = s->position + s->count;
    const int32_t *const positions[3] = {&position, &position, &position};
    struct kv_cache *const cache = prefix_cond(s->job->left.prefix);
    const struct decoder_block block = {
        .sequences = 1, .und_rows = 1, .caches = &cache, .causal = true, .store = true, .graph = &s->graph};
    act *x = decoder_workspace_x(s->job->left.workspace);
    int code = decoder_embed(m->decoder, &s->last, 1, x, error);
    if (!code)
        code = decoder_set_positions(m->decoder, s->job->left.workspace, 0, positions, 1, error);
    if (code)
        return code;
    decoder_run(m->decoder, s->job->left.workspace, &block);
    decoder_logits(m->decoder, x, 1, s->logits);
    if ((code = choose_token(s, error)))
        return code;
    s->ids[s->count++] = s->last;
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
static int update_text(struct text_stage *s, struct error *error)
{
    int count = s->count;
    if (count > 0 && s->ids[count - 1] == checkpoint_config(s->job->model->checkpoint)->eos_token_id)
        count--;
    char *said;
    int code = tokenizer_decode(s->job->model->tokenizer, s->ids, (size_t)count, &said, error);
    if (code)
        return code;
    size_t end = has_ended(s) ? strlen(said) : settled(said);
    if (end < s->sent)
        end = s->sent;
    free(s->said);
    free(s->piece);
    s->said = said;
    s->piece = strndup(said + s->sent, end - s->sent);
    s->sent = end;
    return s->piece ? 0 : error_set(error, ERROR_NO_MEMORY, "text: no memory");
}

static int step(void *stage, struct stage_turn *turn, struct error *error)
{
    struct text_stage *s = stage;
    const double start = clock_seconds();
    int code = 0;
    for (int i = 0;
         !code && i < TOKENS_PER_STEP && !has_ended(s) && (i == 0 || clock_seconds() - start < seconds_per_step); i++)
        code = next_token(s, error);
    if (!code)
        code = update_text(s, error);
    if (code)
        return code;
    turn->text = s->piece;
    turn->step = s->count;
    if (has_ended(s)) /* shorter than it might have been */
        turn->steps = s->count;
    return 0;
}

/* Where an earlier process has left the answer: its tokens, and their keys and values behind the prompt's. */
static int take_up(struct text_stage *s, const struct job_state *state, struct error *error)
{
    if (state->token_count == 0)
        return 0;
    s->count = state->token_count;
    memcpy(s->ids, state->tokens, (size_t)s->count * sizeof *s->ids);
    s->last = s->ids[s->count - 1];
    int code = update_text(s, error);
    if (!code && (state->text_bytes < 0 || (size_t)state->text_bytes > strlen(s->said)))
        code = error_set(error, ERROR_BAD_FILE, "state: text_bytes is %lld, but its tokens say %zu bytes",
                         (long long)state->text_bytes, strlen(s->said));
    s->sent = (size_t)state->text_bytes;
    return code ? code
                : kv_cache_restore(prefix_cond(s->job->left.prefix), s->job->model->decoder, state->keys_values,
                                   s->count, error);
}

/* The answer without the end token and surrounding white space. */
static int end(void *stage, struct error *error)
{
    static const char blank[] = " \t\r\n\v\f";
    struct text_stage *s = stage;
    struct handover *left = &s->job->left;
    const char *start = s->said + strspn(s->said, blank);
    size_t length = strlen(start);
    while (length > 0 && strchr(blank, start[length - 1]))
        length--;
    left->text = strndup(start, length);
    left->token_ids = s->ids;
    left->tokens = s->count;
    s->ids = NULL;
    job_close_workspace(s->job);
    job_close_prefix(s->job);
    return left->text ? 0 : error_set(error, ERROR_NO_MEMORY, "text: no memory");
}

static int save(const void *stage, struct job_state *state, struct error *error)
{
    const struct text_stage *s = stage;
    const struct decoder *decoder = s->job->model->decoder;
    int code = 0;
    state->token_count = s->count;
    state->text_bytes = (int64_t)s->sent;
    state->tokens = host_alloc((uint64_t)s->count * sizeof *s->ids, "the job's state", &code, error);
    state->keys_values =
        host_alloc(s->count * kv_cache_row_values(decoder) * sizeof(float), "the job's state", &code, error);
    if (code)
        return code;
    memcpy(state->tokens, s->ids, (size_t)s->count * sizeof *s->ids);
    kv_cache_save(prefix_cond(s->job->left.prefix), decoder, state->keys_values);
    return 0;
}

const struct stage_kind text_stage = {
    .steps = steps_of, .need = need, .open = text_open, .step = step, .end = end, .close = text_close, .save = save};
