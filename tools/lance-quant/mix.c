/* mix.c: see mix.h.
 *
 * Everything begins in the smallest form; then, again and again, the layer is given a larger one that loses most less
 * for each bit more, as long as that fits.
 */
#include "tools/lance-quant/mix.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/parallel.h"
#include "base/text_file.h"
#include "tools/lance-quant/best_part.h"
#include "tools/lance-quant/row_codes.h"

enum { SAMPLED_ROWS = 32, CHOICES = 4, MOST_BYTES = 1 << 22, MOST_VALUES = 1 << 15 };

/* By their bits. */
static const struct code_form choices[CHOICES] = {
    {WEIGHT_AWQ_INT4, 128}, {WEIGHT_AWQ_INT4, 64}, {WEIGHT_INT8, INT8_GROUP}, {WEIGHT_BF16, 0}};

struct layer_choice {
    char name[LAYOUT_NAME_BYTES]; /* without ".weight" */
    double weights;
    double bits[CHOICES], losses[CHOICES]; /* a weight; of what the layer gives */
    int chosen;
};

/* All layers, while they are chosen for. */
struct choosing {
    struct layer_choice *layers;
    int count;
    cJSON *sensitivities; /* or NULL */
};

void mix_close(struct mix *mix)
{
    free(mix->layers);
    *mix = (struct mix){0};
}

static double bits_chosen(const struct choosing *choosing)
{
    double bits = 0, weights = 0;
    for (int i = 0; i < choosing->count; i++) {
        bits += choosing->layers[i].bits[choosing->layers[i].chosen] * choosing->layers[i].weights;
        weights += choosing->layers[i].weights;
    }
    return weights > 0 ? bits / weights : 0;
}

/* --- What a layer loses ---------------------------------------------------------------------------------- */

struct trial {
    const struct matrix *matrix;
    struct row_rounding rounding;
    int rows;
    double lost[SAMPLED_ROWS], whole[SAMPLED_ROWS];
};

static int try_row(void *context, int item)
{
    struct trial *trial = context;
    const int width = trial->matrix->in_features;
    struct row_room room;
    struct error ignored;
    if (row_room_open(&room, width, &ignored) != 0)
        return ERROR_NO_MEMORY;
    matrix_row(trial->matrix, (int)((int64_t)item * trial->matrix->out_features / trial->rows), room.row);
    trial->whole[item] = quadratic_cost(trial->rounding.q, room.row);
    row_codes(&trial->rounding, room.row, &room, NULL);
    for (int i = 0; i < width; i++)
        room.row[i] = room.rounded[i] - room.row[i];
    trial->lost[item] = quadratic_cost(trial->rounding.q, room.row);
    row_room_close(&room);
    return 0;
}

static double bits_of(const struct code_form *form)
{
    return form->format == WEIGHT_BF16 ? 16 : form->format == WEIGHT_INT8 ? 8 + 16.0 / form->group
                                                                          : 4 + 24.0 / form->group;
}

static int measure(struct layer_choice *layer, const struct matrix *matrix, const struct quadratic *q, int threads,
                   struct error *error)
{
    struct trial trial = {.matrix = matrix,
                          .rows = matrix->out_features < SAMPLED_ROWS ? matrix->out_features : SAMPLED_ROWS};
    layer->weights = (double)matrix->out_features * (double)matrix->in_features;
    for (int choice = 0; choice < CHOICES; choice++) {
        const struct code_form form = layout_form(&choices[choice], matrix);
        double lost = 0, whole = 0;
        layer->bits[choice] = bits_of(&form);
        layer->losses[choice] = 0;
        if (form.format == WEIGHT_BF16)
            continue;
        trial.rounding = (struct row_rounding){.form = form, .ingredients = WITH_ALL, .q = q, .tensor_scale = 1};
        if (parallel_run(trial.rows, threads, try_row, &trial) != 0)
            return error_set(error, ERROR_NO_MEMORY, "%s: no memory to try forms", layer->name);
        for (int r = 0; r < trial.rows; r++) {
            lost += trial.lost[r];
            whole += trial.whole[r];
        }
        layer->losses[choice] = whole > 0 ? lost / whole : 0;
    }
    return 0;
}

/* --- What that makes of results -------------------------------------------------------------------------- */

static int read_sensitivities(struct choosing *choosing, const char *path, struct error *error)
{
    static const struct json_limits limits = {MOST_BYTES, MOST_VALUES, ERROR_BAD_FILE, ERROR_BAD_FILE};
    char *text = NULL;
    int code = text_file_read(&text, path, MOST_BYTES, path, error);
    if (code == 0)
        code = json_parse(&choosing->sensitivities, text, strlen(text), &limits, path, error);
    free(text);
    return code;
}

/* A layer's losses become shares of what results are off by: the square of its sensitivity in the smallest form, and in
 * another as much less as its outputs lose less. */
