/* open.c: opening a checkpoint and telling what it is; see checkpoint.h.
 *
 * Opening goes: find the files (checkpoint_files.c), read the JSON (config.c), map and parse the weight
 * files, make one sorted table of all tensors (tensors.c), check the quantised ones against their meta file,
 * check that everything a task needs is there (inventory.c), begin to hash all of it (identity.c).
 */
#include "daemon/engine/model/checkpoint/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/engine/model/checkpoint/checkpoint_files.h"
#include "daemon/engine/model/checkpoint/config.h"
#include "daemon/engine/model/checkpoint/identity.h"
#include "daemon/engine/model/checkpoint/inventory.h"
#include "daemon/engine/model/checkpoint/mlx.h"
#include "daemon/engine/model/checkpoint/model_file.h"
#include "daemon/engine/model/checkpoint/notes.h"
#include "daemon/engine/model/checkpoint/pth.h"
#include "daemon/engine/model/checkpoint/tensors.h"

enum { MAX_WEIGHT_FILES = CHECKPOINT_MAX_SHARDS + 2 };

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
    struct identity *identity; /* or NULL */
    char hash[65];
    struct notes warnings;
    struct notes lacks_for_generation;
    bool can_generate, can_see;
    struct weight_file files[MAX_WEIGHT_FILES];
    int file_count;
    struct tensor_table table;
    void *patch_embedding;       /* see order_patch_embedding; or NULL */
};

/* --- weight files ------------------------------------------------------------------------ */

static size_t file_tensors(const struct weight_file *file)
{
    return file->pth ? pth_count(file->pth) : safetensors_count(file->safetensors);
}

