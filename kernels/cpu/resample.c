/* resample.c: the autoencoder's shortcuts and rearrangements, channels last. Each output row
 * (one line of pixels of one frame) is a piece of work. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/operators.h"

#include <string.h>

struct resample {
    const float *x;
    int frames, height, width; /* of x */
    int in_channels, out_channels;
    int factor_t, factor_s;
    int drop;                  /* duplicate_up: output frames left out in front */
    float *y;
};

static void duplicate_rows(const void *context, size_t first, size_t count)
{
    const struct resample *r = context;
    int fs = r->factor_s, rows = r->height * fs, columns = r->width * fs;
    int expanded = r->out_channels * r->factor_t * fs * fs; /* channels after repeating */
    int repeats = expanded / r->in_channels;
    for (size_t line = first; line < first + count; line++) {
        int frame = (int)(line / (size_t)rows) + r->drop, row = (int)(line % (size_t)rows);
        float *y = r->y + line * (size_t)columns * (size_t)r->out_channels;
        const float *source = r->x + ((size_t)(frame / r->factor_t) * (size_t)r->height + (size_t)(row / fs)) *
                                         (size_t)r->width * (size_t)r->in_channels;
        for (int column = 0; column < columns; column++, y += r->out_channels) {
            const float *x = source + (size_t)(column / fs) * (size_t)r->in_channels;
            int part = (frame % r->factor_t * fs + row % fs) * fs + column % fs;
            for (int c = 0; c < r->out_channels; c++)
                y[c] += x[(c * r->factor_t * fs * fs + part) / repeats];
        }
    }
}

static void cpu_duplicate_up(struct kernels *k, const act *x, int frames, int height, int width, int in_channels,
                             int out_channels, int factor_t, int factor_s, int drop, act *y)
{
    struct resample r = {.x = floats(x), .frames = frames, .height = height, .width = width,
                         .in_channels = in_channels, .out_channels = out_channels, .factor_t = factor_t,
                         .factor_s = factor_s, .drop = drop, .y = floats(y)};
    if (frames * factor_t > drop)
        cpu_for(cpu_of(k), (size_t)(frames * factor_t - drop) * (size_t)height * (size_t)factor_s, 1, duplicate_rows,
                &r);
}

static void average_rows(const void *context, size_t first, size_t count)
{
    const struct resample *r = context;
    int fs = r->factor_s, ft = r->factor_t, rows = r->height / fs, columns = r->width / fs;
    int padding = (ft - r->frames % ft) % ft;     /* zero frames in front */
    int split = r->in_channels * ft * fs * fs;    /* channels after the pixels moved into them */
    int group = split / r->out_channels;
    for (size_t line = first; line < first + count; line++) {
        int frame = (int)(line / (size_t)rows), row = (int)(line % (size_t)rows);
        float *y = r->y + line * (size_t)columns * (size_t)r->out_channels;
        for (int column = 0; column < columns; column++, y += r->out_channels)
            for (int c = 0; c < r->out_channels; c++) {
                float sum = 0.0f;
                for (int i = c * group; i < (c + 1) * group; i++) {
                    int channel = i / (ft * fs * fs), t = i / (fs * fs) % ft, h = i / fs % fs, w = i % fs;
                    int from = frame * ft + t - padding;
                    if (from >= 0)
                        sum += r->x[(((size_t)from * (size_t)r->height + (size_t)(row * fs + h)) * (size_t)r->width +
                                     (size_t)(column * fs + w)) * (size_t)r->in_channels + (size_t)channel];
                }
                y[c] += sum / (float)group;
            }
    }
}

static void cpu_average_down(struct kernels *k, const act *x, int frames, int height, int width, int in_channels,
                             int out_channels, int factor_t, int factor_s, act *y)
{
    struct resample r = {.x = floats(x), .frames = frames, .height = height, .width = width,
                         .in_channels = in_channels, .out_channels = out_channels, .factor_t = factor_t,
                         .factor_s = factor_s, .y = floats(y)};
    size_t out_frames = (size_t)((frames + factor_t - 1) / factor_t);
    cpu_for(cpu_of(k), out_frames * (size_t)(height / factor_s), 1, average_rows, &r);
}

struct split {
    const float *x;
    size_t pixels, channels;
    float *y;
};

static void split_pixels(const void *context, size_t first, size_t count)
{
    const struct split *s = context;
    for (size_t i = first; i < first + count; i++) {
        size_t frame = i / s->pixels, pixel = i % s->pixels;
        const float *x = s->x + i * 2 * s->channels;
        float *y = s->y + (2 * frame * s->pixels + pixel) * s->channels;
        memcpy(y, x, s->channels * sizeof *y);
        memcpy(y + s->pixels * s->channels, x + s->channels, s->channels * sizeof *y);
    }
}

static void cpu_split_frames(struct kernels *k, const act *x, int frames, size_t pixels, int channels, act *y)
{
    struct split s = {.x = floats(x), .pixels = pixels, .channels = (size_t)channels, .y = floats(y)};
    if (frames > 0 && pixels)
        cpu_for(cpu_of(k), (size_t)frames * pixels, 64, split_pixels, &s);
}

enum { COLOURS = 3, PATCH = 2, PATCH_CHANNELS = COLOURS * PATCH * PATCH };

struct patches {
    const float *from;
    int height, width; /* in patches */
    bool to_patches;
    float *to;
};

static void patch_rows(const void *context, size_t first, size_t count)
{
    const struct patches *p = context;
    size_t width = (size_t)p->width;
    for (size_t line = first; line < first + count; line++) /* a row of patches; frames follow each other evenly */
        for (size_t column = 0; column < width; column++)
            for (size_t h = 0; h < PATCH; h++)
                for (size_t w = 0; w < PATCH; w++)
                    for (size_t colour = 0; colour < COLOURS; colour++) {
                        size_t pixel = ((line * PATCH + h) * width * PATCH + column * PATCH + w) * COLOURS + colour;
                        size_t patch = (line * width + column) * PATCH_CHANNELS + colour * 4 + w * 2 + h;
                        if (p->to_patches)
                            p->to[patch] = p->from[pixel];
                        else
                            p->to[pixel] = p->from[patch];
                    }
}

/* height and width count patches. */
static void rearrange(struct kernels *k, const act *from, int frames, int height, int width, bool to_patches, act *to)
{
    struct patches p = {.from = floats(from), .height = height, .width = width, .to_patches = to_patches,
                        .to = floats(to)};
    if (frames > 0 && height > 0)
        cpu_for(cpu_of(k), (size_t)frames * (size_t)height, 1, patch_rows, &p);
}

static void cpu_patchify(struct kernels *k, const act *pixels, int frames, int height, int width, act *patches)
{
    rearrange(k, pixels, frames, height, width, true, patches);
}

static void cpu_unpatchify(struct kernels *k, const act *patches, int frames, int height, int width, act *pixels)
{
    rearrange(k, patches, frames, height, width, false, pixels);
}

void cpu_resample_fill(struct kernels *k)
{
    k->duplicate_up = cpu_duplicate_up;
    k->average_down = cpu_average_down;
    k->split_frames = cpu_split_frames;
    k->patchify = cpu_patchify;
    k->unpatchify = cpu_unpatchify;
}
