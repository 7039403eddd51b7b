/* likeness.h: how near pictures are to those that they should be.
 */
#ifndef LANCE_QUANT_LIKENESS_H
#define LANCE_QUANT_LIKENESS_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* |a - b| / |b| over n values. */
double likeness_relative_error(const float *a, const float *b, size_t n);

/* Of 8-bit values, in dB: 20 log10(255 / root mean square of the difference); 99 for the same values. */
double likeness_psnr(const uint8_t *a, const uint8_t *b, size_t n);

/* Structural similarity of the luma of two RGB pictures [height, width, 3]: the mean over windows of 8 x 8, 4 apart,
 * with the usual constants (0.01 and 0.03 of 255). Pictures smaller than a window: 1. */
double likeness_ssim(const uint8_t *a, const uint8_t *b, int height, int width);

/* Energy of the luma above half of the Nyquist frequency in either direction, by the discrete cosine transform, into
 * *energy. Cost: products of the sides. ERROR_NO_MEMORY. */
int likeness_fine_energy(const uint8_t *rgb, int height, int width, double *energy, struct error *error);

#endif
