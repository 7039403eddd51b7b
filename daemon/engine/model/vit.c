/* vit.c: see vit.h.
 *
 * Patches are kept in window order (windows of 4x4 merged cells, in a window cells row by
 * row, in a cell its 2x2 patches), so that a window is a run of rows. Nothing looks from
 * one pair of frames to another, so every block works on a group of frame pairs at a time
 * and only the hidden state exists for all of them.
 *
 * Where device memory is the host's, the weights are used where the files are mapped. On a card they stay where there
 * is much room (ROOM_BESIDE), and otherwise are there only while a run lasts: more than a gigabyte that pictures from
 * text do not need. Results are the same bytes. Source of the mathematics: Qwen2.5-VL's vision tower as used by the
 * official modeling/vit (LANCE.md section 5).
 */
#include "daemon/engine/model/vit.h"
#include "kernels/formats/numbers.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const float rms_norm_eps = 1e-6f, rope_theta = 10000.0f;
static const float pixel_mean[3] = {0.48145466f, 0.4578275f, 0.40821073f};
static const float pixel_std[3] = {0.26862954f, 0.26130258f, 0.27577711f};

/* A group takes as many frame pairs as keep it under this number of rows (at least one pair): enough rows to keep a
 * device busy, few enough for the widest temporaries to stay small. */
enum { GROUP_ROWS = 4096 };

/* The weights stay on a card that then still has so many times as much free: of the released model 10 GB, more than the
 * largest picture takes. */
enum { ROOM_BESIDE = 8 };

struct vit_block {
    param *norm1, *norm2;
    struct linear *qkv, *proj, *gate, *up, *down;
};

/* All that is read from the checkpoint, in device memory. */
struct weights {
    struct linear *patch_embed;
    struct vit_block *blocks; /* [depth] */
    param *merger_norm;
    struct linear *merger_in, *merger_out;
};

struct vit {
    struct kernels *kernels;
    const struct checkpoint *checkpoint; /* borrowed */
    bool round_tables;
    int depth, hidden_size, heads, intermediate_size, out_hidden_size;
    int patch_size, temporal_patch_size, channels, merge;
    int window;      /* in merged cells */
    int patch_width; /* numbers in a patch */
    bool *full_attention; /* [depth] */
    bool resident;        /* the weights stay; otherwise every run brings its own */
    struct weights weights;
    uint64_t weight_bytes; /* on the device; of the host's, where the files are mapped, not counted */
};

/* Sizes of a run, in elements. */
struct plan {
    int rows;          /* patches of one frame pair */
    int group;         /* frame pairs per group */
    size_t hidden;     /* [t * rows, hidden_size] */
    size_t narrow;     /* [group * rows, hidden_size] */
    size_t wide;       /* the widest temporaries of a group */
    size_t table;      /* cosines (and sines): [rows, head_dim / 2], float32 */
};

struct vit_pass {
    struct vit *vit;
    struct weights weights; /* the vit's, or its own */
    struct vit_grid grid;
    struct plan plan;
    int done;
    act *tokens, *hidden, *narrow, *wide;
    param *cosines, *sines;
    struct window { int row, column, height, width; } *windows; /* of one frame, in cells */
    int window_count;
    struct attention *problems; /* [group * window_count] */
};

static int load_norm(const struct vit *vit, param **out, struct error *error,
                     const char *format, ...) __attribute__((format(printf, 4, 5)));
static int load_norm(const struct vit *vit, param **out, struct error *error,
                     const char *format, ...)
{
    char name[128];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    size_t bytes = (size_t)vit->hidden_size * sizeof(float);
    float *values = malloc(bytes);
    if (!values)
        return error_set(error, ERROR_NO_MEMORY, "vit: out of memory for %s", name);
    int code = checkpoint_vector(vit->checkpoint, name, vit->hidden_size, values, error);
    void *memory = NULL;
    if (code == 0)
        code = vit->kernels->memory_alloc(vit->kernels, &memory, bytes, error);
    if (code == 0) {
        vit->kernels->param_upload(vit->kernels, memory, values, (size_t)vit->hidden_size);
        *out = memory;
    }
    free(values);
    return code;
}

