/* assemble.c: see assemble.h. The formats of tables.json and of Wan2.2_VAE.normals.json are described in
 * tests/golden/data/README.md. */
#include "tests/golden/assemble.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/engine/model/checkpoint/model_file.h"
#include "base/noise.h"
#include "kernels/formats/numbers.h"
#include "protocol/safetensors.h"

enum { MAX_TENSORS = 4096, MAX_ELEMENTS = 1 << 28 };

/* A safetensors file in the making: tensors borrowed from an open file, and generated ones. */
struct assembly {
    struct safetensors *core;
    cJSON *recipes;
    struct tensor_view tensors[MAX_TENSORS];
    size_t count;
    void *generated[MAX_TENSORS];
    size_t generated_count;
};

/* --- paths -------------------------------------------------------------------------------- */

static int join(char path[PATH_MAX], const char *folder, const char *name, struct error *error)
{
    int length = snprintf(path, PATH_MAX, "%s/%s", folder, name);
    return length > 0 && length < PATH_MAX ? 0 : error_set(error, ERROR_IO, "%s: path too long", folder);
}

static bool exists(const char *folder, const char *name, char path[PATH_MAX])
{
    struct error ignored;
    return join(path, folder, name, &ignored) == 0 && access(path, F_OK) == 0;
}

/* The one file of `folder` whose name ends in `suffix`; false if there is none. */
static bool find_suffix(const char *folder, const char *suffix, char name[NAME_MAX + 1])
{
    DIR *directory = opendir(folder);
    bool found = false;
    for (struct dirent *entry; directory && !found && (entry = readdir(directory));) {
        size_t length = strlen(entry->d_name), wanted = strlen(suffix);
        found = length > wanted && !strcmp(entry->d_name + length - wanted, suffix);
        if (found)
            snprintf(name, NAME_MAX + 1, "%s", entry->d_name);
    }
    if (directory)
        closedir(directory);
    return found;
}

/* The folder below GOLDEN/tiny/downloads that holds the language model. */
static int find_model(const char *downloads, char model[PATH_MAX], struct error *error)
{
    DIR *directory = opendir(downloads);
    bool found = false;
    for (struct dirent *entry; directory && !found && (entry = readdir(directory));) {
        char config[PATH_MAX];
        found = entry->d_name[0] != '.' && join(model, downloads, entry->d_name, error) == 0 &&
                exists(model, "llm_config.json", config);
    }
    if (directory)
        closedir(directory);
    return found ? 0 : error_set(error, ERROR_BAD_FILE, "%s: no model folder with an llm_config.json in it", downloads);
}

static int link_into(const char *into_dir, const char *name, const char *target, struct error *error)
{
    char absolute[PATH_MAX], path[PATH_MAX];
    if (!realpath(target, absolute))
        return error_set(error, ERROR_BAD_FILE, "%s: %s", target, strerror(errno));
    int result = join(path, into_dir, name, error);
    if (result)
        return result;
    if (unlink(path) && errno != ENOENT)
        return error_set(error, ERROR_IO, "%s: %s", path, strerror(errno));
    if (symlink(absolute, path))
        return error_set(error, ERROR_IO, "%s: %s", path, strerror(errno));
    return 0;
}

static int link_if_there(const char *from_dir, const char *name, const char *into_dir, struct error *error)
{
    char path[PATH_MAX];
    return exists(from_dir, name, path) ? link_into(into_dir, name, path, error) : 0;
}

/* --- generated tensors ---------------------------------------------------------------------- */

/* FNV-1a of "<seed>:<name>", with the recordings' own start value (the usual one has a digit more). */
static uint64_t stream_key(double seed, const char *name)
{
    char text[1200];
    snprintf(text, sizeof text, "%.0f:%s", seed, name);
    uint64_t hash = UINT64_C(1469598103934665603);
    for (const char *c = text; *c; c++)
        hash = (hash ^ (uint8_t)*c) * UINT64_C(1099511628211);
    return hash;
}

static uint64_t splitmix64(uint64_t key, uint64_t index)
{
    uint64_t z = key + (index + 1) * UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

static double number_of(const cJSON *object, const char *key, double fallback)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNumber(item) ? item->valuedouble : fallback;
}

