/* tensors.c: see tensors.h. */
#include "daemon/engine/model/checkpoint/tensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/engine/model/checkpoint/mlx.h"

/* --- the table ---------------------------------------------------------------------------- */

const struct tensor_view *tensor_table_find(const struct tensor_table *table, const char *name)
{
    const struct tensor_view wanted = {.name = name};
    return bsearch(&wanted, table->tensors, table->count, sizeof *table->tensors, tensor_compare_names);
}

const struct tensor_view *tensor_table_part(const struct tensor_table *table, const char *name, const char *part)
{
    char full[TENSOR_MAX_NAME_BYTES];
    int length = snprintf(full, sizeof full, "%s.%s", name, part);
    return length > 0 && (size_t)length < sizeof full ? tensor_table_find(table, full) : NULL;
}

/* The table of latent positions is 1 GB in the video checkpoint and computed anyway, as officially. */
static bool is_ignored(const char *name)
{
    return !strcmp(name, "latent_pos_embed.pos_embed");
}

/* The name in the table of a file's tensor, to be freed; NULL if it is the file's own. Errors: ERROR_NO_MEMORY. */
static int table_name(const char *name, const char *prefix, char **out, struct error *error)
{
    char official[TENSOR_MAX_NAME_BYTES];
    *out = NULL;
    if (!*prefix && !mlx_official_name(name, official, sizeof official))
        return 0;
    int length = *prefix ? asprintf(out, "%s%s", prefix, name) : asprintf(out, "%s", official);
    if (length >= 0)
        return 0;
    *out = NULL;
    return error_set(error, ERROR_NO_MEMORY, "no memory for tensor names");
}

int tensor_table_add(struct tensor_table *table, const struct tensor_source *file, const char *prefix, bool *used,
                     struct error *error)
{
    size_t more = file->count, known = table->count;
    *used = false;
    struct tensor_view *tensors = realloc(table->tensors, (known + more + 1) * sizeof *tensors);
    if (tensors)
        table->tensors = tensors;
    char **names = realloc(table->owned_names, (table->owned_count + more + 1) * sizeof *names);
    if (names)
        table->owned_names = names;
    if (!tensors || !names)
        return error_set(error, ERROR_NO_MEMORY, "no memory for a table of %zu tensors", known + more);
    for (size_t i = 0; i < more; i++) {
        struct tensor_view tensor = *file->at(file->file, i);
        char *name;
        int result = table_name(tensor.name, prefix, &name, error);
        if (result)
            return result;
        if (name)
            tensor.name = names[table->owned_count++] = name;
        const struct tensor_view wanted = {.name = tensor.name};
        bool is_known = bsearch(&wanted, tensors, known, sizeof *tensors, tensor_compare_names);
        if (is_known && !*prefix)
            return error_set(error, ERROR_BAD_FILE, "tensor \"%.200s\" is in two files", tensor.name);
        if (is_known || is_ignored(tensor.name))
            continue;
        tensors[table->count++] = tensor;
        *used = true;
    }
    qsort(tensors, table->count, sizeof *tensors, tensor_compare_names);
    return 0;
}

void tensor_table_free(struct tensor_table *table)
{
    for (size_t i = 0; i < table->owned_count; i++)
        free(table->owned_names[i]);
    free(table->owned_names);
    free(table->tensors);
    *table = (struct tensor_table){0};
}

/* --- reading by role ------------------------------------------------------------------------ */

/* "[2, 3]" for messages. */
static const char *shape_text(const struct tensor_view *tensor, char *text, size_t bytes)
{
    size_t used = (size_t)snprintf(text, bytes, "[");
    for (int d = 0; d < tensor->dimensions && used < bytes; d++)
        used += (size_t)snprintf(text + used, bytes - used, "%s%llu", d ? ", " : "",
                                 (unsigned long long)tensor->shape[d]);
    if (used < bytes)
        snprintf(text + used, bytes - used, "]");
    return text;
}

