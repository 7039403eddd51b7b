/* still_tiff.c: TIFF through libtiff, to the pixels that Pillow gives the official code: of several pages the first,
 * turned as its orientation says (of all formats Pillow does that with this one alone). */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tiffio.h>

#include "tools/media/still_formats.h"

/* A file in memory, as libtiff's functions are handed it back, and what was wrong with it. */
struct tiff_source {
    const uint8_t *data;
    toff_t bytes, at;
    char text[160];
};

/* The picture as libtiff delivers it: its samples side by side, of 1 to 16 bits in the machine's order. */
struct tiff_picture {
    uint32_t width, height;
    uint16_t bits, samples, photometric, planes_are_separate;
    bool has_alpha, is_premultiplied;
    size_t stride; /* bytes of a row */
    uint8_t *rows;
    uint16_t *palette[3]; /* libtiff's */
};

static tmsize_t on_read(thandle_t handle, void *out, tmsize_t bytes)
{
    struct tiff_source *source = handle;
    toff_t left = source->at < source->bytes ? source->bytes - source->at : 0;
    toff_t taken = (toff_t)bytes < left ? (toff_t)bytes : left;
    if (taken)
        memcpy(out, source->data + source->at, taken);
    source->at += taken;
    return (tmsize_t)taken;
}

static tmsize_t on_write(thandle_t handle, void *data, tmsize_t bytes)
{
    (void)handle, (void)data, (void)bytes;
    return -1;
}

static toff_t on_seek(thandle_t handle, toff_t offset, int whence)
{
    struct tiff_source *source = handle;
    source->at = offset + (whence == SEEK_CUR ? source->at : whence == SEEK_END ? source->bytes : 0);
    return source->at;
}

static int on_close(thandle_t handle)
{
    (void)handle;
    return 0;
}

static toff_t on_size(thandle_t handle)
{
    return ((struct tiff_source *)handle)->bytes;
}

static int on_error(TIFF *tiff, void *handle, const char *module, const char *format, va_list arguments)
{
    struct tiff_source *source = handle;
    (void)tiff, (void)module;
    vsnprintf(source->text, sizeof source->text, format, arguments);
    return 1;
}

static int on_warning(TIFF *tiff, void *handle, const char *module, const char *format, va_list arguments)
{
    (void)tiff, (void)handle, (void)module, (void)format, (void)arguments;
    return 1;
}

static int read_layout(TIFF *tiff, struct tiff_picture *picture, struct error *error)
{
    uint16_t sample_format, extra_count, *extra;
    TIFFGetFieldDefaulted(tiff, TIFFTAG_BITSPERSAMPLE, &picture->bits);
    TIFFGetFieldDefaulted(tiff, TIFFTAG_SAMPLESPERPIXEL, &picture->samples);
    TIFFGetFieldDefaulted(tiff, TIFFTAG_SAMPLEFORMAT, &sample_format);
    TIFFGetFieldDefaulted(tiff, TIFFTAG_EXTRASAMPLES, &extra_count, &extra);
    if (!TIFFGetField(tiff, TIFFTAG_PHOTOMETRIC, &picture->photometric))
        picture->photometric = PHOTOMETRIC_MINISWHITE;
    uint16_t planar;
    TIFFGetFieldDefaulted(tiff, TIFFTAG_PLANARCONFIG, &planar);
    picture->planes_are_separate = planar == PLANARCONFIG_SEPARATE && picture->samples > 1;
    const uint16_t bits = picture->bits, colour = picture->photometric;
    const bool is_three = colour == PHOTOMETRIC_RGB || colour == PHOTOMETRIC_YCBCR;
    const uint16_t needed = is_three ? 3 : colour == PHOTOMETRIC_SEPARATED ? 4 : 1;
    bool is_grey = colour == PHOTOMETRIC_MINISWHITE || colour == PHOTOMETRIC_MINISBLACK;
    bool is_known = is_grey || is_three || colour == PHOTOMETRIC_PALETTE || colour == PHOTOMETRIC_SEPARATED;
    bool is_depth = bits == 8 || (bits == 16 && colour != PHOTOMETRIC_PALETTE && colour != PHOTOMETRIC_YCBCR) ||
                    ((bits == 1 || bits == 2 || bits == 4) && needed == 1 && picture->samples == 1);
    if (!is_known || !is_depth || sample_format != SAMPLEFORMAT_UINT || picture->samples < needed ||
        picture->samples > needed + 4)
        return error_set(error, ERROR_BAD_FILE,
                         "is a TIFF of a kind that is not read: %d samples of %d bits, photometric %d, format %d",
                         picture->samples, bits, colour, sample_format);
    if (colour == PHOTOMETRIC_PALETTE &&
        !TIFFGetField(tiff, TIFFTAG_COLORMAP, &picture->palette[0], &picture->palette[1], &picture->palette[2]))
        return error_set(error, ERROR_BAD_FILE, "is a TIFF with a palette that is not there");
    /* A fourth sample that nothing is said about is alpha, to Pillow. */
    picture->has_alpha =
        colour == PHOTOMETRIC_RGB && picture->samples > 3 && (extra_count == 0 || extra[0] != EXTRASAMPLE_UNSPECIFIED);
    picture->is_premultiplied = extra_count > 0 && extra[0] == EXTRASAMPLE_ASSOCALPHA;
    return 0;
}

