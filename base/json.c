/* json.c: see json.h. */
#include "base/json.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json_print.h"
#include "base/utf8.h"

enum {
    MAX_NESTING = 100,
    MAX_SHOWN_NAME = 60, /* bytes of a member's name in a message */
    INCOMPLETE = 1 /* in an object's or array's valueint, which cJSON has no use for */
};

/* From here on a double may stand for a neighbour that was written: 2^53 + 1 reads as 2^53. */
static const double first_ambiguous = 0x1p53;

/* cJSON prints 15 digits and takes a neighbouring double for the same number. */
static const uint64_t first_misprinted = UINT64_C(1000000000000000);

/* --- Reading -------------------------------------------------------------------------- */

/* cJSON's parser does not say whether memory ran out; its allocator does. */
static _Thread_local bool ran_out;

static void *allocate(size_t bytes)
{
    void *memory = malloc(bytes);
    ran_out |= !memory;
    return memory;
}

/* Before there is a second thread. */
__attribute__((constructor)) static void use_allocator(void)
{
    cJSON_InitHooks(&(cJSON_Hooks){allocate, free});
}

/* Where the text of a member's name lies, between its quotes; NULL: none. */
struct member {
    const char *name;
    size_t bytes;
};

static int refuse_nul(const struct member *member, size_t at, const struct json_limits *limits, const char *what,
                      struct error *error)
{
    if (!member->name || !utf8_is_valid(member->name, member->bytes))
        return error_set(error, limits->bad, "%s: a NUL character at byte %zu", what, at);
    return error_set(error, limits->bad, "%s: a NUL character at byte %zu, in \"%.*s\"", what, at,
                     (int)(member->bytes < MAX_SHOWN_NAME ? member->bytes : MAX_SHOWN_NAME), member->name);
}

/* Bound what the parser will allocate, and refuse what it would misread. */
static int scan(const char *text, size_t bytes, const struct json_limits *limits, const char *what, struct error *error)
{
    bool in_string = false;
    size_t values = 1, depth = 0;
    struct member string = {0}, member = {0}; /* the latest string; the member whose value this is */
    for (size_t i = 0; i < bytes; i++) {
        const char c = text[i];
        if (in_string && c != '"' && c != '\\' && c != '\0')
            continue;
        if (c == '\0' || (in_string && c == '\\' && bytes - i > 5 && memcmp(text + i + 1, "u0000", 5) == 0))
            return refuse_nul(&member, i, limits, what, error);
        if (in_string && c == '\\')
            i++;
        else if (c == '"') {
            if (in_string)
                string.bytes = (size_t)(text + i - string.name);
            else
                string.name = text + i + 1;
            in_string = !in_string;
        } else if (c == ':')
            member = string;
        else if (c == '{' || c == '[') {
            values++;
            if (++depth > MAX_NESTING)
                return error_set(error, limits->bad, "%s: nested more than %d levels deep at byte %zu", what,
                                 MAX_NESTING, i);
            if (c == '{')
                member = (struct member){0};
        } else if (c == '}' || c == ']')
            depth -= depth > 0;
        else if (c == ',') {
            values++;
            member = (struct member){0};
        }
        if (values > limits->values)
            return error_set(error, limits->over, "%s: more than %zu JSON values", what, limits->values);
    }
    if (!utf8_is_valid(text, bytes))
        return error_set(error, limits->bad, "%s: not valid UTF-8", what);
    return 0;
}

int json_parse(cJSON **out, const char *text, size_t bytes, const struct json_limits *limits, const char *what,
               struct error *error)
{
    *out = NULL;
    if (bytes > limits->bytes)
        return error_set(error, limits->over, "%s: %zu bytes; at most %zu are accepted", what, bytes, limits->bytes);
    int code = scan(text, bytes, limits, what, error);
    if (code != 0)
        return code;
    /* A terminated copy: cJSON before 1.7.18 can look one byte past a length-limited buffer. */
    char *copy = malloc(bytes + 1);
    if (!copy)
        return error_set(error, ERROR_NO_MEMORY, "%s: out of memory", what);
    if (bytes > 0)
        memcpy(copy, text, bytes);
    copy[bytes] = '\0';
    const char *end = copy;
    ran_out = false;
    *out = cJSON_ParseWithOpts(copy, &end, true);
    if (!*out && ran_out)
        code = error_set(error, ERROR_NO_MEMORY, "%s: out of memory", what);
    else if (!*out && *end == '\0')
        code = error_set(error, limits->bad, "%s: not valid JSON: cut off at byte %zu", what, bytes);
    else if (!*out)
        code = error_set(error, limits->bad, "%s: not valid JSON at byte %zu of %zu (\"%.24s\")", what,
                         (size_t)(end - copy), bytes, end);
    free(copy);
    return code;
}

