/* arguments.c: see arguments.h. */
#include "tools/lancectl/arguments.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/command_line.h"
#include "base/utf8.h"
#include "protocol/clip_sampling.h"
#include "protocol/endpoint.h"
#include "protocol/message.h"
#include "tools/lancectl/output.h"
#include "tools/lancectl/read_number.h"
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
    MAKES = TASKS | ON(ENCODE) | ON(DECODE) | ON(GRAPH) | ON(GRAPHS),
    PUTS_TOGETHER = ON(SHEET) | ON(CLIP),
    ASKS_DAEMON = MAKES | ON(FETCH) | ON(CANCEL) | ON(STATUS) | ON(TOP) | ON(JOBS) | ON(HISTORY) | ON(METRICS) |
                  ON(MODELS) | ON(LOAD) | ON(UNLOAD) | ON(SHUTDOWN) | ON(DOCTOR)
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
    [COMMAND_GRAPH] = {"graph", "a workflow of ComfyUI in its API form", NULL, false},
    [COMMAND_GRAPHS] = {"graphs", NULL, NULL, false},
    [COMMAND_SHEET] = {"sheet", NULL, NULL, false},
    [COMMAND_CLIP] = {"clip", NULL, NULL, false},
    [COMMAND_CA] = {"ca", NULL, "a folder", false},
    [COMMAND_FETCH] = {"fetch", NULL, "a job id", false},
    [COMMAND_CANCEL] = {"cancel", NULL, "a job id", false},
    [COMMAND_STATUS] = {"status", NULL, NULL, false},
    [COMMAND_TOP] = {"top", NULL, NULL, false},
    [COMMAND_JOBS] = {"jobs", NULL, NULL, false},
    [COMMAND_HISTORY] = {"history", NULL, NULL, false},
    [COMMAND_METRICS] = {"metrics", NULL, NULL, false},
    [COMMAND_MODELS] = {"models", NULL, NULL, false},
    [COMMAND_LOAD] = {"load", NULL, "a model's name", false},
    [COMMAND_UNLOAD] = {"unload", NULL, NULL, false},
    [COMMAND_SHUTDOWN] = {"shutdown", NULL, NULL, false},
    [COMMAND_DOCTOR] = {"doctor", NULL, NULL, false},
    [COMMAND_SHOW] = {"show", NULL, "a PNG or video file", false},
    [COMMAND_HELP] = {"help", NULL, NULL, false},
    [COMMAND_VERSION] = {"version", NULL, NULL, false},
};

/* Beyond all characters: getopt_long says with '?' and ':' what is wrong. */
enum option_id {
    OPTION_ENDPOINT = 256, OPTION_CA, OPTION_DAYS, OPTION_SILENCE, OPTION_WAIT, OPTION_NO_CACHE, OPTION_MODEL,
        OPTION_PRECISION, OPTION_JSON, OPTION_QUIET, OPTION_OUTPUT, OPTION_PREVIEW,
    OPTION_JOB, OPTION_FPS, OPTION_UPRIGHT, OPTION_INIT_LATENT, OPTION_EXAMPLES, OPTION_TASK, OPTION_ROOT, OPTION_SET,
        OPTION_INPUT_DIR, OPTION_DRY_RUN, OPTION_COLUMNS, OPTION_CELL, OPTION_CANCEL, OPTION_SINCE,
        OPTION_PROMPT, OPTION_FAILED, OPTION_ONCE, OPTION_HELP,
    OPTION_VERSION,
    OPTION_PARAMETERS, /* and after it the others of parameter_options.h, in their order */
    OPTION_END = OPTION_PARAMETERS + PARAMETER_OPTIONS
};

