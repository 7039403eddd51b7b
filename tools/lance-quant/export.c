/* export.c: see export.h. Tensors are taken in the order of their names; output.c remembers which are done. */
#include "tools/lance-quant/export.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mapped_file.h"
#include "base/parallel.h"
#include "kernels/formats/group.h"
#include "tools/lance-quant/export_layout.h"
#include "tools/lance-quant/export_vit.h"
#include "tools/lance-quant/layout.h"
#include "tools/lance-quant/output.h"
#include "tools/lance-quant/source.h"

enum { BLOCK_ROWS = 64, WORD_BYTES = 4, PARTS = 3 };

struct work {
    const struct export_options *options;
    struct source *source;
    struct output *output;
    struct tensor_view *tensors; /* to be written; names are malloc'ed */
    size_t count;
    char *config; /* the text of config.json */
};

/* --- The list -------------------------------------------------------------------------------------------- */

static int add(struct work *work, const char *name, const char *part, enum dtype dtype, int dimensions,
               const uint64_t *shape, struct error *error)
{
    struct tensor_view *tensor = &work->tensors[work->count];
    char *copy = malloc(strlen(name) + strlen(part) + 1);
    if (!copy)
        return error_set(error, ERROR_NO_MEMORY, "lance-quant: no memory for the list of tensors");
    sprintf(copy, "%s%s", name, part);
    *tensor = (struct tensor_view){.name = copy, .dtype = dtype, .dimensions = dimensions};
    memcpy(tensor->shape, shape, sizeof *shape * (size_t)dimensions);
    tensor->bytes = tensor_elements(tensor) * dtype_bytes(dtype);
    work->count++;
    return 0;
}

static enum weight_format format_of(const struct export_options *options)
{
    return options->bits == 8 ? WEIGHT_MLX_INT8 : WEIGHT_MLX_INT4;
}

/* "X" of "X.weight". */
static void stem_of(const char *name, char stem[EXPORT_NAME_BYTES])
{
    snprintf(stem, EXPORT_NAME_BYTES, "%.*s", (int)(strlen(name) - strlen(".weight")), name);
}

/* Whether transformers wants a bias for this layer, of which there is none: Qwen3 has them on all four or on none. */
static bool wants_zero_bias(const struct export_options *options, const char *name)
{
    return options->form == EXPORT_HF_UND && !options->drops_head_norms &&
           strstr(name, ".self_attn.o_proj.weight");
}

static int list_tensor(struct work *work, const struct tensor_view *tensor, struct error *error)
{
    char name[EXPORT_NAME_BYTES], stem[EXPORT_NAME_BYTES];
    if (!export_name(work->options, tensor->name, name))
        return 0;
    stem_of(name, stem);
    if (wants_zero_bias(work->options, name)) {
        const int code = add(work, stem, ".bias", DTYPE_BF16, 1, tensor->shape, error);
        if (code != 0)
            return code;
    }
    if (!export_is_quantised(work->options, tensor))
        return add(work, name, "", layout_is_floating(tensor->dtype) ? DTYPE_BF16 : tensor->dtype, tensor->dimensions,
                   tensor->shape, error);
    const uint64_t rows = tensor->shape[0], columns = tensor->shape[1];
    const uint64_t words[] = {rows, weight_bytes(format_of(work->options), columns) / WORD_BYTES};
    const uint64_t groups[] = {rows, columns / (uint64_t)work->options->group};
    int code = add(work, stem, "." PART_CODES_MLX, DTYPE_U32, 2, words, error);
    if (code == 0)
        code = add(work, stem, "." PART_SCALES, DTYPE_BF16, 2, groups, error);
    return code != 0 ? code : add(work, stem, "." PART_OFFSETS, DTYPE_BF16, 2, groups, error);
}

static int list(struct work *work, struct error *error)
{
    int code = 0;
    if (source_count(work->source) > OUTPUT_MOST_WORKS)
        return error_set(error, ERROR_BAD_FILE, "%s: has %zu tensors, more than %d", work->options->model,
                         source_count(work->source), OUTPUT_MOST_WORKS);
    work->tensors = calloc(PARTS * source_count(work->source) + 1, sizeof *work->tensors);
    if (!work->tensors)
        return error_set(error, ERROR_NO_MEMORY, "lance-quant: no memory for the list of tensors");
    for (size_t i = 0; i < source_count(work->source) && code == 0; i++)
        code = list_tensor(work, source_at(work->source, i), error);
    if (code == 0 && work->count == 0)
        code = error_set(error, ERROR_BAD_FILE, "%s: has no tensor of a Lance model", work->options->model);
    return code;
}

