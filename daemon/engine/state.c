/* state.c: see state.h. */
#include "daemon/engine/state.h"
#include "protocol/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char format[] = "lanced job state 1";

enum { PARTS = 5 };

/* A part of a state in its file: where it is in memory, and what it must be. */
struct part {
    const char *name;
    enum dtype dtype;
    void **values;
    uint64_t elements;
};

static void parts_of(struct job_state *s, const struct state_sizes *sizes, struct part parts[PARTS])
{
    const struct part all[] = {
        {"x", DTYPE_F32, (void **)&s->x, sizes->latents},
        {"encoded", DTYPE_F32, (void **)&s->encoded, sizes->encoded},
        {"tokens", DTYPE_I32, (void **)&s->tokens, (uint64_t)s->token_count},
        {"keys_values", DTYPE_F32, (void **)&s->keys_values, (uint64_t)s->token_count * sizes->token_values},
        {"pixels", DTYPE_U8, (void **)&s->pixels, (uint64_t)s->items * sizes->item_bytes},
    };
    memcpy(parts, all, sizeof all);
}

void job_state_free(struct job_state *s)
{
    void *const all[] = {s->x, s->encoded, s->tokens, s->keys_values, s->pixels};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
    *s = (struct job_state){0};
}

/* ---- writing ---- */

static struct tensor_view view_of(const char *name, enum dtype dtype, uint64_t elements, const void *data)
{
    return (struct tensor_view){
        .name = name, .dtype = dtype, .dimensions = 1, .shape = {elements}, .data = data,
            .bytes = elements * dtype_bytes(dtype)};
}

int job_state_write(const struct job_state *state, const struct state_identity *identity,
                    const struct state_sizes *sizes, void **out, size_t *bytes, struct error *error)
{
    struct job_state copy = *state;
    struct part parts[PARTS];
    struct tensor_view tensors[PARTS + 2];
    size_t count = 0;
    parts_of(&copy, sizes, parts);
    for (size_t i = 0; i < PARTS; i++)
        if (*parts[i].values && parts[i].elements > 0)
            tensors[count++] = view_of(parts[i].name, parts[i].dtype, parts[i].elements, *parts[i].values);
    tensors[count++] = view_of("seconds", DTYPE_F64, STAGE_COUNT, state->seconds);
    tensors[count++] = view_of("steps_done", DTYPE_I32, STAGE_COUNT, state->steps_done);
    char step[16], token_count[16], text_bytes[32], items[16];
    snprintf(step, sizeof step, "%d", state->step);
    snprintf(token_count, sizeof token_count, "%d", state->token_count);
    snprintf(text_bytes, sizeof text_bytes, "%lld", (long long)state->text_bytes);
    snprintf(items, sizeof items, "%d", state->items);
    const char *const keys[] = {"lanced", "build", "backend", "model",      "request", "inputs",
                                "stage",  "step",  "tokens",  "text_bytes", "items"};
    const char *const values[] = {format,           identity->build,  identity->backend,
                                  identity->model,  identity->request, identity->inputs,
                                  lance_stage_name(state->stage), step, token_count, text_bytes, items};
    uint64_t written;
    int code = safetensors_write(out, &written, tensors, count, keys, values, sizeof keys / sizeof *keys, error);
    *bytes = code ? 0 : (size_t)written;
    return code;
}

/* ---- reading: the one place where what a file says is checked ---- */

static int damaged(struct error *error, const char *what)
{
    return error_set(error, ERROR_BAD_FILE, "state: %s is missing or not of this job's size; the file is damaged",
                     what);
}

static int read_number(const struct safetensors *file, const char *key, int64_t most, int64_t *out, struct error *error)
{
    const char *text = safetensors_metadata(file, key);
    char *end = NULL;
    const long long value = text && *text >= '0' && *text <= '9' ? strtoll(text, &end, 10) : -1;
    if (!end || *end || value < 0 || value > most)
        return error_set(error, ERROR_BAD_FILE, "state: %s is \"%.40s\"; a number from 0 to %lld is needed", key,
                         text ? text : "", (long long)most);
    *out = value;
    return 0;
}

static int check_same(const struct safetensors *file, const char *key, const char *here, int code, struct error *error)
{
    const char *there = safetensors_metadata(file, key);
    if (there && !strcmp(there, here))
        return 0;
    if (!there)
        return error_set(error, ERROR_BAD_FILE, "state: \"%s\" is missing; the file is damaged", key);
    return error_set(error, code, "the state is of another %s: %.70s, where %.70s is needed", key, there, here);
}

static int check_identity(const struct safetensors *file, struct state_identity *identity, struct error *error)
{
    const char *form = safetensors_metadata(file, "lanced"), *inputs = safetensors_metadata(file, "inputs");
    int code;
    if (!form || strcmp(form, format) != 0)
        return error_set(error, ERROR_BAD_FILE, "state: not a job's state (\"%.40s\" where \"%s\" is needed)",
                         form ? form : "", format);
    if ((code = check_same(file, "build", identity->build, ERROR_UNSUPPORTED, error)) ||
        (code = check_same(file, "backend", identity->backend, ERROR_UNSUPPORTED, error)) ||
        (code = check_same(file, "model", identity->model, ERROR_UNSUPPORTED, error)) ||
        (code = check_same(file, "request", identity->request, ERROR_BAD_REQUEST, error)))
        return code;
    if (!inputs || strlen(inputs) >= sizeof identity->inputs)
        return damaged(error, "\"inputs\"");
    strcpy(identity->inputs, inputs);
    return 0;
}

