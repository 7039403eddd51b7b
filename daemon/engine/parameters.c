/* parameters.c: see parameters.h. */
#include "daemon/engine/parameters.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "daemon/engine/limits.h"
#include "daemon/engine/model/prompt.h"
#include "protocol/clip_sampling.h"

#define FOR(task) (1u << LANCE_##task)

enum {
    EDITS = TASKS_THAT_EDIT,
    FROM_WORDS = TASKS_FROM_WORDS,
    SAMPLES = TASKS_THAT_SAMPLE,
    ANSWERS = TASKS_THAT_ANSWER,
    HAS_SOURCE = TASKS_WITH_SOURCE,
    ENCODES_SOURCE = HAS_SOURCE & ~ANSWERS,
    TAKES_VIDEO = TASKS_THAT_TAKE_VIDEO,
    CHOOSES_LENGTH = FOR(T2V) | FOR(I2V)
};

static const char *const renorms[] = {
    [RENORM_GLOBAL] = "global", [RENORM_CHANNEL] = "channel", [RENORM_NONE] = "none", NULL};
static const char *const noises[] = {[LANCE_NOISE_TORCH_CPU] = "torch_cpu",
                                     [LANCE_NOISE_TORCH_CUDA] = "torch_cuda",
                                     [LANCE_NOISE_COMFYUI] = "comfyui",
                                     [LANCE_NOISE_CLIENT] = "client", NULL};
static const char *const positions[] = {
    [LANCE_UNCOND_OFFICIAL] = "official", [LANCE_UNCOND_CONSISTENT] = "consistent", NULL};

_Static_assert(sizeof(enum guidance_renorm) == sizeof(int) && sizeof(enum lance_noise) == sizeof(int) &&
                   sizeof(enum lance_uncond_positions) == sizeof(int),
               "choices are stored through an int");

/* What every row begins with. */
#define ROW(field, kind_, tasks_)                                                                                      \
    .name = #field, .kind = PARAMETER_##kind_, .offset = offsetof(struct lance_request, field), .tasks = (tasks_)