/* --- Codes ----------------------------------------------------------------------------------------------- */

struct encoding {
    struct matrix matrix;
    enum weight_format format;
    int group;
    uint8_t *codes;
    uint16_t *scales, *offsets;
};

/* MLX's affine rule: the end of the range with the larger magnitude is a code times the scale exactly, and so is 0. */
static void encode_group(const struct encoding *e, const float *values, size_t first, uint16_t *scale_out,
                         uint16_t *offset_out)
{
    const int highest = (weight_is_four_bit(e->format) ? INT4_CODES : INT8_CODES) - 1;
    float low = values[0], high = values[0];
    for (int i = 1; i < e->group; i++) {
        low = fminf(low, values[i]);
        high = fmaxf(high, values[i]);
    }
    const bool low_end = fabsf(low) > fabsf(high);
    float scale = fmaxf((high - low) / (float)highest, 1e-7f), offset = low_end ? low : high;
    scale = low_end ? scale : -scale;
    const float at_zero = rintf(offset / scale);
    if (at_zero != 0)
        scale = offset / at_zero;
    else
        offset = 0;
    *scale_out = float_to_bf16(scale);
    *offset_out = float_to_bf16(offset);
    group_encode(e->format, values, e->group, bf16_to_float(*scale_out), bf16_to_float(*offset_out), e->codes, first);
}

static int encode_block(void *context, int item)
{
    const struct encoding *e = context;
    const size_t width = (size_t)e->matrix.in_features, groups = width / (size_t)e->group;
    float *row = malloc(sizeof *row * width);
    if (!row)
        return ERROR_NO_MEMORY;
    for (int r = item * BLOCK_ROWS; r < (item + 1) * BLOCK_ROWS && r < e->matrix.out_features; r++) {
        matrix_row(&e->matrix, r, row);
        for (size_t g = 0; g < groups; g++)
            encode_group(e, row + g * (size_t)e->group, (size_t)r * width + g * (size_t)e->group,
                         &e->scales[(size_t)r * groups + g], &e->offsets[(size_t)r * groups + g]);
    }
    free(row);
    return 0;
}

static int write_part(struct work *work, const char *name, const char *part, const void *data, uint64_t bytes,
                      struct error *error)
{
    char full[EXPORT_NAME_BYTES + 16], stem[EXPORT_NAME_BYTES];
    stem_of(name, stem);
    snprintf(full, sizeof full, "%s.%s", stem, part);
    return output_write(work->output, full, data, bytes, error);
}

static int write_codes(struct work *work, const struct tensor_view *tensor, const char *name, struct error *error)
{
    struct encoding e = {.format = format_of(work->options), .group = work->options->group};
    int code = matrix_open(&e.matrix, tensor, error);
    if (code == 0)
        code = matrix_check(&e.matrix, error);
    if (code != 0)
        return code;
    const size_t elements = (size_t)tensor_elements(tensor), groups = elements / (size_t)e.group;
    e.codes = calloc(weight_bytes(e.format, elements), 1);
    e.scales = malloc(2 * groups);
    e.offsets = malloc(2 * groups);
    if (!e.codes || !e.scales || !e.offsets ||
        parallel_run((e.matrix.out_features + BLOCK_ROWS - 1) / BLOCK_ROWS, work->options->threads, encode_block, &e))
        code = error_set(error, ERROR_NO_MEMORY, "%s: no memory to quantise it", tensor->name);
    if (code == 0)
        code = write_part(work, name, PART_CODES_MLX, e.codes, weight_bytes(e.format, elements), error);
    if (code == 0)
        code = write_part(work, name, PART_SCALES, e.scales, 2 * groups, error);
    if (code == 0)
        code = write_part(work, name, PART_OFFSETS, e.offsets, 2 * groups, error);
    free(e.codes);
    free(e.scales);
    free(e.offsets);
    return code;
}

static int write_tensor(struct work *work, const struct tensor_view *tensor, struct error *error)
{
    char name[EXPORT_NAME_BYTES];
    if (!export_name(work->options, tensor->name, name))
        return 0;
    if (export_is_quantised(work->options, tensor))
        return write_codes(work, tensor, name, error);
    if (wants_zero_bias(work->options, name)) {
        void *zeros = calloc((size_t)tensor->shape[0], 2);
        const int code = !zeros
                               ? error_set(error, ERROR_NO_MEMORY, "%s: no memory for a bias", tensor->name)
                               : write_part(work, name, "bias", zeros, 2 * tensor->shape[0], error);
        free(zeros);
        if (code != 0)
            return code;
    }
    struct tensor_view named = *tensor;
    named.name = name;
    return layout_is_floating(tensor->dtype) ? output_write_bf16(work->output, &named, NULL, error)
                                             : output_write(work->output, name, tensor->data, tensor->bytes, error);
}

