/* compare.c: see compare.h. */
#include "tools/lance-quant/compare.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/command_line.h"
#include "base/json.h"
#include "base/whole_file.h"
#include "daemon/engine/model/checkpoint/checkpoint.h"
#include "tools/lance-quant/command.h"
#include "tools/lance-quant/layer_losses.h"
#include "tools/lance-quant/likeness.h"
#include "tools/lance-quant/outcomes.h"
#include "tools/media/picture_file.h"

enum { MOST_SHEET_ROWS = 8 };

/* Of one sample, or the means of a task. */
struct score {
    double latents, psnr, ssim, fine;     /* pictures and clips; fine: energy over the reference's */
    double same, agreement, divergence;   /* answers; divergence: tokens before the first other one */
};

static int score_frames(const struct outcome *ours, const struct outcome *theirs, struct score *score,
                        struct error *error)
{
    const size_t frame = 3 * (size_t)ours->height * (size_t)ours->width;
    double energy = 0, wanted = 0, one;
    int status = 0;
    score->latents = likeness_relative_error(ours->latents, theirs->latents, ours->latent_count);
    score->psnr = likeness_psnr(ours->pixels, theirs->pixels, (size_t)ours->frames * frame);
    for (int f = 0; f < ours->frames && status == 0; f++) {
        const uint8_t *a = ours->pixels + (size_t)f * frame, *b = theirs->pixels + (size_t)f * frame;
        score->ssim += likeness_ssim(a, b, ours->height, ours->width) / ours->frames;
        status = likeness_fine_energy(a, ours->height, ours->width, &one, error);
        energy += one;
        if (status == 0)
            status = likeness_fine_energy(b, ours->height, ours->width, &one, error);
        wanted += one;
    }
    score->fine = wanted > 0 ? energy / wanted : 1;
    return status;
}

static void score_answer(const struct outcome *ours, const struct outcome *theirs, struct score *score)
{
    const int longer = ours->tokens > theirs->tokens ? ours->tokens : theirs->tokens;
    const int shorter = ours->tokens < theirs->tokens ? ours->tokens : theirs->tokens;
    int equal = 0, first = 0;
    while (first < shorter && ours->token_ids[first] == theirs->token_ids[first])
        first++;
    for (int i = 0; i < shorter; i++)
        equal += ours->token_ids[i] == theirs->token_ids[i];
    score->same = strcmp(ours->text, theirs->text) == 0;
    score->agreement = longer > 0 ? (double)equal / longer : 1;
    score->divergence = first;
}

static int score_one(const struct outcome *ours, const struct outcome *theirs, struct score *score, struct error *error)
{
    *score = (struct score){0};
    if (ours->text != NULL && theirs->text != NULL) {
        score_answer(ours, theirs, score);
        return 0;
    }
    if (ours->latent_count != theirs->latent_count || ours->frames != theirs->frames ||
        ours->height != theirs->height || ours->width != theirs->width || ours->pixels == NULL)
        return error_set(error, ERROR_INTERNAL, "the two models made results of different shapes");
    return score_frames(ours, theirs, score, error);
}

static void add_score(struct score *sum, const struct score *one, double weight)
{
    sum->latents += weight * one->latents;
    sum->psnr += weight * one->psnr;
    sum->ssim += weight * one->ssim;
    sum->fine += weight * one->fine;
    sum->same += weight * one->same;
    sum->agreement += weight * one->agreement;
    sum->divergence += weight * one->divergence;
}

static cJSON *score_json(enum lance_task task, const struct score *score, int samples)
{
    cJSON *json = json_object();
    json_add_text(json, "task", lance_task_name(task));
    json_add_number(json, "samples", samples);
    if (task_answers(task)) {
        json_add_number(json, "same_answers", score->same);
        json_add_number(json, "token_agreement", score->agreement);
        json_add_number(json, "tokens_before_divergence", score->divergence);
    } else {
        json_add_number(json, "latent_error", score->latents);
        json_add_number(json, "psnr_db", score->psnr);
        json_add_number(json, "ssim", score->ssim);
        json_add_number(json, "fine_energy", score->fine);
    }
    return json;
}

/* --- The report ---------------------------------------------------------------------------------------- */

static int put_file(const char *folder, const char *name, const char *text, struct error *error)
{
    char path[PATH_MAX];
    if (text == NULL)
        return error_set(error, ERROR_NO_MEMORY, "lance-quant: no memory for the report");
    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path)
        return error_set(error, ERROR_IO, "%s: the path is too long", folder);
    return whole_file_write(path, text, strlen(text), error);
}

