/* apply.c: see apply.h.
 *
 * The work is numbered: layer * PARTS_PER_LAYER + part, and then one more, the tensors that are copied. output.c
 * remembers which numbers are done.
 */
#include "tools/lance-quant/apply.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mapped_file.h"
#include "tools/lance-quant/best_part.h"
#include "tools/lance-quant/meta.h"
#include "tools/lance-quant/mix.h"
#include "tools/lance-quant/part_work.h"

enum { MOST_KINDS = 32 }; /* of layers, of which both experts have 14 */

struct work {
    const struct apply_options *options;
    struct source *source;
    struct statistics *statistics;
    struct tensor_view *tensors; /* to be written */
    size_t count;
    int layers;
    struct output *output;
    struct recipe recipe; /* the options', with the mix */
    struct mix mix;       /* of a mixed folder */
    struct best_found found[PARTS_PER_LAYER];
    double started;
    int before; /* works that an earlier run did */
};

/* The name of the layer whose codes a tensor is; false: it is none. */
static bool layer_of(const struct tensor_view *tensor, char name[LAYOUT_NAME_BYTES])
{
    const int length = (int)strlen(tensor->name) - (int)strlen(PART_CODES) - 1;
    if (length <= 0 || length >= LAYOUT_NAME_BYTES || strcmp(tensor->name + length + 1, PART_CODES) != 0)
        return false;
    snprintf(name, LAYOUT_NAME_BYTES, "%.*s", length, tensor->name);
    return true;
}

/* What the result depends on, as a line. */
static void identity(const struct work *work, char line[160])
{
    struct sha256 digest;
    char hex[65];
    sha256_start(&digest);
    source_digest(work->source, &digest);
    for (size_t i = 0; i < work->count; i++) {
        char name[LAYOUT_NAME_BYTES];
        sha256_add(&digest, work->tensors[i].name, strlen(work->tensors[i].name) + 1);
        sha256_add(&digest, work->tensors[i].shape, sizeof work->tensors[i].shape);
        if (layer_of(&work->tensors[i], name))
            statistics_digest(work->statistics, name, &digest);
    }
    sha256_finish(&digest, hex);
    const struct recipe *recipe = &work->recipe;
    const bool best = recipe->kind == RECIPE_BEST;
    snprintf(line, 160, "lance-quant %s %u%s %s %d %g %s", best ? "best" : "published", best ? recipe->ingredients : 0,
             recipe->slim ? " slim" : "", layout_weights_file(recipe), recipe->form.group, recipe->budget, hex);
}

static void report(const struct work *work, int done, int works)
{
    const int here = done - work->before;
    const double seconds = clock_seconds() - work->started, left = here > 0 ? seconds / here * (works - done) : 0;
    fprintf(stderr, "%s%3d %% of %d layers, %d:%02d left%s", isatty(2) ? "\r" : "", 100 * done / works, work->layers,
            (int)left / 60, (int)left % 60, isatty(2) ? "\033[K" : "\n");
    if (isatty(2) && done == works)
        fputc('\n', stderr);
}

/* A tensor that is not quantised: floating-point numbers as bf16, others as they are. */
static int copy_tensor(struct work *work, const struct tensor_view *tensor, struct error *error)
{
    return layout_is_floating(tensor->dtype)
               ? output_write_bf16(work->output, tensor, NULL, error)
               : output_write(work->output, tensor->name, tensor->data, tensor->bytes, error);
}

static int copy_others(struct work *work, struct error *error)
{
    int code = 0;
    for (size_t i = 0; i < source_count(work->source) && code == 0; i++) {
        const struct tensor_view *tensor = source_at(work->source, i);
        if (!layout_is_copied(tensor))
            continue;
        code = copy_tensor(work, tensor, error);
        mapped_file_let_go(tensor->data, tensor->bytes);
    }
    return code;
}

static int do_part(struct work *work, int number, struct error *error)
{
    const struct apply_options *options = work->options;
    const struct best_work best = {work->source,     work->statistics, &work->recipe,
                                   options->threads, work->output,     work->found};
    const int layer = number / PARTS_PER_LAYER, index = number % PARTS_PER_LAYER;
    struct part part;
    int code = layout_part(work->source, layer, index, &part, error);
    for (int l = 0; l < part.count && code == 0; l++)
        code = matrix_check(&part.matrices[l], error);
    if (code == 0 && options->recipe.kind == RECIPE_BEST)
        code = best_part_quantise(&best, layer, index, &part, error);
    else if (code == 0)
        code = part_quantise(&part, work->statistics, &options->recipe.form, options->threads, work->output, error);
    for (int l = 0; l < part.count; l++)
        mapped_file_let_go(part.matrices[l].tensor->data, part.matrices[l].tensor->bytes);
    return code;
}