/* Those that are no parameters of a job. */
static const struct own_option {
    const char *name;
    int has_argument;
    enum option_id id;
    unsigned commands;
} own_options[] = {
    {"endpoint", required_argument, OPTION_ENDPOINT, ASKS_DAEMON},
    {"ca", required_argument, OPTION_CA, ASKS_DAEMON},
    {"days", required_argument, OPTION_DAYS, ON(CA)},
    {"silence", required_argument, OPTION_SILENCE, ASKS_DAEMON},
    {"wait", no_argument, OPTION_WAIT, MAKES},
    {"no-cache", no_argument, OPTION_NO_CACHE, TASKS | ON(ENCODE) | ON(DECODE)},
    {"model", required_argument, OPTION_MODEL, MAKES | ON(DOCTOR)},
    {"precision", required_argument, OPTION_PRECISION, MAKES | ON(DOCTOR)},
    {"json", no_argument, OPTION_JSON, ASKS_DAEMON | ON(SHOW)},
    {"quiet", no_argument, OPTION_QUIET, ASKS_DAEMON},
    {"output", required_argument, OPTION_OUTPUT,
     GENERATES | ON(ENCODE) | ON(DECODE) | ON(GRAPH) | ON(FETCH) | PUTS_TOGETHER},
    {"preview", required_argument, OPTION_PREVIEW, ONE_PICTURE | ONE_VIDEO},
    {"job", required_argument, OPTION_JOB, ONE_PICTURE | ONE_VIDEO | ON(ASK) | ON(ENCODE) | ON(DECODE)},
    {"fps", required_argument, OPTION_FPS, ON(VIDEO_EDIT) | ON(ASK) | ON(RUN) | ON(ENCODE) | ON(CLIP)},
    {"upright", no_argument, OPTION_UPRIGHT, STARTS_FROM | ON(ENCODE)},
    {"init-latent", required_argument, OPTION_INIT_LATENT, ONE_PICTURE | ONE_VIDEO},
    {"examples", required_argument, OPTION_EXAMPLES, ON(RUN)},
    {"task", required_argument, OPTION_TASK, ON(RUN) | ON(HISTORY)},
    {"root", required_argument, OPTION_ROOT, ON(RUN)},
    {"set", required_argument, OPTION_SET, ON(GRAPH)},
    {"input-dir", required_argument, OPTION_INPUT_DIR, ON(GRAPH)},
    {"dry-run", no_argument, OPTION_DRY_RUN, ON(GRAPH)},
    {"columns", required_argument, OPTION_COLUMNS, ON(SHEET)},
    {"cell", required_argument, OPTION_CELL, ON(SHEET)},
    {"cancel", no_argument, OPTION_CANCEL, ON(SHUTDOWN)},
    {"since", required_argument, OPTION_SINCE, ON(HISTORY)},
    {"prompt", required_argument, OPTION_PROMPT, ON(HISTORY)},
    {"failed", no_argument, OPTION_FAILED, ON(HISTORY)},
    {"once", no_argument, OPTION_ONCE, ON(TOP)},
    {"help", no_argument, OPTION_HELP, ~0u},
    {"version", no_argument, OPTION_VERSION, ~0u},
};
enum { OWN_OPTIONS = sizeof own_options / sizeof *own_options };

/* All options for getopt, ended by one without a name. */
static void list_options(struct option options[OWN_OPTIONS + PARAMETER_OPTIONS + 1])
{
    for (int i = 0; i < OWN_OPTIONS; i++)
        options[i] = (struct option){own_options[i].name, own_options[i].has_argument, NULL, own_options[i].id};
    for (int i = 0; i < PARAMETER_OPTIONS; i++)
        options[OWN_OPTIONS + i] =
            (struct option){parameter_options[i].name, parameter_options[i].value ? required_argument : no_argument,
                            NULL, OPTION_PARAMETERS + i};
    options[OWN_OPTIONS + PARAMETER_OPTIONS] = (struct option){0};
}

