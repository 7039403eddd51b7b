/* vae_blocks.h: what the VAE's encoder and decoder are built of (private to vae*.c).
 *
 * A network is a chain of convolutions, residual blocks and one attention block. It is run
 * depth first, one frame at a time: every temporary tensor holds one frame (two right
 * after a temporal upsampling), and every causal convolution keeps the last frames of its
 * own input. The same code runs twice: a rehearsal without memory measures the workspace
 * and lays out the caches, then the real pass allocates exactly that.
 */
#ifndef LANCE_VAE_BLOCKS_H
#define LANCE_VAE_BLOCKS_H

#include "base/error.h"
#include "daemon/engine/model/checkpoint/checkpoint.h"
#include "daemon/engine/model/workspace.h"
#include "kernels/kernels.h"
#include "protocol/latent_shape.h"

enum { VAE_MAX_STAGES = 6, VAE_MAX_RESIDUALS = 8, VAE_PATCH = 2, VAE_PATCH_CHANNELS = 3 * VAE_PATCH * VAE_PATCH };

/* A convolution; a 1x1x1 one is held as a matrix. Those that look back in time have a cache. */
struct vae_conv {
    struct conv *conv;
    struct linear *pointwise;
    int in, out;
    int kernel_t, kernel_h, kernel_w;
    int cache; /* index into the pass's caches, -1: sees one frame only */
};

struct vae_norm {
    param *gamma;
    int channels;
};

struct vae_residual {
    struct vae_norm norm_in, norm_out;
    struct vae_conv conv_in, conv_out;
    bool has_shortcut; /* the width changes */
    struct vae_conv shortcut;
};

struct vae_attention {
    struct vae_norm norm;
    struct vae_conv qkv, proj;
};

/* One resolution: residual blocks, then a change of resolution by 2 (resample), and of frame rate by 2 (time). */
struct vae_stage {
    int in, out;
    int residuals;
    struct vae_residual residual[VAE_MAX_RESIDUALS];
    bool has_resample, has_time;
    struct vae_conv resample, time;
};

/* Decoder: latent_conv, first, middle, stages, head. Encoder: first, stages, middle, head, latent_conv. */
struct vae_network {
    struct vae_conv latent_conv;
    struct vae_conv first;
    struct vae_residual middle_in, middle_out;
    struct vae_attention middle_attention;
    int stages;
    struct vae_stage stage[VAE_MAX_STAGES];
    struct vae_norm head_norm;
    struct vae_conv head;
    int caches; /* convolutions with a cache */
};

struct vae {
    struct kernels *kernels;
    const struct checkpoint *checkpoint;
    int latent_channels;
    struct vae_network decoder, encoder;
};

/* The last input frames of one causal convolution. */
struct vae_cache {
    size_t at;             /* element offset in the cache memory */
    size_t frame_elements; /* 0: not laid out yet */
    int frames;            /* filled so far in this walk, */
    int frames_before;     /* and when the latent frame began */
};

struct vae_pass {
    const struct vae *vae;
    const struct vae_network *network;
    struct kernels *kernels;
    int latent_frames, latent_height, latent_width;
    int frame;                /* latent frames done */
    bool rehearsal;           /* nothing is computed, only measured */
    int block;                /* of this walk through the network, counted by vae_block_end, */
    int due, due_end;         /* and the blocks from due on, before due_end, are computed:
                               * the others were, or will be */
    int blocks[2];            /* of the first latent frame, and of each later one */
    struct workspace workspace;
    act *memory;              /* workspace.peak elements */
    struct vae_cache *cache;  /* [network->caches] */
    size_t cache_elements;
    act *cache_memory;
    float *host_latent;       /* [latent cells, 2 * latent channels] */
    float *pixels_out;        /* decoding: where the next frame goes */
    const float *pixels_in;   /* encoding: where the next frame comes from */
    int frames_out;
};

/* One frame [height, width, channels] in the workspace of a pass. `piece` is what is given back when the frame is
 * released, VAE_BORROWED if somebody else does that. */
