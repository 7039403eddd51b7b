/* compare.c: see compare.h. */
#include "tools/lance-quant/compare.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"
#include "base/whole_file.h"
#include "daemon/engine/model/checkpoint/checkpoint.h"
#include "daemon/engine/tap.h"
#include "tools/lance-quant/apply.h"
#include "tools/lance-quant/comparison_report.h"
#include "tools/lance-quant/layer_losses.h"
#include "tools/lance-quant/outcomes.h"
#include "tools/lance-quant/scores.h"
#include "tools/media/picture_file.h"

enum { MOST_SHEET_ROWS = 8 };

struct comparison {
    const struct compare_options *options;
    const volatile int *interrupted;
    struct outcome *theirs; /* [samples]: the reference's */
    struct text_loss their_loss;
    bool looks_at_layers;
};

/* --- The report ---------------------------------------------------------------------------------------- */

static int put_file(const char *folder, const char *name, const char *text, struct error *error)
{
    char path[PATH_MAX];
    if (!text)
        return error_set(error, ERROR_NO_MEMORY, "lance-quant: no memory for the report");
    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path)
        return error_set(error, ERROR_IO, "%s: the path is too long", folder);
    return whole_file_write(path, text, strlen(text), error);
}

/* The first pictures, the reference's on the left, the model's on the right. */
static int write_sheet(const char *folder, const struct outcome *ours, const struct outcome *theirs, int count,
                       struct error *error)
{
    const struct outcome *rows[MOST_SHEET_ROWS][2];
    int row_count = 0, width = 0, height = 0;
    for (int i = 0; i < count && row_count < MOST_SHEET_ROWS; i++)
        if (ours[i].pixels) {
            rows[row_count][0] = &theirs[i];
            rows[row_count++][1] = &ours[i];
            width = 2 * ours[i].width > width ? 2 * ours[i].width : width;
            height += ours[i].height;
        }
    if (row_count == 0)
        return 0;
    char path[PATH_MAX];
    uint8_t *sheet = calloc((size_t)width * (size_t)height, 3), *at = sheet;
    if (!sheet)
        return error_set(error, ERROR_NO_MEMORY, "lance-quant: no memory for the sheet");
    for (int r = 0; r < row_count; r++)
        for (int y = 0; y < rows[r][0]->height; y++, at += 3 * width)
            for (int side = 0; side < 2; side++) {
                const struct outcome *o = rows[r][side];
                const size_t line = 3 * (size_t)o->width;
                memcpy(at + (size_t)side * line, o->pixels + (size_t)y * line, line);
            }
    snprintf(path, sizeof path, "%s/sheet.png", folder);
    const int code = picture_write(path, sheet, width, height, NULL, error);
    free(sheet);
    return code;
}

/* report.json and report.md of models, which are printed. */
static int write_report(const struct compare_options *options, const char *folder, const cJSON *whole,
                        const cJSON *models, struct error *error)
{
    char *json = json_print(whole);
    char *text = !json ? NULL : comparison_report_text(options->reference, models);
    int code = put_file(folder, "report.json", json, error);
    if (code == 0)
        code = put_file(folder, "report.md", text, error);
    if (code == 0)
        fputs(text, stdout);
    cJSON_free(json);
    free(text);
    return code;
}

/* What report.json says of a model. */
static int fill_report(const struct comparison *c, cJSON *report, const char *model, const struct outcome *ours,
                       const struct text_loss *loss, struct error *error)
{
    const struct compare_options *options = c->options;
    json_add_text(report, "reference", options->reference);
    cJSON *tasks = json_add_array(report, "tasks"), *list = json_add_array(report, "samples");
    cJSON *layers = json_add_array(report, "layers");
    int code = scores_add(tasks, list, options->samples, ours, c->theirs, error);
    if (code == 0 && c->looks_at_layers)
        code = layer_losses(layers, model, options->reference, options->statistics, options->jobs, error);
    if (options->text) {
        cJSON *text = json_add_object(report, "text");
        json_add_number(text, "tokens", loss->tokens);
        json_add_number(text, "perplexity", loss->perplexity);
        json_add_number(text, "reference_perplexity", c->their_loss.perplexity);
    }
    return code;
}

