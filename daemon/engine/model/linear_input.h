/* linear_input.h: what goes into a matrix of the decoder's layers, as someone who watches sees it.
 *
 * Matrices with the same input (q, k and v; gate and up) are one place. Produced by decoder.c, shown outside the engine
 * by tap.h.
 */
#ifndef LANCE_LINEAR_INPUT_H
#define LANCE_LINEAR_INPUT_H

#include <stdbool.h>
#include <stddef.h>

enum linear_place { PLACE_QKV, PLACE_O, PLACE_GATE_UP, PLACE_DOWN, LINEAR_PLACES };

enum { LINEAR_NAME_BYTES = 128 };

struct linear_input {
    enum linear_place place;
    int layer;
    bool generation;   /* the expert: latent tokens, or text, pictures that are seen, and the ends of latents */
    float time;        /* in the schedule of the latents of this pass, from 1 (noise) to 0 (clean, as references are);
                        * below 0 in a pass without latents. Frames that are given (i2v) go by their pass */
    int rows, width;
    const float *values; /* [rows, width], valid during the call */
};

/* Called for each input, for many rows in several calls, in the order of the rows. */
typedef void linear_input_watch(void *context, const struct linear_input *input);

/* The name of matrix `index` of an input's place, without ".weight": "language_model.model.layers.0.mlp.up_proj". False
 * when there are fewer. */
bool linear_input_name(char name[LINEAR_NAME_BYTES], enum linear_place place, int layer, bool generation, int index);

#endif
