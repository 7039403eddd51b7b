/* gif.c: see gif.h. A header and a palette, then blocks: extensions and pictures, whose data come in pieces of up to
 * 255 bytes. */
#include "tools/media/gif.h"

#include <string.h>

enum {
    HEADER_BYTES = 13,
    DESCRIPTOR_BYTES = 10,
    COLOUR_BYTES = 3,
    HAS_PALETTE = 0x80,
    PALETTE_SIZE = 7, /* in a byte of flags */
    EXTENSION = 0x21,
    GRAPHIC_CONTROL = 0xf9,
    PICTURE = 0x2c,
};

bool gif_is_one(const uint8_t *data, size_t bytes)
{
    return bytes >= HEADER_BYTES && (!memcmp(data, "GIF87a", 6) || !memcmp(data, "GIF89a", 6));
}

static size_t palette_bytes(uint8_t flags)
{
    return flags & HAS_PALETTE ? (size_t)COLOUR_BYTES << ((flags & PALETTE_SIZE) + 1) : 0;
}

/* The end of the pieces that begin at `at`. */
static size_t skip_pieces(const uint8_t *data, size_t bytes, size_t at)
{
    while (at < bytes && data[at])
        at += data[at] + 1u;
    return at + 1;
}

/* The next picture's descriptor at or after `at`; `bytes` when there is none. *transparent is
 * the colour that is, or -1. */
static size_t find_picture(const uint8_t *data, size_t bytes, size_t at, int *transparent)
{
    *transparent = -1;
    while (at + DESCRIPTOR_BYTES < bytes && data[at] == EXTENSION) {
        if (data[at + 1] == GRAPHIC_CONTROL)
            *transparent = data[at + 3] & 1 ? data[at + 6] : -1;
        at = skip_pieces(data, bytes, at + 2);
    }
    return at + DESCRIPTOR_BYTES < bytes && data[at] == PICTURE ? at : bytes;
}

uint32_t gif_pictures(const uint8_t *data, size_t bytes)
{
    uint32_t count = 0;
    int transparent;
    size_t at = HEADER_BYTES + palette_bytes(data[10]);
    while ((at = find_picture(data, bytes, at, &transparent)) < bytes) {
        count++;
        at = skip_pieces(data, bytes, at + DESCRIPTOR_BYTES + palette_bytes(data[at + 9]) + 1);
    }
    return count ? count : 1;
}

/* Where the palette of the picture at `at` stands, and how many colours it has. Returns whether it is there. */
static bool find_palette(const uint8_t *data, size_t bytes, size_t at, size_t *palette, size_t *colours)
{
    const bool is_own = data[at + 9] & HAS_PALETTE;
    *palette = is_own ? at + DESCRIPTOR_BYTES : HEADER_BYTES;
    *colours = palette_bytes(is_own ? data[at + 9] : data[10]) / COLOUR_BYTES;
    return *colours > 0 && *palette + *colours * COLOUR_BYTES <= bytes;
}

bool gif_has_transparent_grey(uint8_t *grey, const uint8_t *data, size_t bytes)
{
    if (!gif_is_one(data, bytes))
        return false;
    int transparent;
    const size_t at = find_picture(data, bytes, HEADER_BYTES + palette_bytes(data[10]), &transparent);
    size_t palette, colours;
    if (at >= bytes || transparent < 0 || !find_palette(data, bytes, at, &palette, &colours))
        return false;
    for (size_t i = 0; i < colours * COLOUR_BYTES; i++)
        if (data[palette + i] != i / COLOUR_BYTES)
            return false;
    *grey = (uint8_t)transparent;
    return true;
}

static int little_endian(const uint8_t *data)
{
    return data[0] | data[1] << 8;
}

bool gif_free_space(struct gif_free_space *space, const uint8_t *data, size_t bytes)
{
    if (!gif_is_one(data, bytes))
        return false;
    int transparent;
    const size_t at = find_picture(data, bytes, HEADER_BYTES + palette_bytes(data[10]), &transparent);
    size_t palette, colours;
    if (at >= bytes || transparent >= 0 || !find_palette(data, bytes, at, &palette, &colours))
        return false;
    const uint8_t *picture = data + at;
    *space = (struct gif_free_space){.left = little_endian(picture + 1), .top = little_endian(picture + 3)};
    space->right = space->left + little_endian(picture + 5);
    space->bottom = space->top + little_endian(picture + 7);
    memcpy(space->colour, data + palette, COLOUR_BYTES);
    return true;
}
