/* byte_alphabet.c: see byte_alphabet.h. */
#include "daemon/engine/model/tokenizer/byte_alphabet.h"

#include <stdint.h>
#include <utf8proc.h>

/* The byte that stands for itself as a Latin-1 letter. */
static int is_printable(int byte)
{
    return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

/* The byte of a letter, or -1. */
static int byte_of(int32_t letter)
{
    if (letter < 0x100)
        return is_printable(letter) ? letter : -1;
    int32_t nth = letter - 0x100;
    for (int byte = 0; byte < 0x100; byte++)
        if (!is_printable(byte) && nth-- == 0)
            return byte;
    return -1;
}

long byte_alphabet_decode(const char *text, size_t length, char *out)
{
    long bytes = 0;
    while (length) {
        utf8proc_int32_t letter;
        utf8proc_ssize_t used = utf8proc_iterate((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)length, &letter);
        int byte = used > 0 ? byte_of(letter) : -1;
        if (byte < 0)
            return -1;
        out[bytes++] = (char)byte;
        text += used;
        length -= (size_t)used;
    }
    return bytes;
}
