/* parameter_options.c: see parameter_options.h. */
#include "tools/lancectl/parameter_options.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "protocol/known_parameters.h"
#include "tools/lancectl/read_number.h"

const struct parameter_option parameter_options[PARAMETER_OPTIONS] = {
    {.name = "count", .value = "N", .parameter = "batch_size", .is_of_one_job = true,
     .help = "how many: FILE-1.png to FILE-N.png; item i takes seed N + i - 1"},
    {.name = "seed", .value = "N", .parameter = "seed"},
    {.name = "steps", .value = "N", .parameter = "num_inference_steps"},
    {.name = "guidance", .value = "X", .parameter = "guidance_scale"},
    {.name = "negative", .value = "TEXT", .parameter = "negative_prompt"},
    {.name = "size", .value = "WxH", .parameter = "width", .second = "height",
     .help = "in pixels; for a source: instead of a resolution"},
    {.name = "frames", .value = "N", .parameter = "num_frames"},
    {.name = "shift", .value = "X", .parameter = "timestep_shift"},
    {.name = "interval", .value = "LOW,HIGH", .parameter = "guidance_interval",
     .help = "guidance only where LOW < t <= HIGH"},
    {.name = "renorm", .value = "KIND", .parameter = "guidance_renorm"},
    {.name = "renorm-min", .value = "X", .parameter = "guidance_renorm_min"},
    {.name = "noise", .value = "SOURCE", .parameter = "noise_source", .left_out = "client",
     .help = "who draws it: PyTorch on a CPU, PyTorch on a card as the official script, or KSampler"},
    {.name = "positions", .value = "KIND", .parameter = "uncond_positions"},
    {.name = "denoise", .value = "X", .parameter = "denoise", .is_of_one_job = true},
    {.name = "start-step", .value = "N", .parameter = "start_step", .is_of_one_job = true},
    {.name = "end-step", .value = "N", .parameter = "end_step", .is_of_one_job = true},
    {.name = "leftover-noise", .parameter = "leftover_noise", .is_of_one_job = true,
     .help = "an early --end-step leaves the noise of that time"},
    {.name = "no-noise", .parameter = "add_noise", .is_of_one_job = true, .help = "the latents have noise already"},
    {.name = "system", .value = "TEXT", .parameter = "system_prompt"},
    {.name = "resolution", .value = "PRESET", .parameter = "resolution"},
    {.name = "latent-mean", .parameter = "source_latent_mean", .not_for = "encode",
     .help = "condition on the encoder's mean, not on a sample"},
    {.name = "source-seed", .value = "N", .parameter = "source_seed", .not_for = "encode"},
    {.name = "max-tokens", .value = "N", .parameter = "max_new_tokens"},
    {.name = "temperature", .value = "X", .parameter = "temperature"},
    {.name = "top-k", .value = "N", .parameter = "top_k"},
    {.name = "top-p", .value = "X", .parameter = "top_p"},
    {.name = "repetition-penalty", .value = "X", .parameter = "repetition_penalty"},
    {.name = "priority", .value = "CLASS", .parameter = "priority"},
};

int parameter_option_find(const char *name)
{
    for (int i = 0; i < PARAMETER_OPTIONS; i++)
        if (!strcmp(parameter_options[i].name, name))
            return i;
    return -1;
}

bool parameter_option_is_for(const struct parameter_option *option, const char *task)
{
    const size_t length = strlen(task);
    if (option->not_for && !strcmp(option->not_for, task))
        return false;
    for (const char *at = known_parameter_find(option->parameter)->tasks; *at; at = strchr(at, ' ') + 1)
        if (!strncmp(at, task, length) && at[length] == ' ')
            return true;
    return false;
}

/* ---- Reading ---- */

static int parse_seed(uint64_t *seed, const char *name, const char *text, struct error *error)
{
    char *end;
    errno = 0;
    *seed = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)*text) || *end || errno)
        return error_set(error, ERROR_BAD_REQUEST, "--%s: \"%s\" is not a whole number from 0 to 18446744073709551615",
                         name, text);
    return 0;
}

/* Two numbers with a separator between them. */
static bool read_pair(const char *text, char separator, double pair[2])
{
    const char *end;
    return read_number(text, &pair[0], &end) && *end == separator && read_number(end + 1, &pair[1], &end) && !*end;
}

static bool is_whole(double number)
{
    return number == floor(number) && fabs(number) <= 1e9;
}

static int parse_size(double pair[2], const char *name, const char *text, struct error *error)
{
    if (read_pair(text, 'x', pair) && is_whole(pair[0]) && is_whole(pair[1]))
        return 0;
    return error_set(error, ERROR_BAD_REQUEST, "--%s: \"%s\" is not WIDTHxHEIGHT, such as 768x768", name, text);
}

static int parse_choice(const char **out, const struct parameter_option *option, const char *text, struct error *error)
{
    char listed[200] = "";
    size_t used = 0;
    for (const char *const *word = known_parameter_find(option->parameter)->choices; *word; word++) {
        if (option->left_out && !strcmp(option->left_out, *word))
            continue;
        if (!strcmp(*word, text)) {
            *out = text;
            return 0;
        }
        if (used < sizeof listed)
            used += (size_t)snprintf(listed + used, sizeof listed - used, "%s%s", used ? ", " : "", *word);
    }
    return error_set(error, ERROR_BAD_REQUEST, "--%s: \"%s\" is none of %s", option->name, text, listed);
}