static const struct tensor_view *file_tensor(const void *weight_file, size_t index)
{
    const struct weight_file *file = weight_file;
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

static int add_file(struct checkpoint *checkpoint, const char *path, const char *prefix, struct error *error)
{
    struct weight_file *file;
    int result = open_file(checkpoint, path, &file, error);
    const struct tensor_source source = {.file = file, .at = file_tensor, .count = result ? 0 : file_tensors(file)};
    return result ? result : tensor_table_add(&checkpoint->table, &source, prefix, &file->used, error);
}

/* --- kind of checkpoint ------------------------------------------------------------------------ */

static const char sample_layer[] = "language_model.model.layers.0.self_attn.q_proj"; /* square */

/* A meta file, or its entry of one weight (`name`, else NULL), may state how the weights are quantised: it must
 * be a way that is read here. */
static int check_stated_form(const cJSON *stated, const char *path, const char *name, struct error *error)
{
    /* and what follows: how the scales were chosen */
    static const char *const known[] = {"asym_int4", "asym_int5", "sym_int8", "nvfp4", "mixed"};
    const cJSON *n_bit = cJSON_GetObjectItemCaseSensitive(stated, "n_bit");
    const cJSON *scheme = cJSON_GetObjectItemCaseSensitive(stated, "scheme");
    const char *text = cJSON_GetStringValue(scheme), *of = name ? " of " : "";
    if (!name)
        name = "";
    const double bits = cJSON_GetNumberValue(n_bit);
    if (n_bit && bits != 4 && bits != 5 && bits != 8)
        return error_set(error, ERROR_UNSUPPORTED, "%s: \"n_bit\"%s%.200s is not 4, 5 or 8; no others are read", path,
                         of, name);
    bool is_known = !scheme;
    for (size_t i = 0; text && i < sizeof known / sizeof *known; i++)
        is_known |= !strncmp(text, known[i], strlen(known[i]));
    if (is_known)
        return 0;
    return error_set(error, ERROR_UNSUPPORTED,
                     "%s: \"scheme\"%s%.200s is \"%.60s\"; asym_int4, asym_int5, sym_int8, nvfp4 and mixed are read",
                     path, of, name, text ? text : "no text");
}

/* What a meta file says of all weights: how many share a scale, their bits (0: nothing), and that they differ. */
struct stated {
    int group_size, bits;
    bool mixed;
};

/* The bits that a meta file, or its entry of one weight, states; `fallback` where it does not. */
static int stated_bits(const cJSON *stated, int fallback)
{
    const cJSON *n_bit = cJSON_GetObjectItemCaseSensitive(stated, "n_bit");
    return n_bit ? (int)cJSON_GetNumberValue(n_bit) : fallback;
}

/* One weight's entry of "per_weight", against the tensors. */
static int check_entry(const struct checkpoint *checkpoint, const cJSON *weight, const char *path,
                       const struct stated *of_all, struct error *error)
{
    const cJSON *shape = cJSON_GetObjectItemCaseSensitive(weight, "shape");
    const cJSON *own = cJSON_GetObjectItemCaseSensitive(weight, "group_size");
    if (!own)
        own = cJSON_GetObjectItemCaseSensitive(weight, "block_size");
    const cJSON *out = cJSON_GetArrayItem(shape, 0), *in = cJSON_GetArrayItem(shape, 1);
    size_t length = weight->string ? strlen(weight->string) : 0;
    char name[TENSOR_MAX_NAME_BYTES];
    if (!cJSON_IsNumber(out) || !cJSON_IsNumber(in) || !(out->valuedouble >= 1) || !(in->valuedouble >= 1) ||
        !(out->valuedouble <= 1 << 24) || !(in->valuedouble <= 1 << 24) || (own && !cJSON_IsNumber(own)) ||
        length >= sizeof name || !ends_with(weight->string, ".weight"))
        return error_set(error, ERROR_BAD_FILE, "%s: entry \"%.200s\" of \"per_weight\" is not of the known form", path,
                         weight->string ? weight->string : "");
    snprintf(name, sizeof name, "%.*s", (int)(length - strlen(".weight")), weight->string);
    struct linear_source source;
    int result = check_stated_form(weight, path, name, error);
    if (result)
        return result;
    result = checkpoint_linear(checkpoint, name, (int)out->valuedouble, (int)in->valuedouble, &source, error);
    if (result)
        return error_prefix(error, "%s", path);
    const double group = own ? own->valuedouble : of_all->group_size;
    const bool is_four_bit = stated_bits(weight, of_all->bits ? of_all->bits : 4) == 4;
    if (!weight_is_quantised(source.format) || weight_has_offsets(source.format) ||
        weight_is_four_bit(source.format) != is_four_bit)
        return error_set(error, ERROR_BAD_FILE, "%s: \"%.200s\" should be a weight %s, but is not", path, name,
                         is_four_bit ? "of 4 bits" : "whose codes are bytes");
    if (source.group_size != group)
        return error_set(error, ERROR_BAD_FILE,
                         "%s: \"%.200s\" should have groups of %g columns, but its scales are for %d", path, name,
                         group, source.group_size);
    return 0;
}

/* Check a quantiser's meta file: MLX's config.json, or, against the tensors, {n_bit, group_size | block_size,
 * per_weight: {"X.weight": {shape: [out, in], n_bit, group_size | block_size}}}. */
static int check_meta(const struct checkpoint *checkpoint, const cJSON *meta, const char *path, struct stated *stated,
                      struct error *error)
{
    if (mlx_quantization(meta))
        return mlx_check_quantization(mlx_quantization(meta), path, &stated->group_size, &stated->bits, error);
    int result = check_stated_form(meta, path, NULL, error);
    if (result)
        return result;
    stated->bits = stated_bits(meta, 0);
    const char *scheme = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(meta, "scheme"));
    stated->mixed = scheme && !strcmp(scheme, "mixed");
    const cJSON *group = cJSON_GetObjectItemCaseSensitive(meta, "group_size");
    if (!group)
        group = cJSON_GetObjectItemCaseSensitive(meta, "block_size");
    if (!cJSON_IsNumber(group) || !(group->valuedouble >= 2) || !(group->valuedouble <= 1 << 16))
        return error_set(error, ERROR_BAD_FILE, "%s: \"group_size\" or \"block_size\" is missing or out of range",
                         path);
    stated->group_size = (int)group->valuedouble;
    const cJSON *weights = cJSON_GetObjectItemCaseSensitive(meta, "per_weight");
    if (weights && !cJSON_IsObject(weights))
        return error_set(error, ERROR_BAD_FILE, "%s: \"per_weight\" must be an object", path);
    for (const cJSON *weight = weights ? weights->child : NULL; weight && !result; weight = weight->next)
        result = check_entry(checkpoint, weight, path, stated, error);
    return result;
}

