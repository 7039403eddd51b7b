/* conv.c: causal 3-D convolution, channels last, as a blocked product.
 *
 * out [output pixels, out_channels] = gathered [output pixels, taps * in_channels] times
 * the weights in panels, whose depth runs over (time, row, column, in_channel). The gathered
 * matrix is never formed: each strip collects the pixels under its taps, and padding is a row
 * of zeros. Upsampling is a shift of the pixel's coordinates. Taps that only see the zero frames
 * in front are left out. Where products run in bf16, conv_bf16.c takes the call.
 *
 * Weights are brought into panels by the first call that uses them, time tap by time tap: they are
 * gigabytes, of which an answer needs none, a picture half, and of those the last time tap alone.
 */
#include "kernels/cpu/conv_bf16.h"
#include "kernels/cpu/operators.h"
#include "kernels/cpu/product.h"
#include "kernels/formats/linear_source.h"

#include <stdlib.h>
#include <string.h>

static size_t conv_depth(const struct conv *c)
{
    return (size_t)c->kernel_t * (size_t)c->kernel_h * (size_t)c->kernel_w * (size_t)c->in_channels;
}

static void cpu_conv_close(struct kernels *k, struct conv *conv)
{
    if (!conv)
        return;
    cpu_count(cpu_of(k), -(int64_t)conv->bytes);
    free(conv->panels);
    free(conv->rounded);
    free(conv->bias);
    free(conv);
}

struct repack {
    const struct conv *conv;
    size_t first_tap, taps;
};

/* Some taps of a panel, channel by channel: they lie together in the file, and far apart in the panel. */
static void repack_panel(const struct repack *r, size_t panel)
{
    enum { TAPS_AT_ONCE = 27 };
    const struct conv *c = r->conv;
    const struct conv_source *source = &c->source;
    const size_t in = (size_t)c->in_channels, taps = conv_depth(c) / in, row = panel * TILE_COLUMNS,
                 rows = (size_t)c->out_channels - row < TILE_COLUMNS ? (size_t)c->out_channels - row : TILE_COLUMNS,
                 end = r->first_tap + r->taps;
    float *const to = c->panels + panel * taps * in * TILE_COLUMNS;
    for (size_t channel = 0; channel < in; channel++)
        for (size_t first = r->first_tap; first < end; first += TAPS_AT_ONCE) {
            const size_t count = end - first < TAPS_AT_ONCE ? end - first : TAPS_AT_ONCE;
            float lines[TAPS_AT_ONCE][TILE_COLUMNS] = {{0}};
            for (size_t j = 0; j < rows; j++)
                for (size_t tap = 0; tap < count; tap++)
                    lines[tap][j] = element_at(source->format, source->weight,
                                               ((row + j) * in + channel) * taps + first + tap);
            for (size_t tap = 0; tap < count; tap++)
                memcpy(to + ((first + tap) * in + channel) * TILE_COLUMNS, lines[tap], sizeof lines[tap]);
        }
}

static void repack_panels(const void *context, size_t first, size_t count)
{
    const struct repack *r = context;
    for (size_t panel = first; panel < first + count; panel++)
        if (r->conv->rounded)
            conv_bf16_repack(r->conv, r->first_tap, r->taps, panel);
        else
            repack_panel(r, panel);
}

static size_t panels_of(const struct conv *c)
{
    return ((size_t)c->out_channels + TILE_COLUMNS - 1) / TILE_COLUMNS;
}

/* Bring the time taps from `first` on into panels, those that are not there yet. False: the job was cancelled. */
static bool lay_out(struct cpu *cpu, struct conv *c, int first)
{
    if (first >= c->first_laid_out)
        return true;
    const size_t plane = (size_t)c->kernel_h * (size_t)c->kernel_w;
    cpu_for(cpu, panels_of(c), 1, repack_panels,
            &(struct repack){c, (size_t)first * plane, (size_t)(c->first_laid_out - first) * plane});
    if (pool_is_cancelled(cpu->pool)) /* some may be missing */
        return false;
    c->first_laid_out = first;
    return true;
}

static int cpu_conv_open(struct kernels *k, struct conv **out, const struct conv_source *s, struct error *error)
{
    *out = NULL;
    if (s->out_channels <= 0 || s->in_channels <= 0 || s->kernel_t <= 0 || s->kernel_h <= 0 || s->kernel_w <= 0 ||
        !s->weight)
        return error_set(error, ERROR_BAD_FILE, "convolution: it has no channels, no taps or no weights");
    if (s->format != WEIGHT_F32 && s->format != WEIGHT_BF16)
        return error_set(error, ERROR_BAD_FILE, "convolution: weights must be float32 or bf16");
    struct conv *conv = calloc(1, sizeof *conv);
    if (!conv)
        return error_set(error, ERROR_NO_MEMORY, "no memory for a convolution");
    conv->out_channels = s->out_channels;
    conv->in_channels = s->in_channels;
    conv->kernel_t = s->kernel_t;
    conv->kernel_h = s->kernel_h;
    conv->kernel_w = s->kernel_w;
    conv->source = *s;
    conv->first_laid_out = s->kernel_t;
    const bool rounds = cpu_of(k)->bf16 != NULL;
    size_t panel_bytes =
        panels_of(conv) *
        (rounds ? conv_bf16_panel(conv) * sizeof(bf16) : conv_depth(conv) * TILE_COLUMNS * sizeof(float));
    size_t bias_bytes = s->bias ? (size_t)s->out_channels * sizeof(float) : 0;
    if (rounds)
        conv->rounded = cpu_allocate(panel_bytes);
    else
        conv->panels = cpu_allocate(panel_bytes);
    if (s->bias)
        conv->bias = cpu_allocate(bias_bytes);
    if ((!conv->panels && !conv->rounded) || (s->bias && !conv->bias)) {
        cpu_conv_close(k, conv);
        return error_set(error, ERROR_NO_MEMORY, "no memory for a convolution's weights of %zu bytes", panel_bytes);
    }
    for (int i = 0; s->bias && i < s->out_channels; i++)
        conv->bias[i] = element_at(s->format, s->bias, (size_t)i);
    conv->bytes = sizeof *conv + panel_bytes + bias_bytes;
    cpu_count(cpu_of(k), (int64_t)conv->bytes);
    *out = conv;
    return 0;
}