const char *json_text(const cJSON *object, const char *name)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
}

double json_number(const cJSON *object, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    return cJSON_IsNumber(item) ? item->valuedouble : 0.0;
}

bool json_uint64(const cJSON *item, uint64_t *value)
{
    if (cJSON_IsNumber(item)) {
        double number = item->valuedouble;
        if (!(number >= 0 && number < first_ambiguous) || number != (double)(uint64_t)number)
            return false;
        *value = (uint64_t)number;
        return true;
    }
    const char *digits = cJSON_GetStringValue(item);
    if (!digits || digits[0] == '\0')
        return false;
    uint64_t sum = 0;
    for (; *digits != '\0'; digits++) {
        if (!isdigit((unsigned char)*digits))
            return false;
        unsigned digit = (unsigned)(*digits - '0');
        if (sum > (UINT64_MAX - digit) / 10)
            return false;
        sum = sum * 10 + digit;
    }
    *value = sum;
    return true;
}

/* --- Making --------------------------------------------------------------------------- */

static void note_incomplete(cJSON *tree)
{
    tree->valueint = INCOMPLETE;
}

cJSON *json_object(void)
{
    return cJSON_CreateObject();
}

cJSON *json_array(void)
{
    return cJSON_CreateArray();
}

/* Returns the item, or NULL when it is not there. */
static cJSON *add(cJSON *object, const char *name, cJSON *item)
{
    if (object && item && cJSON_AddItemToObject(object, name, item))
        return item;
    cJSON_Delete(item);
    if (object)
        note_incomplete(object);
    return NULL;
}

void json_add(cJSON *object, const char *name, cJSON *item)
{
    add(object, name, item);
}

void json_replace(cJSON *object, const char *name, cJSON *item)
{
    cJSON_DeleteItemFromObjectCaseSensitive(object, name);
    add(object, name, item);
}

void json_append(cJSON *array, cJSON *item)
{
    if (array && item && cJSON_AddItemToArray(array, item))
        return;
    cJSON_Delete(item);
    if (array)
        note_incomplete(array);
}

void json_append_text(cJSON *array, const char *text)
{
    json_append(array, json_from_text(text));
}

void json_append_number(cJSON *array, double number)
{
    json_append(array, json_from_number(number));
}

void json_add_text(cJSON *object, const char *name, const char *text)
{
    json_add(object, name, json_from_text(text));
}

void json_add_number(cJSON *object, const char *name, double number)
{
    json_add(object, name, json_from_number(number));
}

void json_add_bool(cJSON *object, const char *name, bool value)
{
    json_add(object, name, json_from_bool(value));
}

void json_add_null(cJSON *object, const char *name)
{
    json_add(object, name, json_null());
}

cJSON *json_add_object(cJSON *object, const char *name)
{
    return add(object, name, json_object());
}

cJSON *json_add_array(cJSON *object, const char *name)
{
    return add(object, name, json_array());
}

cJSON *json_from_text(const char *text)
{
    return text ? cJSON_CreateString(text) : json_null();
}

cJSON *json_from_number(double number)
{
    return cJSON_CreateNumber(number);
}

cJSON *json_from_digits(const char *digits)
{
    return cJSON_CreateRaw(digits);
}

cJSON *json_from_bool(bool value)
{
    return cJSON_CreateBool(value);
}

cJSON *json_null(void)
{
    return cJSON_CreateNull();
}

cJSON *json_from_numbers(const double *numbers, int count)
{
    return cJSON_CreateDoubleArray(numbers, count);
}

cJSON *json_from_ints(const int *numbers, int count)
{
    return cJSON_CreateIntArray(numbers, count);
}

cJSON *json_from_uint64(uint64_t value)
{
    if (value < first_misprinted)
        return json_from_number((double)value);
    char digits[24];
    snprintf(digits, sizeof digits, "%llu", (unsigned long long)value);
    return json_from_text(digits);
}

bool json_is_complete(const cJSON *tree)
{
    if (!tree)
        return false;
    if (!cJSON_IsObject(tree) && !cJSON_IsArray(tree))
        return true;
    bool is_complete = tree->valueint != INCOMPLETE;
    for (const cJSON *item = tree->child; is_complete && item; item = item->next)
        is_complete = json_is_complete(item);
    return is_complete;
}

char *json_print(const cJSON *tree)
{
    return json_is_complete(tree) ? json_one_line(tree) : NULL;
}

char *json_print_indented(const cJSON *tree)
{
    return json_is_complete(tree) ? cJSON_Print(tree) : NULL;
}
