/* still.c: see still.h. */
#include "tools/media/still.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/mapped_file.h"
#include "tools/media/still_formats.h"

typedef int decoder(struct still *still, const uint8_t *data, size_t bytes, struct error *error);

enum { MAGIC_BYTES = 12 };

static decoder *decoder_for(const uint8_t *data, size_t bytes)
{
    if (bytes >= 8 && !memcmp(data, "\x89PNG\r\n\x1a\n", 8))
        return still_decode_png;
    if (bytes >= 3 && !memcmp(data, "\xff\xd8\xff", 3))
        return still_decode_jpeg;
    if (bytes >= MAGIC_BYTES && !memcmp(data, "RIFF", 4) && !memcmp(data + 8, "WEBP", 4))
        return still_decode_webp;
    return NULL;
}

int still_allocate(struct still *still, int64_t height, int64_t width, struct error *error)
{
    int code = clip_check_size(height, width, error);
    if (code)
        return code;
    still->pixels = malloc(3 * (size_t)height * (size_t)width);
    if (!still->pixels)
        return error_set(error, ERROR_NO_MEMORY, "no memory for %lld x %lld pixels", (long long)width, (long long)height);
    still->height = (int)height;
    still->width = (int)width;
    return 0;
}

void still_over_white(uint8_t *rgb, const uint8_t *rgba, size_t pixels)
{
    for (size_t i = 0; i < pixels; i++)
        for (size_t c = 0; c < 3; c++) {
            unsigned alpha = rgba[4 * i + 3];
            unsigned sum = 255 * (255 - alpha) + rgba[4 * i + c] * alpha + 128;
            rgb[3 * i + c] = (uint8_t)((sum + (sum >> 8)) >> 8);
        }
}

int still_read(struct still *still, const char *path, struct error *error)
{
    *still = (struct still){0};
    struct mapped_file file;
    int code = mapped_file_open(&file, path, error);
    if (code)
        return code;
    decoder *decode = decoder_for(file.data, file.bytes);
    code = decode ? decode(still, file.data, file.bytes, error)
                  : error_set(error, ERROR_BAD_FILE, "is no picture; PNG, JPEG and WebP are accepted");
    mapped_file_close(&file);
    if (!code)
        return 0;
    free(still->pixels);
    *still = (struct still){0};
    return error_prefix(error, "%s", path);
}

int still_read_clip(struct clip *clip, const char *path, uint64_t max_bytes, struct error *error)
{
    *clip = (struct clip){0};
    struct still still;
    int code = still_read(&still, path, error);
    if (code)
        return code;
    code = clip_open(clip, 1, still.height, still.width, max_bytes, error);
    if (!code)
        code = clip_put(clip, 0, still.pixels, error);
    free(still.pixels);
    if (!code)
        return 0;
    clip_free(clip);
    return error_prefix(error, "%s", path);
}

bool still_is_one(const char *path)
{
    uint8_t magic[MAGIC_BYTES];
    FILE *file = fopen(path, "rb");
    size_t bytes = file ? fread(magic, 1, sizeof magic, file) : 0;
    if (file)
        fclose(file);
    return decoder_for(magic, bytes) != NULL;
}