struct pixel {
    int frame, row, column; /* of the tap (0, 0, 0), in input coordinates */
};

static void left_strips(const void *context, const struct micro *micro, int row, int rows, int first, int depth,
                        float *strips)
{
    const struct conv_gather *g = context;
    const struct conv *c = g->conv;
    const struct conv_call *call = g->call;
    int plane = g->rows * g->columns;
    for (int done = 0; done < rows; done += micro->tile_rows) {
        int height = rows - done < micro->tile_rows ? rows - done : micro->tile_rows;
        struct pixel pixel[TILE_ROWS_MAX];
        for (int r = 0; r < height; r++) {
            int at = row + done + r;
            pixel[r].frame = at / plane * call->stride_t - g->context;
            pixel[r].row = at % plane / g->columns * call->stride_h - call->pad_top;
            pixel[r].column = at % g->columns * call->stride_w - call->pad_left;
        }
        float *strip = strips + (size_t)done * (size_t)depth;
        for (int k = first; k < first + depth;) {
            int tap = k / c->in_channels, channel = k % c->in_channels;
            int run = c->in_channels - channel < first + depth - k ? c->in_channels - channel : first + depth - k;
            int t = tap / (c->kernel_h * c->kernel_w), h = tap / c->kernel_w % c->kernel_h, w = tap % c->kernel_w;
            const float *source[TILE_ROWS_MAX];
            for (int r = 0; r < height; r++) {
                source[r] = conv_pixel(g, pixel[r].frame + t, pixel[r].row + h, pixel[r].column + w);
                if (source[r])
                    source[r] += channel;
            }
            micro->pack(source, height, (size_t)run, strip + (size_t)(k - first) * (size_t)height);
            k += run;
        }
    }
}

static const float *right_panels(const void *context, const struct micro *micro, int column, int columns, int first,
                                 int depth, float *buffer, size_t *distance)
{
    const struct conv *c = ((const struct conv_gather *)context)->conv;
    (void)micro, (void)columns, (void)depth, (void)buffer;
    *distance = conv_depth(c) * TILE_COLUMNS;
    return c->panels + (size_t)(column / TILE_COLUMNS) * *distance + (size_t)first * TILE_COLUMNS;
}

static void cpu_conv(struct kernels *k, struct conv *c, const struct conv_call *call)
{
    struct conv_call checked = *call; /* at most kernel_t - 1 past frames count, the latest ones */
    struct conv_gather g = {.conv = c, .call = &checked};
    int scale = call->upsample2x ? 2 : 1;
    g.in_rows = call->height * scale;
    g.in_columns = call->width * scale;
    g.context = c->kernel_t - 1;
    if (call->no_time_padding && call->past_frames < g.context)
        g.context = call->past_frames;
    if (call->past_frames > g.context) {
        size_t skipped = (size_t)(call->past_frames - g.context) * (size_t)call->height * (size_t)call->width *
                         (size_t)c->in_channels;
        checked.past = act_at(k, call->past, skipped);
        checked.past_frames = g.context;
    }
    g.frames = (g.context + call->frames - c->kernel_t) / call->stride_t + 1;
    g.rows = (g.in_rows + call->pad_top + call->pad_bottom - c->kernel_h) / call->stride_h + 1;
    g.columns = (g.in_columns + call->pad_left + call->pad_right - c->kernel_w) / call->stride_w + 1;
    if (g.context + call->frames < c->kernel_t || g.rows <= 0 || g.columns <= 0)
        return;
    /* The last output frame sees the most; time taps before this one see only zero frames. */
    int empty = g.context - checked.past_frames - (g.frames - 1) * call->stride_t;
    g.first_tap_t = empty > 0 ? empty : 0;
    if (!lay_out(cpu_of(k), c, g.first_tap_t))
        return;
    if (cpu_of(k)->bf16) {
        conv_bf16(cpu_of(k), &g);
        return;
    }
    int tap_depth = c->kernel_h * c->kernel_w * c->in_channels;
    product_run(cpu_of(k), &(struct product){.rows = g.frames * g.rows * g.columns,
                                             .columns = c->out_channels,
                                             .depth_first = g.first_tap_t * tap_depth,
                                             .depth_end = c->kernel_t * tap_depth,
                                             .out = floats(call->out),
                                             .bias = c->bias,
                                             .add = call->add,
                                             .split_rows = true,
                                             .context = &g,
                                             .left = left_strips,
                                             .right = right_panels});
}

void cpu_conv_fill(struct kernels *k)
{
    k->conv_open = cpu_conv_open;
    k->conv_close = cpu_conv_close;
    k->conv = cpu_conv;
}
