/* main.c: lance-quant makes quantised checkpoints of Lance.
 *
 *   lance-quant calibrate --model DIR --task TASK --examples FILE | --prompts FILE [--pictures DIR] ... -o FILE
 *   lance-quant apply --model DIR --stats FILE --form awq-int4|nvfp4|int8|mixed [--group 64|128] [--budget BITS]
 *               [--recipe best|published] [--slim] [--threads N] -o DIR
 *   lance-quant merge STATS... -o FILE
 *   lance-quant compare --model DIR --reference DIR --task TASK --examples FILE | --prompts FILE ... -o DIR
 *   lance-quant compare --recipes published,best --form FORM --stats FILE --reference DIR ... -o DIR
 *   lance-quant export --model DIR --form mlx|mlx-und|hf-und [--group N] [--bits 4|8] [--drop-qk-norm] -o DIR
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
#include "daemon/engine/tap.h"
#include "protocol/version.h"
#include "tools/lance-quant/apply_command.h"
#include "tools/lance-quant/calibrate_command.h"
#include "tools/lance-quant/check.h"
#include "tools/lance-quant/command.h"
#include "tools/lance-quant/compare_command.h"
#include "tools/lance-quant/export_command.h"

static const char usage[] =
    "lance-quant " LANCED_VERSION ": makes quantised checkpoints of Lance\n"
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
    "      --form FORM    awq-int4 or nvfp4, in the published layout; int8, which is near bf16;\n"
    "                     mixed: of each layer what is worth its bits\n"
    "      --budget BITS  mixed: bits a weight of the linear layers, from 4.2 to 16 [5]\n"
    "      --sensitivities FILE  mixed: by what results lose with each layer alone in 4 bits, as\n"
    "                     tools/layer_sensitivities.py measures it, rather than by what outputs of layers lose\n"
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
    "      --text FILE    how well both expect a text: perplexity\n"
    "      --recipes published,best --form awq-int4|nvfp4 [--group N] --stats FILE\n"
    "                     in place of --model: what these make of --reference, side by side in one report\n"
    "\n"
    "  lance-quant export --model DIR --form mlx|mlx-und|hf-und -o DIR\n"
    "      a release in bf16 or float32 as other programs read it: mlx for lance-mlx, mlx-und (understanding alone)\n"
    "      for mlx-lm, hf-und for transformers\n"
    "      --group N, --bits N  of mlx and mlx-und: 32, 64 or 128 columns [64]; 4 or 8 [4]\n"
    "      --drop-qk-norm       as Qwen2, without the model's head norms; mlx-und is nothing else\n"
    "\n"
    "  lance-quant check DIR\n"
    "      what a folder of weights, quantised or not, holds; exit status 1 when it does not hold together\n"
    "\n"
    "  lance-quant help, lance-quant --version\n";

static int merge(char **files, int count, const char *output, struct error *error)
{
    struct statistics *sum, *other;
    int code = statistics_open(&sum, files[0], error);
    for (int i = 1; i < count && code == 0; i++) {
        code = statistics_open(&other, files[i], error);
        if (code != 0)
            break;
        if ((code = statistics_add(sum, other, error)) != 0)
            error_prefix(error, "%s", files[i]);
        statistics_close(other);
    }
    if (code == 0)
        code = statistics_write(sum, output, NULL, error);
    if (code == 0)
        printf("%s: %d layers, %d of them with tokens, %d tasks\n", output, statistics_layers(sum),
               statistics_layers_seen(sum), statistics_tasks(sum));
    statistics_close(sum);
    return code;
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
    if (optind >= argc || !output)
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
        return apply_command(argc, argv);
    if (strcmp(command, "calibrate") == 0)
        return calibrate_command(argc, argv);
    if (strcmp(command, "merge") == 0)
        return command_merge(argc, argv);
    if (strcmp(command, "export") == 0)
        return export_command(argc, argv);
    if (strcmp(command, "check") == 0)
        return command_check(argc, argv);
    if (strcmp(command, "compare") == 0)
        return compare_command(argc, argv);
    if (strcmp(command, "help") == 0 || strcmp(command, "--help") == 0)
        return fputs(usage, stdout) < 0 || fflush(stdout) != 0 ? EXIT_FAILURE : EXIT_SUCCESS;
    if (strcmp(command, "--version") == 0)
        return puts("lance-quant " LANCED_VERSION) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
    return command_wrong(*command ? "there is no such command"
                                  : "needs a command: calibrate, apply, merge, compare, export or check");
}
