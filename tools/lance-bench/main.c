/* lance-bench: how fast each operator of a backend is on this machine, at the shapes of Lance-3B.
 *
 *   lance-bench [--backend cpu|cuda] [--isa NAME] [--precision float32|bf16|auto] [--threads N] [--seconds S]
 *               [--filter NAME] [--tiny] [--json]
 *   lance-bench --tasks --model DIR [--vae FILE] [--vit DIR] [--task t2i,t2v,x2t_image] [--image WxH]
 *               [--video WxHxFRAMES] [--picture WxH] [--steps N] [--tokens N] [--runs N] [--head exact|int8]
 *               [--backend ...] [--threads N] [--json]
 *
 * Every case runs for S seconds (0.5) at least twice and its best time counts: on a shared machine
 * the rest is other people's work. Beside the operator's rate stands what the machine did just before. On the CPU, in a
 * plain loop: multiply-adds of the backend's kind for cases bound by arithmetic (GFLOP/s), reading in several streams
 * for those bound by memory (GB/s of the bytes that must be read or written at least once): weights from beyond the
 * caches, other tensors from a set of their size, which may lie within. On a card, where
 * cases run many times between two waits: the largest bf16 product here, 8192 x 8192 x 8192, through cuBLASLt where
 * that is installed (the backend's name says so), and copying memory, read and written bytes counted. --tiny makes
 * every shape small: to try the program, not to measure.
 *
 * --tasks runs whole jobs of a checkpoint instead (tasks.c): a picture, a video, and an answer about a picture, with
 * the time by stage, the memory, and whether every run gave the same bytes. random-checkpoint makes one to measure
 * with.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "kernels/backend.h"
#include "tools/lance-bench/machine.h"
#include "tools/lance-bench/tasks.h"

enum operation { LINEAR, ATTENTION, CONV, RMS_NORM, HEAD_NORM_ROPE, SWIGLU, CHANNEL_NORM, DUPLICATE_UP };
enum bound { BY_ARITHMETIC, BY_MEMORY };

/* What the numbers mean depends on the operation; see prepare(). */
struct bench_case {
    const char *name, *shape;
    enum operation operation;
    enum bound bound;
    enum weight_format format;
    int group, rows, in, out;            /* LINEAR; elementwise: rows of `in` */
    int keys, heads, kv_heads, head_dim; /* ATTENTION over `rows` queries; HEAD_NORM_ROPE */
    bool causal, upsample;
    int kernel_t, kernel, frames, height, width; /* CONV, CHANNEL_NORM, DUPLICATE_UP */
    bool card;                                   /* too long for a CPU */
};

