/* best_part.c: see best_part.h. */
#include "tools/lance-quant/best_part.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/parallel.h"
#include "kernels/formats/numbers.h"
#include "tools/lance-quant/best_scale.h"
#include "tools/lance-quant/row_codes.h"

enum { BLOCK_ROWS = 16 };

static int no_memory(const char *name, struct error *error)
{
    return error_set(error, ERROR_NO_MEMORY, "%s: no memory to quantise it", name);
}

int part_moments(const struct part *part, const struct statistics *statistics, float *moments, bool *seen,
                 struct error *error)
{
    const int width = part->matrices[0].in_features;
    float *mean = malloc(sizeof *mean * (size_t)width);
    int code = !mean ? no_memory(part->names[0], error) : 0;
    bool found = false, squares = false;
    *seen = false;
    for (int l = 0; l < part->count && code == 0 && !*seen; l++)
        code = statistics_mean_moments(statistics, part->names[l], width, moments, seen, error);
    for (int l = 0; l < part->count && code == 0 && !*seen && !found; l++) {
        code = statistics_mean_squares(statistics, part->names[l], width, mean, &squares, error);
        if (code == 0 && !squares)
            code = statistics_mean_abs(statistics, part->names[l], width, mean, &found, error);
        found |= squares;
    }
    if (code == 0 && !*seen) {
        memset(moments, 0, sizeof *moments * (size_t)statistics_blocks(width) * STATISTICS_BLOCK * STATISTICS_BLOCK);
        for (int i = 0; i < width; i++)
            moments[(size_t)i * STATISTICS_BLOCK + (size_t)(i % STATISTICS_BLOCK)] =
                !found ? 1 : squares ? mean[i] : mean[i] * mean[i];
        *seen = found;
    }
    free(mean);
    return code;
}

float *part_allocate_moments(int width)
{
    return malloc(sizeof(float) * (size_t)statistics_blocks(width) * STATISTICS_BLOCK * STATISTICS_BLOCK);
}

/* Whether the part's columns get a scale of their own, given that something is known of its inputs. */
static bool is_scaled(const struct best_work *work, const struct part *part, int index)
{
    const unsigned with = work->recipe->ingredients;
    return part->norm ? (with & WITH_SCALING) != 0
                      : layout_is_behind_rows(index) && (with & WITH_DOWN_THROUGH_UP) != 0;
}

/* The scale of the part's columns: ones, or the best; `moments` is filled on the way. */
static int find_scale(const struct best_work *work, const struct part *part, int layer, int index, float *moments,
                      float *scale, bool *scaled, struct error *error)
{
    const int width = part->matrices[0].in_features;
    const struct best_found *found = &work->found[index];
    bool seen;
    int code = part_moments(part, work->statistics, moments, &seen, error);
    if (code == 0 && found->is_there && found->layer == layer) {
        memcpy(scale, found->scale, sizeof *scale * (size_t)width);
        *scaled = found->scaled;
        return 0;
    }
    *scaled = code == 0 && seen && is_scaled(work, part, index);
    for (int i = 0; i < width; i++)
        scale[i] = 1;
    if (*scaled) {
        const struct best_scale search = {part->matrices, part->count, moments, work->recipe, work->threads};
        code = best_scale_find(&search, scale, error);
    }
    return code;
}

/* Keep a scale for when its part's turn comes; without memory it is found again. */
static void keep_scale(const struct best_work *work, int layer, int index, const float *scale, bool scaled, int width)
{
    struct best_found *found = &work->found[index];
    float *room = realloc(found->scale, sizeof *room * (size_t)width);
    found->is_there = room != NULL;
    if (!room)
        return;
    found->scale = memcpy(room, scale, sizeof *room * (size_t)width);
    found->scaled = scaled;
    found->layer = layer;
}

/* What the rows of the part's last matrix are divided by, because the columns behind them are multiplied; NULL: by
 * nothing. Free it. */
