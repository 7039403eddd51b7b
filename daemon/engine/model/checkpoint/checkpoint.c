/* checkpoint.c: see checkpoint.h.
 *
 * Opening goes: find the files (checkpoint_files.c), read the JSON (config.c), map and parse the weight
 * files, make one sorted table of all tensors, check the quantised ones against their meta file,
 * check that everything a task needs is there (inventory.c), fingerprint.
 */
#include "daemon/engine/model/checkpoint/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/sha256.h"
#include "daemon/engine/model/checkpoint/checkpoint_files.h"
#include "daemon/engine/model/checkpoint/config.h"
#include "daemon/engine/model/checkpoint/inventory.h"
#include "daemon/engine/model/checkpoint/mlx.h"
#include "daemon/engine/model/checkpoint/model_file.h"
#include "daemon/engine/model/checkpoint/notes.h"
#include "daemon/engine/model/checkpoint/pth.h"

enum {
    MAX_NAME_BYTES = 1100,          /* the readers allow 1024; room for a prefix or suffix */
    MAX_WEIGHT_FILES = CHECKPOINT_MAX_SHARDS + 2,
    SAMPLES = 32,                   /* of each weight file, for the hash */
    SAMPLE_BYTES = 64 * 1024
};

/* A mapped weight file; exactly one of the two parsers' objects is set. */
struct weight_file {
    struct mapped_file mapping;
    struct safetensors *safetensors;
    struct pth *pth;
    bool used; /* at least one tensor of the table is from it */
};

struct checkpoint {
    struct lance_config config;
    char kind[32];
    char directory[PATH_MAX];
    char hash[65];
    struct notes warnings;
    struct notes lacks_for_generation;
    bool can_generate, can_see;
    struct weight_file files[MAX_WEIGHT_FILES];
    int file_count;
    struct tensor_view *tensors; /* sorted by name */
    size_t count;
    char **owned_names;          /* those that differ from the file's */
    size_t owned_count;
    void *patch_embedding;       /* see order_patch_embedding; or NULL */
};

/* --- weight files ------------------------------------------------------------------------ */

static size_t file_tensors(const struct weight_file *file)
{
    return file->pth ? pth_count(file->pth) : safetensors_count(file->safetensors);
}

static const struct tensor_view *file_tensor(const struct weight_file *file, size_t index)
{
    return file->pth ? pth_at(file->pth, index) : safetensors_at(file->safetensors, index);
}

static bool ends_with(const char *text, const char *suffix)
{
    size_t length = strlen(text), suffix_length = strlen(suffix);
    return length >= suffix_length && !strcmp(text + length - suffix_length, suffix);
}

/* Map and parse; the format is told by the content, not the name. The file is closed by checkpoint_close. */
static int open_file(struct checkpoint *checkpoint, const char *path, struct weight_file **out, struct error *error)
{
    struct weight_file *file = &checkpoint->files[checkpoint->file_count++];
    *out = file;
    int result = model_file_open(&file->mapping, path, error);
    if (result)
        return result;
    const void *data = file->mapping.data;
    uint64_t bytes = file->mapping.bytes;
    if (pth_recognise(data, bytes) || ends_with(path, ".pth"))
        return pth_parse(&file->pth, data, bytes, path, error);
    return safetensors_parse(&file->safetensors, data, bytes, path, error);
}

/* --- table of tensors -------------------------------------------------------------------- */

static int compare_by_name(const void *a, const void *b)
{
    const struct tensor_view *left = a, *right = b;
    return strcmp(left->name, right->name);
}

const struct tensor_view *checkpoint_tensor(const struct checkpoint *checkpoint, const char *name)
{
    const struct tensor_view wanted = {.name = name};
    return bsearch(&wanted, checkpoint->tensors, checkpoint->count, sizeof *checkpoint->tensors, compare_by_name);
}

/* The table of latent positions is 1 GB in the video checkpoint and computed anyway, as officially. */
static bool is_ignored(const char *name)
{
    return !strcmp(name, "latent_pos_embed.pos_embed");
}

/* The name in the table of a file's tensor, to be freed; NULL if it is the file's own. Errors: ERROR_NO_MEMORY. */
static int table_name(const char *name, const char *prefix, char **out, struct error *error)
{
    char official[MAX_NAME_BYTES];
    *out = NULL;
    if (!*prefix && !mlx_official_name(name, official, sizeof official))
        return 0;
    int length = *prefix ? asprintf(out, "%s%s", prefix, name) : asprintf(out, "%s", official);
    if (length >= 0)
        return 0;
    *out = NULL;
    return error_set(error, ERROR_NO_MEMORY, "no memory for tensor names");
}

