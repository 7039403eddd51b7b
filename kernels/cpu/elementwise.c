/* elementwise.c: norms, rotary positions, activation functions and the sampler's step. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/operators.h"

#include <math.h>
#include <string.h>

enum { PIECE = 16 * 1024 }; /* elements per task */

struct rows_work {
    const struct micro *micro;
    const float *x, *weight;
    int width;
    float eps;
    bool with_silu;
    float *y;
};

static size_t rows_piece(int width)
{
    return width >= PIECE ? 1 : (size_t)(PIECE / width);
}

static void rms_norm_rows(const void *context, size_t first, size_t count)
{
    const struct rows_work *w = context;
    size_t width = (size_t)w->width;
    for (size_t row = first; row < first + count; row++)
        w->micro->rms_norm(w->x + row * width, width, w->weight, w->eps, w->y + row * width);
}

static void cpu_rms_norm(struct kernels *k, const act *x, int rows, int width, const param *weight, float eps, act *y)
{
    struct rows_work work = {.micro = cpu_of(k)->micro, .x = floats(x), .weight = floats(weight), .width = width,
                             .eps = eps, .y = floats(y)};
    if (rows > 0 && width > 0)
        cpu_for(cpu_of(k), (size_t)rows, rows_piece(width), rms_norm_rows, &work);
}

static void l2_norm_rows(const void *context, size_t first, size_t count)
{
    const struct rows_work *w = context;
    size_t width = (size_t)w->width;
    for (size_t row = first; row < first + count; row++)
        w->micro->l2_norm(w->x + row * width, width, w->weight, w->with_silu, w->y + row * width);
}

static void cpu_channel_norm(struct kernels *k, const act *x, size_t pixels, int channels, const param *gamma,
                             bool with_silu, act *y)
{
    struct rows_work work = {.micro = cpu_of(k)->micro, .x = floats(x), .weight = floats(gamma), .width = channels,
                             .with_silu = with_silu, .y = floats(y)};
    if (pixels && channels > 0)
        cpu_for(cpu_of(k), pixels, rows_piece(channels), l2_norm_rows, &work);
}

struct rope_work {
    const struct micro *micro;
    float *x;
    size_t stride;
    int heads, head_dim;
    const float *weight, *cosines, *sines;
    float eps;
};

static void rope_rows(const void *context, size_t first, size_t count)
{
    const struct rope_work *w = context;
    size_t dim = (size_t)w->head_dim, half = dim / 2;
    for (size_t row = first; row < first + count; row++)
        for (int head = 0; head < w->heads; head++) {
            float *x = w->x + row * w->stride + (size_t)head * dim;
            if (w->weight)
                w->micro->rms_norm(x, dim, w->weight, w->eps, x);
            w->micro->rope(x, half, w->cosines + row * half, w->sines + row * half);
        }
}

static void cpu_head_norm_rope(struct kernels *k, const struct head_part *parts, int count, int head_dim, float eps)
{
    for (const struct head_part *p = parts; p < parts + count; p++) {
        struct rope_work work = {.micro = cpu_of(k)->micro, .x = floats(p->x), .stride = (size_t)p->stride,
                                 .heads = p->heads, .head_dim = head_dim,
                                 .weight = p->weight ? floats(p->weight) : NULL,
                                 .cosines = floats(p->cosines), .sines = floats(p->sines), .eps = eps};
        if (p->rows > 0 && p->heads > 0)
            cpu_for(cpu_of(k), (size_t)p->rows, rows_piece(p->heads * head_dim), rope_rows, &work);
    }
}

struct flat_work {
    const struct micro *micro;
    const float *x, *other;
    size_t width;
    float *y;
};

static void swiglu_piece(const void *context, size_t first, size_t count)
{
    const struct flat_work *w = context;
    w->micro->swiglu(w->x + first, w->other + first, count, w->y + first);
}

static void cpu_swiglu(struct kernels *k, const act *gate, const act *up, size_t n, act *out)
{
    struct flat_work work = {.micro = cpu_of(k)->micro, .x = floats(gate), .other = floats(up), .y = floats(out)};
    cpu_for(cpu_of(k), n, PIECE, swiglu_piece, &work);
}

static void silu_piece(const void *context, size_t first, size_t count)
{
    const struct flat_work *w = context;
    w->micro->silu(w->x + first, count, w->y + first);
}

