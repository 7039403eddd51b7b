/* utf8.h: text from outside (requests, file and folder names) before it is passed on. */
#ifndef LANCE_UTF8_H
#define LANCE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Whether `bytes` bytes are well-formed UTF-8. */
bool utf8_is_valid(const char *text, size_t bytes);

/* Make one line of UTF-8 of a string, in place: '?' for every byte that is no part of a character (the rest of
 * one that printf's precision cut in two, say) and for every control character, which could steer a terminal: those of
 * ASCII, those from U+0080 to U+009F, and those that turn the direction of writing. */
void utf8_make_line(char *text);

/* Print text of a file or a peer so that it steers no terminal: newlines and tabs as they are, other control characters
 * as \uXXXX, which is the same text where it is JSON, and U+FFFD for what is no character. Errors are ferror's. */
void utf8_print(FILE *out, const char *text);

#endif
