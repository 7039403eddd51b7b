/* still_png.c: PNG through libpng, with the conversions that Pillow and the official code make. */
#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/media/exif.h"
#include "tools/media/still_formats.h"

/* One decoding: what libpng's functions are handed back, and what has to be freed after its error jump. */
struct png_reader {
    const uint8_t *next;
    size_t left;
    uint8_t *samples; /* as libpng delivers them */
    png_bytep *rows;
    jmp_buf jump;
    char text[160];
};

static void on_error(png_structp png, png_const_charp text)
{
    struct png_reader *reader = png_get_error_ptr(png);
    snprintf(reader->text, sizeof reader->text, "%s", text);
    longjmp(reader->jump, 1);
}

static void on_warning(png_structp png, png_const_charp text)
{
    (void)png;
    (void)text;
}

static void on_read(png_structp png, png_bytep out, size_t bytes)
{
    struct png_reader *reader = png_get_io_ptr(png);
    if (bytes > reader->left)
        png_error(png, "the file ends too early");
    memcpy(out, reader->next, bytes);
    reader->next += bytes;
    reader->left -= bytes;
}

/* Ask for 8-bit RGB or RGBA; 16-bit grey stays. Returns the channels and bytes of a delivered sample. A transparent
 * colour of a picture without a palette is ignored, and so is the alpha of 8-bit grey, as the official code does. */
static void set_conversions(png_structp png, int type, int depth, int *channels, int *sample_bytes)
{
    *channels = 3;
    *sample_bytes = 1;
    if (type == PNG_COLOR_TYPE_GRAY && depth == 16) {
        *channels = 1;
        *sample_bytes = 2;
    } else if (type == PNG_COLOR_TYPE_GRAY) {
        png_set_expand_gray_1_2_4_to_8(png);
        png_set_gray_to_rgb(png);
    } else if (type == PNG_COLOR_TYPE_GRAY_ALPHA && depth == 8) {
        png_set_strip_alpha(png);
        png_set_gray_to_rgb(png);
    } else if (type == PNG_COLOR_TYPE_PALETTE) {
        png_set_palette_to_rgb(png);
        png_set_filler(png, 255, PNG_FILLER_AFTER);
        *channels = 4;
    } else {
        if (depth == 16)
            png_set_strip_16(png);
        if (type == PNG_COLOR_TYPE_GRAY_ALPHA)
            png_set_gray_to_rgb(png);
        *channels = type == PNG_COLOR_TYPE_RGB ? 3 : 4;
    }
}

/* Pillow's way from 16-bit grey to 8 bits clips: whatever is above 255 is white. */
static void clip_grey16(uint8_t *rgb, const uint8_t *big_endian, size_t pixels)
{
    for (size_t i = 0; i < pixels; i++)
        memset(rgb + 3 * i, big_endian[2 * i] ? 255 : big_endian[2 * i + 1], 3);
}

/* The part between the two ends of libpng's error jump. Returns 0 or an error code; -1 after the jump. */
static int decode(png_structp png, png_infop info, struct png_reader *reader, struct still *still, struct error *error)
{
    if (setjmp(reader->jump))
        return error_set(error, ERROR_BAD_FILE, "cannot be read as PNG: %s", reader->text);
    png_set_read_fn(png, reader, on_read);
    png_set_user_limits(png, 0x7fffffff, 0x7fffffff); /* still_allocate has the limit that is told to the user */
    png_read_info(png, info);
    png_uint_32 width = png_get_image_width(png, info), height = png_get_image_height(png, info);
    int code = still_allocate(still, height, width, error);
    if (code)
        return code;
    png_uint_32 exif_bytes;
    png_bytep exif;
    if (png_get_eXIf_1(png, info, &exif_bytes, &exif))
        still->orientation = exif_orientation(exif, exif_bytes);
    int channels, sample_bytes;
    set_conversions(png, png_get_color_type(png, info), png_get_bit_depth(png, info), &channels, &sample_bytes);
    png_set_interlace_handling(png);
    png_read_update_info(png, info);
    size_t stride = (size_t)width * (size_t)(channels * sample_bytes);
    if (png_get_rowbytes(png, info) != stride)
        return error_set(error, ERROR_INTERNAL, "is a PNG of an unexpected layout");
    bool is_direct = channels == 3;
    reader->samples = is_direct ? still->pixels : malloc(stride * height);
    reader->rows = malloc(height * sizeof *reader->rows);
    if (!reader->samples || !reader->rows)
        return error_set(error, ERROR_NO_MEMORY, "no memory for %u x %u pixels", width, height);
    for (png_uint_32 y = 0; y < height; y++)
        reader->rows[y] = reader->samples + y * stride;
    png_read_image(png, reader->rows);
    if (channels == 4)
        still_over_white(still->pixels, reader->samples, (size_t)width * height);
    else if (channels == 1)
        clip_grey16(still->pixels, reader->samples, (size_t)width * height);
    return 0;
}

int still_decode_png(struct still *still, const uint8_t *data, size_t bytes, struct error *error)
{
    struct png_reader reader = {.next = data, .left = bytes};
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &reader, on_error, on_warning);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    int code = info ? decode(png, info, &reader, still, error) : error_set(error, ERROR_NO_MEMORY, "no memory");
    png_destroy_read_struct(&png, &info, NULL);
    if (reader.samples != still->pixels)
        free(reader.samples);
    free(reader.rows);
    return code;
}
