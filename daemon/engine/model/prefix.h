/* prefix.h: everything before the block that is generated, run once into KV caches.
 *
 * Both guidance branches see the same tokens with the same positions up to the caption, so these are computed once;
 * from the caption on each branch is a chain of its own (with a negative prompt, two prompts, and what they begin with
 * alike is computed once). Every split is a block of the prefix cache (prefix_cache.h): what an earlier job has
 * computed is found when the prefix is opened and not run again. Splits are run one by one, so that a caller can stop
 * in between; but short runs of text that follow one another, of both branches, are one pass, so that every weight is
 * decoded once for them, where that changes no bytes (kernels.h, rows_alone).
 * Source: validation_gen_KVcache and validation_und_KVcache in modeling/lance/lance.py.
 */
#ifndef LANCE_PREFIX_H
#define LANCE_PREFIX_H

#include "daemon/engine/model/decoder.h"
#include "daemon/engine/model/latent_tokens.h"
#include "daemon/engine/model/prefix_cache.h"
#include "daemon/engine/model/prompt.h"

struct prefix_options {
    const struct prompt *prompt;       /* must outlive the prefix */
    bool guided;                       /* make the unconditional branch too */
    bool consistent_uncond_positions;  /* false: as the official KV-cache path (LANCE.md section 6, item 1) */
    int extra_rows;                    /* room for text to be decoded behind the prefix */
    /* What the visual splits are made of: a hash of the ViT's input and one of the reference latents (or of all they
     * come from). Without it ("") such a split and what follows it are not shared between prefixes. */
    struct prefix_name vit_input, reference_input;
};

/* Inputs of visual splits: device memory, needed only by the calls that run them. */
struct prefix_inputs {
    const act *vit_tokens;        /* [vit cells, hidden_size] */
    const act *reference_latents; /* [reference cells, channels], normalised */
    const act *reference_positions; /* [reference cells, hidden_size], from latent_tokens_positions */
};

struct prefix;

/* All of it must outlive the prefix. Takes what the cache has. */
int prefix_open(struct prefix **out, const struct decoder *decoder, const struct latent_tokens *latent_tokens,
                struct kernels *kernels, struct prefix_cache *cache, const struct prefix_options *options,
                struct error *error);
void prefix_close(struct prefix *prefix); /* NULL is allowed */

/* Device bytes of a prefix when it is complete, found or not; and the most rows one of its passes has. */
uint64_t prefix_bytes(const struct decoder *decoder, const struct kernels *kernels,
                      const struct prefix_options *options);
int prefix_pass_rows(const struct kernels *kernels, const struct prefix_options *options);

/* Number of splits (at least 1), whether split i is there, and running those that are not, in order; nothing happens
 * to one that is. Without `traces` splits that follow in the same pass are run too. `traces` are of the conditional
 * ([0]) and the unconditional ([1]) pass, or NULL; only branches that are run apart have their own. */
int prefix_splits(const struct prefix *prefix);
bool prefix_has(const struct prefix *prefix, int split);
int prefix_run(struct prefix *prefix, int split, struct decoder_workspace *workspace,
               const struct prefix_inputs *inputs, const struct decoder_trace *traces, struct error *error);

/* Calls of prefix_run, each with the first split that is not there, until all are. */
int prefix_runs_left(const struct prefix *prefix);

/* Whether any branch still has to run a split of this kind. */
bool prefix_lacks(const struct prefix *prefix, enum split_attention attention);

/* The caches to query once every split is there: conditional, unconditional (NULL when not guided). They belong to the
 * prefix; rows stored into them stay with it. */
struct kv_cache *prefix_cond(const struct prefix *prefix);
struct kv_cache *prefix_uncond(const struct prefix *prefix);

#endif
