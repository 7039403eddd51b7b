/* checkpoint_files.c: see checkpoint_files.h. */
#include "daemon/engine/model/checkpoint/checkpoint_files.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/engine/model/checkpoint/config.h"
#include "daemon/engine/model/checkpoint/model_file.h"

const char checkpoint_vae_advice[] =
    "VAE: Wan2.2_VAE.pth is neither in the folder nor beside it (fetch it from the official release, or pass --vae)";
const char checkpoint_vit_advice[] =
    "ViT: Qwen2.5-VL-ViT/vit.safetensors and config.json are neither in the folder nor beside it (fetch them from the "
    "official release, or pass --vit)";

static bool is_directory(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

/* Join folder and name into `path`, which is made empty when there is no such file. */
static bool find(char path[PATH_MAX], const char *folder, const char *name)
{
    struct stat status;
    int length = snprintf(path, PATH_MAX, "%s/%s", folder, name);
    if (length > 0 && length < PATH_MAX && stat(path, &status) == 0 && !S_ISDIR(status.st_mode))
        return true;
    path[0] = '\0';
    return false;
}

static const char *last_component(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* --- language model ------------------------------------------------------------------ */

/* Quantised forms first: whoever puts one beside the full model wants it used. */
static const struct {
    const char *weights, *meta;
} forms[] = {
    {"awq_state_dict.safetensors", "awq_meta.json"},
    {"nvfp4_state_dict.safetensors", "nvfp4_meta.json"},
    {"int8_state_dict.safetensors", "int8_meta.json"},
    {"mixed_state_dict.safetensors", "mixed_meta.json"},
    {"model.safetensors", NULL},
    {"model.safetensors.index.json", NULL},
};
enum { FORMS = sizeof forms / sizeof *forms };

/* Whether a file or folder is a model compiled for CoreML. */
static bool is_coreml(const char *name)
{
    static const char *const endings[] = {".mlpackage", ".mlmodelc", ".mlmodel"};
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot && i < sizeof endings / sizeof *endings; i++)
        if (!strcmp(dot, endings[i]))
            return true;
    return false;
}

/* There are no weights in the folder. Perhaps it is the one around the checkpoints that is named. */
static int explain_no_weights(const struct checkpoint_files *files, struct notes *missing, struct error *error)
{
    char inside[400] = "", coreml[100] = "";
    struct dirent **entries;
    int count = scandir(files->directory, &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        char folder[PATH_MAX], path[PATH_MAX] = "";
        if (is_coreml(entries[i]->d_name))
            snprintf(coreml, sizeof coreml, "%.99s", entries[i]->d_name);
        bool is_inside = entries[i]->d_name[0] != '.' &&
                         snprintf(folder, sizeof folder, "%s/%s", files->directory, entries[i]->d_name) < PATH_MAX;
        for (int form = 0; is_inside && !*path && form < FORMS; form++)
            if (find(path, folder, forms[form].weights)) {
                size_t at = strlen(inside);
                snprintf(inside + at, sizeof inside - at, "%s%s", at > 0 ? ", " : "", entries[i]->d_name);
            }
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
    if (*coreml)
        return error_set(error, ERROR_UNSUPPORTED,
                         "%s: %s is a CoreML package, whose palettised weights only Apple's libraries read; take a "
                         "release in bf16, AWQ INT4, NVFP4 or MLX's form",
                         files->directory, coreml);
    if (*inside)
        return error_set(error, ERROR_BAD_FILE, "%s: is no checkpoint, but these in it are: %s; name the folder of one",
                         files->directory, inside);
    notes_add(missing,
              "weights: model.safetensors, or awq_, nvfp4_, int8_ or mixed_state_dict.safetensors");
    return 0;
}

static int find_weights(struct checkpoint_files *files, struct notes *missing, struct notes *warnings,
                        struct error *error)
{
    for (int i = 0; i < FORMS; i++) {
        char path[PATH_MAX];
        if (!find(path, files->directory, forms[i].weights))
            continue;
        if (files->weights_count) {
            notes_add(warnings, "%s is used, %s in the same folder is not", last_component(files->weights[0]),
                      forms[i].weights);
            continue;
        }
        if (!strcmp(forms[i].weights, "model.safetensors.index.json")) {
            int result = checkpoint_shards_read(files->weights, &files->weights_count, path, error);
            if (result)
                return result;
            continue;
        }
        strcpy(files->weights[files->weights_count++], path);
        files->meta_expected = forms[i].meta;
        if (forms[i].meta && !find(files->meta, files->directory, forms[i].meta))
            notes_add(warnings, "%s is missing; group sizes are taken from the tensors' shapes", forms[i].meta);
    }
    return files->weights_count ? 0 : explain_no_weights(files, missing, error);
}

static void find_configuration(struct checkpoint_files *files, struct notes *missing, struct notes *warnings)
{
    static const char *const tokenizer_files[] = {"vocab.json", "merges.txt", "tokenizer_config.json"};
    static const char *const official[] = {"Lance_3B", "Lance_3B_Video"};
    char candidates[4][PATH_MAX];
    const char *self = files->directory;
    int video = strstr(last_component(self), "Video") != NULL;
    bool fits = snprintf(candidates[0], PATH_MAX, "%s", self) < PATH_MAX &&
                snprintf(candidates[1], PATH_MAX, "%s/..", self) < PATH_MAX &&
                snprintf(candidates[2], PATH_MAX, "%s/../%s", self, official[video]) < PATH_MAX &&
                snprintf(candidates[3], PATH_MAX, "%s/../%s", self, official[!video]) < PATH_MAX;
    /* The MLX releases call their llm_config.json so. */
    char config[PATH_MAX];
    bool mlx = find(config, self, "config.json") && config_has(config, "num_hidden_layers");
    if (mlx && !find(files->llm_config, self, "llm_config.json"))
        strcpy(files->llm_config, config);
    if (mlx && !files->meta_expected && config_has(config, "quantization"))
        strcpy(files->meta, config);
    /* Only a quantised or converted release comes without these files. */
    int count = fits && (files->meta_expected || mlx) ? 4 : 1;

    for (int i = 0; i < count && !files->llm_config[0]; i++)
        if (find(files->llm_config, candidates[i], "llm_config.json") && i)
            notes_add(warnings, "llm_config.json is taken from %s", candidates[i]);
    if (!files->llm_config[0])
        notes_add(missing, "llm_config.json");

    char path[PATH_MAX];
    for (int i = 0; i < count && !files->tokenizer_directory[0]; i++)
        if (find(path, candidates[i], tokenizer_files[0]) && find(path, candidates[i], tokenizer_files[1]) &&
            find(path, candidates[i], tokenizer_files[2])) {
            strcpy(files->tokenizer_directory, candidates[i]);
            if (i)
                notes_add(warnings, "the tokenizer is taken from %s", candidates[i]);
        }
    for (int i = 0; i < 3 && !files->tokenizer_directory[0]; i++)
        if (!find(path, self, tokenizer_files[i]))
            notes_add(missing, "%s", tokenizer_files[i]);
    if (count > 1 && !(files->llm_config[0] && files->tokenizer_directory[0]))
        notes_add(missing, "(an official folder Lance_3B beside this one has these files and would be used)");
}

/* --- ViT and VAE ----------------------------------------------------------------------- */

static int find_vit(struct checkpoint_files *files, const char *given, struct error *error)
{
    char folder[PATH_MAX];
    if (given && !is_directory(given)) {
        const char *slash = strrchr(given, '/');
        snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - given) : 1, slash ? given : ".");
        if (!find(files->vit_weights, folder, last_component(given)))
            return error_set(error, ERROR_BAD_FILE, "ViT: %s: no such file or folder", given);
        if (!find(files->vit_config, folder, "config.json"))
            return error_set(error, ERROR_BAD_FILE, "ViT: config.json is not beside %s", given);
        return 0;
    }
    if (given) {
        if (!find(files->vit_weights, given, "vit.safetensors") || !find(files->vit_config, given, "config.json"))
            return error_set(error, ERROR_BAD_FILE, "ViT: vit.safetensors or config.json is not in %s", given);
        return 0;
    }
    find(files->vit_weights, files->directory, "vit.safetensors"); /* as in the MLX releases */
    static const char *const places[] = {"Qwen2.5-VL-ViT", "../Qwen2.5-VL-ViT"};
    for (int i = 0; i < 2; i++) {
        /* A checkpoint that has the ViT's weights in the main file needs only the configuration from here. */
        if (snprintf(folder, sizeof folder, "%s/%s", files->directory, places[i]) >= PATH_MAX ||
            !find(files->vit_config, folder, "config.json"))
            continue;
        if (!*files->vit_weights)
            find(files->vit_weights, folder, "vit.safetensors");
        return 0;
    }
    return 0;
}