static void cpu_silu(struct kernels *k, const act *x, size_t n, act *y)
{
    struct flat_work work = {.micro = cpu_of(k)->micro, .x = floats(x), .y = floats(y)};
    cpu_for(cpu_of(k), n, PIECE, silu_piece, &work);
}

static void gelu_piece(const void *context, size_t first, size_t count)
{
    const struct flat_work *w = context;
    for (size_t i = first; i < first + count; i++)
        w->y[i] = 0.5f * w->x[i] * erfcf(-0.70710678118654752f * w->x[i]); /* erfc: 1 + erf cancels below zero */
}

static void cpu_gelu(struct kernels *k, const act *x, size_t n, act *y)
{
    struct flat_work work = {.micro = cpu_of(k)->micro, .x = floats(x), .y = floats(y)};
    cpu_for(cpu_of(k), n, PIECE / 8, gelu_piece, &work);
}

static int32_t cpu_largest(struct kernels *k, const act *x, int choices, int n)
{
    (void)k;
    const float *values = floats(x);
    int32_t best = 0;
    for (int i = 0; i < n; i++) {
        if (!isfinite(values[i]))
            return -1;
        if (i < choices && values[i] > values[best])
            best = i;
    }
    return best;
}

static void add_piece(const void *context, size_t first, size_t count)
{
    const struct flat_work *w = context;
    w->micro->add(w->x + first, count, w->y + first);
}

static void cpu_add(struct kernels *k, const act *x, size_t n, act *y)
{
    struct flat_work work = {.micro = cpu_of(k)->micro, .x = floats(x), .y = floats(y)};
    cpu_for(cpu_of(k), n, PIECE, add_piece, &work);
}

static void add_row_piece(const void *context, size_t first, size_t count)
{
    const struct flat_work *w = context;
    for (size_t row = first; row < first + count; row++)
        w->micro->add(w->x, w->width, w->y + row * w->width);
}

static void cpu_add_row(struct kernels *k, const act *x, int rows, int width, act *y)
{
    struct flat_work work = {.micro = cpu_of(k)->micro, .x = floats(x), .width = (size_t)width, .y = floats(y)};
    if (rows > 0 && width > 0)
        cpu_for(cpu_of(k), (size_t)rows, rows_piece(width), add_row_piece, &work);
}

static double clamp_scale(double cond, double combined, double low)
{
    double scale = sqrt(cond) / (sqrt(combined) + 1e-8);
    scale = scale < low ? low : scale;
    return scale > 1.0 ? 1.0 : scale;
}

/* The latents are small (rows * 48 values), so this runs on one thread, with the norms in double. */
static void cpu_guided_step(struct kernels *k, const struct guided_step *s)
{
    (void)k;
    const float *c = floats(s->v_cond), *u = s->v_uncond ? floats(s->v_uncond) : NULL;
    float *x = floats(s->x), *v = s->v_out ? floats(s->v_out) : NULL;
    size_t width = (size_t)s->width, n = (size_t)s->rows * width, first = (size_t)s->first_row * width;
    bool global = u && s->renorm == RENORM_GLOBAL, channel = u && s->renorm == RENORM_CHANNEL;
    double scale = 1.0;
    size_t span = channel ? width : n; /* elements that share a norm */
    for (size_t start = 0; start < n; start += span) {
        if (global || channel) {
            double cond = 0.0, combined = 0.0;
            for (size_t i = start; i < start + span; i++) {
                float w = u[i] + s->guidance_scale * (c[i] - u[i]);
                cond += (double)c[i] * (double)c[i];
                combined += (double)w * (double)w;
            }
            scale = clamp_scale(cond, combined, (double)s->renorm_min);
        }
        for (size_t i = start; i < start + span; i++) {
            float w = u ? (u[i] + s->guidance_scale * (c[i] - u[i])) * (float)scale : c[i];
            if (v)
                v[i] = w;
            if (i >= first)
                x[i] -= w * s->dt;
        }
    }
}

void cpu_elementwise_fill(struct kernels *k)
{
    k->rms_norm = cpu_rms_norm;
    k->channel_norm = cpu_channel_norm;
    k->head_norm_rope = cpu_head_norm_rope;
    k->swiglu = cpu_swiglu;
    k->silu = cpu_silu;
    k->gelu = cpu_gelu;
    k->largest = cpu_largest;
    k->add = cpu_add;
    k->add_row = cpu_add_row;
    k->guided_step = cpu_guided_step;
}
