/* still_pixels.c: see still_pixels.h. */
#include "tools/media/still_pixels.h"

#include <stdlib.h>
#include <string.h>

#include "tools/media/exif.h"

int still_allocate(struct still *still, int64_t height, int64_t width, struct error *error)
{
    int code = clip_check_size(height, width, error);
    if (code)
        return code;
    still->pixels = malloc(3 * (size_t)height * (size_t)width);
    if (!still->pixels)
        return error_set(error, ERROR_NO_MEMORY, "no memory for %lld x %lld pixels", (long long)width,
                         (long long)height);
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

int still_turn(struct still *still, int orientation, struct error *error)
{
    if (orientation <= EXIF_UPRIGHT || orientation > EXIF_LAST_ORIENTATION)
        return 0;
    const int height = still->height, width = still->width;
    const bool is_transposed = orientation >= 5;
    /* Whether stored rows are read from below, and stored columns from the right; transposed, the other way about. */
    const bool is_flipped = orientation == 3 || orientation == 4 || orientation == 7 || orientation == 8;
    const bool is_mirrored = orientation == 2 || orientation == 3 || orientation == 6 || orientation == 7;
    uint8_t *turned = malloc(3 * (size_t)height * (size_t)width);
    if (!turned)
        return error_set(error, ERROR_NO_MEMORY, "no memory to turn %d x %d pixels", width, height);
    still->height = is_transposed ? width : height;
    still->width = is_transposed ? height : width;
    uint8_t *out = turned;
    for (int y = 0; y < still->height; y++)
        for (int x = 0; x < still->width; x++, out += 3) {
            const int from_y = is_transposed ? (is_mirrored ? height - 1 - x : x) : is_flipped ? height - 1 - y : y;
            const int from_x = is_transposed ? (is_flipped ? width - 1 - y : y) : is_mirrored ? width - 1 - x : x;
            memcpy(out, still->pixels + 3 * ((size_t)from_y * (size_t)width + (size_t)from_x), 3);
        }
    free(still->pixels);
    still->pixels = turned;
    return 0;
}
