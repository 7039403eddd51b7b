/* prompt.h: from a request's words to the packed token sequence the decoder runs.
 *
 * A prompt is the official chat template around the user's text, with a block of
 * placeholders for each picture or video, cut into splits (runs of tokens with one kind of
 * attention), and the three rotary positions of every token (LANCE.md sections 3 and 4;
 * official sources: data/system_prompt_render.py, data/datasets_custom/validation_dataset.py,
 * data/common.py, get_rope_index in modeling/lance/qwen2_navit.py).
 *
 *   [head][ViT block][reference block][caption][tail][target block]      generation
 *   [head][ViT block][question and tail]                                 understanding
 *
 * The official code finds the caption by looking for the caption's own token ids in the
 * whole sequence, so "user" is found in the template's head: this is repeated here, because
 * it decides what the unconditional branch leaves out. Where the ids are not found (a caption that
 * begins with a line break merges with the template's, and the official code raises an error), the caption is
 * every token that holds a byte of it.
 *
 * The official unconditional branch is the same sequence without the caption. With a negative text it is a prompt of
 * its own: that text in the caption's place, with the positions that it has as anybody's caption.
 *
 * Host memory only; an object is immutable once packed.
 */
#ifndef LANCE_PROMPT_H
#define LANCE_PROMPT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "daemon/engine/model/checkpoint/checkpoint.h"
#include "daemon/engine/model/token_grid.h"
#include "daemon/engine/model/tokenizer/tokenizer.h"

enum {
    PROMPT_MAX_BYTES = 65536,  /* of the user's text and of the system prompt */
    PROMPT_MAX_TOKENS = 8192,  /* text tokens of the whole sequence */
    PROMPT_MAX_SPLITS = 8
};

/* How the tokens of a split see: everything before, and of their own split what came earlier (CAUSAL) or all of it.
 * FULL is a ViT block, FULL_NOISE a block of reference latents, NOISE the block to generate. */
enum split_attention { SPLIT_CAUSAL, SPLIT_FULL, SPLIT_FULL_NOISE, SPLIT_NOISE };

/* What a token stands for; the values are the official `sample_modality`. */
enum modality {
    MODALITY_TEMPLATE = -1,
    MODALITY_CAPTION = 0,
    MODALITY_TARGET = 1,
    MODALITY_REFERENCE = 2,
    MODALITY_VIT = 4
};

struct prompt_request {
    const char *system_prompt;
    const char *text;             /* caption, instruction or question; may be empty */
    const char *negative_text;    /* of the unconditional branch; NULL or "": it has no caption */
    struct token_grid vit;        /* merged 2x2 patches */
    struct token_grid reference;  /* latents of the source */
    struct token_grid target;     /* latents to generate; none: an answer in words follows */
};

struct prompt_split {
    enum split_attention attention;
    enum modality modality; /* of its first token: decides whether the unconditional branch sees it */
    int start, length;
};

struct prompt {
    int tokens;
    int32_t *ids;
    int8_t *modalities;
    struct prompt_split splits[PROMPT_MAX_SPLITS];
    int split_count;
    int prefix_splits; /* splits before the target block, or all of them */
    /* [3][tokens]: frame, row and column position of every token; and the same counted without the
     * caption's tokens (whose own entries are unused). */
    int32_t *positions[3];
    int32_t *uncond_positions[3];
    struct prompt *negative; /* what the unconditional branch runs; NULL: this one without its caption */
};

/* What the unconditional branch runs, and the positions of its target block. */
static inline const struct prompt *prompt_uncond(const struct prompt *prompt)
{
    return prompt->negative ? prompt->negative : prompt;
}

static inline int32_t *const *prompt_uncond_positions(const struct prompt *prompt)
{
    return prompt->negative ? prompt->negative->positions : prompt->uncond_positions;
}

/* Splits before the target block of the branch that has more of them. */
static inline int prompt_prefix_splits(const struct prompt *prompt)
{
    const int uncond = prompt_uncond(prompt)->prefix_splits;
    return prompt->prefix_splits > uncond ? prompt->prefix_splits : uncond;
}

/* Pack. ERROR_TOO_LARGE when the text is over PROMPT_MAX_BYTES or PROMPT_MAX_TOKENS,
 * ERROR_BAD_REQUEST when it is not UTF-8. */
int prompt_pack(struct prompt **out, const struct tokenizer *tokenizer, const struct lance_config *config,
                const struct prompt_request *request, struct error *error);
void prompt_free(struct prompt *prompt); /* NULL is allowed */

#endif
