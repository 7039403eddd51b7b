/* likeness.c: see likeness.h. */
#include "tools/lance-quant/likeness.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>

enum { WINDOW = 8, WINDOW_STEP = 4 };

double likeness_relative_error(const float *a, const float *b, size_t n)
{
    double difference = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        difference += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        size += (double)b[i] * (double)b[i];
    }
    return size > 0 ? sqrt(difference / size) : difference > 0 ? INFINITY : 0;
}

double likeness_psnr(const uint8_t *a, const uint8_t *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)(a[i] - b[i]) * (double)(a[i] - b[i]);
    return sum > 0 ? fmin(99, 10 * log10(255.0 * 255.0 * (double)n / sum)) : 99;
}

/* Rec. 601. */
static double luma(const uint8_t *rgb)
{
    return 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2];
}

static double window_ssim(const uint8_t *a, const uint8_t *b, size_t stride)
{
    const double n = WINDOW * WINDOW, c1 = 0.01 * 255 * 0.01 * 255, c2 = 0.03 * 255 * 0.03 * 255;
    double sum_a = 0, sum_b = 0, squares_a = 0, squares_b = 0, products = 0;
    for (size_t y = 0; y < WINDOW; y++)
        for (size_t x = 0; x < WINDOW; x++) {
            const double va = luma(a + y * stride + 3 * x), vb = luma(b + y * stride + 3 * x);
            sum_a += va;
            sum_b += vb;
            squares_a += va * va;
            squares_b += vb * vb;
            products += va * vb;
        }
    const double mean_a = sum_a / n, mean_b = sum_b / n;
    const double variances = squares_a / n - mean_a * mean_a + squares_b / n - mean_b * mean_b;
    const double covariance = products / n - mean_a * mean_b;
    return (2 * mean_a * mean_b + c1) * (2 * covariance + c2) /
           ((mean_a * mean_a + mean_b * mean_b + c1) * (variances + c2));
}

double likeness_ssim(const uint8_t *a, const uint8_t *b, int height, int width)
{
    const size_t stride = 3 * (size_t)width;
    double sum = 0;
    int windows = 0;
    for (int y = 0; y + WINDOW <= height; y += WINDOW_STEP)
        for (int x = 0; x + WINDOW <= width; x += WINDOW_STEP, windows++) {
            const size_t at = (size_t)y * stride + 3 * (size_t)x;
            sum += window_ssim(a + at, b + at, stride);
        }
    return windows > 0 ? sum / windows : 1;
}

/* The orthonormal transform [n, n]. */
static void cosines(float *out, int n)
{
    for (int k = 0; k < n; k++)
        for (int i = 0; i < n; i++)
            out[(size_t)k * (size_t)n + (size_t)i] =
                (float)(sqrt((k > 0 ? 2.0 : 1.0) / n) * cos(3.14159265358979323846 * (i + 0.5) * k / n));
}

int likeness_fine_energy(const uint8_t *rgb, int height, int width, double *energy, struct error *error)
{
    const size_t h = (size_t)height, w = (size_t)width, n = h * w;
    float *memory = malloc(sizeof *memory * (3 * n + h * h + w * w));
    if (!memory)
        return error_set(error, ERROR_NO_MEMORY, "lance-quant: no memory to transform a picture");
    float *picture = memory, *half = picture + n, *out = half + n, *columns = out + n, *rows = columns + h * h;
    for (size_t i = 0; i < n; i++)
        picture[i] = (float)luma(rgb + 3 * i);
    cosines(columns, height);
    cosines(rows, width);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, height, width, height, 1, columns, height, picture, width, 0,
                half, width);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, height, width, width, 1, half, width, rows, width, 0, out,
                width);
    *energy = 0;
    for (size_t y = 0; y < h; y++)
        for (size_t x = 0; x < w; x++)
            if (2 * y >= h || 2 * x >= w)
                *energy += (double)out[y * w + x] * (double)out[y * w + x];
    free(memory);
    return 0;
}
