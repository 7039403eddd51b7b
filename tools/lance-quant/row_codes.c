/* row_codes.c: see row_codes.h.
 *
 * First the scales of all groups, by what rounding alone would cost each input by itself; then, block by block, the
 * codes with feedback (quadratic.h), and a refinement: each code, and each scale, is moved to where the whole cost of
 * the block is least with all others as they are, as long as that changes something.
 */
#include "tools/lance-quant/row_codes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/formats/group.h"

enum { BLOCK = STATISTICS_BLOCK, SHRINKS = 12, SWEEPS = 4, HIGHEST_CODE = INT4_CODES - 1 };

static const float smallest_scale = 1e-8f, shrink_step = 0.04f, shrink_step_int8 = 0.01f;
static const float rounder = 12582912; /* 1.5 * 2^23: added and taken away, it rounds what is small beside it */
static const float fp4_highest = 6, e4m3_highest = 448, to_four = 1.5f, widest_fp4 = 1.55f, narrowest_fp4 = 0.75f;

int row_room_open(struct row_room *room, int width, struct error *error)
{
    const size_t n = (size_t)width;
    *room = (struct row_room){malloc(n * sizeof(float)), malloc(n * sizeof(float)), malloc(n * sizeof(float)),
                              malloc(n * sizeof(float)), malloc(n * sizeof(float)), malloc(n)};
    if (room->scales && room->seconds && room->wanted && room->rounded && room->row && room->codes)
        return 0;
    row_room_close(room);
    return error_set(error, ERROR_NO_MEMORY, "lance-quant: no memory for a row of %d columns", width);
}

void row_room_close(struct row_room *room)
{
    free(room->scales);
    free(room->seconds);
    free(room->wanted);
    free(room->rounded);
    free(room->row);
    free(room->codes);
    *room = (struct row_room){0};
}

float row_codes_tensor_scale(float largest)
{
    int exponent;
    frexpf(fmaxf(largest, smallest_scale) * widest_fp4 / fp4_highest / e4m3_highest, &exponent);
    return ldexpf(1, exponent);
}

/* --- One number ---------------------------------------------------------------------------------------- */

static inline float clamp(float value, float low, float high)
{
    value = value > low ? value : low;
    return value < high ? value : high;
}

/* The nearest level of FP4 to a size, as a code without its sign. */
static inline unsigned nearest_level(float size)
{
    return (unsigned)((size > 0.25f) + (size > 0.75f) + (size > 1.25f) + (size > 1.75f) + (size > 2.5f) +
                      (size > 3.5f) + (size > 5.0f));
}

static inline uint8_t nearest_code(enum weight_format format, float value, float scale, float second)
{
    if (format == WEIGHT_INT8)
        return (uint8_t)(int8_t)((clamp(value / scale, -INT8_HIGHEST, INT8_HIGHEST) + rounder) - rounder);
    if (format == WEIGHT_AWQ_INT4)
        return (uint8_t)((clamp(value / scale, -second, HIGHEST_CODE - second) + rounder) - rounder + second);
    return (uint8_t)(nearest_level(fabsf(value) / scale) | (value < 0 ? 8u : 0u));
}

/* --- Scales -------------------------------------------------------------------------------------------- */

/* What rounding to multiples of a scale, from `low` to `high` of them, costs, each input by itself. */
static float cost_integer(const float *values, const float *weights, int n, float scale, float low, float high)
{
    const float inverse = 1 / scale;
    float cost = 0;
    for (int i = 0; i < n; i++) {
        const float change = ((clamp(values[i] * inverse, low, high) + rounder) - rounder) * scale - values[i];
        cost += weights[i] * change * change;
    }
    return cost;
}

static float cost_fp4(const float *values, const float *weights, int n, float scale)
{
    const float inverse = 1 / scale;
    float cost = 0;
    for (int i = 0; i < n; i++) {
        const float size = fabsf(values[i]), change = fp4_to_float(nearest_level(size * inverse)) * scale - size;
        cost += weights[i] * change * change;
    }
    return cost;
}

static void choose_int4(const float *values, const float *weights, int n, bool clips, float *scale, float *zero)
{
    float low = 0, high = 0, least = INFINITY;
    for (int i = 0; i < n; i++) {
        low = fminf(low, values[i]);
        high = fmaxf(high, values[i]);
    }
    for (int shrink = 0; shrink < (clips ? SHRINKS : 1); shrink++) {
        const float part = 1 - (float)shrink * shrink_step;
        const float tried = bf16_to_float(float_to_bf16(fmaxf((high - low) * part / HIGHEST_CODE, smallest_scale)));
        const float middle = clamp(rintf(-low * part / tried), 0, HIGHEST_CODE);
        for (float z = middle - clips; z <= middle + clips; z++) {
            if (z < 0 || z > HIGHEST_CODE)
                continue;
            const float cost = cost_integer(values, weights, n, tried, -z, HIGHEST_CODE - z);
            if (cost < least) {
                least = cost;
                *scale = tried;
                *zero = z;
            }
        }
    }
}