#define HIDDEN 2048
#define INTER 11008
static const struct bench_case cases[] = {
    {"linear-f32", "512 x 2048 x 11008", LINEAR, BY_ARITHMETIC, WEIGHT_F32, .group = 0, .rows = 512, .in = HIDDEN,
     .out = INTER},
    {"linear-bf16", "512 x 2048 x 11008", LINEAR, BY_ARITHMETIC, WEIGHT_BF16, .group = 0, .rows = 512, .in = HIDDEN,
     .out = INTER},
    {"linear-awq-g128", "512 x 2048 x 11008", LINEAR, BY_ARITHMETIC, WEIGHT_AWQ_INT4, .group = 128, .rows = 512,
     .in = HIDDEN,
     .out = INTER},
    {"linear-awq-g64", "512 x 2048 x 11008", LINEAR, BY_ARITHMETIC, WEIGHT_AWQ_INT4, .group = 64, .rows = 512,
     .in = HIDDEN,
     .out = INTER},
    {"linear-nvfp4", "512 x 2048 x 11008", LINEAR, BY_ARITHMETIC, WEIGHT_NVFP4, .group = 16, .rows = 512, .in = HIDDEN,
     .out = INTER},
    {"linear-awq-down", "512 x 11008 x 2048", LINEAR, BY_ARITHMETIC, WEIGHT_AWQ_INT4, .group = 128, .rows = 512,
     .in = INTER,
     .out = HIDDEN},
    {"linear-awq-prompt", "48 x 2048 x 11008", LINEAR, BY_ARITHMETIC, WEIGHT_AWQ_INT4, .group = 128, .rows = 48,
     .in = HIDDEN,
     .out = INTER},
    {"linear-awq-2304", "2304 x 2048 x 2048", LINEAR, BY_ARITHMETIC, WEIGHT_AWQ_INT4, .group = 128, .rows = 2304,
     .in = HIDDEN,
     .out = HIDDEN},
    {"gemv-f32", "1 x 2048 x 11008", LINEAR, BY_MEMORY, WEIGHT_F32, .group = 0, .rows = 1, .in = HIDDEN,
     .out = INTER},
    {"gemv-bf16", "1 x 2048 x 11008", LINEAR, BY_MEMORY, WEIGHT_BF16, .group = 0, .rows = 1, .in = HIDDEN,
     .out = INTER},
    {"gemv-awq-g128", "1 x 2048 x 11008", LINEAR, BY_MEMORY, WEIGHT_AWQ_INT4, .group = 128, .rows = 1, .in = HIDDEN,
     .out = INTER},
    {"gemv-awq-g64", "1 x 2048 x 11008", LINEAR, BY_MEMORY, WEIGHT_AWQ_INT4, .group = 64, .rows = 1, .in = HIDDEN,
     .out = INTER},
    {"gemv-nvfp4", "1 x 2048 x 11008", LINEAR, BY_MEMORY, WEIGHT_NVFP4, .group = 16, .rows = 1, .in = HIDDEN,
     .out = INTER},
    {"gemv-awq-down", "1 x 11008 x 2048", LINEAR, BY_MEMORY, WEIGHT_AWQ_INT4, .group = 128, .rows = 1, .in = INTER,
     .out = HIDDEN},
    {"gemv-awq-4-rows", "4 x 2048 x 11008", LINEAR, BY_MEMORY, WEIGHT_AWQ_INT4, .group = 128, .rows = 4, .in = HIDDEN,
     .out = INTER},
    {"gemv-awq-16-rows", "16 x 2048 x 11008", LINEAR, BY_MEMORY, WEIGHT_AWQ_INT4, .group = 128, .rows = 16,
     .in = HIDDEN, .out = INTER},
    {"attention-image", "2304 x 4608, 16/2 heads of 128", ATTENTION, BY_ARITHMETIC, .rows = 2304, .keys = 4608,
     .heads = 16, .kv_heads = 2, .head_dim = 128},
    {"attention-causal", "600 x 600, 16/2 heads of 128", ATTENTION, BY_ARITHMETIC, .rows = 600, .keys = 600,
     .heads = 16, .kv_heads = 2, .head_dim = 128, .causal = true},
    {"attention-vit", "1024 x 1024, 16 heads of 80", ATTENTION, BY_ARITHMETIC, .rows = 1024, .keys = 1024,
     .heads = 16, .kv_heads = 16, .head_dim = 80},
    {"attention-vae", "1024 x 1024, 1 head of 1024", ATTENTION, BY_ARITHMETIC, .rows = 1024, .keys = 1024,
     .heads = 1, .kv_heads = 1, .head_dim = 1024},
    {"attention-decode", "1 x 2500, 16/2 heads of 128", ATTENTION, BY_MEMORY, .rows = 1, .keys = 2500, .heads = 16,
     .kv_heads = 2, .head_dim = 128, .causal = true},
    {"conv-3x3x3-1024", "2 x 32 x 32, 1024 -> 1024", CONV, BY_ARITHMETIC, .in = 1024, .out = 1024, .kernel_t = 3,
     .kernel = 3, .frames = 2, .height = 32, .width = 32},
    {"conv-3x3x3-256", "1 x 128 x 128, 256 -> 256", CONV, BY_ARITHMETIC, .in = 256, .out = 256, .kernel_t = 3,
     .kernel = 3, .frames = 1, .height = 128, .width = 128},
    {"conv-up-2x", "1 x 64 x 64, 512 -> 512", CONV, BY_ARITHMETIC, .in = 512, .out = 512, .kernel_t = 1, .kernel = 3,
     .frames = 1, .height = 64, .width = 64, .upsample = true},
    {"conv-head-12", "1 x 128 x 128, 256 -> 12", CONV, BY_ARITHMETIC, .in = 256, .out = 12, .kernel_t = 3,
     .kernel = 3, .frames = 1, .height = 128, .width = 128},
    {"conv-input-160", "1 x 128 x 128, 12 -> 160", CONV, BY_ARITHMETIC, .in = 12, .out = 160, .kernel_t = 3,
     .kernel = 3, .frames = 1, .height = 128, .width = 128},
    {"rms-norm", "2304 x 2048", RMS_NORM, BY_MEMORY, .rows = 2304, .in = HIDDEN},
    {"head-norm-rope", "2304, 16 heads of 128", HEAD_NORM_ROPE, BY_MEMORY, .rows = 2304, .heads = 16, .head_dim = 128},
    {"swiglu", "2304 x 11008", SWIGLU, BY_MEMORY, .rows = 2304, .in = INTER},
    {"channel-norm-silu", "4 x 128 x 128 x 256", CHANNEL_NORM, BY_MEMORY, .in = 256, .frames = 4, .height = 128,
     .width = 128},
    {"duplicate-up", "1 x 64 x 64, 1024 -> 512", DUPLICATE_UP, BY_MEMORY, .in = 1024, .out = 512, .frames = 1,
     .height = 64, .width = 64},
    /* a denoising step of 768 x 768 with both branches in one batch; 50 frames of 480 x 848 */
    {"linear-bf16-step", "4608 x 2048 x 11008", LINEAR, BY_ARITHMETIC, WEIGHT_BF16, .rows = 4608, .in = HIDDEN,
     .out = INTER,
     .card = true},
    {"linear-awq-step", "4608 x 2048 x 11008", LINEAR, BY_ARITHMETIC, WEIGHT_AWQ_INT4, .group = 128, .rows = 4608,
     .in = HIDDEN, .out = INTER, .card = true},
    {"linear-awq-g64-step", "4608 x 2048 x 11008", LINEAR, BY_ARITHMETIC, WEIGHT_AWQ_INT4, .group = 64, .rows = 4608,
     .in = HIDDEN, .out = INTER, .card = true},
    {"linear-nvfp4-step", "4608 x 2048 x 11008", LINEAR, BY_ARITHMETIC, WEIGHT_NVFP4, .group = 16, .rows = 4608,
     .in = HIDDEN, .out = INTER, .card = true},
    {"linear-nvfp4-down", "4608 x 11008 x 2048", LINEAR, BY_ARITHMETIC, WEIGHT_NVFP4, .group = 16, .rows = 4608,
     .in = INTER, .out = HIDDEN, .card = true},
    {"linear-nvfp4-video", "41340 x 2048 x 11008", LINEAR, BY_ARITHMETIC, WEIGHT_NVFP4, .group = 16, .rows = 41340,
     .in = HIDDEN, .out = INTER, .card = true},
    {"few-nvfp4-8-rows", "8 x 2048 x 11008", LINEAR, BY_MEMORY, WEIGHT_NVFP4, .group = 16, .rows = 8, .in = HIDDEN,
     .out = INTER, .card = true},
    {"few-nvfp4-16-rows", "16 x 2048 x 11008", LINEAR, BY_MEMORY, WEIGHT_NVFP4, .group = 16, .rows = 16, .in = HIDDEN,
     .out = INTER, .card = true},
    {"some-nvfp4-32-rows", "32 x 2048 x 11008", LINEAR, BY_MEMORY, WEIGHT_NVFP4, .group = 16, .rows = 32,
     .in = HIDDEN, .out = INTER, .card = true},
    {"some-nvfp4-64-rows", "64 x 2048 x 11008", LINEAR, BY_MEMORY, WEIGHT_NVFP4, .group = 16, .rows = 64,
     .in = HIDDEN, .out = INTER, .card = true},
    {"some-nvfp4-128-rows", "128 x 2048 x 11008", LINEAR, BY_MEMORY, WEIGHT_NVFP4, .group = 16, .rows = 128,
     .in = HIDDEN, .out = INTER, .card = true},
    {"some-nvfp4-128-small", "128 x 2048 x 2048", LINEAR, BY_MEMORY, WEIGHT_NVFP4, .group = 16, .rows = 128,
     .in = HIDDEN, .out = HIDDEN, .card = true},
    {"some-nvfp4-256-rows", "256 x 2048 x 11008", LINEAR, BY_MEMORY, WEIGHT_NVFP4, .group = 16, .rows = 256,
     .in = HIDDEN, .out = INTER, .card = true},
    {"some-nvfp4-512-rows", "512 x 2048 x 11008", LINEAR, BY_MEMORY, WEIGHT_NVFP4, .group = 16, .rows = 512,
     .in = HIDDEN, .out = INTER, .card = true},
    {"some-awq-128-rows", "128 x 2048 x 11008", LINEAR, BY_MEMORY, WEIGHT_AWQ_INT4, .group = 128, .rows = 128,
     .in = HIDDEN, .out = INTER, .card = true},
    {"gemv-bf16-head", "1 x 2048 x 151936", LINEAR, BY_MEMORY, WEIGHT_BF16, .rows = 1, .in = HIDDEN, .out = 151936,
     .card = true},
    {"attention-picture", "2304 x 2371, 16/2 heads of 128", ATTENTION, BY_ARITHMETIC, .rows = 2304, .keys = 2371,
     .heads = 16, .kv_heads = 2, .head_dim = 128, .card = true},
    {"attention-20k", "20670 x 20670, 16/2 heads of 128", ATTENTION, BY_ARITHMETIC, .rows = 20670, .keys = 20670,
     .heads = 16, .kv_heads = 2, .head_dim = 128, .card = true},
    {"attention-50k", "50000 x 50100, 16/2 heads of 128", ATTENTION, BY_ARITHMETIC, .rows = 50000, .keys = 50100,
     .heads = 16, .kv_heads = 2, .head_dim = 128, .card = true},
    {"attention-vae-9k", "9216 x 9216, 1 head of 1024", ATTENTION, BY_ARITHMETIC, .rows = 9216, .keys = 9216,
     .heads = 1,
     .kv_heads = 1, .head_dim = 1024, .card = true},
    {"conv-3x3x3-512", "4 x 384 x 384, 512 -> 512", CONV, BY_ARITHMETIC, .in = 512, .out = 512, .kernel_t = 3,
     .kernel = 3, .frames = 4, .height = 384, .width = 384, .card = true},
    {"conv-3x3x3-256-768", "4 x 384 x 384, 256 -> 256", CONV, BY_ARITHMETIC, .in = 256, .out = 256, .kernel_t = 3,
     .kernel = 3, .frames = 4, .height = 384, .width = 384, .card = true},
    {"rms-norm-video", "41340 x 2048", RMS_NORM, BY_MEMORY, .rows = 41340, .in = HIDDEN, .card = true},
    {"swiglu-video", "41340 x 11008", SWIGLU, BY_MEMORY, .rows = 41340, .in = INTER, .card = true},
    {"channel-norm-video", "4 x 384 x 384 x 256", CHANNEL_NORM, BY_MEMORY, .in = 256, .frames = 4, .height = 384,
     .width = 384, .card = true},
};

