/* tensors.h: which tensors a checkpoint has, and what their values are like.
 *
 * Every value is a function of the seed, the layer's name and the element's index, so any piece of any tensor can be
 * made alone, by any thread. A linear layer that the 4-bit forms quantise has the same weights in every form, exactly:
 * they are drawn from the levels that 4-bit integers and FP4 have in common, times scales of few bits.
 */
#ifndef RANDOM_CHECKPOINT_TENSORS_H
#define RANDOM_CHECKPOINT_TENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "protocol/safetensors.h"
#include "tools/random-checkpoint/sizes.h"

enum form { FORM_BF16, FORM_AWQ_128, FORM_AWQ_64, FORM_NVFP4, FORM_COUNT };

enum content {
    CONTENT_UNIFORM,     /* dense, evenly distributed around a mean */
    CONTENT_LEVELS,      /* a quantisable weight, dense */
    CONTENT_NVFP4_CODES, CONTENT_AWQ_CODES,
    CONTENT_SCALES, CONTENT_SCALES_FP8, CONTENT_ZEROS
};

struct random_tensor {
    char name[128];
    enum dtype dtype;
    int dimensions;
    uint64_t shape[5];
    enum content content;
    uint64_t key;        /* of the random stream */
    int group;           /* columns that share one of the scales, for SCALES, SCALES_FP8 and ZEROS */
    float mean, deviation;
    struct {
        uint64_t from, to; /* elements that are distributed otherwise */
        float mean, deviation;
    } apart;
};

/* A growing list; free(list.tensors). */
struct tensor_list {
    struct random_tensor *tensors;
    size_t count, capacity;
    bool is_hollow; /* large tensors are to be holes in their file: zeros that take no room */
};

/* The language model in one form, the ViT (names without prefix), the VAE. Errors: ERROR_NO_MEMORY. */
int tensors_of_language_model(struct tensor_list *list, const struct sizes *sizes, enum form form, uint64_t seed,
                              struct error *error);
int tensors_of_vit(struct tensor_list *list, const struct sizes *sizes, uint64_t seed, struct error *error);
int tensors_of_vae(struct tensor_list *list, const struct sizes *sizes, uint64_t seed, struct error *error);

uint64_t random_tensor_bytes(const struct random_tensor *tensor);

#endif