/* The commands whose tasks have a use for it. */
static unsigned commands_of_parameter(const struct parameter_option *option)
{
    static const struct { const char *task; unsigned commands; } tasks[] = {
        {"t2i", ON(T2I) | ON(RUN)},   {"t2v", ON(T2V) | ON(RUN)},       {"i2v", ON(I2V) | ON(RUN)},
        {"image_edit", ON(EDIT) | ON(RUN)}, {"video_edit", ON(VIDEO_EDIT) | ON(RUN)}, {"x2t_image", ON(ASK) | ON(RUN)},
        {"x2t_video", ON(ASK) | ON(RUN)}, {"encode", ON(ENCODE)},         {"decode", ON(DECODE)}};
    unsigned commands = 0;
    for (size_t i = 0; i < sizeof tasks / sizeof *tasks; i++)
        if (parameter_option_is_for(option, tasks[i].task))
            commands |= tasks[i].commands;
    return option->is_of_one_job ? commands & ~ON(RUN) : commands;
}

static unsigned commands_of(enum option_id id)
{
    if (id >= OPTION_PARAMETERS)
        return commands_of_parameter(&parameter_options[id - OPTION_PARAMETERS]);
    for (int i = 0; i < OWN_OPTIONS; i++)
        if (own_options[i].id == id)
            return own_options[i].commands;
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
    if (!frame_rate_parse(text, '/', &out->fps) || !frame_rate_is_accepted(out->fps))
        return error_set(error, ERROR_BAD_REQUEST,
                         "--fps: \"%s\" is not from %g to %g frames per second, as a number or a fraction "
                         "such as 24000/1001",
                         text, SAMPLING_MIN_CLIP_FPS, SAMPLING_MAX_CLIP_FPS);
    return 0;
}

static int parse_silence(struct arguments *out, const char *text, struct error *error)
{
    int code = parse_whole(&out->silence, "silence", text, error);
    if (!code && !(out->silence >= 1 && out->silence <= 86400))
        code = error_set(error, ERROR_BAD_REQUEST, "--silence: \"%s\" is not from 1 to 86400 seconds", text);
    return code;
}

/* A whole number from `least` to `most`. */
static int parse_size(int *out, const char *name, const char *text, int least, int most, struct error *error)
{
    double number;
    int code = parse_whole(&number, name, text, error);
    if (!code && !(number >= least && number <= most))
        code = error_set(error, ERROR_BAD_REQUEST, "--%s: \"%s\" is not from %d to %d", name, text, least, most);
    *out = code ? 0 : (int)number;
    return code;
}

/* So long ago ("90m", "12h", "7d"), or a day of this machine's calendar ("2026-11-20"). */
static int parse_since(double *out, const char *text, struct error *error)
{
    static const struct { char unit; double seconds; } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
    struct tm day = {.tm_isdst = -1};
    char *end;
    const double count = strtod(text, &end);
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (end > text && *end == units[i].unit && !end[1] && count >= 0 && count < 1e9) {
            *out = (double)time(NULL) - count * units[i].seconds;
            return 0;
        }
    end = strptime(text, "%Y-%m-%d", &day);
    if (!end || *end)
        return error_set(error, ERROR_BAD_REQUEST,
                         "--since: \"%s\" is neither a time such as 90m, 12h or 7d nor a day such as "
                         "2026-11-20",
                         text);
    *out = (double)mktime(&day);
    return 0;
}