const struct parameter lance_parameters[] = {
    {ROW(prompt, TEXT, SAMPLES | ANSWERS), .high = PROMPT_MAX_BYTES, .value = {.text = ""}, .is_required = true,
     .help = "what to make; the question for `x2t_image` and `x2t_video`, which may be empty, as for `i2v`"},
    {ROW(negative_prompt, TEXT, SAMPLES), .high = PROMPT_MAX_BYTES, .value = {.text = ""},
     .help = "what guidance leads away from: the unconditional branch has this text in the prompt's place, with the "
             "positions of a prompt of its own, whatever `uncond_positions` says; empty: no text at all, as the "
             "official script (only that has been trained)"},
    {ROW(system_prompt, TEXT, SAMPLES | ANSWERS), .high = PROMPT_MAX_BYTES,
     .help = "the system prompt, instead of the task's official one"},
    {ROW(width, INTEGER, SAMPLES | HAS_SOURCE), .high = LANCE_MAX_SIDE, .multiple = VAE_SPATIAL_STRIDE, .is_open = true,
     .others = {{FROM_WORDS, {.numbers = {LANCE_DEFAULT_SIDE}}}},
     .help = "pixels; with a source instead of its `resolution`; together with `height`"},
    {ROW(height, INTEGER, SAMPLES | HAS_SOURCE), .high = LANCE_MAX_SIDE, .multiple = VAE_SPATIAL_STRIDE,
     .is_open = true,
     .others = {{FROM_WORDS, {.numbers = {LANCE_DEFAULT_SIDE}}}}, .help = "see `width`"},
    {ROW(num_frames, INTEGER, CHOOSES_LENGTH), .low = 1, .high = LANCE_MAX_FRAMES, .value = {.numbers = {1}},
     .others = {{CHOOSES_LENGTH, {.numbers = {49}}}},
     .help = "frames of the video; 4n+1 are made, the next such number below"},
    {ROW(num_inference_steps, INTEGER, SAMPLES), .low = 1, .high = LANCE_MAX_STEPS, .value = {.numbers = {30}},
     .help = "denoising steps"},
    {ROW(guidance_scale, NUMBER, SAMPLES), .low = 0, .high = 100, .value = {.numbers = {4}},
     .help = "how closely the prompt is followed; 1 or less: no guidance, and twice as fast"},
    {ROW(guidance_interval, LIST, SAMPLES), .low = 0, .high = 1, .value = {.numbers = {0.4, 1}},
     .help = "[low, high], low not above high: guidance only where low < t <= high"},
    {ROW(guidance_renorm, CHOICE, SAMPLES), .choices = renorms, .value = {.numbers = {RENORM_GLOBAL}},
     .help = "guidance renormalisation"},
    {ROW(guidance_renorm_min, NUMBER, SAMPLES), .low = 0, .high = 1, .help = "its least factor"},
    {ROW(timestep_shift, NUMBER, SAMPLES), .low = 0.01, .high = 100, .value = {.numbers = {3.5}},
     .help = "timestep shift: higher values spend more steps on the composition, lower ones on detail"},
    {ROW(batch_size, INTEGER, SAMPLES), .low = 1, .high = LANCE_MAX_BATCH, .value = {.numbers = {1}},
     .help = "how many pictures or videos of one prompt"},
    {ROW(noise_source, CHOICE, SAMPLES), .choices = noises, .value = {.numbers = {LANCE_NOISE_TORCH_CPU}},
     .help = "who draws the noise: PyTorch's CPU generator, its CUDA generator as the official script, KSampler's order"
             " of the CPU generator, or the client, with the tensor `noise`"},
    {ROW(uncond_positions, CHOICE, SAMPLES), .choices = positions, .value = {.numbers = {LANCE_UNCOND_OFFICIAL}},
     .help = "positions of the unconditional branch"},
    {ROW(seed, WHOLE, SAMPLES | ANSWERS), .value = {.numbers = {42}},
     .help = "decides what is left to chance; the same seed makes the same bytes; item i of a batch takes seed + i"},
    {ROW(denoise, NUMBER, SAMPLES), .low = 0.0001, .high = 1, .value = {.numbers = {1}}, .is_of_parts = true,
     .help = "strength, from near 0 (keep the latents) to 1 (ignore them): the steps are the last `num_inference_steps`"
             " of a schedule of `num_inference_steps` / `denoise` steps, rounded down, as with KSampler"},
    {ROW(start_step, INTEGER, SAMPLES), .low = 0, .high = LANCE_END_STEP - 1, .is_of_parts = true,
     .help = "the first of the steps that is done"},
    {ROW(end_step, INTEGER, SAMPLES), .low = 1, .high = LANCE_END_STEP, .value = {.numbers = {LANCE_END_STEP}},
     .is_of_parts = true,
     .help = "the first of the steps that is not done any more; past the last: all are"},
    {ROW(add_noise, FLAG, SAMPLES), .value = {.numbers = {true}}, .is_of_parts = true,
     .help = "false: the tensor `latents` has noise already"},
    {ROW(leftover_noise, FLAG, SAMPLES), .is_of_parts = true,
     .help = "true: an early `end_step` leaves the noise of that time; false: the last step goes to time 0"},
    {ROW(resolution, TEXT, HAS_SOURCE), .choices = picture_preset_names, .is_open = true,
     .others = {{FOR(IMAGE_EDIT) | FOR(X2T_IMAGE), {.text = "image_768res"}},
                {FOR(I2V) | TAKES_VIDEO, {.text = "video_480p"}}},
     .help = "how large the source is worked on: a preset of the official script, HEIGHTxWIDTH with sides from 28 to "
             "1152, or HEIGHTxWIDTH/HEIGHTxWIDTH with another size for the ViT; `encode` takes the source as it is "
             "unless it is given"},
    {ROW(source_latent_mean, FLAG, ENCODES_SOURCE), .others = {{FOR(ENCODE), {.numbers = {true}}}},
     .help = "true: the encoder's mean is used, not a sample"},
    {ROW(source_seed, WHOLE, ENCODES_SOURCE), .value = {.numbers = {2025}}, .help = "seed of that sample"},
    {ROW(max_new_tokens, INTEGER, ANSWERS), .low = 1, .high = LANCE_MAX_NEW_TOKENS, .value = {.numbers = {256}},
     .help = "how long the answer may get, in tokens"},
    {ROW(temperature, NUMBER, ANSWERS), .low = 0, .high = 100,
     .help = "0: always the likeliest word, so the same answer each time; higher values vary it"},
    {ROW(top_k, INTEGER, ANSWERS), .low = 0, .high = 1000000,
     .help = "choose among so many likeliest words; 0: among all"},
    {ROW(top_p, NUMBER, ANSWERS), .low = 0, .high = 1, .value = {.numbers = {1}},
     .help = "choose among the likeliest words that have this probability together; 1: among all"},
    {ROW(repetition_penalty, NUMBER, ANSWERS), .low = 0.01, .high = 100, .value = {.numbers = {1}},
     .help = "above 1, words that were said already become less likely"},
    {ROW(decode, FLAG, SAMPLES), .value = {.numbers = {true}}, .help = "false: latents only, no pixels"},
    {.name = "fps", .kind = PARAMETER_NUMBER, .of_source = true, .offset = offsetof(struct lance_media, fps),
     .tasks = TAKES_VIDEO,
     .low = SAMPLING_MIN_CLIP_FPS, .high = SAMPLING_MAX_CLIP_FPS, .is_open = true,
     .help = "frames per second of the source; needed with a video"},
    {.name = NULL},
};

