/* mlx.c: see mlx.h. Source of the names: scripts/02_convert.py of xocialize/lance-mlx, extract_und_to_qwen.py of
 * Reza2kn/lance-quant; of the quantization block: mlx-lm's quantize_model, which both call. */
#include "daemon/engine/model/checkpoint/mlx.h"

#include <stdio.h>
#include <string.h>

bool mlx_official_name(const char *name, char *official, size_t bytes)
{
    static const struct {
        const char *mlx, *official;
    } modules[] = {
        {"model.", "language_model.model."},
        {"embed_tokens.", "language_model.model.embed_tokens."},
        {"layers.", "language_model.model.layers."},
        {"norm.", "language_model.model.norm."},
        {"norm_moe_gen.", "language_model.model.norm_moe_gen."},
        {"lm_head.", "language_model.lm_head."},
        {"vae_in_proj.vae2llm.", "vae2llm."},
        {"time_embedder.proj_in.", "time_embedder.mlp.0."},
        {"time_embedder.proj_out.", "time_embedder.mlp.2."},
    };
    for (size_t i = 0; i < sizeof modules / sizeof *modules; i++) {
        size_t length = strlen(modules[i].mlx);
        if (strncmp(name, modules[i].mlx, length))
            continue;
        int written = snprintf(official, bytes, "%s%s", modules[i].official, name + length);
        return written > 0 && (size_t)written < bytes;
    }
    return false;
}

const cJSON *mlx_quantization(const cJSON *config)
{
    const cJSON *block = cJSON_GetObjectItemCaseSensitive(config, "quantization");
    return cJSON_IsObject(block) ? block : NULL;
}

int mlx_check_quantization(const cJSON *quantization, const char *path, int *group_size, int *bits_out,
                           struct error *error)
{
    const cJSON *bits = cJSON_GetObjectItemCaseSensitive(quantization, "bits");
    const cJSON *group = cJSON_GetObjectItemCaseSensitive(quantization, "group_size");
    const cJSON *mode = cJSON_GetObjectItemCaseSensitive(quantization, "mode");
    if (!cJSON_IsNumber(bits) || (bits->valuedouble != 4 && bits->valuedouble != 8))
        return error_set(error, ERROR_UNSUPPORTED,
                         "%s: \"bits\" of \"quantization\" is neither 4 nor 8; only such weights are read", path);
    const char *name = mode ? cJSON_GetStringValue(mode) : "affine";
    const bool nvfp4 = name && !strcmp(name, "nvfp4") && bits->valuedouble == 4;
    if (!nvfp4 && !(name && !strcmp(name, "affine")))
        return error_set(error, ERROR_UNSUPPORTED,
                         "%s: \"mode\" of \"quantization\" is neither \"affine\" nor, of 4 bits, \"nvfp4\"", path);
    if (!cJSON_IsNumber(group) || !(group->valuedouble >= 2) || !(group->valuedouble <= 1 << 16))
        return error_set(error, ERROR_BAD_FILE,
                         "%s: \"group_size\" of \"quantization\" is missing or out of range", path);
    *group_size = (int)group->valuedouble;
    *bits_out = (int)bits->valuedouble;
    return 0;
}