/* What a card's arithmetic is compared with. */
static const struct bench_case largest_product = {"largest-product", "8192 x 8192 x 8192", LINEAR,     BY_ARITHMETIC,
                                                  WEIGHT_BF16,       .rows = 8192,         .in = 8192, .out = 8192};
static const size_t copied_bytes = (size_t)1 << 30;

/* Products of few rows walk through so many bytes of weights, as decoding does: far more than what a cache keeps. */
enum { MATRIX_COPIES_MAX = 48 };
static const size_t rotate_bytes = (size_t)512 << 20;

struct bench {
    struct kernels *k;
    const struct bench_case *c;
    act *x, *past, *y, *third;
    param *weight, *cosines;
    struct linear *matrix[MATRIX_COPIES_MAX];
    int copies, turn;
    struct conv *conv;
    void *file[3]; /* weights as the checkpoint would hold them */
    double work;   /* operations or bytes of one run */
};

static void check(int code, const struct error *error)
{
    if (!code)
        return;
    fprintf(stderr, "lance-bench: %s\n", error->text);
    exit(1);
}

static void *filled(size_t bytes, int value)
{
    void *memory = malloc(bytes);
    if (!memory) {
        fprintf(stderr, "lance-bench: no memory for %zu bytes\n", bytes);
        exit(1);
    }
    memset(memory, value, bytes);
    return memory;
}

