/* kernels.h: the operators a backend offers to the model code.
 *
 * `struct kernels` is one backend instance: a device's memory and the operators that
 * run on it. The model code sees only this file and never learns which backend runs.
 *
 *  - Activations are opaque (`act`): float32 on the CPU, a 16-bit type on a GPU. Their
 *    element size is `act_bytes`; use act_at() to step through them. All activation
 *    tensors are row-major; a matrix of activations is [rows, width] without padding
 *    unless a stride is given. Strides count elements.
 *  - Parameters (`param`) are float32 vectors in device memory: norm weights, biases,
 *    rotary tables, and the latents x_t of the sampler.
 *  - Matrices (`struct linear`) and convolutions (`struct conv`) are opened once from
 *    the checkpoint's memory (kernels/formats/weights.h), stay in the checkpoint's precision (4-bit weights stay
 *    4-bit) and may borrow that memory: the mapping must outlive them.
 *  - Operators are enqueued in order and cannot fail one by one; sync() waits and
 *    reports the first failure since the last sync. On the CPU they run at once.
 *  - An instance is used by one thread at a time. The CPU backend spreads each
 *    operator over its own thread pool; results do not depend on the thread count.
 *
 * A backend fills every function pointer. CPU: kernels_cpu_open (kernels/cpu). CUDA: a plugin, kernels_cuda_load
 * (kernels/plugin.h).
 */
#ifndef LANCE_KERNELS_H
#define LANCE_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus /* a backend may be written in C++; std::atomic<bool> has the layout of C's atomic_bool */
#include <atomic>
using std::atomic_bool;
#else
#include <stdatomic.h>
#endif

#include "base/error.h"
#include "kernels/formats/weights.h"
#include "kernels/guidance.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct act act;     /* activations in device memory; see act_at() */
typedef struct param param; /* float32 in device memory; see param_at() */
struct linear;
struct conv;
struct graph; /* work that was recorded; see graph_run */

/* One convolution call, channels last. The input is x [frames, height, width, in_channels],
 * preceded in time by `past_frames` frames at `past` (same layout) and, when these are fewer
 * than kernel_t - 1, by zero frames so that kernel_t - 1 frames of context are there
 * (causal padding), unless `no_time_padding`, when the context is the `past_frames` frames alone.
 * `upsample2x` doubles height and width (nearest neighbour) before the convolution.
 * Spatial zero padding is pad_top/bottom/left/right. Output frames are
 *   (context + frames - kernel_t) / stride_t + 1,  rows and columns likewise.
 * `add` adds to `out` instead of overwriting it (a residual connection). */
struct conv_call {
    const act *x;
    const act *past;
    int past_frames;
    bool no_time_padding;
    int frames, height, width;
    bool upsample2x;
    int stride_t, stride_h, stride_w;
    int pad_top, pad_bottom, pad_left, pad_right;
    bool add;
    act *out;
};

enum { LINEAR_GROUP = 3, HEAD_PARTS = 4 };

/* Rows that products of one input share: x [rows, in_features] normed as rms_norm does, or x itself when weight is
 * NULL. An operator may write the normed rows to h, which has room for them, or leave it alone: nobody reads it
 * after. */
struct normed_rows {
    const act *x;
    int rows;
    const param *weight;
    float eps;
    act *h;
};

/* Heads of some rows that are normed and rotated in place: element (row, head, d) is at
 * x + row*stride + head*head_dim + d. RMS norm per head (skipped when weight is NULL), then rotate-half RoPE with
 * cosines and sines [rows, head_dim/2]: (a, b) -> (a cos - b sin, b cos + a sin), a and b the two halves. */
struct head_part {
    act *x;
    int rows, stride, heads;
    const param *weight;
    const param *cosines, *sines;
};

enum { ATTENTION_MAX_SEGMENTS = 12 }; /* every split of a prompt, what follows it, and both kinds of rows of a block */

/* One attention problem: q_rows queries against the concatenation of key/value segments.
 * Element (row, head, d) of q lies at q + row*q_stride + head*head_dim + d; keys, values
 * and out likewise with their strides and kv_heads (grouped heads: query head h uses
 * key head h / (heads / kv_heads)). With `causal` the queries are aligned with the end
 * of the last segment: query i of q_rows sees every key of the earlier segments and, of
 * the last segment of n rows, keys 0 .. i + n - q_rows. scale multiplies q.k.
 * head_dim is any width: the language model has 128, the ViT 80, the VAE one head of all its channels (1024). */
struct attention {
    const act *q;
    int q_rows, q_stride;
    int heads, kv_heads, head_dim;
    float scale;
    bool causal;
    int segments;
    struct {
        const act *keys;
        const act *values;
        int rows;
        int stride;
    } segment[ATTENTION_MAX_SEGMENTS];
    act *out;
    int out_stride;
};

/* One flow-matching Euler step with classifier-free guidance (LANCE.md section 4; official
 * source modeling/lance/lance.py). All over [rows, width]:
 *   w = u + guidance_scale * (c - u), rescaled by clamp(|c| / (|w| + 1e-8), renorm_min, 1)
 *   over everything (GLOBAL), per row (CHANNEL) or not at all; x <- x - w * dt
 * v_uncond NULL means no guidance (w = c). Rows < first_row take part in the norms but
 * x is updated only from first_row on (frames given as a condition). */
