/* source.c: see source.h. */
#include "tools/lancectl/source.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/media/frames_folder.h"
#include "tools/media/still.h"
#include "tools/media/video_file.h"

int source_read(struct clip *clip, enum source_kind kind, const char *path, double fps, uint64_t max_bytes,
                struct error *error)
{
    *clip = (struct clip){0};
    struct stat info;
    if (stat(path, &info))
        return error_set(error, ERROR_BAD_FILE, "%s: cannot be read: %s", path, strerror(errno));
    bool is_folder = S_ISDIR(info.st_mode);
    if (!is_folder && !S_ISREG(info.st_mode))
        return error_set(error, ERROR_BAD_FILE, "%s: is neither a file nor a folder", path);
    bool is_picture = !is_folder && still_is_one(path);
    if (kind == SOURCE_VIDEO && is_picture)
        return error_set(error, ERROR_BAD_FILE,
                         "%s: is a picture; a video is wanted here: mp4, webm, other video files, y4m or a folder of pictures", path);
    if (kind == SOURCE_PICTURE && is_folder)
        return error_set(error, ERROR_BAD_FILE, "%s: is a folder; a picture is wanted here: PNG, JPEG or WebP", path);
    if (is_folder)
        return frames_folder_read(clip, path, fps, max_bytes, error);
    if (is_picture || kind == SOURCE_PICTURE)
        return still_read_clip(clip, path, max_bytes, error);
    int code = video_read(clip, path, fps, max_bytes, error);
    if (code == ERROR_UNSUPPORTED && kind == SOURCE_EITHER)
        code = error_set(error, ERROR_BAD_FILE, "%s: is neither a picture (PNG, JPEG, WebP) nor a video that can be read (mp4, webm, "
                  "other video files, y4m, a folder of pictures)", path);
    return code;
}
