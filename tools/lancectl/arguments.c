/* arguments.c: see arguments.h. */
#include "tools/lancectl/arguments.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/command_line.h"
#include "base/utf8.h"
#include "protocol/endpoint.h"
#include "protocol/message.h"
#include "tools/lancectl/output.h"
#include "tools/media/frame_rate.h"

#define ON(command) (1u << COMMAND_##command)

/* Commands that options belong to. */
enum {
    ONE_PICTURE = ON(T2I) | ON(EDIT),
    ONE_VIDEO = ON(T2V) | ON(I2V) | ON(VIDEO_EDIT),
    ANSWERS = ON(ASK) | ON(RUN),
    GENERATES = ONE_PICTURE | ONE_VIDEO | ON(RUN),
    STARTS_FROM = ON(I2V) | ON(EDIT) | ON(VIDEO_EDIT) | ON(ASK) | ON(RUN),
    TASKS = GENERATES | ON(ASK),
    MAKES = TASKS | ON(ENCODE) | ON(DECODE),
    ASKS_DAEMON = MAKES | ON(FETCH) | ON(CANCEL) | ON(STATUS) | ON(JOBS) | ON(MODELS) | ON(LOAD) | ON(UNLOAD) | ON(SHUTDOWN)
};

static const struct {
    const char *name;
    const char *source;  /* the file that a task starts from, or NULL */
    const char *operand; /* what else the command needs beside options, or NULL */
    bool operand_is_optional;
} commands[COMMAND_COUNT] = {
    [COMMAND_T2I] = {"t2i", NULL, "a prompt", false},
    [COMMAND_T2V] = {"t2v", NULL, "a prompt", false},
    [COMMAND_I2V] = {"i2v", "a picture", "a prompt", true},
    [COMMAND_EDIT] = {"edit", "a picture", "a prompt", false},
    [COMMAND_VIDEO_EDIT] = {"video-edit", "a video", "a prompt", false},
    [COMMAND_ASK] = {"ask", "a picture or video", "a question", true},
    [COMMAND_ENCODE] = {"encode", "a picture or video", NULL, false},
    [COMMAND_DECODE] = {"decode", "a file of latents", NULL, false},
    [COMMAND_RUN] = {"run", NULL, NULL, false},
    [COMMAND_FETCH] = {"fetch", NULL, "a job id", false},
    [COMMAND_CANCEL] = {"cancel", NULL, "a job id", false},
    [COMMAND_STATUS] = {"status", NULL, NULL, false},
    [COMMAND_JOBS] = {"jobs", NULL, NULL, false},
    [COMMAND_MODELS] = {"models", NULL, NULL, false},
    [COMMAND_LOAD] = {"load", NULL, "a model's name", false},
    [COMMAND_UNLOAD] = {"unload", NULL, NULL, false},
    [COMMAND_SHUTDOWN] = {"shutdown", NULL, NULL, false},
    [COMMAND_SHOW] = {"show", NULL, "a PNG or video file", false},
    [COMMAND_HELP] = {"help", NULL, NULL, false},
    [COMMAND_VERSION] = {"version", NULL, NULL, false},
};

enum option_id {
    OPTION_ENDPOINT = 1, OPTION_SILENCE, OPTION_WAIT, OPTION_MODEL, OPTION_PRECISION, OPTION_JSON, OPTION_QUIET, OPTION_OUTPUT, OPTION_PREVIEW, OPTION_JOB,
    OPTION_SEED,
    OPTION_STEPS, OPTION_GUIDANCE, OPTION_SHIFT, OPTION_INTERVAL, OPTION_RENORM, OPTION_RENORM_MIN, OPTION_NOISE,
    OPTION_POSITIONS, OPTION_SIZE, OPTION_COUNT, OPTION_FRAMES, OPTION_RESOLUTION, OPTION_FPS, OPTION_UPRIGHT, OPTION_LATENT_MEAN,
    OPTION_SOURCE_SEED, OPTION_NEGATIVE, OPTION_SYSTEM, OPTION_MAX_TOKENS, OPTION_TEMPERATURE, OPTION_TOP_K, OPTION_TOP_P,
    OPTION_REPETITION_PENALTY, OPTION_INIT_LATENT, OPTION_DENOISE, OPTION_START_STEP, OPTION_END_STEP, OPTION_LEFTOVER_NOISE,
    OPTION_NO_NOISE, OPTION_EXAMPLES, OPTION_TASK, OPTION_ROOT, OPTION_CANCEL, OPTION_HELP, OPTION_VERSION,
    OPTION_END
};

