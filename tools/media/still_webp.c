/* still_webp.c: WebP through libwebp, by way of its animation decoder, as Pillow does. */
#include <webp/demux.h>

#include "tools/media/clip.h"
#include "tools/media/exif.h"
#include "tools/media/still_formats.h"

static int noted_orientation(const WebPDemuxer *demuxer)
{
    WebPChunkIterator chunk;
    if (!WebPDemuxGetChunk(demuxer, "EXIF", 1, &chunk))
        return EXIF_UPRIGHT;
    int orientation = exif_orientation(chunk.chunk.bytes, chunk.chunk.size);
    WebPDemuxReleaseChunkIterator(&chunk);
    return orientation;
}

/* The first picture of an opened file; `rgba` belongs to the decoder. */
static int decode(struct still *still, WebPAnimDecoder *decoder, struct error *error)
{
    WebPAnimInfo info;
    uint8_t *rgba;
    int timestamp;
    if (!WebPAnimDecoderGetInfo(decoder, &info))
        return error_set(error, ERROR_BAD_FILE, "cannot be read as WebP: it has no picture");
    int code = still_allocate(still, info.canvas_height, info.canvas_width, error);
    if (code)
        return code;
    if (!WebPAnimDecoderGetNext(decoder, &rgba, &timestamp))
        return error_set(error, ERROR_BAD_FILE, "cannot be read as WebP: its data are damaged");
    still->orientation = noted_orientation(WebPAnimDecoderGetDemuxer(decoder));
    size_t pixels = (size_t)still->height * (size_t)still->width;
    if (WebPDemuxGetI(WebPAnimDecoderGetDemuxer(decoder), WEBP_FF_FORMAT_FLAGS) & ALPHA_FLAG) {
        still_over_white(still->pixels, rgba, pixels);
        return 0;
    }
    for (size_t i = 0; i < pixels; i++)
        for (size_t c = 0; c < 3; c++)
            still->pixels[3 * i + c] = rgba[4 * i + c];
    return 0;
}

int still_open_webp(WebPAnimDecoder **out, const uint8_t *data, size_t bytes, struct error *error)
{
    const WebPData file = {data, bytes};
    *out = NULL;
    WebPDemuxer *demuxer = WebPDemux(&file);
    if (demuxer) {
        const int code = clip_check_size(WebPDemuxGetI(demuxer, WEBP_FF_CANVAS_HEIGHT),
                                         WebPDemuxGetI(demuxer, WEBP_FF_CANVAS_WIDTH), error);
        WebPDemuxDelete(demuxer);
        if (code)
            return code;
        *out = WebPAnimDecoderNew(&file, NULL);
    }
    if (*out)
        return 0;
    return error_set(error, ERROR_BAD_FILE, "cannot be read as WebP: the file is damaged or ends too early");
}

int still_decode_webp(struct still *still, const uint8_t *data, size_t bytes, struct error *error)
{
    WebPAnimDecoder *decoder;
    int code = still_open_webp(&decoder, data, bytes, error);
    if (!code)
        code = decode(still, decoder, error);
    WebPAnimDecoderDelete(decoder);
    return code;
}
