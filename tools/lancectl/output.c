/* output.c: see output.h. */
#include "tools/lancectl/output.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/whole_file.h"
#include "tools/media/frames_folder.h"
#include "tools/media/picture_file.h"
#include "tools/media/video_file.h"

enum output_kind output_kind_of(const char *path)
{
    static const struct {
        const char *ending;
        enum output_kind kind;
    } endings[] = {{".png", OUTPUT_PNG}, {".mp4", OUTPUT_MP4}, {".webm", OUTPUT_WEBM}, {".y4m", OUTPUT_Y4M},
                 {".latent", OUTPUT_LATENT}};
    size_t length = strlen(path);
    if (length > 1 && path[length - 1] == '/')
        return OUTPUT_FOLDER;
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t ending = strlen(endings[i].ending);
        if (length > ending && path[length - ending - 1] != '/' &&
            !strcasecmp(path + length - ending, endings[i].ending))
            return endings[i].kind;
    }
    return OUTPUT_UNKNOWN;
}

/* Where "-1" goes: before the extension, or before the closing slashes of a folder. */
static size_t stem_length(const char *path)
{
    size_t length = strlen(path);
    if (output_kind_of(path) != OUTPUT_FOLDER) {
        const char *slash = strrchr(path, '/'), *dot = strrchr(slash ? slash : path, '.');
        return dot ? (size_t)(dot - path) : length;
    }
    while (length > 1 && path[length - 1] == '/')
        length--;
    return length;
}

char *output_name(const char *path, int index, int count)
{
    if (count == 1)
        return strdup(path);
    int stem = (int)stem_length(path);
    char *name;
    return asprintf(&name, "%.*s-%d%s", stem, path, index + 1, path + stem) < 0 ? NULL : name;
}

static int check_one(const char *path, struct error *error)
{
    return output_kind_of(path) == OUTPUT_FOLDER ? frames_folder_check(path, error) : whole_file_check(path, error);
}

int output_check(const char *path, int count, struct error *error)
{
    char *longest = output_name(path, count - 1, count);
    int code = longest ? check_one(longest, error) : error_set(error, ERROR_NO_MEMORY, "no memory for a file name");
    free(longest);
    return code;
}

int output_flush(struct error *error)
{
    if (!fflush(stdout) && !ferror(stdout))
        return 0;
    return error_set(error, ERROR_IO, output_is_closed() ? "the standard output was closed"
                                                         : "cannot write to the standard output; is its disk full?");
}

bool output_is_closed(void)
{
    struct pollfd reader = {.fd = STDOUT_FILENO};
    return poll(&reader, 1, 0) == 1 && (reader.revents & (POLLERR | POLLHUP));
}

int output_write(const char *path, const uint8_t *pixels, int frames, int height, int width, double fps,
                 const char *receipt, struct error *error)
{
    switch (output_kind_of(path)) {
    case OUTPUT_PNG:
        if (frames == 1)
            return picture_write(path, pixels, width, height, receipt, error);
        break;
    case OUTPUT_MP4:
        return video_write(path, VIDEO_MP4, pixels, frames, height, width, fps, receipt, error);
    case OUTPUT_WEBM:
        return video_write(path, VIDEO_WEBM, pixels, frames, height, width, fps, receipt, error);
    case OUTPUT_Y4M:
        return video_write(path, VIDEO_Y4M, pixels, frames, height, width, fps, receipt, error);
    case OUTPUT_FOLDER:
        return frames_folder_write(path, pixels, frames, height, width, fps, receipt, error);
    case OUTPUT_LATENT:
    case OUTPUT_UNKNOWN:
        break;
    }
    if (frames == 1)
        return error_set(error, ERROR_BAD_REQUEST, "the result is a picture, and \"%s\" does not end in .png", path);
    return error_set(
        error, ERROR_BAD_REQUEST,
        "the result is a video of %d frames; \"%s\" does not end in .mp4, .webm, .y4m or / (a folder of PNGs)", frames,
        path);
}