/* Device memory of n values in [-0.5, 0.5). */
static void *values(struct kernels *k, size_t n, bool is_param)
{
    struct error error;
    void *memory = NULL;
    check(k->memory_alloc(k, &memory, n * (is_param ? sizeof(float) : k->act_bytes), &error), &error);
    float *host = filled(n * sizeof *host, 0);
    uint32_t state = 1;
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        host[i] = (float)(state >> 8) / 16777216.0f - 0.5f;
    }
    if (is_param)
        k->param_upload(k, memory, host, n);
    else
        k->upload(k, memory, host, n);
    free(host);
    return memory;
}

static void prepare_linear(struct bench *b)
{
    const struct bench_case *c = b->c;
    struct linear_source s = {.format = c->format, .out_features = c->out, .in_features = c->in, .group_size = c->group,
                              .scales = "", .tensor_scale = 1.0f};
    const struct linear_row_bytes row = linear_row_bytes(&s);
    size_t n = (size_t)c->in * (size_t)c->out, out = (size_t)c->out, data = out * row.data;
    size_t bytes = out * (row.data + row.scales + row.zeros);
    /* A card keeps the last three 4-bit matrices decoded; in a model every product meets another. */
    size_t wanted = c->bound == BY_MEMORY ? (rotate_bytes + bytes - 1) / bytes : c->group && !b->k->host_memory ? 4 : 1;
    b->copies = wanted > MATRIX_COPIES_MAX ? MATRIX_COPIES_MAX : (int)wanted;
    /* 0x3c3c3c3c is 0.0115 in float32 and in bf16, and two ordinary 4-bit codes a byte. */
    b->file[0] = filled(data * (size_t)b->copies, 0x3c);
    b->file[1] = filled(out * row.scales * (size_t)b->copies, 0x3c);
    b->file[2] = filled(out * row.zeros * (size_t)b->copies, 8);
    for (int i = 0; i < b->copies; i++) {
        s.data = (char *)b->file[0] + (size_t)i * data;
        s.scales = (char *)b->file[1] + (size_t)i * out * row.scales;
        s.zeros = (uint8_t *)b->file[2] + (size_t)i * out * row.zeros;
        struct error error;
        check(b->k->linear_open(b->k, &b->matrix[i], &s, &error), &error);
    }
    b->x = values(b->k, (size_t)c->rows * (size_t)c->in, false);
    b->y = values(b->k, (size_t)c->rows * (size_t)c->out, false);
    b->work = c->bound == BY_MEMORY ? (double)bytes : 2.0 * (double)n * (double)c->rows;
}

