/* config.c: see config.h. Keys: Hugging Face's Qwen2Config and Qwen2_5_VLVisionConfig, as published with Lance. */
#include "daemon/engine/model/checkpoint/config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/engine/model/checkpoint/model_file.h"

/* What the fields of one JSON object are read from, for messages. */
struct fields {
    const char *path;
    const cJSON *object;
    struct error *error;
};

static int bad_field(const struct fields *fields, const char *key, const char *problem)
{
    return error_set(fields->error, ERROR_BAD_FILE, "%s: \"%s\" %s", fields->path, key, problem);
}

static int read_int(const struct fields *fields, const char *key, int low, int high, int *out)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(fields->object, key);
    if (!item)
        return bad_field(fields, key, "is missing");
    if (!cJSON_IsNumber(item) || item->valuedouble != floor(item->valuedouble) || !(item->valuedouble >= low) ||
        !(item->valuedouble <= high))
        return error_set(fields->error, ERROR_BAD_FILE, "%s: \"%s\" must be a whole number from %d to %d", fields->path,
                         key, low, high);
    *out = (int)item->valuedouble;
    return 0;
}

/* As read_int, but `fallback` when the key is absent or null. */
static int read_optional_int(const struct fields *fields, const char *key, int low, int high, int fallback, int *out)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(fields->object, key);
    *out = fallback;
    return !item || cJSON_IsNull(item) ? 0 : read_int(fields, key, low, high, out);
}

static int read_number(const struct fields *fields, const char *key, double low, double high, double *out)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(fields->object, key);
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= low) || !(item->valuedouble <= high))
        return error_set(fields->error, ERROR_BAD_FILE, "%s: \"%s\" must be a number from %g to %g", fields->path, key,
                         low, high);
    *out = item->valuedouble;
    return 0;
}

/* The activation function is not read anywhere else: it must be the one that is implemented. */
static int require_silu(const struct fields *fields)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(fields->object, "hidden_act");
    if (!item || (cJSON_IsString(item) && !strcmp(item->valuestring, "silu")))
        return 0;
    return error_set(fields->error, ERROR_UNSUPPORTED, "%s: \"hidden_act\" is not \"silu\"", fields->path);
}

static int read_attention(const struct fields *fields, struct lance_config *config)
{
    int result;
    if ((result = read_int(fields, "num_attention_heads", 1, 1024, &config->heads)) ||
        (result = read_optional_int(fields, "num_key_value_heads", 1, 1024, config->heads, &config->kv_heads)))
        return result;
    if (config->heads % config->kv_heads)
        return bad_field(fields, "num_key_value_heads", "does not divide num_attention_heads");
    if ((result = read_optional_int(fields, "head_dim", 2, 1024, config->hidden_size / config->heads,
                                    &config->head_dim)))
        return result;
    if (config->heads * config->head_dim != config->hidden_size || config->head_dim % 2)
        return bad_field(fields, "num_attention_heads", "heads of an even width must make up hidden_size");
    return 0;
}

static int read_rope(const struct fields *fields, struct lance_config *config)
{
    int result = read_number(fields, "rope_theta", 1, 1e12, &config->rope_theta);
    if (result)
        return result;
    const cJSON *scaling = cJSON_GetObjectItemCaseSensitive(fields->object, "rope_scaling");
    const cJSON *section = cJSON_GetObjectItemCaseSensitive(scaling, "mrope_section");
    int count = 0, sum = 0;
    if (section && !cJSON_IsArray(section))
        return bad_field(fields, "mrope_section", "must be three numbers in a list");
    for (const cJSON *item = section ? section->child : NULL; item; item = item->next) {
        if (count == 3 || !cJSON_IsNumber(item) || !(item->valuedouble >= 0) || !(item->valuedouble <= 1024) ||
            item->valuedouble != floor(item->valuedouble))
            return bad_field(fields, "mrope_section", "must be three whole numbers");
        sum += config->mrope_section[count++] = (int)item->valuedouble;
    }
    if (count != 3 || sum != config->head_dim / 2)
        return bad_field(fields, "mrope_section", "must be three numbers that sum to half the head width");
    return 0;
}