/* Run a model, put its sheet into the folder, and what was seen of it, called `name`, into `reports`. */
static int compare_model(const struct comparison *c, const char *model, const char *name, const char *folder,
                         cJSON *reports, struct error *error)
{
    const struct compare_options *options = c->options;
    const struct outcomes_options run = {model, options->jobs, options->samples, options->text, c->theirs};
    const int count = options->samples->count;
    struct text_loss loss = {0};
    struct outcome *ours = calloc((size_t)count, sizeof *ours);
    cJSON *report = json_object();
    json_append(reports, report);
    json_add_text(report, "model", name);
    int code = !ours ? error_set(error, ERROR_NO_MEMORY, "lance-quant: no memory")
                     : outcomes_run(ours, &loss, &run, c->interrupted, error);
    if (code == 0)
        code = fill_report(c, report, model, ours, &loss, error);
    if (code == 0)
        code = write_sheet(folder, ours, c->theirs, count, error);
    outcomes_free(ours, count);
    return code;
}

/* --- Models of recipes ------------------------------------------------------------------------------------ */

static int make_folder(const char *folder, struct error *error)
{
    return mkdir(folder, 0777) == 0 ? 0
                                    : error_set(error, errno == EEXIST ? ERROR_BAD_REQUEST : ERROR_IO, "%s: %s", folder,
                                                strerror(errno));
}

static int join(char path[PATH_MAX], const char *folder, const char *name, struct error *error)
{
    return snprintf(path, PATH_MAX, "%s/%s", folder, name) < PATH_MAX
               ? 0
               : error_set(error, ERROR_IO, "%s: the path is too long", folder);
}

static int link_one(const char *folder, const char *name, const char *model, struct error *error)
{
    char from[PATH_MAX], to[PATH_MAX];
    int code = join(from, folder, name, error);
    if (code == 0)
        code = join(to, model, name, error);
    if (code == 0 && access(from, F_OK) == 0 && symlink(from, to) != 0 && errno != EEXIST)
        code = error_set(error, ERROR_IO, "%s: %s", to, strerror(errno));
    return code;
}

/* What a model needs beside its weights: all that the reference has in its folder but weights, and in the one above. */
static int link_rest(const char *reference, const char *model, struct error *error)
{
    static const char *const above[] = {"Qwen2.5-VL-ViT", "Wan2.2_VAE.pth", "Wan2.2_VAE.safetensors"};
    char folder[PATH_MAX], parent[PATH_MAX];
    DIR *directory = realpath(reference, folder) ? opendir(folder) : NULL;
    if (!directory)
        return error_set(error, ERROR_IO, "%s: %s", reference, strerror(errno));
    int code = 0;
    for (const struct dirent *entry; code == 0 && (entry = readdir(directory));)
        if (entry->d_name[0] != '.' && strncmp(entry->d_name, "model", 5) != 0)
            code = link_one(folder, entry->d_name, model, error);
    closedir(directory);
    if (code == 0)
        code = join(parent, folder, "..", error);
    for (size_t i = 0; code == 0 && i < sizeof above / sizeof *above; i++)
        code = link_one(parent, above[i], model, error);
    return code;
}

static int make_model(const struct comparison *c, const struct recipe *recipe, const char *model, struct error *error)
{
    const struct compare_options *options = c->options;
    const struct apply_options work = {
        .model = options->reference, .statistics = options->statistics, .output = model, .recipe = *recipe,
        .threads = options->jobs->threads};
    const int code = apply(&work, c->interrupted, error);
    return code != 0 ? code : link_rest(options->reference, model, error);
}

static const char *name_of(const struct recipe *recipe)
{
    return recipe->kind == RECIPE_BEST ? "best" : "published";
}

/* Make all models, into OUTPUT/RECIPE/model. */
static int make_models(const struct comparison *c, struct error *error)
{
    int code = 0;
    for (int i = 0; i < c->options->recipe_count && code == 0; i++) {
        const struct recipe *recipe = &c->options->recipes[i];
        char folder[PATH_MAX], model[PATH_MAX];
        code = join(folder, c->options->output, name_of(recipe), error);
        if (code == 0)
            code = make_folder(folder, error);
        if (code == 0)
            code = join(model, folder, "model", error);
        if (code == 0)
            code = make_model(c, recipe, model, error);
    }
    return code;
}