static int load_linear(const struct vit *vit, struct linear **out, int out_features,
                       int in_features, struct error *error, const char *format, ...)
    __attribute__((format(printf, 6, 7)));
static int load_linear(const struct vit *vit, struct linear **out, int out_features,
                       int in_features, struct error *error, const char *format, ...)
{
    char name[128];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    struct linear_source source;
    int code = checkpoint_linear(vit->checkpoint, name, out_features, in_features, &source, error);
    return code < 0 ? code : vit->kernels->linear_open(vit->kernels, out, &source, error);
}

/* The patch embedding is stored as a convolution whose stride is its size: a matrix over whole patches. */
static int load_patch_embed(const struct vit *vit, struct linear **out, struct error *error)
{
    const char *name = "vit_model.patch_embed.proj";
    struct conv_source conv;
    int code = checkpoint_conv(vit->checkpoint, name, &conv, error);
    if (code < 0)
        return code;
    if (conv.out_channels != vit->hidden_size || conv.in_channels != vit->channels ||
        conv.kernel_t != vit->temporal_patch_size || conv.kernel_h != vit->patch_size ||
        conv.kernel_w != vit->patch_size)
        return error_set(error, ERROR_BAD_FILE,
                         "%s.weight is [%d, %d, %d, %d, %d], which does not fit the ViT's config.json", name,
                         conv.out_channels, conv.in_channels, conv.kernel_t, conv.kernel_h, conv.kernel_w);
    struct linear_source matrix = {
        .format = conv.format,
        .out_features = vit->hidden_size,
        .in_features = vit->patch_width,
        .data = conv.weight,
        .tensor_scale = 1,
        .bias = conv.bias,
        .bias_format = conv.format,
    };
    return vit->kernels->linear_open(vit->kernels, out, &matrix, error);
}

static int load_block(const struct vit *vit, struct vit_block *block, int index, struct error *error)
{
    int width = vit->hidden_size, inner = vit->intermediate_size, status;
    char name[64];
    snprintf(name, sizeof name, "vit_model.blocks.%d", index);
    if ((status = load_norm(vit, &block->norm1, error, "%s.norm1.weight", name)) < 0 ||
        (status = load_norm(vit, &block->norm2, error, "%s.norm2.weight", name)) < 0 ||
        (status = load_linear(vit, &block->qkv, 3 * width, width, error, "%s.attn.qkv", name)) < 0 ||
        (status = load_linear(vit, &block->proj, width, width, error, "%s.attn.proj", name)) < 0 ||
        (status = load_linear(vit, &block->gate, inner, width, error, "%s.mlp.gate_proj", name)) < 0 ||
        (status = load_linear(vit, &block->up, inner, width, error, "%s.mlp.up_proj", name)) < 0)
        return status;
    return load_linear(vit, &block->down, width, inner, error, "%s.mlp.down_proj", name);
}

static void close_linear(const struct vit *vit, struct linear *linear)
{
    if (linear)
        vit->kernels->linear_close(vit->kernels, linear);
}

static void weights_close(const struct vit *vit, struct weights *weights)
{
    for (int i = 0; i < vit->depth && weights->blocks; i++) {
        struct vit_block *block = &weights->blocks[i];
        vit->kernels->memory_free(vit->kernels, block->norm1);
        vit->kernels->memory_free(vit->kernels, block->norm2);
        close_linear(vit, block->qkv);
        close_linear(vit, block->proj);
        close_linear(vit, block->gate);
        close_linear(vit, block->up);
        close_linear(vit, block->down);
    }
    free(weights->blocks);
    vit->kernels->memory_free(vit->kernels, weights->merger_norm);
    close_linear(vit, weights->patch_embed);
    close_linear(vit, weights->merger_in);
    close_linear(vit, weights->merger_out);
    *weights = (struct weights){0};
}

