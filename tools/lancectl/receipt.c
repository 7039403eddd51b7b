/* receipt.c: see receipt.h. */
#include "tools/lancectl/receipt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "protocol/message.h"

char *receipt_escape(const char *json)
{
    size_t length = strlen(json);
    char *escaped = malloc(6 * length + 1); /* at worst every byte is its own invalid character */
    if (!escaped)
        return NULL;
    char *end = escaped;
    while (*json) {
        utf8proc_int32_t character;
        utf8proc_ssize_t used = utf8proc_iterate((const utf8proc_uint8_t *)json, -1, &character);
        if (used <= 0) {
            used = 1;
            character = 0xfffd;
        }
        json += used;
        if (character < 0x80)
            *end++ = (char)character;
        else if (character < 0x10000)
            end += sprintf(end, "\\u%04x", (unsigned)character);
        else
            end += sprintf(end, "\\u%04x\\u%04x", 0xd7c0 + (unsigned)(character >> 10),
                           0xdc00 + (unsigned)(character & 0x3ff));
    }
    *end = '\0';
    return escaped;
}

char *receipt_of_picture(const cJSON *result, int index)
{
    const cJSON *given = cJSON_GetObjectItemCaseSensitive(result, "receipt");
    cJSON *receipt = cJSON_IsObject(given) ? cJSON_Duplicate(given, true) : json_object();
    char *escaped = NULL;
    uint64_t seed;
    if (json_uint64(cJSON_GetObjectItemCaseSensitive(result, "seed"), &seed)) {
        cJSON_DeleteItemFromObjectCaseSensitive(receipt, "seed");
        json_add(receipt, "seed", json_from_uint64(seed + (uint64_t)index));
    }
    json_add_number(receipt, "batch_index", index);
    char *json = json_print(receipt);
    if (json)
        escaped = receipt_escape(json);
    cJSON_free(json);
    cJSON_Delete(receipt);
    return escaped;
}
