/* layer_losses.c: see layer_losses.h. */
#include "tools/lance-quant/layer_losses.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/parallel.h"
#include "daemon/engine/model/checkpoint/checkpoint.h"
#include "daemon/engine/tap.h"
#include "kernels/formats/linear_source.h"
#include "tools/lance-quant/quadratic.h"
#include "tools/lance-quant/scale_fit.h"

enum { PLACE_MATRICES = 3, BLOCK_ROWS = 32 };

static const char *const keys[LINEAR_PLACES][PLACE_MATRICES] = {{"q", "k", "v"}, {"o"}, {"gate", "up"}, {"down"}};
static const char *const scales[LINEAR_PLACES] = {"qkv", NULL, "gate_up", "down"}; /* whose columns have one */
static const char *const norms[LINEAR_PLACES] = {"input_layernorm", NULL, "post_attention_layernorm", NULL};

struct looking {
    struct checkpoint *model, *reference;
    struct statistics *statistics;
    int threads;
    float *column_factors; /* [widest]: the model's columns, times this, stand for the reference's */
    float *row_factors;    /* [intermediate]: of up's rows */
    float *column_sizes;   /* [widest]: the reference's largest weights, averaged over the matrices of a place */
    float *moments;
};

struct comparison {
    struct linear_source ours, theirs;
    const struct quadratic *q;
    const float *columns; /* [in_features] */
    float *rows;          /* [out_features] or NULL: filled, and taken out */
    double *lost, *whole; /* [out_features] */
};

static int compare_rows(void *context, int item)
{
    const struct comparison *c = context;
    const int width = c->ours.in_features;
    float *row = malloc(2 * sizeof *row * (size_t)width), *wanted = row + width;
    if (!row)
        return ERROR_NO_MEMORY;
    for (int r = item * BLOCK_ROWS; r < (item + 1) * BLOCK_ROWS && r < c->ours.out_features; r++) {
        double products = 0, squares = 0;
        linear_source_decode(&c->ours, r, 0, width, row);
        linear_source_decode(&c->theirs, r, 0, width, wanted);
        for (int i = 0; i < width; i++) {
            row[i] *= c->columns[i];
            products += (double)row[i] * (double)wanted[i];
            squares += (double)wanted[i] * (double)wanted[i];
        }
        const float factor = c->rows && products > 0 ? (float)(products / squares) : 1;
        if (c->rows)
            c->rows[r] = factor;
        c->whole[r] = quadratic_cost(c->q, wanted);
        for (int i = 0; i < width; i++)
            row[i] = row[i] / factor - wanted[i];
        c->lost[r] = quadratic_cost(c->q, row);
    }
    free(row);
    return 0;
}

static int add_matrix(struct looking *l, const char *name, const char *key, const struct quadratic *q, int rows,
                      bool takes_rows, cJSON *entry, struct error *error)
{
    struct comparison c = {.q = q, .columns = l->column_factors, .rows = takes_rows ? l->row_factors : NULL};
    int code = checkpoint_linear(l->model, name, rows, q->width, &c.ours, error);
    if (code == 0)
        code = checkpoint_linear(l->reference, name, rows, q->width, &c.theirs, error);
    if (code != 0)
        return code;
    double lost = 0, whole = 0;
    c.lost = malloc(2 * sizeof *c.lost * (size_t)rows);
    c.whole = c.lost + rows;
    if (!c.lost || parallel_run((rows + BLOCK_ROWS - 1) / BLOCK_ROWS, l->threads, compare_rows, &c) != 0)
        code = error_set(error, ERROR_NO_MEMORY, "%s: no memory to compare it", name);
    for (int r = 0; r < rows && code == 0; r++) {
        lost += c.lost[r];
        whole += c.whole[r];
    }
    free(c.lost);
    json_add_number(entry, key, whole > 0 ? sqrt(fmax(lost, 0) / whole) : 0);
    return code;
}