static const struct option long_options[] = {
    {"endpoint", required_argument, NULL, OPTION_ENDPOINT},
    {"silence", required_argument, NULL, OPTION_SILENCE},
    {"wait", no_argument, NULL, OPTION_WAIT},
    {"model", required_argument, NULL, OPTION_MODEL},
    {"precision", required_argument, NULL, OPTION_PRECISION},
    {"json", no_argument, NULL, OPTION_JSON},
    {"quiet", no_argument, NULL, OPTION_QUIET},
    {"output", required_argument, NULL, OPTION_OUTPUT},
    {"preview", required_argument, NULL, OPTION_PREVIEW},
    {"job", required_argument, NULL, OPTION_JOB},
    {"seed", required_argument, NULL, OPTION_SEED},
    {"steps", required_argument, NULL, OPTION_STEPS},
    {"guidance", required_argument, NULL, OPTION_GUIDANCE},
    {"shift", required_argument, NULL, OPTION_SHIFT},
    {"interval", required_argument, NULL, OPTION_INTERVAL},
    {"renorm", required_argument, NULL, OPTION_RENORM},
    {"renorm-min", required_argument, NULL, OPTION_RENORM_MIN},
    {"noise", required_argument, NULL, OPTION_NOISE},
    {"positions", required_argument, NULL, OPTION_POSITIONS},
    {"size", required_argument, NULL, OPTION_SIZE},
    {"count", required_argument, NULL, OPTION_COUNT},
    {"frames", required_argument, NULL, OPTION_FRAMES},
    {"resolution", required_argument, NULL, OPTION_RESOLUTION},
    {"fps", required_argument, NULL, OPTION_FPS},
    {"upright", no_argument, NULL, OPTION_UPRIGHT},
    {"latent-mean", no_argument, NULL, OPTION_LATENT_MEAN},
    {"source-seed", required_argument, NULL, OPTION_SOURCE_SEED},
    {"negative", required_argument, NULL, OPTION_NEGATIVE},
    {"system", required_argument, NULL, OPTION_SYSTEM},
    {"max-tokens", required_argument, NULL, OPTION_MAX_TOKENS},
    {"temperature", required_argument, NULL, OPTION_TEMPERATURE},
    {"top-k", required_argument, NULL, OPTION_TOP_K},
    {"top-p", required_argument, NULL, OPTION_TOP_P},
    {"repetition-penalty", required_argument, NULL, OPTION_REPETITION_PENALTY},
    {"init-latent", required_argument, NULL, OPTION_INIT_LATENT},
    {"denoise", required_argument, NULL, OPTION_DENOISE},
    {"start-step", required_argument, NULL, OPTION_START_STEP},
    {"end-step", required_argument, NULL, OPTION_END_STEP},
    {"leftover-noise", no_argument, NULL, OPTION_LEFTOVER_NOISE},
    {"no-noise", no_argument, NULL, OPTION_NO_NOISE},
    {"examples", required_argument, NULL, OPTION_EXAMPLES},
    {"task", required_argument, NULL, OPTION_TASK},
    {"root", required_argument, NULL, OPTION_ROOT},
    {"cancel", no_argument, NULL, OPTION_CANCEL},
    {"help", no_argument, NULL, OPTION_HELP},
    {"version", no_argument, NULL, OPTION_VERSION},
    {NULL, 0, NULL, 0},
};

