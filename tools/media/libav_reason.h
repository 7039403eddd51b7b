/* libav_reason.h: libav's error codes in words. */
#ifndef LANCE_MEDIA_LIBAV_REASON_H
#define LANCE_MEDIA_LIBAV_REASON_H

enum { LIBAV_REASON_BYTES = 128 };

/* Fills `reason` and returns it. */
const char *libav_reason(char reason[LIBAV_REASON_BYTES], int libav_code);

#endif