static int compare_recipes(const struct comparison *c, cJSON *reports, struct error *error)
{
    int code = 0;
    for (int i = 0; i < c->options->recipe_count && code == 0; i++) {
        const char *name = name_of(&c->options->recipes[i]);
        char folder[PATH_MAX], model[PATH_MAX];
        code = join(folder, c->options->output, name, error);
        if (code == 0)
            code = join(model, folder, "model", error);
        if (code == 0)
            code = compare_model(c, model, name, folder, reports, error);
    }
    return code;
}

/* --- All of it --------------------------------------------------------------------------------------------- */

/* Whether the statistics have what tells losses of layers; without it only recipes have a use for them. */
static int look_at_statistics(struct comparison *c, struct error *error)
{
    struct statistics *statistics;
    if (!c->options->statistics)
        return 0;
    const int code = statistics_open(&statistics, c->options->statistics, error);
    c->looks_at_layers = code == 0 && statistics_have_moments(statistics);
    statistics_close(statistics);
    return code != 0 || c->looks_at_layers || c->options->recipe_count > 0
               ? code
               : error_set(error, ERROR_BAD_FILE, "%s: has no products of inputs, which tell what layers lose",
                           c->options->statistics);
}

/* That what the model's layers lose of the reference's can be told: they have the same shapes. */
static int check_shapes(const struct checkpoint *model, const struct compare_options *options, struct error *error)
{
    struct checkpoint *reference;
    const struct checkpoint_options of_reference = {
        .model_dir = options->reference, .vae_path = options->jobs->vae, .vit_path = options->jobs->vit};
    const int code = checkpoint_open(&reference, &of_reference, error);
    if (code != 0)
        return code;
    const struct lance_config *a = checkpoint_config(model), *b = checkpoint_config(reference);
    const bool same = a->layers == b->layers && a->hidden_size == b->hidden_size && a->heads == b->heads &&
                      a->kv_heads == b->kv_heads && a->head_dim == b->head_dim &&
                      a->intermediate_size == b->intermediate_size;
    checkpoint_close(reference);
    return same ? 0 : error_set(error, ERROR_BAD_REQUEST, "--stats: the layers of %s and %s have other shapes, so that "
                                "what they lose cannot be told; leave it out", options->jobs->model,
                                options->reference);
}

/* What can be seen before hours of work: that the model can be opened, and the folder made, which is there then. */
static int begin(struct comparison *c, struct error *error)
{
    const struct compare_options *options = c->options;
    const struct job_options *jobs = options->jobs;
    struct checkpoint *checkpoint;
    const struct checkpoint_options model = {.model_dir = options->recipe_count > 0 ? options->reference : jobs->model,
                                             .vae_path = jobs->vae, .vit_path = jobs->vit};
    int code = checkpoint_open(&checkpoint, &model, error);
    if (code != 0)
        return code;
    code = look_at_statistics(c, error);
    if (code == 0 && c->looks_at_layers && options->recipe_count == 0)
        code = check_shapes(checkpoint, options, error);
    checkpoint_close(checkpoint);
    return code != 0 ? code : make_folder(options->output, error);
}

static int run_all(struct comparison *c, cJSON *reports, struct error *error)
{
    const struct compare_options *options = c->options;
    const struct outcomes_options run = {options->reference, options->jobs, options->samples, options->text, NULL};
    int code = make_models(c, error);
    if (code == 0)
        code = outcomes_run(c->theirs, &c->their_loss, &run, c->interrupted, error);
    if (code != 0)
        return code;
    if (options->recipe_count == 0) {
        const char *model = options->jobs->model;
        code = compare_model(c, model, model, options->output, reports, error);
        return code != 0 ? code : write_report(options, options->output, reports->child, reports, error);
    }
    code = compare_recipes(c, reports, error);
    return code != 0 ? code : write_report(options, options->output, reports, reports, error);
}

int compare(const struct compare_options *options, const volatile int *interrupted, struct error *error)
{
    const int count = options->samples->count;
    struct comparison c = {options, interrupted, calloc((size_t)count, sizeof *c.theirs), {0}, false};
    cJSON *reports = json_array();
    const int begun = !c.theirs || !reports ? error_set(error, ERROR_NO_MEMORY, "lance-quant: no memory")
                                            : begin(&c, error);
    const int code = begun != 0 ? begun : run_all(&c, reports, error);
    if (begun == 0 && code != 0)
        rmdir(options->output); /* where nothing is in it */
    cJSON_Delete(reports);
    outcomes_free(c.theirs, count);
    return code;
}