static float choose_int8(const float *values, const float *weights, int n, bool clips)
{
    float largest = 0, least = INFINITY, best = 0;
    for (int i = 0; i < n; i++)
        largest = fmaxf(largest, fabsf(values[i]));
    for (int shrink = 0; shrink < (clips ? SHRINKS : 1); shrink++) {
        const float wanted = largest * (1 - (float)shrink * shrink_step_int8) / INT8_HIGHEST;
        const float tried = bf16_to_float(float_to_bf16(fmaxf(wanted, smallest_scale)));
        const float cost = cost_integer(values, weights, n, tried, -INT8_HIGHEST, INT8_HIGHEST);
        if (cost < least) {
            least = cost;
            best = tried;
        }
    }
    return best;
}

/* Among the E4M3 numbers that are worth trying. */
static float choose_fp4(const float *values, const float *weights, int n, unsigned ingredients, float tensor_scale)
{
    float largest = 0, least = INFINITY;
    for (int i = 0; i < n; i++)
        largest = fmaxf(largest, fabsf(values[i]));
    const float to_six = fmaxf(largest, smallest_scale) / fp4_highest / tensor_scale;
    uint8_t six = float_to_e4m3(to_six), four = float_to_e4m3(to_six * to_four), best;
    six = six > 0 ? six : 1;
    four = four > 0 ? four : 1;
    best = six;
    const bool clips = ingredients & WITH_CLIPPING;
    unsigned first = clips ? float_to_e4m3(to_six * narrowest_fp4) : six;
    const unsigned last = clips ? float_to_e4m3(to_six * widest_fp4) : ingredients & WITH_FOUR_OR_SIX ? four : six;
    for (first = first > 0 ? first : 1; first <= last; first++) {
        if (!clips && first != six && first != four)
            continue;
        if (!(ingredients & WITH_FOUR_OR_SIX) && first > six)
            break;
        const float cost = cost_fp4(values, weights, n, e4m3_to_float((uint8_t)first) * tensor_scale);
        if (cost < least) {
            least = cost;
            best = (uint8_t)first;
        }
    }
    return e4m3_to_float(best) * tensor_scale;
}

static void choose_scales(const struct row_rounding *r, const float *row, struct row_room *room)
{
    const int group = r->form.group;
    float weights[BLOCK];
    for (int g = 0; g * group < r->q->width; g++) {
        const float *values = row + g * group;
        float *many = group > BLOCK ? room->wanted : weights; /* not needed yet */
        for (int i = 0; i < group; i++) {
            const int column = g * group + i;
            many[i] = quadratic_row(r->q, column / BLOCK, column % BLOCK)[column % BLOCK];
        }
        room->seconds[g] = 0;
        if (r->form.format == WEIGHT_AWQ_INT4)
            choose_int4(values, many, group, r->ingredients & WITH_CLIPPING, &room->scales[g], &room->seconds[g]);
        else if (r->form.format == WEIGHT_INT8)
            room->scales[g] = choose_int8(values, many, group, r->ingredients & WITH_CLIPPING);
        else
            room->scales[g] = choose_fp4(values, many, group, r->ingredients, r->tensor_scale);
    }
}

/* --- Codes --------------------------------------------------------------------------------------------- */

static void put_code(const struct row_rounding *r, struct row_room *room, int column, float value)
{
    const int g = column / r->form.group;
    room->codes[column] = nearest_code(r->form.format, value, room->scales[g], room->seconds[g]);
    room->rounded[column] = code_value(r->form.format, room->codes[column], room->scales[g], room->seconds[g]);
}

/* With feedback: room->wanted is the row, and moves. */
static void round_block(const struct row_rounding *r, struct row_room *room, int block)
{
    const struct quadratic *q = r->q;
    const int first = block * BLOCK, columns = quadratic_columns(q, block);
    const uint8_t *order = q->order + (size_t)first;
    float wanted[BLOCK];
    for (int i = 0; i < columns; i++)
        wanted[i] = room->wanted[first + order[i]];
    for (int i = 0; i < columns; i++) {
        const float *feedback = q->feedback + ((size_t)first + (size_t)i) * BLOCK;
        put_code(r, room, first + order[i], wanted[i]);
        const float change = wanted[i] - room->rounded[first + order[i]];
        if (r->ingredients & WITH_FEEDBACK)
            for (int j = i + 1; j < columns; j++)
                wanted[j] -= change * feedback[j];
    }
}

