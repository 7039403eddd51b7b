/* request.c: the defaults of a request, and every check that needs no work. */
#include "daemon/engine/internal.h"

#include <math.h>
#include <string.h>

void lance_request_init(struct lance_request *r, enum lance_task task)
{
    *r = (struct lance_request){
        .task = task,
        .prompt = "",
        .negative_prompt = "",
        .num_frames = task == LANCE_T2V || task == LANCE_I2V ? 49 : 1,
        .num_inference_steps = 30,
        .guidance_scale = 4.0,
        .guidance_interval = {0.4, 1.0},
        .guidance_renorm = RENORM_GLOBAL,
        .timestep_shift = 3.5,
        .seed = 42,
        .batch_size = 1,
        .noise_source = LANCE_NOISE_TORCH_CPU,
        .uncond_positions = LANCE_UNCOND_OFFICIAL,
        .denoise = 1.0,
        .end_step = LANCE_END_STEP,
        .add_noise = true,
        .source_latent_mean = task == LANCE_ENCODE,
        .source_seed = 2025,
        .max_new_tokens = 256,
        .top_p = 1.0,
        .repetition_penalty = 1.0,
        .decode = true,
    };
}

/* NaN fails every comparison, so the test is written to hold only for good values. */
static int check_number(const char *name, double value, double low, double high, struct error *error)
{
    if (value >= low && value <= high)
        return 0;
    return error_set(error, ERROR_BAD_REQUEST, "%s is %g; accepted are numbers from %g to %g", name, value, low, high);
}

static int check_integer(const char *name, long long value, long long low, long long high, struct error *error)
{
    if (value >= low && value <= high)
        return 0;
    return error_set(error, ERROR_BAD_REQUEST, "%s is %lld; accepted are integers from %lld to %lld", name, value, low, high);
}

static int check_side(const char *name, int value, struct error *error)
{
    if (value == 0 || (value > 0 && value <= LANCE_MAX_SIDE && value % VAE_SPATIAL_STRIDE == 0))
        return 0;
    return error_set(error, ERROR_BAD_REQUEST, "%s is %d; accepted are multiples of %d up to %d, or 0 for the default", name,
                     value, VAE_SPATIAL_STRIDE, LANCE_MAX_SIDE);
}

static int check_task(const struct lance_model *model, const struct lance_request *r, struct error *error)
{
    if ((int)r->task < 0 || r->task >= LANCE_TASK_COUNT)
        return error_set(error, ERROR_BAD_REQUEST, "task is %d, which is no task", (int)r->task);
    struct lance_model_info info;
    lance_model_info(model, &info);
    if (info.tasks & 1u << r->task)
        return 0;
    const char *missing = task_answers(r->task) || model->latent_tokens
                              ? "ViT (Qwen2.5-VL-ViT beside the model, or vit_model.* in it)"
                              : checkpoint_lacks_for_generation(model->checkpoint);
    return error_set(error, ERROR_UNSUPPORTED, "task %s is not offered by model %s; missing: %s", lance_task_name(r->task),
                     info.name, missing);
}