static const unsigned option_commands[OPTION_END] = {
    [OPTION_ENDPOINT] = ASKS_DAEMON,
    [OPTION_SILENCE] = ASKS_DAEMON,
    [OPTION_WAIT] = MAKES,
    [OPTION_MODEL] = MAKES,
    [OPTION_PRECISION] = MAKES,
    [OPTION_JSON] = ASKS_DAEMON | ON(SHOW),
    [OPTION_QUIET] = ASKS_DAEMON,
    [OPTION_OUTPUT] = GENERATES | ON(ENCODE) | ON(DECODE) | ON(FETCH),
    [OPTION_PREVIEW] = ONE_PICTURE | ONE_VIDEO,
    [OPTION_JOB] = ONE_PICTURE | ONE_VIDEO | ON(ASK) | ON(ENCODE) | ON(DECODE),
    [OPTION_SEED] = TASKS,
    [OPTION_STEPS] = GENERATES,
    [OPTION_GUIDANCE] = GENERATES,
    [OPTION_SHIFT] = GENERATES,
    [OPTION_INTERVAL] = GENERATES,
    [OPTION_RENORM] = GENERATES,
    [OPTION_RENORM_MIN] = GENERATES,
    [OPTION_NOISE] = GENERATES,
    [OPTION_POSITIONS] = GENERATES,
    [OPTION_SIZE] = TASKS | ON(ENCODE),
    [OPTION_COUNT] = ONE_PICTURE | ONE_VIDEO,
    [OPTION_FRAMES] = ON(T2V) | ON(I2V) | ON(RUN),
    [OPTION_RESOLUTION] = STARTS_FROM | ON(ENCODE),
    [OPTION_FPS] = ON(VIDEO_EDIT) | ON(ASK) | ON(RUN) | ON(ENCODE),
    [OPTION_UPRIGHT] = STARTS_FROM | ON(ENCODE),
    [OPTION_LATENT_MEAN] = STARTS_FROM & GENERATES,
    [OPTION_SOURCE_SEED] = STARTS_FROM & GENERATES,
    [OPTION_NEGATIVE] = GENERATES,
    [OPTION_SYSTEM] = TASKS,
    [OPTION_MAX_TOKENS] = ANSWERS,
    [OPTION_TEMPERATURE] = ANSWERS,
    [OPTION_TOP_K] = ANSWERS,
    [OPTION_TOP_P] = ANSWERS,
    [OPTION_REPETITION_PENALTY] = ANSWERS,
    [OPTION_INIT_LATENT] = ONE_PICTURE | ONE_VIDEO,
    [OPTION_DENOISE] = ONE_PICTURE | ONE_VIDEO,
    [OPTION_START_STEP] = ONE_PICTURE | ONE_VIDEO,
    [OPTION_END_STEP] = ONE_PICTURE | ONE_VIDEO,
    [OPTION_LEFTOVER_NOISE] = ONE_PICTURE | ONE_VIDEO,
    [OPTION_NO_NOISE] = ONE_PICTURE | ONE_VIDEO,
    [OPTION_EXAMPLES] = ON(RUN),
    [OPTION_TASK] = ON(RUN),
    [OPTION_ROOT] = ON(RUN),
    [OPTION_CANCEL] = ON(SHUTDOWN),
    [OPTION_HELP] = ~0u,
    [OPTION_VERSION] = ~0u,
};

/* Read one finite number; *end is what follows it. Returns whether there is one. */
static bool read_number(const char *text, double *value, const char **end)
{
    char *after;
    if (!isdigit((unsigned char)*text) && !strchr("+-.", *text))
        return false;
    *value = strtod(text, &after);
    *end = after;
    return after != text && isfinite(*value);
}

static int parse_number(struct optional_number *out, const char *name, const char *text, struct error *error)
{
    const char *end;
    if (!read_number(text, &out->value, &end) || *end)
        return error_set(error, ERROR_BAD_REQUEST, "--%s: \"%s\" is not a number", name, text);
    out->given = true;
    return 0;
}

static int parse_whole(struct optional_number *out, const char *name, const char *text, struct error *error)
{
    const char *end;
    if (!read_number(text, &out->value, &end) || *end || out->value != floor(out->value) || fabs(out->value) > 1e9)
        return error_set(error, ERROR_BAD_REQUEST, "--%s: \"%s\" is not a whole number", name, text);
    out->given = true;
    return 0;
}

static int parse_seed(uint64_t *seed, bool *is_given, const char *name, const char *text, struct error *error)
{
    char *end;
    errno = 0;
    *seed = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)*text) || *end || errno)
        return error_set(error, ERROR_BAD_REQUEST, "--%s: \"%s\" is not a whole number from 0 to 18446744073709551615", name,
                         text);
    *is_given = true;
    return 0;
}

/* Two numbers with a separator between them. */
static bool read_pair(const char *text, char separator, struct optional_number *first, struct optional_number *second)
{
    const char *end;
    if (!read_number(text, &first->value, &end) || *end != separator || !read_number(end + 1, &second->value, &end) || *end)
        return false;
    first->given = second->given = true;
    return true;
}

static int parse_size(struct arguments *out, const char *text, struct error *error)
{
    if (!read_pair(text, 'x', &out->width, &out->height) || out->width.value != floor(out->width.value) ||
        out->height.value != floor(out->height.value) || fabs(out->width.value) > 1e9 || fabs(out->height.value) > 1e9)
        return error_set(error, ERROR_BAD_REQUEST, "--size: \"%s\" is not WIDTHxHEIGHT, such as 768x768", text);
    return 0;
}