static int find_vae(struct checkpoint_files *files, const char *given, struct error *error)
{
    static const char *const names[] = {"Wan2.2_VAE.pth", "Wan2.2_VAE.safetensors"};
    if (given && !is_directory(given)) {
        if (strlen(given) >= PATH_MAX || access(given, F_OK) != 0)
            return error_set(error, ERROR_BAD_FILE, "VAE: %s: no such file or folder", given);
        strcpy(files->vae, given);
        return 0;
    }
    char parent[PATH_MAX];
    if (snprintf(parent, sizeof parent, "%s/..", files->directory) >= PATH_MAX)
        return 0;
    const char *const folders[] = {given ? given : files->directory, given ? given : parent};
    for (int f = 0; f < 2; f++)
        for (int n = 0; n < 2; n++)
            if (find(files->vae, folders[f], names[n]))
                return 0;
    if (given)
        return error_set(error, ERROR_BAD_FILE, "VAE: %s is not in %s", names[0], given);
    return 0;
}

/* Of each path only the first byte: together they have a quarter of a megabyte, and somebody asks for every model. */
static void clear(struct checkpoint_files *files)
{
    char *const paths[] = {files->directory,           files->weights[0],  files->meta,       files->llm_config,
                           files->tokenizer_directory, files->vit_weights, files->vit_config, files->vae};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        paths[i][0] = '\0';
    files->weights_count = 0;
    files->meta_expected = false;
}

int checkpoint_files_find(struct checkpoint_files *files, const struct checkpoint_options *options,
                          struct notes *missing, struct notes *warnings, struct error *error)
{
    clear(files);
    if (!realpath(options->model_dir, files->directory))
        return error_set(error, ERROR_BAD_FILE, "%s: %s", options->model_dir, strerror(errno));
    if (!is_directory(files->directory))
        return error_set(error, ERROR_BAD_FILE, "%s: not a folder; give the folder that the checkpoint's files are in",
                         options->model_dir);
    int result = find_weights(files, missing, warnings, error);
    if (result)
        return result;
    find_configuration(files, missing, warnings);
    result = find_vit(files, options->vit_path, error);
    if (result)
        return result;
    return find_vae(files, options->vae_path, error);
}
