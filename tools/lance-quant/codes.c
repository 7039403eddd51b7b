/* codes.c: see codes.h. */
#include "tools/lance-quant/codes.h"

#include <math.h>
#include <stddef.h>

#include "kernels/formats/group.h"

enum { HIGHEST_CODE = INT4_CODES - 1 };

static const float smallest_scale = 1e-8f, smallest_searched = 1e-5f; /* of encoding, and of the search */
static const float highest_level = 6.0f;                              /* of FP4 */

const char *codes_weights_file(enum weight_format format)
{
    return format == WEIGHT_AWQ_INT4 ? "awq_state_dict.safetensors"
           : format == WEIGHT_INT8   ? "int8_state_dict.safetensors"
                                     : "nvfp4_state_dict.safetensors";
}

const char *codes_meta_file(enum weight_format format)
{
    return format == WEIGHT_AWQ_INT4 ? "awq_meta.json" : format == WEIGHT_INT8 ? "int8_meta.json" : "nvfp4_meta.json";
}

int codes_group(int in_features, int wanted)
{
    static const int others[] = {128, 64, 32, 16};
    if (in_features % wanted == 0)
        return wanted;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (in_features % others[i] == 0)
            return others[i];
    return in_features;
}

static void range_of(const float *group, int n, float *low, float *high)
{
    *low = *high = group[0];
    for (int i = 1; i < n; i++) {
        *low = fminf(*low, group[i]);
        *high = fmaxf(*high, group[i]);
    }
}

static float largest_of(const float *group, int n)
{
    float largest = 0;
    for (int i = 0; i < n; i++)
        largest = fmaxf(largest, fabsf(group[i]));
    return largest;
}

/* Of a size that may be anything up to the rounding error above 6: the lower level of two that are as near. */
static unsigned fp4_level(float size)
{
    unsigned nearest = 0;
    const float *levels = fp4_levels();
    for (unsigned code = 1; code < FP4_CODES / 2; code++)
        if (fabsf(size - levels[code]) < fabsf(size - levels[nearest]))
            nearest = code;
    return nearest;
}

static unsigned fp4_code(float value)
{
    return fp4_level(fminf(fabsf(value), highest_level)) | (value < 0 ? 8u : 0u);
}

static void encode_int4(const float *row, int n, int group, const struct code_row *out)
{
    for (int g = 0; g * group < n; g++) {
        float low, high;
        range_of(row + g * group, group, &low, &high);
        const float scale = fmaxf((high - low) / HIGHEST_CODE, smallest_scale);
        const float zero = fminf(fmaxf(rintf(-low / scale), 0), HIGHEST_CODE);
        out->scales[g] = float_to_bf16(scale);
        out->second[g] = (uint8_t)zero;
        for (int i = g * group; i < (g + 1) * group; i++)
            code_put(out->codes, (size_t)i, (unsigned)fminf(fmaxf(rintf(row[i] / scale + zero), 0), HIGHEST_CODE));
    }
}

static void encode_fp4(const float *row, int n, int group, const struct code_row *out)
{
    for (int g = 0; g * group < n; g++) {
        const float scale = fmaxf(largest_of(row + g * group, group), smallest_scale) / highest_level;
        out->scales[g] = float_to_bf16(scale);
        out->second[g] = float_to_e4m3(scale);
        for (int i = g * group; i < (g + 1) * group; i++)
            code_put(out->codes, (size_t)i, fp4_code(row[i] / scale));
    }
}

void codes_encode(const struct code_form *form, const float *row, int n, const struct code_row *out)
{
    if (form->format == WEIGHT_AWQ_INT4)
        encode_int4(row, n, form->group, out);
    else
        encode_fp4(row, n, form->group, out);
}

static void round_int4(const float *row, int n, int group, float *out)
{
    for (const float *end = row + n; row < end; row += group, out += group) {
        float low, high;
        range_of(row, group, &low, &high);
        const float scale = fmaxf((high - low) / HIGHEST_CODE, smallest_searched), zero = rintf(-low / scale);
        for (int i = 0; i < group; i++)
            out[i] = (fminf(fmaxf(rintf(row[i] / scale + zero), 0), HIGHEST_CODE) - zero) * scale;
    }
}

static void round_fp4(const float *row, int n, int group, float *out)
{
    for (const float *end = row + n; row < end; row += group, out += group) {
        const float scale = fmaxf(largest_of(row, group), smallest_searched) / highest_level;
        for (int i = 0; i < group; i++)
            out[i] = fp4_to_float(fp4_code(row[i] / scale)) * scale;
    }
}

void codes_round(const struct code_form *form, const float *row, int n, float *out)
{
    if (form->format == WEIGHT_AWQ_INT4)
        round_int4(row, n, form->group, out);
    else
        round_fp4(row, n, form->group, out);
}
