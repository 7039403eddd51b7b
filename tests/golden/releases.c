/* releases.c: see releases.h. */
#include "daemon/engine/model/checkpoint/model_file.h"
#include "tests/golden/releases.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "kernels/formats/group.h"
#include "protocol/safetensors.h"

enum { MAX_TENSORS = 4096, QUANTISED_PARTS = 3 };

struct mlx_settings {
    int group_size; /* 0: not quantised */
    int bits;       /* 4 or 8 */
    bool channels_last_vit;
};

/* A safetensors file in the making. Names and data of its own are in `owned`. */
struct release {
    struct tensor_view tensors[MAX_TENSORS];
    size_t count;
    void *owned[2 * MAX_TENSORS];
    size_t owned_count;
    struct mlx_settings mlx;
    struct error *error;
};

/* --- files ------------------------------------------------------------------------------------ */

static int make_folder(const char *path, struct error *error)
{
    return mkdir(path, 0777) && errno != EEXIST ? error_set(error, ERROR_IO, "%s: %s", path, strerror(errno)) : 0;
}

/* Link INTO/as to MODEL/name, if that is there. */
static int link_file(const char *model_dir, const char *name, const char *into_dir, const char *as, struct error *error)
{
    char from[PATH_MAX], absolute[PATH_MAX], to[PATH_MAX];
    if (snprintf(from, sizeof from, "%s/%s", model_dir, name) >= PATH_MAX ||
        snprintf(to, sizeof to, "%s/%s", into_dir, as) >= PATH_MAX)
        return error_set(error, ERROR_IO, "%s: path too long", into_dir);
    if (!realpath(from, absolute))
        return 0;
    return symlink(absolute, to) ? error_set(error, ERROR_IO, "%s: %s", to, strerror(errno)) : 0;
}

static int link_tokenizer(const char *model_dir, const char *into_dir, struct error *error)
{
    static const char *const names[] = {"vocab.json", "merges.txt", "tokenizer_config.json"};
    int result = make_folder(into_dir, error);
    for (size_t i = 0; i < sizeof names / sizeof *names && !result; i++)
        result = link_file(model_dir, names[i], into_dir, names[i], error);
    return result;
}

static int write_bytes(const char *into_dir, const char *name, const void *data, size_t bytes, struct error *error)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/%s", into_dir, name) >= PATH_MAX)
        return error_set(error, ERROR_IO, "%s: path too long", into_dir);
    FILE *file = fopen(path, "wb");
    bool complete = file && fwrite(data, 1, bytes, file) == bytes;
    if (file && fclose(file))
        complete = false;
    return complete ? 0 : error_set(error, ERROR_IO, "%s: %s", path, strerror(errno));
}

static int write_tensors(const struct release *release, const char *into_dir, const char *name, struct error *error)
{
    void *data;
    uint64_t bytes;
    int result = safetensors_write(&data, &bytes, release->tensors, release->count, NULL, NULL, 0, error);
    if (result)
        return result;
    result = write_bytes(into_dir, name, data, (size_t)bytes, error);
    free(data);
    return result;
}

/* --- tensors ------------------------------------------------------------------------------------ */

static void *own(struct release *release, void *memory)
{
    if (!memory) {
        error_set(release->error, ERROR_NO_MEMORY, "no memory for a release");
        return NULL;
    }
    return release->owned[release->owned_count++] = memory;
}

static int add(struct release *release, struct tensor_view tensor)
{
    if (release->count == MAX_TENSORS)
        return error_set(release->error, ERROR_BAD_FILE, "too many tensors for a release");
    release->tensors[release->count++] = tensor;
    return 0;
}

/* Add a tensor under "<name without its first `strip` characters, after `prefix`>". */
static int add_renamed(struct release *release, struct tensor_view tensor, const char *prefix, size_t strip)
{
    char *name = NULL;
    if (asprintf(&name, "%s%s", prefix, tensor.name + strip) < 0 || !own(release, name))
        return release->error->code;
    tensor.name = name;
    return add(release, tensor);
}

/* The values as float32, in memory of the release. */
static float *widen(struct release *release, struct tensor_view *tensor)
{
    float *values = own(release, malloc((size_t)tensor_elements(tensor) * sizeof *values + 1));
    if (!values || tensor_to_float(tensor, values, release->error))
        return NULL;
    tensor->dtype = DTYPE_F32;
    tensor->bytes = tensor_elements(tensor) * sizeof *values;
    tensor->data = values;
    return values;
}

/* MLX's affine rule: the scale is signed so that the end of the range with the larger magnitude is a code times the
 * scale exactly, and zero another. */
