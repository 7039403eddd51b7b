/* arguments.c: see arguments.h. */
#include "tools/lancectl/arguments.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <utf8proc.h>

#include "protocol/message.h"

#define ON(command) (1u << COMMAND_##command)

enum { ASKS_DAEMON = ON(T2I) | ON(FETCH) | ON(CANCEL) | ON(STATUS) | ON(MODELS) | ON(LOAD) | ON(UNLOAD) | ON(SHUTDOWN) };

static const struct {
    const char *name;
    const char *operand; /* what the command needs beside options, or NULL */
} commands[COMMAND_COUNT] = {
    [COMMAND_T2I] = {"t2i", "a prompt"},      [COMMAND_FETCH] = {"fetch", "a job id"},
    [COMMAND_CANCEL] = {"cancel", "a job id"}, [COMMAND_STATUS] = {"status", NULL},
    [COMMAND_MODELS] = {"models", NULL},      [COMMAND_LOAD] = {"load", "a model's name"},
    [COMMAND_UNLOAD] = {"unload", NULL},      [COMMAND_SHUTDOWN] = {"shutdown", NULL},
    [COMMAND_SHOW] = {"show", "a PNG file"},  [COMMAND_HELP] = {"help", NULL},
    [COMMAND_VERSION] = {"version", NULL},
};

enum option_id {
    OPTION_ENDPOINT = 1, OPTION_MODEL, OPTION_JSON, OPTION_QUIET, OPTION_OUTPUT, OPTION_PREVIEW, OPTION_JOB, OPTION_SEED,
    OPTION_STEPS, OPTION_GUIDANCE, OPTION_SHIFT, OPTION_INTERVAL, OPTION_RENORM, OPTION_NOISE, OPTION_SIZE, OPTION_COUNT,
    OPTION_CANCEL, OPTION_HELP, OPTION_VERSION, OPTION_END
};

static const struct option long_options[] = {
    {"endpoint", required_argument, NULL, OPTION_ENDPOINT},
    {"model", required_argument, NULL, OPTION_MODEL},
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
    {"noise", required_argument, NULL, OPTION_NOISE},
    {"size", required_argument, NULL, OPTION_SIZE},
    {"count", required_argument, NULL, OPTION_COUNT},
    {"cancel", no_argument, NULL, OPTION_CANCEL},
    {"help", no_argument, NULL, OPTION_HELP},
    {"version", no_argument, NULL, OPTION_VERSION},
    {NULL, 0, NULL, 0},
};

static const unsigned option_commands[OPTION_END] = {
    [OPTION_ENDPOINT] = ASKS_DAEMON, [OPTION_MODEL] = ON(T2I), [OPTION_JSON] = ASKS_DAEMON | ON(SHOW),
    [OPTION_QUIET] = ASKS_DAEMON, [OPTION_OUTPUT] = ON(T2I) | ON(FETCH), [OPTION_PREVIEW] = ON(T2I),
    [OPTION_JOB] = ON(T2I), [OPTION_SEED] = ON(T2I), [OPTION_STEPS] = ON(T2I), [OPTION_GUIDANCE] = ON(T2I),
    [OPTION_SHIFT] = ON(T2I), [OPTION_INTERVAL] = ON(T2I), [OPTION_RENORM] = ON(T2I), [OPTION_NOISE] = ON(T2I),
    [OPTION_SIZE] = ON(T2I), [OPTION_COUNT] = ON(T2I), [OPTION_CANCEL] = ON(SHUTDOWN),
    [OPTION_HELP] = ~0u, [OPTION_VERSION] = ~0u,
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

static int parse_seed(struct arguments *out, const char *text, struct error *error)
{
    char *end;
    errno = 0;
    out->seed = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)*text) || *end || errno)
        return error_set(error, ERROR_BAD_REQUEST, "--seed: \"%s\" is not a whole number from 0 to 18446744073709551615",
                         text);
    out->seed_given = true;
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

static int parse_png_name(const char **out, const char *name, const char *text, struct error *error)
{
    size_t length = strlen(text);
    if (length < 5 || strcasecmp(text + length - 4, ".png") != 0 || text[length - 5] == '/')
        return error_set(error, ERROR_BAD_REQUEST, "%s: \"%s\" does not end in .png, the format lancectl writes", name,
                         text);
    *out = text;
    return 0;
}

