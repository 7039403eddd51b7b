/* latent_tokens.h: latents to tokens of the decoder, and hidden states back to velocities.
 *
 *   token = vae2llm(latent) + time_embedder(t) + position(frame, row, column)
 *   velocity = llm2vae(hidden)
 *
 * Positions are a 3-D sine-cosine table, computed here and not read from the checkpoint, as the official loader does
 * (modeling/lance/modeling_utils.py; LANCE.md section 4). Used by the thread that owns the kernels.
 */
#ifndef LANCE_LATENT_TOKENS_H
#define LANCE_LATENT_TOKENS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "daemon/engine/model/checkpoint/checkpoint.h"
#include "daemon/engine/model/token_grid.h"
#include "kernels/kernels.h"

struct latent_tokens;

/* `round_tables`: the position table rounded to bf16, as the official script has it. */
int latent_tokens_open(struct latent_tokens **out, struct kernels *kernels, const struct checkpoint *checkpoint,
                       bool round_tables, struct error *error);
void latent_tokens_close(struct latent_tokens *tokens); /* NULL is allowed */
int latent_tokens_channels(const struct latent_tokens *tokens);

/* The position table of a grid: `out` [frames*height*width, hidden_size]. Cell (frame, row, column) has entry
 * (frame * LATENT_MAX_SIDE + row) * LATENT_MAX_SIDE + column of the official table, also where a side is longer (the
 * 21:9 bucket of image_768res is 72 cells wide): its last columns take entries of the next row. */
int latent_tokens_positions(const struct latent_tokens *tokens, struct token_grid grid, act *out, struct error *error);

/* The embedding of time t in [0, 1]: `out` [hidden_size]. */
void latent_tokens_time(const struct latent_tokens *tokens, float t, act *out);

/* y [rows, hidden_size] = vae2llm(latents [rows, channels]) + positions [rows, hidden_size]; the
 * time is the caller's to add. */
void latent_tokens_embed(const struct latent_tokens *tokens, const act *latents, int rows, const act *positions,
                         act *y);

/* v [rows, channels] of final-norm hidden states. */
void latent_tokens_velocity(const struct latent_tokens *tokens, const act *hidden, int rows, act *v);

#endif