/* The layers over depth. Those in the middle third have their numbers in bold. */
static void layers_text(FILE *out, const cJSON *layers)
{
    static const char *const matrices[] = {"q", "k", "v", "o", "gate", "up", "down"};
    const int count = cJSON_GetArraySize(layers);
    double deepest = 0;
    for (const cJSON *layer = layers->child; layer != NULL; layer = layer->next)
        deepest = fmax(deepest, cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(layer, "layer")));
    if (count > 0)
        fputs("\nWhat the outputs of each layer lose, by the statistics' inputs; the middle third is in bold.\n"
              "\n| expert | layer | q | k | v | o | gate | up | down |\n"
              "| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n", out);
    for (const cJSON *layer = layers->child; layer != NULL; layer = layer->next) {
        const double number = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(layer, "layer"));
        const bool middle = 3 * number >= deepest + 1 && 3 * number < 2 * (deepest + 1);
        fprintf(out, middle ? "| %s | **%g** |" : "| %s | %g |", json_text(layer, "expert"), number);
        for (size_t m = 0; m < sizeof matrices / sizeof *matrices; m++)
            fprintf(out, " %.4f |", cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(layer, matrices[m])));
        fputc('\n', out);
    }
}

/* The tables of report.md, from what report.json has; malloc'ed. */
static char *report_text(const struct compare_options *options, const cJSON *tasks, const cJSON *layers)
{
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    if (out == NULL)
        return NULL;
    fprintf(out, "# %s against %s\n\nThe same jobs, seeds and noise; means over samples.\n", options->jobs->model,
            options->reference);
    fputs("\n| task | samples | latents off by | PSNR, dB | SSIM | energy above half of Nyquist, of the reference's |\n"
          "| --- | --- | --- | --- | --- | --- |\n", out);
    for (const cJSON *t = tasks->child; t != NULL; t = t->next)
        if (cJSON_GetObjectItemCaseSensitive(t, "latent_error") != NULL)
            fprintf(out, "| %s | %g | %.4f | %.2f | %.4f | %.4f |\n", json_text(t, "task"),
                    cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(t, "samples")),
                    cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(t, "latent_error")),
                    cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(t, "psnr_db")),
                    cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(t, "ssim")),
                    cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(t, "fine_energy")));
    fputs("\n| task | questions | same answers | tokens that agree | tokens before the first other one |\n"
          "| --- | --- | --- | --- | --- |\n", out);
    for (const cJSON *t = tasks->child; t != NULL; t = t->next)
        if (cJSON_GetObjectItemCaseSensitive(t, "same_answers") != NULL)
            fprintf(out, "| %s | %g | %.1f %% | %.1f %% | %.1f |\n", json_text(t, "task"),
                    cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(t, "samples")),
                    100 * cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(t, "same_answers")),
                    100 * cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(t, "token_agreement")),
                    cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(t, "tokens_before_divergence")));
    layers_text(out, layers);
    return fclose(out) == 0 ? text : NULL;
}

/* The first pictures, the reference's on the left, the model's on the right. */
static int write_sheet(const struct compare_options *options, const struct outcome *ours, const struct outcome *theirs,
                       struct error *error)
{
    const struct outcome *rows[MOST_SHEET_ROWS][2];
    int count = 0, width = 0, height = 0;
    for (int i = 0; i < options->samples->count && count < MOST_SHEET_ROWS; i++)
        if (ours[i].pixels != NULL) {
            rows[count][0] = &theirs[i];
            rows[count++][1] = &ours[i];
            width = 2 * ours[i].width > width ? 2 * ours[i].width : width;
            height += ours[i].height;
        }
    if (count == 0)
        return 0;
    char path[PATH_MAX];
    uint8_t *sheet = calloc((size_t)width * (size_t)height, 3), *at = sheet;
    if (sheet == NULL)
        return error_set(error, ERROR_NO_MEMORY, "lance-quant: no memory for the sheet");
    for (int r = 0; r < count; r++)
        for (int y = 0; y < rows[r][0]->height; y++, at += 3 * width)
            for (int side = 0; side < 2; side++) {
                const struct outcome *o = rows[r][side];
                const size_t line = 3 * (size_t)o->width;
                memcpy(at + (size_t)side * line, o->pixels + (size_t)y * line, line);
            }
    snprintf(path, sizeof path, "%s/sheet.png", options->output);
    const int status = picture_write(path, sheet, width, height, NULL, error);
    free(sheet);
    return status;
}

static int write_report(const struct compare_options *options, cJSON *report, struct error *error)
{
    char *json = json_print(report);
    char *text = json == NULL ? NULL
                              : report_text(options, cJSON_GetObjectItemCaseSensitive(report, "tasks"),
                                            cJSON_GetObjectItemCaseSensitive(report, "layers"));
    int status = put_file(options->output, "report.json", json, error);
    if (status == 0)
        status = put_file(options->output, "report.md", text, error);
    if (status == 0)
        fputs(text, stdout);
    cJSON_free(json);
    free(text);
    return status;
}

