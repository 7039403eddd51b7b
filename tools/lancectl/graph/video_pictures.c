/* video_pictures.c: see video_pictures.h. */
#include "tools/lancectl/graph/video_pictures.h"

#include "tools/media/loaded_frames.h"

int video_pictures(struct value **owned, double *fps, struct value *video, struct error *error)
{
    if (!video->text) {
        *owned = value_hold(video);
        *fps = video->number;
        return 0;
    }
    struct loaded_frames frames;
    int code = loaded_frames_read(&frames, video->text, LOADED_FRAMES_MOST_BYTES, error);
    if (code)
        return code;
    *owned = value_new(VALUE_IMAGE);
    *fps = frames.fps;
    if (*owned) {
        (*owned)->pictures =
            (struct pictures){frames.count, frames.height, frames.width, frames.bytes, frames.floats, NULL};
        frames.bytes = NULL;
        frames.floats = NULL;
    } else {
        code = error_set(error, ERROR_NO_MEMORY, "no memory for a video");
    }
    loaded_frames_close(&frames);
    return code;
}
