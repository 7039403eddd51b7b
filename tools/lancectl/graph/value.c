/* value.c: see value.h. */
#include "tools/lancectl/graph/value.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct value *value_new(enum value_kind kind)
{
    struct value *value = calloc(1, sizeof *value);
    if (value)
        *value = (struct value){.kind = kind, .holders = 1};
    return value;
}

struct value *value_of_text(const char *text)
{
    struct value *value = value_new(VALUE_TEXT);
    if (value && !(value->text = strdup(text))) {
        value_release(value);
        return NULL;
    }
    return value;
}

struct value *value_of_number(double number)
{
    struct value *value = value_new(VALUE_NUMBER);
    if (value)
        value->number = number;
    return value;
}

struct value *value_hold(struct value *value)
{
    value->holders++;
    return value;
}

static void pictures_close(struct pictures *pictures)
{
    for (int i = 0; pictures->receipts && i < pictures->count; i++)
        free(pictures->receipts[i]);
    free(pictures->receipts);
    free(pictures->bytes);
    free(pictures->floats);
}

void value_release(struct value *value)
{
    if (!value || --value->holders > 0)
        return;
    pictures_close(&value->pictures);
    free(value->latent.samples);
    free(value->latent.state);
    free(value->latent.noise_places);
    free(value->latent.receipt);
    free(value->text);
    value_release(value->sound);
    free(value);
}

const char *value_kind_name(enum value_kind kind)
{
    static const char *const names[] = {
        [VALUE_NOTHING] = "nothing", [VALUE_TEXT] = "STRING", [VALUE_WHOLE] = "INT", [VALUE_NUMBER] = "FLOAT",
        [VALUE_FLAG] = "BOOLEAN", [VALUE_IMAGE] = "IMAGE", [VALUE_MASK] = "MASK", [VALUE_VIDEO] = "VIDEO",
        [VALUE_AUDIO] = "AUDIO", [VALUE_LATENT] = "LATENT", [VALUE_MODEL] = "LANCED_MODEL"};
    return names[kind];
}

double value_number(const struct value *value)
{
    if (value->kind == VALUE_NUMBER)
        return value->number;
    if (value->kind == VALUE_FLAG)
        return value->flag;
    const double magnitude = (double)value->whole.magnitude;
    return value->whole.is_negative ? -magnitude : magnitude;
}

/* The shortest digits that stand for the number, with a point or an exponent. */
static char *print_number(double number)
{
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, number);
        if (strtod(text, NULL) == number)
            break;
    }
    char *printed;
    return asprintf(&printed, "%s%s", text, strpbrk(text, ".en") ? "" : ".0") < 0 ? NULL : printed;
}

char *value_print(const struct value *value)
{
    char *printed;
    switch (value->kind) {
    case VALUE_TEXT: return strdup(value->text);
    case VALUE_FLAG: return strdup(value->flag ? "True" : "False");
    case VALUE_NUMBER: return print_number(value->number);
    case VALUE_WHOLE:
        return asprintf(&printed, "%s%llu", value->whole.is_negative ? "-" : "",
                        (unsigned long long)value->whole.magnitude) < 0
                   ? NULL
                   : printed;
    default: return strdup("None");
    }
}

/* ---- Pictures ---- */

static size_t picture_values(const struct pictures *pictures)
{
    return 3 * (size_t)pictures->height * (size_t)pictures->width;
}

int pictures_open(struct pictures *out, int count, int height, int width, bool are_floats, struct error *error)
{
    const double limit = 64.0 * (1u << 30);
    *out = (struct pictures){.count = count, .height = height, .width = width};
    if (3.0 * count * height * width > limit)
        return error_set(error, ERROR_TOO_LARGE, "%d pictures of %d x %d pixels are too much", count, width, height);
    const size_t values = (size_t)count * picture_values(out);
    if (are_floats)
        out->floats = malloc(values * sizeof *out->floats + 1);
    else
        out->bytes = malloc(values + 1);
    return out->floats || out->bytes
               ? 0
               : error_set(error, ERROR_NO_MEMORY, "no memory for %d pictures of %d x %d pixels", count, width, height);
}