/* Whatever this returns, weights_close releases what there is. */
static int weights_open(const struct vit *vit, struct weights *weights, struct error *error)
{
    *weights = (struct weights){.blocks = calloc((size_t)vit->depth, sizeof *weights->blocks)};
    if (!weights->blocks)
        return error_set(error, ERROR_NO_MEMORY, "vit: out of memory");
    int code = load_patch_embed(vit, &weights->patch_embed, error);
    for (int i = 0; i < vit->depth && code == 0; i++)
        code = load_block(vit, &weights->blocks[i], i, error);
    if (code < 0)
        return code;
    int cell_width = vit->merge * vit->merge * vit->hidden_size;
    if ((code = load_norm(vit, &weights->merger_norm, error, "vit_model.merger.ln_q.weight")) < 0 ||
        (code = load_linear(vit, &weights->merger_in, cell_width, cell_width, error, "vit_model.merger.mlp.0")) < 0)
        return code;
    return load_linear(vit, &weights->merger_out, vit->out_hidden_size, cell_width, error, "vit_model.merger.mlp.2");
}

static int read_shape(struct vit *vit, struct error *error)
{
    const struct lance_config *config = checkpoint_config(vit->checkpoint);
    vit->depth = config->vit.depth;
    vit->hidden_size = config->vit.hidden_size;
    vit->heads = config->vit.heads;
    vit->intermediate_size = config->vit.intermediate_size;
    vit->out_hidden_size = config->vit.out_hidden_size;
    vit->patch_size = config->vit.patch_size;
    vit->temporal_patch_size = config->vit.temporal_patch_size;
    vit->channels = config->vit.in_channels;
    vit->merge = config->spatial_merge_size;
    if (vit->channels != 3 || vit->temporal_patch_size != 2 || vit->merge != 2)
        return error_set(
            error, ERROR_BAD_FILE,
            "vit: config.json asks for %d channels, %d frames a patch and merging %dx%d; only 3, 2 and 2x2 are known",
            vit->channels, vit->temporal_patch_size, vit->merge, vit->merge);
    if (vit->hidden_size % vit->heads || vit->hidden_size / vit->heads % 4)
        return error_set(error, ERROR_BAD_FILE, "vit: hidden_size %d is not 4 * n * num_heads (%d)", vit->hidden_size,
                         vit->heads);
    vit->window = config->vit.window_size / (vit->patch_size * vit->merge);
    if (vit->window < 1)
        return error_set(error, ERROR_BAD_FILE, "vit: window_size %d is smaller than a cell of %d pixels",
                         config->vit.window_size, vit->patch_size * vit->merge);
    vit->patch_width = vit->channels * vit->temporal_patch_size * vit->patch_size * vit->patch_size;
    vit->full_attention = calloc((size_t)vit->depth, sizeof *vit->full_attention);
    if (!vit->full_attention)
        return error_set(error, ERROR_NO_MEMORY, "vit: out of memory");
    for (int i = 0; i < config->vit.full_attention_block_count; i++) {
        int block = config->vit.full_attention_blocks[i];
        if (block < 0 || block >= vit->depth)
            return error_set(error, ERROR_BAD_FILE, "vit: fullatt_block_indexes names block %d of %d", block,
                             vit->depth);
        vit->full_attention[block] = true;
    }
    return 0;
}

int vit_open(struct vit **out, struct kernels *kernels, const struct checkpoint *checkpoint, bool round_tables,
             struct error *error)
{
    *out = NULL;
    struct vit *vit = calloc(1, sizeof *vit);
    if (!vit)
        return error_set(error, ERROR_NO_MEMORY, "vit: out of memory");
    vit->kernels = kernels;
    vit->checkpoint = checkpoint;
    vit->round_tables = round_tables;
    const uint64_t before = kernels->memory_in_use(kernels);
    int code = read_shape(vit, error);
    if (code == 0)
        code = weights_open(vit, &vit->weights, error);
    if (code < 0) {
        vit_close(vit);
        return code;
    }
    vit->weight_bytes = kernels->memory_in_use(kernels) - before;
    vit->resident = kernels->host_memory || kernels->memory_available(kernels) / ROOM_BESIDE >= vit->weight_bytes;
    if (!vit->resident)
        weights_close(vit, &vit->weights);
    *out = vit;
    return 0;
}