static int read_meta(const struct checkpoint *checkpoint, const char *path, struct stated *stated, struct error *error)
{
    cJSON *meta;
    int result = model_file_json(&meta, path, error);
    if (result)
        return result;
    result = check_meta(checkpoint, meta, path, stated, error);
    cJSON_Delete(meta);
    return result;
}

/* Whether the codes of a folder are bytes, as those of one of its layers are. */
static bool has_byte_codes(const struct checkpoint *checkpoint)
{
    const int width = checkpoint->config.hidden_size;
    struct linear_source source;
    struct error ignored;
    return !checkpoint_linear(checkpoint, sample_layer, width, width, &source, &ignored) &&
           weight_is_of_bytes(source.format);
}

/* How many weights share one of the .scales (all but NVFP4): the most, as only odd widths fall back to smaller
 * groups. */
static int largest_group(const struct checkpoint *checkpoint, bool bytes)
{
    uint64_t largest = 0;
    for (size_t i = 0; i < checkpoint->table.count; i++) {
        const struct tensor_view *scales = &checkpoint->table.tensors[i];
        if (!ends_with(scales->name, "." PART_SCALES) || scales->dtype != DTYPE_BF16 || scales->dimensions != 2 ||
            !scales->shape[1])
            continue;
        char name[TENSOR_MAX_NAME_BYTES];
        snprintf(name, sizeof name, "%.*s", (int)(strlen(scales->name) - strlen("." PART_SCALES)), scales->name);
        const struct tensor_view *own = tensor_table_part(&checkpoint->table, name, PART_CODES);
        const struct tensor_view *packed = own ? own : tensor_table_part(&checkpoint->table, name, PART_CODES_MLX);
        const bool halves = !bytes && !(own && own->dtype == DTYPE_I8); /* codes of 4 bits */
        const uint64_t codes = (own ? 1 : sizeof(uint32_t)) * (halves ? CODES_PER_BYTE : 1);
        uint64_t size = packed && packed->dimensions == 2 ? codes * packed->shape[1] / scales->shape[1] : 0;
        if (size > largest && size <= 1 << 16)
            largest = size;
    }
    return (int)largest;
}

