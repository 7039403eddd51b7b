/* frame_rate.h: frames per second as people and files write them, and which are accepted. */
#ifndef LANCE_MEDIA_FRAME_RATE_H
#define LANCE_MEDIA_FRAME_RATE_H

#include <stdbool.h>

/* Read the whole of `text` as a number ("12", "23.976") or a fraction ("24000/1001"; `slash` is what stands between its
 * numbers). White space around it is passed over. Returns whether it is one; its range is not looked at. */
bool frame_rate_parse(const char *text, char slash, double *fps);

/* Whether a source may have it, wherever it comes from: the protocol's range
 * (protocol/clip_sampling.h). NaN it may not. */
bool frame_rate_is_accepted(double fps);

#endif
