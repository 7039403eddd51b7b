/* json_print.h: a tree of JSON as text, for json.c. Everybody else has json_print (json.h). */
#ifndef LANCE_JSON_PRINT_H
#define LANCE_JSON_PRINT_H

#include <cjson/cJSON.h>

/* The text of a tree that was made whole, on one line, which the caller gives to cJSON_free. NULL: out of memory. */
char *json_one_line(const cJSON *tree);

#endif
