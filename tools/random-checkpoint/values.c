/* values.c: see values.h.
 *
 * The generator is splitmix64, with the element's index as its counter: 64 random bits are 4 dense values, or 16 of the
 * 4-bit ones. A quantisable weight is level * scale:
 *   levels  0x0 to 0xf of a random nibble stand for the 16 values of `levels`, all among those of FP4 (E2M1) and,
 *           with a zero point of 6 to 9, of 4-bit integers; their mean is 0 and their standard deviation the root of 10
 *   scales  one for 128 columns, repeated where a form has smaller groups, and rounded to 6 significant bits, so that
 *           level * scale is a bf16 number
 */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "kernels/formats/group.h"
#include "tools/random-checkpoint/values.h"

enum { SCALE_COLUMNS = 128, SMALLEST_ZERO = 6 };

static const int8_t levels[16] = {-6, -4, -3, -3, -2, -2, -1, -1, 1, 1, 2, 2, 3, 3, 4, 6};

static uint64_t random_bits(uint64_t key, uint64_t counter)
{
    uint64_t z = key + (counter + 1) * UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* Of the 128 columns number `group`, counted through the whole tensor. */
static float group_scale(const struct random_tensor *tensor, uint64_t group)
{
    const float spread = 0.75f + (float)(random_bits(~tensor->key, group) >> 40) * 0x1p-25f; /* 0.75 to 1.25 */
    const float scale = tensor->deviation / sqrtf(10) * spread;
    int exponent;
    const float significand = frexpf(scale, &exponent);
    return ldexpf(roundf(significand * 64), exponent - 6);
}

static int group_zero(const struct random_tensor *tensor, uint64_t group)
{
    return SMALLEST_ZERO + (int)(random_bits(~tensor->key, group) & 3);
}

/* Two random nibbles, as a byte that holds the codes of both their levels in a group of that zero and a scale of 1. */
static void byte_table(const struct random_tensor *tensor, int zero, uint8_t table[256])
{
    const enum weight_format format = tensor->content == CONTENT_NVFP4_CODES ? WEIGHT_NVFP4 : WEIGHT_AWQ_INT4;
    for (int byte = 0; byte < 256; byte++) {
        const float both[CODES_PER_BYTE] = {levels[byte & 15], levels[byte >> 4]};
        group_encode(format, both, CODES_PER_BYTE, 1.0f, (float)zero, &table[byte], 0);
    }
}

static void fill_codes(const struct random_tensor *tensor, uint64_t first, uint64_t count, uint8_t *out)
{
    uint8_t tables[4][256] = {{0}};
    for (int i = 0; i < 4; i++)
        byte_table(tensor, SMALLEST_ZERO + i, tables[i]);
    for (uint64_t done = 0; done < count; done += 8) {
        const uint64_t at = first + done, bits = random_bits(tensor->key, at / 8);
        const uint8_t *table = tables[group_zero(tensor, 2 * at / SCALE_COLUMNS) - SMALLEST_ZERO];
        for (int i = 0; i < 8; i++)
            out[done + (uint64_t)i] = table[bits >> 8 * i & 255];
    }
}

static void fill_levels(const struct random_tensor *tensor, uint64_t first, uint64_t count, uint8_t *out)
{
    for (uint64_t done = 0; done < count; done += 2 * SCALE_COLUMNS) {
        const uint64_t element = (first + done) / 2;
        const float scale = group_scale(tensor, element / SCALE_COLUMNS);
        uint16_t table[16], values[SCALE_COLUMNS];
        for (int i = 0; i < 16; i++)
            table[i] = float_to_bf16((float)levels[i] * scale);
        for (int i = 0; i < SCALE_COLUMNS; i += 16) {
            const uint64_t bits = random_bits(tensor->key, (element + (uint64_t)i) / 16);
            for (int j = 0; j < 16; j++)
                values[i + j] = table[bits >> 4 * j & 15];
        }
        memcpy(out + done, values, sizeof values);
    }
}

static void fill_per_group(const struct random_tensor *tensor, uint64_t first, uint64_t count, uint8_t *out)
{
    const uint64_t size = dtype_bytes(tensor->dtype), repeats = (uint64_t)(SCALE_COLUMNS / tensor->group);
    for (uint64_t done = 0; done < count; done += repeats * size) {
        const uint64_t group = (first + done) / size / repeats;
        const uint16_t value = tensor->content == CONTENT_ZEROS    ? (uint16_t)group_zero(tensor, group)
                               : tensor->content == CONTENT_SCALES ? float_to_bf16(group_scale(tensor, group))
                                                                   : float_to_e4m3(group_scale(tensor, group));
        for (uint64_t i = 0; i < repeats; i++)
            memcpy(out + done + i * size, &value, size == 1 ? 1 : 2); /* little-endian: the low byte comes first */
    }
}

enum { BLOCK = 1024 };

/* `count` values, at most BLOCK, from `element` on, a multiple of 4; all inside or all outside tensor->apart. */
static void uniform_values(const struct random_tensor *tensor, uint64_t element, size_t count, float *out)
{
    const bool apart = element >= tensor->apart.from && element < tensor->apart.to;
    const float mean = apart ? tensor->apart.mean : tensor->mean;
    const float deviation = apart ? tensor->apart.deviation : tensor->deviation;
    const float unit = deviation * (1.7320508f / 32768.0f); /* the root of 3: half the width of deviation 1 */
    uint64_t bits[BLOCK / 4];
    uint16_t parts[BLOCK];
    for (size_t i = 0; i < count; i += 4)
        bits[i / 4] = random_bits(tensor->key, (element + i) / 4);
    memcpy(parts, bits, count * sizeof *parts);
    for (size_t i = 0; i < count; i++)
        out[i] = mean + unit * ((float)parts[i] - 32767.5f);
}

/* How many of the `count` values from `element` on are like the first; both ends of
 * tensor->apart are multiples of 4. */
static size_t alike(const struct random_tensor *tensor, uint64_t element, size_t count)
{
    const uint64_t edge = element < tensor->apart.from ? tensor->apart.from : tensor->apart.to;
    return edge > element && edge - element < count ? (size_t)(edge - element) : count;
}

static void fill_uniform(const struct random_tensor *tensor, uint64_t first, uint64_t count, uint8_t *out)
{
    const size_t size = dtype_bytes(tensor->dtype);
    float values[BLOCK];
    uint16_t narrow[BLOCK];
    for (uint64_t element = first / size, end = (first + count) / size; element < end;) {
        const size_t now = alike(tensor, element, end - element < BLOCK ? (size_t)(end - element) : BLOCK);
        uniform_values(tensor, element, now, values);
        for (size_t i = 0; i < now && size == sizeof *narrow; i++)
            narrow[i] = float_to_bf16(values[i]);
        memcpy(out, size == sizeof *narrow ? (const void *)narrow : (const void *)values, now * size);
        out += now * size;
        element += now;
    }
}

void random_tensor_fill(const struct random_tensor *tensor, uint64_t first, uint64_t count, uint8_t *out)
{
    switch (tensor->content) {
    case CONTENT_UNIFORM:
        fill_uniform(tensor, first, count, out);
        break;
    case CONTENT_LEVELS:
        fill_levels(tensor, first, count, out);
        break;
    case CONTENT_NVFP4_CODES:
    case CONTENT_AWQ_CODES:
        fill_codes(tensor, first, count, out);
        break;
    case CONTENT_SCALES:
    case CONTENT_SCALES_FP8:
    case CONTENT_ZEROS:
        fill_per_group(tensor, first, count, out);
        break;
    }
}