static int score_all(const struct compare_options *options, const struct outcome *ours, const struct outcome *theirs,
                     cJSON *tasks, cJSON *list, struct error *error)
{
    struct score sums[LANCE_TASK_COUNT] = {0}, one;
    int counts[LANCE_TASK_COUNT] = {0};
    for (int i = 0; i < options->samples->count; i++)
        counts[options->samples->list[i].task]++;
    for (int i = 0; i < options->samples->count; i++) {
        const enum lance_task task = options->samples->list[i].task;
        const int status = score_one(&ours[i], &theirs[i], &one, error);
        if (status != 0)
            return status;
        add_score(&sums[task], &one, 1.0 / counts[task]);
        json_append(list, score_json(task, &one, 1));
    }
    for (int task = 0; task < LANCE_TASK_COUNT; task++)
        if (counts[task] > 0)
            json_append(tasks, score_json((enum lance_task)task, &sums[task], counts[task]));
    return 0;
}

static int make_report(const struct compare_options *options, const struct outcome *ours, const struct outcome *theirs,
                       struct error *error)
{
    cJSON *report = json_object();
    json_add_text(report, "model", options->jobs->model);
    json_add_text(report, "reference", options->reference);
    cJSON *tasks = json_add_array(report, "tasks"), *list = json_add_array(report, "samples");
    cJSON *layers = json_add_array(report, "layers");
    int status = score_all(options, ours, theirs, tasks, list, error);
    if (status == 0 && options->statistics != NULL)
        status = layer_losses(layers, options->jobs->model, options->reference, options->statistics,
                              options->jobs->threads, error);
    if (status == 0)
        status = write_report(options, report, error);
    if (status == 0)
        status = write_sheet(options, ours, theirs, error);
    cJSON_Delete(report);
    return status;
}

/* What can be seen before hours of work: that the model can be opened, and the folder made, which is there then. */
static int begin(const struct compare_options *options, struct error *error)
{
    const struct job_options *jobs = options->jobs;
    struct checkpoint *checkpoint;
    const struct checkpoint_options model = {.model_dir = jobs->model, .vae_path = jobs->vae, .vit_path = jobs->vit};
    const int status = checkpoint_open(&checkpoint, &model, error);
    if (status != 0)
        return status;
    checkpoint_close(checkpoint);
    if (mkdir(options->output, 0777) != 0)
        return error_set(error, errno == EEXIST ? ERROR_BAD_REQUEST : ERROR_IO, "%s: %s", options->output,
                         strerror(errno));
    return 0;
}

int compare(const struct compare_options *options, const volatile int *interrupted, struct error *error)
{
    const int count = options->samples->count;
    struct outcomes_options run = {options->reference, options->jobs, options->samples};
    struct outcome *theirs = calloc((size_t)count, sizeof *theirs), *ours = calloc((size_t)count, sizeof *ours);
    const int begun = theirs == NULL || ours == NULL ? error_set(error, ERROR_NO_MEMORY, "lance-quant: no memory")
                                                     : begin(options, error);
    int status = begun != 0 ? begun : outcomes_run(theirs, &run, interrupted, error);
    run.model = options->jobs->model;
    if (status == 0)
        status = outcomes_run(ours, &run, interrupted, error);
    if (status == 0)
        status = make_report(options, ours, theirs, error);
    if (begun == 0 && status != 0)
        rmdir(options->output); /* where nothing is in it */
    outcomes_free(theirs, count);
    outcomes_free(ours, count);
    return status;
}

int compare_command(int argc, char **argv)
{
    static const struct option names[] = {
        JOB_OPTIONS, {"reference", required_argument, NULL, 'R'}, {"stats", required_argument, NULL, 'a'},
        {"output", required_argument, NULL, 'o'}, {0}};
    struct job_options jobs;
    struct samples samples = {0};
    struct compare_options options = {.jobs = &jobs, .samples = &samples};
    struct error error;
    job_options_init(&jobs);
    for (int c; (c = command_line_next(argc, argv, ":o:", names, "lance-quant help", &error)) != -1;) {
        bool known;
        const char *complaint = job_option(&jobs, c, &known);
        if (complaint != NULL)
            return command_wrong(complaint);
        if (c == 'R')
            options.reference = optarg;
        else if (c == 'a')
            options.statistics = optarg;
        else if (c == 'o')
            options.output = optarg;
        else if (!known) {
            command_complain(&error);
            return EXIT_WRONG_COMMAND_LINE;
        }
    }
    if (optind < argc || options.reference == NULL || options.output == NULL)
        return command_wrong("compare needs --reference and -o, and nothing but options");
    struct stat there;
    if (stat(options.output, &there) == 0)
        return command_wrong("-o: that folder exists");
    const char *complaint = job_samples(&jobs, &samples, &error);
    int status = complaint != NULL ? command_wrong(complaint) : error.code != 0 ? command_complain(&error) : -1;
    if (status < 0)
        status = compare(&options, &command_interrupted, &error) != 0 ? command_complain(&error) : EXIT_SUCCESS;
    samples_free(&samples);
    return status;
}