/* Put `rows` decoded rows of one strip or tile at (x, y); `sample` is the plane's, where planes are separate. */
static void place(struct tiff_picture *picture, const uint8_t *from, size_t from_stride, uint32_t x, uint32_t y,
                  uint32_t rows, uint32_t columns, uint16_t sample)
{
    const size_t sample_bytes = picture->bits == 16 ? 2 : 1;
    const size_t pixel_bytes = sample_bytes * picture->samples;
    for (uint32_t row = 0; row < rows && y + row < picture->height; row++, from += from_stride) {
        uint8_t *to = picture->rows + (size_t)(y + row) * picture->stride;
        uint32_t count = columns < picture->width - x ? columns : picture->width - x;
        if (picture->planes_are_separate)
            for (uint32_t i = 0; i < count; i++)
                memcpy(to + (x + i) * pixel_bytes + sample * sample_bytes, from + i * sample_bytes, sample_bytes);
        else if (picture->bits < 8) /* tiles are multiples of 16 pixels, so they begin with a byte */
            memcpy(to + (size_t)x * picture->bits / 8, from, ((size_t)count * picture->bits + 7) / 8);
        else
            memcpy(to + x * pixel_bytes, from, count * pixel_bytes);
    }
}

static bool read_samples(TIFF *tiff, struct tiff_picture *picture)
{
    const uint16_t planes = picture->planes_are_separate ? picture->samples : 1;
    const bool is_tiled = TIFFIsTiled(tiff);
    uint32_t columns = picture->width, rows = picture->height;
    if (is_tiled &&
        (!TIFFGetField(tiff, TIFFTAG_TILEWIDTH, &columns) || !TIFFGetField(tiff, TIFFTAG_TILELENGTH, &rows)))
        return false;
    if (!is_tiled)
        TIFFGetFieldDefaulted(tiff, TIFFTAG_ROWSPERSTRIP, &rows);
    rows = rows < picture->height || is_tiled ? rows : picture->height;
    const tmsize_t stride = is_tiled ? TIFFTileRowSize(tiff) : TIFFScanlineSize(tiff);
    const tmsize_t part_bytes = is_tiled ? TIFFTileSize(tiff) : TIFFStripSize(tiff);
    const size_t needed =
        ((size_t)columns * picture->bits * (picture->planes_are_separate ? 1 : picture->samples) + 7) / 8;
    if (!rows || !columns || stride <= 0 || (size_t)stride < needed || part_bytes / stride < rows)
        return false;
    uint8_t *part = calloc(1, (size_t)part_bytes);
    bool is_read = part != NULL;
    for (uint16_t plane = 0; plane < planes && is_read; plane++)
        for (uint32_t y = 0; y < picture->height && is_read; y += rows)
            for (uint32_t x = 0; x < picture->width && is_read; x += columns) {
                tmsize_t got = is_tiled
                                   ? TIFFReadEncodedTile(tiff, TIFFComputeTile(tiff, x, y, 0, plane), part, part_bytes)
                                   : TIFFReadEncodedStrip(tiff, TIFFComputeStrip(tiff, y, plane), part, part_bytes);
                uint32_t left = picture->height - y < rows ? picture->height - y : rows;
                is_read = got >= 0 && (uint64_t)got >= (uint64_t)stride * (is_tiled ? rows : left);
                if (is_read)
                    place(picture, part, (size_t)stride, x, y, left, columns, plane);
            }
    free(part);
    return is_read;
}

