/* latent_tokens.c: see latent_tokens.h. */
#include "daemon/engine/model/latent_tokens.h"
#include "kernels/formats/numbers.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TIME_FREQUENCIES = 128, TIME_WIDTH = 2 * TIME_FREQUENCIES };

struct latent_tokens {
    struct kernels *kernels;
    int hidden, channels;
    bool round_tables;
    struct linear *vae2llm, *llm2vae, *time_in, *time_out;
    act *time_scratch; /* [TIME_WIDTH + hidden] */
};

static int open_linear(struct latent_tokens *t, struct linear **out, const struct checkpoint *checkpoint,
                       const char *name, int out_features, int in_features, struct error *error)
{
    struct linear_source source;
    int code = checkpoint_linear(checkpoint, name, out_features, in_features, &source, error);
    return code ? code : t->kernels->linear_open(t->kernels, out, &source, error);
}

int latent_tokens_open(struct latent_tokens **out, struct kernels *kernels, const struct checkpoint *checkpoint,
                       bool round_tables, struct error *error)
{
    *out = NULL;
    const struct lance_config *config = checkpoint_config(checkpoint);
    struct latent_tokens *t = calloc(1, sizeof *t);
    if (!t)
        return error_set(error, ERROR_NO_MEMORY, "latent_tokens: no memory");
    *t = (struct latent_tokens){.kernels = kernels,
                                .hidden = config->hidden_size,
                                .channels = config->vae.latent_channels,
                                .round_tables = round_tables};
    const int h = t->hidden, c = t->channels;
    int code;
    if ((code = open_linear(t, &t->vae2llm, checkpoint, "vae2llm", h, c, error)) ||
        (code = open_linear(t, &t->llm2vae, checkpoint, "llm2vae", c, h, error)) ||
        (code = open_linear(t, &t->time_in, checkpoint, "time_embedder.mlp.0", h, TIME_WIDTH, error)) ||
        (code = open_linear(t, &t->time_out, checkpoint, "time_embedder.mlp.2", h, h, error)) ||
        (code = kernels->memory_alloc(kernels, (void **)&t->time_scratch,
                                      (size_t)(TIME_WIDTH + h) * kernels->act_bytes, error))) {
        latent_tokens_close(t);
        return code;
    }
    *out = t;
    return 0;
}

void latent_tokens_close(struct latent_tokens *t)
{
    if (!t)
        return;
    struct linear *const all[] = {t->vae2llm, t->llm2vae, t->time_in, t->time_out};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i])
            t->kernels->linear_close(t->kernels, all[i]);
    t->kernels->memory_free(t->kernels, t->time_scratch);
    free(t);
}

int latent_tokens_channels(const struct latent_tokens *t) { return t->channels; }

/* sin and cos of position * 10000^(-k / (width/2)), k < width/2, one half after the other. */
static void sine_cosine(double position, int width, bool rounded, float *out)
{
    const int half = width / 2;
    for (int k = 0; k < half; k++) {
        double angle = position * pow(10000.0, -(double)k / half);
        out[k] = (float)sin(angle);
        out[half + k] = (float)cos(angle);
    }
    if (rounded)
        bf16_round(out, (size_t)width);
}

int latent_tokens_positions(const struct latent_tokens *t, struct token_grid grid, act *out, struct error *error)
{
    /* The widths of the three axes, each even, the columns' taking what is left. */
    const int width_t = t->hidden / 3 / 2 * 2, width_w = t->hidden - 2 * width_t;
    const size_t hidden = (size_t)t->hidden, cells = (size_t)grid.height * (size_t)grid.width;
    float *rows = malloc((size_t)LATENT_MAX_SIDE * (size_t)(width_t + width_w) * sizeof *rows);
    float *columns = rows ? rows + LATENT_MAX_SIDE * width_t : NULL;
    float *tokens = malloc(cells * hidden * sizeof *tokens);
    if (!rows || !tokens) {
        free(rows);
        free(tokens);
        return error_set(error, ERROR_NO_MEMORY, "latent_tokens: no memory for the positions of %d x %d cells",
                         grid.height, grid.width);
    }
    for (int i = 0; i < LATENT_MAX_SIDE; i++) {
        sine_cosine(i, width_t, t->round_tables, rows + i * width_t);
        sine_cosine(i, width_w, t->round_tables, columns + i * width_w);
    }
    for (int frame = 0; frame < grid.frames; frame++) {
        float *token = tokens;
        for (int y = 0; y < grid.height; y++)
            for (int x = 0; x < grid.width; x++, token += hidden) {
                int index = (frame * LATENT_MAX_SIDE + y) * LATENT_MAX_SIDE + x;
                int row = index / LATENT_MAX_SIDE % LATENT_MAX_SIDE, column = index % LATENT_MAX_SIDE;
                int table_frame = index / (LATENT_MAX_SIDE * LATENT_MAX_SIDE);
                if (token != tokens && table_frame == frame)
                    memcpy(token, tokens, (size_t)width_t * sizeof *token);
                else
                    sine_cosine(table_frame, width_t, t->round_tables, token);
                memcpy(token + width_t, rows + row * width_t, (size_t)width_t * sizeof *token);
                memcpy(token + 2 * width_t, columns + column * width_w, (size_t)width_w * sizeof *token);
            }
        t->kernels->upload(t->kernels, act_at(t->kernels, out, (size_t)frame * cells * hidden), tokens, cells * hidden);
    }
    free(rows);
    free(tokens);
    return 0;
}

void latent_tokens_time(const struct latent_tokens *t, float time, act *out)
{
    float host[TIME_WIDTH];
    for (int k = 0; k < TIME_FREQUENCIES; k++) {
        float frequency = (float)exp(-log(10000.0) * k / TIME_FREQUENCIES);
        host[k] = (float)cos((double)time * frequency);
        host[TIME_FREQUENCIES + k] = (float)sin((double)time * frequency);
    }
    struct kernels *kernels = t->kernels;
    act *hidden = act_at(kernels, t->time_scratch, TIME_WIDTH);
    kernels->upload(kernels, t->time_scratch, host, TIME_WIDTH);
    kernels->linear(kernels, t->time_in, t->time_scratch, 1, hidden, false);
    kernels->silu(kernels, hidden, (size_t)t->hidden, hidden);
    kernels->linear(kernels, t->time_out, hidden, 1, out, false);
}

void latent_tokens_embed(const struct latent_tokens *t, const act *latents, int rows, const act *positions, act *y)
{
    t->kernels->linear(t->kernels, t->vae2llm, latents, rows, y, false);
    t->kernels->add(t->kernels, positions, (size_t)rows * (size_t)t->hidden, y);
}

void latent_tokens_velocity(const struct latent_tokens *t, const act *hidden, int rows, act *v)
{
    t->kernels->linear(t->kernels, t->llm2vae, hidden, rows, v, false);
}