static int parse_interval(struct arguments *out, const char *text, struct error *error)
{
    if (!read_pair(text, ',', &out->interval_low, &out->interval_high))
        return error_set(error, ERROR_BAD_REQUEST, "--interval: \"%s\" is not LOW,HIGH, such as 0.4,1", text);
    return 0;
}

/* One of a few words. */
static int parse_word(const char **out, const char *name, const char *text, const char *const *words,
                      const char *listed, struct error *error)
{
    for (; *words; words++)
        if (!strcmp(*words, text)) {
            *out = text;
            return 0;
        }
    return error_set(error, ERROR_BAD_REQUEST, "--%s: \"%s\" is none of %s", name, text, listed);
}

static int parse_preview(struct arguments *out, const char *text, struct error *error)
{
    if (output_kind_of(text) != OUTPUT_PNG)
        return error_set(error, ERROR_BAD_REQUEST, "--preview: \"%s\" does not end in .png", text);
    out->preview = text;
    return 0;
}

static int parse_fps(struct arguments *out, const char *text, struct error *error)
{
    if (!frame_rate_parse(text, '/', &out->fps.value) || !frame_rate_is_accepted(out->fps.value))
        return error_set(error, ERROR_BAD_REQUEST, "--fps: \"%s\" is not from %g to %g frames per second, as a number or a fraction "
                         "such as 24000/1001", text, FRAME_RATE_MIN, FRAME_RATE_MAX);
    out->fps.given = true;
    return 0;
}

static int parse_silence(struct arguments *out, const char *text, struct error *error)
{
    int code = parse_whole(&out->silence, "silence", text, error);
    if (!code && !(out->silence.value >= 1 && out->silence.value <= 86400))
        code = error_set(error, ERROR_BAD_REQUEST, "--silence: \"%s\" is not from 1 to 86400 seconds", text);
    return code;
}

static int parse_option(struct arguments *out, enum option_id id, const char *value, struct error *error)
{
    static const char *const renorms[] = {"global", "channel", "none", NULL};
    static const char *const noises[] = {"torch_cpu", "torch_cuda", "comfyui", NULL};
    static const char *const positions[] = {"official", "consistent", NULL};
    static const char *const precisions[] = {"float32", "bf16", "auto", NULL};
    static const char *const tasks[] = {"t2i", "t2v", "i2v", "image_edit", "video_edit", "x2t_image", "x2t_video", NULL};
    switch (id) {
    case OPTION_ENDPOINT: out->endpoint = value; return 0;
    case OPTION_WAIT: out->waits = true; return 0;
    case OPTION_SILENCE: return parse_silence(out, value, error);
    case OPTION_MODEL:
        out->model_dir = value;
        return access(value, F_OK) ? error_set(error, ERROR_BAD_REQUEST, "--model %s: %s", value, strerror(errno)) : 0;
    case OPTION_PRECISION: return parse_word(&out->precision, "precision", value, precisions, "float32, bf16, auto", error);
    case OPTION_JSON: out->json = true; return 0;
    case OPTION_QUIET: out->quiet = true; return 0;
    case OPTION_OUTPUT: out->output = value; return 0;
    case OPTION_PREVIEW: return parse_preview(out, value, error);
    case OPTION_SEED: return parse_seed(&out->seed, &out->seed_given, "seed", value, error);
    case OPTION_STEPS: return parse_whole(&out->steps, "steps", value, error);
    case OPTION_GUIDANCE: return parse_number(&out->guidance, "guidance", value, error);
    case OPTION_SHIFT: return parse_number(&out->shift, "shift", value, error);
    case OPTION_INTERVAL: return parse_interval(out, value, error);
    case OPTION_RENORM: return parse_word(&out->renorm, "renorm", value, renorms, "global, channel, none", error);
    case OPTION_NOISE: return parse_word(&out->noise, "noise", value, noises, "torch_cpu, torch_cuda, comfyui", error);
    case OPTION_RENORM_MIN: return parse_number(&out->renorm_min, "renorm-min", value, error);
    case OPTION_POSITIONS: return parse_word(&out->positions, "positions", value, positions, "official, consistent", error);
    case OPTION_SIZE: return parse_size(out, value, error);
    case OPTION_COUNT: return parse_whole(&out->count, "count", value, error);
    case OPTION_FRAMES: return parse_whole(&out->frames, "frames", value, error);
    case OPTION_RESOLUTION: out->resolution = value; return 0;
    case OPTION_FPS: return parse_fps(out, value, error);
    case OPTION_UPRIGHT: out->upright = true; return 0;
    case OPTION_LATENT_MEAN: out->latent_mean = true; return 0;
    case OPTION_SOURCE_SEED: return parse_seed(&out->source_seed, &out->source_seed_given, "source-seed", value, error);
    case OPTION_NEGATIVE: out->negative = value; return 0;
    case OPTION_SYSTEM: out->system = value; return 0;
    case OPTION_MAX_TOKENS: return parse_whole(&out->max_tokens, "max-tokens", value, error);
    case OPTION_TEMPERATURE: return parse_number(&out->temperature, "temperature", value, error);
    case OPTION_TOP_K: return parse_whole(&out->top_k, "top-k", value, error);
    case OPTION_TOP_P: return parse_number(&out->top_p, "top-p", value, error);
    case OPTION_REPETITION_PENALTY: return parse_number(&out->repetition_penalty, "repetition-penalty", value, error);
    case OPTION_INIT_LATENT: out->init_latent = value; return 0;
    case OPTION_DENOISE: return parse_number(&out->denoise, "denoise", value, error);
    case OPTION_START_STEP: return parse_whole(&out->start_step, "start-step", value, error);
    case OPTION_END_STEP: return parse_whole(&out->end_step, "end-step", value, error);
    case OPTION_LEFTOVER_NOISE: out->leftover_noise = true; return 0;
    case OPTION_NO_NOISE: out->no_noise = true; return 0;
    case OPTION_EXAMPLES: out->examples = value; return 0;
    case OPTION_TASK:
        return parse_word(&out->task, "task", value, tasks,
                          "t2i, t2v, i2v, image_edit, video_edit, x2t_image, x2t_video", error);
    case OPTION_ROOT: out->root = value; return 0;
    case OPTION_CANCEL: out->cancel_jobs = true; return 0;
    case OPTION_JOB:
        if (!job_id_is_valid(value))
            return error_set(error, ERROR_BAD_REQUEST, "--job: \"%s\" is not 1 to 64 letters, digits, dots, dashes or underscores",
                             value);
        out->job = value;
        return 0;
    default: return 0;
    }
}