static void quantise_group(enum weight_format format, const float *values, int n, uint8_t *codes, size_t first,
                           uint16_t *scale16, uint16_t *bias16)
{
    float low = values[0], high = values[0];
    for (int i = 1; i < n; i++) {
        low = fminf(low, values[i]);
        high = fmaxf(high, values[i]);
    }
    bool low_end = fabsf(low) > fabsf(high);
    const int highest = (weight_is_four_bit(format) ? INT4_CODES : INT8_CODES) - 1;
    float scale = fmaxf((high - low) / (float)highest, 1e-7f), bias = low_end ? low : high;
    scale = low_end ? scale : -scale;
    float zero_code = rintf(bias / scale);
    if (zero_code != 0.0f)
        scale = bias / zero_code;
    else
        bias = 0.0f;
    group_encode(format, values, n, scale, bias, codes, first);
    *scale16 = float_to_bf16(scale);
    *bias16 = float_to_bf16(bias);
}

/* What MLX quantises: matrices whose rows the groups divide, but neither the timestep embedder nor the flow head. */
static bool is_quantised(const struct release *release, const struct tensor_view *tensor)
{
    size_t length = strlen(tensor->name);
    return release->mlx.group_size && tensor->dimensions == 2 && length > 7 &&
           !strcmp(tensor->name + length - 7, ".weight") && tensor->shape[1] % (uint64_t)release->mlx.group_size == 0 &&
           !strstr(tensor->name, "time_embedder") && !strstr(tensor->name, "llm2vae") &&
           !strstr(tensor->name, "latent_pos_embed");
}

/* A matrix as codes, scales and biases. */
struct quantised {
    uint8_t *codes;
    uint16_t *scales, *biases;
    uint64_t elements, groups;
};

static enum weight_format format_of(const struct release *release)
{
    return release->mlx.bits == 8 ? WEIGHT_MLX_INT8 : WEIGHT_MLX_INT4;
}

static int quantise(struct release *release, struct tensor_view tensor, struct quantised *q)
{
    q->elements = tensor_elements(&tensor);
    q->groups = q->elements / (uint64_t)release->mlx.group_size;
    const float *values = widen(release, &tensor);
    if (!values || !(q->codes = own(release, calloc(weight_bytes(format_of(release), (size_t)q->elements), 1))) ||
        !(q->scales = own(release, malloc((size_t)q->groups * 2))) ||
        !(q->biases = own(release, malloc((size_t)q->groups * 2))))
        return release->error->code;
    for (uint64_t g = 0; g < q->groups; g++)
        quantise_group(format_of(release), values + g * (uint64_t)release->mlx.group_size, release->mlx.group_size,
                       q->codes, (size_t)(g * (uint64_t)release->mlx.group_size), &q->scales[g], &q->biases[g]);
    return 0;
}

/* --- MLX ------------------------------------------------------------------------------------------ */

static int add_mlx_name(struct release *release, struct tensor_view tensor)
{
    static const char *const stripped[] = {"language_model.model.", "language_model."};
    static const struct {
        const char *official, *mlx;
    } moved[] = {{"vae2llm.", "vae_in_proj.vae2llm."},
                 {"time_embedder.mlp.0.", "time_embedder.proj_in."},
                 {"time_embedder.mlp.2.", "time_embedder.proj_out."}};
    for (size_t i = 0; i < sizeof stripped / sizeof *stripped; i++)
        if (!strncmp(tensor.name, stripped[i], strlen(stripped[i])))
            return add_renamed(release, tensor, "", strlen(stripped[i]));
    for (size_t i = 0; i < sizeof moved / sizeof *moved; i++)
        if (!strncmp(tensor.name, moved[i].official, strlen(moved[i].official)))
            return add_renamed(release, tensor, moved[i].mlx, strlen(moved[i].official));
    return add(release, tensor);
}

