/* say.h: printing what a file or a peer says: nothing of it steers the terminal (utf8_print). */
#ifndef LANCECTL_SAY_H
#define LANCECTL_SAY_H

#include <stdio.h>

/* As fprintf. Nothing is printed when there is no memory for it. */
void say(FILE *out, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
