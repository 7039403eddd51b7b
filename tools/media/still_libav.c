/* still_libav.c: BMP and GIF through libav's decoders, with the conversions that Pillow and the official code make. */
#include <libavcodec/avcodec.h>
#include <libswscale/swscale.h>
#include <stdlib.h>
#include <string.h>

#include "tools/media/gif.h"
#include "tools/media/libav_reason.h"
#include "tools/media/still_formats.h"

/* Pillow spreads the 5 or 6 bits of a 16-bit pixel's colours over 0 to 255, rounding down. */
static void rgb_of_16_bits(uint8_t *rgb, const uint8_t *row, int width, int green_bits)
{
    const unsigned green_most = (1u << green_bits) - 1;
    for (int x = 0; x < width; x++, rgb += 3) {
        unsigned pixel = row[2 * x] | (unsigned)row[2 * x + 1] << 8;
        rgb[0] = (uint8_t)((pixel >> (5 + green_bits) & 31) * 255 / 31);
        rgb[1] = (uint8_t)((pixel >> 5 & green_most) * 255 / green_most);
        rgb[2] = (uint8_t)((pixel & 31) * 255 / 31);
    }
}

/* Convert a row in the ways that libswscale does not share with Pillow. Returns whether it is such a format. */
static bool convert_row(uint8_t *rgb, const AVFrame *frame, int y)
{
    const uint8_t *row = frame->data[0] + (ptrdiff_t)y * frame->linesize[0];
    switch (frame->format) {
    case AV_PIX_FMT_RGB555LE: rgb_of_16_bits(rgb, row, frame->width, 5); return true;
    case AV_PIX_FMT_RGB565LE: rgb_of_16_bits(rgb, row, frame->width, 6); return true;
    default: return false;
    }
}

/* RGBA pixels of the frame, malloc'ed, in *rgba. */
static int convert_to_rgba(const AVFrame *frame, uint8_t **rgba, struct error *error)
{
    /* libswscale's vector code may write a little beyond the end. */
    *rgba = malloc(4 * (size_t)frame->height * (size_t)frame->width + 256);
    if (!*rgba)
        return error_set(error, ERROR_NO_MEMORY, "no memory for %d x %d pixels", frame->width, frame->height);
    struct SwsContext *scaler =
        sws_getContext(frame->width, frame->height, (enum AVPixelFormat)frame->format, frame->width, frame->height,
                       AV_PIX_FMT_RGBA, SWS_POINT | SWS_ACCURATE_RND, NULL, NULL, NULL);
    const int stride = 4 * frame->width;
    bool is_converted = scaler && sws_scale(scaler, (const uint8_t *const *)frame->data, frame->linesize, 0,
                                            frame->height, rgba, &stride) == frame->height;
    sws_freeContext(scaler);
    return is_converted ? 0 : error_set(error, ERROR_BAD_FILE, "has pixels of a kind that cannot be converted");
}

/* A BMP of 32 bits without masks has nothing that counts in its fourth byte. */
static void forget_alpha(uint8_t *rgba, size_t pixels)
{
    for (size_t i = 0; i < pixels; i++)
        rgba[4 * i + 3] = 255;
}

/* What the first picture of a GIF leaves free of the canvas has the background's colour in libav, and another one in
 * Pillow. */
static void fill_canvas(uint8_t *rgba, const AVFrame *frame, const AVPacket *file)
{
    struct gif_free_space space;
    uint8_t grey;
    if (gif_has_transparent_grey(&grey, file->data, (size_t)file->size)) {
        for (size_t i = 0; i < (size_t)frame->height * (size_t)frame->width; i++)
            if (rgba[4 * i + 3] == 0)
                memcpy(rgba + 4 * i, (const uint8_t[4]){grey, grey, grey, 255}, 4);
        return;
    }
    if (!gif_free_space(&space, file->data, (size_t)file->size))
        return;
    for (int y = 0; y < frame->height; y++)
        for (int x = 0; x < frame->width; x++, rgba += 4)
            if (y < space.top || y >= space.bottom || x < space.left || x >= space.right) {
                memcpy(rgba, space.colour, 3);
                rgba[3] = 255;
            }
}

static int convert(struct still *still, const AVFrame *frame, enum AVCodecID kind, const AVPacket *file,
                   struct error *error)
{
    enum { BMP_COMPRESSION = 30 }; /* where the header has it */
    int y = 0;
    while (y < still->height && convert_row(still->pixels + 3 * (size_t)y * (size_t)still->width, frame, y))
        y++;
    if (y == still->height)
        return 0;
    const size_t pixels = (size_t)still->height * (size_t)still->width;
    uint8_t *rgba;
    int code = convert_to_rgba(frame, &rgba, error);
    if (!code) {
        if (kind == AV_CODEC_ID_GIF)
            fill_canvas(rgba, frame, file);
        else if (file->size > BMP_COMPRESSION && file->data[BMP_COMPRESSION] == 0)
            forget_alpha(rgba, pixels);
        still_over_white(still->pixels, rgba, pixels);
    }
    free(rgba);
    return code;
}

/* The whole file is one packet to these decoders; of an animation they decode the first picture. */
static int decode(struct still *still, AVCodecContext *codec, AVPacket *packet, AVFrame *frame, struct error *error)
{
    char reason[LIBAV_REASON_BYTES];
    int status = avcodec_open2(codec, NULL, NULL);
    if (status >= 0)
        status = avcodec_send_packet(codec, packet);
    if (status >= 0)
        status = avcodec_receive_frame(codec, frame);
    if (status < 0)
        return error_set(error, ERROR_BAD_FILE, "cannot be read as %s: %s", avcodec_get_name(codec->codec_id),
                         libav_reason(reason, status));
    int code = still_allocate(still, frame->height, frame->width, error);
    return code ? code : convert(still, frame, codec->codec_id, packet, error);
}

static int decode_as(enum AVCodecID kind, struct still *still, const uint8_t *data, size_t bytes, struct error *error)
{
    av_log_set_level(AV_LOG_QUIET);
    const AVCodec *decoder = avcodec_find_decoder(kind);
    if (!decoder)
        return error_set(error, ERROR_BAD_FILE, "is %s, for which libav has no decoder here", avcodec_get_name(kind));
    AVCodecContext *codec = avcodec_alloc_context3(decoder);
    AVPacket *packet = av_packet_alloc();
    AVFrame *frame = av_frame_alloc();
    int code;
    if (!codec || !packet || !frame || bytes > INT32_MAX - AV_INPUT_BUFFER_PADDING_SIZE ||
        av_new_packet(packet, (int)bytes) < 0) {
        code = error_set(error, ERROR_NO_MEMORY, "no memory for a file of %zu bytes", bytes);
    } else {
        memcpy(packet->data, data, bytes);
        codec->err_recognition = AV_EF_EXPLODE;
        codec->max_pixels = (int64_t)CLIP_MAX_SIDE * CLIP_MAX_SIDE;
        code = decode(still, codec, packet, frame, error);
    }
    avcodec_free_context(&codec);
    av_packet_free(&packet);
    av_frame_free(&frame);
    return code;
}

int still_decode_bmp(struct still *still, const uint8_t *data, size_t bytes, struct error *error)
{
    return decode_as(AV_CODEC_ID_BMP, still, data, bytes, error);
}

int still_decode_gif(struct still *still, const uint8_t *data, size_t bytes, struct error *error)
{
    return decode_as(AV_CODEC_ID_GIF, still, data, bytes, error);
}