static int bad_shape(const struct tensor_view *tensor, uint64_t out, uint64_t in, struct error *error)
{
    char shape[160];
    return error_set(error, ERROR_BAD_FILE, "tensor \"%.200s\" has shape %s where [%llu, %llu] is needed", tensor->name,
                     shape_text(tensor, shape, sizeof shape), (unsigned long long)out, (unsigned long long)in);
}

static int dense_format(const struct tensor_view *tensor, enum weight_format *format, struct error *error)
{
    if (tensor->dtype == DTYPE_F32)
        *format = WEIGHT_F32;
    else if (tensor->dtype == DTYPE_BF16)
        *format = WEIGHT_BF16;
    else
        return error_set(error, ERROR_BAD_FILE, "tensor \"%.200s\" has dtype %s; weights must be BF16 or F32",
                         tensor->name, dtype_name(tensor->dtype));
    return 0;
}

enum { BYTES_PER_WORD = 4 };

/* The tensor holds [out, in] elements, whatever further axes `in` is spread over. */
static bool is_matrix(const struct tensor_view *tensor, int out, int in)
{
    return tensor->dimensions >= 2 && tensor->shape[0] == (uint64_t)out &&
           tensor_elements(tensor) == (uint64_t)out * (uint64_t)in;
}

/* A part of a quantised weight: [out, columns], `columns` counted from the shape when it is 0. */
static int read_part(const struct tensor_table *table, const char *name, const char *part, enum dtype dtype, int out,
                     uint64_t *columns, const void **data, struct error *error)
{
    const struct tensor_view *tensor = tensor_table_part(table, name, part);
    if (!tensor)
        return error_set(error, ERROR_BAD_FILE, "tensor \"%.200s.%s\" is missing", name, part);
    /* FP8 bytes are published as U8, but the format has a dtype for them. */
    bool known = tensor->dtype == dtype || (!strcmp(part, PART_SCALES_FP8) && tensor->dtype == DTYPE_F8_E4M3);
    if (!known)
        return error_set(error, ERROR_BAD_FILE, "tensor \"%.200s\" has dtype %s where %s is needed", tensor->name,
                         dtype_name(tensor->dtype), dtype_name(dtype));
    if (tensor->dimensions != 2 || tensor->shape[0] != (uint64_t)out || (*columns && tensor->shape[1] != *columns))
        return bad_shape(tensor, (uint64_t)out, *columns, error);
    *columns = tensor->shape[1];
    *data = tensor->data;
    return 0;
}

/* The per-tensor scale of our own quantiser, which is of FP8 scales alone; published NVFP4 files have none. */
static int read_tensor_scale(const struct tensor_table *table, const char *name, float *scale, struct error *error)
{
    const struct tensor_view *tensor = tensor_table_part(table, name, PART_TENSOR_SCALE);
    *scale = 1.0f;
    if (!tensor)
        return 0;
    if (tensor->dtype != DTYPE_F32 || tensor_elements(tensor) != 1)
        return error_set(error, ERROR_BAD_FILE, "tensor \"%.200s\" must be one F32 number", tensor->name);
    return tensor_to_float(tensor, scale, error);
}

/* How many codes share a scale; of 4-bit ones, an even number. */
static int set_group_size(struct linear_source *source, const char *name, uint64_t groups, struct error *error)
{
    uint64_t in = (uint64_t)source->in_features;
    if (groups == 0 || in % groups || (weight_is_four_bit(source->format) && in / groups % 2))
        return error_set(error, ERROR_BAD_FILE, "\"%.200s\": %llu scales a row do not split %d columns into %sgroups",
                         name, (unsigned long long)groups, source->in_features,
                         weight_is_four_bit(source->format) ? "even " : "");
    source->group_size = (int)(in / groups);
    return 0;
}

