/* utf8_line.c: for programs that are built for 64-bit ARM by a cross compiler, which has no utf8proc: what base/error.c
 * wants of base/utf8.c. Its texts are plain ASCII here, and are a line already. */
#include "base/utf8.h"

void utf8_make_line(char *text)
{
    (void)text;
}