struct guided_step {
    param *x;
    const act *v_cond;
    const act *v_uncond;
    int rows, width, first_row;
    float guidance_scale;
    enum guidance_renorm renorm;
    float renorm_min;
    float dt;
    param *v_out; /* the combined velocity is stored here when not NULL */
};

struct kernels {
    const char *name;   /* "cpu-avx512", "cpu-avx2", "cpu-neon", "cpu-portable", "cuda:NVIDIA H200 with cuBLASLt":
                         * all that a result's bytes depend on; it changes when an operator has to go another way
                         * from now on */
    size_t act_bytes;   /* size of one activation element */
    bool rounds;        /* products round their factors to 16 bits: results are near those of float32, not the same */
    bool rows_alone;    /* from two rows on, a row of a product has the same bytes whatever rows are beside it */
    bool host_memory;   /* device memory is the host's own: one limit for both */
    bool lost;          /* the device has failed for good: this process can do nothing more with it, a new one can */
    char notice[400];   /* for the log: what went another way than it should, without harm. Who logs it empties it */
    void *state;

    void (*close)(struct kernels *k);

    /* Device memory. Errors: ERROR_NO_MEMORY. bytes 0 gives NULL. */
    int (*memory_alloc)(struct kernels *k, void **out, size_t bytes, struct error *error);
    void (*memory_free)(struct kernels *k, void *memory); /* NULL is allowed */
    uint64_t (*memory_in_use)(struct kernels *k);         /* bytes from memory_alloc, linear_open, conv_open */
    uint64_t (*memory_peak)(struct kernels *k);           /* highest memory_in_use so far */
    /* Bytes of device memory that could be had now; 0 with host_memory, where the system is to be asked. */
    uint64_t (*memory_available)(struct kernels *k);

    /* Weights. The source's pointers are borrowed for the life of the object. A convolution counts as in use with all
     * that it may come to take, though a backend may bring its weights into an order of its own at its first calls. */
    int (*linear_open)(struct kernels *k, struct linear **out, const struct linear_source *source,
                       struct error *error);
    void (*linear_close)(struct kernels *k, struct linear *linear);
    int (*conv_open)(struct kernels *k, struct conv **out, const struct conv_source *source,
                     struct error *error);
    void (*conv_close)(struct kernels *k, struct conv *conv);

    /* Transfers; n counts elements. upload and download are complete on return. */
    void (*upload)(struct kernels *k, act *to, const float *from, size_t n);
    void (*download)(struct kernels *k, float *to, const act *from, size_t n);
    void (*param_upload)(struct kernels *k, param *to, const float *from, size_t n);
    void (*param_download)(struct kernels *k, float *to, const param *from, size_t n);
    void (*param_to_act)(struct kernels *k, act *to, const param *from, size_t n);
    void (*copy)(struct kernels *k, act *to, const act *from, size_t n);
    void (*zero)(struct kernels *k, act *to, size_t n);
    int (*sync)(struct kernels *k, struct error *error);
    /* From now on, and while *cancelled is true, operators may leave their work undone, and sync returns
     * ERROR_CANCELLED. Another thread may set it at any time; NULL ends the watch. */
    void (*watch)(struct kernels *k, const atomic_bool *cancelled);

    /* Work that is repeated, like the layers of a denoising step: call work(context), which enqueues operators and does
     * nothing else (no transfer, no memory, no sync), and perhaps keep what it enqueued in *graph (NULL at first), for
     * the next call with the same graph to be quicker. `work` may be called more than once, and need not do the same
     * each time: shapes, addresses and numbers are always those of this call, and so are the results. Long work comes
     * in pieces, numbered from 0, that share a graph. graph_close: NULL is allowed. */
    void (*graph_run)(struct kernels *k, struct graph **graph, int piece, void (*work)(void *context), void *context);
    void (*graph_close)(struct kernels *k, struct graph *graph);
    /* From now on: work adds rows to matrices in `memory`, which have `rows` rows before it. A device may then read
     * that number when the work runs, so that a graph need not be changed for the next one. No result depends on it:
     * what operators are given are places and numbers as they are. NULL: there is no such memory. */
    void (*graph_grows)(struct kernels *k, const void *memory, size_t bytes, int rows);

    /* y [rows, out] = x [rows, in] W^T + bias, or y += that when `add`. */
    void (*linear)(struct kernels *k, const struct linear *w, const act *x, int rows, act *y, bool add);
    /* y[i] = x W[i]^T + bias for `count` matrices, at most LINEAR_GROUP, with the same in_features. */
    void (*linear_group)(struct kernels *k, const struct linear *const *w, int count, const struct normed_rows *x,
                         act *const *y);
    /* out = silu(x G^T) * (x U^T), with their biases, for two matrices of the same size; `spare` has the room that
     * `out` has, and what is there afterwards is of no meaning. */
    void (*linear_swiglu)(struct kernels *k, const struct linear *gate, const struct linear *up,
                          const struct normed_rows *x, act *out, act *spare);
    /* y [rows, in_features of table] = table[ids[row]]; ids are host memory, already range-checked. */
    void (*embed)(struct kernels *k, const struct linear *table, const int32_t *ids, int rows, act *y);

