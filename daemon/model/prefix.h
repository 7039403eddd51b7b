/* prefix.h: everything before the block that is generated, run once per job into KV caches.
 *
 * Both guidance branches see the same tokens with the same positions up to the caption, so
 * these are computed once (`common`); from the caption on each branch continues that cache with its own. Splits are run
 * one by one, so that a caller can stop in between. Source: validation_gen_KVcache and
 * validation_und_KVcache in modeling/lance/lance.py.
 */
#ifndef LANCE_PREFIX_H
#define LANCE_PREFIX_H

#include "daemon/model/decoder.h"
#include "daemon/model/latent_tokens.h"
#include "daemon/model/prompt.h"

struct prefix_options {
    const struct prompt *prompt;       /* must outlive the prefix */
    bool guided;                       /* make the unconditional branch too */
    bool consistent_uncond_positions;  /* false: as the official KV-cache path (LANCE.md section 6, item 1) */
    int extra_rows;                    /* room for text to be decoded behind the prefix */
};

/* Inputs of visual splits: device memory, needed only by the calls that run them. */
struct prefix_inputs {
    const act *vit_tokens;        /* [vit cells, hidden_size] */
    const act *reference_latents; /* [reference cells, channels], normalised */
    const act *reference_positions; /* [reference cells, hidden_size], from latent_tokens_positions */
};

struct prefix;

int prefix_open(struct prefix **out, const struct decoder *decoder, const struct latent_tokens *latent_tokens,
                struct kernels *kernels, const struct prefix_options *options, struct error *error);
void prefix_close(struct prefix *prefix); /* NULL is allowed */

/* Device bytes of a prefix, and the most rows one of its passes has. */
uint64_t prefix_bytes(const struct decoder *decoder, const struct kernels *kernels, const struct prefix_options *options);
int prefix_pass_rows(const struct prompt *prompt);

/* Number of splits to run (at least 1), and running split i, in order. `traces` are of the conditional ([0]) and the
 * unconditional ([1]) pass, or NULL; only branches that are run apart have their own. */
int prefix_splits(const struct prefix *prefix);
int prefix_run(struct prefix *prefix, int split, struct decoder_workspace *workspace, const struct prefix_inputs *inputs,
               const struct decoder_trace *traces, struct error *error);

/* The caches to query: conditional, unconditional (NULL when not guided). They belong to the prefix. */
struct kv_cache *prefix_cond(const struct prefix *prefix);
struct kv_cache *prefix_uncond(const struct prefix *prefix);

#endif
