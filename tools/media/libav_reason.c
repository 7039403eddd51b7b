/* libav_reason.c: see libav_reason.h. */
#include "tools/media/libav_reason.h"

#include <libavutil/error.h>

const char *libav_reason(char reason[LIBAV_REASON_BYTES], int libav_code)
{
    av_strerror(libav_code, reason, LIBAV_REASON_BYTES);
    return reason;
}