static int weigh(const struct choosing *choosing, struct layer_choice *layer, const char *path, struct error *error)
{
    const cJSON *off = cJSON_GetObjectItemCaseSensitive(choosing->sensitivities, layer->name);
    if (!cJSON_IsNumber(off) || !(off->valuedouble >= 0) || !(off->valuedouble <= 1e6))
        return error_set(error, ERROR_BAD_FILE, "%s: has no number from 0 on for %s: it is of another model", path,
                         layer->name);
    const double factor = layer->losses[0] > 0 ? off->valuedouble * off->valuedouble / layer->losses[0] : 0;
    for (int choice = 0; choice < CHOICES; choice++)
        layer->losses[choice] *= factor;
    return 0;
}

static int measure_part(struct choosing *choosing, const struct mix_options *options, const struct part *part,
                        struct error *error)
{
    const int width = part->matrices[0].in_features;
    float *moments = part_allocate_moments(width), *ones = malloc(sizeof *ones * (size_t)width);
    struct quadratic q = {0};
    bool seen;
    int code = !moments || !ones
                     ? error_set(error, ERROR_NO_MEMORY, "%s: no memory to try forms", part->names[0])
                     : part_moments(part, options->statistics, moments, &seen, error);
    for (int i = 0; i < width && code == 0; i++)
        ones[i] = 1;
    if (code == 0)
        code = quadratic_open(&q, moments, ones, width, options->threads, error);
    for (int l = 0; l < part->count && code == 0; l++) {
        struct layer_choice *layer = &choosing->layers[choosing->count++];
        snprintf(layer->name, sizeof layer->name, "%s", part->names[l]);
        code = measure(layer, &part->matrices[l], &q, options->threads, error);
        if (code == 0 && choosing->sensitivities)
            code = weigh(choosing, layer, options->sensitivities, error);
    }
    quadratic_close(&q);
    free(moments);
    free(ones);
    return code;
}

/* --- The choice ------------------------------------------------------------------------------------------ */

/* The step up that gains most for its bits, of those that `left` bits pay; false: there is none. */
static bool step_up(struct choosing *choosing, double *left)
{
    struct layer_choice *best = NULL;
    double most = 0;
    int to = 0;
    for (int i = 0; i < choosing->count; i++) {
        struct layer_choice *layer = &choosing->layers[i];
        for (int choice = layer->chosen + 1; choice < CHOICES; choice++) {
            const double cost = (layer->bits[choice] - layer->bits[layer->chosen]) * layer->weights;
            const double gain = layer->losses[layer->chosen] - layer->losses[choice];
            if (cost <= 0 || cost > *left || gain / cost <= most)
                continue;
            most = gain / cost;
            best = layer;
            to = choice;
        }
    }
    if (!best)
        return false;
    *left -= (best->bits[to] - best->bits[best->chosen]) * best->weights;
    best->chosen = to;
    return true;
}

static int choose(struct choosing *choosing, double budget, struct error *error)
{
    double weights = 0;
    for (int i = 0; i < choosing->count; i++)
        weights += choosing->layers[i].weights;
    double left = (budget - bits_chosen(choosing)) * weights;
    if (left < 0)
        return error_set(error, ERROR_BAD_REQUEST, "--budget: %g bits a weight are less than the %.4g of 4-bit weights",
                         budget, bits_chosen(choosing));
    while (step_up(choosing, &left))
        ;
    return 0;
}

/* What was chosen, as a recipe has it. */
static int hand_over(const struct choosing *choosing, struct mix *out, struct error *error)
{
    out->layers = calloc((size_t)choosing->count + 1, sizeof *out->layers);
    if (!out->layers)
        return error_set(error, ERROR_NO_MEMORY, "lance-quant: no memory to choose forms");
    for (int i = 0; i < choosing->count; i++) {
        memcpy(out->layers[i].name, choosing->layers[i].name, sizeof out->layers[i].name);
        out->layers[i].form = choices[choosing->layers[i].chosen];
    }
    out->count = choosing->count;
    out->bits = bits_chosen(choosing);
    return 0;
}

int mix_choose(struct mix *out, const struct mix_options *options, struct error *error)
{
    const size_t most = (size_t)options->layers * PARTS_PER_LAYER * PART_MOST_LINEARS;
    struct choosing choosing = {.layers = calloc(most + 1, sizeof *choosing.layers)};
    *out = (struct mix){0};
    int code = !choosing.layers
                     ? error_set(error, ERROR_NO_MEMORY, "lance-quant: no memory to choose forms")
                     : 0;
    if (code == 0 && options->sensitivities)
        code = read_sensitivities(&choosing, options->sensitivities, error);
    for (int number = 0; number < options->layers * PARTS_PER_LAYER && code == 0; number++) {
        struct part part;
        code = layout_part(options->source, number / PARTS_PER_LAYER, number % PARTS_PER_LAYER, &part, error);
        if (code == 0 && part.count > 0)
            code = measure_part(&choosing, options, &part, error);
    }
    if (code == 0)
        code = choose(&choosing, options->budget, error);
    if (code == 0)
        code = hand_over(&choosing, out, error);
    cJSON_Delete(choosing.sensitivities);
    free(choosing.layers);
    return code;
}
