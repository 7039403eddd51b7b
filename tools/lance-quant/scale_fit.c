/* scale_fit.c: see scale_fit.h. */
#include "tools/lance-quant/scale_fit.h"

#include <math.h>

static const double unrelated = 1e-6; /* of the products: below it inputs and weights cannot be told apart */

/* Means, then sums of products of what is off them. */
struct sums {
    double count, scale, input, weight;
    double input_input, weight_weight, input_weight, scale_input, scale_weight;
};

struct scale_fit scale_fit(const float *scale, const float *inputs, const float *weights, int columns)
{
    struct sums s = {0};
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < columns; i++) {
            if (!(scale[i] > 0) || !(inputs[i] > 0) || !(weights[i] > 0))
                continue;
            const double y = log((double)scale[i]) - s.scale, x = log((double)inputs[i]) - s.input,
                         w = log((double)weights[i]) - s.weight;
            if (pass == 0) {
                const double part = 1 / ++s.count;
                s.scale += y * part;
                s.input += x * part;
                s.weight += w * part;
                continue;
            }
            s.input_input += x * x;
            s.weight_weight += w * w;
            s.input_weight += x * w;
            s.scale_input += y * x;
            s.scale_weight += y * w;
        }
    }
    const double apart = s.input_input * s.weight_weight - s.input_weight * s.input_weight;
    if (apart > unrelated * s.input_input * s.weight_weight)
        return (struct scale_fit){(s.scale_input * s.weight_weight - s.scale_weight * s.input_weight) / apart,
                                  (s.scale_input * s.input_weight - s.scale_weight * s.input_input) / apart};
    return (struct scale_fit){s.input_input > 0 ? s.scale_input / s.input_input : 0, 0};
}