static int find_row_divisor(const struct best_work *work, int layer, int index, float **divisor, struct error *error)
{
    struct part behind;
    bool scaled = false;
    const int behind_index = layout_part_behind(index);
    *divisor = NULL;
    if (behind_index < 0)
        return 0;
    int code = layout_part(work->source, layer, behind_index, &behind, error);
    if (code != 0 || behind.count == 0)
        return code;
    const int width = behind.matrices[0].in_features;
    float *moments = part_allocate_moments(width);
    *divisor = malloc(sizeof **divisor * (size_t)width);
    code = !moments || !*divisor ? no_memory(behind.names[0], error) : 0;
    if (code == 0)
        code = find_scale(work, &behind, layer, behind_index, moments, *divisor, &scaled, error);
    if (code == 0)
        keep_scale(work, layer, behind_index, *divisor, scaled, width);
    free(moments);
    if (code != 0 || !scaled) {
        free(*divisor);
        *divisor = NULL;
    }
    return code;
}

/* --- Codes --------------------------------------------------------------------------------------------- */

struct encoding {
    const struct matrix *matrix;
    const float *scale;   /* [in_features] */
    const float *divisor; /* [out_features] or NULL */
    struct row_rounding rounding;
    uint8_t *codes, *second;
    uint16_t *scales;
};

static void scaled_row(const struct encoding *e, int r, float *row)
{
    matrix_row(e->matrix, r, row);
    for (int i = 0; i < e->matrix->in_features; i++)
        row[i] *= e->divisor ? e->scale[i] / e->divisor[r] : e->scale[i];
}

static int encode_block(void *context, int item)
{
    const struct encoding *e = context;
    const size_t width = (size_t)e->matrix->in_features, groups = width / (size_t)e->rounding.form.group;
    struct row_room room;
    struct error ignored;
    if (row_room_open(&room, (int)width, &ignored) != 0)
        return ERROR_NO_MEMORY;
    for (int r = item * BLOCK_ROWS; r < (item + 1) * BLOCK_ROWS && r < e->matrix->out_features; r++) {
        const size_t at = (size_t)r;
        const struct code_row out = {e->codes + at * weight_bytes(e->rounding.form.format, width),
                                     e->scales + at * groups, !e->second ? NULL : e->second + at * groups};
        scaled_row(e, r, room.row);
        if (e->rounding.form.format == WEIGHT_BF16) {
            for (size_t i = 0; i < width; i++)
                ((uint16_t *)out.codes)[i] = float_to_bf16(room.row[i]);
            continue;
        }
        row_codes(&e->rounding, room.row, &room, &out);
    }
    row_room_close(&room);
    return 0;
}

static int write_named(struct output *output, const char *linear, const char *part, const void *data, uint64_t bytes,
                       struct error *error)
{
    char name[LAYOUT_NAME_BYTES + 16];
    snprintf(name, sizeof name, "%s.%s", linear, part);
    return output_write(output, name, data, bytes, error);
}

static int write_matrix(const struct best_work *work, const struct encoding *e, const char *name, struct error *error)
{
    const size_t elements = (size_t)e->matrix->out_features * (size_t)e->matrix->in_features;
    const size_t groups = elements / (size_t)e->rounding.form.group;
    const enum weight_format format = e->rounding.form.format;
    const bool nvfp4 = format == WEIGHT_NVFP4;
    const bool dense = format == WEIGHT_BF16;
    int code = write_named(work->output, name, dense ? "weight" : PART_CODES, e->codes,
                           weight_bytes(format, elements), error);
    if (dense)
        return code;
    if (code == 0 && !work->recipe->slim)
        code = write_named(work->output, name, nvfp4 ? PART_SCALES_BF16 : PART_SCALES, e->scales, 2 * groups, error);
    if (code == 0 && e->second)
        code = write_named(work->output, name, nvfp4 ? PART_SCALES_FP8 : PART_ZEROS, e->second, groups, error);
    if (code == 0 && nvfp4)
        code = write_named(work->output, name, PART_TENSOR_SCALE, &e->rounding.tensor_scale, sizeof(float), error);
    return code;
}

static int encode_matrix(const struct best_work *work, struct encoding *e, const char *name, struct error *error)
{
    const size_t elements = (size_t)e->matrix->out_features * (size_t)e->matrix->in_features;
    const size_t groups = elements / (size_t)e->rounding.form.group;
    const enum weight_format format = e->rounding.form.format;
    const bool has_second = format == WEIGHT_AWQ_INT4 || format == WEIGHT_NVFP4;
    e->codes = calloc(elements, format == WEIGHT_BF16 ? sizeof(uint16_t) : 1);
    e->second = has_second ? malloc(groups) : NULL;
    e->scales = malloc(2 * groups);
    int code =
        !e->codes || (has_second && !e->second) || !e->scales ? no_memory(name, error) : 0;
    if (code == 0 &&
        parallel_run((e->matrix->out_features + BLOCK_ROWS - 1) / BLOCK_ROWS, work->threads, encode_block, e) != 0)
        code = no_memory(name, error);
    if (code == 0)
        code = write_matrix(work, e, name, error);
    free(e->codes);
    free(e->second);
    free(e->scales);
    return code;
}