/* Add a file's tensors under `prefix` (without one, MLX names become official ones) and sort the table again. Names that
 * the table has already are left out (the ViT's, when the main file has one, too), but may not come twice among the main
 * files. */
static int add_tensors(struct checkpoint *checkpoint, struct weight_file *file, const char *prefix, struct error *error)
{
    size_t more = file_tensors(file), known = checkpoint->count;
    struct tensor_view *tensors = realloc(checkpoint->tensors, (known + more + 1) * sizeof *tensors);
    if (tensors)
        checkpoint->tensors = tensors;
    char **names = realloc(checkpoint->owned_names, (checkpoint->owned_count + more + 1) * sizeof *names);
    if (names)
        checkpoint->owned_names = names;
    if (!tensors || !names)
        return error_set(error, ERROR_NO_MEMORY, "no memory for a table of %zu tensors", known + more);
    for (size_t i = 0; i < more; i++) {
        struct tensor_view tensor = *file_tensor(file, i);
        char *name;
        int result = table_name(tensor.name, prefix, &name, error);
        if (result)
            return result;
        if (name)
            tensor.name = names[checkpoint->owned_count++] = name;
        const struct tensor_view wanted = {.name = tensor.name};
        bool is_known = bsearch(&wanted, tensors, known, sizeof *tensors, compare_by_name);
        if (is_known && !*prefix)
            return error_set(error, ERROR_BAD_FILE, "tensor \"%.200s\" is in two files", tensor.name);
        if (is_known || is_ignored(tensor.name))
            continue;
        tensors[checkpoint->count++] = tensor;
        file->used = true;
    }
    qsort(tensors, checkpoint->count, sizeof *tensors, compare_by_name);
    return 0;
}

static int add_file(struct checkpoint *checkpoint, const char *path, const char *prefix, struct error *error)
{
    struct weight_file *file;
    int result = open_file(checkpoint, path, &file, error);
    return result ? result : add_tensors(checkpoint, file, prefix, error);
}

