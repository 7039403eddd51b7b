/* nfc.c: see nfc.h. utf8proc decomposes and composes; between the two, marks have to be
 * put in order of their combining class, which utf8proc_map does in quadratic time for
 * long runs of marks. So that no text can take minutes, the runs are sorted here. */
#include "daemon/engine/model/tokenizer/nfc.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { MAX_DECOMPOSITION = 4 }; /* code points that one canonically decomposes into, at most */

static int combining_class(int32_t character)
{
    return utf8proc_get_property(character)->combining_class;
}

/* Stable counting sort of a run of marks by combining class; `spare` holds as many. */
static void sort_marks(int32_t *marks, size_t count, int32_t *spare)
{
    size_t starts[257] = {0};
    for (size_t i = 0; i < count; i++)
        starts[combining_class(marks[i]) + 1]++;
    for (int class = 0; class < 256; class++)
        starts[class + 1] += starts[class];
    for (size_t i = 0; i < count; i++)
        spare[starts[combining_class(marks[i])]++] = marks[i];
    memcpy(marks, spare, count * sizeof *marks);
}

static void sort_all_marks(int32_t *characters, size_t count, int32_t *spare)
{
    size_t i = 0;
    while (i < count) {
        size_t start = i;
        while (i < count && combining_class(characters[i]))
            i++;
        if (i - start > 1)
            sort_marks(characters + start, i - start, spare);
        if (i == start)
            i++;
    }
}

/* Decode and decompose. `characters` holds MAX_DECOMPOSITION * length. */
static int decompose(const char *text, size_t length, int32_t *characters, size_t *count, struct error *error)
{
    size_t at = 0, n = 0;
    while (at < length) {
        utf8proc_int32_t character;
        utf8proc_ssize_t used = utf8proc_iterate((const utf8proc_uint8_t *)text + at, (utf8proc_ssize_t)(length - at),
                                                 &character);
        if (used <= 0)
            return error_set(error, ERROR_BAD_REQUEST, "text is not UTF-8 at byte %zu", at);
        at += (size_t)used;
        int boundary = 0;
        utf8proc_ssize_t parts = utf8proc_decompose_char(character, characters + n, MAX_DECOMPOSITION,
                                                         UTF8PROC_STABLE | UTF8PROC_DECOMPOSE, &boundary);
        if (parts < 0 || parts > MAX_DECOMPOSITION)
            return error_set(error, ERROR_INTERNAL, "cannot decompose U+%04X", (unsigned)character);
        n += (size_t)parts;
    }
    *count = n;
    return 0;
}

static int is_ascii(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)text[i] >= 0x80)
            return 0;
    return 1;
}

int nfc_normalise(const char *text, size_t length, char **out, size_t *out_length, struct error *error)
{
    *out = NULL;
    if (is_ascii(text, length)) {
        *out = malloc(length + 1);
        if (!*out)
            return error_set(error, ERROR_NO_MEMORY, "no memory for %zu bytes of text", length);
        memcpy(*out, text, length);
        (*out)[length] = '\0';
        *out_length = length;
        return 0;
    }

    size_t capacity = MAX_DECOMPOSITION * length, count = 0;
    int32_t *characters = malloc(capacity * sizeof *characters);
    int32_t *spare = malloc(capacity * sizeof *spare);
    char *result = NULL;
    int code = 0;
    if (!characters || !spare)
        code = error_set(error, ERROR_NO_MEMORY, "no memory for %zu bytes of text", length);
    if (!code)
        code = decompose(text, length, characters, &count, error);
    if (!code) {
        sort_all_marks(characters, count, spare);
        utf8proc_ssize_t composed = utf8proc_normalize_utf32(characters, (utf8proc_ssize_t)count,
                                                             UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        count = composed < 0 ? 0 : (size_t)composed;
        if (composed < 0)
            code = error_set(error, ERROR_INTERNAL, "cannot compose text: %s", utf8proc_errmsg(composed));
        else if (!(result = malloc(4 * count + 1)))
            code = error_set(error, ERROR_NO_MEMORY, "no memory for %zu bytes of text", 4 * count);
    }
    if (!code) {
        size_t bytes = 0;
        for (size_t i = 0; i < count; i++)
            bytes += (size_t)utf8proc_encode_char(characters[i], (utf8proc_uint8_t *)result + bytes);
        result[bytes] = '\0';
        *out = result;
        *out_length = bytes;
    }
    free(characters);
    free(spare);
    return code;
}
