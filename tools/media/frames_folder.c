/* frames_folder.c: see frames_folder.h. */
#include "tools/media/frames_folder.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/descriptor.h"
#include "base/whole_file.h"
#include "tools/media/frame_rate.h"
#include "tools/media/picture_file.h"
#include "tools/media/still.h"

/* ---- Reading ---- */

static int is_frame(const struct dirent *entry)
{
    static const char *const endings[] = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".heic"};
    size_t length = strlen(entry->d_name);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t ending = strlen(endings[i]);
        if (length > ending && *entry->d_name != '.' && !strcasecmp(entry->d_name + length - ending, endings[i]))
            return 1;
    }
    return 0;
}

static int read_fps(const char *folder, double *fps, struct error *error)
{
    char *path, text[128];
    if (asprintf(&path, "%s/fps.txt", folder) < 0)
        return error_set(error, ERROR_NO_MEMORY, "no memory");
    FILE *file = regular_file_open(path);
    free(path);
    if (!file)
        return error_set(error, ERROR_BAD_FILE, "has no fps.txt with its frames per second; give --fps");
    size_t length = fread(text, 1, sizeof text, file);
    fclose(file);
    if (length < sizeof text && !memchr(text, '\0', length)) {
        text[length] = '\0';
        if (frame_rate_parse(text, '/', fps))
            return 0;
    }
    return error_set(error, ERROR_BAD_FILE,
                     "has an fps.txt that is not its frames per second as a number or a fraction, "
                     "such as 12, 23.976 or 24000/1001; mend it, or give --fps");
}

static int put_frame(struct clip *clip, int index, int frames, const char *folder, const char *name, bool upright,
                     uint64_t max_bytes, struct error *error)
{
    char *path;
    if (asprintf(&path, "%s/%s", folder, name) < 0)
        return error_set(error, ERROR_NO_MEMORY, "no memory");
    struct still still;
    int code = still_read(&still, path, upright, error);
    free(path);
    if (!code && index == 0)
        code = clip_open(clip, frames, still.height, still.width, max_bytes, error);
    if (!code && (still.height != clip->source_height || still.width != clip->source_width))
        code = error_set(error, ERROR_BAD_FILE,
                         "%s is %d x %d pixels and the first frame %d x %d; frames of one size are accepted", name,
                         still.width, still.height, clip->source_width, clip->source_height);
    if (!code)
        code = clip_put(clip, index, still.pixels, error);
    if (index == 0)
        clip->orientation = still.orientation;
    free(still.pixels);
    return code;
}

static int read_frames(struct clip *clip, const char *folder, struct dirent **names, int count, double fps,
                       bool upright, uint64_t max_bytes, struct error *error)
{
    if (count == 0)
        return error_set(error, ERROR_BAD_FILE, "is a folder without frames; .png, .jpg, .webp, .bmp, .tif, .avif and "
                         ".heic files are accepted");
    int code = fps > 0 ? 0 : read_fps(folder, &fps, error);
    if (code)
        return code;
    int indices[SAMPLING_MAX_FRAMES];
    int wanted = clip_sample(count, fps, indices, error);
    if (wanted < 0)
        return wanted;
    for (int i = 0; i < wanted && !code; i++)
        code = put_frame(clip, i, wanted, folder, names[indices[i]]->d_name, upright, max_bytes, error);
    clip->source_frames = count;
    clip->source_fps = fps;
    clip->fps = SAMPLING_FPS;
    return code;
}

int frames_folder_read(struct clip *clip, const char *path, double fps, bool upright, uint64_t max_bytes,
                       struct error *error)
{
    *clip = (struct clip){0};
    struct dirent **names;
    int count = scandir(path, &names, is_frame, versionsort);
    if (count < 0)
        return error_set(error, ERROR_BAD_FILE, "%s: cannot be read: %s", path, strerror(errno));
    int code = read_frames(clip, path, names, count, fps, upright, max_bytes, error);
    for (int i = 0; i < count; i++)
        free(names[i]);
    free(names);
    if (!code)
        return 0;
    clip_free(clip);
    return error_prefix(error, "%s", path);
}

/* ---- Writing ---- */

/* The path of a file in a folder: frame `index`, or fps.txt for -1. */
static char *file_path(const char *folder, int index)
{
    char *path;
    int length = index < 0 ? asprintf(&path, "%s/fps.txt", folder) : asprintf(&path, "%s/%05d.png", folder, index + 1);
    return length < 0 ? NULL : path;
}

static int write_fps(const char *folder, double fps, struct error *error)
{
    char *path = file_path(folder, -1);
    FILE *file = path ? fopen(path, "w") : NULL;
    bool is_written = file && fprintf(file, "%g\n", fps) > 0;
    if (file && fclose(file))
        is_written = false;
    int code =
        is_written ? 0 : error_set(error, ERROR_IO, "cannot write %s: %s", path ? path : folder, strerror(errno));
    free(path);
    return code;
}

static int write_all(const char *folder, const uint8_t *pixels, int frames, int height, int width, double fps,
                     const char *receipt, struct error *error)
{
    size_t frame_bytes = 3 * (size_t)height * (size_t)width;
    int code = write_fps(folder, fps, error);
    for (int i = 0; i < frames && !code; i++) {
        char *path = file_path(folder, i);
        code = path ? picture_write(path, pixels + (size_t)i * frame_bytes, width, height, receipt, error)
                    : error_set(error, ERROR_NO_MEMORY, "no memory");
        free(path);
    }
    return code;
}

static void remove_all(const char *folder, int frames)
{
    for (int i = -1; i < frames; i++) {
        char *path = file_path(folder, i);
        if (path)
            unlink(path);
        free(path);
    }
    rmdir(folder);
}

/* Fill `folder`, a temporary one, and give it the name `target`; or take it away. */
static int write_as(const char *target, const char *folder, const uint8_t *pixels, int frames, int height, int width,
                    double fps, const char *receipt, struct error *error)
{
    int code = write_all(folder, pixels, frames, height, width, fps, receipt, error);
    if (code) /* the message names a file in the temporary folder */
        error_prefix(error, "%s", target);
    mode_t mask = umask(0);
    umask(mask);
    if (!code && (chmod(folder, 0777 & ~mask) || rename(folder, target)))
        code = error_set(error, ERROR_IO, "cannot write %s: %s", target, strerror(errno));
    if (code)
        remove_all(folder, frames);
    return code;
}

int frames_folder_write(const char *path, const uint8_t *pixels, int frames, int height, int width, double fps,
                        const char *receipt, struct error *error)
{
    char *target;
    int code = follow_links(&target, path, error);
    if (code)
        return code;
    char *folder = temporary_name(target);
    if (!folder)
        code = error_set(error, ERROR_NO_MEMORY, "no memory to write %s", path);
    else if (!mkdtemp(folder))
        code = error_set(error, ERROR_IO, "cannot write %s: %s", path, strerror(errno));
    else
        code = write_as(target, folder, pixels, frames, height, width, fps, receipt, error);
    free(folder);
    free(target);
    return code;
}

int frames_folder_check(const char *path, struct error *error)
{
    int code = whole_file_check_folder(path, error);
    struct stat info;
    if (code || stat(path, &info))
        return code;
    if (!S_ISDIR(info.st_mode))
        return error_set(error, ERROR_IO, "cannot write %s: a file of that name is there", path);
    DIR *folder = opendir(path);
    int entries = 0;
    while (folder && readdir(folder))
        entries++; /* an empty one has . and .. */
    if (folder)
        closedir(folder);
    return entries <= 2 ? 0 : error_set(error, ERROR_IO, "cannot write %s: the folder is there and not empty", path);
}