void vit_close(struct vit *vit)
{
    if (!vit)
        return;
    weights_close(vit, &vit->weights);
    free(vit->full_attention);
    free(vit);
}

static size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

static struct plan make_plan(const struct vit *vit, struct vit_grid grid)
{
    struct plan plan = {.rows = grid.h * grid.w};
    plan.group = plan.rows < GROUP_ROWS ? GROUP_ROWS / plan.rows : 1;
    if (plan.group > grid.t)
        plan.group = grid.t;
    size_t width = (size_t)vit->hidden_size, group_rows = (size_t)plan.group * (size_t)plan.rows;
    plan.hidden = (size_t)grid.t * (size_t)plan.rows * width;
    plan.narrow = group_rows * width;
    plan.wide = group_rows * max_size((size_t)vit->patch_width, 3 * width);
    plan.wide = max_size(plan.wide, 2 * group_rows * (size_t)vit->intermediate_size);
    plan.wide = max_size(plan.wide, group_rows * width + group_rows / 4 * (size_t)vit->out_hidden_size);
    plan.table = (size_t)plan.rows * (size_t)(vit->hidden_size / vit->heads / 2);
    return plan;
}

uint64_t vit_bytes(const struct vit *vit, struct vit_grid grid)
{
    struct plan plan = make_plan(vit, grid);
    return (uint64_t)(plan.hidden + plan.narrow + plan.wide) * vit->kernels->act_bytes +
           (uint64_t)plan.table * 2 * sizeof(float) + (vit->resident ? 0 : vit->weight_bytes);
}

bool vit_stays(const struct vit *vit, uint64_t *bytes)
{
    *bytes = vit->weight_bytes;
    return vit->resident;
}

/* Windows of one frame. */
static size_t window_count(const struct vit *vit, struct vit_grid grid)
{
    const int size = vit->window, height = grid.h / 2, width = grid.w / 2;
    return (size_t)((height + size - 1) / size) * (size_t)((width + size - 1) / size);
}

static size_t patch_floats(const struct vit *vit, struct vit_grid grid) /* of one frame */
{
    return (size_t)(grid.h * grid.w) * (size_t)vit->patch_width;
}

uint64_t vit_host_bytes(const struct vit *vit, struct vit_grid grid)
{
    const struct plan plan = make_plan(vit, grid);
    const size_t windows = window_count(vit, grid);
    return windows * sizeof(struct window) + (size_t)plan.group * windows * sizeof(struct attention) +
           max_size(patch_floats(vit, grid), 2 * plan.table) * sizeof(float);
}

static int make_windows(struct vit_pass *pass, struct error *error)
{
    int size = pass->vit->window, height = pass->grid.h / 2, width = pass->grid.w / 2;
    size_t count = window_count(pass->vit, pass->grid);
    pass->windows = calloc(count, sizeof *pass->windows);
    pass->problems = calloc((size_t)pass->plan.group * count, sizeof *pass->problems);
    if (!pass->windows || !pass->problems)
        return error_set(error, ERROR_NO_MEMORY, "vit: out of memory");
    for (int row = 0; row < height; row += size)
        for (int column = 0; column < width; column += size)
            pass->windows[pass->window_count++] = (struct window){
                row, column, height - row < size ? height - row : size, width - column < size ? width - column : size};
    return 0;
}

/* Call `visit` for every patch of one frame in window order, with its row and column. */
static void for_each_patch(const struct vit_pass *pass, void (*visit)(void *context, int index, int y, int x),
                           void *context)
{
    int index = 0;
    for (const struct window *w = pass->windows; w < pass->windows + pass->window_count; w++)
        for (int row = w->row; row < w->row + w->height; row++)
            for (int column = w->column; column < w->column + w->width; column++)
                for (int i = 0; i < 4; i++)
                    visit(context, index++, 2 * row + i / 2, 2 * column + i % 2);
}

