/* denoiser.h: the velocity of the latents being generated, for all guidance branches and batch items in one pass.
 *
 * The target block (vision_start, latent tokens, vision_end) queries the prefix caches and is never
 * stored. Its rotary tables and position embeddings do not change between steps and are made once. The workspace
 * belongs to the denoiser alone from its opening on. Source: validation_gen_KVcache in modeling/lance/lance.py.
 */
#ifndef LANCE_DENOISER_H
#define LANCE_DENOISER_H

#include "daemon/engine/model/decoder.h"
#include "daemon/engine/model/latent_tokens.h"
#include "daemon/engine/model/prompt.h"

struct denoiser_options {
    const struct prompt *prompt;
    struct token_grid grid;  /* of the target, as in the prompt */
    int batch;
    bool guided;             /* some step asks for the unconditional branch */
    int condition_frames;    /* latent frames given as they are: their time is 0 */
};

struct denoiser;

/* `cond` and `uncond` are queried, the latter only when guided, and must outlive the denoiser, as everything else. */
int denoiser_open(struct denoiser **out, const struct decoder *decoder, const struct latent_tokens *latent_tokens,
                  struct kernels *kernels, struct decoder_workspace *workspace, struct kv_cache *cond,
                  struct kv_cache *uncond, const struct denoiser_options *options, struct error *error);
void denoiser_close(struct denoiser *denoiser); /* NULL is allowed */

/* Device bytes of a denoiser, and the rows of its passes. */
uint64_t denoiser_bytes(const struct decoder *decoder, const struct latent_tokens *latent_tokens,
                        const struct kernels *kernels, const struct denoiser_options *options);
int denoiser_pass_rows(const struct denoiser_options *options);

/* Velocities at time t of latents x [batch, cells, channels]. *cond and *uncond [batch, cells, channels] belong to the
 * denoiser and hold until the next call; *uncond is NULL unless `guided`. `trace` or NULL: rows ordered as decoder.h
 * says, the conditional sequences first. */
int denoiser_velocity(struct denoiser *denoiser, const param *x, float t, bool guided,
                      const struct decoder_trace *trace, const act **cond, const act **uncond, struct error *error);

#endif
