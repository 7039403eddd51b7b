/* preview.c: colours of latent cells without the VAE: colour = bias + sum over channels of weight * latent.
 *
 * For the released Wan 2.2 VAE, known by its widths, the weights are known (wan22_colours.h). Weights of another VAE
 * are fitted once per model, when the first preview is asked for: small made-up pictures of a shape on a ground
 * are encoded, and ridge regression finds the line from each cell's latent to its mean colour. (Decoding random
 * latents instead was tried: the colours it gives have nothing to do with pictures, for no picture has such latents.)
 * On the demo's VAE, whose latents hold colour less linearly than those of large VAEs, cells of finished pictures are
 * off by 38 of 255 on average; the best line for these very pictures is off by 26. More made-up pictures and other
 * ridges were no better; 64 random features came to 33, for a hundred times the work.
 * Deterministic; the model's one thread runs it.
 */
#include "daemon/engine/preview.h"
#include "daemon/engine/model/vae.h"
#include "daemon/engine/wan22_colours.h"

#include <stdlib.h>
#include <string.h>

enum {
    PICTURES = 24,
    CELLS_A_SIDE = 8,
    CELLS = CELLS_A_SIDE * CELLS_A_SIDE,
    SIDE = CELLS_A_SIDE * VAE_SPATIAL_STRIDE, /* pixels */
    MAX_TERMS = PREVIEW_MAX_CHANNELS + 1      /* the bias */
};
static const double ridge = 30;

/* The normal equations, summed over all cells of all pictures. */
struct regression {
    int terms;
    double matrix[MAX_TERMS][MAX_TERMS], right[MAX_TERMS][3];
};

/* Number i of a fixed random sequence, in [0, 1). */
static float random_number(int i)
{
    uint32_t x = (uint32_t)(i + 1) * 2654435761u;
    x = (x ^ x >> 15) * 2246822519u;
    x ^= x >> 13;
    return (float)(x >> 8) / 16777216.0f;
}

/* Colour number i, in [-1, 1]; every second one is a corner of the colour cube. */
static void random_colour(int i, float colour[3])
{
    for (int c = 0; c < 3; c++) {
        float value = 2 * random_number(3 * i + c) - 1;
        colour[c] = i % 2 ? value : value < 0 ? -1.0f : 1.0f;
    }
}

/* A square or a disc on a ground that, in every third picture, blends into another colour from left to right. */
static void paint(int picture, float *pixels)
{
    float left[3], right[3], shape[3];
    random_colour(5 * picture, left);
    random_colour(5 * picture + 1, shape);
    random_colour(picture % 3 ? 5 * picture : 5 * picture + 2, right);
    const float place[] = {random_number(7000 + 3 * picture), random_number(7001 + 3 * picture)};
    const float width = (0.3f + 0.3f * random_number(7002 + 3 * picture)) * SIDE, radius = width / 2;
    const float centre_x = radius + place[0] * (SIDE - width), centre_y = radius + place[1] * (SIDE - width);
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++) {
            float dx = (float)x - centre_x, dy = (float)y - centre_y, blend = (float)x / SIDE;
            bool inside = picture % 2 ? dx * dx + dy * dy < radius * radius
                                      : dx > -radius && dx < radius && dy > -radius && dy < radius;
            for (int c = 0; c < 3; c++)
                *pixels++ = inside ? shape[c] : left[c] + blend * (right[c] - left[c]);
        }
}

static void mean_colour(const float *pixels, int cell, double mean[3])
{
    const int top = cell / CELLS_A_SIDE * VAE_SPATIAL_STRIDE, left = cell % CELLS_A_SIDE * VAE_SPATIAL_STRIDE;
    for (int c = 0; c < 3; c++) {
        mean[c] = 0;
        for (int y = top; y < top + VAE_SPATIAL_STRIDE; y++)
            for (int x = left; x < left + VAE_SPATIAL_STRIDE; x++)
                mean[c] += pixels[(y * SIDE + x) * 3 + c] / (VAE_SPATIAL_STRIDE * VAE_SPATIAL_STRIDE);
    }
}

static void add_picture(struct regression *r, const float *latents, const float *pixels)
{
    const int channels = r->terms - 1;
    for (int cell = 0; cell < CELLS; cell++) {
        double term[MAX_TERMS], mean[3];
        for (int i = 0; i < channels; i++)
            term[i] = latents[cell * channels + i];
        term[channels] = 1;
        mean_colour(pixels, cell, mean);
        for (int i = 0; i < r->terms; i++) {
            for (int j = 0; j < r->terms; j++)
                r->matrix[i][j] += term[i] * term[j];
            for (int c = 0; c < 3; c++)
                r->right[i][c] += term[i] * mean[c];
        }
    }
}