/* What the model's columns are to be multiplied by: its norm's over the reference's; behind up, its rows'. */
static int find_columns(struct looking *l, enum linear_place place, int layer, bool generation, int width,
                        struct error *error)
{
    char name[LINEAR_NAME_BYTES];
    int code = 0;
    for (int i = 0; i < width; i++)
        l->column_factors[i] = place == PLACE_DOWN ? l->row_factors[i] : 1;
    if (!norms[place])
        return 0;
    float *norm = malloc(2 * sizeof *norm * (size_t)width);
    if (!norm)
        return error_set(error, ERROR_NO_MEMORY, "lance-quant: no memory for a norm");
    snprintf(name, sizeof name, "language_model.model.layers.%d.%s%s.weight", layer, norms[place],
             generation ? "_moe_gen" : "");
    code = checkpoint_vector(l->model, name, width, norm, error);
    if (code == 0)
        code = checkpoint_vector(l->reference, name, width, norm + width, error);
    for (int i = 0; i < width && code == 0; i++)
        l->column_factors[i] = norm[width + i] != 0 ? norm[i] / norm[width + i] : 1;
    free(norm);
    return code;
}

static int rows_of(const struct lance_config *config, enum linear_place place, int index)
{
    const int heads = config->heads * config->head_dim, kv_heads = config->kv_heads * config->head_dim;
    return place == PLACE_QKV ? (index == 0 ? heads : kv_heads)
                              : place == PLACE_GATE_UP ? config->intermediate_size : config->hidden_size;
}

static int width_of(const struct lance_config *config, enum linear_place place)
{
    return place == PLACE_DOWN ? config->intermediate_size
                               : place == PLACE_O ? config->heads * config->head_dim : config->hidden_size;
}

/* One more matrix of a place. */
static int add_column_sizes(struct looking *l, const char *name, int rows, int width, int matrices, struct error *error)
{
    struct linear_source theirs;
    int code = checkpoint_linear(l->reference, name, rows, width, &theirs, error);
    if (code != 0)
        return code;
    float *row = calloc(2 * (size_t)width, sizeof *row);
    if (!row)
        return error_set(error, ERROR_NO_MEMORY, "%s: no memory to look at it", name);
    float *largest = row + width;
    for (int r = 0; r < rows; r++) {
        linear_source_decode(&theirs, r, 0, width, row);
        for (int i = 0; i < width; i++)
            largest[i] = fmaxf(largest[i], fabsf(row[i]));
    }
    for (int i = 0; i < width; i++)
        l->column_sizes[i] += largest[i] / (float)matrices;
    free(row);
    return 0;
}

/* The exponents of the scale of a place's columns. */
static int add_scale(struct looking *l, enum linear_place place, int layer, bool generation, int width, cJSON *entry,
                     struct error *error)
{
    const struct lance_config *config = checkpoint_config(l->reference);
    char name[LINEAR_NAME_BYTES];
    int matrices = 0, code = 0;
    while (linear_input_name(name, place, layer, generation, matrices))
        matrices++;
    memset(l->column_sizes, 0, sizeof *l->column_sizes * (size_t)width);
    for (int m = 0; m < matrices && code == 0; m++) {
        linear_input_name(name, place, layer, generation, m);
        code = add_column_sizes(l, name, rows_of(config, place, m), width, matrices, error);
    }
    if (code != 0)
        return code;
    for (int i = 0; i < width; i++) {
        const float square = l->moments[(size_t)i * STATISTICS_BLOCK + (size_t)(i % STATISTICS_BLOCK)];
        l->column_factors[i] = l->column_factors[i] > 0 ? 1 / l->column_factors[i] : 0;
        l->moments[i] = sqrtf(fmaxf(square, 0)); /* in the place of what is read by now */
    }
    const struct scale_fit fit = scale_fit(l->column_factors, l->moments, l->column_sizes, width);
    cJSON *scale = json_add_object(cJSON_GetObjectItemCaseSensitive(entry, "scales"), scales[place]);
    json_add_number(scale, "alpha", fit.alpha);
    json_add_number(scale, "beta", fit.beta);
    return 0;
}