#define VAE_BORROWED ((size_t)-1)
struct vae_frame {
    size_t at;
    size_t piece;
    int height, width, channels;
};

static inline size_t vae_frame_elements(const struct vae_frame *x)
{
    return (size_t)x->height * (size_t)x->width * (size_t)x->channels;
}

/* A frame is computed in steps of a few blocks of layers. Each step walks through the whole network, so that every
 * tensor gets the place it had in the walk before, and computes only the blocks that are due. */
static inline bool vae_is_due(const struct vae_pass *pass)
{
    return !pass->rehearsal && pass->block >= pass->due && pass->block < pass->due_end;
}

static inline void vae_block_end(struct vae_pass *pass)
{
    pass->block++;
}

/* Run a kernel where it is due. */
#define VAE_RUN(pass, operator, ...)                                                                                   \
    do {                                                                                                               \
        if (vae_is_due(pass))                                                                                          \
            (pass)->kernels->operator((pass)->kernels, __VA_ARGS__);                                                   \
    } while (0)

static inline act *vae_at(const struct vae_pass *pass, size_t element)
{
    return act_at(pass->kernels, pass->memory, element);
}

/* Loading. `name` is below "vae."; widths that do not fit are ERROR_BAD_FILE. `out` 0 takes what the file has. */
struct vae_loader {
    struct kernels *kernels;
    const struct checkpoint *checkpoint;
    struct vae_network *network;
    struct error *error;
};
struct vae_kernel_size { int t, h, w; };
bool vae_has(const struct vae_loader *loader, const char *format, ...) __attribute__((format(printf, 2, 3)));
int vae_load_conv(struct vae_loader *loader, struct vae_conv *conv, int in, int out, struct vae_kernel_size size,
                  const char *format, ...) __attribute__((format(printf, 6, 7)));
int vae_load_norm(struct vae_loader *loader, struct vae_norm *norm, int channels, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
int vae_load_residual(struct vae_loader *loader, struct vae_residual *block, int in, const char *name);
int vae_load_attention(struct vae_loader *loader, struct vae_attention *block, int channels, const char *name);
/* Stage `index` of "encoder.downsamples" or "decoder.upsamples". */
int vae_load_stage(struct vae_loader *loader, struct vae_stage *stage, int in, const char *list, const char *inner,
                   int index);
void vae_network_close(struct vae_network *network, struct kernels *kernels);

/* Building blocks; each works on one frame of `pass`. */
struct vae_frame vae_frame_take(struct vae_pass *pass, int height, int width, int channels);
void vae_frame_release(struct vae_pass *pass, struct vae_frame *x);
/* Keep the frame at workspace offset `x` as the newest of the `capacity` that the convolution may look back on. */
void vae_cache_push(struct vae_pass *pass, const struct vae_conv *conv, size_t x, size_t frame_elements, int capacity);
/* out = conv(x) (or += when `add`), same height and width, causal in time, with its cache. */
void vae_conv_causal(struct vae_pass *pass, const struct vae_conv *conv, const struct vae_frame *x, size_t out,
                     bool add);
void vae_norm_silu(struct vae_pass *pass, const struct vae_norm *norm, const struct vae_frame *x, size_t out);
void vae_residual_run(struct vae_pass *pass, const struct vae_residual *block, struct vae_frame *x); /* x is replaced */
void vae_attention_run(struct vae_pass *pass, const struct vae_attention *block, struct vae_frame *x);
void vae_middle_run(struct vae_pass *pass, struct vae_frame *x);

/* The two networks (vae_decoder.c, vae_encoder.c): load, and run one latent frame of a pass. */
int vae_decoder_load(struct vae_loader *loader, int *latent_channels);
void vae_decoder_run(struct vae_pass *pass);
int vae_encoder_load(struct vae_loader *loader, int latent_channels);
void vae_encoder_run(struct vae_pass *pass);

#endif
