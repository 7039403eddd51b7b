/* loaded_frames.h: a picture or every frame of a video, with the values that ComfyUI's loaders give them (LoadImage,
 * Get Video Components), which are not always those of bytes: colours that are stored as luma and chroma are
 * converted to floats there. video_file.h and still.h read as the official code does.
 */
#ifndef LANCE_MEDIA_LOADED_FRAMES_H
#define LANCE_MEDIA_LOADED_FRAMES_H

#include <stdint.h>

#include "base/error.h"

#define LOADED_FRAMES_MOST_BYTES (UINT64_C(16) << 30) /* that a file may take in memory, where nothing says less */

struct loaded_frames {
    int count, height, width;
    uint8_t *bytes; /* RGB [count, height, width, 3], or NULL */
    float *floats;  /* the same in 0..1, or NULL */
    float *alpha;   /* [count, height, width], 1 opaque; NULL: the file has none */
    double fps;     /* on average; 1 where the file does not say */
};

/* Read a file, turned as it says that it is to be shown, into at most `max_bytes`. The message names the file.
 * Errors: ERROR_BAD_FILE for one that cannot be read, or has frames of several sizes, ERROR_TOO_LARGE,
 * ERROR_NO_MEMORY. Close with loaded_frames_close. */
int loaded_frames_read(struct loaded_frames *out, const char *path, uint64_t max_bytes, struct error *error);

void loaded_frames_close(struct loaded_frames *frames);

#endif