/* Sample `index` of a row, counted over all its pixels; `most` is the greatest value of so many bits. */
static unsigned sample_at(const struct tiff_picture *picture, const uint8_t *row, size_t index)
{
    if (picture->bits == 16) {
        uint16_t value;
        memcpy(&value, row + 2 * index, sizeof value);
        return value;
    }
    if (picture->bits == 8)
        return row[index];
    size_t bit = index * picture->bits;
    return row[bit / 8] >> (8 - picture->bits - bit % 8) & ((1u << picture->bits) - 1);
}

static void grey_pixel(const struct tiff_picture *picture, unsigned value, uint8_t rgb[3])
{
    const unsigned most = (1u << picture->bits) - 1;
    if (picture->bits == 16) /* Pillow clips, and does not invert */
        value = value > 255 ? 255 : value;
    else
        value = (picture->photometric == PHOTOMETRIC_MINISWHITE ? most - value : value) * 255 / most;
    memset(rgb, (int)value, 3);
}

/* Pillow's formula, without colour profiles. */
static void cmyk_pixel(const uint8_t cmyk[4], uint8_t rgb[3])
{
    for (int c = 0; c < 3; c++) {
        unsigned light = 255u - cmyk[3], product = cmyk[c] * light + 128;
        rgb[c] = (uint8_t)(light - ((product + (product >> 8)) >> 8));
    }
}

static void alpha_pixel(const struct tiff_picture *picture, uint8_t rgba[4], uint8_t rgb[3])
{
    if (picture->is_premultiplied && rgba[3] > 0 && rgba[3] < 255)
        for (int c = 0; c < 3; c++)
            rgba[c] = (uint8_t)(255u * rgba[c] / rgba[3] > 255 ? 255 : 255u * rgba[c] / rgba[3]);
    still_over_white(rgb, rgba, 1);
}

static void convert(struct still *still, const struct tiff_picture *picture)
{
    uint8_t *rgb = still->pixels;
    for (uint32_t y = 0; y < picture->height; y++) {
        const uint8_t *row = picture->rows + y * picture->stride;
        for (uint32_t x = 0; x < picture->width; x++, rgb += 3) {
            const size_t first = (size_t)x * picture->samples;
            const unsigned value = sample_at(picture, row, first);
            uint8_t of8[4]; /* of 16 bits the upper byte counts */
            for (unsigned c = 0; c < 4; c++)
                of8[c] = c < picture->samples
                             ? (uint8_t)(sample_at(picture, row, first + c) >> (picture->bits == 16 ? 8 : 0))
                             : 255;
            if (picture->photometric == PHOTOMETRIC_PALETTE)
                for (int c = 0; c < 3; c++)
                    rgb[c] = (uint8_t)(picture->palette[c][value] / 256);
            else if (picture->photometric == PHOTOMETRIC_SEPARATED)
                cmyk_pixel(of8, rgb);
            else if (picture->has_alpha)
                alpha_pixel(picture, of8, rgb);
            else if (picture->photometric == PHOTOMETRIC_RGB || picture->photometric == PHOTOMETRIC_YCBCR)
                memcpy(rgb, of8, 3);
            else
                grey_pixel(picture, value, rgb);
        }
    }
}

