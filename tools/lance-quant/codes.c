/* codes.c: see codes.h. */
#include "tools/lance-quant/codes.h"

#include <math.h>
#include <stddef.h>

#include "kernels/formats/group.h"

enum { HIGHEST_CODE = INT4_CODES - 1, LANES = 8 };

static const float smallest_scale = 1e-8f, smallest_searched = 1e-5f; /* of encoding, and of the search */
static const float highest_level = 6.0f;                              /* of FP4 */
static const float rounder = 12582912; /* 1.5 * 2^23: added and taken away, it rounds what is small beside it */

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

/* In lanes, which a compiler may do at once. */
static void range_of(const float *group, int n, float *low, float *high)
{
    float least[LANES], most[LANES];
    for (int l = 0; l < LANES; l++)
        least[l] = most[l] = group[l < n ? l : 0];
    int i = LANES;
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++) {
            least[l] = group[i + l] < least[l] ? group[i + l] : least[l];
            most[l] = group[i + l] > most[l] ? group[i + l] : most[l];
        }
    for (; i < n; i++) {
        least[0] = fminf(least[0], group[i]);
        most[0] = fmaxf(most[0], group[i]);
    }
    *low = least[0];
    *high = most[0];
    for (int l = 1; l < LANES; l++) {
        *low = fminf(*low, least[l]);
        *high = fmaxf(*high, most[l]);
    }
}

static float largest_of(const float *group, int n)
{
    float low, high;
    range_of(group, n, &low, &high);
    return fmaxf(-low, high);
}

/* The lower level of two that are as near. */
static unsigned fp4_code(float value)
{
    const float size = fabsf(value);
    const unsigned level = (unsigned)((size > 0.25f) + (size > 0.75f) + (size > 1.25f) + (size > 1.75f) +
                                      (size > 2.5f) + (size > 3.5f) + (size > 5.0f));
    return level | (value < 0 ? 8u : 0u);
}

/* What that code is worth. */
static inline float fp4_rounded(float value)
{
    const float size = fabsf(value);
    const float level = 0.5f * (float)((size > 0.25f) + (size > 0.75f) + (size > 1.25f) + (size > 1.75f)) +
                        (float)((size > 2.5f) + (size > 3.5f) + 2 * (size > 5.0f));
    return value < 0 ? -level : level;
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
        for (int i = 0; i < group; i++) {
            float code = ((row[i] / scale + zero) + rounder) - rounder;
            code = code > 0 ? code : 0;
            out[i] = ((code < HIGHEST_CODE ? code : HIGHEST_CODE) - zero) * scale;
        }
    }
}

static void round_fp4(const float *row, int n, int group, float *out)
{
    for (const float *end = row + n; row < end; row += group, out += group) {
        const float scale = fmaxf(largest_of(row, group), smallest_searched) / highest_level;
        for (int i = 0; i < group; i++)
            out[i] = fp4_rounded(row[i] / scale) * scale;
    }
}

void codes_round(const struct code_form *form, const float *row, int n, float *out)
{
    if (form->format == WEIGHT_AWQ_INT4)
        round_int4(row, n, form->group, out);
    else
        round_fp4(row, n, form->group, out);
}
