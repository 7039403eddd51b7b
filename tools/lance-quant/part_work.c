/* part_work.c: see part_work.h. Source: awq_apply.py and nvfp4_apply.py of lance-quant (main). */
#include "tools/lance-quant/part_work.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/parallel.h"
#include "tools/lance-quant/search.h"

enum { BLOCK_ROWS = 64 };

static int no_memory(const char *name, struct error *error)
{
    return error_set(error, ERROR_NO_MEMORY, "%s: no memory to quantise it", name);
}

/* The mean of |x| over the layers of the part that have statistics. */
static int mean_of_part(const struct part *part, const struct statistics *statistics, float *mean, bool *seen,
                        struct error *error)
{
    const int width = part->matrices[0].in_features;
    float *one = malloc(sizeof *one * (size_t)width);
    int code = !one ? no_memory(part->names[0], error) : 0, counted = 0;
    memset(mean, 0, sizeof *mean * (size_t)width);
    for (int l = 0; l < part->count && code == 0; l++) {
        bool has = false;
        code = statistics_mean_abs(statistics, part->names[l], width, one, &has, error);
        for (int i = 0; has && i < width; i++)
            mean[i] += one[i];
        counted += has;
    }
    for (int i = 0; counted > 0 && i < width; i++)
        mean[i] /= (float)counted;
    *seen = counted > 0;
    free(one);
    return code;
}

int part_is_scaled(const struct part *part, const struct statistics *statistics, bool *scaled, struct error *error)
{
    *scaled = false;
    if (!part->norm || part->count == 0)
        return 0;
    float *mean = malloc(sizeof *mean * (size_t)part->matrices[0].in_features);
    const int code =
        !mean ? no_memory(part->names[0], error) : mean_of_part(part, statistics, mean, scaled, error);
    free(mean);
    return code;
}

/* --- Codes ------------------------------------------------------------------------------------------- */

struct encoding {
    const struct matrix *matrix;
    struct code_form form;
    const float *scale; /* [in_features] or NULL */
    uint8_t *codes, *second;
    uint16_t *scales;
};

static int encode_block(void *context, int item)
{
    const struct encoding *e = context;
    const size_t width = (size_t)e->matrix->in_features, groups = width / (size_t)e->form.group;
    float *row = malloc(sizeof *row * width);
    if (!row)
        return ERROR_NO_MEMORY;
    for (int r = item * BLOCK_ROWS; r < (item + 1) * BLOCK_ROWS && r < e->matrix->out_features; r++) {
        matrix_row(e->matrix, r, row);
        for (size_t i = 0; e->scale && i < width; i++)
            row[i] *= e->scale[i];
        const size_t at = (size_t)r;
        const struct code_row out = {e->codes + at * width / CODES_PER_BYTE, e->scales + at * groups,
                                     e->second + at * groups};
        codes_encode(&e->form, row, (int)width, &out);
    }
    free(row);
    return 0;
}

static int write_part_of(struct output *output, const char *linear, const char *part, const void *data, uint64_t bytes,
                         struct error *error)
{
    char name[LAYOUT_NAME_BYTES + 16];
    snprintf(name, sizeof name, "%s.%s", linear, part);
    return output_write(output, name, data, bytes, error);
}

static int encode_matrix(const struct matrix *matrix, const char *name, const struct code_form *form,
                         const float *scale, int threads, struct output *output, struct error *error)
{
    const struct code_form own = layout_form(form, matrix);
    const size_t elements = (size_t)matrix->out_features * (size_t)matrix->in_features,
                 groups = elements / (size_t)own.group;
    struct encoding e = {matrix, own, scale, calloc(elements, 1), malloc(groups), malloc(2 * groups)};
    int code = !e.codes || !e.second || !e.scales ? no_memory(name, error) : 0;
    if (code == 0 &&
        parallel_run((matrix->out_features + BLOCK_ROWS - 1) / BLOCK_ROWS, threads, encode_block, &e) != 0)
        code = no_memory(name, error);
    const bool awq = form->format == WEIGHT_AWQ_INT4;
    if (code == 0)
        code = write_part_of(output, name, PART_CODES, e.codes, elements / CODES_PER_BYTE, error);
    if (code == 0)
        code = write_part_of(output, name, awq ? PART_SCALES : PART_SCALES_BF16, e.scales, 2 * groups, error);
    if (code == 0)
        code = write_part_of(output, name, awq ? PART_ZEROS : PART_SCALES_FP8, e.second, groups, error);
    free(e.codes);
    free(e.second);
    free(e.scales);
    return code;
}

/* --- The part --------------------------------------------------------------------------------------------- */

int part_quantise(const struct part *part, const struct statistics *statistics, const struct code_form *form,
                  int threads, struct output *output, struct error *error)
{
    if (part->count == 0)
        return part->norm ? output_write_bf16(output, part->norm, NULL, error) : 0;
    const size_t width = (size_t)part->matrices[0].in_features;
    float *mean = malloc(sizeof *mean * width), *scale = malloc(sizeof *scale * width);
    bool scaled = false;
    int code = !mean || !scale ? no_memory(part->names[0], error) : 0;
    if (code == 0 && part->norm)
        code = mean_of_part(part, statistics, mean, &scaled, error);
    if (code == 0 && scaled) {
        const struct search search = {part->matrices, part->count, mean, layout_form(form, &part->matrices[0]),
                                      threads};
        code = search_scale(&search, scale, error);
    }
    if (code == 0 && part->norm)
        code = output_write_bf16(output, part->norm, scaled ? scale : NULL, error);
    for (int l = 0; l < part->count && code == 0; l++)
        code = encode_matrix(&part->matrices[l], part->names[l], form, scaled ? scale : NULL, threads, output, error);
    free(mean);
    free(scale);
    return code;
}
