/* picture_file.c: see picture_file.h. */
#include "tools/media/picture_file.h"

#include <errno.h>
#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/descriptor.h"
#include "base/whole_file.h"

/* libpng reports through a function that must not return; the message waits in here. */
struct png_trouble {
    jmp_buf jump;
    char text[160];
};

static void on_png_error(png_structp png, png_const_charp text)
{
    struct png_trouble *trouble = png_get_error_ptr(png);
    snprintf(trouble->text, sizeof trouble->text, "%s", text);
    longjmp(trouble->jump, 1);
}

static void on_png_warning(png_structp png, png_const_charp text)
{
    (void)png;
    (void)text;
}

/* ---- Writing ---- */

/* What is written. */
struct png_content {
    const uint8_t *pixels;
    int width, height;
    const struct picture_text *texts;
    int count;
};

static void set_texts(png_structp png, png_infop info, const struct png_content *content)
{
    for (int i = 0; i < content->count; i++) {
        if (!content->texts[i].text)
            continue;
        png_text text = {.compression = PNG_TEXT_COMPRESSION_NONE,
                         .key = (png_charp)content->texts[i].keyword,
                         .text = (png_charp)content->texts[i].text,
                         .text_length = strlen(content->texts[i].text)};
        png_set_text(png, info, &text, 1);
    }
}

/* The part between the two ends of libpng's error jump. */
static int encode(png_structp png, png_infop info, struct png_trouble *trouble, FILE *file,
                  const struct png_content *content)
{
    if (setjmp(trouble->jump))
        return -1;
    png_init_io(png, file);
    png_set_IHDR(png, info, (png_uint_32)content->width, (png_uint_32)content->height, 8, PNG_COLOR_TYPE_RGB,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    set_texts(png, info, content);
    png_write_info(png, info);
    for (int y = 0; y < content->height; y++)
        png_write_row(png, content->pixels + (size_t)y * (size_t)content->width * 3);
    png_write_end(png, info);
    return 0;
}

/* Write the PNG into an open file. Returns 0, or -1 with *reason. */
static int write_png(FILE *file, const struct png_content *content, char reason[WHOLE_FILE_REASON_BYTES])
{
    struct png_trouble trouble = {.text = "out of memory"};
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &trouble, on_png_error, on_png_warning);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    errno = 0;
    int status = info ? encode(png, info, &trouble, file, content) : -1;
    if (!status && fflush(file))
        status = -1;
    int system_reason = errno; /* a write that failed under libpng has left its reason here */
    png_destroy_write_struct(&png, &info);
    if (status)
        snprintf(reason, WHOLE_FILE_REASON_BYTES, "%s", system_reason ? strerror(system_reason) : trouble.text);
    return status;
}

int picture_write(const char *path, const uint8_t *pixels, int width, int height, const char *receipt,
                  struct error *error)
{
    const struct picture_text text = {PICTURE_RECEIPT, receipt};
    return picture_write_texts(path, pixels, width, height, &text, 1, error);
}

int picture_write_texts(const char *path, const uint8_t *pixels, int width, int height,
                        const struct picture_text *texts, int count, struct error *error)
{
    const struct png_content content = {pixels, width, height, texts, count};
    struct whole_file whole;
    int code = whole_file_begin(&whole, path, error);
    if (code)
        return code;
    char reason[WHOLE_FILE_REASON_BYTES] = "";
    FILE *file = fopen(whole.temporary, "wb");
    int status = file ? write_png(file, &content, reason) : -1;
    if (file && fclose(file))
        status = -1;
    if (status && !*reason)
        snprintf(reason, sizeof reason, "%s", strerror(errno));
    return whole_file_end(&whole, status ? reason : NULL, error);
}

/* ---- Reading ---- */

/* Copy the receipt out of what has been read so far. */
static char *find_receipt(png_structp png, png_infop info)
{
    png_textp texts;
    int count = 0;
    png_get_text(png, info, &texts, &count);
    for (int i = 0; i < count; i++)
        if (!strcmp(texts[i].key, PICTURE_RECEIPT))
            return strdup(texts[i].text);
    return NULL;
}

/* The part between the two ends of libpng's error jump. Text may stand before or behind the pixels. */
static int decode_receipt(png_structp png, png_infop info, struct png_trouble *trouble, FILE *file, char **receipt)
{
    if (setjmp(trouble->jump))
        return -1;
    png_init_io(png, file);
    png_read_info(png, info);
    *receipt = find_receipt(png, info);
    if (!*receipt) {
        int passes = png_set_interlace_handling(png);
        png_read_update_info(png, info);
        for (int pass = 0; pass < passes; pass++)
            for (png_uint_32 y = 0; y < png_get_image_height(png, info); y++)
                png_read_row(png, NULL, NULL);
        png_read_end(png, info);
        *receipt = find_receipt(png, info);
    }
    return 0;
}

int picture_read_receipt(char **receipt, const char *path, struct error *error)
{
    *receipt = NULL;
    FILE *file = regular_file_open(path);
    if (!file)
        return error_set(error, ERROR_IO, "cannot read %s: %s", path,
                         errno == EINVAL ? "it is no regular file" : strerror(errno));
    uint8_t signature[8];
    if (fread(signature, 1, sizeof signature, file) != sizeof signature ||
        png_sig_cmp(signature, 0, sizeof signature)) {
        fclose(file);
        return error_set(error, ERROR_BAD_FILE, "%s has no receipt: it is no PNG", path);
    }
    rewind(file);
    struct png_trouble trouble = {.text = "out of memory"};
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &trouble, on_png_error, on_png_warning);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    int code = info ? decode_receipt(png, info, &trouble, file, receipt) : -1;
    png_destroy_read_struct(&png, &info, NULL);
    fclose(file);
    if (code)
        return error_set(error, ERROR_BAD_FILE, "%s is not a readable PNG: %s", path, trouble.text);
    if (!*receipt)
        return error_set(error, ERROR_BAD_FILE, "%s has no receipt: it was not written by lancectl, or edited since",
                         path);
    return 0;
}
