/* model_estimates.c: see model_estimates.h. The engine is asked about a request of each task, as it would be by a
 * client that leaves everything to it; what is in the picture or the latents does not matter to what they take. */
#include "daemon/model_estimates.h"

#include "base/json.h"

enum { PICTURE_SIDE = 768, CLIP_FRAMES = 49, CLIP_HEIGHT = 480, CLIP_WIDTH = 848, CLIP_FPS = 12, LATENT_SIDE = 48 };

static void add_estimate(cJSON *estimates, struct residency *residency, int index, enum lance_task task, int channels)
{
    static const uint8_t pixel;
    static const float value;
    const struct lance_media picture = {.pixels = &pixel, .frames = 1, .height = PICTURE_SIDE, .width = PICTURE_SIDE};
    const struct lance_media clip = {
        .pixels = &pixel, .frames = CLIP_FRAMES, .height = CLIP_HEIGHT, .width = CLIP_WIDTH, .fps = CLIP_FPS};
    const struct lance_latents latents = {
        .values = &value, .batch = 1, .channels = channels, .frames = 1, .height = LATENT_SIDE, .width = LATENT_SIDE};
    struct lance_request request;
    struct lance_memory memory = {0};
    struct error error = {0};
    lance_request_init(&request, task);
    request.prompt = "a";
    if (task_has_source(task))
        request.source = task_takes_video(task) ? &clip : &picture;
    if (task == LANCE_DECODE)
        request.latents = &latents;
    const int code = residency_estimate(residency, index, &request, &memory, &error);
    cJSON *estimate = json_add_object(estimates, lance_task_name(task));
    json_add_text(estimate, "problem", code != 0 ? error.text : NULL);
    json_add_text(estimate, "code", code != 0 ? error_name(code) : NULL);
    if (memory.total_bytes == 0)
        return;
    json_add_number(estimate, "total_bytes", (double)memory.total_bytes);
    json_add_number(estimate, "device_bytes", (double)memory.device_bytes);
    json_add_number(estimate, "host_bytes", (double)memory.host_bytes);
}

cJSON *model_estimates_json(struct residency *residency, int index)
{
    struct lance_model_info info = {0};
    cJSON *estimates = json_object();
    residency_info(residency, index, &info);
    for (int task = 0; task < LANCE_TASK_COUNT; task++)
        add_estimate(estimates, residency, index, (enum lance_task)task, info.latent_channels);
    return estimates;
}