    /* Where the largest of x[0 .. choices) is, the first of equal ones; -1 when one of x[0 .. n) is not finite.
     * choices <= n. Complete on return, as a download; after a failure, which sync reports, the answer is of no use. */
    int32_t (*largest)(struct kernels *k, const act *x, int choices, int n);

    /* y = x / sqrt(mean(x^2) + eps) * weight over the last axis; in place allowed. */
    void (*rms_norm)(struct kernels *k, const act *x, int rows, int width, const param *weight, float eps,
                     act *y);
    /* Up to HEAD_PARTS parts, none of which is in another. */
    void (*head_norm_rope)(struct kernels *k, const struct head_part *parts, int count, int head_dim, float eps);
    void (*attention)(struct kernels *k, const struct attention *problems, int count);
    /* The elementwise operators and channel_norm below may work in place. */
    void (*swiglu)(struct kernels *k, const act *gate, const act *up, size_t n, act *out); /* silu(gate)*up */
    void (*silu)(struct kernels *k, const act *x, size_t n, act *y);
    void (*gelu)(struct kernels *k, const act *x, size_t n, act *y); /* exact (erf) form */
    void (*add)(struct kernels *k, const act *x, size_t n, act *y);  /* y += x */
    /* y[row, :] += x[0, :] for every row. */
    void (*add_row)(struct kernels *k, const act *x, int rows, int width, act *y);
    void (*guided_step)(struct kernels *k, const struct guided_step *step);

    /* VAE operators; all tensors channels last, [frames, height, width, channels]. */
    void (*conv)(struct kernels *k, struct conv *conv, const struct conv_call *call);
    /* y = x / max(|x|_2 over channels, 1e-12) * sqrt(channels) * gamma, then SiLU when `with_silu`. */
    void (*channel_norm)(struct kernels *k, const act *x, size_t pixels, int channels, const param *gamma,
                         bool with_silu, act *y);
    /* y [frames*factor_t - drop, h*factor_s, w*factor_s, out_channels] += x repeated: the channels of x
     * [frames, h, w, in_channels], each repeated out_channels*factor_t*factor_s^2/in_channels times, are
     * read as (out_channel, ft, fs_row, fs_col); the first `drop` output frames are left out.
     * Source: DupUp3D in modeling/vae/wan/vae2_2.py. */
    void (*duplicate_up)(struct kernels *k, const act *x, int frames, int height, int width,
                         int in_channels, int out_channels, int factor_t, int factor_s, int drop, act *y);
    /* y [ceil(frames/factor_t), h/factor_s, w/factor_s, out_channels] += group means of x; zero frames are
     * put in front to make frames divisible. Source: AvgDown3D in modeling/vae/wan/vae2_2.py. */
    void (*average_down)(struct kernels *k, const act *x, int frames, int height, int width,
                         int in_channels, int out_channels, int factor_t, int factor_s, act *y);
    /* y [2*frames, pixels, channels] from x [frames, pixels, 2*channels]: the two channel halves become
     * two consecutive frames (temporal upsampling). */
    void (*split_frames)(struct kernels *k, const act *x, int frames, size_t pixels, int channels, act *y);
    /* Pixels <-> 2x2 patches: pixels [frames, 2*height, 2*width, 3], patches [frames, height, width, 12],
     * patch channel = colour*4 + column*2 + row. */
    void (*patchify)(struct kernels *k, const act *pixels, int frames, int height, int width, act *patches);
    void (*unpatchify)(struct kernels *k, const act *patches, int frames, int height, int width, act *pixels);
};

/* Step `element` elements into device memory. */
static inline act *act_at(const struct kernels *k, const act *base, size_t element)
{
    return (act *)((char *)(uintptr_t)base + element * k->act_bytes);
}
static inline param *param_at(const param *base, size_t element)
{
    return (param *)((char *)(uintptr_t)base + element * sizeof(float));
}

/* The forms of the CPU backend, each with its own name. AUTO is the best in float32 that the processor has. CPU_AVX512
 * gives the same bytes as CPU_AVX2, which on 64-bit ARM is NEON, with the same bytes too. The bf16 forms round the
 * factors of products, attention and convolutions to bf16 and sum in float32; emulated, they give the bytes of those
 * instructions on any processor, slowly, for tests. */
enum cpu_level {
    CPU_AUTO,
    CPU_PORTABLE, CPU_AVX2, CPU_AVX512,
    CPU_AVX512_BF16, CPU_AMX_BF16, CPU_AVX512_BF16_EMULATED, CPU_AMX_BF16_EMULATED
};

/* Open the CPU backend with `threads` threads (0: one per core). Errors: ERROR_NO_MEMORY,
 * ERROR_UNSUPPORTED when the level is not available here. */
int kernels_cpu_open(struct kernels **out, int threads, enum cpu_level level, struct error *error);

#ifdef __cplusplus
}
#endif

#endif