static void prepare_attention(struct bench *b)
{
    const struct bench_case *c = b->c;
    size_t q = (size_t)c->rows * (size_t)(c->heads * c->head_dim),
           kv = (size_t)c->keys * (size_t)(c->kv_heads * c->head_dim);
    b->x = values(b->k, q, false);
    b->y = values(b->k, q, false);
    b->past = values(b->k, kv, false);
    b->third = values(b->k, kv, false);
    double seen = c->causal ? (double)c->keys - 0.5 * (double)(c->rows - 1) : (double)c->keys; /* on average */
    b->work = c->bound == BY_MEMORY ? 2.0 * (double)kv * (double)b->k->act_bytes : 4.0 * (double)q * seen;
}

static int conv_out(const struct bench_case *c, int side)
{
    return side * (c->upsample ? 2 : 1);
}

static void prepare_conv(struct bench *b)
{
    const struct bench_case *c = b->c;
    size_t weights = (size_t)c->in * (size_t)c->out * (size_t)(c->kernel_t * c->kernel * c->kernel);
    size_t plane = (size_t)c->height * (size_t)c->width * (size_t)c->in;
    size_t pixels = (size_t)c->frames * (size_t)conv_out(c, c->height) * (size_t)conv_out(c, c->width);
    b->file[0] = filled(weights * 4, 0x3c);
    struct conv_source s = {.format = WEIGHT_F32, .out_channels = c->out, .in_channels = c->in, .weight = b->file[0],
                            .kernel_t = c->kernel_t, .kernel_h = c->kernel, .kernel_w = c->kernel};
    struct error error;
    check(b->k->conv_open(b->k, &b->conv, &s, &error), &error);
    b->x = values(b->k, plane * (size_t)c->frames, false);
    b->past = values(b->k, plane * 2, false);
    b->y = values(b->k, pixels * (size_t)c->out, false);
    b->work = 2.0 * (double)weights * (double)pixels;
}

static void prepare(struct bench *b)
{
    const struct bench_case *c = b->c;
    size_t n = (size_t)c->rows * (size_t)c->in, pixels = (size_t)c->frames * (size_t)c->height * (size_t)c->width;
    double act_bytes = (double)b->k->act_bytes;
    switch (c->operation) {
    case LINEAR: prepare_linear(b); return;
    case ATTENTION: prepare_attention(b); return;
    case CONV: prepare_conv(b); return;
    case RMS_NORM:
        b->x = values(b->k, n, false);
        b->y = values(b->k, n, false);
        b->weight = values(b->k, (size_t)c->in, true);
        b->work = 2.0 * (double)n * act_bytes;
        return;
    case HEAD_NORM_ROPE:
        n = (size_t)c->rows * (size_t)(c->heads * c->head_dim);
        b->x = values(b->k, n, false);
        b->weight = values(b->k, (size_t)c->head_dim, true);
        b->cosines = values(b->k, (size_t)c->rows * (size_t)c->head_dim / 2, true);
        b->work = 2.0 * (double)n * act_bytes;
        return;
    case SWIGLU:
        b->x = values(b->k, n, false);
        b->third = values(b->k, n, false);
        b->y = values(b->k, n, false);
        b->work = 3.0 * (double)n * act_bytes;
        return;
    case CHANNEL_NORM:
        b->x = values(b->k, pixels * (size_t)c->in, false);
        b->y = values(b->k, pixels * (size_t)c->in, false);
        b->weight = values(b->k, (size_t)c->in, true);
        b->work = 2.0 * (double)pixels * c->in * act_bytes;
        return;
    case DUPLICATE_UP:
        b->x = values(b->k, pixels * (size_t)c->in, false);
        b->y = values(b->k, pixels * 4 * (size_t)c->out, false);
        b->work = (double)pixels * (c->in + 2.0 * 4.0 * c->out) * act_bytes;
        return;
    }
}

