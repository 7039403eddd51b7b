/* lance_model.h: a model that is open: its parts, and what its jobs share. Opened and closed by load.c. */
#ifndef LANCE_LANCE_MODEL_H
#define LANCE_LANCE_MODEL_H

#include <stdatomic.h>

#include "base/sha256.h"
#include "daemon/engine/lance.h"

struct checkpoint;
struct tokenizer;
struct decoder;
struct latent_tokens;
struct vae;
struct vit;
struct prefix_cache;

enum { PREVIEW_MAX_CHANNELS = 64 };

/* Red, green and blue, from -1 to 1, of a latent cell: bias + sum over channels of weight * latent. */
struct preview_colours {
    float weight[3][PREVIEW_MAX_CHANNELS];
    float bias[3];
};

struct lance_model {
    struct kernels *kernels; /* borrowed */
    struct checkpoint *checkpoint;
    struct tokenizer *tokenizer;
    struct decoder *decoder;
    struct latent_tokens *latent_tokens; /* these two NULL without generation weights */
    struct vae *vae;
    struct vit *vit; /* NULL without a ViT */
    char name[128];
    char hash[SHA256_HEX_BYTES];
    double load_seconds;
    uint64_t weight_bytes;
    struct prefix_cache *prefix_cache;
    bool round_tables;       /* position tables are bf16 */
    uint64_t memory_limit_bytes; /* 0: none */
    uint64_t host_limit_bytes;   /* of jobs, where the backend has memory of its own; 0: none */
    uint64_t promised_bytes;     /* estimates of the jobs that are open, */
    uint64_t promised_host_bytes; /* and of the host's memory, where that is another, */
    uint64_t held_bytes;         /* and what they hold now of the device's */
    struct preview_colours colours;
    atomic_bool colours_there; /* known, or fitted by now */
};

#endif
