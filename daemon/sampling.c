/* sampling.c: see sampling.h. */
#include "daemon/sampling.h"

#include <limits.h>
#include <math.h>

#include "daemon/engine/parameters.h"
#include "protocol/clip_sampling.h"
#include "protocol/latent_shape.h"

/* The most frames that `encode` takes as they are. */
static int most_encoded(void)
{
    return (int)parameter_find(lance_parameters, "num_frames")->high;
}

/* A field that is a whole number from 1 on; 0 where it is missing. */
static int read_count(int *out, const cJSON *request, const char *name, struct error *error)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(request, name);
    uint64_t value = 0;
    if (item && (!json_uint64(item, &value) || value < 1 || value > INT_MAX))
        return error_set(error, ERROR_BAD_REQUEST, "%s: must be a whole number from 1 to %d", name, INT_MAX);
    *out = (int)value;
    return 0;
}

static int read_task(enum lance_task *out, const cJSON *request, struct error *error)
{
    const char *name = json_text(request, "task");
    const int task = name ? lance_task_of(name) : -1;
    if (task < 0)
        return error_set(error, ERROR_BAD_REQUEST, "task: must be the name of a task");
    if (!task_has_source((enum lance_task)task))
        return error_set(error, ERROR_BAD_REQUEST, "task: %s takes no source", name);
    *out = (enum lance_task)task;
    return 0;
}

/* `fps`, a finite number, or 0 where it is missing. */
static int read_fps(double *out, const cJSON *request, struct error *error)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(request, "fps");
    *out = cJSON_IsNumber(item) ? item->valuedouble : 0;
    if (item && !(cJSON_IsNumber(item) && *out >= SAMPLING_MIN_CLIP_FPS && *out <= SAMPLING_MAX_CLIP_FPS))
        return error_set(error, ERROR_BAD_REQUEST, "fps: must be a number from %g to %g", SAMPLING_MIN_CLIP_FPS,
                         SAMPLING_MAX_CLIP_FPS);
    return 0;
}

/* What a request asks about. */
struct clip_shape {
    enum lance_task task;
    int frames, height, width; /* the last two 0: not given */
    double fps;                /* 0: not given */
};

static int read_shape(struct clip_shape *out, const cJSON *request, struct error *error)
{
    *out = (struct clip_shape){0};
    int code = read_task(&out->task, request, error);
    if (code == 0)
        code = read_count(&out->frames, request, "frames", error);
    if (code == 0)
        code = read_count(&out->height, request, "height", error);
    if (code == 0)
        code = read_count(&out->width, request, "width", error);
    if (code == 0)
        code = read_fps(&out->fps, request, error);
    if (code != 0)
        return code;
    if (out->frames == 0)
        return error_set(error, ERROR_BAD_REQUEST, "frames: is missing");
    if ((out->height == 0) != (out->width == 0))
        return error_set(error, ERROR_BAD_REQUEST, "%s: is missing; give both height and width or neither",
                         out->height == 0 ? "height" : "width");
    if (task_takes_video(out->task) && out->fps == 0)
        return error_set(error, ERROR_BAD_REQUEST, "fps: is missing; a video needs it");
    return 0;
}

enum { MOST_INDICES = 256 };

/* Which frames; returns how many. */
static int choose(const struct clip_shape *shape, int indices[MOST_INDICES], struct error *error)
{
    const bool is_encoded = shape->task == LANCE_ENCODE;
    if (shape->fps > 0 && (is_encoded || task_takes_video(shape->task)))
        return sampling_frames(shape->frames, shape->fps, indices, MOST_INDICES, error);
    const int most = is_encoded ? most_encoded() : 1;
    const int count = vae_frames(vae_latent_frames(shape->frames < most ? shape->frames : most));
    for (int i = 0; i < count; i++)
        indices[i] = i;
    return count;
}

int sampling_answer(cJSON *answer, const cJSON *request, uint64_t blob_bytes, struct error *error)
{
    struct clip_shape shape;
    int indices[MOST_INDICES];
    int code = read_shape(&shape, request, error);
    const int count = code != 0 ? code : choose(&shape, indices, error);
    if (count < 0)
        return count;
    json_add(answer, "indices", json_from_ints(indices, count));
    json_add_number(answer, "fps", SAMPLING_FPS);
    json_add_number(answer, "max_seconds", SAMPLING_MAX_SECONDS);
    if (shape.height == 0)
        return 0;
    code = sampling_fit(count, &shape.height, &shape.width, sampling_source_bytes(blob_bytes), error);
    json_add_number(answer, "height", shape.height);
    json_add_number(answer, "width", shape.width);
    return code;
}
