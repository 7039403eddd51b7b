/* exif.c: see exif.h. EXIF is a small TIFF file: a header, then a table of entries of 12 bytes. */
#include "tools/media/exif.h"

#include <stdbool.h>
#include <string.h>

struct exif {
    const uint8_t *data;
    size_t bytes;
    bool is_big_endian;
};

/* A number of 2 or 4 bytes; 0 beyond the end. */
static uint32_t number_at(const struct exif *exif, size_t at, size_t size)
{
    uint32_t number = 0;
    if (at > exif->bytes || exif->bytes - at < size)
        return 0;
    for (size_t i = 0; i < size; i++)
        number = number << 8 | exif->data[at + (exif->is_big_endian ? i : size - 1 - i)];
    return number;
}

int exif_orientation(const uint8_t *data, size_t bytes)
{
    enum { ENTRY_BYTES = 12, ORIENTATION_TAG = 0x112, SHORT_TYPE = 3 };
    if (bytes >= 6 && !memcmp(data, "Exif\0\0", 6)) {
        data += 6;
        bytes -= 6;
    }
    if (bytes < 8 || (memcmp(data, "II*\0", 4) && memcmp(data, "MM\0*", 4)))
        return EXIF_UPRIGHT;
    const struct exif exif = {data, bytes, *data == 'M'};
    const size_t table = number_at(&exif, 4, 4);
    const uint32_t entries = number_at(&exif, table, 2);
    for (uint32_t i = 0; i < entries; i++) {
        const size_t entry = table + 2 + (size_t)i * ENTRY_BYTES;
        const uint32_t value = number_at(&exif, entry + 8, 2);
        if (number_at(&exif, entry, 2) == ORIENTATION_TAG && number_at(&exif, entry + 2, 2) == SHORT_TYPE)
            return value >= EXIF_UPRIGHT && value <= EXIF_LAST_ORIENTATION ? (int)value : EXIF_UPRIGHT;
    }
    return EXIF_UPRIGHT;
}

const char *exif_turn_in_words(int orientation)
{
    static const char *const words[EXIF_LAST_ORIENTATION + 1] = {
        [2] = "mirrored left to right",
        [3] = "turned by 180 degrees",
        [4] = "mirrored top to bottom",
        [5] = "mirrored left to right and turned by 90 degrees anticlockwise",
        [6] = "turned by 90 degrees clockwise",
        [7] = "mirrored left to right and turned by 90 degrees clockwise",
        [8] = "turned by 90 degrees anticlockwise",
    };
    return orientation > EXIF_UPRIGHT && orientation <= EXIF_LAST_ORIENTATION ? words[orientation] : "left as it is";
}
