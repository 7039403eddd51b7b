/* core_latents.c: see core_latents.h. */
#include "tools/lancectl/graph/core_latents.h"

#include <stdlib.h>
#include <string.h>

#include "protocol/latent_shape.h"

enum { PIXELS_PER_CELL = 8 };

int empty_latent(struct work *work, struct error *error)
{
    const cJSON *says = cJSON_GetObjectItemCaseSensitive(work->node->kind->entry, "latent");
    const int channels = cJSON_GetObjectItemCaseSensitive(says, "channels")->valueint;
    const bool is_video = work_value(work, "length") != NULL;
    struct value *value = value_new(VALUE_LATENT);
    if (value) {
        const int frames = is_video ? vae_latent_frames((int)work_number(work, "length")) : 1;
        value->latent = (struct latent){.shape = {(int)work_number(work, "batch_size"), channels, frames,
                                                  (int)work_number(work, "height") / PIXELS_PER_CELL,
                                                  (int)work_number(work, "width") / PIXELS_PER_CELL},
                                        .is_flat = !is_video,
                                        .pixels_per_cell = PIXELS_PER_CELL};
    }
    return work_give(work, 0, value, error);
}

/* `times` copies of values, one after the other; malloc'ed. */
static float *repeated(const float *values, size_t count, int times)
{
    float *made = malloc(count * (size_t)times * sizeof *made + 1);
    for (int i = 0; made && i < times; i++)
        memcpy(made + (size_t)i * count, values, count * sizeof *made);
    return made;
}

/* Whose noise the copies have: each copy's follows that of the one before. */
static int *repeated_places(const int *places, int count, int times)
{
    int *made = malloc((size_t)count * (size_t)times * sizeof *made + 1), lowest = places[0], highest = places[0];
    for (int i = 1; i < count; i++) {
        lowest = places[i] < lowest ? places[i] : lowest;
        highest = places[i] > highest ? places[i] : highest;
    }
    for (int i = 0; made && i < count * times; i++)
        made[i] = places[i % count] + i / count * (highest - lowest + 1);
    return made;
}

int repeat_latent_batch(struct work *work, struct error *error)
{
    const struct latent *of = &work_value(work, "samples")->latent;
    const int times = (int)work_number(work, "amount");
    struct value *value = value_new(VALUE_LATENT);
    if (!value)
        return error_set(error, ERROR_NO_MEMORY, "no memory for latents");
    struct latent *made = &value->latent;
    *made = (struct latent){.is_flat = of->is_flat, .pixels_per_cell = of->pixels_per_cell};
    memcpy(made->shape, of->shape, sizeof made->shape);
    made->shape[0] *= times;
    if (of->samples)
        made->samples = repeated(of->samples, latent_values(of), times);
    if (of->noise_places)
        made->noise_places = repeated_places(of->noise_places, of->shape[0], times);
    if (of->receipt)
        made->receipt = strdup(of->receipt);
    if ((!of->samples || made->samples) && (!of->noise_places || made->noise_places))
        return work_give(work, 0, value, error);
    value_release(value);
    return error_set(error, ERROR_NO_MEMORY, "no memory for latents");
}
