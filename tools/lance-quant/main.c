/* main.c: lance-quant makes 4-bit checkpoints of Lance.
 *
 *   lance-quant calibrate --model DIR --task TASK --examples FILE | --prompts FILE [--pictures DIR] ... -o FILE
 *   lance-quant apply --model DIR --stats FILE --form awq-int4|nvfp4 [--group 64|128] [--recipe best|published]
 *               [--slim] [--threads N] -o DIR
 *   lance-quant merge STATS... -o FILE
 *   lance-quant compare --model DIR --reference DIR --task TASK --examples FILE | --prompts FILE ... -o DIR
 *   lance-quant check DIR
 *
 * docs/quantisation.md explains them. Exit status: 0, 1 when something failed, 2 for a wrong command line, 130
 * interrupted.
 */
#include <cblas.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/command_line.h"
#include "base/mapped_file.h"
#include "protocol/version.h"
#include "tools/lance-quant/apply.h"
#include "tools/lance-quant/calibrate_command.h"
#include "tools/lance-quant/check.h"
#include "tools/lance-quant/command.h"
#include "tools/lance-quant/compare.h"
#include "tools/lance-quant/parallel.h"
#include "tools/lance-quant/statistics.h"

enum { DEFAULT_GROUP = 128 };

static const char usage[] =
    "lance-quant " LANCED_VERSION ": makes 4-bit checkpoints of Lance\n"
    "\n"
    "  lance-quant calibrate --model DIR --task TASK --examples FILE | --prompts FILE [...] -o STATS.safetensors\n"
    "      runs jobs of a release and counts what goes into its linear layers\n"
    "      --task TASK       t2i, t2v, i2v, image_edit, video_edit, x2t_image, x2t_video; several share the next file\n"
    "      --examples FILE   an example file of the official code\n"
    "      --prompts FILE    a prompt or question a line; with --pictures DIR, what they start from, in turn by name\n"
    "      --samples N       of each task [all]\n"
    "      --steps N, --size WxH, --frames N, --resolution NAME (of sources), --seed N [each task's own, seed 42]\n"
    "      --no-moments      without products of inputs, which --recipe best wants: a much smaller file\n"
    "      --resume          go on after Ctrl-C (which ends after the sample that runs; twice: at once)\n"
    "      --vae FILE, --vit FILE, --backend auto|cpu|cuda, --threads N [all processors]\n"
    "\n"
    "  lance-quant apply --model DIR --stats FILE --form FORM -o DIR\n"
    "      quantises the release in bf16 or float32 in a folder; called again after it was cut off, it goes on\n"
    "      --stats FILE   statistics of activations: of lance-quant merge, or act_stats.pt of the published toolkit\n"
    "      --form FORM    awq-int4 or nvfp4, in the published layout\n"
    "      --group N      awq-int4: columns that share a scale, 64 or 128 [128]\n"
    "      --recipe NAME  best, or published: the rounding of the published scripts [best]\n"
    "      --without LIST best without some of scaling,down-through-up,clipping,four-or-six,feedback,refinement\n"
    "      --slim         nvfp4: E4M3 scales and a tensor's own alone, without those in bf16\n"
    "      --threads N    [all processors]\n"
    "      -o DIR         a folder that is not there yet\n"
    "\n"
    "  lance-quant merge STATS... -o FILE\n"
    "      adds up statistics of several runs, weighted by their tokens\n"
    "\n"
    "  lance-quant compare --model DIR --reference DIR --task TASK --examples FILE | --prompts FILE [...] -o DIR\n"
    "      what a model makes of the same jobs as its reference: report.md, report.json and sheet.png in a new "
    "folder;\n"
    "      options as of calibrate; --stats FILE: what each layer's outputs lose, too\n"
    "\n"
    "  lance-quant check DIR\n"
    "      what a folder of 4-bit weights holds; exit status 1 when it does not hold together\n"
    "\n"
    "  lance-quant help, lance-quant --version\n";

static bool read_form(const char *text, struct code_form *form)
{
    const bool awq = strcmp(text, "awq-int4") == 0;
    form->format = awq ? WEIGHT_AWQ_INT4 : WEIGHT_NVFP4;
    return awq || strcmp(text, "nvfp4") == 0;
}

static bool read_recipe(const char *text, enum recipe_kind *kind)
{
    *kind = strcmp(text, "published") == 0 ? RECIPE_PUBLISHED : RECIPE_BEST;
    return *kind == RECIPE_PUBLISHED || strcmp(text, "best") == 0;
}

/* Take the ingredients that a list names out of *ingredients. */
static bool leave_out(const char *list, unsigned *ingredients)
{
    static const struct {
        const char *name;
        unsigned ingredient;
    } known[] = {{"scaling", WITH_SCALING},           {"down-through-up", WITH_DOWN_THROUGH_UP},
                 {"clipping", WITH_CLIPPING},         {"four-or-six", WITH_FOUR_OR_SIX},
                 {"feedback", WITH_FEEDBACK},         {"refinement", WITH_REFINEMENT}};
    while (*list != '\0') {
        const size_t length = strcspn(list, ",");
        size_t k = 0;
        while (k < sizeof known / sizeof *known &&
               (strlen(known[k].name) != length || strncmp(list, known[k].name, length) != 0))
            k++;
        if (k == sizeof known / sizeof *known)
            return false;
        *ingredients &= ~known[k].ingredient;
        list += length + (list[length] == ',');
    }
    return true;
}