/* Add a tensor of this recipe's name and "shape", its memory zeroed; NULL with the error set if that fails. */
static struct tensor_view *add_generated(struct assembly *assembly, const cJSON *recipe, enum dtype dtype,
                                         struct error *error)
{
    if (assembly->count == MAX_TENSORS) {
        error_set(error, ERROR_BAD_FILE, "too many tensors to assemble");
        return NULL;
    }
    struct tensor_view *tensor = &assembly->tensors[assembly->count];
    *tensor = (struct tensor_view){.name = recipe->string, .dtype = dtype};
    uint64_t elements = 1;
    const cJSON *shape = cJSON_GetObjectItemCaseSensitive(recipe, "shape");
    for (const cJSON *size = shape ? shape->child : NULL; size; size = size->next) {
        if (tensor->dimensions == TENSOR_MAX_DIMENSIONS || !cJSON_IsNumber(size) || !(size->valuedouble >= 1) ||
            size->valuedouble > (double)(MAX_ELEMENTS / elements)) {
            error_set(error, ERROR_BAD_FILE, "recipe of \"%s\": bad shape", recipe->string);
            return NULL;
        }
        tensor->shape[tensor->dimensions++] = (uint64_t)size->valuedouble;
        elements *= (uint64_t)size->valuedouble;
    }
    tensor->bytes = elements * dtype_bytes(dtype);
    void *data = calloc(1, (size_t)tensor->bytes);
    if (!data) {
        error_set(error, ERROR_NO_MEMORY, "no memory for \"%s\"", recipe->string);
        return NULL;
    }
    tensor->data = assembly->generated[assembly->generated_count++] = data;
    assembly->count++;
    return tensor;
}

/* tables.json: entry e of a table is one of four levels, chosen by bits 2*(e % 32) of word e / 32 of the stream;
 * some rows are given in full. */
static int generate_table(struct assembly *assembly, const cJSON *recipe, struct error *error)
{
    const cJSON *stream = cJSON_GetObjectItemCaseSensitive(recipe, "stream");
    const cJSON *levels = cJSON_GetObjectItemCaseSensitive(recipe, "levels");
    const cJSON *rows = cJSON_GetObjectItemCaseSensitive(recipe, "rows");
    uint16_t level[4];
    for (int i = 0; i < 4; i++) {
        const cJSON *item = cJSON_GetArrayItem(levels, i);
        if (!cJSON_IsNumber(item) || !cJSON_IsString(stream))
            return error_set(error, ERROR_BAD_FILE, "recipe of \"%s\": needs \"stream\" and four \"levels\"",
                             recipe->string);
        level[i] = float_to_bf16((float)item->valuedouble);
    }
    struct tensor_view *table = add_generated(assembly, recipe, DTYPE_BF16, error);
    if (!table)
        return error->code;
    uint16_t *data = (uint16_t *)(uintptr_t)table->data;
    uint64_t key = stream_key(number_of(recipe, "seed", 0), stream->valuestring), word = 0;
    uint64_t elements = tensor_elements(table), width = table->shape[table->dimensions - 1];
    for (uint64_t e = 0; e < elements; e++) {
        if (e % 32 == 0)
            word = splitmix64(key, e / 32);
        data[e] = level[word >> 2 * (e % 32) & 3];
    }
    for (const cJSON *row = rows ? rows->child : NULL; row; row = row->next) {
        uint64_t number = strtoull(row->string, NULL, 10);
        if (number >= elements / width || (uint64_t)cJSON_GetArraySize(row) != width)
            return error_set(error, ERROR_BAD_FILE, "recipe of \"%s\": bad row %s", recipe->string, row->string);
        uint64_t column = 0;
        for (const cJSON *value = row->child; value; value = value->next)
            data[number * width + column++] = float_to_bf16((float)value->valuedouble);
    }
    return 0;
}

