/* export_command.c: see export_command.h. */
#include "tools/lance-quant/export_command.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/command_line.h"
#include "base/parallel.h"
#include "tools/lance-quant/command.h"
#include "tools/lance-quant/export.h"

static bool read_form(const char *text, enum export_form *form)
{
    static const char *const names[] = {"mlx", "mlx-und", "hf-und"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(text, names[i]) == 0) {
            *form = (enum export_form)i;
            return true;
        }
    return false;
}

enum { DEFAULT_GROUP = 64, DEFAULT_BITS = 4 };

/* Take one option. NULL, or what is wrong with it. */
static const char *take(struct export_options *options, bool *has_form, int option)
{
    switch (option) {
    case 'm': options->model = optarg; return NULL;
    case 'o': options->output = optarg; return NULL;
    case 'd': options->drops_head_norms = true; return NULL;
    case 'f':
        return (*has_form = read_form(optarg, &options->form)) ? NULL : "--form: must be mlx, mlx-und or hf-und";
    case 'g':
        return command_number(optarg, 32, 128, &options->group) && (options->group & (options->group - 1)) == 0
                   ? NULL
                   : "--group: must be 32, 64 or 128";
    case 'b':
        return command_number(optarg, 4, 8, &options->bits) && (options->bits == 4 || options->bits == 8)
                   ? NULL
                   : "--bits: must be 4 or 8";
    default:
        return command_number(optarg, 1, PARALLEL_MOST_THREADS, &options->threads) ? NULL
                                                                                   : "--threads: must be from 1 to 64";
    }
}

int export_command(int argc, char **argv)
{
    static const struct option names[] = {
        {"model", required_argument, NULL, 'm'},   {"form", required_argument, NULL, 'f'},
        {"group", required_argument, NULL, 'g'},   {"bits", required_argument, NULL, 'b'},
        {"drop-qk-norm", no_argument, NULL, 'd'},  {"threads", required_argument, NULL, 't'},
        {"output", required_argument, NULL, 'o'},  {0},
    };
    struct export_options options = {.threads = command_processors()};
    struct error error;
    bool has_form = false;
    for (int c; (c = command_line_next(argc, argv, ":o:", names, "lance-quant help", &error)) != -1;) {
        if (!strchr("mfgbdto", c)) {
            command_complain(&error);
            return EXIT_WRONG_COMMAND_LINE;
        }
        const char *wrong = take(&options, &has_form, c);
        if (wrong)
            return command_wrong(wrong);
    }
    if (optind < argc || !options.model || !options.output || !has_form)
        return command_wrong("export needs --model, --form and -o, and nothing else");
    if (options.drops_head_norms && options.form == EXPORT_MLX)
        return command_wrong("--drop-qk-norm: is for mlx-und and hf-und");
    if (options.form == EXPORT_HF_UND && (options.group != 0 || options.bits != 0))
        return command_wrong("--group and --bits: are for mlx and mlx-und; hf-und is in bf16");
    options.group = options.group != 0 ? options.group : DEFAULT_GROUP;
    options.bits = options.bits != 0 ? options.bits : DEFAULT_BITS;
    if (export_release(&options, &command_interrupted, &error) != 0)
        return command_complain(&error);
    printf("%s\n", options.output);
    return EXIT_SUCCESS;
}
