/* byte_alphabet.h: the letters in which GPT-2 style tokenizer files write bytes.
 *
 * vocab.json and merges.txt are text, so each of the 256 bytes has a printable letter:
 * printable Latin-1 characters stand for themselves, the other 68 bytes are the letters
 * from U+0100 on, in order ("Ġ" is the space).
 */
#ifndef LANCE_BYTE_ALPHABET_H
#define LANCE_BYTE_ALPHABET_H

#include <stddef.h>

/* Translate `length` bytes of such text to the bytes it stands for. `out` holds `length` bytes.
 * Returns their number, or -1 when the text has a character that is no letter of the alphabet. */
long byte_alphabet_decode(const char *text, size_t length, char *out);

#endif