static int add_place(struct looking *l, enum linear_place place, int layer, bool generation, cJSON *entry,
                     struct error *error)
{
    const struct lance_config *config = checkpoint_config(l->reference);
    const int width = width_of(config, place);
    struct quadratic q = {0};
    char name[LINEAR_NAME_BYTES];
    bool seen;
    linear_input_name(name, place, layer, generation, 0);
    int code = statistics_mean_moments(l->statistics, name, width, l->moments, &seen, error);
    if (code == 0 && !seen)
        code = error_set(error, ERROR_BAD_FILE, "%s: the statistics have no products of its inputs", name);
    if (code == 0)
        code = find_columns(l, place, layer, generation, width, error);
    float *ones = malloc(sizeof *ones * (size_t)width);
    for (int i = 0; i < width && ones; i++)
        ones[i] = 1;
    if (code == 0)
        code = !ones ? error_set(error, ERROR_NO_MEMORY, "%s: no memory to compare it", name)
                     : quadratic_open(&q, l->moments, ones, width, l->threads, error);
    for (int m = 0; code == 0 && linear_input_name(name, place, layer, generation, m); m++)
        code = add_matrix(l, name, keys[place][m], &q, rows_of(config, place, m), place == PLACE_GATE_UP && m == 1,
                          entry, error);
    if (code == 0 && scales[place])
        code = add_scale(l, place, layer, generation, width, entry, error);
    quadratic_close(&q);
    free(ones);
    return code;
}

static int look(struct looking *l, cJSON *list, struct error *error)
{
    const struct lance_config *config = checkpoint_config(l->reference);
    const int wide = config->intermediate_size > config->heads * config->head_dim ? config->intermediate_size
                                                                                  : config->heads * config->head_dim;
    const size_t widest = (size_t)(wide > config->hidden_size ? wide : config->hidden_size);
    const int experts = checkpoint_can_generate(l->reference) && checkpoint_can_generate(l->model) ? 2 : 1;
    l->column_factors = malloc(widest * sizeof(float));
    l->row_factors = malloc(widest * sizeof(float));
    l->column_sizes = malloc(widest * sizeof(float));
    l->moments = malloc((size_t)statistics_blocks((int)widest) * STATISTICS_BLOCK * STATISTICS_BLOCK * sizeof(float));
    if (!l->column_factors || !l->row_factors || !l->column_sizes || !l->moments)
        return error_set(error, ERROR_NO_MEMORY, "lance-quant: no memory to compare layers");
    int code = 0;
    for (int expert = 0; expert < experts; expert++)
        for (int layer = 0; layer < config->layers && code == 0; layer++) {
            cJSON *entry = json_object();
            json_add_number(entry, "layer", layer);
            json_add_text(entry, "expert", expert ? "gen" : "und");
            json_add_object(entry, "scales");
            for (int place = 0; place < LINEAR_PLACES && code == 0; place++)
                code = add_place(l, (enum linear_place)place, layer, expert == 1, entry, error);
            json_append(list, entry);
        }
    return code;
}

static int open_folder(struct checkpoint **out, const char *folder, const struct job_options *jobs, struct error *error)
{
    const struct checkpoint_options options = {.model_dir = folder, .vae_path = jobs->vae, .vit_path = jobs->vit};
    return checkpoint_open(out, &options, error);
}

int layer_losses(cJSON *list, const char *model, const char *reference, const char *statistics,
                 const struct job_options *jobs, struct error *error)
{
    struct looking l = {.threads = jobs->threads};
    int code = statistics_open(&l.statistics, statistics, error);
    if (code == 0)
        code = open_folder(&l.reference, reference, jobs, error);
    if (code == 0)
        code = open_folder(&l.model, model, jobs, error);
    if (code == 0)
        code = look(&l, list, error);
    free(l.column_factors);
    free(l.row_factors);
    free(l.column_sizes);
    free(l.moments);
    if (l.model)
        checkpoint_close(l.model);
    if (l.reference)
        checkpoint_close(l.reference);
    statistics_close(l.statistics);
    return code;
}
