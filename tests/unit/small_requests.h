/* small_requests.h: a request of every task that takes a moment on the tiny checkpoint, for tests of the engine. */
#ifndef LANCE_TESTS_SMALL_REQUESTS_H
#define LANCE_TESTS_SMALL_REQUESTS_H

#include "daemon/engine/lance.h"

static uint8_t source_pixels[6 * 60 * 80 * 3];
static struct lance_media picture = {source_pixels, 1, 60, 80, 0}, clip = {source_pixels, 6, 60, 80, 12};

static float latent_values_given[48 * 3 * 4];
static struct lance_latents latents_given = {latent_values_given, 1, 48, 1, 3, 4};

static inline struct lance_request small(enum lance_task task)
{
    struct lance_request r;
    lance_request_init(&r, task);
    r.prompt = "a red square";
    r.width = 64;
    r.height = 48;
    r.num_inference_steps = 3;
    r.num_frames = task == LANCE_T2V || task == LANCE_I2V ? 5 : 1;
    r.max_new_tokens = 6;
    r.source = task == LANCE_T2I || task == LANCE_T2V ? NULL : task_takes_video(task) ? &clip : &picture;
    if (task == LANCE_DECODE) {
        r.source = NULL;
        r.latents = &latents_given;
    }
    return r;
}

#endif