static int do_works(struct work *work, const volatile int *interrupted, struct error *error)
{
    const int works = work->layers * PARTS_PER_LAYER + 1;
    int code = 0;
    work->before = output_done_count(work->output);
    work->started = clock_seconds();
    if (work->before > 0)
        fprintf(stderr, "going on where an earlier run was cut off\n");
    for (int number = 0; number < works && code == 0; number++) {
        if (output_is_done(work->output, number))
            continue;
        if (*interrupted)
            return error_set(error, ERROR_CANCELLED, "interrupted; call it again to go on");
        code = number < works - 1 ? do_part(work, number, error) : copy_others(work, error);
        if (code == 0)
            code = output_done(work->output, number, error);
        if (code == 0 && (isatty(2) || number % PARTS_PER_LAYER == PARTS_PER_LAYER - 1))
            report(work, output_done_count(work->output), works);
    }
    return code;
}

static int write_meta(struct work *work, struct error *error)
{
    char *text;
    int code = meta_text(&text, work->source, work->layers, work->statistics, &work->recipe, error);
    if (code == 0) {
        code = output_text(work->output, layout_meta_file(&work->recipe), text, error);
        free(text);
    }
    return code;
}

/* "self_attn.q_proj" of "language_model.model.layers.0.self_attn.q_proj". */
static const char *kind_of(const char *layer)
{
    static const char before[] = ".layers.";
    const char *number = strstr(layer, before);
    const char *rest = number ? strchr(number + strlen(before), '.') : NULL;
    return rest ? rest + 1 : layer;
}

/* The model's layers of which nothing was counted: how many, and of which kinds. */
static void warn_of_layers(const struct work *work)
{
    char name[LAYOUT_NAME_BYTES], kinds[MOST_KINDS][LAYOUT_NAME_BYTES];
    int layers = 0, unseen = 0, kind_count = 0, counts[MOST_KINDS] = {0};
    for (size_t i = 0; i < work->count; i++) {
        if (!layer_of(&work->tensors[i], name))
            continue;
        layers++;
        if (statistics_saw(work->statistics, name))
            continue;
        unseen++;
        int k = 0;
        while (k < kind_count && strcmp(kinds[k], kind_of(name)) != 0)
            k++;
        if (k == MOST_KINDS)
            continue;
        if (k == kind_count)
            snprintf(kinds[kind_count++], LAYOUT_NAME_BYTES, "%s", kind_of(name));
        counts[k]++;
    }
    if (unseen == 0)
        return;
    fprintf(stderr, "lance-quant: %s saw no token in %d of %d layers; these are rounded without a search for scales:",
            work->options->statistics, unseen, layers);
    for (int k = 0; k < kind_count; k++)
        fprintf(stderr, "%s %s (%d)", k > 0 ? "," : "", kinds[k], counts[k]);
    fputc('\n', stderr);
}

static void warn_of_statistics(const struct work *work)
{
    warn_of_layers(work);
    if (work->options->recipe.kind == RECIPE_BEST && !statistics_have_moments(work->statistics))
        fprintf(stderr, "lance-quant: %s has no products of inputs, which the recipe best makes most of; lance-quant "
                "calibrate counts them\n", work->options->statistics);
}

static int choose_mix(struct work *work, struct error *error)
{
    const struct mix_options options = {
        work->source, work->statistics, work->options->sensitivities, work->layers, work->options->recipe.budget,
        work->options->threads};
    const int code = mix_choose(&work->mix, &options, error);
    work->recipe.mix = &work->mix;
    if (code == 0)
        fprintf(stderr, "chosen: %.3f bits a weight\n", work->mix.bits);
    return code;
}

int apply(const struct apply_options *options, const volatile int *interrupted, struct error *error)
{
    struct work work = {.options = options, .recipe = options->recipe};
    char line[160];
    int code = source_open(&work.source, options->model, error);
    if (code == 0)
        code = statistics_open(&work.statistics, options->statistics, error);
    if (code == 0)
        code = layout_layers(work.source, &work.layers, error);
    if (code == 0 && options->recipe.budget > 0)
        code = choose_mix(&work, error);
    if (code == 0)
        code = layout_tensors(work.source, &work.recipe, &work.tensors, &work.count, error);
    if (code == 0) {
        warn_of_statistics(&work);
        identity(&work, line);
        code = output_open(&work.output, options->output, layout_weights_file(&work.recipe), line,
                           work.tensors, work.count, error);
    }
    if (code == 0)
        code = do_works(&work, interrupted, error);
    if (code == 0)
        code = write_meta(&work, error);
    if (code == 0)
        code = output_finish(work.output, error);
    output_close(work.output);
    for (int index = 0; index < PARTS_PER_LAYER; index++)
        free(work.found[index].scale);
    if (work.tensors)
        layout_free(work.tensors, work.count);
    mix_close(&work.mix);
    statistics_close(work.statistics);
    source_close(work.source);
    return code;
}