/* Wan2.2_VAE.normals.json: torch.randn(shape, generator seeded from seed and "stream") * std + mean, in float32. */
static int generate_normals(struct assembly *assembly, const cJSON *recipe, struct error *error)
{
    const cJSON *stream = cJSON_GetObjectItemCaseSensitive(recipe, "stream");
    if (!cJSON_IsString(stream))
        return error_set(error, ERROR_BAD_FILE, "recipe of \"%s\": needs \"stream\"", recipe->string);
    struct tensor_view *tensor = add_generated(assembly, recipe, DTYPE_F32, error);
    if (!tensor)
        return error->code;
    float *data = (float *)(uintptr_t)tensor->data;
    uint64_t elements = tensor_elements(tensor);
    noise_torch_cpu(stream_key(number_of(recipe, "seed", 0), stream->valuestring) & INT64_MAX, data, (size_t)elements);
    float std = (float)number_of(recipe, "std", 1), mean = (float)number_of(recipe, "mean", 0);
    for (uint64_t i = 0; i < elements; i++) {
        float scaled = data[i] * std; /* rounded before the sum, as torch's two operations are */
        data[i] = scaled + mean;
    }
    return 0;
}

/* --- files ------------------------------------------------------------------------------------ */

static bool ends_with(const char *text, const char *suffix)
{
    size_t length = strlen(text), suffix_length = strlen(suffix);
    return length >= suffix_length && !strcmp(text + length - suffix_length, suffix);
}

static int compare_by_name(const void *a, const void *b)
{
    const struct tensor_view *left = a, *right = b;
    return strcmp(left->name, right->name);
}

static int write_file(const struct assembly *assembly, const char *path, struct error *error)
{
    void *bytes;
    uint64_t count;
    int result = safetensors_write(&bytes, &count, assembly->tensors, assembly->count, NULL, NULL, 0, error);
    if (result)
        return result;
    unlink(path); /* a link from an earlier call must not be written through */
    FILE *file = fopen(path, "wb");
    bool complete = file && fwrite(bytes, 1, (size_t)count, file) == count;
    if (file && fclose(file))
        complete = false;
    free(bytes);
    return complete ? 0 : error_set(error, ERROR_IO, "%s: %s", path, strerror(errno));
}

static int fill(struct assembly *assembly, const char *core_path, const char *recipes_path, const char *leave_out,
                int (*generate)(struct assembly *, const cJSON *, struct error *), struct error *error)
{
    int result = safetensors_open(&assembly->core, core_path, error);
    if (!result)
        result = model_file_json(&assembly->recipes, recipes_path, error);
    if (result)
        return result;
    for (size_t i = 0; i < safetensors_count(assembly->core); i++) {
        const struct tensor_view *tensor = safetensors_at(assembly->core, i);
        if (leave_out && ends_with(tensor->name, leave_out))
            continue;
        if (assembly->count == MAX_TENSORS)
            return error_set(error, ERROR_BAD_FILE, "%s: too many tensors", core_path);
        assembly->tensors[assembly->count++] = *tensor;
    }
    for (const cJSON *recipe = assembly->recipes->child; recipe && !result; recipe = recipe->next)
        result = generate(assembly, recipe, error);
    return result;
}

/* Write `out_path`: the tensors of `core_path`, but those whose names end in `leave_out`, and the generated ones. */
static int assemble(const char *out_path, const char *core_path, const char *recipes_path, const char *leave_out,
                    int (*generate)(struct assembly *, const cJSON *, struct error *), struct error *error)
{
    struct assembly *assembly = calloc(1, sizeof *assembly);
    if (!assembly)
        return error_set(error, ERROR_NO_MEMORY, "no memory to assemble %s", out_path);
    int result = fill(assembly, core_path, recipes_path, leave_out, generate, error);
    qsort(assembly->tensors, assembly->count, sizeof *assembly->tensors, compare_by_name);
    if (!result)
        result = write_file(assembly, out_path, error);
    for (size_t i = 0; i < assembly->generated_count; i++)
        free(assembly->generated[i]);
    cJSON_Delete(assembly->recipes);
    safetensors_close(assembly->core);
    free(assembly);
    return result;
}