/* Name the kind by what the tensors are; for quantised ones also check the meta file. */
static int recognise(struct checkpoint *checkpoint, const char *meta_path, struct error *error)
{
    bool awq = false, mlx = false, nvfp4 = false, int8 = false, wide_scales = false, tensor_scales = false;
    bool mlx_nvfp4 = false;
    for (size_t i = 0; i < checkpoint->table.count; i++) {
        const struct tensor_view *tensor = &checkpoint->table.tensors[i];
        nvfp4 |= ends_with(tensor->name, "." PART_SCALES_FP8) || ends_with(tensor->name, "." PART_SCALES_BF16);
        wide_scales |= ends_with(tensor->name, "." PART_SCALES_BF16);
        tensor_scales |= ends_with(tensor->name, "." PART_TENSOR_SCALE);
        awq |= ends_with(tensor->name, "." PART_ZEROS);
        mlx |= ends_with(tensor->name, "." PART_OFFSETS);
        mlx_nvfp4 |= ends_with(tensor->name, "." PART_SCALES) && tensor->dtype == DTYPE_U8;
        int8 |= ends_with(tensor->name, "." PART_CODES) && tensor->dtype == DTYPE_I8;
    }
    const bool bytes = has_byte_codes(checkpoint);
    const int seen_group_size = largest_group(checkpoint, bytes);
    struct stated stated = {.group_size = seen_group_size};
    if (*meta_path) {
        int result = read_meta(checkpoint, meta_path, &stated, error);
        if (result)
            return result;
    }
    if (mlx && stated.group_size != seen_group_size)
        return error_set(error, ERROR_BAD_FILE, "%s: says that %d weights share a scale, but in the tensors %d do",
                         meta_path, stated.group_size, seen_group_size);
    if (stated.bits && (stated.bits == 4) == bytes)
        return error_set(error, ERROR_BAD_FILE, "%s: says that weights have %d bits, but those of the tensors have %d",
                         meta_path, stated.bits, bytes ? 8 : 4);
    const int bits = stated.bits ? stated.bits : bytes ? 8 : 4;
    const struct tensor_view *sample = tensor_table_part(&checkpoint->table, sample_layer, "weight");
    if (stated.mixed || (int8 && awq))
        strcpy(checkpoint->kind, "mixed");
    else if (int8)
        snprintf(checkpoint->kind, sizeof checkpoint->kind, "int8-g%d", stated.group_size);
    else if (awq)
        snprintf(checkpoint->kind, sizeof checkpoint->kind, "awq-int%d-g%d", bits, stated.group_size);
    else if (mlx)
        snprintf(checkpoint->kind, sizeof checkpoint->kind, "mlx-int%d-g%d", bits, stated.group_size);
    else if (mlx_nvfp4)
        strcpy(checkpoint->kind, "mlx-nvfp4");
    else if (nvfp4 && !wide_scales && !tensor_scales) {
        strcpy(checkpoint->kind, "nvfp4-fp8-scales");
        notes_add(
            &checkpoint->warnings,
            "NVFP4 weights without .scales_bf16 or a per-tensor scale: their FP8 scales are used, which lose accuracy");
    } else if (nvfp4)
        strcpy(checkpoint->kind, "nvfp4");
    else
        strcpy(checkpoint->kind, sample && sample->dtype == DTYPE_F32 ? "f32" : "bf16");
    return 0;
}

/* --- hash and prefetch --------------------------------------------------------------------------- */

/* "weights 0", "weights 1", ...: the weight files that are used, in order of name; then "vit", "vae", and
 * what says how they are meant. */
static int add_to_identity(struct checkpoint *checkpoint, const struct checkpoint_files *files, struct error *error)
{
    static const char *const of_tokenizer[] = {"vocab.json", "merges.txt", "tokenizer_config.json"};
    const struct { const char *role, *path; bool used; } others[] = {
        {"vit", files->vit_weights, *files->vit_weights && checkpoint->files[files->weights_count].used},
        {"vae", files->vae, *files->vae && checkpoint->files[checkpoint->file_count - 1].used},
        {"config", files->llm_config, true},
        {"meta", files->meta, *files->meta && strcmp(files->meta, files->llm_config)},
        {"vit_config", files->vit_config, *files->vit_config}};
    struct identity *identity = checkpoint->identity;
    int result = 0;
    for (int i = 0; i < files->weights_count && !result; i++) {
        char role[32];
        snprintf(role, sizeof role, "weights %d", i);
        if (checkpoint->files[i].used)
            result = identity_add(identity, role, files->weights[i], error);
    }
    for (size_t i = 0; i < sizeof others / sizeof *others && !result; i++)
        if (others[i].used)
            result = identity_add(identity, others[i].role, others[i].path, error);
    for (size_t i = 0; i < sizeof of_tokenizer / sizeof *of_tokenizer && !result; i++) {
        char path[PATH_MAX + 32];
        snprintf(path, sizeof path, "%s/%s", files->tokenizer_directory, of_tokenizer[i]);
        result = identity_add(identity, of_tokenizer[i], path, error);
    }
    return result;
}

