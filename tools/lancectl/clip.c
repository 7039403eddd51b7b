/* clip.c: see clip.h. */
#include "tools/lancectl/clip.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/lancectl/complain.h"
#include "tools/lancectl/output.h"
#include "tools/media/loaded_frames.h"

static const double default_fps = 12;

struct frames {
    uint8_t *pixels; /* [count, height, width, 3] */
    int count, height, width;
    double fps; /* 0: none of the files had one */
};

/* One frame, of 0 to 255. */
static void copy_frame(uint8_t *out, const struct loaded_frames *from, int index)
{
    const size_t values = (size_t)from->height * from->width * 3;
    if (from->bytes)
        memcpy(out, from->bytes + index * values, values);
    for (size_t i = 0; !from->bytes && i < values; i++)
        out[i] = (uint8_t)(from->floats[index * values + i] * 255.0f + 0.5f);
}

static int add_file(struct frames *frames, const char *path, struct error *error)
{
    struct loaded_frames loaded;
    int code = loaded_frames_read(&loaded, path, LOADED_FRAMES_MOST_BYTES, error);
    if (code)
        return code;
    const size_t frame_bytes = (size_t)loaded.height * loaded.width * 3;
    if (frames->count && (loaded.height != frames->height || loaded.width != frames->width)) {
        code = error_set(error, ERROR_BAD_FILE, "%s: is %d x %d, those before it %d x %d", path, loaded.width,
                         loaded.height, frames->width, frames->height);
    } else {
        uint8_t *pixels = realloc(frames->pixels, (size_t)(frames->count + loaded.count) * frame_bytes);
        if (!pixels)
            code = error_set(error, ERROR_NO_MEMORY, "%s: no memory for its frames", path);
        else
            frames->pixels = pixels;
    }
    for (int i = 0; !code && i < loaded.count; i++)
        copy_frame(frames->pixels + (size_t)frames->count++ * frame_bytes, &loaded, i);
    if (!code) {
        frames->height = loaded.height;
        frames->width = loaded.width;
        if (frames->fps == 0 && loaded.count > 1)
            frames->fps = loaded.fps;
    }
    loaded_frames_close(&loaded);
    return code;
}

enum exit_code clip_command(const struct arguments *arguments)
{
    struct frames frames = {.fps = arguments->fps};
    struct error error;
    enum exit_code exit_code = EXIT_OK;
    int code = 0;
    for (int i = 0; !code && i < arguments->file_count; i++)
        code = add_file(&frames, arguments->files[i], &error);
    if (code) {
        complain(code, &error);
        exit_code = EXIT_NOT_READ;
    } else if (output_write(arguments->output, frames.pixels, frames.count, frames.height, frames.width,
                            frames.fps > 0 ? frames.fps : default_fps, NULL, &error)) {
        complain(error.code, &error);
        exit_code = EXIT_NOT_WRITTEN;
    } else {
        puts(arguments->output);
    }
    free(frames.pixels);
    return exit_code;
}
