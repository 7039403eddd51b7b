/* utf8.h: text from outside (requests, file and folder names) before it is passed on. */
#ifndef LANCE_UTF8_H
#define LANCE_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* Whether `bytes` bytes are well-formed UTF-8. */
bool utf8_is_valid(const char *text, size_t bytes);

/* Make one line of UTF-8 of a string, in place: '?' for every byte that is no part of a character (the rest of
 * one that printf's precision cut in two, say) and for every control character, which could steer a terminal. */
void utf8_make_line(char *text);

#endif