/* Solve by elimination; the matrix is symmetric and, with the ridge, positive. The solution is in `right`. */
static void solve(struct regression *r)
{
    const int n = r->terms;
    for (int i = 0; i < n - 1; i++)
        r->matrix[i][i] += ridge;
    for (int pivot = 0; pivot < n; pivot++)
        for (int row = pivot + 1; row < n; row++) {
            double factor = r->matrix[row][pivot] / r->matrix[pivot][pivot];
            for (int column = pivot; column < n; column++)
                r->matrix[row][column] -= factor * r->matrix[pivot][column];
            for (int c = 0; c < 3; c++)
                r->right[row][c] -= factor * r->right[pivot][c];
        }
    for (int row = n - 1; row >= 0; row--)
        for (int c = 0; c < 3; c++) {
            for (int column = row + 1; column < n; column++)
                r->right[row][c] -= r->matrix[row][column] * r->right[column][c];
            r->right[row][c] /= r->matrix[row][row];
        }
}

static int encode_picture(struct vae *vae, const float *pixels, float *mean, float *log_variance, struct error *error)
{
    struct vae_pass *pass = NULL;
    int code = vae_encode_begin(&pass, vae, 1, CELLS_A_SIDE, CELLS_A_SIDE, error);
    if (!code)
        code = vae_encode_frames(pass, pixels, 1, mean, log_variance, error);
    vae_pass_close(pass);
    return code;
}

static int fit_colours(struct lance_model *m, struct error *error)
{
    const int channels = vae_latent_channels(m->vae);
    const size_t n = (size_t)CELLS * (size_t)channels;
    if (channels >= MAX_TERMS)
        return error_set(error, ERROR_UNSUPPORTED, "no previews for %d latent channels", channels);
    struct regression *r = calloc(1, sizeof *r);
    float *latents = malloc(2 * n * sizeof *latents), *pixels = malloc((size_t)SIDE * SIDE * 3 * sizeof *pixels);
    int code = r && latents && pixels ? 0 : error_set(error, ERROR_NO_MEMORY, "no memory to fit preview colours");
    if (!code)
        r->terms = channels + 1;
    for (int picture = 0; !code && picture < PICTURES; picture++) {
        paint(picture, pixels);
        code = encode_picture(m->vae, pixels, latents, latents + n, error);
        if (!code)
            add_picture(r, latents, pixels);
    }
    if (!code) {
        solve(r);
        for (int c = 0; c < 3; c++) {
            for (int i = 0; i < channels; i++)
                m->colours.weight[c][i] = (float)r->right[i][c];
            m->colours.bias[c] = (float)r->right[channels][c];
        }
        atomic_store(&m->colours_there, true);
    }
    free(r);
    free(latents);
    free(pixels);
    return code;
}

bool preview_known_colours(const struct lance_config *config, struct preview_colours *colours)
{
    if (config->vae.latent_channels != LATENT_CHANNELS || config->vae.encoder_dim != WAN22_ENCODER_DIM ||
        config->vae.decoder_dim != WAN22_DECODER_DIM)
        return false;
    for (int c = 0; c < 3; c++) {
        for (int i = 0; i < LATENT_CHANNELS; i++)
            colours->weight[c][i] = wan22_colours[i][c];
        colours->bias[c] = wan22_colour_bias[c];
    }
    return true;
}

uint64_t preview_bytes(const struct lance_model *m)
{
    struct vae_cost cost = {0};
    if (!atomic_load(&m->colours_there))
        vae_encode_cost(m->vae, 1, CELLS_A_SIDE, CELLS_A_SIDE, &cost, NULL); /* without memory: there will be no
                                                                              * preview */
    return cost.device_bytes;
}

void preview_paint(const struct preview_colours *colours, int channels, const float *latents, size_t cells,
                   uint8_t *rgb)
{
    for (size_t cell = 0; cell < cells; cell++)
        for (int c = 0; c < 3; c++) {
            float value = colours->bias[c];
            for (int i = 0; i < channels; i++)
                value += colours->weight[c][i] * latents[cell * (size_t)channels + (size_t)i];
            vae_pixels_to_u8(&value, &rgb[cell * 3 + (size_t)c], 1);
        }
}

int preview_make(struct lance_model *m, const float *latents, size_t cells, uint8_t *rgb, struct error *error)
{
    int code = atomic_load(&m->colours_there) ? 0 : fit_colours(m, error);
    if (!code)
        preview_paint(&m->colours, vae_latent_channels(m->vae), latents, cells, rgb);
    return code;
}