/* YCbCr becomes RGB in libtiff or, in a JPEG inside of the TIFF, in libjpeg. */
static bool read_ycbcr(TIFF *tiff, struct tiff_picture *picture)
{
    uint16_t compression;
    TIFFGetFieldDefaulted(tiff, TIFFTAG_COMPRESSION, &compression);
    if (compression == COMPRESSION_JPEG && !picture->planes_are_separate) {
        TIFFSetField(tiff, TIFFTAG_JPEGCOLORMODE, JPEGCOLORMODE_RGB);
        return read_samples(tiff, picture);
    }
    uint32_t *abgr = malloc(sizeof *abgr * (size_t)picture->width * picture->height);
    uint16_t orientation; /* the same, so that nothing is turned here */
    TIFFGetFieldDefaulted(tiff, TIFFTAG_ORIENTATION, &orientation);
    bool is_read = abgr && TIFFReadRGBAImageOriented(tiff, picture->width, picture->height, abgr, orientation, 1);
    for (size_t i = 0; is_read && i < (size_t)picture->width * picture->height; i++) {
        const uint8_t rgb[3] = {(uint8_t)TIFFGetR(abgr[i]), (uint8_t)TIFFGetG(abgr[i]), (uint8_t)TIFFGetB(abgr[i])};
        memcpy(picture->rows + 3 * i, rgb, 3);
    }
    free(abgr);
    picture->samples = 3;
    return is_read;
}

static int decode(TIFF *tiff, struct tiff_source *source, struct tiff_picture *picture, struct still *still,
                  struct error *error)
{
    if (!TIFFGetField(tiff, TIFFTAG_IMAGEWIDTH, &picture->width) ||
        !TIFFGetField(tiff, TIFFTAG_IMAGELENGTH, &picture->height))
        return error_set(error, ERROR_BAD_FILE, "cannot be read as TIFF: it does not tell its size");
    int code = still_allocate(still, picture->height, picture->width, error);
    if (!code)
        code = read_layout(tiff, picture, error);
    if (code)
        return code;
    picture->stride = ((size_t)picture->width * picture->samples * picture->bits + 7) / 8;
    picture->rows = calloc(picture->height, picture->stride);
    if (!picture->rows)
        return error_set(error, ERROR_NO_MEMORY, "no memory for %u x %u pixels", picture->width, picture->height);
    *source->text = '\0';
    bool is_read = picture->photometric == PHOTOMETRIC_YCBCR ? read_ycbcr(tiff, picture) : read_samples(tiff, picture);
    if (!is_read)
        return error_set(error, ERROR_BAD_FILE, "cannot be read as TIFF: %s",
                         *source->text ? source->text : "the file is damaged or ends too early");
    if (picture->photometric == PHOTOMETRIC_YCBCR)
        picture->stride = 3 * (size_t)picture->width;
    convert(still, picture);
    uint16_t orientation = ORIENTATION_TOPLEFT;
    TIFFGetFieldDefaulted(tiff, TIFFTAG_ORIENTATION, &orientation);
    return still_turn(still, orientation, error);
}

int still_decode_tiff(struct still *still, const uint8_t *data, size_t bytes, struct error *error)
{
    struct tiff_source source = {.data = data, .bytes = bytes};
    struct tiff_picture picture = {0};
    TIFFOpenOptions *options = TIFFOpenOptionsAlloc();
    if (!options)
        return error_set(error, ERROR_NO_MEMORY, "no memory");
    TIFFOpenOptionsSetErrorHandlerExtR(options, on_error, &source);
    TIFFOpenOptionsSetWarningHandlerExtR(options, on_warning, NULL);
    TIFF *tiff =
        TIFFClientOpenExt("", "rm", &source, on_read, on_write, on_seek, on_close, on_size, NULL, NULL, options);
    TIFFOpenOptionsFree(options);
    int code = tiff ? decode(tiff, &source, &picture, still, error)
                    : error_set(error, ERROR_BAD_FILE, "cannot be read as TIFF: %s",
                                *source.text ? source.text : "it is damaged");
    if (tiff)
        TIFFClose(tiff);
    free(picture.rows);
    return code;
}
