/* export_layout.c: see export_layout.h. Source of the names: 02_convert.py of xocialize/lance-mlx, and
 * extract_und_to_qwen.py of Reza2kn/lance-quant. */
#include "tools/lance-quant/export_layout.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/mapped_file.h"

enum { MOST_CONFIG_BYTES = 1 << 20, MOST_CONFIG_VALUES = 1 << 14 };

static const char language_model[] = "language_model.";

/* NAME with `before` in the place of its first `cut` characters; false: too long. */
static bool renamed(char name[EXPORT_NAME_BYTES], const char *before, const char *official, size_t cut)
{
    const int length = snprintf(name, EXPORT_NAME_BYTES, "%s%s", before, official + cut);
    return length > 0 && length < EXPORT_NAME_BYTES;
}

static bool mlx_name(const char *official, char name[EXPORT_NAME_BYTES])
{
    static const struct {
        const char *official, *mlx;
    } moved[] = {{"language_model.model.", ""},
                 {"language_model.", ""},
                 {"vae2llm.", "vae_in_proj.vae2llm."},
                 {"time_embedder.mlp.0.", "time_embedder.proj_in."},
                 {"time_embedder.mlp.2.", "time_embedder.proj_out."},
                 {"llm2vae.", "llm2vae."}};
    for (size_t i = 0; i < sizeof moved / sizeof *moved; i++) {
        const size_t length = strlen(moved[i].official);
        if (strncmp(official, moved[i].official, length) == 0)
            return renamed(name, moved[i].mlx, official, length);
    }
    return false;
}

bool export_name(const struct export_options *options, const char *official, char name[EXPORT_NAME_BYTES])
{
    if (options->form == EXPORT_MLX)
        return mlx_name(official, name);
    const bool is_norm = strstr(official, ".q_norm.") || strstr(official, ".k_norm.");
    return strncmp(official, language_model, strlen(language_model)) == 0 && !strstr(official, "_moe_gen") &&
           !(is_norm && options->drops_head_norms) && renamed(name, "", official, strlen(language_model));
}

bool export_is_quantised(const struct export_options *options, const struct tensor_view *tensor)
{
    static const char suffix[] = ".weight";
    const size_t length = strlen(tensor->name), tail = strlen(suffix);
    return options->form != EXPORT_HF_UND && tensor->dimensions == 2 && length > tail &&
           strcmp(tensor->name + length - tail, suffix) == 0 &&
           tensor->shape[1] % (uint64_t)options->group == 0 && !strstr(tensor->name, "time_embedder") &&
           !strstr(tensor->name, "llm2vae");
}

static void set_text(cJSON *config, const char *key, const char *text)
{
    cJSON_DeleteItemFromObjectCaseSensitive(config, key);
    json_add_text(config, key, text);
}

/* The language model alone, as a class of transformers and mlx-lm. */
static void describe_understanding(cJSON *config, const struct export_options *options)
{
    const bool norms = !options->drops_head_norms;
    cJSON_DeleteItemFromObjectCaseSensitive(config, "architectures");
    json_append_text(json_add_array(config, "architectures"), norms ? "Qwen3ForCausalLM" : "Qwen2ForCausalLM");
    set_text(config, "model_type", norms ? "qwen3" : "qwen2");
    set_text(config, "torch_dtype", "bfloat16");
    if (options->form != EXPORT_HF_UND)
        return;
    /* transformers' Qwen classes know no rotary positions of three axes; those of text are the same on all. */
    cJSON_DeleteItemFromObjectCaseSensitive(config, "rope_scaling");
    if (norms) {
        cJSON_DeleteItemFromObjectCaseSensitive(config, "attention_bias");
        json_add_bool(config, "attention_bias", true);
        const double hidden = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(config, "hidden_size"));
        const double heads = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(config, "num_attention_heads"));
        if (!cJSON_GetObjectItemCaseSensitive(config, "head_dim") && heads > 0)
            json_add_number(config, "head_dim", hidden / heads);
    }
}

int export_config(const struct export_options *options, char **text, struct error *error)
{
    const struct json_limits limits = {MOST_CONFIG_BYTES, MOST_CONFIG_VALUES, ERROR_BAD_FILE, ERROR_BAD_FILE};
    char path[PATH_MAX];
    struct mapped_file file;
    cJSON *config = NULL;
    if (snprintf(path, sizeof path, "%s/llm_config.json", options->model) >= (int)sizeof path)
        return error_set(error, ERROR_IO, "%s: the path is too long", options->model);
    int code = mapped_file_open(&file, path, error);
    if (code != 0)
        return code;
    code = json_parse(&config, (const char *)file.data, (size_t)file.bytes, &limits, path, error);
    mapped_file_close(&file);
    if (code != 0)
        return code;
    if (options->form != EXPORT_MLX)
        describe_understanding(config, options);
    if (options->form != EXPORT_HF_UND) {
        cJSON_DeleteItemFromObjectCaseSensitive(config, "quantization");
        cJSON *block = json_add_object(config, "quantization");
        json_add_number(block, "group_size", options->group);
        json_add_number(block, "bits", options->bits);
        json_add_text(block, "mode", "affine");
    }
    *text = json_print_indented(config);
    cJSON_Delete(config);
    return *text != NULL ? 0 : error_set(error, ERROR_NO_MEMORY, "lance-quant: no memory for config.json");
}