static void run_once(struct bench *b)
{
    const struct bench_case *c = b->c;
    struct kernels *k = b->k;
    switch (c->operation) {
    case LINEAR:
        k->linear(k, b->matrix[b->turn++ % b->copies], b->x, c->rows, b->y, false);
        break;
    case ATTENTION:
        k->attention(k, &(struct attention){.q = b->x, .q_rows = c->rows, .q_stride = c->heads * c->head_dim,
                                            .heads = c->heads, .kv_heads = c->kv_heads, .head_dim = c->head_dim,
                                            .scale = 0.1f, .causal = c->causal, .segments = 1,
                                            .segment = {{.keys = b->past, .values = b->third, .rows = c->keys,
                                                         .stride = c->kv_heads * c->head_dim}},
                                            .out = b->y, .out_stride = c->heads * c->head_dim}, 1);
        break;
    case CONV:
        k->conv(k, b->conv, &(struct conv_call){.x = b->x, .past = b->past, .past_frames = c->kernel_t > 1 ? 2 : 0,
                                                .frames = c->frames, .height = c->height, .width = c->width,
                                                .upsample2x = c->upsample, .stride_t = 1, .stride_h = 1, .stride_w = 1,
                                                .pad_top = 1, .pad_bottom = 1, .pad_left = 1, .pad_right = 1,
                                                .out = b->y});
        break;
    case RMS_NORM: k->rms_norm(k, b->x, c->rows, c->in, b->weight, 1e-6f, b->y); break;
    case HEAD_NORM_ROPE:
        k->head_norm_rope(k, &(struct head_part){.x = b->x, .rows = c->rows, .stride = c->heads * c->head_dim,
                                                 .heads = c->heads, .weight = b->weight, .cosines = b->cosines,
                                                 .sines = b->cosines}, 1, c->head_dim, 1e-6f);
        break;
    case SWIGLU: k->swiglu(k, b->x, b->third, (size_t)c->rows * (size_t)c->in, b->y); break;
    case CHANNEL_NORM:
        k->channel_norm(k, b->x, (size_t)c->frames * (size_t)c->height * (size_t)c->width, c->in, b->weight, true,
                        b->y);
        break;
    case DUPLICATE_UP:
        k->duplicate_up(k, b->x, c->frames, c->height, c->width, c->in, c->out, 1, 2, 0, b->y);
        break;
    }
}

static void wait_for(struct kernels *k)
{
    struct error error;
    check(k->sync(k, &error), &error);
}

static void release(struct bench *b)
{
    void *memory[] = {b->x, b->past, b->y, b->third, b->weight, b->cosines};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        b->k->memory_free(b->k, memory[i]);
    for (int i = 0; i < b->copies; i++)
        b->k->linear_close(b->k, b->matrix[i]);
    b->k->conv_close(b->k, b->conv);
    for (size_t i = 0; i < sizeof b->file / sizeof *b->file; i++)
        free(b->file[i]);
}

/* Seconds of one run, the best of several. A card is only waited for after enough runs that waiting does not count. */
static double time_runs(struct bench *b, void (*run)(struct bench *b), double seconds)
{
    const double worth_waiting = b->k->host_memory ? 0.0 : 0.02;
    run(b); /* not counted: first touch of the output and the scratch memory */
    wait_for(b->k);
    double best = 1e30, end = clock_seconds() + seconds;
    for (int rounds = 0, runs = 1; rounds < 2 || clock_seconds() < end; rounds++) {
        double start = clock_seconds();
        for (int i = 0; i < runs; i++)
            run(b);
        wait_for(b->k);
        double took = clock_seconds() - start;
        best = took / runs < best ? took / runs : best;
        if (took < worth_waiting)
            runs *= 2;
    }
    return best;
}

static int least(int a, int b)
{
    return a < b ? a : b;
}

/* The case with a shape that takes no time even where a card is emulated. */
static struct bench_case shrink(const struct bench_case *c)
{
    struct bench_case small = *c;
    small.shape = "(tiny)";
    small.rows = least(c->rows, 18);
    small.in = least(c->in, 256);
    small.out = least(c->out, c->operation == DUPLICATE_UP ? 128 : 48);
    small.keys = least(c->keys, c->causal ? 18 : 40);
    small.heads = least(c->heads, 4);
    small.kv_heads = least(c->kv_heads, 2);
    small.frames = least(c->frames, 2);
    small.height = least(c->height, 4);
    small.width = least(c->width, 4);
    return small;
}

static double measure(struct kernels *k, const struct bench_case *c, double seconds, double *work)
{
    struct bench b = {.k = k, .c = c};
    prepare(&b);
    double best = time_runs(&b, run_once, seconds);
    *work = b.work;
    release(&b);
    return best;
}

static void run_copy(struct bench *b)
{
    b->k->copy(b->k, b->y, b->x, (size_t)b->work / 2 / b->k->act_bytes);
}

