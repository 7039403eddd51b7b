/* prompt.c: see prompt.h. */
#include "daemon/engine/model/prompt.h"

#include <stdlib.h>
#include <string.h>

/* ---- token lists ---- */

struct token_list {
    int32_t *ids;
    size_t count;
};

static int encode(struct token_list *list, const struct tokenizer *tokenizer, const char *const *pieces, int count,
                  struct error *error)
{
    *list = (struct token_list){0};
    size_t length = 0;
    for (int i = 0; i < count; i++)
        length += strlen(pieces[i]);
    char *text = malloc(length + 1);
    if (!text)
        return error_set(error, ERROR_NO_MEMORY, "prompt: no memory for %zu bytes of text", length);
    char *end = text;
    for (int i = 0; i < count; i++)
        end = stpcpy(end, pieces[i]);
    *end = 0;
    int code = tokenizer_encode(tokenizer, text, &list->ids, &list->count, error);
    free(text);
    return code;
}

/* ---- building the sequence ---- */

/* Everything a packing needs on the way; freed in prompt_pack. */
struct packing {
    const struct lance_config *config;
    struct prompt *prompt;
    struct token_list head, segment, tail, caption; /* segment: the run of text that holds the caption */
    int caption_start, caption_length; /* in the sequence; length 0: there is none */
    struct token_grid block_grids[3];  /* in sequence order */
    int blocks;
};

static void append_ids(struct prompt *prompt, const int32_t *ids, size_t count)
{
    if (count)
        memcpy(prompt->ids + prompt->tokens, ids, count * sizeof *ids);
    prompt->tokens += (int)count;
}

static void append_split(struct prompt *prompt, enum split_attention attention, int start, int length)
{
    if (length > 0)
        prompt->splits[prompt->split_count++] =
            (struct prompt_split){.attention = attention, .start = start, .length = length};
}

static void append_block(struct packing *p, enum split_attention attention, enum modality modality,
                         struct token_grid grid)
{
    struct prompt *prompt = p->prompt;
    int cells = token_grid_cells(grid);
    if (cells == 0)
        return;
    int start = prompt->tokens;
    prompt->ids[prompt->tokens++] = p->config->vision_start_token_id;
    for (int i = 0; i < cells; i++)
        prompt->ids[prompt->tokens++] = p->config->video_token_id;
    prompt->ids[prompt->tokens++] = p->config->vision_end_token_id;
    memset(prompt->modalities + start, modality, (size_t)cells + 2);
    append_split(prompt, attention, start, cells + 2);
    p->block_grids[p->blocks++] = grid;
}

/* Where the official search finds the caption: the first place of the sequence with the caption's own ids. */
static int find_caption(const struct prompt *prompt, const struct token_list *caption)
{
    for (int at = 0; caption->count && at + (int)caption->count <= prompt->tokens; at++)
        if (!memcmp(prompt->ids + at, caption->ids, caption->count * sizeof *caption->ids))
            return at;
    return -1;
}

/* Set caption_start and caption_length. The segment begins at segment_start, with the head (emptied when a visual
 * block comes between) and ends with the tail. */
static void locate_caption(struct packing *p, int segment_start)
{
    const struct token_list *segment = &p->segment;
    if (p->caption.count == 0)
        return;
    struct prompt *prompt = p->prompt;
    int found = find_caption(prompt, &p->caption);
    for (int i = 0; found >= 0 && i < prompt->split_count; i++) {
        const struct prompt_split *split = &prompt->splits[i];
        if (split->attention == SPLIT_CAUSAL && found >= split->start &&
            found + (int)p->caption.count <= split->start + split->length) {
            p->caption_start = found;
            p->caption_length = (int)p->caption.count;
            return;
        }
    }
    size_t before = 0, limit = segment->count - p->tail.count;
    while (before < p->head.count && before < limit && p->head.ids[before] == segment->ids[before])
        before++;
    p->caption_start = segment_start + (int)before;
    p->caption_length = (int)(limit - before);
}

/* Cut the causal split that holds the caption in up to three. */
static void split_at_caption(struct packing *p)
{
    struct prompt *prompt = p->prompt;
    if (p->caption_length == 0)
        return;
    memset(prompt->modalities + p->caption_start, MODALITY_CAPTION, (size_t)p->caption_length);
    struct prompt_split splits[PROMPT_MAX_SPLITS];
    int count = prompt->split_count;
    memcpy(splits, prompt->splits, sizeof splits);
    prompt->split_count = 0;
    for (int i = 0; i < count; i++) {
        int start = splits[i].start, end = start + splits[i].length;
        int caption_end = p->caption_start + p->caption_length;
        if (splits[i].attention == SPLIT_CAUSAL && p->caption_start >= start && p->caption_start < end) {
            append_split(prompt, SPLIT_CAUSAL, start, p->caption_start - start);
            append_split(prompt, SPLIT_CAUSAL, p->caption_start, p->caption_length);
            append_split(prompt, SPLIT_CAUSAL, caption_end, end - caption_end);
        } else {
            append_split(prompt, splits[i].attention, start, end - start);
        }
    }
}

