/* frame_rate.c: see frame_rate.h. */
#include "tools/media/frame_rate.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/clip_sampling.h"

/* Read a number; *end is what follows it. strtod alone would take hexadecimal numbers, words and white space. */
static bool read_number(const char *text, double *number, const char **end)
{
    char *after;
    if (!isdigit((unsigned char)*text) && *text != '.' && *text != '-')
        return false;
    *number = strtod(text, &after);
    *end = after;
    return after != text && strspn(text, "0123456789.eE+-") >= (size_t)(after - text);
}

bool frame_rate_parse(const char *text, char slash, double *fps)
{
    double below = 1;
    text += strspn(text, " \t\r\n");
    if (!read_number(text, fps, &text))
        return false;
    if (*text == slash && !read_number(text + 1, &below, &text))
        return false;
    *fps /= below;
    return below > 0 && text[strspn(text, " \t\r\n")] == '\0';
}

bool frame_rate_is_accepted(double fps)
{
    return fps >= SAMPLING_MIN_CLIP_FPS && fps <= SAMPLING_MAX_CLIP_FPS;
}