static int place_model(const char *golden_dir, const char *model, const char *into_dir, struct error *error)
{
    char complete[PATH_MAX], core[PATH_MAX], tables[PATH_MAX], out[PATH_MAX];
    if (exists(model, "model.safetensors", complete))
        return link_into(into_dir, "model.safetensors", complete, error);
    int result;
    if ((result = join(core, model, "model.core.safetensors", error)) ||
        (result = join(tables, golden_dir, "tiny/tables.json", error)) ||
        (result = join(out, into_dir, "model.safetensors", error)))
        return result;
    return assemble(out, core, tables, NULL, generate_table, error);
}

static int place_quantised(const char *golden_dir, const char *quant, const char *into_dir, struct error *error)
{
    char folder[PATH_MAX], all[PATH_MAX], name[NAME_MAX + 1];
    const char *leave_out = NULL;
    int result = join(all, golden_dir, "quant", error);
    if (!result)
        result = join(folder, all, quant, error);
    if (result)
        return result;
    if (access(folder, F_OK) && ends_with(quant, "fp8")) {
        folder[strlen(folder) - strlen("fp8")] = '\0';
        leave_out = ".scales_bf16";
    }
    if (find_suffix(folder, "_meta.json", name) && (result = link_if_there(folder, name, into_dir, error)))
        return result;
    if (!leave_out && find_suffix(folder, "_state_dict.safetensors", name))
        return link_if_there(folder, name, into_dir, error);
    char core[PATH_MAX], tables[PATH_MAX], out[PATH_MAX];
    if (!find_suffix(folder, "_core.safetensors", name))
        return error_set(error, ERROR_BAD_FILE, "%s: no *_core.safetensors or *_state_dict.safetensors in it", folder);
    if ((result = join(core, folder, name, error)) || (result = join(tables, golden_dir, "tiny/tables.json", error)))
        return result;
    strcpy(strstr(name, "_core.safetensors"), ""); /* what is left is the kind: awq or nvfp4 */
    if (snprintf(out, sizeof out, "%s/%s_state_dict.safetensors", into_dir, name) >= PATH_MAX)
        return error_set(error, ERROR_IO, "%s: path too long", into_dir);
    return assemble(out, core, tables, leave_out, generate_table, error);
}

static int place_vae(const char *downloads, const char *into_dir, struct error *error)
{
    static const char *const complete[] = {"Wan2.2_VAE.pth", "Wan2.2_VAE.safetensors"};
    char path[PATH_MAX], core[PATH_MAX], out[PATH_MAX];
    for (int i = 0; i < 2; i++)
        if (exists(downloads, complete[i], path))
            return link_into(into_dir, complete[i], path, error);
    if (!exists(downloads, "Wan2.2_VAE.normals.json", path))
        return 0; /* a folder without VAE: the model opens for what is possible without */
    int result;
    if ((result = join(core, downloads, "Wan2.2_VAE.core.safetensors", error)) ||
        (result = join(out, into_dir, "Wan2.2_VAE.safetensors", error)))
        return result;
    return assemble(out, core, path, NULL, generate_normals, error);
}

int assemble_checkpoint(const char *golden_dir, const char *quant, const char *into_dir, struct error *error)
{
    static const char *const small[] = {"llm_config.json", "vocab.json", "merges.txt", "tokenizer_config.json"};
    struct error ignored;
    if (!error)
        error = &ignored;
    char downloads[PATH_MAX], model[PATH_MAX];
    int result = join(downloads, golden_dir, "tiny/downloads", error);
    if (!result)
        result = find_model(downloads, model, error);
    if (result)
        return result;
    if (mkdir(into_dir, 0777) && errno != EEXIST)
        return error_set(error, ERROR_IO, "%s: %s", into_dir, strerror(errno));
    for (size_t i = 0; i < sizeof small / sizeof *small && !result; i++)
        result = link_if_there(model, small[i], into_dir, error);
    if (!result)
        result = link_if_there(downloads, "Qwen2.5-VL-ViT", into_dir, error);
    if (!result)
        result = place_vae(downloads, into_dir, error);
    if (!result)
        result = quant ? place_quantised(golden_dir, quant, into_dir, error)
                       : place_model(golden_dir, model, into_dir, error);
    return result;
}
