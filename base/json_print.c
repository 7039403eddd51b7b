/* json_print.c: see json_print.h.
 *
 * The same text as cJSON's own printer makes, which prints and reads back every number: that was two fifths of what
 * lanced did for a small request. Here whole numbers are written as they are, and only others take that way.
 */
#include "base/json_print.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_BYTES = 512, NUMBER_BYTES = 32, ESCAPED_BYTES = 6 };

static const double most_digits = 1e15; /* below this a whole number has no more digits than "%.15g" prints */

/* Text that grows. */
struct text {
    char *bytes; /* of cJSON_malloc; NULL: memory ran out */
    size_t length, room;
};

/* Room for so many bytes more, which the caller writes there; NULL: out of memory. */
static char *grow(struct text *text, size_t more)
{
    if (text->bytes && text->room - text->length < more) {
        const size_t room = 2 * text->room + more;
        char *bytes = cJSON_malloc(room);
        if (bytes)
            memcpy(bytes, text->bytes, text->length);
        cJSON_free(text->bytes);
        text->bytes = bytes;
        text->room = room;
    }
    if (!text->bytes)
        return NULL;
    char *end = text->bytes + text->length;
    text->length += more;
    return end;
}

static void put(struct text *text, const char *bytes, size_t count)
{
    char *to = grow(text, count);
    if (to && count > 0)
        memcpy(to, bytes, count);
}

static void put_character(struct text *text, char character)
{
    put(text, &character, 1);
}

static bool is_plain(unsigned char character)
{
    return character >= 0x20 && character != '"' && character != '\\';
}

static void put_escaped(struct text *text, char character)
{
    static const char named[] = "\"\\\b\f\n\r\t", names[] = "\"\\bfnrt";
    const char *found = strchr(named, character);
    if (found) {
        put(text, (char[]){'\\', names[found - named]}, 2);
        return;
    }
    char escaped[ESCAPED_BYTES + 1];
    snprintf(escaped, sizeof escaped, "\\u%04x", (unsigned)(unsigned char)character);
    put(text, escaped, ESCAPED_BYTES);
}

static void put_string(struct text *text, const char *string)
{
    put_character(text, '"');
    while (*string != '\0') {
        size_t plain = 0;
        while (is_plain((unsigned char)string[plain]))
            plain++;
        put(text, string, plain);
        string += plain;
        if (*string != '\0')
            put_escaped(text, *string++);
    }
    put_character(text, '"');
}

static void put_whole(struct text *text, int64_t number)
{
    char digits[NUMBER_BYTES];
    size_t at = sizeof digits;
    for (int64_t left = number < 0 ? -number : number; left > 0 || at == sizeof digits; left /= 10)
        digits[--at] = (char)('0' + left % 10);
    if (number < 0)
        digits[--at] = '-';
    put(text, digits + at, sizeof digits - at);
}

/* With 15 digits, or 17 where those are another number. */
static void put_fraction(struct text *text, double number)
{
    char digits[NUMBER_BYTES];
    snprintf(digits, sizeof digits, "%1.15g", number);
    const double again = strtod(digits, NULL);
    if (fabs(again - number) > fmax(fabs(again), fabs(number)) * DBL_EPSILON)
        snprintf(digits, sizeof digits, "%1.17g", number);
    put(text, digits, strlen(digits));
}

static void put_number(struct text *text, double number)
{
    if (!isfinite(number))
        put(text, "null", 4);
    else if (fabs(number) < most_digits && number == (double)(int64_t)number && !(number == 0 && signbit(number)))
        put_whole(text, (int64_t)number);
    else
        put_fraction(text, number);
}

static void put_value(struct text *text, const cJSON *value);

static void put_items(struct text *text, const cJSON *tree)
{
    const bool is_object = cJSON_IsObject(tree);
    put_character(text, is_object ? '{' : '[');
    for (const cJSON *item = tree->child; item; item = item->next) {
        if (item != tree->child)
            put_character(text, ',');
        if (is_object) {
            put_string(text, item->string);
            put_character(text, ':');
        }
        put_value(text, item);
    }
    put_character(text, is_object ? '}' : ']');
}

static void put_value(struct text *text, const cJSON *value)
{
    if (cJSON_IsObject(value) || cJSON_IsArray(value))
        put_items(text, value);
    else if (cJSON_IsString(value))
        put_string(text, value->valuestring);
    else if (cJSON_IsNumber(value))
        put_number(text, value->valuedouble);
    else if (cJSON_IsRaw(value))
        put(text, value->valuestring, strlen(value->valuestring));
    else if (cJSON_IsBool(value))
        put(text, cJSON_IsTrue(value) ? "true" : "false", cJSON_IsTrue(value) ? 4 : 5);
    else
        put(text, "null", 4);
}

char *json_one_line(const cJSON *tree)
{
    struct text text = {.bytes = cJSON_malloc(FIRST_BYTES), .room = FIRST_BYTES};
    put_value(&text, tree);
    put_character(&text, '\0');
    return text.bytes;
}