static const struct tensor_view *find_part(const struct checkpoint *checkpoint, const char *name, const char *part)
{
    char full[MAX_NAME_BYTES];
    int length = snprintf(full, sizeof full, "%s.%s", name, part);
    return length > 0 && (size_t)length < sizeof full ? checkpoint_tensor(checkpoint, full) : NULL;
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

/* The tensor holds [out, in] elements, whatever further axes `in` is spread over. */
static bool is_matrix(const struct tensor_view *tensor, int out, int in)
{
    return tensor->dimensions >= 2 && tensor->shape[0] == (uint64_t)out &&
           tensor_elements(tensor) == (uint64_t)out * (uint64_t)in;
}

/* A part of a 4-bit weight: [out, columns], `columns` counted from the shape when it is 0. */
static int read_part(const struct checkpoint *checkpoint, const char *name, const char *part, enum dtype dtype, int out,
                     uint64_t *columns, const void **data, struct error *error)
{
    const struct tensor_view *tensor = find_part(checkpoint, name, part);
    if (!tensor)
        return error_set(error, ERROR_BAD_FILE, "tensor \"%.200s.%s\" is missing", name, part);
    /* FP8 bytes are published as U8, but the format has a dtype for them. */
    bool known = tensor->dtype == dtype || (!strcmp(part, "scales_fp8") && tensor->dtype == DTYPE_F8_E4M3);
    if (!known)
        return error_set(error, ERROR_BAD_FILE, "tensor \"%.200s\" has dtype %s where %s is needed", tensor->name,
                         dtype_name(tensor->dtype), dtype_name(dtype));
    if (tensor->dimensions != 2 || tensor->shape[0] != (uint64_t)out || (*columns && tensor->shape[1] != *columns))
        return bad_shape(tensor, (uint64_t)out, *columns, error);
    *columns = tensor->shape[1];
    *data = tensor->data;
    return 0;
}

/* The per-tensor scale of our own quantiser; published NVFP4 files have none. */
static int read_tensor_scale(const struct checkpoint *checkpoint, const char *name, float *scale, struct error *error)
{
    const struct tensor_view *tensor = find_part(checkpoint, name, "tensor_scale");
    *scale = 1.0f;
    if (!tensor)
        return 0;
    if (tensor->dtype != DTYPE_F32 || tensor_elements(tensor) != 1)
        return error_set(error, ERROR_BAD_FILE, "tensor \"%.200s\" must be one F32 number", tensor->name);
    return tensor_to_float(tensor, scale, error);
}

/* 4-bit codes, their number a row and how many share a scale being even. */
static int set_group_size(struct linear_source *source, const char *name, uint64_t groups, struct error *error)
{
    uint64_t in = (uint64_t)source->in_features;
    if (groups == 0 || in % groups || in / groups % 2)
        return error_set(error, ERROR_BAD_FILE,
                         "\"%.200s\": %llu scales a row do not split %d columns into even groups", name,
                         (unsigned long long)groups, source->in_features);
    source->group_size = (int)(in / groups);
    return 0;
}

static int read_mlx(const struct checkpoint *checkpoint, const char *name, struct linear_source *source,
                    struct error *error)
{
    int out = source->out_features, in = source->in_features, result;
    if (in % 8)
        return error_set(error, ERROR_BAD_FILE, "\"%.200s\": packed 4-bit weights need a multiple of 8 columns", name);
    uint64_t packed = (uint64_t)in / 8, groups = 0;
    source->format = WEIGHT_MLX_INT4;
    if ((result = read_part(checkpoint, name, "weight", DTYPE_U32, out, &packed, &source->data, error)) ||
        (result = read_part(checkpoint, name, "scales", DTYPE_BF16, out, &groups, &source->scales, error)) ||
        (result = read_part(checkpoint, name, "biases", DTYPE_BF16, out, &groups, &source->offsets, error)))
        return result;
    return set_group_size(source, name, groups, error);
}

static int read_4bit(const struct checkpoint *checkpoint, const char *name, struct linear_source *source,
                     struct error *error)
{
    int out = source->out_features, in = source->in_features, result;
    if (in % 2)
        return error_set(error, ERROR_BAD_FILE, "\"%.200s\": 4-bit weights need an even number of columns", name);
    uint64_t packed = (uint64_t)in / 2, groups = 0;
    const void *zeros = NULL;
    if ((result = read_part(checkpoint, name, "qweight", DTYPE_U8, out, &packed, &source->data, error)))
        return result;
    if (find_part(checkpoint, name, "zeros")) {
        source->format = WEIGHT_AWQ_INT4;
        if ((result = read_part(checkpoint, name, "scales", DTYPE_BF16, out, &groups, &source->scales, error)) ||
            (result = read_part(checkpoint, name, "zeros", DTYPE_U8, out, &groups, &zeros, error)))
            return result;
        source->zeros = zeros;
    } else {
        source->format = WEIGHT_NVFP4;
        bool wide = find_part(checkpoint, name, "scales_bf16");
        if ((result = wide ? read_part(checkpoint, name, "scales_bf16", DTYPE_BF16, out, &groups, &source->scales, error)
                           : read_part(checkpoint, name, "scales_fp8", DTYPE_U8, out, &groups, &source->scales_fp8,
                                       error)) ||
            (result = read_tensor_scale(checkpoint, name, &source->tensor_scale, error)))
            return result;
    }
    return set_group_size(source, name, groups, error);
}

int checkpoint_linear(const struct checkpoint *checkpoint, const char *name, int out_features, int in_features,
                      struct linear_source *source, struct error *error)
{
    *source = (struct linear_source){.out_features = out_features, .in_features = in_features, .tensor_scale = 1.0f};
    const struct tensor_view *weight = find_part(checkpoint, name, "weight");
    int result;
    if (weight && weight->dtype == DTYPE_U32) {
        result = read_mlx(checkpoint, name, source, error);
    } else if (weight) {
        if (!is_matrix(weight, out_features, in_features))
            return bad_shape(weight, (uint64_t)out_features, (uint64_t)in_features, error);
        result = dense_format(weight, &source->format, error);
        source->data = weight->data;
    } else if (find_part(checkpoint, name, "qweight")) {
        result = read_4bit(checkpoint, name, source, error);
    } else {
        return error_set(error, ERROR_BAD_FILE, "tensor \"%.200s.weight\" is missing", name);
    }
    const struct tensor_view *bias = find_part(checkpoint, name, "bias");
    if (result || !bias)
        return result;
    if (tensor_elements(bias) != (uint64_t)out_features)
        return error_set(error, ERROR_BAD_FILE, "tensor \"%.200s\" has %llu elements where %d are needed", bias->name,
                         (unsigned long long)tensor_elements(bias), out_features);
    source->bias = bias->data;
    return dense_format(bias, &source->bias_format, error);
}

int checkpoint_conv(const struct checkpoint *checkpoint, const char *name, struct conv_source *source,
                    struct error *error)
{
    *source = (struct conv_source){0};
    const struct tensor_view *weight = find_part(checkpoint, name, "weight");
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
    const struct tensor_view *bias = find_part(checkpoint, name, "bias");
    if (!bias)
        return 0;
    if (bias->dtype != weight->dtype || tensor_elements(bias) != weight->shape[0])
        return error_set(error, ERROR_BAD_FILE, "tensor \"%.200s\" must have %llu elements of the weight's dtype %s",
                         bias->name, (unsigned long long)weight->shape[0], dtype_name(weight->dtype));
    source->bias = bias->data;
    return 0;
}

int checkpoint_vector(const struct checkpoint *checkpoint, const char *name, int n, float *out, struct error *error)
{
    const struct tensor_view *tensor = checkpoint_tensor(checkpoint, name);
    if (!tensor)
        return error_set(error, ERROR_BAD_FILE, "tensor \"%.200s\" is missing", name);
    if (tensor_elements(tensor) != (uint64_t)n)
        return error_set(error, ERROR_BAD_FILE, "tensor \"%.200s\" has %llu elements where %d are needed", name,
                         (unsigned long long)tensor_elements(tensor), n);
    return tensor_to_float(tensor, out, error);
}

/* --- kind of checkpoint ------------------------------------------------------------------------ */

/* A meta file, or its entry of one weight (`name`, else NULL), may state how the weights are quantised: it must be a way
 * that is read here. */
static int check_stated_form(const cJSON *stated, const char *path, const char *name, struct error *error)
{
    static const char *const known[] = {"asym_int4", "nvfp4"}; /* and what follows: how the scales were chosen */
    const cJSON *n_bit = cJSON_GetObjectItemCaseSensitive(stated, "n_bit");
    const cJSON *scheme = cJSON_GetObjectItemCaseSensitive(stated, "scheme");
    const char *text = cJSON_GetStringValue(scheme), *of = name ? " of " : "";
    if (!name)
        name = "";
    if (n_bit && !(cJSON_IsNumber(n_bit) && n_bit->valuedouble == 4))
        return error_set(error, ERROR_UNSUPPORTED, "%s: \"n_bit\"%s%.200s is not 4; only 4-bit weights are read", path, of, name);
    bool is_known = !scheme;
    for (size_t i = 0; text && i < sizeof known / sizeof *known; i++)
        is_known |= !strncmp(text, known[i], strlen(known[i]));
    if (is_known)
        return 0;
    return error_set(error, ERROR_UNSUPPORTED, "%s: \"scheme\"%s%.200s is \"%.60s\"; asym_int4 and nvfp4 are read", path, of, name,
                     text ? text : "no text");
}

/* Check a quantiser's meta file: MLX's config.json, or, against the tensors, {n_bit, group_size | block_size, per_weight: {"X.weight":
 * {shape: [out, in], group_size | block_size}}}. `group_size` gets the file's overall one. */
static int check_meta(const struct checkpoint *checkpoint, const cJSON *meta, const char *path, int *group_size,
                      struct error *error)
{
    if (mlx_quantization(meta))
        return mlx_check_quantization(mlx_quantization(meta), path, group_size, error);
    int result = check_stated_form(meta, path, NULL, error);
    if (result)
        return result;
    const cJSON *group = cJSON_GetObjectItemCaseSensitive(meta, "group_size");
    if (!group)
        group = cJSON_GetObjectItemCaseSensitive(meta, "block_size");
    if (!cJSON_IsNumber(group) || !(group->valuedouble >= 2) || !(group->valuedouble <= 1 << 16))
        return error_set(error, ERROR_BAD_FILE, "%s: \"group_size\" or \"block_size\" is missing or out of range", path);
    *group_size = (int)group->valuedouble;
    const cJSON *weights = cJSON_GetObjectItemCaseSensitive(meta, "per_weight");
    if (weights && !cJSON_IsObject(weights))
        return error_set(error, ERROR_BAD_FILE, "%s: \"per_weight\" must be an object", path);
    for (const cJSON *weight = weights ? weights->child : NULL; weight; weight = weight->next) {
        const cJSON *shape = cJSON_GetObjectItemCaseSensitive(weight, "shape");
        const cJSON *own = cJSON_GetObjectItemCaseSensitive(weight, "group_size");
        if (!own)
            own = cJSON_GetObjectItemCaseSensitive(weight, "block_size");
        const cJSON *out = cJSON_GetArrayItem(shape, 0), *in = cJSON_GetArrayItem(shape, 1);
        size_t length = weight->string ? strlen(weight->string) : 0;
        char name[MAX_NAME_BYTES];
        if (!cJSON_IsNumber(out) || !cJSON_IsNumber(in) || !(out->valuedouble >= 1) || !(in->valuedouble >= 1) ||
            !(out->valuedouble <= 1 << 24) || !(in->valuedouble <= 1 << 24) || (own && !cJSON_IsNumber(own)) ||
            length >= sizeof name || !ends_with(weight->string, ".weight"))
            return error_set(error, ERROR_BAD_FILE, "%s: entry \"%.200s\" of \"per_weight\" is not of the known form", path,
                             weight->string ? weight->string : "");
        snprintf(name, sizeof name, "%.*s", (int)(length - strlen(".weight")), weight->string);
        struct linear_source source;
        if ((result = check_stated_form(weight, path, name, error)))
            return result;
        result = checkpoint_linear(checkpoint, name, (int)out->valuedouble, (int)in->valuedouble, &source, error);
        if (result)
            return error_prefix(error, "%s", path);
        double stated = own ? own->valuedouble : *group_size;
        if (source.format != WEIGHT_AWQ_INT4 && source.format != WEIGHT_NVFP4)
            return error_set(error, ERROR_BAD_FILE, "%s: \"%.200s\" should be a 4-bit weight, but is not", path, name);
        if (source.group_size != stated)
            return error_set(error, ERROR_BAD_FILE, "%s: \"%.200s\" should have groups of %g columns, but its scales are for %d",
                             path, name, stated, source.group_size);
    }
    return 0;
}

static int read_meta(const struct checkpoint *checkpoint, const char *path, int *group_size, struct error *error)
{
    cJSON *meta;
    int result = config_read_json(&meta, path, error);
    if (result)
        return result;
    result = check_meta(checkpoint, meta, path, group_size, error);
    cJSON_Delete(meta);
    return result;
}

/* How many 4-bit weights share one of the .scales (AWQ, MLX): the most, as only odd widths fall back to smaller groups. */
static int largest_group(const struct checkpoint *checkpoint)
{
    uint64_t largest = 0;
    for (size_t i = 0; i < checkpoint->count; i++) {
        const struct tensor_view *scales = &checkpoint->tensors[i];
        if (!ends_with(scales->name, ".scales") || scales->dimensions != 2 || !scales->shape[1])
            continue;
        char name[MAX_NAME_BYTES];
        snprintf(name, sizeof name, "%.*s", (int)(strlen(scales->name) - strlen(".scales")), scales->name);
        const struct tensor_view *bytes = find_part(checkpoint, name, "qweight");
        const struct tensor_view *packed = bytes ? bytes : find_part(checkpoint, name, "weight");
        uint64_t size = packed && packed->dimensions == 2 ? (bytes ? 2 : 8) * packed->shape[1] / scales->shape[1] : 0;
        if (size > largest && size <= 1 << 16)
            largest = size;
    }
    return (int)largest;
}

/* Name the kind by what the tensors are; for quantised ones also check the meta file. */
static int recognise(struct checkpoint *checkpoint, const char *meta_path, struct error *error)
{
    bool awq = false, mlx = false, nvfp4 = false, wide_scales = false, tensor_scales = false;
    for (size_t i = 0; i < checkpoint->count; i++) {
        const struct tensor_view *tensor = &checkpoint->tensors[i];
        nvfp4 |= ends_with(tensor->name, ".scales_fp8") || ends_with(tensor->name, ".scales_bf16");
        wide_scales |= ends_with(tensor->name, ".scales_bf16");
        tensor_scales |= ends_with(tensor->name, ".tensor_scale");
        awq |= ends_with(tensor->name, ".zeros");
        mlx |= ends_with(tensor->name, ".biases");
    }
    int seen_group_size = largest_group(checkpoint), group_size = seen_group_size;
    if (*meta_path) {
        int result = read_meta(checkpoint, meta_path, &group_size, error);
        if (result)
            return result;
    }
    if (mlx && group_size != seen_group_size)
        return error_set(error, ERROR_BAD_FILE, "%s: says that %d weights share a scale, but in the tensors %d do",
                         meta_path, group_size, seen_group_size);
    const struct tensor_view *sample = checkpoint_tensor(checkpoint, "language_model.model.layers.0.self_attn.q_proj.weight");
    if (awq)
        snprintf(checkpoint->kind, sizeof checkpoint->kind, "awq-int4-g%d", group_size);
    else if (mlx)
        snprintf(checkpoint->kind, sizeof checkpoint->kind, "mlx-int4-g%d", group_size);
    else if (nvfp4 && !wide_scales && !tensor_scales) {
        strcpy(checkpoint->kind, "nvfp4-fp8-scales");
        notes_add(&checkpoint->warnings,
                  "NVFP4 weights without .scales_bf16 or a per-tensor scale: their FP8 scales are used, which lose accuracy");
    } else if (nvfp4)
        strcpy(checkpoint->kind, "nvfp4");
    else
        strcpy(checkpoint->kind, sample && sample->dtype == DTYPE_F32 ? "f32" : "bf16");
    return 0;
}

/* --- hash and prefetch --------------------------------------------------------------------------- */

static void hash_file(struct sha256 *sha, const struct weight_file *file)
{
    const uint8_t *data = file->mapping.data;
    uint64_t bytes = file->mapping.bytes;
    uint8_t size[8];
    for (int i = 0; i < 8; i++)
        size[i] = (uint8_t)(bytes >> 8 * i);
    sha256_add(sha, size, sizeof size);
    if (bytes <= (uint64_t)SAMPLES * SAMPLE_BYTES) {
        sha256_add(sha, data, (size_t)bytes);
        return;
    }
    if (file->safetensors) {
        uint64_t header_bytes = 0; /* in range: the parser has accepted it */
        for (int i = 7; i >= 0; i--)
            header_bytes = header_bytes << 8 | data[i];
        sha256_add(sha, data, (size_t)(8 + header_bytes));
    }
    for (uint64_t i = 0; i < SAMPLES; i++)
        sha256_add(sha, data + (bytes - SAMPLE_BYTES) / (SAMPLES - 1) * i, SAMPLE_BYTES);
}

/* The fingerprint of the weights: SHA-256 over, for each weight file that is used (main files in order of
 * name, ViT, VAE): its size (u64, little-endian); then the whole file if it has at most 2 MiB, else its
 * safetensors header with the length field, and 32 samples of 64 KiB evenly spread from the first byte on.
 * Reading all of a 25 GB file instead would take longer than loading it. */
static void compute_hash(struct checkpoint *checkpoint)
{
    struct sha256 sha;
    sha256_start(&sha);
    for (int i = 0; i < checkpoint->file_count; i++)
        if (checkpoint->files[i].used)
            hash_file(&sha, &checkpoint->files[i]);
    sha256_finish(&sha, checkpoint->hash);
}

/* .scales_fp8 is only read where .scales_bf16 is not. */
static bool is_read(const struct checkpoint *checkpoint, const struct tensor_view *tensor)
{
    if (!ends_with(tensor->name, ".scales_fp8"))
        return true;
    char name[MAX_NAME_BYTES];
    snprintf(name, sizeof name, "%.*s", (int)(strlen(tensor->name) - strlen(".scales_fp8")), tensor->name);
    return !find_part(checkpoint, name, "scales_bf16");
}

uint64_t checkpoint_bytes(const struct checkpoint *checkpoint)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < checkpoint->count; i++)
        if (is_read(checkpoint, &checkpoint->tensors[i]))
            bytes += checkpoint->tensors[i].bytes;
    return bytes;
}