/* Rotary angles of one frame: the first half of them turns with the row, the second with the column. */
struct angle_tables {
    int quarter; /* head_dim / 4 */
    float *frequencies, *cosines, *sines;
};

static void fill_angles(void *context, int index, int y, int x)
{
    struct angle_tables *tables = context;
    int half = 2 * tables->quarter;
    for (int i = 0; i < half; i++) {
        float angle = (float)(i < tables->quarter ? y : x) * tables->frequencies[i % tables->quarter];
        tables->cosines[(size_t)index * (size_t)half + (size_t)i] = cosf(angle);
        tables->sines[(size_t)index * (size_t)half + (size_t)i] = sinf(angle);
    }
}

static int make_tables(struct vit_pass *pass, struct error *error)
{
    const struct vit *vit = pass->vit;
    struct angle_tables tables = {.quarter = vit->hidden_size / vit->heads / 4};
    float *memory = malloc((2 * pass->plan.table + (size_t)tables.quarter) * sizeof(float));
    if (!memory)
        return error_set(error, ERROR_NO_MEMORY, "vit: out of memory");
    tables.cosines = memory;
    tables.sines = memory + pass->plan.table;
    tables.frequencies = memory + 2 * pass->plan.table;
    for (int i = 0; i < tables.quarter; i++) {
        float frequency = 1.0f / powf(rope_theta, (float)i / (float)tables.quarter);
        tables.frequencies[i] = vit->round_tables ? bf16_to_float(float_to_bf16(frequency)) : frequency;
    }
    for_each_patch(pass, fill_angles, &tables);
    vit->kernels->param_upload(vit->kernels, pass->cosines, tables.cosines, pass->plan.table);
    vit->kernels->param_upload(vit->kernels, pass->sines, tables.sines, pass->plan.table);
    free(memory);
    return 0;
}

struct patch_source {
    const struct vit *vit;
    const uint8_t *frames; /* a pair [2, height, width, 3] */
    size_t height, width;
    float *patches;
};

/* A patch row is [colour, frame, row, column], normalised. */
static void fill_patch(void *context, int index, int y, int x)
{
    struct patch_source *source = context;
    size_t size = (size_t)source->vit->patch_size;
    float *out = source->patches + (size_t)index * (size_t)source->vit->patch_width;
    for (int colour = 0; colour < 3; colour++)
        for (size_t frame = 0; frame < 2; frame++)
            for (size_t i = 0; i < size; i++) {
                size_t line = frame * source->height + (size_t)y * size + i;
                const uint8_t *in = source->frames + (line * source->width + (size_t)x * size) * 3 + colour;
                for (size_t j = 0; j < size; j++)
                    *out++ = ((float)in[3 * j] / 255.0f - pixel_mean[colour]) / pixel_std[colour];
            }
}

static int embed_patches(struct vit_pass *pass, const uint8_t *pixels, struct error *error)
{
    const struct vit *vit = pass->vit;
    struct kernels *k = vit->kernels;
    struct patch_source source = {
        .vit = vit,
        .height = (size_t)(pass->grid.h * vit->patch_size),
        .width = (size_t)(pass->grid.w * vit->patch_size),
    };
    size_t rows = (size_t)pass->plan.rows, numbers = patch_floats(vit, pass->grid);
    source.patches = malloc(numbers * sizeof(float));
    if (!source.patches)
        return error_set(error, ERROR_NO_MEMORY, "vit: out of memory");
    for (size_t t = 0; t < (size_t)pass->grid.t; t++) {
        source.frames = pixels + t * 2 * source.height * source.width * 3;
        for_each_patch(pass, fill_patch, &source);
        k->upload(k, pass->wide, source.patches, numbers);
        k->linear(k, pass->weights.patch_embed, pass->wide, pass->plan.rows,
                  act_at(k, pass->hidden, t * rows * (size_t)vit->hidden_size), false);
    }
    free(source.patches);
    return k->sync(k, error);
}