static int parse_option(struct arguments *out, enum option_id id, const char *value, struct error *error)
{
    const int place = (int)id - OPTION_PARAMETERS;
    if (place >= 0)
        return parameter_option_parse(&out->given[place], &parameter_options[place], value, error);
    static const char *const precisions[] = {"float32", "bf16", "auto", NULL};
    static const char *const tasks[] = {"t2i",        "t2v",       "i2v",       "image_edit",
                                        "video_edit", "x2t_image", "x2t_video", NULL};
    switch (id) {
    case OPTION_ENDPOINT: out->endpoint = value; return 0;
    case OPTION_CA: out->ca = value; return 0;
    case OPTION_DAYS: return parse_size(&out->days, "days", value, 1, AUTHORITY_MOST_DAYS, error);
    case OPTION_WAIT: out->waits = true; return 0;
    case OPTION_NO_CACHE: out->no_cache = true; return 0;
    case OPTION_SILENCE: return parse_silence(out, value, error);
    case OPTION_MODEL:
        out->model_dir = value;
        return access(value, F_OK) ? error_set(error, ERROR_BAD_REQUEST, "--model %s: %s", value, strerror(errno)) : 0;
    case OPTION_PRECISION:
        return parse_word(&out->precision, "precision", value, precisions, "float32, bf16, auto", error);
    case OPTION_JSON: out->json = true; return 0;
    case OPTION_ONCE: out->once = true; return 0;
    case OPTION_QUIET: out->quiet = true; return 0;
    case OPTION_OUTPUT: out->output = value; return 0;
    case OPTION_PREVIEW: return parse_preview(out, value, error);
    case OPTION_FPS: return parse_fps(out, value, error);
    case OPTION_UPRIGHT: out->upright = true; return 0;
    case OPTION_INIT_LATENT: out->init_latent = value; return 0;
    case OPTION_EXAMPLES: out->examples = value; return 0;
    case OPTION_TASK:
        return parse_word(&out->task, "task", value, tasks,
                          "t2i, t2v, i2v, image_edit, video_edit, x2t_image, x2t_video", error);
    case OPTION_ROOT: out->root = value; return 0;
    case OPTION_SET:
        if (out->sets == MAX_SETTINGS)
            return error_set(error, ERROR_BAD_REQUEST, "--set: more than %d", MAX_SETTINGS);
        out->set[out->sets++] = value;
        return utf8_is_valid(value, strlen(value)) ? 0
                                                   : error_set(error, ERROR_BAD_REQUEST, "--set has to be UTF-8 text");
    case OPTION_INPUT_DIR: out->input_dir = value; return 0;
    case OPTION_DRY_RUN: out->dry_run = true; return 0;
    case OPTION_COLUMNS: return parse_size(&out->columns, "columns", value, 1, SHEET_MOST_COLUMNS, error);
    case OPTION_CELL: return parse_size(&out->cell, "cell", value, SHEET_LEAST_CELL, SHEET_MOST_CELL, error);
    case OPTION_CANCEL: out->cancel_jobs = true; return 0;
    case OPTION_SINCE: return parse_since(&out->since, value, error);
    case OPTION_PROMPT:
        out->prompt = value;
        return utf8_is_valid(value, strlen(value))
                   ? 0
                   : error_set(error, ERROR_BAD_REQUEST, "--prompt has to be UTF-8 text");
    case OPTION_FAILED: out->failed = true; return 0;
    case OPTION_JOB:
        if (!job_id_is_valid(value))
            return error_set(error, ERROR_BAD_REQUEST,
                             "--job: \"%s\" is not 1 to 64 letters, digits, dots, dashes or underscores", value);
        out->job = value;
        return 0;
    default: return 0;
    }
}

/* The name under which the user knows an option. */
static const char *option_name(enum option_id id)
{
    if (id >= OPTION_PARAMETERS)
        return parameter_options[id - OPTION_PARAMETERS].name;
    for (int i = 0; i < OWN_OPTIONS; i++)
        if (own_options[i].id == id)
            return own_options[i].name;
    return "?";
}

bool arguments_option_is_for(const char *name, enum command command)
{
    for (enum option_id id = OPTION_ENDPOINT; id < OPTION_END; id++)
        if (!strcmp(option_name(id), name))
            return commands_of(id) & (1u << command);
    return false;
}