static int read_mlx(const struct tensor_table *table, const char *name, struct linear_source *source,
                    struct error *error)
{
    int out = source->out_features, in = source->in_features, result;
    const struct tensor_view *codes = tensor_table_part(table, name, PART_CODES_MLX);
    const bool bytes = codes->dimensions == 2 && codes->shape[1] == (uint64_t)in / BYTES_PER_WORD;
    if (in % (bytes ? BYTES_PER_WORD : CODES_PER_WORD))
        return error_set(error, ERROR_BAD_FILE, "\"%.200s\": packed weights need a multiple of %d columns", name,
                         bytes ? BYTES_PER_WORD : CODES_PER_WORD);
    uint64_t packed = (uint64_t)in / (bytes ? BYTES_PER_WORD : CODES_PER_WORD), groups = 0;
    const struct tensor_view *scales = tensor_table_part(table, name, PART_SCALES);
    source->format = bytes ? WEIGHT_MLX_INT8 : WEIGHT_MLX_INT4;
    if (!bytes && scales && scales->dtype == DTYPE_U8) { /* the mode nvfp4 */
        source->format = WEIGHT_NVFP4;
        if ((result = read_part(table, name, PART_CODES_MLX, DTYPE_U32, out, &packed, &source->data, error)) ||
            (result = read_part(table, name, PART_SCALES, DTYPE_U8, out, &groups, &source->scales_fp8, error)))
            return result;
        return set_group_size(source, name, groups, error);
    }
    if ((result = read_part(table, name, PART_CODES_MLX, DTYPE_U32, out, &packed, &source->data, error)) ||
        (result = read_part(table, name, PART_SCALES, DTYPE_BF16, out, &groups, &source->scales, error)) ||
        (result = read_part(table, name, PART_OFFSETS, DTYPE_BF16, out, &groups, &source->offsets, error)))
        return result;
    return set_group_size(source, name, groups, error);
}

/* Codes of a byte each: signed and without zeros (INT8), or as AWQ has them. */
static int read_bytes(const struct tensor_table *table, const char *name, bool has_sign, struct linear_source *source,
                      struct error *error)
{
    int result;
    uint64_t columns = (uint64_t)source->in_features, groups = 0;
    const void *zeros = NULL;
    source->format = has_sign ? WEIGHT_INT8 : WEIGHT_AWQ_INT8;
    if ((result = read_part(table, name, PART_CODES, has_sign ? DTYPE_I8 : DTYPE_U8, source->out_features, &columns,
                            &source->data, error)) ||
        (result = read_part(table, name, PART_SCALES, DTYPE_BF16, source->out_features, &groups, &source->scales,
                            error)) ||
        (!has_sign && (result = read_part(table, name, PART_ZEROS, DTYPE_U8, source->out_features, &groups, &zeros,
                                          error))))
        return result;
    source->zeros = zeros;
    return set_group_size(source, name, groups, error);
}

static int read_codes(const struct tensor_table *table, const char *name, struct linear_source *source,
                      struct error *error)
{
    int out = source->out_features, in = source->in_features, result;
    const struct tensor_view *codes = tensor_table_part(table, name, PART_CODES);
    if (codes->dtype == DTYPE_I8)
        return read_bytes(table, name, true, source, error);
    if (is_matrix(codes, out, in) && tensor_table_part(table, name, PART_ZEROS))
        return read_bytes(table, name, false, source, error);
    if (in % CODES_PER_BYTE)
        return error_set(error, ERROR_BAD_FILE, "\"%.200s\": 4-bit weights need an even number of columns", name);
    uint64_t packed = (uint64_t)in / CODES_PER_BYTE, groups = 0;
    const void *zeros = NULL;
    if ((result = read_part(table, name, PART_CODES, DTYPE_U8, out, &packed, &source->data, error)))
        return result;
    if (tensor_table_part(table, name, PART_ZEROS)) {
        source->format = WEIGHT_AWQ_INT4;
        if ((result = read_part(table, name, PART_SCALES, DTYPE_BF16, out, &groups, &source->scales, error)) ||
            (result = read_part(table, name, PART_ZEROS, DTYPE_U8, out, &groups, &zeros, error)))
            return result;
        source->zeros = zeros;
    } else {
        source->format = WEIGHT_NVFP4;
        bool wide = tensor_table_part(table, name, PART_SCALES_BF16);
        if ((result = wide ? read_part(table, name, PART_SCALES_BF16, DTYPE_BF16, out, &groups, &source->scales, error)
                           : read_part(table, name, PART_SCALES_FP8, DTYPE_U8, out, &groups, &source->scales_fp8,
                                       error)) ||
            (!wide && (result = read_tensor_scale(table, name, &source->tensor_scale, error))))
            return result;
    }
    return set_group_size(source, name, groups, error);
}