int vit_begin(struct vit_pass **out, struct vit *vit, const uint8_t *pixels, struct vit_grid grid, act *tokens,
              struct error *error)
{
    *out = NULL;
    if (grid.t < 1 || grid.h < 2 || grid.w < 2 || grid.h % 2 || grid.w % 2)
        return error_set(error, ERROR_INTERNAL, "vit: a grid of %dx%dx%d patches", grid.t, grid.h, grid.w);
    struct vit_pass *pass = calloc(1, sizeof *pass);
    if (!pass)
        return error_set(error, ERROR_NO_MEMORY, "vit: out of memory");
    pass->vit = vit;
    pass->grid = grid;
    pass->tokens = tokens;
    pass->plan = make_plan(vit, grid);
    struct kernels *k = vit->kernels;
    void *memory[5] = {NULL};
    size_t bytes[5] = {pass->plan.hidden * k->act_bytes, pass->plan.narrow * k->act_bytes,
                       pass->plan.wide * k->act_bytes, pass->plan.table * sizeof(float),
                       pass->plan.table * sizeof(float)};
    int code = 0;
    for (int i = 0; i < 5 && code == 0; i++)
        code = k->memory_alloc(k, &memory[i], bytes[i], error);
    pass->hidden = memory[0];
    pass->narrow = memory[1];
    pass->wide = memory[2];
    pass->cosines = memory[3];
    pass->sines = memory[4];
    if (code == 0 && !vit->resident)
        code = weights_open(vit, &pass->weights, error);
    else
        pass->weights = vit->weights;
    if (code < 0 || (code = make_windows(pass, error)) < 0 || (code = make_tables(pass, error)) < 0 ||
        (code = embed_patches(pass, pixels, error)) < 0) {
        vit_pass_close(pass);
        return code;
    }
    if (!vit->resident)
        checkpoint_let_go(vit->checkpoint, "vit_model.");
    *out = pass;
    return 0;
}

/* Attention of `frames` frame pairs inside their windows, or over whole frame pairs. */
static void attend(struct vit_pass *pass, const act *qkv, int frames, bool full, act *out)
{
    const struct vit *vit = pass->vit;
    struct kernels *k = vit->kernels;
    int width = vit->hidden_size, count = 0;
    size_t row = 0;
    for (int t = 0; t < frames; t++)
        for (int w = 0; w < (full ? 1 : pass->window_count); w++) {
            int rows = full ? pass->plan.rows : 4 * pass->windows[w].height * pass->windows[w].width;
            const act *q = act_at(k, qkv, row * 3 * (size_t)width);
            pass->problems[count++] = (struct attention){
                .q = q,
                .q_rows = rows,
                .q_stride = 3 * width,
                .heads = vit->heads,
                .kv_heads = vit->heads,
                .head_dim = width / vit->heads,
                .scale = (float)(1.0 / sqrt(width / vit->heads)),
                .segments = 1,
                .segment = {{
                    .keys = act_at(k, q, (size_t)width),
                    .values = act_at(k, q, 2 * (size_t)width),
                    .rows = rows,
                    .stride = 3 * width,
                }},
                .out = act_at(k, out, row * (size_t)width),
                .out_stride = width,
            };
            row += (size_t)rows;
        }
    k->attention(k, pass->problems, count);
}