/* ---- rotary positions ---- */

enum { NO_MODALITY = 127 };

/* Fill `positions` for the tokens whose modality is not `left_out`: text counts up on all axes, a block's cells
 * spread from where they begin (get_rope_index), then the shifts of the official shift_position_ids. */
static void count_positions(const struct packing *p, int left_out, int32_t *const positions[3])
{
    const struct prompt *prompt = p->prompt;
    const int rate = p->config->tokens_per_second;
    int next = 0, block = 0;
    for (int s = 0; s < prompt->split_count; s++) {
        const struct prompt_split *split = &prompt->splits[s];
        int at = split->start, end = split->start + split->length;
        if (split->attention == SPLIT_CAUSAL) {
            for (; at < end; at++)
                if (prompt->modalities[at] != left_out) {
                    for (int axis = 0; axis < 3; axis++)
                        positions[axis][at] = next;
                    next++;
                }
            continue;
        }
        struct token_grid grid = p->block_grids[block++];
        for (int axis = 0; axis < 3; axis++)
            positions[axis][at] = next;
        next++;
        at++;
        for (int t = 0; t < grid.frames; t++)
            for (int y = 0; y < grid.height; y++)
                for (int x = 0; x < grid.width; x++, at++) {
                    positions[0][at] = next + rate * t;
                    positions[1][at] = next + y;
                    positions[2][at] = next + x;
                }
        int farthest = rate * (grid.frames - 1);
        farthest = farthest > grid.height - 1 ? farthest : grid.height - 1;
        farthest = farthest > grid.width - 1 ? farthest : grid.width - 1;
        next += farthest + 1;
        for (int axis = 0; axis < 3; axis++)
            positions[axis][at] = next;
        next++;
    }
}

/* Generation with a source: the ViT block moves to 1000 in time, and a target of the
 * reference's length takes its place. */
static void shift_positions(const struct prompt *prompt, int32_t *const positions[3])
{
    const struct prompt_split *vit = NULL, *reference = NULL, *target = NULL;
    for (int s = 0; s < prompt->split_count; s++) {
        const struct prompt_split *split = &prompt->splits[s];
        if (split->attention == SPLIT_FULL)
            vit = split;
        else if (split->attention == SPLIT_FULL_NOISE)
            reference = split;
        else if (split->attention == SPLIT_NOISE)
            target = split;
    }
    if (!target)
        return;
    if (vit) {
        int shift = 1000 - positions[0][vit->start];
        for (int i = 0; i < vit->length; i++)
            positions[0][vit->start + i] += shift;
    }
    if (reference && reference->length == target->length)
        for (int axis = 0; axis < 3; axis++)
            memcpy(positions[axis] + target->start, positions[axis] + reference->start,
                   (size_t)target->length * sizeof **positions);
}

/* ---- packing ---- */

static int allocate(struct packing *p, size_t tokens, struct error *error)
{
    struct prompt *prompt = p->prompt;
    prompt->ids = calloc(tokens, sizeof *prompt->ids);
    prompt->modalities = malloc(tokens);
    bool ok = prompt->ids && prompt->modalities;
    for (int axis = 0; axis < 3; axis++) {
        prompt->positions[axis] = calloc(tokens, sizeof **prompt->positions);
        prompt->uncond_positions[axis] = calloc(tokens, sizeof **prompt->uncond_positions);
        ok = ok && prompt->positions[axis] && prompt->uncond_positions[axis];
    }
    if (!ok)
        return error_set(error, ERROR_NO_MEMORY, "prompt: no memory for %zu tokens", tokens);
    memset(prompt->modalities, MODALITY_TEMPLATE, tokens);
    return 0;
}