/* GB/s of copying within the card's memory, every byte counted where it is read and where it is written. */
static double card_copy_gbs(struct kernels *k, size_t bytes, double seconds)
{
    struct bench b = {.k = k, .work = 2.0 * (double)bytes};
    struct error error;
    check(k->memory_alloc(k, (void **)&b.x, bytes, &error), &error);
    check(k->memory_alloc(k, (void **)&b.y, bytes, &error), &error);
    k->zero(k, b.x, bytes / k->act_bytes);
    double best = time_runs(&b, run_copy, seconds);
    release(&b);
    return b.work / best * 1e-9;
}

struct options {
    struct backend_options backend;
    const char *filter;
    double seconds;
    bool json, tiny, tasks;
    struct tasks_options task;
};

static int usage(void)
{
    fputs(
        "usage: lance-bench [--backend cpu|cuda] [--isa NAME] [--precision float32|bf16|auto] [--threads N] [--seconds "
        "S] [--filter NAME] [--tiny] [--json]\n"
        "       lance-bench --tasks --model DIR [--vae FILE] [--vit DIR] [--task t2i,t2v,x2t_image] [--image WxH]\n"
        "                   [--video WxHxFRAMES] [--picture WxH] [--steps N] [--tokens N] [--runs N]\n"
        "                   [--head exact|int8] [--backend ...] [--threads N] [--json]\n",
        stderr);
    return 2;
}

/* What the machine can do: GFLOP/s and GB/s. */
static void measure_machine(struct kernels *k, const struct options *o, int threads, double *gflops, double *gbs)
{
    if (k->host_memory) {
        *gflops = machine_gflops(threads, o->seconds, k->name);
        *gbs = machine_read_gbs(threads, o->seconds, 0);
        return;
    }
    const struct bench_case small = shrink(&largest_product);
    double work, seconds = measure(k, o->tiny ? &small : &largest_product, o->seconds, &work);
    *gflops = work / seconds * 1e-9;
    *gbs = card_copy_gbs(k, o->tiny ? 1 << 16 : copied_bytes, o->seconds);
}

/* GB/s at which the memory of a case can be read: weights lie beyond the caches, other tensors where they fit. Measured
 * beside every case, since what else the machine does takes its share; *beyond_caches_gbs is the best so far. */
static double memory_limit_gbs(struct kernels *k, const struct bench_case *c, const struct options *o, int threads,
                               double work_bytes, double *beyond_caches_gbs)
{
    if (!k->host_memory)
        return *beyond_caches_gbs;
    if (c->operation != LINEAR)
        return machine_read_gbs(threads, o->seconds, (size_t)work_bytes);
    const double gbs = machine_read_gbs(threads, o->seconds, 0);
    *beyond_caches_gbs = gbs > *beyond_caches_gbs ? gbs : *beyond_caches_gbs;
    return *beyond_caches_gbs;
}

static int run_all(struct kernels *k, const struct options *o)
{
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    int threads = o->backend.threads > 0 ? o->backend.threads : online > 0 ? (int)online : 1;
    double gflops, gbs;
    measure_machine(k, o, threads, &gflops, &gbs);
    if (o->json)
        printf(
            "{\"backend\": \"%s\", \"threads\": %d, \"tiny\": %s, \"machine_gflops\": %.1f, \"machine_%s_gbs\": %.2f, "
            "\"cases\": [",
            k->name, threads, o->tiny ? "true" : "false", gflops, k->host_memory ? "read" : "copy", gbs);
    else if (k->host_memory)
        printf("%s, %d threads; this machine: %.1f GFLOP/s of multiply-adds, %.2f GB/s read\n\n", k->name, threads,
               gflops, gbs);
    else
        printf("%s; this card: %.1f GFLOP/s in the largest bf16 product, %.2f GB/s copied\n\n", k->name, gflops, gbs);
    if (!o->json)
        printf("%-20s %-32s %10s %18s %6s\n", "operator", "shape", "best ms", "rate", "of it");
    int printed = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct bench_case small = shrink(&cases[i]), *c = o->tiny ? &small : &cases[i];
        if ((o->filter && !strstr(c->name, o->filter)) || (c->card && k->host_memory))
            continue;
        double work, seconds = measure(k, c, o->seconds, &work), rate = work / seconds * 1e-9;
        bool memory = c->bound == BY_MEMORY;
        const double limit = memory ? memory_limit_gbs(k, c, o, threads, work, &gbs) : gflops;
        const double share = 100.0 * rate / limit;
        if (o->json)
            printf("%s\n  {\"name\": \"%s\", \"shape\": \"%s\", \"ms\": %.4f, \"%s\": %.2f, \"percent\": %.1f}",
                   printed ? "," : "", c->name, c->shape, seconds * 1e3, memory ? "gbs" : "gflops", rate, share);
        else
            printf("%-20s %-32s %10.3f %10.2f %-7s %5.0f%%\n", c->name, c->shape, seconds * 1e3, rate,
                   memory ? "GB/s" : "GFLOP/s", share);
        fflush(stdout);
        printed++;
    }
    if (o->json)
        printf("\n]}\n");
    if (!printed)
        fprintf(stderr, "lance-bench: no case is called like \"%s\"\n", o->filter);
    return printed ? 0 : 1;
}

