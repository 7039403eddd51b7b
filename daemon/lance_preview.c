/* lance_preview.c: colours of latent cells without the VAE: colour = bias + sum over channels of weight * latent.
 *
 * The weights are fitted once per model, when the first preview is asked for: a random latent is decoded, each cell's pixels are
 * averaged, and ridge regression finds the line. Deterministic; the model's one thread runs it.
 */
#include "daemon/lance_internal.h"
#include "daemon/model/noise.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { FIT_SIDE = 16, FIT_CELLS = FIT_SIDE * FIT_SIDE, MAX_TERMS = 65 };

/* Solve A w = B for the three colours by Gaussian elimination; A is symmetric and, with the ridge, positive. */
static void solve(double a[MAX_TERMS][MAX_TERMS], double b[MAX_TERMS][3], int n)
{
    for (int pivot = 0; pivot < n; pivot++)
        for (int row = pivot + 1; row < n; row++) {
            double factor = a[row][pivot] / a[pivot][pivot];
            for (int column = pivot; column < n; column++)
                a[row][column] -= factor * a[pivot][column];
            for (int colour = 0; colour < 3; colour++)
                b[row][colour] -= factor * b[pivot][colour];
        }
    for (int row = n - 1; row >= 0; row--)
        for (int colour = 0; colour < 3; colour++) {
            for (int column = row + 1; column < n; column++)
                b[row][colour] -= a[row][column] * b[column][colour];
            b[row][colour] /= a[row][row];
        }
}

static void average_cell(const float *pixels, int cell, double mean[3])
{
    const int width = FIT_SIDE * VAE_SPATIAL_STRIDE, top = cell / FIT_SIDE * VAE_SPATIAL_STRIDE,
              left = cell % FIT_SIDE * VAE_SPATIAL_STRIDE;
    for (int colour = 0; colour < 3; colour++) {
        double sum = 0;
        for (int y = 0; y < VAE_SPATIAL_STRIDE; y++)
            for (int x = 0; x < VAE_SPATIAL_STRIDE; x++)
                sum += pixels[((size_t)(top + y) * (size_t)width + (size_t)(left + x)) * 3 + (size_t)colour];
        mean[colour] = sum / (VAE_SPATIAL_STRIDE * VAE_SPATIAL_STRIDE);
    }
}

static void fit(struct lance_model *m, const float *latents, const float *pixels, int channels)
{
    static const double ridge = 1.0;
    double a[MAX_TERMS][MAX_TERMS] = {{0}}, b[MAX_TERMS][3] = {{0}};
    for (int cell = 0; cell < FIT_CELLS; cell++) {
        double term[MAX_TERMS], mean[3];
        for (int c = 0; c < channels; c++)
            term[c] = latents[cell * channels + c];
        term[channels] = 1;
        average_cell(pixels, cell, mean);
        for (int i = 0; i <= channels; i++) {
            for (int j = 0; j <= channels; j++)
                a[i][j] += term[i] * term[j];
            for (int colour = 0; colour < 3; colour++)
                b[i][colour] += term[i] * mean[colour];
        }
    }
    for (int i = 0; i < channels; i++)
        a[i][i] += ridge;
    solve(a, b, channels + 1);
    for (int colour = 0; colour < 3; colour++) {
        for (int c = 0; c < channels; c++)
            m->colours[colour][c] = (float)b[c][colour];
        m->colour_bias[colour] = (float)b[channels][colour];
    }
    m->colours_fitted = true;
}

/* A latent picture whose neighbouring cells are alike, as in real ones: noise with a 3x3 mean mixed in. */
static void smooth_noise(float *latents, float *scratch, int channels)
{
    noise_torch_cpu(0, scratch, (size_t)FIT_CELLS * (size_t)channels);
    for (int y = 0; y < FIT_SIDE; y++)
        for (int x = 0; x < FIT_SIDE; x++)
            for (int c = 0; c < channels; c++) {
                float sum = 0;
                for (int dy = -1; dy <= 1; dy++)
                    for (int dx = -1; dx <= 1; dx++)
                        sum += scratch[((y + dy + FIT_SIDE) % FIT_SIDE * FIT_SIDE + (x + dx + FIT_SIDE) % FIT_SIDE) * channels + c];
                latents[(y * FIT_SIDE + x) * channels + c] = sum / 3;
            }
}

static int fit_colours(struct lance_model *m, struct error *error)
{
    const int channels = vae_latent_channels(m->vae);
    if (channels >= MAX_TERMS)
        return error_set(error, ERROR_UNSUPPORTED, "no previews for %d latent channels", channels);
    const size_t n = (size_t)FIT_CELLS * (size_t)channels;
    const size_t pixel_count = (size_t)FIT_CELLS * VAE_SPATIAL_STRIDE * VAE_SPATIAL_STRIDE * 3 * VAE_TEMPORAL_STRIDE;
    float *latents = malloc(n * sizeof *latents), *scratch = malloc(n * sizeof *scratch);
    float *pixels = malloc(pixel_count * sizeof *pixels);
    struct vae_pass *pass = NULL;
    int code = latents && scratch && pixels ? 0 : error_set(error, ERROR_NO_MEMORY, "no memory to fit preview colours");
    if (!code)
        code = vae_decode_begin(&pass, m->vae, 1, FIT_SIDE, FIT_SIDE, error);
    if (!code) {
        int frames;
        smooth_noise(latents, scratch, channels);
        code = vae_decode_frame(pass, latents, pixels, &frames, error);
    }
    if (!code)
        fit(m, latents, pixels, channels);
    vae_pass_close(pass);
    free(latents);
    free(scratch);
    free(pixels);
    return code;
}

int preview_colours(struct lance_model *m, const float *latents, size_t cells, uint8_t *rgb, struct error *error)
{
    int code = m->colours_fitted ? 0 : fit_colours(m, error);
    if (code)
        return code;
    const size_t channels = (size_t)vae_latent_channels(m->vae);
    for (size_t cell = 0; cell < cells; cell++)
        for (size_t colour = 0; colour < 3; colour++) {
            float value = m->colour_bias[colour];
            for (size_t c = 0; c < channels; c++)
                value += m->colours[colour][c] * latents[cell * channels + c];
            vae_pixels_to_u8(&value, &rgb[cell * 3 + colour], 1);
        }
    return 0;
}