static int command_apply(int argc, char **argv)
{
    static const struct option names[] = {
        {"model", required_argument, NULL, 'm'},
        {"stats", required_argument, NULL, 's'},
        {"form", required_argument, NULL, 'f'},
        {"group", required_argument, NULL, 'g'},
        {"recipe", required_argument, NULL, 'r'},
        {"without", required_argument, NULL, 'w'},
        {"slim", no_argument, NULL, 'S'},
        {"threads", required_argument, NULL, 't'},
        {"output", required_argument, NULL, 'o'},
        {0},
    };
    struct apply_options options = {.threads = command_processors(), .recipe.ingredients = WITH_ALL};
    struct error error;
    bool has_form = false, has_group = false;
    int group = DEFAULT_GROUP;
    for (int c; (c = command_line_next(argc, argv, ":o:", names, "lance-quant help", &error)) != -1;) {
        switch (c) {
        case 'm': options.model = optarg; break;
        case 's': options.statistics = optarg; break;
        case 'o': options.output = optarg; break;
        case 'f':
            if (!(has_form = read_form(optarg, &options.recipe.form)))
                return command_wrong("--form: must be awq-int4 or nvfp4");
            break;
        case 'g':
            if (!(has_group = command_number(optarg, 64, 128, &group) && (group == 64 || group == 128)))
                return command_wrong("--group: must be 64 or 128");
            break;
        case 'r':
            if (!read_recipe(optarg, &options.recipe.kind))
                return command_wrong("--recipe: must be best or published");
            break;
        case 'w':
            if (!leave_out(optarg, &options.recipe.ingredients))
                return command_wrong("--without: names what there is not");
            break;
        case 'S': options.recipe.slim = true; break;
        case 't':
            if (!command_number(optarg, 1, PARALLEL_MOST_THREADS, &options.threads))
                return command_wrong("--threads: must be from 1 to 64");
            break;
        default: command_complain(&error); return EXIT_WRONG_COMMAND_LINE;
        }
    }
    if (optind < argc || options.model == NULL || options.statistics == NULL || options.output == NULL || !has_form)
        return command_wrong("apply needs --model, --stats, --form and -o, and nothing else");
    if (options.recipe.slim && (options.recipe.form.format != WEIGHT_NVFP4 || options.recipe.kind != RECIPE_BEST))
        return command_wrong("--slim: is for nvfp4 and the recipe best");
    if (has_group && options.recipe.form.format == WEIGHT_NVFP4)
        return command_wrong("--group: NVFP4 has groups of 16");
    options.recipe.form.group = options.recipe.form.format == WEIGHT_NVFP4 ? NVFP4_GROUP : group;
    if (apply(&options, &command_interrupted, &error) != 0)
        return command_complain(&error);
    printf("%s: put it beside the release that it was made from, whose tokenizer, ViT and VAE it uses\n",
           options.output);
    return EXIT_SUCCESS;
}

static int merge(char **files, int count, const char *output, struct error *error)
{
    struct statistics *sum, *other;
    int status = statistics_open(&sum, files[0], error);
    for (int i = 1; i < count && status == 0; i++) {
        status = statistics_open(&other, files[i], error);
        if (status != 0)
            break;
        if ((status = statistics_add(sum, other, error)) != 0)
            error_prefix(error, "%s", files[i]);
        statistics_close(other);
    }
    if (status == 0)
        status = statistics_write(sum, output, NULL, error);
    if (status == 0)
        printf("%s: %d layers, %d of them with tokens, %d tasks\n", output, statistics_layers(sum),
               statistics_layers_seen(sum), statistics_tasks(sum));
    statistics_close(sum);
    return status;
}

static int command_merge(int argc, char **argv)
{
    static const struct option names[] = {{"output", required_argument, NULL, 'o'}, {0}};
    const char *output = NULL;
    struct error error;
    for (int c; (c = command_line_next(argc, argv, ":o:", names, "lance-quant help", &error)) != -1;) {
        if (c != 'o') {
            command_complain(&error);
            return EXIT_WRONG_COMMAND_LINE;
        }
        output = optarg;
    }
    if (optind >= argc || output == NULL)
        return command_wrong("merge needs at least one file of statistics, and -o");
    const size_t length = strlen(output);
    if (length <= 12 || strcmp(output + length - 12, ".safetensors") != 0)
        return command_wrong("-o: the name of the statistics must end in .safetensors");
    return merge(argv + optind, argc - optind, output, &error) != 0 ? command_complain(&error) : EXIT_SUCCESS;
}

static int command_check(int argc, char **argv)
{
    struct error error;
    int problems;
    if (argc != 3 || argv[2][0] == '-')
        return command_wrong("check needs one folder");
    if (check(argv[2], &problems, &error) != 0)
        return command_complain(&error);
    return problems > 0 || fflush(stdout) != 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    const char *command = argc > 1 ? argv[1] : "";
    command_watch_signals();
    mapped_files_guard();
    openblas_set_num_threads(1); /* parallel.h has the threads */
    opterr = 0;
    optind = 2;
    if (strcmp(command, "apply") == 0)
        return command_apply(argc, argv);
    if (strcmp(command, "calibrate") == 0)
        return calibrate_command(argc, argv);
    if (strcmp(command, "merge") == 0)
        return command_merge(argc, argv);
    if (strcmp(command, "check") == 0)
        return command_check(argc, argv);
    if (strcmp(command, "compare") == 0)
        return compare_command(argc, argv);
    if (strcmp(command, "help") == 0 || strcmp(command, "--help") == 0)
        return fputs(usage, stdout) < 0 || fflush(stdout) != 0 ? EXIT_FAILURE : EXIT_SUCCESS;
    if (strcmp(command, "--version") == 0)
        return puts("lance-quant " LANCED_VERSION) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
    return command_wrong(*command ? "there is no such command"
                                  : "needs a command: calibrate, apply, merge, compare or check");
}