/* .weight, the codes, called words; .scales; .biases. */
static int add_quantised(struct release *release, const struct tensor_view *tensor)
{
    struct quantised q;
    int result = quantise(release, *tensor, &q), stem = (int)(strlen(tensor->name) - strlen(".weight"));
    const uint64_t groups = tensor->shape[1] / (uint64_t)release->mlx.group_size;
    const uint64_t words = weight_bytes(format_of(release), tensor->shape[1]) / sizeof(uint32_t);
    const struct {
        const char *name;
        enum dtype dtype;
        uint64_t columns;
        const void *data;
    } parts[QUANTISED_PARTS] = {{PART_CODES_MLX, DTYPE_U32, words, q.codes},
                                {PART_SCALES, DTYPE_BF16, groups, q.scales},
                                {PART_OFFSETS, DTYPE_BF16, groups, q.biases}};
    for (int i = 0; i < QUANTISED_PARTS && !result; i++) {
        char *name = NULL;
        if (asprintf(&name, "%.*s.%s", stem, tensor->name, parts[i].name) < 0 || !own(release, name))
            return release->error->code;
        result = add_mlx_name(release, (struct tensor_view){.name = name,
                                                            .dtype = parts[i].dtype,
                                                            .dimensions = 2,
                                                            .shape = {tensor->shape[0], parts[i].columns},
                                                            .data = parts[i].data,
                                                            .bytes = tensor->shape[0] * parts[i].columns *
                                                                     dtype_bytes(parts[i].dtype)});
    }
    return result;
}

static int convert_for_mlx(struct release *release, const struct tensor_view *tensor)
{
    struct tensor_view copy = *tensor;
    if (is_quantised(release, tensor))
        return add_quantised(release, tensor);
    if (strstr(tensor->name, "norm") && !widen(release, &copy))
        return release->error->code;
    return add_mlx_name(release, copy);
}

static int convert_for_twin(struct release *release, const struct tensor_view *tensor)
{
    struct tensor_view copy = *tensor;
    float *values = widen(release, &copy);
    if (!values)
        return release->error->code;
    if (is_quantised(release, tensor)) {
        struct quantised q;
        int result = quantise(release, *tensor, &q);
        if (result)
            return result;
        for (uint64_t g = 0; g < q.groups; g++) {
            size_t first = (size_t)(g * (uint64_t)release->mlx.group_size);
            group_decode(format_of(release), q.codes, first, release->mlx.group_size, bf16_to_float(q.scales[g]),
                         bf16_to_float(q.biases[g]), values + first);
        }
    }
    return add(release, copy);
}

/* The patch embedding [out, in, t, h, w] as [out, t, h, w, in] when wanted. */
static int convert_vit_for_mlx(struct release *release, const struct tensor_view *tensor)
{
    if (!release->mlx.channels_last_vit || tensor->dimensions != 5)
        return add(release, *tensor);
    struct tensor_view turned = *tensor;
    uint64_t in = tensor->shape[1], cells = tensor->shape[2] * tensor->shape[3] * tensor->shape[4];
    size_t element = dtype_bytes(tensor->dtype);
    char *data = own(release, malloc((size_t)tensor->bytes));
    if (!data)
        return release->error->code;
    for (uint64_t i = 0; i < tensor_elements(tensor); i++) {
        uint64_t cell = i % cells, channel = i / cells % in, out = i / cells / in;
        memcpy(data + ((out * cells + cell) * in + channel) * element, (const char *)tensor->data + i * element,
               element);
    }
    for (int d = 1; d < 4; d++)
        turned.shape[d] = tensor->shape[d + 1];
    turned.shape[4] = in;
    turned.data = data;
    return add(release, turned);
}

/* --- the other layouts ------------------------------------------------------------------------------ */

static int drop_generation(struct release *release, const struct tensor_view *tensor)
{
    static const char *const dropped[] = {"_moe_gen", "vae2llm", "llm2vae", "time_embedder", "latent_pos_embed"};
    for (size_t i = 0; i < sizeof dropped / sizeof *dropped; i++)
        if (strstr(tensor->name, dropped[i]))
            return 0;
    return add(release, *tensor);
}

static int keep(struct release *release, const struct tensor_view *tensor)
{
    return add(release, *tensor);
}

static int add_vit_prefix(struct release *release, const struct tensor_view *tensor)
{
    return add_renamed(release, *tensor, "vit_model.", 0);
}

/* --- putting them together ---------------------------------------------------------------------------- */

typedef int (*convert)(struct release *release, const struct tensor_view *tensor);

/* Convert the tensors of MODEL/from, which *file keeps open. */
static int convert_file(struct release *release, const char *model_dir, const char *from, convert each,
                        struct safetensors **file)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/%s", model_dir, from) >= PATH_MAX)
        return error_set(release->error, ERROR_IO, "%s: path too long", model_dir);
    int result = safetensors_open(file, path, release->error);
    for (size_t i = 0; !result && i < safetensors_count(*file); i++)
        result = each(release, safetensors_at(*file, i));
    return result;
}

/* Where tensors of a file come from. */
struct part {
    const char *file;
    convert each;
};

