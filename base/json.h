/* json.h: JSON as lanced reads and makes it, with cJSON.
 *
 * Reading: every text comes from outside, so it is bounded before it is parsed, and memory that ran out is told
 * apart from a text that is wrong.
 * Making: whatever is added may run out of memory. An object or array that something could not be added to
 * remembers it, so that only the end has to look: json_print and json_is_complete go through the whole tree.
 *
 * No state of its own beyond a value in progress; any thread may call anything here.
 */
#ifndef LANCE_JSON_H
#define LANCE_JSON_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* --- Reading -------------------------------------------------------------------------- */

/* What a text may be at most, and the codes for one that is more and for one that is no JSON. */
struct json_limits {
    size_t bytes;
    size_t values; /* each takes 64 bytes beside its text */
    int over, bad;
};

/* Parse `bytes` bytes, which need no terminator, into a tree that the caller gives to cJSON_Delete. `what` names the
 * text in messages. Refused too: text that is not UTF-8, NUL characters (cJSON ends a string at one without a word),
 * and more than 100 levels of nesting. Errors: the codes of `limits`; ERROR_NO_MEMORY. */
int json_parse(cJSON **out, const char *text, size_t bytes, const struct json_limits *limits, const char *what,
               struct error *error);

/* The string at `name`, or NULL when it is missing or no string. Belongs to the object. */
const char *json_text(const cJSON *object, const char *name);

/* The number at `name`, or 0 when it is missing or no number. */
double json_number(const cJSON *object, const char *name);

/* A whole number: a JSON number from 0 to 2^53 - 1, or a string of decimal digits up to 2^64-1
 * (most JSON libraries keep numbers as doubles, which tell neighbours apart only so far).
 * Returns whether `item` is one. */
bool json_uint64(const cJSON *item, uint64_t *value);

/* --- Making --------------------------------------------------------------------------- */
/* An `object` or `array` of NULL is one that could not be made: what is added to it is let go. */

cJSON *json_object(void); /* NULL: out of memory */
cJSON *json_array(void);

/* Add an item, which belongs to the tree from now on. NULL: it could not be made. */
void json_add(cJSON *object, const char *name, cJSON *item);
void json_replace(cJSON *object, const char *name, cJSON *item); /* the same in the place of what is there */
void json_append(cJSON *array, cJSON *item);

void json_append_text(cJSON *array, const char *text);
void json_append_number(cJSON *array, double number);

void json_add_text(cJSON *object, const char *name, const char *text); /* null for NULL */
void json_add_number(cJSON *object, const char *name, double number);
void json_add_bool(cJSON *object, const char *name, bool value);
void json_add_null(cJSON *object, const char *name);
cJSON *json_add_object(cJSON *object, const char *name); /* belongs to `object`; NULL: out of memory */
cJSON *json_add_array(cJSON *object, const char *name);

/* Items to be added. NULL: out of memory. */
cJSON *json_from_text(const char *text); /* null for NULL */
cJSON *json_from_number(double number);
cJSON *json_from_digits(const char *digits); /* a number that is printed as it is written here */
cJSON *json_from_bool(bool value);
cJSON *json_null(void);
cJSON *json_from_numbers(const double *numbers, int count);
cJSON *json_from_ints(const int *numbers, int count);
cJSON *json_from_uint64(uint64_t value); /* a JSON number below 10^15, from there on decimal digits, for json_uint64 */

/* Whether the tree was made and nothing that was added is missing from it. */
bool json_is_complete(const cJSON *tree);

/* The tree as text, on one line or on many, which the caller gives to cJSON_free. NULL: out of memory, now or while it
 * was made. */
char *json_print(const cJSON *tree);
char *json_print_indented(const cJSON *tree);

#endif
