/* sheet.c: see sheet.h. */
#include "tools/lancectl/sheet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bicubic.h"
#include "tools/lancectl/complain.h"
#include "tools/lancectl/source.h"
#include "tools/media/picture_file.h"

enum {
    DEFAULT_CELL = 256,      /* pixels */
    MOST_SHEET_SIDE = 32768, /* pixels */
    BACKGROUND = 32          /* of 255, grey */
};
static const uint64_t most_source_bytes = UINT64_C(1) << 30;

struct sheet {
    uint8_t *pixels; /* [rows x cell, columns x cell, 3] */
    int columns, rows, cell;
};

static int open_sheet(struct sheet *out, const struct arguments *arguments, struct error *error)
{
    const int count = arguments->file_count;
    *out = (struct sheet){.columns = arguments->columns, .cell = arguments->cell ? arguments->cell : DEFAULT_CELL};
    while (!arguments->columns && out->columns * out->columns < count)
        out->columns++;
    out->rows = (count + out->columns - 1) / out->columns;
    if (out->columns > MOST_SHEET_SIDE / out->cell || out->rows > MOST_SHEET_SIDE / out->cell)
        return error_set(error, ERROR_TOO_LARGE,
                         "sheet: %d files in %d columns of %d pixels are over %d pixels a side; make several", count,
                         out->columns, out->cell, MOST_SHEET_SIDE);
    const size_t bytes = (size_t)out->rows * out->columns * out->cell * out->cell * 3;
    out->pixels = malloc(bytes);
    if (!out->pixels)
        return error_set(error, ERROR_NO_MEMORY, "sheet: no memory for %zu bytes of pixels", bytes);
    memset(out->pixels, BACKGROUND, bytes);
    return 0;
}

/* Put a picture [height, width, 3] into the middle of a cell. */
static void place(struct sheet *sheet, int index, const uint8_t *pixels, int height, int width)
{
    const size_t stride = (size_t)sheet->columns * sheet->cell * 3;
    const int top = index / sheet->columns * sheet->cell + (sheet->cell - height) / 2;
    const int left = index % sheet->columns * sheet->cell + (sheet->cell - width) / 2;
    for (int y = 0; y < height; y++)
        memcpy(sheet->pixels + (size_t)(top + y) * stride + (size_t)left * 3, pixels + (size_t)y * width * 3,
               (size_t)width * 3);
}

static int add_file(struct sheet *sheet, int index, const char *path, struct error *error)
{
    struct clip clip;
    const struct source source = {.path = path, .kind = SOURCE_EITHER, .upright = true, .max_bytes = most_source_bytes};
    int code = source_read(&clip, &source, error);
    if (code)
        return code;
    const int longer = clip.height > clip.width ? clip.height : clip.width;
    if (longer <= sheet->cell) {
        place(sheet, index, clip.pixels, clip.height, clip.width);
    } else {
        const int height = (int)((int64_t)clip.height * sheet->cell / longer),
                  width = (int)((int64_t)clip.width * sheet->cell / longer);
        const int small_height = height ? height : 1, small_width = width ? width : 1;
        uint8_t *small = malloc((size_t)small_height * small_width * 3);
        code = small ? bicubic_resize(clip.pixels, (size_t)clip.width * 3, clip.height, clip.width, small, small_height,
                                      small_width, error)
                     : error_set(error, ERROR_NO_MEMORY, "%s: no memory", path);
        if (!code)
            place(sheet, index, small, small_height, small_width);
        free(small);
    }
    clip_free(&clip);
    return code;
}

enum exit_code sheet_command(const struct arguments *arguments)
{
    struct sheet sheet;
    struct error error;
    int code = open_sheet(&sheet, arguments, &error);
    for (int i = 0; !code && i < arguments->file_count; i++)
        code = add_file(&sheet, i, arguments->files[i], &error);
    enum exit_code exit_code = EXIT_OK;
    if (code) {
        complain(code, &error);
        exit_code = EXIT_NOT_READ;
    } else if (picture_write(arguments->output, sheet.pixels, sheet.columns * sheet.cell, sheet.rows * sheet.cell, NULL,
                             &error)) {
        complain(error.code, &error);
        exit_code = EXIT_NOT_WRITTEN;
    } else {
        puts(arguments->output);
    }
    free(sheet.pixels);
    return exit_code;
}
