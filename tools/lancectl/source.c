/* source.c: see source.h. */
#include "tools/lancectl/source.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/media/animation.h"
#include "tools/media/frames_folder.h"
#include "tools/media/spool.h"
#include "tools/media/still.h"
#include "tools/media/video_file.h"

static const char video_kinds[] =
    "mp4, webm, other video files, y4m, animated WebP, PNG and GIF, or a folder of pictures";

static int read_moving(struct clip *clip, const struct source *source, const char *path, struct error *error)
{
    if (animation_is_webp(path))
        return animation_read_webp(clip, path, source->fps, source->max_bytes, error);
    int code = video_read(clip, path, source->fps, source->max_bytes, error);
    if (code == ERROR_UNSUPPORTED && source->kind == SOURCE_EITHER)
        code = error_set(error, ERROR_BAD_FILE, "%s: is neither a picture (%s) nor a video that can be read (%s)", path,
                         STILL_KINDS, video_kinds);
    return code;
}

static int read_file(struct clip *clip, const struct source *source, const char *path, struct error *error)
{
    const bool is_picture = still_is_one(path);
    const int pictures = is_picture ? animation_pictures(path) : 0;
    /* A GIF of one picture is a short video too. */
    if (source->kind == SOURCE_VIDEO && pictures == 1 && !still_is_gif(path))
        return error_set(error, ERROR_BAD_FILE, "%s: is a picture; a video is wanted here: %s", path, video_kinds);
    if (source->kind == SOURCE_VIDEO || (source->kind == SOURCE_EITHER && pictures != 1))
        return read_moving(clip, source, path, error);
    int code = still_read_clip(clip, path, source->upright, source->max_bytes, error);
    if (!code && pictures > 1)
        clip->source_frames = pictures;
    return code;
}

static int read_path(struct clip *clip, const struct source *source, const char *path, struct error *error)
{
    struct stat info;
    if (stat(path, &info))
        return error_set(error, ERROR_BAD_FILE, "%s: cannot be read: %s", path, strerror(errno));
    if (S_ISREG(info.st_mode))
        return read_file(clip, source, path, error);
    if (!S_ISDIR(info.st_mode))
        return error_set(error, ERROR_BAD_FILE, "%s: is neither a file nor a pipe nor a folder", path);
    if (source->kind == SOURCE_PICTURE)
        return error_set(error, ERROR_BAD_FILE, "%s: is a folder; a picture is wanted here: %s", path, STILL_KINDS);
    return frames_folder_read(clip, path, source->fps, source->upright, source->max_bytes, error);
}

/* A message about a spool's path, in the user's words for it. */
static int name_pipe(struct error *error, const char *spool_path, const char *path)
{
    const size_t length = strlen(spool_path);
    char rest[sizeof error->text];
    snprintf(rest, sizeof rest, "%s", error->text + (strncmp(error->text, spool_path, length) ? 0 : length));
    return error_set(error, error->code, "%s%s%s", strcmp(path, "-") ? path : "the standard input",
                     *rest == ':' ? "" : ": ", rest);
}

int source_read(struct clip *clip, const struct source *source, struct error *error)
{
    *clip = (struct clip){0};
    if (!spool_is_needed(source->path))
        return read_path(clip, source, source->path, error);
    struct spool spool = {.path = ""};
    int code = spool_open(&spool, source->path, error);
    if (!code)
        code = read_path(clip, source, spool.path, error);
    if (code)
        code = name_pipe(error, spool.path, source->path);
    spool_close(&spool);
    return code;
}