/* The name under which the user knows an option. */
static const char *option_name(enum option_id id)
{
    for (const struct option *option = long_options; option->name; option++)
        if (option->val == (int)id)
            return option->name;
    return "?";
}

bool arguments_option_is_for(const char *name, enum command command)
{
    for (const struct option *option = long_options; option->name; option++)
        if (!strcmp(option->name, name))
            return option_commands[option->val] & (1u << command);
    return false;
}

static int parse_command(enum command *out, const char *name, struct error *error)
{
    for (int i = 0; i < COMMAND_COUNT; i++)
        if (!strcmp(commands[i].name, name)) {
            *out = (enum command)i;
            return 0;
        }
    return error_set(error, ERROR_BAD_REQUEST, "there is no command \"%s\"; lancectl help lists them", name);
}

static int check_output(const struct arguments *out, struct error *error)
{
    const char *name = commands[out->command].name;
    unsigned command = 1u << out->command;
    enum output_kind kind = out->output ? output_kind_of(out->output) : OUTPUT_UNKNOWN;
    if (out->command == COMMAND_RUN)
        return out->output ? 0 : error_set(error, ERROR_BAD_REQUEST, "run needs -o FOLDER");
    if (out->command == COMMAND_ENCODE && kind != OUTPUT_LATENT)
        return out->output ? error_set(error, ERROR_BAD_REQUEST, "-o: \"%s\" does not end in .latent, the format for latents", out->output)
                           : error_set(error, ERROR_BAD_REQUEST, "encode needs -o FILE.latent");
    if (out->command == COMMAND_DECODE && (kind == OUTPUT_LATENT || !out->output))
        return error_set(error, ERROR_BAD_REQUEST, "decode needs -o FILE.png, or FILE.mp4 for a video");
    if ((command & ONE_PICTURE) && kind != OUTPUT_PNG && kind != OUTPUT_LATENT)
        return out->output ? error_set(error, ERROR_BAD_REQUEST, "-o: \"%s\" does not end in .png, the format for pictures", out->output)
                           : error_set(error, ERROR_BAD_REQUEST, "%s needs -o FILE.png", name);
    if ((command & ONE_VIDEO) && (kind == OUTPUT_UNKNOWN || kind == OUTPUT_PNG))
        return out->output ? error_set(error, ERROR_BAD_REQUEST, "-o: \"%s\" does not end in .mp4, .webm, .y4m or / (a folder of PNGs)",
                                       out->output)
                           : error_set(error, ERROR_BAD_REQUEST, "%s needs -o FILE.mp4", name);
    if (out->output && kind == OUTPUT_UNKNOWN)
        return error_set(error, ERROR_BAD_REQUEST, "-o: \"%s\" does not end in .png, .mp4, .webm, .y4m or / (a folder of PNGs)",
                         out->output);
    return 0;
}