const char *pictures_receipt(const struct pictures *of, int index)
{
    return of->receipts ? of->receipts[index] : NULL;
}

static int copy_receipts(struct pictures *out, int at, const struct pictures *of, int first, int count,
                         struct error *error)
{
    if (!of->receipts)
        return 0;
    if (!out->receipts)
        out->receipts = calloc((size_t)out->count, sizeof *out->receipts);
    for (int i = 0; out->receipts && i < count; i++)
        if (of->receipts[first + i] && !(out->receipts[at + i] = strdup(of->receipts[first + i])))
            return error_set(error, ERROR_NO_MEMORY, "no memory for receipts");
    return out->receipts ? 0 : error_set(error, ERROR_NO_MEMORY, "no memory for receipts");
}

static void copy_pictures(struct pictures *out, int at, const struct pictures *of, int first, int count)
{
    const size_t one = picture_values(of), values = (size_t)count * one;
    const size_t from = (size_t)first * one, to = (size_t)at * one;
    if (out->bytes)
        memcpy(out->bytes + to, of->bytes + from, values);
    else if (of->floats)
        memcpy(out->floats + to, of->floats + from, values * sizeof *out->floats);
    else
        for (size_t i = 0; i < values; i++)
            out->floats[to + i] = (float)of->bytes[from + i] / 255.0f;
}

int pictures_part(struct pictures *out, const struct pictures *of, int first, int count, struct error *error)
{
    int code = pictures_open(out, count, of->height, of->width, of->floats != NULL, error);
    if (code)
        return code;
    copy_pictures(out, 0, of, first, count);
    return copy_receipts(out, 0, of, first, count, error);
}

int pictures_join(struct pictures *out, const struct pictures *const *parts, int count, struct error *error)
{
    bool are_floats = false;
    double total = 0;
    for (int i = 0; i < count; i++) {
        are_floats = are_floats || parts[i]->floats;
        total += parts[i]->count;
        if (parts[i]->height != parts[0]->height || parts[i]->width != parts[0]->width)
            return error_set(error, ERROR_BAD_REQUEST,
                             "pictures of %d x %d and of %d x %d pixels do not go into one batch", parts[0]->width,
                             parts[0]->height, parts[i]->width, parts[i]->height);
    }
    if (total > INT32_MAX)
        return error_set(error, ERROR_TOO_LARGE, "%.0f pictures are too much", total);
    int code = pictures_open(out, (int)total, parts[0]->height, parts[0]->width, are_floats, error);
    for (int i = 0, at = 0; !code && i < count; at += parts[i++]->count) {
        copy_pictures(out, at, parts[i], 0, parts[i]->count);
        code = copy_receipts(out, at, parts[i], 0, parts[i]->count, error);
    }
    return code;
}

int pictures_bytes(const uint8_t **bytes, uint8_t **owned, const struct pictures *of, int first, int count, bool rounds,
                   struct error *error)
{
    const size_t one = picture_values(of), values = (size_t)count * one, from = (size_t)first * one;
    *owned = NULL;
    if (of->bytes) {
        *bytes = of->bytes + from;
        return 0;
    }
    uint8_t *made = malloc(values + 1);
    if (!made)
        return error_set(error, ERROR_NO_MEMORY, "no memory for %d pictures of %d x %d pixels", count, of->width,
                         of->height);
    for (size_t i = 0; i < values; i++) {
        const float value = of->floats[from + i];
        if (!isfinite(value)) {
            free(made);
            return error_set(error, ERROR_BAD_REQUEST, "the pictures have values that are no finite numbers");
        }
        const float scaled = fminf(fmaxf(rounds ? fminf(fmaxf(value, 0), 1) * 255.0f : value * 255.0f, 0), 255);
        made[i] = (uint8_t)(rounds ? rintf(scaled) : scaled);
    }
    *bytes = *owned = made;
    return 0;
}

size_t latent_values(const struct latent *latent)
{
    size_t values = 1;
    for (int i = 0; i < LATENT_DIMENSIONS; i++)
        values *= (size_t)latent->shape[i];
    return values;
}