void checkpoint_let_go(const struct checkpoint *checkpoint, const char *prefix)
{
    for (size_t i = 0; i < checkpoint->count; i++)
        if (!strncmp(checkpoint->tensors[i].name, prefix, strlen(prefix)) &&
            checkpoint->tensors[i].data != checkpoint->patch_embedding) /* which is no mapping */
            mapped_file_let_go(checkpoint->tensors[i].data, checkpoint->tensors[i].bytes);
}

/* Start reading the weights from the disk, unless they would crowd out everything else. */
static void prefetch(const struct checkpoint *checkpoint)
{
    uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    if (checkpoint_bytes(checkpoint) > memory / 2)
        return;
    for (size_t i = 0; i < checkpoint->count; i++)
        if (is_read(checkpoint, &checkpoint->tensors[i]) && checkpoint->tensors[i].bytes)
            mapped_file_prefetch(checkpoint->tensors[i].data, checkpoint->tensors[i].bytes);
}

/* --- opening ---------------------------------------------------------------------------------------- */

static int open_weights(struct checkpoint *checkpoint, const struct checkpoint_files *files, struct error *error)
{
    int result = 0;
    for (int i = 0; i < files->weights_count && !result; i++)
        result = add_file(checkpoint, files->weights[i], "", error);
    if (!result && *files->vit_weights)
        result = add_file(checkpoint, files->vit_weights, "vit_model.", error);
    if (!result && *files->vae)
        result = add_file(checkpoint, files->vae, "vae.", error);
    return result;
}