/* What a block's change costs for each unit of each column's: slope = H change. */
static void slope_of(const struct quadratic *q, int block, const float *change, float *slope)
{
    const int columns = quadratic_columns(q, block);
    memset(slope, 0, sizeof(float) * BLOCK);
    for (int i = 0; i < columns; i++) {
        const float *row = quadratic_row(q, block, i);
        for (int j = 0; j < columns; j++)
            slope[j] += change[i] * row[j];
    }
}

/* Move each code to where the cost is least; whether any moved. */
static bool move_codes(const struct row_rounding *r, struct row_room *room, int block, float *slope)
{
    const int first = block * BLOCK, columns = quadratic_columns(r->q, block);
    bool moved = false;
    for (int i = 0; i < columns; i++) {
        const float *row = quadratic_row(r->q, block, i), before = room->rounded[first + i];
        if (!(row[i] > 0))
            continue;
        put_code(r, room, first + i, before - slope[i] / row[i]);
        const float step = room->rounded[first + i] - before;
        if (step == 0)
            continue;
        moved = true;
        for (int j = 0; j < columns; j++)
            slope[j] += step * row[j];
    }
    return moved;
}

/* Move the scale (AWQ's, INT8's) of each group in the block to where the cost is least. */
static void move_scales(const struct row_rounding *r, struct row_room *room, int block, float *slope)
{
    const int group = r->form.group, first = block * BLOCK, columns = quadratic_columns(r->q, block);
    for (int at = 0; at + group <= columns; at += group) {
        const int g = (first + at) / group;
        float steps[BLOCK], along[BLOCK] = {0}, down = 0, bend = 0;
        for (int i = 0; i < group; i++) {
            const float *row = quadratic_row(r->q, block, at + i);
            steps[i] = code_value(r->form.format, room->codes[first + at + i], 1, room->seconds[g]);
            down += steps[i] * slope[at + i];
            for (int j = 0; j < columns; j++)
                along[j] += steps[i] * row[j];
        }
        for (int i = 0; i < group; i++)
            bend += steps[i] * along[at + i];
        const float scale = bend > 0 ? bf16_to_float(float_to_bf16(room->scales[g] - down / bend)) : 0;
        if (!(scale > smallest_scale))
            continue;
        const float step = scale - room->scales[g];
        room->scales[g] = scale;
        for (int i = 0; i < group; i++)
            room->rounded[first + at + i] = steps[i] * scale;
        for (int j = 0; j < columns; j++)
            slope[j] += step * along[j];
    }
}

static void refine_block(const struct row_rounding *r, const float *row, struct row_room *room, int block)
{
    const int first = block * BLOCK, columns = quadratic_columns(r->q, block);
    const bool scales = r->form.format != WEIGHT_NVFP4 && BLOCK % r->form.group == 0;
    float change[BLOCK], slope[BLOCK];
    for (int i = 0; i < columns; i++)
        change[i] = room->rounded[first + i] - row[first + i];
    slope_of(r->q, block, change, slope);
    for (int sweep = 0; sweep < SWEEPS; sweep++) {
        if (scales)
            move_scales(r, room, block, slope);
        if (!move_codes(r, room, block, slope))
            break;
    }
}

void row_codes(const struct row_rounding *rounding, const float *row, struct row_room *room, const struct code_row *out)
{
    const struct code_form form = rounding->form;
    const int width = rounding->q->width;
    choose_scales(rounding, row, room);
    memcpy(room->wanted, row, sizeof *row * (size_t)width);
    for (int block = 0; block < rounding->q->blocks; block++) {
        round_block(rounding, room, block);
        if (rounding->ingredients & WITH_REFINEMENT)
            refine_block(rounding, row, room, block);
    }
    if (!out)
        return;
    if (form.format == WEIGHT_INT8)
        memcpy(out->codes, room->codes, (size_t)width);
    for (int i = 0; form.format != WEIGHT_INT8 && i < width; i++)
        code_put(out->codes, (size_t)i, room->codes[i]);
    for (int g = 0; g * form.group < width; g++) {
        out->scales[g] = float_to_bf16(room->scales[g]);
        if (out->second)
            out->second[g] = form.format == WEIGHT_AWQ_INT4
                                 ? (uint8_t)room->seconds[g]
                                 : float_to_e4m3(room->scales[g] / rounding->tensor_scale);
    }
}