/* "768x768" into `count` numbers of 1 to 100,000. */
static bool read_sizes(const char *text, int *sizes, int count)
{
    for (int i = 0; i < count; i++) {
        char *end;
        const long size = strtol(text, &end, 10);
        if (end == text || size < 1 || size > 100000 || *end != (i + 1 < count ? 'x' : '\0'))
            return false;
        sizes[i] = (int)size;
        text = end + 1;
    }
    return true;
}

static bool read_head(const char *text, bool *in_bytes)
{
    *in_bytes = strcmp(text, "int8") == 0;
    return *in_bytes || strcmp(text, "exact") == 0;
}

int main(int argc, char **argv)
{
    enum { TASKS = 256, MODEL, VAE, VIT, TASK, IMAGE, VIDEO, PICTURE, STEPS, TOKENS, RUNS, HEAD };
    static const struct option names[] = {
        {"backend", required_argument, NULL, 'b'},   {"threads", required_argument, NULL, 't'},
        {"isa", required_argument, NULL, 'i'},       {"precision", required_argument, NULL, 'p'},
        {"seconds", required_argument, NULL, 's'},   {"filter", required_argument, NULL, 'f'},
        {"json", no_argument, NULL, 'j'},            {"tiny", no_argument, NULL, 'y'},
        {"tasks", no_argument, NULL, TASKS},         {"model", required_argument, NULL, MODEL},
        {"vae", required_argument, NULL, VAE},       {"vit", required_argument, NULL, VIT},
        {"task", required_argument, NULL, TASK},     {"image", required_argument, NULL, IMAGE},
        {"video", required_argument, NULL, VIDEO},   {"picture", required_argument, NULL, PICTURE},
        {"steps", required_argument, NULL, STEPS},   {"tokens", required_argument, NULL, TOKENS},
        {"runs", required_argument, NULL, RUNS},     {"head", required_argument, NULL, HEAD},
        {0},
    };
    struct options o = {.backend = {.backend = BACKEND_CPU}, .seconds = 0.5, .task = tasks_defaults()};
    bool understood = true;
    for (int c; (c = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (c) {
        case 'b': o.backend.backend = (enum backend)backend_of(optarg); break;
        case 'i': o.backend.isa = (enum isa)isa_of(optarg); break;
        case 'p': o.backend.precision = (enum precision)precision_of(optarg); break;
        case 't': o.backend.threads = atoi(optarg); break;
        case 's': o.seconds = atof(optarg); break;
        case 'f': o.filter = optarg; break;
        case 'j': o.json = o.task.json = true; break;
        case 'y': o.tiny = true; break;
        case TASKS: o.tasks = true; break;
        case MODEL: o.task.model = optarg; break;
        case VAE: o.task.vae = optarg; break;
        case VIT: o.task.vit = optarg; break;
        case TASK: o.task.only = optarg; break;
        case IMAGE: understood &= read_sizes(optarg, o.task.image, 2); break;
        case VIDEO: understood &= read_sizes(optarg, o.task.video, 3); break;
        case PICTURE: understood &= read_sizes(optarg, o.task.picture, 2); break;
        case STEPS: understood &= read_sizes(optarg, &o.task.steps, 1); break;
        case TOKENS: understood &= read_sizes(optarg, &o.task.tokens, 1); break;
        case HEAD: understood &= read_head(optarg, &o.task.byte_head); break;
        case RUNS: understood &= read_sizes(optarg, &o.task.runs, 1); break;
        default: return usage();
        }
    }
    if (!understood || optind < argc || (int)o.backend.backend < 0 || (int)o.backend.isa < 0 ||
        (int)o.backend.precision < 0 ||

        o.tasks != (o.task.model != NULL))
        return usage();
    struct kernels *k = NULL;
    struct error error;
    check(backend_open(&k, &o.backend, NULL, &error), &error);
    int code = o.tasks ? tasks_run(k, &o.task) : run_all(k, &o);
    fflush(stdout); /* or the notice would stand in the middle of JSON where both go into one file */
    if (k->notice[0])
        fprintf(stderr, "%s: %s\n", k->name, k->notice);
    k->close(k);
    return code;
}