static int largest_of(struct encoding *e, float *largest, struct error *error)
{
    const int width = e->matrix->in_features;
    float *row = malloc(sizeof *row * (size_t)width);
    if (!row)
        return no_memory(e->matrix->tensor->name, error);
    for (int r = 0; r < e->matrix->out_features; r++) {
        scaled_row(e, r, row);
        for (int i = 0; i < width; i++)
            *largest = fmaxf(*largest, fabsf(row[i]));
    }
    free(row);
    return 0;
}

/* Every matrix of the part, with one tensor scale for all of them. */
static int encode_all(const struct best_work *work, const struct part *part, const float *scale, const float *divisor,
                      const struct quadratic *q, struct error *error)
{
    struct encoding encodings[PART_MOST_LINEARS];
    float largest = 0;
    int code = 0;
    for (int l = 0; l < part->count && code == 0; l++) {
        encodings[l] = (struct encoding){.matrix = &part->matrices[l], .scale = scale,
                                         .divisor = l == part->count - 1 ? divisor : NULL};
        if (work->recipe->form.format == WEIGHT_NVFP4)
            code = largest_of(&encodings[l], &largest, error);
    }
    for (int l = 0; l < part->count && code == 0; l++) {
        encodings[l].rounding =
            (struct row_rounding){layout_recipe_form(work->recipe, &part->matrices[l]), work->recipe->ingredients, q,
                                  row_codes_tensor_scale(largest)};
        code = encode_matrix(work, &encodings[l], part->names[l], error);
    }
    return code;
}

/* --- The part ------------------------------------------------------------------------------------------ */

/* The norm divided by the scale, in bf16; the scale becomes what that really divides by. */
static int write_norm(const struct best_work *work, const struct tensor_view *norm, float *scale, struct error *error)
{
    const size_t n = (size_t)tensor_elements(norm);
    float *values = malloc(sizeof *values * n);
    int code = !values ? no_memory(norm->name, error) : tensor_to_float(norm, values, error);
    for (size_t i = 0; i < n && code == 0; i++) {
        const float before = bf16_to_float(float_to_bf16(values[i]));
        const float after = bf16_to_float(float_to_bf16(before / scale[i]));
        if (after != 0)
            scale[i] = before / after;
    }
    free(values);
    return code != 0 ? code : output_write_bf16(work->output, norm, scale, error);
}

static int quantise(const struct best_work *work, int layer, int index, const struct part *part, float *moments,
                    float *scale, struct error *error)
{
    struct quadratic q = {0};
    float *divisor = NULL;
    bool scaled = false;
    int code = find_scale(work, part, layer, index, moments, scale, &scaled, error);
    if (code == 0)
        code = find_row_divisor(work, layer, index, &divisor, error);
    if (code == 0 && part->norm)
        code = scaled ? write_norm(work, part->norm, scale, error)
                      : output_write_bf16(work->output, part->norm, NULL, error);
    if (code == 0)
        code = quadratic_open(&q, moments, scale, part->matrices[0].in_features, work->threads, error);
    if (code == 0)
        code = encode_all(work, part, scale, divisor, &q, error);
    quadratic_close(&q);
    free(divisor);
    return code;
}

int best_part_quantise(const struct best_work *work, int layer, int index, const struct part *part,
                       struct error *error)
{
    if (part->count == 0)
        return part->norm ? output_write_bf16(work->output, part->norm, NULL, error) : 0;
    const int width = part->matrices[0].in_features;
    float *moments = part_allocate_moments(width), *scale = malloc(sizeof *scale * (size_t)width);
    int code = !moments || !scale ? no_memory(part->names[0], error)
                                  : quantise(work, layer, index, part, moments, scale, error);
    free(moments);
    free(scale);
    return code;
}