int parameter_option_parse(struct given_parameter *out, const struct parameter_option *option, const char *value,
                           struct error *error)
{
    const char *name = option->name;
    out->is_given = true;
    if (option->second)
        return parse_size(out->numbers, name, value, error);
    switch (known_parameter_find(option->parameter)->kind) {
    case KNOWN_FLAG: return 0;
    case KNOWN_CHOICE: return parse_choice(&out->text, option, value, error);
    case KNOWN_WHOLE: return parse_seed(&out->whole, name, value, error);
    case KNOWN_NUMBER: return parse_number(&out->numbers[0], name, value, error);
    case KNOWN_INTEGER: return parse_whole(&out->numbers[0], name, value, error);
    case KNOWN_LIST:
        return read_pair(value, ',', out->numbers)
                   ? 0
                   : error_set(error, ERROR_BAD_REQUEST, "--%s: \"%s\" is not LOW,HIGH, such as 0.4,1", name, value);
    case KNOWN_TEXT: break;
    }
    out->text = value;
    return utf8_is_valid(value, strlen(value)) ? 0
                                               : error_set(error, ERROR_BAD_REQUEST, "--%s has to be UTF-8 text", name);
}

/* ---- Asking ---- */

static cJSON *value_json(const struct known_parameter *parameter, const struct given_parameter *given, int which)
{
    switch (parameter->kind) {
    case KNOWN_TEXT:
    case KNOWN_CHOICE: return json_from_text(given->text);
    case KNOWN_WHOLE: return json_from_uint64(given->whole);
    case KNOWN_FLAG: return json_from_bool(strcmp(parameter->usual, "true") != 0);
    case KNOWN_LIST: return json_from_numbers(given->numbers, 2);
    case KNOWN_INTEGER:
    case KNOWN_NUMBER: break;
    }
    return json_from_number(given->numbers[which]);
}

void parameter_options_add(cJSON *params, const struct given_parameter given[PARAMETER_OPTIONS])
{
    for (const struct known_parameter *p = known_parameters; p->name; p++)
        for (int i = 0; i < PARAMETER_OPTIONS; i++) {
            const bool is_second = parameter_options[i].second && !strcmp(parameter_options[i].second, p->name);
            if (given[i].is_given && (is_second || !strcmp(parameter_options[i].parameter, p->name)))
                json_add(params, p->name, value_json(p, &given[i], is_second));
        }
}

/* ---- Explaining ---- */

enum { HELP_COLUMN = 26, LAST_COLUMN = 118 };

/* The option by which lancectl knows a parameter, with its dashes; otherwise the name as it is. The caller frees. */
static char *word_of(const char *name, size_t length)
{
    char *word = NULL;
    for (int i = 0; i < PARAMETER_OPTIONS; i++)
        if (strlen(parameter_options[i].parameter) == length && !strncmp(parameter_options[i].parameter, name, length))
            return asprintf(&word, "--%s", parameter_options[i].name) < 0 ? NULL : word;
    return strndup(name, length);
}

/* The parameter's help without backquotes, what is accepted, and the default. NULL: out of memory. The caller frees. */
static char *help_of(const struct parameter_option *option)
{
    const struct known_parameter *parameter = known_parameter_find(option->parameter);
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    if (!out)
        return NULL;
    const char *at = option->help ? option->help : parameter->help;
    for (const char *end; (end = strchr(at, '`')); at = end + 1) {
        fwrite(at, 1, (size_t)(end - at), out);
        at = end + 1;
        end = strchr(at, '`');
        char *word = word_of(at, (size_t)(end - at));
        fputs(word ? word : "", out);
        free(word);
    }
    fputs(at, out);
    const bool has_range = parameter->kind == KNOWN_INTEGER || parameter->kind == KNOWN_NUMBER || parameter->choices;
    if (has_range && *parameter->accepted) {
        fputs("; ", out);
        const char *skipped = option->left_out ? strstr(parameter->accepted, option->left_out) : NULL;
        fprintf(out, "%.*s", skipped ? (int)(skipped - parameter->accepted) - 2 : (int)strlen(parameter->accepted),
                parameter->accepted);
    }
    if (*parameter->usual && parameter->kind != KNOWN_FLAG)
        fprintf(out, parameter->kind == KNOWN_LIST ? " %s" : " [%s]", parameter->usual);
    if (fclose(out)) {
        free(text);
        return NULL;
    }
    return text;
}

void parameter_option_print_help(FILE *out, const struct parameter_option *option)
{
    char *text = help_of(option), *rest = text;
    int column = fprintf(out, "  --%s%s%s", option->name, option->value ? " " : "", option->value ? option->value : "");
    fprintf(out, "%*s", column < HELP_COLUMN ? HELP_COLUMN - column : 0, "");
    column = column < HELP_COLUMN ? HELP_COLUMN : column;
    for (char *word; rest && (word = strsep(&rest, " "));) {
        if (column + 1 + (int)strlen(word) > LAST_COLUMN)
            column = fprintf(out, "\n%*s", HELP_COLUMN, "") - 1;
        column += fprintf(out, "%s%s", column > HELP_COLUMN ? " " : "", word);
    }
    fputc('\n', out);
    free(text);
}