static int start_identity(struct checkpoint *checkpoint, const struct checkpoint_files *files, const char *cache_folder,
                          struct error *error)
{
    int result = identity_open(&checkpoint->identity, cache_folder, error);
    if (!result)
        result = add_to_identity(checkpoint, files, error);
    if (!result)
        identity_start(checkpoint->identity);
    return result;
}

int checkpoint_identify(struct checkpoint *checkpoint, struct error *error)
{
    return checkpoint->identity ? identity_wait(checkpoint->identity, checkpoint->hash, error) : 0;
}

/* .scales_fp8 is only read where .scales_bf16 is not. */
static bool is_read(const struct checkpoint *checkpoint, const struct tensor_view *tensor)
{
    if (!ends_with(tensor->name, "." PART_SCALES_FP8))
        return true;
    char name[TENSOR_MAX_NAME_BYTES];
    snprintf(name, sizeof name, "%.*s", (int)(strlen(tensor->name) - strlen("." PART_SCALES_FP8)), tensor->name);
    return !tensor_table_part(&checkpoint->table, name, PART_SCALES_BF16);
}

uint64_t checkpoint_bytes(const struct checkpoint *checkpoint)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < checkpoint->table.count; i++)
        if (is_read(checkpoint, &checkpoint->table.tensors[i]))
            bytes += checkpoint->table.tensors[i].bytes;
    return bytes;
}

void checkpoint_let_go(const struct checkpoint *checkpoint, const char *prefix)
{
    for (size_t i = 0; i < checkpoint->table.count; i++)
        if (!strncmp(checkpoint->table.tensors[i].name, prefix, strlen(prefix)) &&
            checkpoint->table.tensors[i].data != checkpoint->patch_embedding) /* which is no mapping */
            mapped_file_let_go(checkpoint->table.tensors[i].data, checkpoint->table.tensors[i].bytes);
}

/* Start reading the weights from the disk, unless they would crowd out everything else. */
static void prefetch(const struct checkpoint *checkpoint)
{
    uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    if (checkpoint_bytes(checkpoint) > memory / 2)
        return;
    for (size_t i = 0; i < checkpoint->table.count; i++)
        if (is_read(checkpoint, &checkpoint->table.tensors[i]) && checkpoint->table.tensors[i].bytes)
            mapped_file_prefetch(checkpoint->table.tensors[i].data, checkpoint->table.tensors[i].bytes);
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

/* What an export for other programs leaves out of the language model, and can do without: head norms, which the
 * official model has but Qwen2 has not; and a head that is the embedding. */
static int note_what_is_left_out(struct checkpoint *checkpoint, const struct checkpoint_files *files,
                                 struct error *error)
{
    bool has_norms = false, has_head = false, generates = false;
    for (size_t i = 0; i < checkpoint->table.count; i++) {
        const char *name = checkpoint->table.tensors[i].name;
        has_norms |= strstr(name, ".self_attn.q_norm") || strstr(name, ".self_attn.k_norm");
        has_head |= !strncmp(name, "language_model.lm_head.", strlen("language_model.lm_head."));
        generates |= strstr(name, "_moe_gen") != NULL;
    }
    checkpoint->config.lacks_head_norms = !has_norms && !generates;
    if (checkpoint->config.lacks_head_norms)
        notes_add(&checkpoint->warnings, "the weights have no q_norm and k_norm, which the official model has: answers "
                                         "are computed without them, and differ from the official ones");
    return has_head ? 0 : config_has_tied_head(files->llm_config, &checkpoint->config.has_tied_head, error);
}

static int check_language_model(struct checkpoint *checkpoint, bool *generation, struct error *error)
{
    struct inventory inventory;
    int result = inventory_check(&checkpoint->table, INVENTORY_UNDERSTANDING, &checkpoint->config, &inventory, error);
    if (result)
        return result;
    if (inventory.missing)
        return refuse_incomplete("weights", &inventory, error);
    result = inventory_check(&checkpoint->table, INVENTORY_GENERATION, &checkpoint->config, &inventory, error);
    if (result)
        return result;
    if (inventory.missing && inventory.found)
        return refuse_incomplete("weights for generation", &inventory, error);
    *generation = inventory.missing == 0;
    return 0;
}

/* MLX keeps the patch embedding, a convolution [out, in, t, h, w], as [out, t, h, w, in], and its files may have
 * either. The one tensor that is ever copied: into the official order. */
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
        result = inventory_check(&checkpoint->table, INVENTORY_VIT, &checkpoint->config, &inventory, error);
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
    int result = inventory_check(&checkpoint->table, INVENTORY_VAE, &checkpoint->config, &inventory, error);
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
        (result = note_what_is_left_out(checkpoint, files, error)) ||
        (result = check_language_model(checkpoint, &generation, error)) ||
        (result = check_vit(checkpoint, files, error)) || (result = check_vae(checkpoint, files, error)) ||
        (result = decide_tasks(checkpoint, options->model_dir, generation, error)))
        return result;
    prefetch(checkpoint);
    return options->identifies ? start_identity(checkpoint, files, options->cache_folder, error) : 0;
}