const struct parameter *parameter_find(const struct parameter *table, const char *name)
{
    for (; table->name; table++)
        if (!strcmp(table->name, name))
            return table;
    return NULL;
}

const struct parameter_value *parameter_default(const struct parameter *parameter, enum lance_task task)
{
    for (size_t i = 0; i < sizeof parameter->others / sizeof *parameter->others; i++)
        if (parameter->others[i].tasks & 1u << task)
            return &parameter->others[i].value;
    return &parameter->value;
}

static void set_default(void *field, const struct parameter *parameter, const struct parameter_value *value)
{
    switch (parameter->kind) {
    case PARAMETER_TEXT: *(const char **)field = value->text; break;
    case PARAMETER_INTEGER:
    case PARAMETER_CHOICE: *(int *)field = (int)value->numbers[0]; break;
    case PARAMETER_WHOLE: *(uint64_t *)field = (uint64_t)value->numbers[0]; break;
    case PARAMETER_NUMBER: *(double *)field = value->numbers[0]; break;
    case PARAMETER_FLAG: *(bool *)field = value->numbers[0] != 0; break;
    case PARAMETER_LIST: memcpy(field, value->numbers, sizeof value->numbers); break;
    }
}

void parameters_set_defaults(struct lance_request *r)
{
    static const struct parameter_value none;
    for (const struct parameter *p = lance_parameters; p->name; p++)
        if (!p->of_source)
            set_default((char *)r + p->offset, p, p->is_open ? &none : parameter_default(p, r->task));
}

/* NaN fails every comparison, so the test is written to hold only for good values. */
static int check_number(const struct parameter *p, const char *which, double value, struct error *error)
{
    if (value >= p->low && value <= p->high)
        return 0;
    return error_set(error, ERROR_BAD_REQUEST, "%s%s is %g; accepted are numbers from %g to %g", p->name, which, value,
                     p->low, p->high);
}

static int check_integer(const struct parameter *p, int value, struct error *error)
{
    const bool is_in = value >= p->low && value <= p->high;
    if (is_in && (!p->multiple || value % p->multiple == 0))
        return 0;
    if (p->multiple)
        return error_set(error, ERROR_BAD_REQUEST,
                         "%s is %d; accepted are multiples of %d up to %g, or 0 for the default", p->name, value,
                         p->multiple, p->high);
    return error_set(error, ERROR_BAD_REQUEST, "%s is %d; accepted are integers from %.0f to %.0f", p->name, value,
                     p->low, p->high);
}

static int check_text(const struct parameter *p, const char *text, struct error *error)
{
    if (!text || p->high == 0 || (double)strlen(text) <= p->high)
        return 0;
    return error_set(error, ERROR_TOO_LARGE, "%s has %zu bytes; at most %.0f are accepted", p->name, strlen(text),
                     p->high);
}

static int check_choice(const struct parameter *p, int value, struct error *error)
{
    int count = 0;
    while (p->choices[count])
        count++;
    if (value >= 0 && value < count)
        return 0;
    return error_set(error, ERROR_BAD_REQUEST, "%s is %d; accepted are integers from 0 to %d", p->name, value,
                     count - 1);
}