/* --- The folder ------------------------------------------------------------------------------------------ */

/* A text of the release, when it is there. */
static int copy_text(struct work *work, const char *name, struct error *error)
{
    char path[PATH_MAX];
    struct mapped_file file;
    if (snprintf(path, sizeof path, "%s/%s", work->options->model, name) >= (int)sizeof path || access(path, F_OK) != 0)
        return 0;
    int code = mapped_file_open(&file, path, error);
    if (code != 0)
        return code;
    char *text = malloc((size_t)file.bytes + 1);
    if (!text) {
        code = error_set(error, ERROR_NO_MEMORY, "%s: no memory to copy it", path);
    } else {
        memcpy(text, file.data, (size_t)file.bytes);
        text[file.bytes] = '\0';
        code = output_text(work->output, name, text, error);
    }
    free(text);
    mapped_file_close(&file);
    return code;
}

static int write_texts(struct work *work, struct error *error)
{
    static const char *const copied[] = {"vocab.json", "merges.txt", "tokenizer_config.json", "tokenizer.json"};
    int code = output_text(work->output, "config.json", work->config, error);
    for (size_t i = 0; i < sizeof copied / sizeof *copied && code == 0; i++)
        code = copy_text(work, copied[i], error);
    return code;
}

static int refuse_losses(const struct work *work, struct error *error)
{
    if (work->options->form != EXPORT_MLX_UND || work->options->drops_head_norms)
        return 0;
    return error_set(error, ERROR_BAD_REQUEST,
                     "mlx-lm's Qwen2 has no q_norm and k_norm, which this model has: answers would differ from the "
                     "official ones; --drop-qk-norm makes the folder all the same");
}

static int open_output(struct work *work, struct error *error)
{
    struct sha256 digest;
    char hex[65], line[160];
    sha256_start(&digest);
    source_digest(work->source, &digest);
    sha256_finish(&digest, hex);
    const struct export_options *o = work->options;
    snprintf(line, sizeof line, "lance-quant export %d %d %d %d %s", o->form, o->group, o->bits, o->drops_head_norms,
             hex);
    return output_open(&work->output, o->output, "model.safetensors", line, work->tensors, work->count, error);
}

static int write_all(struct work *work, const volatile int *interrupted, struct error *error)
{
    int code = 0;
    for (size_t i = 0; i < source_count(work->source) && code == 0; i++) {
        const struct tensor_view *tensor = source_at(work->source, i);
        if (output_is_done(work->output, (int)i))
            continue;
        if (*interrupted)
            return error_set(error, ERROR_CANCELLED, "interrupted; call it again to go on");
        code = write_tensor(work, tensor, error);
        mapped_file_let_go(tensor->data, tensor->bytes);
        if (code == 0)
            code = output_done(work->output, (int)i, error);
    }
    return code;
}

/* Of MLX's releases the ViT is a part, too. */
static int write_vit(const struct work *work, struct error *error)
{
    bool found;
    if (work->options->form != EXPORT_MLX)
        return 0;
    const int code = export_vit(work->output, work->options->model, &found, error);
    if (code == 0 && !found)
        fprintf(stderr, "lance-quant: %s has no Qwen2.5-VL-ViT in it or beside it; questions and edits want "
                "vit.safetensors in the new folder\n", work->options->model);
    return code;
}

int export_release(const struct export_options *options, const volatile int *interrupted, struct error *error)
{
    struct work work = {.options = options};
    int code = refuse_losses(&work, error);
    if (code == 0)
        code = source_open(&work.source, options->model, error);
    if (code == 0)
        code = export_config(options, &work.config, error);
    if (code == 0)
        code = list(&work, error);
    if (code == 0)
        code = open_output(&work, error);
    if (code == 0)
        code = write_all(&work, interrupted, error);
    if (code == 0)
        code = write_texts(&work, error);
    if (code == 0)
        code = write_vit(&work, error);
    if (code == 0)
        code = output_finish(work.output, error);
    output_close(work.output);
    if (work.tensors)
        layout_free(work.tensors, work.count);
    free(work.config);
    source_close(work.source);
    return code;
}
