/* utf8.c: see utf8.h. */
#include "protocol/utf8.h"

#include <string.h>
#include <utf8proc.h>

/* The bytes of the character at the start of `text`; 0 or less: there is none. */
static utf8proc_ssize_t character_bytes(const char *text, size_t bytes)
{
    utf8proc_int32_t character;
    return utf8proc_iterate((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)bytes, &character);
}

bool utf8_is_valid(const char *text, size_t bytes)
{
    while (bytes > 0) {
        utf8proc_ssize_t step = character_bytes(text, bytes);
        if (step <= 0)
            return false;
        text += step;
        bytes -= (size_t)step;
    }
    return true;
}

void utf8_make_line(char *text)
{
    for (size_t bytes = strlen(text); bytes > 0;) {
        utf8proc_ssize_t step = character_bytes(text, bytes);
        if (step <= 0 || (unsigned char)*text < 0x20 || *text == 0x7f) {
            *text = '?';
            step = 1;
        }
        text += step;
        bytes -= (size_t)step;
    }
}
