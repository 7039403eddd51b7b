/* utf8.c: see utf8.h. */
#include "base/utf8.h"

#include <stdint.h>
#include <string.h>
#include <utf8proc.h>

static const uint64_t not_ascii = UINT64_C(0x8080808080808080); /* a bit of each of eight bytes */

/* The character at the start of `text` and its bytes; 0 or less: there is none. */
static utf8proc_ssize_t next_character(utf8proc_int32_t *character, const char *text, size_t bytes)
{
    return utf8proc_iterate((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)bytes, character);
}

/* Whether it could steer a terminal, or turn around what stands beside it. */
static bool is_control(utf8proc_int32_t character)
{
    return character < 0x20 || (character >= 0x7f && character <= 0x9f) ||
           (character >= 0x202a && character <= 0x202e) || (character >= 0x2066 && character <= 0x2069);
}

bool utf8_is_valid(const char *text, size_t bytes)
{
    utf8proc_int32_t character;
    while (bytes > 0) {
        uint64_t eight; /* most text is ASCII, eight characters at a time */
        if (bytes >= sizeof eight && (memcpy(&eight, text, sizeof eight), (eight & not_ascii) == 0)) {
            text += sizeof eight;
            bytes -= sizeof eight;
            continue;
        }
        utf8proc_ssize_t step = next_character(&character, text, bytes);
        if (step <= 0)
            return false;
        text += step;
        bytes -= (size_t)step;
    }
    return true;
}

void utf8_make_line(char *text)
{
    utf8proc_int32_t character;
    for (size_t bytes = strlen(text); bytes > 0;) {
        utf8proc_ssize_t step = next_character(&character, text, bytes);
        bool is_character = step > 0;
        if (!is_character)
            step = 1;
        if (!is_character || is_control(character))
            memset(text, '?', (size_t)step);
        text += step;
        bytes -= (size_t)step;
    }
}

void utf8_print(FILE *out, const char *text)
{
    utf8proc_int32_t character;
    for (size_t bytes = strlen(text); bytes > 0;) {
        utf8proc_ssize_t step = next_character(&character, text, bytes);
        if (step <= 0) {
            fputs("\xef\xbf\xbd", out);
            step = 1;
        } else if (is_control(character) && character != '\n' && character != '\t')
            fprintf(out, "\\u%04x", (unsigned)character);
        else
            fwrite(text, 1, (size_t)step, out);
        text += step;
        bytes -= (size_t)step;
    }
}