int tensor_table_linear(const struct tensor_table *table, const char *name, int out_features, int in_features,
                      struct linear_source *source, struct error *error)
{
    *source = (struct linear_source){.out_features = out_features, .in_features = in_features, .tensor_scale = 1.0f};
    const struct tensor_view *weight = tensor_table_part(table, name, "weight");
    int result;
    if (weight && weight->dtype == DTYPE_U32) {
        result = read_mlx(table, name, source, error);
    } else if (weight) {
        if (!is_matrix(weight, out_features, in_features))
            return bad_shape(weight, (uint64_t)out_features, (uint64_t)in_features, error);
        result = dense_format(weight, &source->format, error);
        source->data = weight->data;
    } else if (tensor_table_part(table, name, PART_CODES)) {
        result = read_codes(table, name, source, error);
    } else {
        return error_set(error, ERROR_BAD_FILE, "tensor \"%.200s.weight\" is missing", name);
    }
    const struct tensor_view *bias = tensor_table_part(table, name, "bias");
    if (result || !bias)
        return result;
    if (tensor_elements(bias) != (uint64_t)out_features)
        return error_set(error, ERROR_BAD_FILE, "tensor \"%.200s\" has %llu elements where %d are needed", bias->name,
                         (unsigned long long)tensor_elements(bias), out_features);
    source->bias = bias->data;
    return dense_format(bias, &source->bias_format, error);
}

int tensor_table_conv(const struct tensor_table *table, const char *name, struct conv_source *source,
                    struct error *error)
{
    *source = (struct conv_source){0};
    const struct tensor_view *weight = tensor_table_part(table, name, "weight");
    if (!weight)
        return error_set(error, ERROR_BAD_FILE, "tensor \"%.200s.weight\" is missing", name);
    char shape[160];
    int n = weight->dimensions;
    bool sizes = n == 4 || n == 5;
    for (int d = 0; d < n && sizes; d++)
        sizes = weight->shape[d] >= 1 && weight->shape[d] <= (d < 2 ? 1 << 20 : 1 << 8);
    if (!sizes)
        return error_set(error, ERROR_BAD_FILE, "tensor \"%.200s\" has shape %s, which is not a convolution's",
                         weight->name, shape_text(weight, shape, sizeof shape));
    int result = dense_format(weight, &source->format, error);
    if (result)
        return result;
    source->out_channels = (int)weight->shape[0];
    source->in_channels = (int)weight->shape[1];
    source->kernel_t = n == 5 ? (int)weight->shape[2] : 1;
    source->kernel_h = (int)weight->shape[n - 2];
    source->kernel_w = (int)weight->shape[n - 1];
    source->weight = weight->data;
    const struct tensor_view *bias = tensor_table_part(table, name, "bias");
    if (!bias)
        return 0;
    if (bias->dtype != weight->dtype || tensor_elements(bias) != weight->shape[0])
        return error_set(error, ERROR_BAD_FILE, "tensor \"%.200s\" must have %llu elements of the weight's dtype %s",
                         bias->name, (unsigned long long)weight->shape[0], dtype_name(weight->dtype));
    source->bias = bias->data;
    return 0;
}

int tensor_table_vector(const struct tensor_table *table, const char *name, int n, float *out, struct error *error)
{
    const struct tensor_view *tensor = tensor_table_find(table, name);
    if (!tensor)
        return error_set(error, ERROR_BAD_FILE, "tensor \"%.200s\" is missing", name);
    if (tensor_elements(tensor) != (uint64_t)n)
        return error_set(error, ERROR_BAD_FILE, "tensor \"%.200s\" has %llu elements where %d are needed", name,
                         (unsigned long long)tensor_elements(tensor), n);
    return tensor_to_float(tensor, out, error);
}