static int parse_option(struct arguments *out, enum option_id id, const char *value, struct error *error)
{
    static const char *const renorms[] = {"global", "channel", "none", NULL};
    static const char *const noises[] = {"torch_cpu", "torch_cuda", "comfyui", NULL};
    switch (id) {
    case OPTION_ENDPOINT: out->endpoint = value; return 0;
    case OPTION_MODEL: out->model_dir = value; return 0;
    case OPTION_JSON: out->json = true; return 0;
    case OPTION_QUIET: out->quiet = true; return 0;
    case OPTION_OUTPUT: return parse_png_name(&out->output, "-o", value, error);
    case OPTION_PREVIEW: return parse_png_name(&out->preview, "--preview", value, error);
    case OPTION_SEED: return parse_seed(out, value, error);
    case OPTION_STEPS: return parse_whole(&out->steps, "steps", value, error);
    case OPTION_GUIDANCE: return parse_number(&out->guidance, "guidance", value, error);
    case OPTION_SHIFT: return parse_number(&out->shift, "shift", value, error);
    case OPTION_INTERVAL: return parse_interval(out, value, error);
    case OPTION_RENORM: return parse_word(&out->renorm, "renorm", value, renorms, "global, channel, none", error);
    case OPTION_NOISE: return parse_word(&out->noise, "noise", value, noises, "torch_cpu, torch_cuda, comfyui", error);
    case OPTION_SIZE: return parse_size(out, value, error);
    case OPTION_COUNT: return parse_whole(&out->count, "count", value, error);
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

static bool is_utf8(const char *text)
{
    utf8proc_int32_t character;
    for (utf8proc_ssize_t used; *text; text += used)
        if ((used = utf8proc_iterate((const utf8proc_uint8_t *)text, -1, &character)) <= 0)
            return false;
    return true;
}

static int parse_command(struct arguments *out, const char *name, struct error *error)
{
    for (int i = 0; i < COMMAND_COUNT; i++)
        if (!strcmp(commands[i].name, name)) {
            out->command = (enum command)i;
            return 0;
        }
    return error_set(error, ERROR_BAD_REQUEST, "there is no command \"%s\"; lancectl help lists them", name);
}

static int take_operands(struct arguments *out, int count, char **operands, struct error *error)
{
    const char *name = commands[out->command].name, *wanted = commands[out->command].operand;
    if (out->command == COMMAND_HELP)
        return 0;
    if (wanted && !count)
        return error_set(error, ERROR_BAD_REQUEST, "%s needs %s", name, wanted);
    if (count > (wanted != NULL))
        return error_set(error, ERROR_BAD_REQUEST, "%s does not take \"%s\"%s", name, operands[wanted != NULL],
                         out->command == COMMAND_T2I ? "; put the prompt in quotes" : "");
    out->operand = wanted ? operands[0] : NULL;
    if ((out->command == COMMAND_FETCH || out->command == COMMAND_CANCEL) && !job_id_is_valid(out->operand))
        return error_set(error, ERROR_BAD_REQUEST, "\"%s\" is not a job id", out->operand);
    if (out->operand && out->command != COMMAND_SHOW && !is_utf8(out->operand))
        return error_set(error, ERROR_BAD_REQUEST, "%s: %s has to be UTF-8 text", name, wanted);
    if ((out->command == COMMAND_T2I || out->command == COMMAND_FETCH) && !out->output)
        return error_set(error, ERROR_BAD_REQUEST, "%s needs -o FILE.png", name);
    return 0;
}

int arguments_parse(struct arguments *out, int argc, char **argv, struct error *error)
{
    *out = (struct arguments){.command = COMMAND_HELP};
    bool seen[OPTION_END] = {false};
    optind = 0; /* glibc: start anew */
    opterr = 0;
    for (;;) {
        int id = getopt_long(argc, argv, ":o:hq", long_options, NULL);
        if (id < 0)
            break;
        if (id == ':')
            return error_set(error, ERROR_BAD_REQUEST, "%s needs a value", argv[optind - 1]);
        if (id == '?')
            return error_set(error, ERROR_BAD_REQUEST, "there is no option %s, or it takes no value; lancectl help lists them",
                             argv[optind - 1]);
        id = id == 'o' ? OPTION_OUTPUT : id == 'h' ? OPTION_HELP : id == 'q' ? OPTION_QUIET : id;
        int code = parse_option(out, (enum option_id)id, optarg, error);
        if (code)
            return code;
        seen[id] = true;
    }
    if (seen[OPTION_HELP] || seen[OPTION_VERSION]) {
        out->command = seen[OPTION_HELP] ? COMMAND_HELP : COMMAND_VERSION;
        return 0;
    }
    if (optind == argc)
        return error_set(error, ERROR_BAD_REQUEST, "which command? lancectl help lists them");
    int code = parse_command(out, argv[optind], error);
    for (int id = 1; !code && id < OPTION_END; id++)
        if (seen[id] && !(option_commands[id] & (1u << out->command)))
            code = error_set(error, ERROR_BAD_REQUEST, "--%s means nothing to %s", option_name((enum option_id)id),
                             commands[out->command].name);
    return code ? code : take_operands(out, argc - optind - 1, argv + optind + 1, error);
}
