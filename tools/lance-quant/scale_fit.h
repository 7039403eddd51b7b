/* scale_fit.h: what a scale of columns was made by, seen from the scale: the recipes take x^alpha / w^beta, x being the
 * size of a channel's input and w its largest weight, and no file has the two exponents. */
#ifndef LANCE_QUANT_SCALE_FIT_H
#define LANCE_QUANT_SCALE_FIT_H

struct scale_fit {
    double alpha, beta;
};

/* By least squares between the logarithms, but for a factor that all columns share; columns without a positive scale,
 * input and weight are left out. Both are 0 for a scale that is the same everywhere, and where nothing can be told. */
struct scale_fit scale_fit(const float *scale, const float *inputs, const float *weights, int columns);

#endif
