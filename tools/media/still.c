/* still.c: see still.h. */
#include "tools/media/still.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/descriptor.h"
#include "base/mapped_file.h"
#include "tools/media/exif.h"
#include "tools/media/gif.h"
#include "tools/media/still_formats.h"

typedef int decoder(struct still *still, const uint8_t *data, size_t bytes, struct error *error);

enum { MAGIC_BYTES = 13 };

static decoder *decoder_for(const uint8_t *data, size_t bytes)
{
    if (bytes >= 8 && !memcmp(data, "\x89PNG\r\n\x1a\n", 8))
        return still_decode_png;
    if (bytes >= 3 && !memcmp(data, "\xff\xd8\xff", 3))
        return still_decode_jpeg;
    if (bytes >= MAGIC_BYTES && !memcmp(data, "RIFF", 4) && !memcmp(data + 8, "WEBP", 4))
        return still_decode_webp;
    if (gif_is_one(data, bytes))
        return still_decode_gif;
    if (bytes >= 4 && (!memcmp(data, "II*\0", 4) || !memcmp(data, "MM\0*", 4)))
        return still_decode_tiff;
    if (bytes >= MAGIC_BYTES && !memcmp(data + 4, "ftyp", 4)) {
        if (!memcmp(data + 8, "avif", 4) || !memcmp(data + 8, "avis", 4))
            return still_decode_avif;
        if (!memcmp(data + 8, "heic", 4) || !memcmp(data + 8, "heix", 4) || !memcmp(data + 8, "mif1", 4))
            return still_decode_heif;
    }
    if (bytes >= MAGIC_BYTES && !memcmp(data, "BM", 2))
        return still_decode_bmp;
    return NULL;
}

int still_read(struct still *still, const char *path, bool upright, struct error *error)
{
    *still = (struct still){.orientation = EXIF_UPRIGHT};
    struct mapped_file file;
    int code = mapped_file_open(&file, path, error);
    if (code)
        return code;
    decoder *decode = decoder_for(file.data, file.bytes);
    code = decode ? decode(still, file.data, file.bytes, error)
                  : error_set(error, ERROR_BAD_FILE, "is no picture; %s are accepted", STILL_KINDS);
    if (!code && upright) {
        code = still_turn(still, still->orientation, error);
        still->orientation = EXIF_UPRIGHT;
    }
    mapped_file_close(&file);
    if (!code)
        return 0;
    free(still->pixels);
    *still = (struct still){0};
    return error_prefix(error, "%s", path);
}

int still_read_clip(struct clip *clip, const char *path, bool upright, uint64_t max_bytes, struct error *error)
{
    *clip = (struct clip){0};
    struct still still;
    int code = still_read(&still, path, upright, error);
    if (code)
        return code;
    code = clip_open(clip, 1, still.height, still.width, max_bytes, error);
    if (!code)
        code = clip_put(clip, 0, still.pixels, error);
    clip->orientation = still.orientation;
    free(still.pixels);
    if (!code)
        return 0;
    clip_free(clip);
    return error_prefix(error, "%s", path);
}

/* The decoder of what the file begins like. */
static decoder *decoder_of_file(const char *path)
{
    uint8_t magic[MAGIC_BYTES];
    FILE *file = regular_file_open(path);
    size_t bytes = file ? fread(magic, 1, sizeof magic, file) : 0;
    if (file)
        fclose(file);
    return decoder_for(magic, bytes);
}

bool still_is_one(const char *path)
{
    return decoder_of_file(path) != NULL;
}

bool still_is_gif(const char *path)
{
    return decoder_of_file(path) == still_decode_gif;
}