static int check_text(const struct lance_request *r, struct error *error)
{
    const bool needs_text = r->task == LANCE_T2I || r->task == LANCE_T2V || task_edits(r->task);
    if (!r->prompt || (needs_text && !*r->prompt))
        return error_set(error, ERROR_BAD_REQUEST, "prompt is empty; task %s needs one", lance_task_name(r->task));
    const struct { const char *name, *text; } texts[] = {
        {"prompt", r->prompt}, {"negative_prompt", r->negative_prompt}, {"system_prompt", r->system_prompt}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (texts[i].text && strlen(texts[i].text) > PROMPT_MAX_BYTES)
            return error_set(error, ERROR_TOO_LARGE, "%s has %zu bytes; at most %d are accepted", texts[i].name,
                             strlen(texts[i].text), PROMPT_MAX_BYTES);
    return 0;
}

/* What is encoded as it is. */
static int check_encoded(const struct lance_request *r, struct error *error)
{
    const struct lance_media *s = r->source;
    int code;
    if ((code = check_integer("source frames", s->frames, 1, LANCE_MAX_FRAMES, error)) || r->width > 0 || r->resolution)
        return code;
    if ((code = check_integer("source height", s->height, VAE_SPATIAL_STRIDE, LANCE_MAX_PREPARED_SIDE, error)))
        return code;
    return check_integer("source width", s->width, VAE_SPATIAL_STRIDE, LANCE_MAX_PREPARED_SIDE, error);
}

static int check_source(const struct lance_request *r, struct error *error)
{
    const struct lance_media *s = r->source;
    if (!task_has_source(r->task)) {
        if (s)
            return error_set(error, ERROR_BAD_REQUEST, "source is given, but task %s takes none", lance_task_name(r->task));
        return 0;
    }
    if (!s || !s->pixels)
        return error_set(error, ERROR_BAD_REQUEST, "source is missing; task %s needs a %s", lance_task_name(r->task),
                         r->task == LANCE_ENCODE       ? "picture or a video"
                         : task_takes_video(r->task) ? "video"
                                                     : "picture");
    if (!task_takes_video(r->task) && r->task != LANCE_ENCODE && s->frames > 1)
        return error_set(error, ERROR_BAD_REQUEST, "source has %d frames; task %s takes one picture", s->frames,
                         lance_task_name(r->task));
    int code;
    if ((code = check_integer("source frames", s->frames, 1, LANCE_MAX_SOURCE_FRAMES, error)) ||
        (code = check_integer("source height", s->height, 1, LANCE_MAX_SOURCE_SIDE, error)) ||
        (code = check_integer("source width", s->width, 1, LANCE_MAX_SOURCE_SIDE, error)))
        return code;
    if (task_takes_video(r->task))
        return check_number("fps of the source", s->fps, PICTURE_MIN_FPS, PICTURE_MAX_FPS, error);
    return r->task == LANCE_ENCODE ? check_encoded(r, error) : 0;
}

/* Latents of the client, as far as their shape goes without the job's own. */
static int check_latents(const struct lance_request *r, struct error *error)
{
    const struct lance_latents *l = r->latents;
    const bool takes = task_samples(r->task) || r->task == LANCE_DECODE;
    if ((l || r->latent_state || r->latent_mask) && !takes)
        return error_set(error, ERROR_BAD_REQUEST, "latents are given, but task %s takes none", lance_task_name(r->task));
    if (r->task == LANCE_DECODE && (r->latent_state || r->latent_mask))
        return error_set(error, ERROR_BAD_REQUEST, "latent_%s is given, but task decode takes only latents",
                         r->latent_state ? "state" : "mask");
    if (!l && r->task == LANCE_DECODE)
        return error_set(error, ERROR_BAD_REQUEST, "latents are missing; task decode needs them");
    if (!l && (r->latent_state || r->latent_mask || (takes && !r->add_noise)))
        return error_set(error, ERROR_BAD_REQUEST, "latents are missing; %s needs them",
                         r->latent_state ? "latent_state" : r->latent_mask ? "latent_mask" : "add_noise false");
    int code;
    if (!l || (code = check_integer("batch of the latents", l->batch, 1, LANCE_MAX_BATCH, error)))
        return l ? code : 0;
    if ((code = check_integer("latent frames", l->frames, 1, LATENT_MAX_FRAMES, error)) ||
        (code = check_integer("latent rows", l->height, 1, LANCE_MAX_PREPARED_SIDE / VAE_SPATIAL_STRIDE, error)) ||
        (code = check_integer("latent columns", l->width, 1, LANCE_MAX_PREPARED_SIDE / VAE_SPATIAL_STRIDE, error)))
        return code;
    return 0;
}

/* Where guidance applies; an empty interval, with both the same, is none at all. */
static int check_interval(const double interval[2], struct error *error)
{
    int code;
    if ((code = check_number("guidance_interval[0]", interval[0], 0, 1, error)) ||
        (code = check_number("guidance_interval[1]", interval[1], 0, 1, error)) || interval[0] <= interval[1])
        return code;
    return error_set(error, ERROR_BAD_REQUEST, "guidance_interval is [%g, %g]; accepted is [low, high] with low not above high",
                     interval[0], interval[1]);
}

/* Which steps of the schedule. */
static int check_steps(const struct lance_request *r, struct error *error)
{
    const int last = r->end_step < r->num_inference_steps ? r->end_step : r->num_inference_steps;
    int code;
    if ((code = check_number("denoise", r->denoise, 0.0001, 1, error)) ||
        (code = check_integer("end_step", r->end_step, 1, LANCE_END_STEP, error)))
        return code;
    if (r->start_step >= 0 && r->start_step < last)
        return 0;
    return error_set(error, ERROR_BAD_REQUEST, "start_step is %d and end_step is %d of num_inference_steps %d; accepted is a "
                     "start_step from 0 to %d", r->start_step, r->end_step, r->num_inference_steps, last - 1);
}

static int check_generation(const struct lance_request *r, struct error *error)
{
    int code;
    if ((code = check_integer("num_frames", r->num_frames, 1, LANCE_MAX_FRAMES, error)) ||
        (code = check_integer("num_inference_steps", r->num_inference_steps, 1, LANCE_MAX_STEPS, error)) ||
        (code = check_number("guidance_scale", r->guidance_scale, 0, 100, error)) ||
        (code = check_interval(r->guidance_interval, error)) ||
        (code = check_integer("guidance_renorm", r->guidance_renorm, RENORM_GLOBAL, RENORM_NONE, error)) ||
        (code = check_number("guidance_renorm_min", r->guidance_renorm_min, 0, 1, error)) ||
        (code = check_number("timestep_shift", r->timestep_shift, 0.01, 100, error)) ||
        (code = check_integer("batch_size", r->batch_size, 1, LANCE_MAX_BATCH, error)) ||
        (code = check_integer("noise_source", r->noise_source, LANCE_NOISE_TORCH_CPU, LANCE_NOISE_CLIENT, error)) ||
        (code = check_integer("uncond_positions", r->uncond_positions, LANCE_UNCOND_OFFICIAL, LANCE_UNCOND_CONSISTENT,
                              error)))
        return code;
    if (r->noise_source == LANCE_NOISE_CLIENT && !r->noise)
        return error_set(error, ERROR_BAD_REQUEST, "noise is missing; noise_source \"client\" needs it");
    return check_steps(r, error);
}

static int check_answer(const struct lance_request *r, struct error *error)
{
    int code;
    if ((code = check_integer("max_new_tokens", r->max_new_tokens, 1, LANCE_MAX_NEW_TOKENS, error)) ||
        (code = check_number("temperature", r->temperature, 0, 100, error)) ||
        (code = check_integer("top_k", r->top_k, 0, 1000000, error)) || (code = check_number("top_p", r->top_p, 0, 1, error)))
        return code;
    return check_number("repetition_penalty", r->repetition_penalty, 0.01, 100, error);
}

int request_check(const struct lance_model *model, const struct lance_request *r, struct error *error)
{
    int code;
    if ((code = check_task(model, r, error)) || (code = check_text(r, error)) || (code = check_source(r, error)) ||
        (code = check_latents(r, error)) || (code = check_side("width", r->width, error)) ||
        (code = check_side("height", r->height, error)))
        return code;
    if ((r->width == 0) != (r->height == 0))
        return error_set(error, ERROR_BAD_REQUEST, "width is %d and height is %d; give both or neither", r->width, r->height);
    if (task_has_source(r->task) && r->width == 0 && r->resolution) {
        struct picture_size size;
        if ((code = picture_bucket(r->resolution, PICTURE_FOR_VAE, r->source->height, r->source->width, &size, error)))
            return code;
    }
    if (task_answers(r->task))
        return check_answer(r, error);
    return task_samples(r->task) ? check_generation(r, error)
                                 : check_integer("batch_size", r->batch_size, 1, r->task == LANCE_ENCODE ? 1 : LANCE_MAX_BATCH, error);
}
