/* lance_params.c: see lance_params.h. */
#include "tools/lancectl/graph/lance_params.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "protocol/latent_shape.h"

static const cJSON *entry_of(const struct work *work, int input)
{
    return work->node->kind->input[input].entry;
}

static struct value *value_at(const struct work *work, int input)
{
    return work->input[input].count ? work->input[input].items[0] : NULL;
}

/* The parameter that an input becomes, or NULL. */
static const char *parameter_of(const struct work *work, int input)
{
    const char *becomes = json_text(entry_of(work, input), "becomes");
    return becomes && !strcmp(becomes, "parameter") ? json_text(entry_of(work, input), "parameter") : NULL;
}

static bool is_default(const struct value *value, const cJSON *usual)
{
    if (cJSON_IsString(usual))
        return value->kind == VALUE_TEXT && !strcmp(value->text, usual->valuestring);
    return cJSON_IsNumber(usual) && value->kind != VALUE_TEXT && value_number(value) == usual->valuedouble;
}

/* Whether every input of the parameter is at its default. */
static bool is_unchanged(const struct work *work, const char *parameter)
{
    for (int i = 0; i < work->node->kind->inputs; i++) {
        const char *other = parameter_of(work, i);
        if (other && !strcmp(other, parameter) && value_at(work, i) &&
            !is_default(value_at(work, i), cJSON_GetObjectItemCaseSensitive(entry_of(work, i), "default")))
            return false;
    }
    return true;
}

static cJSON *item_of(const struct value *value, const cJSON *entry)
{
    const cJSON *values = cJSON_GetObjectItemCaseSensitive(entry, "values");
    if (values)
        return cJSON_Duplicate(cJSON_GetObjectItemCaseSensitive(values, value->text), true);
    switch (value->kind) {
    case VALUE_TEXT: return json_from_text(value->text);
    case VALUE_FLAG: return json_from_bool(value->flag);
    case VALUE_WHOLE:
        return value->whole.is_negative ? json_from_number(value_number(value))
                                        : json_from_uint64(value->whole.magnitude);
    default: return json_from_number(value_number(value));
    }
}

/* One element of a parameter that is a list; the elements come in their order. */
static void add_element(cJSON *params, const char *parameter, cJSON *item)
{
    cJSON *list = cJSON_GetObjectItemCaseSensitive(params, parameter);
    if (!list)
        list = json_add_array(params, parameter);
    json_append(list, item);
}

static const struct value *part(const struct work *work, const char *name)
{
    for (int i = 0; i < work->node->kind->inputs; i++) {
        const char *is = json_text(entry_of(work, i), "part");
        if (is && !strcmp(is, name))
            return value_at(work, i);
    }
    return NULL;
}

int lance_params_add_resolution(cJSON *params, const struct work *work, struct error *error)
{
    const struct value *preset = part(work, "preset");
    if (!preset)
        return 0;
    const int width = (int)value_number(part(work, "width")), height = (int)value_number(part(work, "height"));
    if (!width && !height) {
        json_add_text(params, "resolution", preset->text);
        return 0;
    }
    const int least = least_source_size();
    if (width < least || height < least || width % VAE_SPATIAL_STRIDE || height % VAE_SPATIAL_STRIDE)
        return error_set(error, ERROR_BAD_REQUEST,
                         "width and height must be multiples of %d from %d to %d, or both 0: they are %d and %d",
                         VAE_SPATIAL_STRIDE, least, LARGEST_SIDE,
                         width, height);
    char size[40];
    snprintf(size, sizeof size, "%dx%d", height, width);
    json_add_text(params, "resolution", size);
    return 0;
}

int lance_params_add(cJSON *params, const struct work *work, struct error *error)
{
    for (int i = 0; i < work->node->kind->inputs; i++) {
        const char *parameter = parameter_of(work, i);
        const cJSON *entry = entry_of(work, i);
        if (!parameter || !value_at(work, i) || json_text(entry, "part"))
            continue;
        if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(entry, "unless_default")) && is_unchanged(work, parameter))
            continue;
        cJSON *item = item_of(value_at(work, i), entry);
        if (cJSON_GetObjectItemCaseSensitive(entry, "place"))
            add_element(params, parameter, item);
        else
            json_add(params, parameter, item);
    }
    const cJSON *fixed;
    cJSON_ArrayForEach(fixed, cJSON_GetObjectItemCaseSensitive(work->node->kind->entry, "parameters"))
        json_add(params, fixed->string, cJSON_Duplicate(fixed, true));
    return lance_params_add_resolution(params, work, error);
}