static int read_position_tables(const struct fields *fields, struct lance_config *config)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(fields->object, "position_tables");
    if (!item || (cJSON_IsString(item) && !strcmp(item->valuestring, "bfloat16")))
        config->tables_float32 = false;
    else if (cJSON_IsString(item) && !strcmp(item->valuestring, "float32"))
        config->tables_float32 = true;
    else
        return bad_field(fields, "position_tables", "must be \"float32\" or \"bfloat16\"");
    return 0;
}

static int read_llm(const struct fields *fields, struct lance_config *config)
{
    int result;
    double eps = 0;
    const int max_id = INT32_MAX;
    if ((result = read_int(fields, "hidden_size", 16, 1 << 16, &config->hidden_size)) ||
        (result = read_int(fields, "num_hidden_layers", 1, 1024, &config->layers)) ||
        (result = read_int(fields, "intermediate_size", 1, 1 << 20, &config->intermediate_size)) ||
        (result = read_int(fields, "vocab_size", 1, 1 << 24, &config->vocab_size)) ||
        (result = read_number(fields, "rms_norm_eps", 0, 1, &eps)) || (result = require_silu(fields)) ||
        (result = read_attention(fields, config)) || (result = read_rope(fields, config)) ||
        (result = read_position_tables(fields, config)) ||
        (result = read_optional_int(fields, "video_token_id", 0, max_id, -1, &config->video_token_id)) ||
        (result = read_optional_int(fields, "vision_start_token_id", 0, max_id, -1, &config->vision_start_token_id)) ||
        (result = read_optional_int(fields, "vision_end_token_id", 0, max_id, -1, &config->vision_end_token_id)))
        return result;
    config->rms_norm_eps = (float)eps;
    config->bos_token_id = config->eos_token_id = -1;
    const struct fields vision = {
        fields->path, cJSON_GetObjectItemCaseSensitive(fields->object, "vision_config"), fields->error};
    if (vision.object && !cJSON_IsObject(vision.object))
        return bad_field(fields, "vision_config", "must be an object");
    if ((result = read_optional_int(&vision, "tokens_per_second", 1, 1000, 2, &config->tokens_per_second)) ||
        (result = read_optional_int(&vision, "spatial_merge_size", 1, 16, 2, &config->spatial_merge_size)))
        return result;
    return 0;
}

int config_read_llm(struct lance_config *config, const char *path, struct error *error)
{
    cJSON *json;
    int result = model_file_json(&json, path, error);
    if (result)
        return result;
    result = read_llm(&(struct fields){path, json, error}, config);
    cJSON_Delete(json);
    return result;
}

int config_has_tied_head(const char *path, bool *tied, struct error *error)
{
    cJSON *json;
    int result = model_file_json(&json, path, error);
    if (result)
        return result;
    *tied = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(json, "tie_word_embeddings"));
    cJSON_Delete(json);
    return 0;
}

static int read_full_attention_blocks(const struct fields *fields, struct lance_config *config)
{
    static const char key[] = "fullatt_block_indexes";
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(fields->object, key);
    if (!cJSON_IsArray(list))
        return bad_field(fields, key, "must be a list");
    int count = 0;
    for (const cJSON *item = list->child; item; item = item->next) {
        if (count == CHECKPOINT_MAX_FULL_BLOCKS || !cJSON_IsNumber(item) || !(item->valuedouble >= 0) ||
            !(item->valuedouble < config->vit.depth) || item->valuedouble != floor(item->valuedouble))
            return bad_field(fields, key, "must list numbers of blocks");
        config->vit.full_attention_blocks[count++] = (int)item->valuedouble;
    }
    config->vit.full_attention_block_count = count;
    return 0;
}

