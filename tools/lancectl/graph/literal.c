/* literal.c: see literal.h. */
#include "tools/lancectl/graph/literal.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "tools/lancectl/read_number.h"

/* Digits with a sign before them and white space around them. */
static bool read_whole(struct whole *out, const char *text)
{
    while (isspace((unsigned char)*text))
        text++;
    out->is_negative = *text == '-';
    text += *text == '-' || *text == '+';
    if (!isdigit((unsigned char)*text))
        return false;
    char *end;
    errno = 0;
    out->magnitude = strtoull(text, &end, 10);
    while (isspace((unsigned char)*end))
        end++;
    return !*end && !errno;
}

static bool whole_of_number(struct whole *out, double number)
{
    *out = (struct whole){.is_negative = number <= -1, .magnitude = 0};
    if (!(fabs(number) < 0x1p64))
        return false;
    out->magnitude = (uint64_t)fabs(number);
    return true;
}

static bool is_in_range(const struct value *value, const struct node_input *input)
{
    const cJSON *minimum = cJSON_GetObjectItemCaseSensitive(input->entry, "minimum");
    const cJSON *maximum = cJSON_GetObjectItemCaseSensitive(input->entry, "maximum");
    const double number = value_number(value);
    return isfinite(number) && (!cJSON_IsNumber(minimum) || number >= minimum->valuedouble) &&
           (!cJSON_IsNumber(maximum) || number <= maximum->valuedouble);
}

static int check_range(const struct value *value, const struct node_input *input, struct error *error)
{
    const cJSON *minimum = cJSON_GetObjectItemCaseSensitive(input->entry, "minimum");
    const cJSON *maximum = cJSON_GetObjectItemCaseSensitive(input->entry, "maximum");
    const cJSON *step = cJSON_GetObjectItemCaseSensitive(input->entry, "multiple_of");
    if (!is_in_range(value, input))
        return error_set(error, ERROR_BAD_REQUEST, "is %.10g; %.10g to %.10g are accepted", value_number(value),
                         minimum ? minimum->valuedouble : -INFINITY, maximum ? maximum->valuedouble : INFINITY);
    if (step && fmod(value_number(value), step->valuedouble) != 0)
        return error_set(error, ERROR_BAD_REQUEST, "is %.10g, no multiple of %d", value_number(value), step->valueint);
    return 0;
}

static int check_choice(const char *text, const struct node_input *input, struct error *error)
{
    const cJSON *choices = cJSON_GetObjectItemCaseSensitive(input->entry, "choices"), *choice;
    char listed[300] = "";
    size_t used = 0;
    cJSON_ArrayForEach(choice, choices) {
        if (!strcmp(choice->valuestring, text))
            return 0;
        if (used < sizeof listed)
            used +=
                (size_t)snprintf(listed + used, sizeof listed - used, "%s%s", used ? ", " : "", choice->valuestring);
    }
    return choices ? error_set(error, ERROR_BAD_REQUEST, "\"%.80s\" is none of %s", text, listed) : 0;
}

/* As a number of the kind that is wanted; a text's, a flag's or another number's. */
static int to_number(struct value *out, const struct value *from, bool is_whole, struct error *error)
{
    const char *end;
    bool fits = true;
    if (is_whole) {
        out->kind = VALUE_WHOLE;
        if (from->kind == VALUE_TEXT)
            fits = read_whole(&out->whole, from->text);
        else if (from->kind == VALUE_WHOLE)
            out->whole = from->whole;
        else
            fits = whole_of_number(&out->whole, value_number(from));
    } else {
        out->kind = VALUE_NUMBER;
        out->number = from->kind == VALUE_TEXT ? 0 : value_number(from);
        if (from->kind == VALUE_TEXT)
            fits = read_number(from->text, &out->number, &end) && !*end;
    }
    if (fits)
        return 0;
    char *text = value_print(from);
    const int code = error_set(error, ERROR_BAD_REQUEST, "\"%.80s\" is no %s", text ? text : "",
                               is_whole ? "whole number" : "number");
    free(text);
    return code;
}

int literal_convert(struct value **out, struct value *value, const struct node_input *input, struct error *error)
{
    *out = NULL;
    const char *type = input->type;
    const bool is_whole = !strcmp(type, "INT"), is_number = is_whole || !strcmp(type, "FLOAT");
    const bool is_text = !strcmp(type, "STRING") || !strcmp(type, "COMBO");
    if (value->kind > VALUE_FLAG || !(is_number || is_text || !strcmp(type, "BOOLEAN"))) {
        *out = value_hold(value);
        return 0;
    }
    struct value *made = value_new(VALUE_NOTHING);
    if (!made)
        return error_set(error, ERROR_NO_MEMORY, "no memory");
    int code = 0;
    if (is_number) {
        code = to_number(made, value, is_whole, error);
        if (!code)
            code = check_range(made, input, error);
    } else if (is_text) {
        made->kind = VALUE_TEXT;
        made->text = value_print(value);
        code = made->text ? check_choice(made->text, input, error) : error_set(error, ERROR_NO_MEMORY, "no memory");
    } else if (value->kind == VALUE_TEXT) {
        code = error_set(error, ERROR_BAD_REQUEST, "\"%.80s\" is neither true nor false", value->text);
    } else {
        made->kind = VALUE_FLAG;
        made->flag = value_number(value) != 0;
    }
    if (code)
        value_release(made);
    else
        *out = made;
    return code;
}

/* What stands there, of its own kind. */
static int read_item(struct value **out, const cJSON *item, struct error *error)
{
    struct value *value = NULL;
    if (cJSON_IsString(item)) {
        value = value_of_text(item->valuestring);
    } else if (cJSON_IsNumber(item)) {
        value = value_of_number(item->valuedouble);
        if (value && item->valuedouble == floor(item->valuedouble) && whole_of_number(&value->whole, item->valuedouble))
            value->kind = VALUE_WHOLE;
    } else if (cJSON_IsRaw(item)) { /* a number with more digits than a double keeps */
        const char *end;
        value = value_of_number(0);
        if (value && read_whole(&value->whole, item->valuestring))
            value->kind = VALUE_WHOLE;
        else if (value && !(read_number(item->valuestring, &value->number, &end) && !*end)) {
            value_release(value);
            return error_set(error, ERROR_BAD_REQUEST, "%.80s is no number", item->valuestring);
        }
    } else if (cJSON_IsBool(item)) {
        value = value_new(VALUE_FLAG);
        if (value)
            value->flag = cJSON_IsTrue(item);
    } else {
        return error_set(error, ERROR_BAD_REQUEST, "is neither a text nor a number nor a link");
    }
    *out = value;
    return value ? 0 : error_set(error, ERROR_NO_MEMORY, "no memory");
}

int literal_read(struct value **out, const cJSON *item, const struct node_input *input, struct error *error)
{
    *out = NULL;
    if (node_type_is_linked(input->type))
        return error_set(error, ERROR_BAD_REQUEST, "has to be linked to something that gives %s", input->type);
    struct value *value;
    int code = read_item(&value, item, error);
    if (!code) {
        code = literal_convert(out, value, input, error);
        value_release(value);
    }
    return code;
}
