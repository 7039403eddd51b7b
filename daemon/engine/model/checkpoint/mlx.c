/* mlx.c: see mlx.h. Source of the names: scripts/02_convert.py of xocialize/lance-mlx; of the quantization block:
 * mlx-lm's quantize_model, which scripts/quant/apply_awq_quantize.py calls. */
#include "daemon/engine/model/checkpoint/mlx.h"

#include <stdio.h>
#include <string.h>

bool mlx_official_name(const char *name, char *official, size_t bytes)
{
    static const struct {
        const char *mlx, *official;
    } modules[] = {
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

int mlx_check_quantization(const cJSON *quantization, const char *path, int *group_size, struct error *error)
{
    const cJSON *bits = cJSON_GetObjectItemCaseSensitive(quantization, "bits");
    const cJSON *group = cJSON_GetObjectItemCaseSensitive(quantization, "group_size");
    const cJSON *mode = cJSON_GetObjectItemCaseSensitive(quantization, "mode");
    if (!cJSON_IsNumber(bits) || bits->valuedouble != 4)
        return error_set(error, ERROR_UNSUPPORTED,
                         "%s: \"bits\" of \"quantization\" is not 4; only 4-bit weights are read", path);
    if (mode && !(cJSON_IsString(mode) && !strcmp(mode->valuestring, "affine")))
        return error_set(error, ERROR_UNSUPPORTED, "%s: \"mode\" of \"quantization\" is not \"affine\"", path);
    if (!cJSON_IsNumber(group) || !(group->valuedouble >= 2) || !(group->valuedouble <= 1 << 16))
        return error_set(error, ERROR_BAD_FILE,
                         "%s: \"group_size\" of \"quantization\" is missing or out of range", path);
    *group_size = (int)group->valuedouble;
    return 0;
}