static uint64_t bytes_of(const char *path)
{
    struct stat status;
    return *path && stat(path, &status) == 0 ? (uint64_t)status.st_size : 0;
}

/* By the files' names, as checkpoint_files.c finds them. */
static const char *form_of(const struct checkpoint_files *files)
{
    static const char *const forms[] = {"awq", "nvfp4", "int8", "mixed"};
    const char *name = strrchr(files->weights[0], '/');
    for (size_t f = 0; files->meta_expected && name && f < sizeof forms / sizeof *forms; f++)
        if (!strncmp(name + 1, forms[f], strlen(forms[f])))
            return forms[f];
    return *files->meta ? "mlx" : "dense";
}

int checkpoint_look(struct checkpoint_look *out, const struct checkpoint_options *options, struct error *error)
{
    *out = (struct checkpoint_look){.form = "dense"};
    struct notes missing = {""}, warnings = {""};
    struct checkpoint_files *files = malloc(sizeof *files); /* too large for a thread's stack */
    if (!files)
        return error_set(error, ERROR_NO_MEMORY, "%s: no memory to look at it", options->model_dir);
    int result = checkpoint_files_find(files, options, &missing, &warnings, error);
    if (!result) {
        const char *slash = strrchr(files->directory, '/');
        snprintf(out->name, sizeof out->name, "%.255s", slash ? slash + 1 : files->directory);
        snprintf(out->missing, sizeof out->missing, "%.190s", missing.text);
        out->has_weights = files->weights_count > 0;
        for (int i = 0; i < files->weights_count; i++)
            out->file_bytes += bytes_of(files->weights[i]);
        out->file_bytes += bytes_of(files->vit_weights) + bytes_of(files->vae);
        out->form = form_of(files);
    }
    free(files);
    return result;
}

int checkpoint_open(struct checkpoint **out, const struct checkpoint_options *options, struct error *error)
{
    *out = NULL;
    struct checkpoint *checkpoint = calloc(1, sizeof *checkpoint);
    struct checkpoint_files *files = malloc(sizeof *files);
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
    identity_close(checkpoint->identity);
    tensor_table_free(&checkpoint->table);
    free(checkpoint->patch_embedding);
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

const struct tensor_view *checkpoint_tensor(const struct checkpoint *checkpoint, const char *name)
{
    return tensor_table_find(&checkpoint->table, name);
}

int checkpoint_linear(const struct checkpoint *checkpoint, const char *name, int out_features, int in_features,
                      struct linear_source *source, struct error *error)
{
    return tensor_table_linear(&checkpoint->table, name, out_features, in_features, source, error);
}

int checkpoint_conv(const struct checkpoint *checkpoint, const char *name, struct conv_source *source,
                    struct error *error)
{
    return tensor_table_conv(&checkpoint->table, name, source, error);
}

int checkpoint_vector(const struct checkpoint *checkpoint, const char *name, int n, float *out, struct error *error)
{
    return tensor_table_vector(&checkpoint->table, name, n, out, error);
}