/* Where the job was, and how much of it there is. */
static int read_place(struct job_state *s, const struct safetensors *file, const struct state_sizes *sizes,
                      struct error *error)
{
    const char *name = safetensors_metadata(file, "stage");
    const int stage = name ? lance_stage_of(name) : -1;
    int64_t step, tokens, text_bytes, items;
    int code;
    if (stage < 0 || sizes->steps[stage] == 0)
        return error_set(error, ERROR_BAD_FILE, "state: stage is \"%.40s\", which this job has not", name ? name : "");
    if ((code = read_number(file, "step", sizes->steps[stage] - 1, &step, error)) ||
        (code = read_number(file, "tokens", sizes->tokens, &tokens, error)) ||
        (code = read_number(file, "text_bytes", INT64_MAX, &text_bytes, error)) ||
        (code = read_number(file, "items", sizes->items, &items, error)))
        return code;
    s->stage = stage;
    s->step = (int)step;
    s->token_count = (int)tokens;
    s->text_bytes = text_bytes;
    s->items = (int)items;
    if (tokens != (stage == STAGE_TEXT ? step : 0) ||
        (stage == STAGE_DECODE ? items * sizes->item_steps != step : items != 0))
        return error_set(error, ERROR_BAD_FILE, "state: step %lld of %s does not go with %lld tokens and %lld items",
                         (long long)step, name, (long long)tokens, (long long)items);
    return 0;
}

/* A copy of a tensor that is of this size, or nothing where there is none. */
static int take(const struct safetensors *file, const struct part *part, struct error *error)
{
    const struct tensor_view *tensor = safetensors_find(file, part->name);
    if (!tensor)
        return 0;
    if (part->elements == 0 || !tensor_is(tensor, part->dtype, 1, &part->elements))
        return damaged(error, part->name);
    if (!(*part->values = malloc((size_t)tensor->bytes)))
        return error_set(error, ERROR_NO_MEMORY, "state: no memory for %llu bytes", (unsigned long long)tensor->bytes);
    memcpy(*part->values, tensor->data, (size_t)tensor->bytes);
    return 0;
}

static int check_finite(const char *name, const float *values, uint64_t count, struct error *error)
{
    for (uint64_t i = 0; values && i < count; i++)
        if (!isfinite(values[i]))
            return error_set(error, ERROR_BAD_FILE, "state: value %llu of %s is no number; the file is damaged",
                             (unsigned long long)i, name);
    return 0;
}

/* What the stage cannot go on without is there, and its values can be used. */
static int check_parts(const struct job_state *s, const struct state_sizes *sizes, const struct part parts[PARTS],
                       struct error *error)
{
    const bool has_x = (s->stage == STAGE_DENOISE && s->step > 0) || (s->stage == STAGE_DECODE && sizes->latents > 0);
    if (has_x != (s->x != NULL))
        return damaged(error, "x");
    if (s->encoded && s->stage <= STAGE_ENCODE)
        return damaged(error, "encoded");
    if (s->token_count > 0 && (!s->tokens || !s->keys_values))
        return damaged(error, "tokens");
    if (s->items > 0 && !s->pixels)
        return damaged(error, "pixels");
    for (int i = 0; i < s->token_count; i++)
        if (s->tokens[i] < 0 || s->tokens[i] >= sizes->token_ids)
            return error_set(error, ERROR_BAD_FILE, "state: token %d is %d; ids from 0 to %d are accepted", i,
                             s->tokens[i], sizes->token_ids - 1);
    int code = 0;
    for (size_t i = 0; !code && i < PARTS; i++)
        if (parts[i].dtype == DTYPE_F32)
            code = check_finite(parts[i].name, *parts[i].values, parts[i].elements, error);
    return code;
}

/* Times and counts of the stages so far: they only tell. */
static int read_times(struct job_state *s, const struct safetensors *file, struct error *error)
{
    static const uint64_t shape[] = {STAGE_COUNT};
    const struct tensor_view *seconds = safetensors_find(file, "seconds"),
                             *steps = safetensors_find(file, "steps_done");
    if (!seconds || !steps || !tensor_is(seconds, DTYPE_F64, 1, shape) || !tensor_is(steps, DTYPE_I32, 1, shape))
        return damaged(error, "seconds or steps_done");
    memcpy(s->seconds, seconds->data, sizeof s->seconds);
    memcpy(s->steps_done, steps->data, sizeof s->steps_done);
    for (int i = 0; i < STAGE_COUNT; i++)
        if (!(s->seconds[i] >= 0 && s->seconds[i] < 1e9) || s->steps_done[i] < 0)
            return damaged(error, "seconds or steps_done");
    return 0;
}

static int read_file(struct job_state *s, const struct safetensors *file, struct state_identity *identity,
                     const struct state_sizes *sizes, struct error *error)
{
    int code = check_identity(file, identity, error);
    if (!code)
        code = read_place(s, file, sizes, error);
    struct part parts[PARTS];
    if (!code)
        parts_of(s, sizes, parts);
    for (size_t i = 0; !code && i < PARTS; i++)
        code = take(file, &parts[i], error);
    if (!code)
        code = check_parts(s, sizes, parts, error);
    return code ? code : read_times(s, file, error);
}

int job_state_read(struct job_state *s, struct state_identity *identity, const struct state_sizes *sizes,
                   const void *data, size_t bytes, struct error *error)
{
    struct safetensors *file;
    *s = (struct job_state){0};
    int code = safetensors_parse(&file, data, bytes, "state", error);
    if (code)
        return code;
    code = read_file(s, file, identity, sizes, error);
    safetensors_close(file);
    return code;
}
