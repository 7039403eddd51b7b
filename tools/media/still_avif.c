/* still_avif.c: AVIF through libavif, as in Pillow. */
#include <avif/avif.h>
#include <stdlib.h>

#include "tools/media/exif.h"
#include "tools/media/still_formats.h"

/* The container's own way to say how a picture is turned: by quarters anticlockwise, then mirrored. In EXIF's terms. */
static int noted_orientation(const avifImage *image)
{
    static const int turned[4] = {1, 8, 3, 6}, turned_and_mirrored[4][2] = {{4, 2}, {5, 7}, {2, 4}, {7, 5}};
    const int quarters = image->transformFlags & AVIF_TRANSFORM_IROT ? image->irot.angle & 3 : 0;
    return image->transformFlags & AVIF_TRANSFORM_IMIR ? turned_and_mirrored[quarters][image->imir.mode & 1]
                                                       : turned[quarters];
}

static int convert(struct still *still, const avifImage *image, struct error *error)
{
    int code = still_allocate(still, image->height, image->width, error);
    if (code)
        return code;
    still->orientation = noted_orientation(image);
    const bool has_alpha = image->alphaPlane != NULL;
    avifRGBImage rgb;
    avifRGBImageSetDefaults(&rgb, image);
    rgb.depth = 8;
    rgb.format = has_alpha ? AVIF_RGB_FORMAT_RGBA : AVIF_RGB_FORMAT_RGB;
    rgb.rowBytes = rgb.width * (has_alpha ? 4 : 3);
    rgb.pixels = has_alpha ? malloc((size_t)rgb.rowBytes * rgb.height) : still->pixels;
    if (!rgb.pixels)
        return error_set(error, ERROR_NO_MEMORY, "no memory for %u x %u pixels", rgb.width, rgb.height);
    avifResult result = avifImageYUVToRGB(image, &rgb);
    if (result != AVIF_RESULT_OK)
        code = error_set(error, ERROR_BAD_FILE, "cannot be read as AVIF: %s", avifResultToString(result));
    else if (has_alpha)
        still_over_white(still->pixels, rgb.pixels, (size_t)rgb.width * rgb.height);
    if (has_alpha)
        free(rgb.pixels);
    return code;
}

int still_decode_avif(struct still *still, const uint8_t *data, size_t bytes, struct error *error)
{
    avifDecoder *decoder = avifDecoderCreate();
    if (!decoder)
        return error_set(error, ERROR_NO_MEMORY, "no memory");
    decoder->strictFlags = AVIF_STRICT_DISABLED; /* as Pillow does */
    if (avifCodecName(AVIF_CODEC_CHOICE_AOM, AVIF_CODEC_FLAG_CAN_DECODE)) /* others print what is wrong with a file */
        decoder->codecChoice = AVIF_CODEC_CHOICE_AOM;
    decoder->imageSizeLimit = CLIP_MAX_SIDE * CLIP_MAX_SIDE;
    decoder->maxThreads = 2;
    avifResult result = avifDecoderSetIOMemory(decoder, data, bytes);
    if (result == AVIF_RESULT_OK)
        result = avifDecoderParse(decoder);
    int code = result == AVIF_RESULT_OK ? clip_check_size(decoder->image->height, decoder->image->width, error) : 0;
    if (result == AVIF_RESULT_OK && !code)
        result = avifDecoderNextImage(decoder);
    if (result != AVIF_RESULT_OK)
        code = error_set(error, ERROR_BAD_FILE, "cannot be read as AVIF: %s", avifResultToString(result));
    else if (!code)
        code = convert(still, decoder->image, error);
    avifDecoderDestroy(decoder);
    return code;
}