/* `name` is the parameter that holds request->text. */
static int pack(struct packing *p, const struct tokenizer *tokenizer, const struct prompt_request *request,
                const char *name, struct error *error)
{
    const bool source = request->vit.frames > 0 || request->reference.frames > 0;
    const bool generates = request->target.frames > 0;
    const char *head[] = {"<|im_start|>system\n", request->system_prompt, "<|im_end|>\n<|im_start|>user\n"};
    const char *tail[] = {"<|im_end|>\n<|im_start|>assistant\n"};
    const char *whole[] = {head[0], head[1], head[2], request->text, tail[0]};
    struct token_list *segment = &p->segment;
    int code = 0;
    if ((code = encode(&p->head, tokenizer, head, 3, error)) || (code = encode(&p->tail, tokenizer, tail, 1, error)) ||
        (code = encode(&p->caption, tokenizer, &request->text, 1, error)) ||
        (code = source ? encode(segment, tokenizer, whole + 3, 2, error) : encode(segment, tokenizer, whole, 5, error)))
        return code;

    size_t text_tokens = segment->count + (source ? p->head.count : 0);
    if (text_tokens > PROMPT_MAX_TOKENS)
        return error_set(error, ERROR_TOO_LARGE, "%s is %zu tokens with its system prompt; at most %d are accepted",
                         name, text_tokens, PROMPT_MAX_TOKENS);
    size_t cells = (size_t)token_grid_cells(request->vit) + (size_t)token_grid_cells(request->reference) +
                   (size_t)token_grid_cells(request->target);
    if ((code = allocate(p, text_tokens + cells + 7, error)))
        return code;

    struct prompt *prompt = p->prompt;
    if (source) {
        append_ids(prompt, p->head.ids, p->head.count);
        append_split(prompt, SPLIT_CAUSAL, 0, prompt->tokens);
        p->head.count = 0; /* a block keeps it apart from the caption */
        append_block(p, SPLIT_FULL, MODALITY_VIT, request->vit);
        append_block(p, SPLIT_FULL_NOISE, MODALITY_REFERENCE, request->reference);
    }
    int segment_start = prompt->tokens;
    append_ids(prompt, segment->ids, segment->count);
    append_split(prompt, SPLIT_CAUSAL, segment_start, (int)segment->count);
    if (generates) {
        append_block(p, SPLIT_NOISE, MODALITY_TARGET, request->target);
        locate_caption(p, segment_start);
        split_at_caption(p);
    }
    while (prompt->prefix_splits < prompt->split_count &&
           prompt->splits[prompt->prefix_splits].attention != SPLIT_NOISE)
        prompt->prefix_splits++;
    for (int i = 0; i < prompt->split_count; i++)
        prompt->splits[i].modality = prompt->modalities[prompt->splits[i].start];

    count_positions(p, NO_MODALITY, prompt->positions);
    count_positions(p, MODALITY_CAPTION, prompt->uncond_positions);
    shift_positions(prompt, prompt->positions);
    shift_positions(prompt, prompt->uncond_positions);
    return 0;
}

static int pack_branch(struct prompt **out, const struct tokenizer *tokenizer, const struct lance_config *config,
                       const struct prompt_request *request, const char *name, struct error *error)
{
    *out = NULL;
    const struct {
        const char *name, *text;
    } texts[] = {{name, request->text}, {"system_prompt", request->system_prompt}};
    for (int i = 0; i < 2; i++)
        if (strlen(texts[i].text) > PROMPT_MAX_BYTES)
            return error_set(error, ERROR_TOO_LARGE, "%s has %zu bytes; at most %d are accepted", texts[i].name,
                             strlen(texts[i].text), PROMPT_MAX_BYTES);
    struct packing p = {.config = config, .prompt = calloc(1, sizeof(struct prompt))};
    if (!p.prompt)
        return error_set(error, ERROR_NO_MEMORY, "prompt: no memory");
    int code = pack(&p, tokenizer, request, name, error);
    free(p.head.ids);
    free(p.tail.ids);
    free(p.caption.ids);
    free(p.segment.ids);
    if (code)
        prompt_free(p.prompt);
    else
        *out = p.prompt;
    return code;
}

int prompt_pack(struct prompt **out, const struct tokenizer *tokenizer, const struct lance_config *config,
                const struct prompt_request *request, struct error *error)
{
    int code = pack_branch(out, tokenizer, config, request, "prompt", error);
    if (code || request->target.frames == 0 || !request->negative_text || !*request->negative_text)
        return code;
    struct prompt_request negative = *request;
    negative.text = request->negative_text;
    code = pack_branch(&(*out)->negative, tokenizer, config, &negative, "negative_prompt", error);
    if (code) {
        prompt_free(*out);
        *out = NULL;
    }
    return code;
}

void prompt_free(struct prompt *prompt)
{
    if (!prompt)
        return;
    prompt_free(prompt->negative);
    free(prompt->ids);
    free(prompt->modalities);
    for (int axis = 0; axis < 3; axis++) {
        free(prompt->positions[axis]);
        free(prompt->uncond_positions[axis]);
    }
    free(prompt);
}
