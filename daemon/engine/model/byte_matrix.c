/* byte_matrix.c: see byte_matrix.h. */
#include "daemon/engine/model/byte_matrix.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/formats/linear_source.h"

/* One group: its scale, and the codes. False: it holds something that is no number. */
static bool round_group(const float *values, uint16_t *scale, uint8_t *codes)
{
    float largest = 0, sum = 0;
    for (int i = 0; i < INT8_GROUP; i++) {
        largest = fmaxf(largest, fabsf(values[i]));
        sum += values[i] * 0; /* not 0 if one of them is infinite or no number */
    }
    if (sum != 0)
        return false;
    *scale = float_to_bf16(largest / INT8_HIGHEST);
    const float shared = bf16_at(scale, 0);
    if (shared > 0)
        group_encode(WEIGHT_INT8, values, INT8_GROUP, shared, 0, codes, 0);
    else
        memset(codes, 0, INT8_GROUP);
    return true;
}

int byte_matrix_open(struct byte_matrix *out, const struct linear_source *dense, struct error *error)
{
    *out = (struct byte_matrix){0};
    if (dense->in_features % INT8_GROUP != 0)
        return error_set(error, ERROR_UNSUPPORTED, "8 bits a weight: %d columns have no groups of %d",
                         dense->in_features, INT8_GROUP);
    const size_t groups = (size_t)dense->out_features * (size_t)dense->in_features / INT8_GROUP,
                 bytes = groups * (INT8_GROUP + sizeof(uint16_t));
    uint16_t *const scales = malloc(bytes);
    if (!scales)
        return error_set(error, ERROR_NO_MEMORY, "8 bits a weight: no memory for %zu bytes", bytes);
    uint8_t *const codes = (uint8_t *)(scales + groups);
    for (size_t g = 0; g < groups; g++) {
        float values[INT8_GROUP];
        for (size_t i = 0; i < INT8_GROUP; i++)
            values[i] = element_at(dense->format, dense->data, g * INT8_GROUP + i);
        if (round_group(values, scales + g, codes + g * INT8_GROUP))
            continue;
        free(scales);
        return error_set(error, ERROR_BAD_FILE, "8 bits a weight: row %zu holds what is no number",
                         g * INT8_GROUP / (size_t)dense->in_features);
    }
    *out = (struct byte_matrix){.source = *dense, .memory = scales, .bytes = bytes};
    out->source.format = WEIGHT_INT8;
    out->source.group_size = INT8_GROUP;
    out->source.data = codes;
    out->source.scales = scales;
    return 0;
}

void byte_matrix_close(struct byte_matrix *matrix)
{
    free(matrix->memory);
    *matrix = (struct byte_matrix){0};
}
