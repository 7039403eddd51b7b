/* request.c: the defaults of a request, and every check that needs no work: each parameter's range (parameters.h), and
 * the rules between several of them, the source and the latents. */
#include "daemon/engine/request.h"
#include "daemon/engine/model/checkpoint/checkpoint.h"
#include "daemon/engine/limits.h"
#include "daemon/engine/parameters.h"

#include <math.h>
#include <string.h>

void lance_request_init(struct lance_request *r, enum lance_task task)
{
    *r = (struct lance_request){.task = task};
    parameters_set_defaults(r);
}

/* Of numbers that are no parameters. */
static int check_integer(const char *name, long long value, long long low, long long high, struct error *error)
{
    if (value >= low && value <= high)
        return 0;
    return error_set(error, ERROR_BAD_REQUEST, "%s is %lld; accepted are integers from %lld to %lld", name, value, low,
                     high);
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
    return error_set(error, ERROR_UNSUPPORTED, "task %s is not offered by model %s; missing: %s",
                     lance_task_name(r->task), info.name, missing);
}

static int check_text(const struct lance_request *r, struct error *error)
{
    const bool needs_text = r->task == LANCE_T2I || r->task == LANCE_T2V || task_edits(r->task);
    if (!r->prompt || (needs_text && !*r->prompt))
        return error_set(error, ERROR_BAD_REQUEST, "prompt is empty; task %s needs one", lance_task_name(r->task));
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

static int check_fps(double fps, struct error *error)
{
    const struct parameter *p = parameter_find(lance_parameters, "fps");
    if (fps >= p->low && fps <= p->high)
        return 0;
    return error_set(error, ERROR_BAD_REQUEST, "fps of the source is %g; accepted are numbers from %g to %g", fps,
                     p->low, p->high);
}

static int check_source(const struct lance_request *r, struct error *error)
{
    const struct lance_media *s = r->source;
    if (!task_has_source(r->task)) {
        if (s)
            return error_set(error, ERROR_BAD_REQUEST, "source is given, but task %s takes none",
                             lance_task_name(r->task));
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
        return check_fps(s->fps, error);
    return r->task == LANCE_ENCODE ? check_encoded(r, error) : 0;
}

/* Latents of the client, as far as their shape goes without the job's own. */
static int check_latents(const struct lance_request *r, struct error *error)
{
    const struct lance_latents *l = r->latents;
    const bool takes = task_samples(r->task) || r->task == LANCE_DECODE;
    if ((l || r->latent_state || r->latent_mask) && !takes)
        return error_set(error, ERROR_BAD_REQUEST, "latents are given, but task %s takes none",
                         lance_task_name(r->task));
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

/* Which steps of the schedule. */
static int check_steps(const struct lance_request *r, struct error *error)
{
    const int last = r->end_step < r->num_inference_steps ? r->end_step : r->num_inference_steps;
    if (r->start_step >= 0 && r->start_step < last)
        return 0;
    return error_set(error, ERROR_BAD_REQUEST,
                     "start_step is %d and end_step is %d of num_inference_steps %d; accepted is a "
                     "start_step from 0 to %d",
                     r->start_step, r->end_step, r->num_inference_steps, last - 1);
}

/* What several parameters of a task that denoises have to say together. An interval whose ends are the same is no
 * guidance. */
static int check_sampling(const struct lance_request *r, struct error *error)
{
    const double low = r->guidance_interval[0], high = r->guidance_interval[1];
    if (low > high)
        return error_set(error, ERROR_BAD_REQUEST,
                         "guidance_interval is [%g, %g]; accepted is [low, high] with low not above high", low, high);
    if (r->noise_source == LANCE_NOISE_CLIENT && !r->noise)
        return error_set(error, ERROR_BAD_REQUEST, "noise is missing; noise_source \"client\" needs it");
    return check_steps(r, error);
}

static int check_size(const struct lance_request *r, struct error *error)
{
    if ((r->width == 0) != (r->height == 0))
        return error_set(error, ERROR_BAD_REQUEST, "width is %d and height is %d; give both or neither", r->width,
                         r->height);
    struct picture_size size;
    if (task_has_source(r->task) && r->width == 0 && r->resolution)
        return picture_bucket(r->resolution, PICTURE_FOR_VAE, r->source->height, r->source->width, &size, error);
    return 0;
}

int request_check(const struct lance_model *model, const struct lance_request *r, struct error *error)
{
    int code;
    if ((code = check_task(model, r, error)) || (code = check_text(r, error)) || (code = check_source(r, error)) ||
        (code = check_latents(r, error)))
        return code;
    for (const struct parameter *p = lance_parameters; p->name; p++)
        if ((code = parameter_check(p, r, error)))
            return code;
    if ((code = check_size(r, error)))
        return code;
    if (r->task == LANCE_ENCODE)
        return check_integer("batch_size", r->batch_size, 1, 1, error);
    return task_samples(r->task) ? check_sampling(r, error) : 0;
}
