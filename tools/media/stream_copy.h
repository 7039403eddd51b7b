/* stream_copy.h: a stream of one file, packet by packet as it is, into another file that is being written. */
#ifndef LANCE_MEDIA_STREAM_COPY_H
#define LANCE_MEDIA_STREAM_COPY_H

#include <libavformat/avformat.h>

struct stream_copy {
    AVFormatContext *file;
    AVStream *from, *to;
};

/* Add the file's stream of that type to `into`, before its header is written. Returns 0, and copy->to NULL when
 * there is none or `into`'s format does not take it; or a code of libav. */
int stream_copy_open(struct stream_copy *copy, const char *path, enum AVMediaType type, AVFormatContext *into);

/* Copy what begins before `until_seconds` (0: all). Returns 0 or a code of libav. */
int stream_copy_run(struct stream_copy *copy, AVFormatContext *into, double until_seconds);

void stream_copy_close(struct stream_copy *copy); /* all zeros is allowed */

#endif