int parameter_check(const struct parameter *p, const struct lance_request *r, struct error *error)
{
    if (p->of_source || !parameter_is_for(p, r->task))
        return 0;
    const void *field = parameter_field(p, r, NULL);
    const double *list = field;
    switch (p->kind) {
    case PARAMETER_TEXT: return check_text(p, *(const char *const *)field, error);
    case PARAMETER_INTEGER: return check_integer(p, *(const int *)field, error);
    case PARAMETER_CHOICE: return check_choice(p, *(const int *)field, error);
    case PARAMETER_NUMBER: return check_number(p, "", list[0], error);
    case PARAMETER_LIST: {
        int code = check_number(p, "[0]", list[0], error);
        return code ? code : check_number(p, "[1]", list[1], error);
    }
    case PARAMETER_WHOLE:
    case PARAMETER_FLAG: break;
    }
    return 0;
}

/* ---- For digests ---- */

/* Texts of any length are added apart. */
__attribute__((format(printf, 2, 3))) static void add(struct sha256 *sha, const char *format, ...)
{
    char text[64];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    sha256_add(sha, text, strlen(text));
}

static void add_text(struct sha256 *sha, const char *text)
{
    if (!text) {
        add(sha, "-");
        return;
    }
    add(sha, "%zu:", strlen(text));
    sha256_add(sha, text, strlen(text));
}

/* The bits of a double, which every language can write alike. */
static void add_number(struct sha256 *sha, double value)
{
    const double number = value + 0.0; /* one zero only */
    uint64_t bits;
    memcpy(&bits, &number, sizeof bits);
    add(sha, "%016" PRIx64, bits);
}

/* A field that is left open counts as its default; "-" where there is none. */
static void add_open(struct sha256 *sha, const struct parameter *parameter, const void *field, enum lance_task task)
{
    const struct parameter_value *value = parameter_default(parameter, task);
    const char *text = parameter->kind == PARAMETER_TEXT ? *(const char *const *)field : NULL;
    const int number = parameter->kind == PARAMETER_INTEGER ? *(const int *)field : 0;
    if (parameter->kind == PARAMETER_TEXT)
        add_text(sha, text ? text : value->text);
    else if (parameter->kind == PARAMETER_INTEGER && (number != 0 || value->numbers[0] != 0))
        add(sha, "%d", number != 0 ? number : (int)value->numbers[0]);
    else if (parameter->kind == PARAMETER_NUMBER && field && *(const double *)field != 0)
        add_number(sha, *(const double *)field);
    else
        add(sha, "-");
}

static void add_value(struct sha256 *sha, const struct parameter *parameter, const void *field)
{
    const double *numbers = field;
    switch (parameter->kind) {
    case PARAMETER_TEXT: add_text(sha, *(const char *const *)field); break;
    case PARAMETER_INTEGER: add(sha, "%d", *(const int *)field); break;
    case PARAMETER_WHOLE: add(sha, "%" PRIu64, *(const uint64_t *)field); break;
    case PARAMETER_NUMBER: add_number(sha, numbers[0]); break;
    case PARAMETER_FLAG: add(sha, "%s", *(const bool *)field ? "true" : "false"); break;
    case PARAMETER_CHOICE: add(sha, "%s", parameter->choices[*(const int *)field]); break;
    case PARAMETER_LIST:
        add_number(sha, numbers[0]);
        add(sha, ",");
        add_number(sha, numbers[1]);
        break;
    }
}

void parameters_hash(struct sha256 *sha, const struct lance_request *request)
{
    const char *last = "";
    add(sha, "task %s\n", lance_task_name(request->task));
    for (;;) {
        const struct parameter *next = NULL;
        for (const struct parameter *p = lance_parameters; p->name; p++)
            if (parameter_is_for(p, request->task) && strcmp(p->name, last) > 0 &&
                (!next || strcmp(p->name, next->name) < 0))
                next = p;
        if (!next)
            return;
        last = next->name;
        const bool is_there = !next->of_source || request->source;
        const void *field = is_there ? parameter_field(next, request, request->source) : NULL;
        add(sha, "%s ", next->name);
        if (next->is_open)
            add_open(sha, next, field, request->task);
        else
            add_value(sha, next, field);
        add(sha, "\n");
    }
}
