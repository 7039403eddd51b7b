/* checkpoint.h: a Lance checkpoint directory, opened and checked.
 *
 * Recognises by content the official bf16/f32 release, the AWQ INT4 and NVFP4 releases and those for MLX,
 * finds the VAE and ViT beside or inside the directory, reads llm_config.json and the
 * ViT's config.json, and hands out tensors by name straight from the mapped files: no
 * tensor is copied, but for a ViT's patch embedding in MLX's order. Names are those of the
 * official release, plus the prefixes
 *   "vit_model."  for the ViT, whichever file it is in (the main file wins, as officially)
 *   "vae."        for the VAE ("vae.decoder.conv1.weight")
 * The object owns the mappings; everything handed out lives as long as it does. It is
 * immutable after opening and may be read by any thread.
 */
#ifndef LANCE_CHECKPOINT_H
#define LANCE_CHECKPOINT_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "kernels/formats/weights.h"
#include "protocol/safetensors.h"

enum {
    CHECKPOINT_MAX_FULL_BLOCKS = 64,
    CHECKPOINT_MAX_SHARDS = 64, /* files that one model's weights may be in */
    CHECKPOINT_VIT_PATCH = 14 /* pixels a side: the only ViT that pictures are prepared for */
};

/* Dimensions from llm_config.json, the ViT's config.json and tensor shapes, all range-checked. */
struct lance_config {
    int hidden_size, layers, heads, kv_heads, head_dim, intermediate_size;
    int vocab_size;             /* rows of embed_tokens and lm_head */
    float rms_norm_eps;
    double rope_theta;
    int mrope_section[3];       /* sums to head_dim / 2 */
    bool lacks_head_norms;      /* no q_norm and k_norm: an export for programs that know none */
    bool has_tied_head;         /* no lm_head: the embedding is it */
    bool tables_float32;        /* llm_config.json "position_tables": "float32" (or absent: false) */
    int tokens_per_second;      /* vision_config, 2 */
    int spatial_merge_size;     /* 2 */
    int video_token_id, vision_start_token_id, vision_end_token_id, bos_token_id, eos_token_id; /* ids of the
                                 * <|video_pad|>, <|vision_start|>, <|vision_end|>, <|im_start|>, <|im_end|> tokens */
    struct {
        bool present;
        int depth, hidden_size, heads, intermediate_size, out_hidden_size;
        int patch_size, temporal_patch_size, window_size, in_channels;
        int full_attention_blocks[CHECKPOINT_MAX_FULL_BLOCKS], full_attention_block_count;
    } vit;
    struct {
        bool present;
        int latent_channels;    /* 48 */
        int encoder_dim, decoder_dim; /* base widths: 160 and 256 in the real one */
    } vae;
};

struct checkpoint;

struct checkpoint_options {
    const char *model_dir;
    const char *vae_path; /* NULL: found */
    const char *vit_path; /* NULL: found */
    bool identifies;      /* hash all files, beside what follows */
    const char *cache_folder; /* where hashes of large files are kept; NULL: nowhere */
};

/* What the names and sizes of a checkpoint's files tell, before anything is read. */
struct checkpoint_look {
    const char *form;    /* "dense", "awq", "mlx", "int8", "mixed" or "nvfp4" */
    uint64_t file_bytes; /* of all weights */
    char name[256];      /* the directory's last component */
    bool has_weights;    /* of the language model: the folder is a checkpoint, or part of one */
    char missing[200];   /* files that must be there and are not; "" */
};

/* ERROR_BAD_FILE as checkpoint_open, ERROR_NO_MEMORY. */
int checkpoint_look(struct checkpoint_look *out, const struct checkpoint_options *options, struct error *error);

/* Open and check. A directory that lacks something gets one ERROR_BAD_FILE message that lists all of it.
 * A checkpoint without generation weights (understanding only), or without VAE or ViT, opens when what it has is
 * enough for at least one task; see checkpoint_can_*. */
int checkpoint_open(struct checkpoint **out, const struct checkpoint_options *options, struct error *error);
void checkpoint_close(struct checkpoint *checkpoint);

/* Of one that was opened with `identifies`: wait until all its bytes are hashed, before other threads have it.
 * ERROR_BAD_FILE for a file that changed meanwhile, ERROR_IO, ERROR_NO_MEMORY. */
int checkpoint_identify(struct checkpoint *checkpoint, struct error *error);

const struct lance_config *checkpoint_config(const struct checkpoint *checkpoint);
const char *checkpoint_kind(const struct checkpoint *checkpoint);      /* "bf16", "f32", "awq-int4-g128",
                                                                        * "awq-int4-g64", "awq-int5-g128",
                                                                        * "mlx-int4-g128", "mlx-nvfp4",
                                                                        * "int8-g128", "mixed",
                                                                        * "nvfp4", "nvfp4-fp8-scales" */
const char *checkpoint_directory(const struct checkpoint *checkpoint); /* where vocab.json, merges.txt are */
const char *checkpoint_hash(const struct checkpoint *checkpoint);      /* 64 hex digits: identity.h; ""
                                                                        * before checkpoint_identify */
const char *checkpoint_warnings(const struct checkpoint *checkpoint);  /* text for the log, "" if none */
uint64_t checkpoint_bytes(const struct checkpoint *checkpoint);        /* weight bytes that are used */
void checkpoint_let_go(const struct checkpoint *checkpoint, const char *prefix); /* tensors whose names begin so
                                                                                  * have been copied: their pages
                                                                                  * are given back to the system */
bool checkpoint_can_generate(const struct checkpoint *checkpoint);     /* _moe_gen weights, vae2llm, llm2vae, VAE */
const char *checkpoint_lacks_for_generation(const struct checkpoint *checkpoint); /* what is missing, "" if nothing */
bool checkpoint_can_see(const struct checkpoint *checkpoint);          /* ViT */

/* A tensor by name, or NULL. */
const struct tensor_view *checkpoint_tensor(const struct checkpoint *checkpoint, const char *name);

/* The linear layer `name` (without ".weight"), quantised or not, with its bias if the file has one. A dense weight may
 * have more than two axes, as a 1x1 convolution and the ViT's patch embedding have: all but the first count as `in`.
 * A 4-bit weight is `name`.weight of dtype U32 with .scales and .biases (MLX), or `name`.qweight with .scales and
 * .zeros (AWQ), or with .scales_bf16, or else .scales_fp8 and, if there, its .tensor_scale of one F32 number (NVFP4).
 * `in` and `out` are what the caller expects; a mismatch is ERROR_BAD_FILE. */
int checkpoint_linear(const struct checkpoint *checkpoint, const char *name, int out_features, int in_features,
                      struct linear_source *source, struct error *error);

/* The convolution `name` (without ".weight"); a 4-D weight reads as kernel_t = 1. */
int checkpoint_conv(const struct checkpoint *checkpoint, const char *name, struct conv_source *source,
                    struct error *error);

/* A float vector of exactly `n` elements, widened to float32 into `out`. */
int checkpoint_vector(const struct checkpoint *checkpoint, const char *name, int n, float *out, struct error *error);

/* The files that model.safetensors.index.json at `index` names, each once, as paths in its folder, in the order of
 * their names; for whoever wants weights alone. `paths` has room for CHECKPOINT_MAX_SHARDS. Opens none of them. Errors:
 * ERROR_BAD_FILE (no index, a name that is no file of its folder, no name, or more than there is room for). */
int checkpoint_shards_read(char (*paths)[PATH_MAX], int *count, const char *index, struct error *error);

#endif