static int read_vit(const struct fields *fields, struct lance_config *config)
{
    int result, merge = 0;
    const char *channels =
        cJSON_GetObjectItemCaseSensitive(fields->object, "in_channels") ? "in_channels" : "in_chans";
    /* Fallbacks: the values of Qwen2.5-VL, as in the configuration class. */
    if ((result = read_int(fields, "depth", 1, 1024, &config->vit.depth)) ||
        (result = read_int(fields, "hidden_size", 4, 1 << 16, &config->vit.hidden_size)) ||
        (result = read_int(fields, "num_heads", 1, 1024, &config->vit.heads)) ||
        (result = read_int(fields, "intermediate_size", 1, 1 << 20, &config->vit.intermediate_size)) ||
        (result = read_int(fields, "out_hidden_size", 1, 1 << 16, &config->vit.out_hidden_size)) ||
        (result = read_optional_int(fields, channels, 1, 16, 3, &config->vit.in_channels)) ||
        (result = read_optional_int(fields, "patch_size", 1, 256, 14, &config->vit.patch_size)) ||
        (result = read_optional_int(fields, "temporal_patch_size", 1, 16, 2, &config->vit.temporal_patch_size)) ||
        (result = read_optional_int(fields, "spatial_merge_size", 1, 16, 2, &merge)) ||
        (result = read_optional_int(fields, "window_size", 1, 1 << 16, 112, &config->vit.window_size)) ||
        (result = read_full_attention_blocks(fields, config)) || (result = require_silu(fields)))
        return result;
    if (config->vit.hidden_size % config->vit.heads || config->vit.hidden_size / config->vit.heads % 4)
        return bad_field(fields, "num_heads", "must split hidden_size into heads whose width is a multiple of 4");
    if (config->vit.patch_size != CHECKPOINT_VIT_PATCH)
        return error_set(fields->error, ERROR_UNSUPPORTED,
                         "%s: \"patch_size\" is %d; pictures are prepared for patches of %d", fields->path,
                         config->vit.patch_size, CHECKPOINT_VIT_PATCH);
    if (merge != config->spatial_merge_size)
        return bad_field(fields, "spatial_merge_size", "differs from that in llm_config.json");
    if (config->vit.window_size % (config->vit.patch_size * merge))
        return bad_field(fields, "window_size", "must be a multiple of the merged patch size");
    if (config->vit.out_hidden_size != config->hidden_size)
        return bad_field(fields, "out_hidden_size", "differs from hidden_size in llm_config.json");
    return 0;
}

int config_read_vit(struct lance_config *config, const char *path, struct error *error)
{
    cJSON *json;
    int result = model_file_json(&json, path, error);
    if (result)
        return result;
    const cJSON *vision = cJSON_GetObjectItemCaseSensitive(json, "vision_config");
    const struct fields fields = {path, vision ? vision : json, error};
    result = cJSON_IsObject(fields.object) ? read_vit(&fields, config)
                                           : bad_field(&fields, "vision_config", "must be an object");
    cJSON_Delete(json);
    return result;
}

bool config_has(const char *path, const char *key)
{
    cJSON *json;
    struct error ignored;
    if (model_file_json(&json, path, &ignored))
        return false;
    bool has = cJSON_GetObjectItemCaseSensitive(json, key) != NULL;
    cJSON_Delete(json);
    return has;
}

/* The id of the added token with this content, or -1. */
static int find_token(const cJSON *added_tokens, const char *content)
{
    for (const cJSON *token = cJSON_IsObject(added_tokens) ? added_tokens->child : NULL; token; token = token->next) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(token, "content");
        if (!cJSON_IsString(item) || strcmp(item->valuestring, content) || !token->string)
            continue;
        char *end;
        long id = strtol(token->string, &end, 10);
        if (end != token->string && !*end && id >= 0 && id <= INT32_MAX)
            return (int)id;
    }
    return -1;
}

int config_read_tokens(struct lance_config *config, const char *path, struct error *error)
{
    const struct {
        const char *content;
        int *id;
    } wanted[] = {
        {"<|im_start|>", &config->bos_token_id},
        {"<|im_end|>", &config->eos_token_id},
        {"<|vision_start|>", &config->vision_start_token_id},
        {"<|vision_end|>", &config->vision_end_token_id},
        {"<|video_pad|>", &config->video_token_id},
    };
    cJSON *json;
    int result = model_file_json(&json, path, error);
    if (result)
        return result;
    const cJSON *added_tokens = cJSON_GetObjectItemCaseSensitive(json, "added_tokens_decoder");
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted && !result; i++) {
        if (*wanted[i].id < 0)
            *wanted[i].id = find_token(added_tokens, wanted[i].content);
        if (*wanted[i].id < 0)
            result = error_set(error, ERROR_BAD_FILE, "%s: no token %s among \"added_tokens_decoder\"", path,
                               wanted[i].content);
        else if (*wanted[i].id >= config->vocab_size)
            result = error_set(error, ERROR_BAD_FILE, "%s: token %s has id %d, but the vocabulary has %d entries", path,
                               wanted[i].content, *wanted[i].id, config->vocab_size);
    }
    cJSON_Delete(json);
    return result;
}