/* One block on `frames` frame pairs whose hidden state is at x. */
static void run_block(struct vit_pass *pass, int number, act *x, int frames)
{
    const struct vit_block *block = &pass->weights.blocks[number];
    const struct vit *vit = pass->vit;
    struct kernels *k = vit->kernels;
    int rows = frames * pass->plan.rows, width = vit->hidden_size, head_dim = width / vit->heads;
    size_t inner = (size_t)rows * (size_t)vit->intermediate_size;

    act *qkv = pass->wide;
    k->rms_norm(k, x, rows, width, block->norm1, rms_norm_eps, pass->narrow);
    k->linear(k, block->qkv, pass->narrow, rows, qkv, false);
    for (int t = 0; t < frames; t++) {
        struct head_part parts[2]; /* queries, keys */
        for (size_t i = 0; i < 2; i++)
            parts[i] = (struct head_part){.x = act_at(k, qkv, ((size_t)(t * pass->plan.rows) * 3 + i) * (size_t)width),
                                          .rows = pass->plan.rows, .stride = 3 * width, .heads = vit->heads,
                                          .cosines = pass->cosines, .sines = pass->sines};
        k->head_norm_rope(k, parts, 2, head_dim, 0);
    }
    attend(pass, qkv, frames, vit->full_attention[number], pass->narrow);
    k->linear(k, block->proj, pass->narrow, rows, x, true);

    act *gate = pass->wide, *up = act_at(k, pass->wide, inner);
    k->rms_norm(k, x, rows, width, block->norm2, rms_norm_eps, pass->narrow);
    k->linear(k, block->gate, pass->narrow, rows, gate, false);
    k->linear(k, block->up, pass->narrow, rows, up, false);
    k->swiglu(k, gate, up, inner, gate);
    k->linear(k, block->down, gate, rows, x, true);
}

/* Four patches become a token; tokens leave the window order for the natural one. */
static void merge(struct vit_pass *pass, const act *x, int frames, act *tokens)
{
    const struct vit *vit = pass->vit;
    struct kernels *k = vit->kernels;
    int rows = frames * pass->plan.rows, cells = rows / 4;
    size_t out_width = (size_t)vit->out_hidden_size, elements = (size_t)rows * (size_t)vit->hidden_size;
    act *inner = pass->wide, *merged = act_at(k, pass->wide, elements);
    k->rms_norm(k, x, rows, vit->hidden_size, pass->weights.merger_norm, rms_norm_eps, pass->narrow);
    k->linear(k, pass->weights.merger_in, pass->narrow, cells, inner, false);
    k->gelu(k, inner, elements, inner);
    k->linear(k, pass->weights.merger_out, inner, cells, merged, false);
    for (int t = 0; t < frames; t++)
        for (const struct window *w = pass->windows; w < pass->windows + pass->window_count; w++)
            for (int row = w->row; row < w->row + w->height; row++) {
                size_t cell =
                    (size_t)t * (size_t)(pass->plan.rows / 4) + (size_t)(row * (pass->grid.w / 2) + w->column);
                k->copy(k, act_at(k, tokens, cell * out_width), merged, (size_t)w->width * out_width);
                merged = act_at(k, merged, (size_t)w->width * out_width);
            }
}

int vit_step(struct vit_pass *pass, int *done_blocks, int *blocks, struct error *error)
{
    const struct vit *vit = pass->vit;
    struct kernels *k = vit->kernels;
    if (pass->done == vit->depth)
        return error_set(error, ERROR_INTERNAL, "vit: stepped after its end");
    bool last = pass->done == vit->depth - 1;
    for (int t = 0; t < pass->grid.t; t += pass->plan.group) {
        int frames = pass->grid.t - t < pass->plan.group ? pass->grid.t - t : pass->plan.group;
        size_t row = (size_t)t * (size_t)pass->plan.rows;
        act *x = act_at(k, pass->hidden, row * (size_t)vit->hidden_size);
        run_block(pass, pass->done, x, frames);
        if (last)
            merge(pass, x, frames, act_at(k, pass->tokens, row / 4 * (size_t)vit->out_hidden_size));
    }
    int code = k->sync(k, error);
    if (code < 0)
        return code;
    *done_blocks = ++pass->done;
    *blocks = vit->depth;
    return last ? 0 : 1;
}

void vit_pass_close(struct vit_pass *pass)
{
    if (!pass)
        return;
    struct kernels *k = pass->vit->kernels;
    k->memory_free(k, pass->hidden);
    k->memory_free(k, pass->narrow);
    k->memory_free(k, pass->wide);
    k->memory_free(k, pass->cosines);
    k->memory_free(k, pass->sines);
    if (!pass->vit->resident)
        weights_close(pass->vit, &pass->weights);
    free(pass->windows);
    free(pass->problems);
    free(pass);
}

const act *vit_hidden(const struct vit_pass *pass)
{
    return pass->hidden;
}