static int read_config(struct checkpoint *checkpoint, const struct checkpoint_files *files, struct error *error)
{
    char path[PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/tokenizer_config.json", files->tokenizer_directory);
    int result = config_read_llm(&checkpoint->config, files->llm_config, error);
    return result ? result : config_read_tokens(&checkpoint->config, path, error);
}

/* Incomplete parts are damage, not absence. */
static int refuse_incomplete(const char *part, const struct inventory *inventory, struct error *error)
{
    return error_set(error, ERROR_BAD_FILE, "%s: missing tensors (%d): %.300s%s", part, inventory->missing,
                     inventory->missing_names.text, inventory->missing > INVENTORY_NAMES_SHOWN ? "; ..." : "");
}

static int check_language_model(struct checkpoint *checkpoint, bool *generation, struct error *error)
{
    struct inventory inventory;
    int result = inventory_check(checkpoint, INVENTORY_UNDERSTANDING, &checkpoint->config, &inventory, error);
    if (result)
        return result;
    if (inventory.missing)
        return refuse_incomplete("weights", &inventory, error);
    result = inventory_check(checkpoint, INVENTORY_GENERATION, &checkpoint->config, &inventory, error);
    if (result)
        return result;
    if (inventory.missing && inventory.found)
        return refuse_incomplete("weights for generation", &inventory, error);
    *generation = inventory.missing == 0;
    return 0;
}

/* MLX keeps the patch embedding, a convolution [out, in, t, h, w], as [out, t, h, w, in], and its files may have either.
 * The one tensor that is ever copied: into the official order. */
static int order_patch_embedding(struct checkpoint *checkpoint, struct error *error)
{
    const struct lance_config *c = &checkpoint->config;
    struct tensor_view *tensor =
        (struct tensor_view *)(uintptr_t)checkpoint_tensor(checkpoint, "vit_model.patch_embed.proj.weight");
    const uint64_t in = (uint64_t)c->vit.in_channels;
    if (!tensor || tensor->dimensions != 5 || tensor->shape[1] == in || tensor->shape[4] != in)
        return 0;
    uint64_t cells = tensor->shape[1] * tensor->shape[2] * tensor->shape[3], element = dtype_bytes(tensor->dtype);
    char *ordered = malloc((size_t)tensor->bytes + 1);
    if (!ordered)
        return error_set(error, ERROR_NO_MEMORY, "no memory for the ViT's patch embedding");
    for (uint64_t out = 0; out < tensor->shape[0]; out++)
        for (uint64_t cell = 0; cell < cells; cell++)
            for (uint64_t channel = 0; channel < in; channel++)
                memcpy(ordered + ((out * in + channel) * cells + cell) * element,
                       (const char *)tensor->data + ((out * cells + cell) * in + channel) * element, (size_t)element);
    memmove(tensor->shape + 2, tensor->shape + 1, 3 * sizeof *tensor->shape);
    tensor->shape[1] = in;
    tensor->data = checkpoint->patch_embedding = ordered;
    return 0;
}

static int check_vit(struct checkpoint *checkpoint, const struct checkpoint_files *files, struct error *error)
{
    if (!checkpoint_tensor(checkpoint, "vit_model.patch_embed.proj.weight") && !*files->vit_weights)
        return 0;
    const char *path = *files->vit_config ? files->vit_config : files->llm_config;
    if (!*files->vit_config && !config_has(path, "vision_config"))
        return 0;
    struct inventory inventory;
    int result = config_read_vit(&checkpoint->config, path, error);
    if (!result)
        result = order_patch_embedding(checkpoint, error);
    if (!result)
        result = inventory_check(checkpoint, INVENTORY_VIT, &checkpoint->config, &inventory, error);
    if (!result && inventory.missing)
        result = refuse_incomplete("ViT", &inventory, error);
    checkpoint->config.vit.present = true;
    return result;
}

static int check_vae(struct checkpoint *checkpoint, const struct checkpoint_files *files, struct error *error)
{
    if (!*files->vae)
        return 0;
    struct inventory inventory;
    int result = inventory_check(checkpoint, INVENTORY_VAE, &checkpoint->config, &inventory, error);
    if (!result && inventory.missing)
        result = refuse_incomplete("VAE", &inventory, error);
    return result;
}

/* Which tasks the parts make possible; none is an error. */
static int decide_tasks(struct checkpoint *checkpoint, const char *model_dir, bool generation, struct error *error)
{
    bool vae = checkpoint->config.vae.present, vit = checkpoint->config.vit.present;
    checkpoint->can_generate = generation && vae;
    checkpoint->can_see = vit;
    if (!generation)
        notes_add(&checkpoint->lacks_for_generation,
                  "weights for generation (*_moe_gen, vae2llm, llm2vae, time_embedder)");
    if (!vae)
        notes_add(&checkpoint->lacks_for_generation, "%s", checkpoint_vae_advice);
    struct notes lacks = checkpoint->lacks_for_generation;
    if (!vit)
        notes_add(&lacks, "%s", checkpoint_vit_advice);
    if (!checkpoint->can_generate && !vit)
        return error_set(error, ERROR_BAD_FILE, "%s: no task is possible; missing: %s", model_dir, lacks.text);
    if (!checkpoint->can_generate)
        notes_add(&checkpoint->warnings, "t2i, t2v, i2v, image_edit and video_edit are off; missing: %s", lacks.text);
    else if (!vit)
        notes_add(&checkpoint->warnings, "image_edit, video_edit, x2t_image and x2t_video are off; missing: %s",
                  lacks.text);
    return 0;
}

static int open_all(struct checkpoint *checkpoint, const struct checkpoint_options *options,
                    struct checkpoint_files *files, struct error *error)
{
    struct notes missing = {""};
    int result = checkpoint_files_find(files, options, &missing, &checkpoint->warnings, error);
    if (result)
        return result;
    if (*missing.text) {
        if (!*files->vae)
            notes_add(&missing, "%s", checkpoint_vae_advice);
        if (!*files->vit_config)
            notes_add(&missing, "%s", checkpoint_vit_advice);
        return error_set(error, ERROR_BAD_FILE, "%s: missing: %s", options->model_dir, missing.text);
    }
    strcpy(checkpoint->directory, files->tokenizer_directory);
    bool generation = false;
    if ((result = read_config(checkpoint, files, error)) || (result = open_weights(checkpoint, files, error)) ||
        (result = recognise(checkpoint, files->meta, error)) ||
        (result = check_language_model(checkpoint, &generation, error)) ||
        (result = check_vit(checkpoint, files, error)) || (result = check_vae(checkpoint, files, error)) ||
        (result = decide_tasks(checkpoint, options->model_dir, generation, error)))
        return result;
    prefetch(checkpoint);
    compute_hash(checkpoint);
    return 0;
}

int checkpoint_open(struct checkpoint **out, const struct checkpoint_options *options, struct error *error)
{
    *out = NULL;
    struct checkpoint *checkpoint = calloc(1, sizeof *checkpoint);
    struct checkpoint_files *files = calloc(1, sizeof *files);
    int result = checkpoint && files
                     ? open_all(checkpoint, options, files, error)
                     : error_set(error, ERROR_NO_MEMORY, "%s: no memory to open it", options->model_dir);
    free(files);
    if (result) {
        checkpoint_close(checkpoint);
        return result;
    }
    *out = checkpoint;
    return 0;
}

void checkpoint_close(struct checkpoint *checkpoint)
{
    if (!checkpoint)
        return;
    for (int i = 0; i < checkpoint->file_count; i++) {
        safetensors_close(checkpoint->files[i].safetensors);
        pth_close(checkpoint->files[i].pth);
        mapped_file_close(&checkpoint->files[i].mapping);
    }
    for (size_t i = 0; i < checkpoint->owned_count; i++)
        free(checkpoint->owned_names[i]);
    free(checkpoint->owned_names);
    free(checkpoint->patch_embedding);
    free(checkpoint->tensors);
    free(checkpoint);
}

const struct lance_config *checkpoint_config(const struct checkpoint *checkpoint)
{
    return &checkpoint->config;
}

const char *checkpoint_kind(const struct checkpoint *checkpoint)
{
    return checkpoint->kind;
}

const char *checkpoint_directory(const struct checkpoint *checkpoint)
{
    return checkpoint->directory;
}

const char *checkpoint_hash(const struct checkpoint *checkpoint)
{
    return checkpoint->hash;
}

const char *checkpoint_warnings(const struct checkpoint *checkpoint)
{
    return checkpoint->warnings.text;
}

const char *checkpoint_lacks_for_generation(const struct checkpoint *checkpoint)
{
    return checkpoint->lacks_for_generation.text;
}

bool checkpoint_can_generate(const struct checkpoint *checkpoint)
{
    return checkpoint->can_generate;
}

bool checkpoint_can_see(const struct checkpoint *checkpoint)
{
    return checkpoint->can_see;
}