/* INTO/as from one or two files of the model folder. */
static int make_file(struct mlx_settings mlx, const char *model_dir, const struct part parts[2], const char *into_dir,
                     const char *as, struct error *error)
{
    struct safetensors *files[2] = {NULL, NULL};
    struct release *release = calloc(1, sizeof *release);
    if (!release)
        return error_set(error, ERROR_NO_MEMORY, "no memory for a release");
    release->mlx = mlx;
    release->error = error;
    int result = 0;
    for (int i = 0; i < 2 && parts[i].file && !result; i++)
        result = convert_file(release, model_dir, parts[i].file, parts[i].each, &files[i]);
    if (!result)
        result = write_tensors(release, into_dir, as, error);
    while (release->owned_count)
        free(release->owned[--release->owned_count]);
    free(release);
    safetensors_close(files[0]);
    safetensors_close(files[1]);
    return result;
}

static const char main_file[] = "model.safetensors", vit_file[] = "Qwen2.5-VL-ViT/vit.safetensors";

/* config.json: the llm_config.json, with the block that mlx-lm's quantize_model adds. */
static int write_mlx_config(const char *model_dir, const char *into_dir, int group_size, int bits,
                            struct error *error)
{
    char path[PATH_MAX];
    cJSON *config;
    if (snprintf(path, sizeof path, "%s/llm_config.json", model_dir) >= PATH_MAX)
        return error_set(error, ERROR_IO, "%s: path too long", model_dir);
    int result = model_file_json(&config, path, error);
    if (result)
        return result;
    cJSON *block = group_size ? json_add_object(config, "quantization") : NULL;
    if (block) {
        json_add_number(block, "group_size", group_size);
        json_add_number(block, "bits", bits);
        json_add_text(block, "mode", "affine");
    }
    char *text = json_print_indented(config);
    result = text ? write_bytes(into_dir, "config.json", text, strlen(text), error)
                  : error_set(error, ERROR_NO_MEMORY, "no memory for config.json");
    cJSON_free(text);
    cJSON_Delete(config);
    return result;
}

int release_mlx(const char *model_dir, const char *into_dir, int group_size, int bits, bool channels_last_vit,
                struct error *error)
{
    const struct mlx_settings mlx = {group_size, bits, channels_last_vit};
    const struct part language_model[2] = {{main_file, convert_for_mlx}}, vit[2] = {{vit_file, convert_vit_for_mlx}};
    int result;
    if ((result = link_tokenizer(model_dir, into_dir, error)) ||
        (result = write_mlx_config(model_dir, into_dir, group_size, bits, error)) ||
        (result = make_file(mlx, model_dir, language_model, into_dir, main_file, error)))
        return result;
    return make_file(mlx, model_dir, vit, into_dir, "vit.safetensors", error);
}

int release_mlx_twin(const char *model_dir, const char *into_dir, int group_size, int bits, struct error *error)
{
    const struct part parts[2] = {{main_file, convert_for_twin}};
    int result;
    if ((result = link_tokenizer(model_dir, into_dir, error)) ||
        (result = link_file(model_dir, "llm_config.json", into_dir, "llm_config.json", error)) ||
        (result = link_file(model_dir, "Qwen2.5-VL-ViT", into_dir, "Qwen2.5-VL-ViT", error)))
        return result;
    return make_file((struct mlx_settings){.group_size = group_size, .bits = bits}, model_dir, parts, into_dir,
                     main_file, error);
}

int release_understanding(const char *model_dir, const char *into_dir, struct error *error)
{
    const struct part parts[2] = {{main_file, drop_generation}};
    int result;
    if ((result = link_tokenizer(model_dir, into_dir, error)) ||
        (result = link_file(model_dir, "llm_config.json", into_dir, "llm_config.json", error)) ||
        (result = link_file(model_dir, "Qwen2.5-VL-ViT", into_dir, "Qwen2.5-VL-ViT", error)))
        return result;
    return make_file((struct mlx_settings){0}, model_dir, parts, into_dir, main_file, error);
}

int release_video(const char *model_dir, const char *into_dir, struct error *error)
{
    const struct part parts[2] = {{main_file, keep}, {vit_file, add_vit_prefix}};
    int result;
    if ((result = link_tokenizer(model_dir, into_dir, error)) ||
        (result = link_file(model_dir, "llm_config.json", into_dir, "llm_config.json", error)) ||
        (result = link_file(model_dir, "Wan2.2_VAE.pth", into_dir, "Wan2.2_VAE.pth", error)))
        return result;
    return make_file((struct mlx_settings){0}, model_dir, parts, into_dir, main_file, error);
}
