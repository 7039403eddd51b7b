/* still_heif.c: HEIC, the photos of many phones, through libheif. The official code cannot read it; this is what Pillow
 * gives with the plugin that most use. The format says itself how a picture is turned, and every reader turns it. */
#include <libheif/heif.h>
#include <stdlib.h>
#include <string.h>

#include "tools/media/still_formats.h"

static int bad(struct error *error, const struct heif_error *reason)
{
    return error_set(error, ERROR_BAD_FILE, "cannot be read as HEIC: %s", reason->message);
}

static int convert(struct still *still, const struct heif_image *image, bool has_alpha, struct error *error)
{
    int stride;
    const uint8_t *rows = heif_image_get_plane_readonly(image, heif_channel_interleaved, &stride);
    const int height = heif_image_get_height(image, heif_channel_interleaved),
              width = heif_image_get_width(image, heif_channel_interleaved);
    int code = rows ? still_allocate(still, height, width, error)
                    : error_set(error, ERROR_BAD_FILE, "cannot be read as HEIC: no pixels");
    for (int y = 0; !code && y < height; y++, rows += stride) {
        uint8_t *rgb = still->pixels + 3 * (size_t)y * (size_t)width;
        if (has_alpha)
            still_over_white(rgb, rows, (size_t)width);
        else
            memcpy(rgb, rows, 3 * (size_t)width);
    }
    return code;
}

static int decode(struct still *still, const struct heif_image_handle *picture, struct error *error)
{
    int code = clip_check_size(heif_image_handle_get_height(picture), heif_image_handle_get_width(picture), error);
    if (code)
        return code;
    struct heif_decoding_options *options = heif_decoding_options_alloc();
    if (!options)
        return error_set(error, ERROR_NO_MEMORY, "no memory");
    options->convert_hdr_to_8bit = 1;
    const bool has_alpha = heif_image_handle_has_alpha_channel(picture);
    struct heif_image *image = NULL;
    struct heif_error reason =
        heif_decode_image(picture, &image, heif_colorspace_RGB,
                          has_alpha ? heif_chroma_interleaved_RGBA : heif_chroma_interleaved_RGB, options);
    heif_decoding_options_free(options);
    code = reason.code ? bad(error, &reason) : convert(still, image, has_alpha, error);
    heif_image_release(image);
    return code;
}

int still_decode_heif(struct still *still, const uint8_t *data, size_t bytes, struct error *error)
{
    struct heif_context *context = heif_context_alloc();
    if (!context)
        return error_set(error, ERROR_NO_MEMORY, "no memory");
    struct heif_image_handle *picture = NULL;
    struct heif_error reason = heif_context_read_from_memory_without_copy(context, data, bytes, NULL);
    if (!reason.code)
        reason = heif_context_get_primary_image_handle(context, &picture);
    int code = reason.code ? bad(error, &reason) : decode(still, picture, error);
    heif_image_handle_release(picture);
    heif_context_free(context);
    return code;
}