const struct given_parameter *arguments_given(const struct arguments *arguments, const char *option)
{
    const struct given_parameter *given = &arguments->given[parameter_option_find(option)];
    return given->is_given ? given : NULL;
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
    if (out->command == COMMAND_GRAPH)
        return out->output || out->dry_run ? 0 : error_set(error, ERROR_BAD_REQUEST, "graph needs -o FOLDER");
    if (out->command == COMMAND_SHEET && kind != OUTPUT_PNG)
        return error_set(error, ERROR_BAD_REQUEST, "sheet needs -o FILE.png");
    if (out->command == COMMAND_CLIP && kind != OUTPUT_MP4 && kind != OUTPUT_WEBM && kind != OUTPUT_Y4M &&
        kind != OUTPUT_FOLDER)
        return error_set(error, ERROR_BAD_REQUEST, "clip needs -o FILE.mp4, or .webm, .y4m or / (a folder of PNGs)");
    if (out->command == COMMAND_ENCODE && kind != OUTPUT_LATENT)
        return out->output ? error_set(error, ERROR_BAD_REQUEST,
                                       "-o: \"%s\" does not end in .latent, the format for latents", out->output)
                           : error_set(error, ERROR_BAD_REQUEST, "encode needs -o FILE.latent");
    if (out->command == COMMAND_DECODE && (kind == OUTPUT_LATENT || !out->output))
        return error_set(error, ERROR_BAD_REQUEST, "decode needs -o FILE.png, or FILE.mp4 for a video");
    if ((command & ONE_PICTURE) && kind != OUTPUT_PNG && kind != OUTPUT_LATENT)
        return out->output ? error_set(error, ERROR_BAD_REQUEST,
                                       "-o: \"%s\" does not end in .png, the format for pictures", out->output)
                           : error_set(error, ERROR_BAD_REQUEST, "%s needs -o FILE.png", name);
    if ((command & ONE_VIDEO) && (kind == OUTPUT_UNKNOWN || kind == OUTPUT_PNG))
        return out->output
                   ? error_set(error, ERROR_BAD_REQUEST,
                               "-o: \"%s\" does not end in .mp4, .webm, .y4m or / (a folder of PNGs)", out->output)
                   : error_set(error, ERROR_BAD_REQUEST, "%s needs -o FILE.mp4", name);
    if (out->output && kind == OUTPUT_UNKNOWN)
        return error_set(error, ERROR_BAD_REQUEST,
                         "-o: \"%s\" does not end in .png, .mp4, .webm, .y4m or / (a folder of PNGs)", out->output);
    return 0;
}

static int take_operands(struct arguments *out, int count, char **operands, struct error *error)
{
    const char *name = commands[out->command].name, *wanted = commands[out->command].operand;
    const char *source = commands[out->command].source;
    if (out->command == COMMAND_HELP)
        return count ? parse_command(&out->topic, operands[0], error) : 0;
    if ((1u << out->command) & PUTS_TOGETHER) {
        out->files = operands;
        out->file_count = count;
        return count ? check_output(out, error)
                     : error_set(error, ERROR_BAD_REQUEST, "%s needs pictures or videos", name);
    }
    if (out->command == COMMAND_CA && count > 1) {
        out->files = operands + 1;
        out->file_count = count - 1;
        count = 1;
    }
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
    if (out->command == COMMAND_RUN && !out->examples)
        return error_set(error, ERROR_BAD_REQUEST, "run needs --examples FILE");
    return check_output(out, error);
}

int arguments_parse(struct arguments *out, int argc, char **argv, struct error *error)
{
    *out = (struct arguments){.command = COMMAND_HELP, .topic = COMMAND_HELP};
    bool seen[OPTION_END] = {false};
    struct option options[OWN_OPTIONS + PARAMETER_OPTIONS + 1];
    list_options(options);
    optind = 0; /* glibc: start anew */
    opterr = 0;
    for (;;) {
        int id = command_line_next(argc, argv, ":o:hq", options, "lancectl", error);
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
    for (int id = OPTION_ENDPOINT; !code && id < OPTION_END; id++)
        if (seen[id] && !(commands_of((enum option_id)id) & (1u << out->command)))
            code = error_set(error, ERROR_BAD_REQUEST, "--%s means nothing to %s", option_name((enum option_id)id),
                             commands[out->command].name);
    if (!code)
        code = take_operands(out, argc - optind - 1, argv + optind + 1, error);
    struct endpoint endpoint;
    bool asks_daemon = ASKS_DAEMON & (1u << out->command);
    return code || !asks_daemon ? code : endpoint_resolve(&endpoint, out->endpoint, error);
}