static int take_operands(struct arguments *out, int count, char **operands, struct error *error)
{
    const char *name = commands[out->command].name, *wanted = commands[out->command].operand;
    const char *source = commands[out->command].source;
    if (out->command == COMMAND_HELP)
        return count ? parse_command(&out->topic, operands[0], error) : 0;
    int most = (source != NULL) + (wanted != NULL), least = most - commands[out->command].operand_is_optional;
    if (count < least)
        return error_set(error, ERROR_BAD_REQUEST, "%s needs %s%s%s", name, source ? source : wanted,
                         source && least == 2 ? " and " : "", source && least == 2 ? wanted : "");
    if (count > most)
        return error_set(error, ERROR_BAD_REQUEST, "%s does not take \"%s\"%s", name, operands[most],
                         (1u << out->command) & TASKS && most ? "; put the prompt in quotes" : "");
    out->source = source ? *operands++ : NULL;
    out->operand = wanted && count == most ? *operands : NULL;
    if ((out->command == COMMAND_FETCH || out->command == COMMAND_CANCEL) && !job_id_is_valid(out->operand))
        return error_set(error, ERROR_BAD_REQUEST, "\"%s\" is not a job id", out->operand);
    if (out->operand && out->command != COMMAND_SHOW && !utf8_is_valid(out->operand, strlen(out->operand)))
        return error_set(error, ERROR_BAD_REQUEST, "%s: %s has to be UTF-8 text", name, wanted);
    if (out->negative && !utf8_is_valid(out->negative, strlen(out->negative)))
        return error_set(error, ERROR_BAD_REQUEST, "--negative has to be UTF-8 text");
    if (out->system && !utf8_is_valid(out->system, strlen(out->system)))
        return error_set(error, ERROR_BAD_REQUEST, "--system has to be UTF-8 text");
    if (out->command == COMMAND_RUN && !out->examples)
        return error_set(error, ERROR_BAD_REQUEST, "run needs --examples FILE");
    return check_output(out, error);
}

int arguments_parse(struct arguments *out, int argc, char **argv, struct error *error)
{
    *out = (struct arguments){.command = COMMAND_HELP, .topic = COMMAND_HELP};
    bool seen[OPTION_END] = {false};
    optind = 0; /* glibc: start anew */
    opterr = 0;
    for (;;) {
        int id = command_line_next(argc, argv, ":o:hq", long_options, "lancectl", error);
        if (id < 0)
            break;
        if (id == '?')
            return ERROR_BAD_REQUEST;
        id = id == 'o' ? OPTION_OUTPUT : id == 'h' ? OPTION_HELP : id == 'q' ? OPTION_QUIET : id;
        int code = parse_option(out, (enum option_id)id, optarg, error);
        if (code)
            return code;
        seen[id] = true;
    }
    if (seen[OPTION_HELP] || seen[OPTION_VERSION]) {
        out->command = seen[OPTION_HELP] ? COMMAND_HELP : COMMAND_VERSION;
        return seen[OPTION_HELP] && optind < argc ? parse_command(&out->topic, argv[optind], error) : 0;
    }
    if (optind == argc)
        return error_set(error, ERROR_BAD_REQUEST, "which command? lancectl help lists them");
    int code = parse_command(&out->command, argv[optind], error);
    for (int id = 1; !code && id < OPTION_END; id++)
        if (seen[id] && !(option_commands[id] & (1u << out->command)))
            code = error_set(error, ERROR_BAD_REQUEST, "--%s means nothing to %s", option_name((enum option_id)id),
                             commands[out->command].name);
    if (!code)
        code = take_operands(out, argc - optind - 1, argv + optind + 1, error);
    struct endpoint endpoint;
    bool asks_daemon = ASKS_DAEMON & (1u << out->command);
    return code || !asks_daemon ? code : endpoint_resolve(&endpoint, out->endpoint, error);
}
