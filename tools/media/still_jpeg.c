/* still_jpeg.c: JPEG through libjpeg-turbo, with the settings that Pillow uses (its defaults). */
#include <setjmp.h>
#include <stdio.h> /* jpeglib.h needs it */
#include <stdlib.h>
#include <string.h>

#include <jerror.h>
#include <jpeglib.h>

#include "tools/media/exif.h"
#include "tools/media/still_formats.h"

/* libjpeg reports through functions; an error's must not return. */
struct jpeg_reader {
    struct jpeg_error_mgr manager; /* first, so that libjpeg's pointer to it is one to this */
    jmp_buf jump;
    char text[JMSG_LENGTH_MAX];
    uint8_t *cmyk_row;
};

static void on_error(j_common_ptr jpeg)
{
    struct jpeg_reader *reader = (struct jpeg_reader *)jpeg->err;
    reader->manager.format_message(jpeg, reader->text);
    longjmp(reader->jump, 1);
}

/* Warnings are passed over, as Pillow does, except the one about a file that ends in the middle. */
static void on_message(j_common_ptr jpeg, int level)
{
    if (level >= 0 || jpeg->err->msg_code != JWRN_JPEG_EOF)
        return;
    struct jpeg_reader *reader = (struct jpeg_reader *)jpeg->err;
    snprintf(reader->text, sizeof reader->text, "the file ends too early");
    longjmp(reader->jump, 1);
}

/* Pillow takes every four-channel JPEG as Adobe writes it, inverted, and multiplies the inks with black. */
static void rgb_of_inverted_cmyk(uint8_t *rgb, const uint8_t *cmyk, size_t pixels)
{
    for (size_t i = 0; i < pixels; i++)
        for (size_t c = 0; c < 3; c++) {
            unsigned light = cmyk[4 * i + 3], ink = 255u - cmyk[4 * i + c];
            unsigned product = ink * light + 128;
            rgb[3 * i + c] = (uint8_t)(light - ((product + (product >> 8)) >> 8));
        }
}

/* What the first EXIF block in the header says. */
static int noted_orientation(const struct jpeg_decompress_struct *jpeg)
{
    for (jpeg_saved_marker_ptr marker = jpeg->marker_list; marker; marker = marker->next)
        if (marker->data_length >= 6 && !memcmp(marker->data, "Exif\0\0", 6))
            return exif_orientation(marker->data, marker->data_length);
    return EXIF_UPRIGHT;
}

/* The part between the two ends of libjpeg's error jump. */
static int decode(struct jpeg_decompress_struct *jpeg, struct jpeg_reader *reader, struct still *still,
                  const uint8_t *data, size_t bytes, struct error *error)
{
    if (setjmp(reader->jump))
        return error_set(error, ERROR_BAD_FILE, "cannot be read as JPEG: %s", reader->text);
    jpeg_create_decompress(jpeg);
    jpeg_mem_src(jpeg, data, bytes);
    jpeg_save_markers(jpeg, JPEG_APP0 + 1, 0xffff);
    jpeg_read_header(jpeg, TRUE);
    still->orientation = noted_orientation(jpeg);
    int code = still_allocate(still, jpeg->image_height, jpeg->image_width, error);
    if (code)
        return code;
    bool is_cmyk = jpeg->num_components == 4;
    jpeg->out_color_space = is_cmyk ? JCS_CMYK : JCS_RGB;
    reader->cmyk_row = is_cmyk ? malloc(4 * (size_t)jpeg->image_width) : NULL;
    if (is_cmyk && !reader->cmyk_row)
        return error_set(error, ERROR_NO_MEMORY, "no memory");
    jpeg_start_decompress(jpeg);
    while (jpeg->output_scanline < jpeg->output_height) {
        JSAMPROW row = still->pixels + 3 * (size_t)jpeg->output_scanline * (size_t)still->width;
        JSAMPROW from = is_cmyk ? reader->cmyk_row : row;
        jpeg_read_scanlines(jpeg, &from, 1);
        if (is_cmyk)
            rgb_of_inverted_cmyk(row, from, (size_t)still->width);
    }
    return 0;
}

int still_decode_jpeg(struct still *still, const uint8_t *data, size_t bytes, struct error *error)
{
    struct jpeg_decompress_struct jpeg = {0};
    struct jpeg_reader reader = {0};
    jpeg.err = jpeg_std_error(&reader.manager);
    reader.manager.error_exit = on_error;
    reader.manager.emit_message = on_message;
    int code = decode(&jpeg, &reader, still, data, bytes, error);
    jpeg_destroy_decompress(&jpeg);
    free(reader.cmyk_row);
    return code;
}
