/* loaded_frames.c: see loaded_frames.h. */
#include "tools/media/loaded_frames.h"

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/imgutils.h>
#include <libavutil/opt.h>
#include <libavutil/pixdesc.h>
#include <libswscale/swscale.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "tools/media/clip.h"
#include "tools/media/exif.h"
#include "tools/media/libav_input.h"
#include "tools/media/libav_reason.h"
#include "tools/media/still.h"

enum {
    ALIGNED = 32,  /* widths at which libswscale's vector code has no odd ends */
    FIRST_ROOM = 4 /* frames that there is room for at first */
};

struct loader {
    AVFormatContext *file;
    AVStream *stream;
    AVCodecContext *codec;
    AVPacket *packet;
    AVFrame *frame, *padded;
    struct SwsContext *scaler;
    int scaled_format;         /* that it is for */
    enum AVPixelFormat format; /* of the values that are made */
    bool are_bytes, has_alpha;
    int room;                  /* frames */
    int quarter_turns;         /* clockwise */
    uint8_t *planes[4];        /* one frame in that format */
    int strides[4];
    uint64_t max_bytes;
};

static int bad_file(struct error *error, const char *what, int libav_code)
{
    char reason[LIBAV_REASON_BYTES];
    return error_set(error, ERROR_BAD_FILE, "%s: %s", what, libav_reason(reason, libav_code));
}

/* ---- Opening ---- */

/* Clockwise quarter turns that EXIF asks for; mirrored pictures stay as they are, as ComfyUI leaves them. */
static int turns_of_exif(const char *path)
{
    struct still still;
    struct error ignored;
    if (!still_is_one(path) || still_read(&still, path, false, &ignored))
        return 0;
    const int orientation = still.orientation;
    free(still.pixels);
    return orientation == 6 ? 1 : orientation == 3 ? 2 : orientation == 8 ? 3 : 0;
}

static int open_stream(struct loader *loader, const char *path, struct error *error)
{
    int code = libav_input_open(&loader->file, path, LIBAV_INPUT_VIDEOS "," LIBAV_INPUT_PICTURES);
    if (code == AVERROR(ENOMEM))
        return error_set(error, ERROR_NO_MEMORY, "no memory");
    if (code >= 0)
        code = avformat_find_stream_info(loader->file, NULL);
    if (code < 0)
        return bad_file(error, "is no picture or video that can be read", code);
    for (unsigned i = 0; i < loader->file->nb_streams; i++) {
        AVStream *stream = loader->file->streams[i];
        if (!loader->stream && stream->codecpar->codec_type == AVMEDIA_TYPE_VIDEO)
            loader->stream = stream;
        else
            stream->discard = AVDISCARD_ALL;
    }
    if (!loader->stream)
        return error_set(error, ERROR_BAD_FILE, "has no pictures in it");
    loader->quarter_turns = libav_quarter_turns(loader->stream);
    return 0;
}

static int open_codec(struct loader *loader, struct error *error)
{
    const AVCodec *decoder = avcodec_find_decoder(loader->stream->codecpar->codec_id);
    if (!decoder)
        return error_set(error, ERROR_BAD_FILE, "is of the kind %s, for which there is no decoder here",
                         avcodec_get_name(loader->stream->codecpar->codec_id));
    loader->codec = avcodec_alloc_context3(decoder);
    loader->packet = av_packet_alloc();
    loader->frame = av_frame_alloc();
    loader->padded = av_frame_alloc();
    if (!loader->codec || !loader->packet || !loader->frame || !loader->padded)
        return error_set(error, ERROR_NO_MEMORY, "no memory");
    int code = avcodec_parameters_to_context(loader->codec, loader->stream->codecpar);
    loader->codec->max_pixels = (int64_t)CLIP_MAX_SIDE * CLIP_MAX_SIDE;
    loader->codec->thread_count = 0;
    if (code >= 0)
        code = avcodec_open2(loader->codec, decoder, NULL);
    return code < 0 ? bad_file(error, "cannot be decoded", code) : 0;
}

static void loader_close(struct loader *loader)
{
    avcodec_free_context(&loader->codec);
    avformat_close_input(&loader->file);
    av_packet_free(&loader->packet);
    av_frame_free(&loader->frame);
    av_frame_free(&loader->padded);
    sws_freeContext(loader->scaler);
    av_freep(&loader->planes[0]);
}

/* ---- Converting ---- */

/* What ComfyUI makes of frames: bytes of some formats, floats of all others. */
static void choose_format(struct loader *loader, enum AVPixelFormat of)
{
    const AVPixFmtDescriptor *description = av_pix_fmt_desc_get(of);
    loader->has_alpha = of == AV_PIX_FMT_PAL8 || (description && description->flags & AV_PIX_FMT_FLAG_ALPHA);
    loader->are_bytes = of == AV_PIX_FMT_YUVJ420P || of == AV_PIX_FMT_YUVJ422P || of == AV_PIX_FMT_YUVJ444P ||
                        of == AV_PIX_FMT_RGB24 || of == AV_PIX_FMT_RGBA || of == AV_PIX_FMT_PAL8;
    if (loader->are_bytes)
        loader->format = loader->has_alpha ? AV_PIX_FMT_RGBA : AV_PIX_FMT_RGB24;
    else
        loader->format = loader->has_alpha ? AV_PIX_FMT_GBRAPF32LE : AV_PIX_FMT_GBRPF32LE;
}

/* The decoded frame with its last column and row repeated up to a width and height without odd ends. */
static int pad(struct loader *loader, struct error *error)
{
    const AVFrame *frame = loader->frame;
    AVFrame *padded = loader->padded;
    const AVPixFmtDescriptor *description = av_pix_fmt_desc_get((enum AVPixelFormat)frame->format);
    av_frame_unref(padded);
    padded->format = frame->format;
    padded->width = FFALIGN(frame->width, ALIGNED);
    padded->height = FFALIGN(frame->height, ALIGNED);
    if (av_frame_get_buffer(padded, 0) < 0 || av_frame_copy_props(padded, frame) < 0)
        return error_set(error, ERROR_NO_MEMORY, "no memory for a frame of %d x %d pixels", padded->width,
                         padded->height);
    for (int plane = 0; plane < av_pix_fmt_count_planes((enum AVPixelFormat)frame->format); plane++) {
        const bool is_chroma = plane == 1 || plane == 2;
        const int rows = is_chroma ? AV_CEIL_RSHIFT(frame->height, description->log2_chroma_h) : frame->height;
        const int all_rows = is_chroma ? padded->height >> description->log2_chroma_h : padded->height;
        const int columns = is_chroma ? AV_CEIL_RSHIFT(frame->width, description->log2_chroma_w) : frame->width;
        const int bytes = av_image_get_linesize((enum AVPixelFormat)frame->format, frame->width, plane),
                  one = bytes / columns;
        const int all_bytes = av_image_get_linesize((enum AVPixelFormat)frame->format, padded->width, plane);
        for (int y = 0; y < all_rows; y++) {
            uint8_t *row = padded->data[plane] + (ptrdiff_t)y * padded->linesize[plane];
            memcpy(row, frame->data[plane] + (ptrdiff_t)(y < rows ? y : rows - 1) * frame->linesize[plane],
                   (size_t)bytes);
            for (int at = bytes; at + one <= all_bytes; at += one)
                memcpy(row + at, row + at - one, (size_t)one);
        }
    }
    return 0;
}

/* Where chroma samples lie, in 256ths of a luma sample; the middle where the frame does not say. */
static void set_chroma_place(struct SwsContext *scaler, const AVFrame *frame)
{
    static const struct { int x, y;
    } places[AVCHROMA_LOC_NB] = {
        [AVCHROMA_LOC_UNSPECIFIED] = {128, 128}, [AVCHROMA_LOC_LEFT] = {0, 128}, [AVCHROMA_LOC_CENTER] = {128, 128},
        [AVCHROMA_LOC_TOPLEFT] = {0, 0},         [AVCHROMA_LOC_TOP] = {128, 0},  [AVCHROMA_LOC_BOTTOMLEFT] = {0, 256},
        [AVCHROMA_LOC_BOTTOM] = {128, 256}};
    const AVPixFmtDescriptor *description = av_pix_fmt_desc_get((enum AVPixelFormat)frame->format);
    const int place = frame->chroma_location < AVCHROMA_LOC_NB ? (int)frame->chroma_location : AVCHROMA_LOC_UNSPECIFIED;
    const int x_cells = (1 << description->log2_chroma_w) - 1, y_cells = (1 << description->log2_chroma_h) - 1;
    if (x_cells)
        av_opt_set_int(scaler, "src_h_chr_pos", places[place].x * x_cells, 0);
    if (y_cells)
        av_opt_set_int(scaler, "src_v_chr_pos", places[place].y * y_cells, 0);
}

/* The frame's colour matrix, but BT.601 for one that is none; its range, but libswscale's choice for one that is
 * unknown. */
static void set_colours(struct SwsContext *scaler, const AVFrame *frame)
{
    int *matrix, *rgb_matrix, is_full, rgb_is_full, brightness, contrast, saturation;
    if (sws_getColorspaceDetails(scaler, &matrix, &is_full, &rgb_matrix, &rgb_is_full, &brightness, &contrast,
                                 &saturation) < 0)
        return;
    const bool is_matrix = frame->colorspace > AVCOL_SPC_RGB && frame->colorspace <= AVCOL_SPC_BT2020_CL &&
                           frame->colorspace != AVCOL_SPC_UNSPECIFIED && frame->colorspace != AVCOL_SPC_YCGCO;
    if (frame->color_range != AVCOL_RANGE_UNSPECIFIED)
        is_full = frame->color_range == AVCOL_RANGE_JPEG;
    sws_setColorspaceDetails(scaler, sws_getCoefficients(is_matrix ? (int)frame->colorspace : SWS_CS_DEFAULT), is_full,
                             rgb_matrix, rgb_is_full, brightness, contrast, saturation);
}

/* A scaler for frames of this one's size and format; made once, as all frames have the size of the first. NULL:
 * there is none. */
static struct SwsContext *scaler_for(struct loader *loader, const AVFrame *frame)
{
    if (loader->scaler && loader->scaled_format == frame->format)
        return loader->scaler;
    sws_freeContext(loader->scaler);
    struct SwsContext *scaler = loader->scaler = sws_alloc_context();
    if (!scaler)
        return NULL;
    const struct { const char *name; int value;
    } options[] = {{"srcw", frame->width},     {"srch", frame->height}, {"src_format", frame->format},
                   {"dstw", frame->width},     {"dsth", frame->height}, {"dst_format", loader->format},
                   {"sws_flags", SWS_BILINEAR}};
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        av_opt_set_int(scaler, options[i].name, options[i].value, 0);
    set_chroma_place(scaler, frame);
    if (sws_init_context(scaler, NULL, NULL) < 0) {
        sws_freeContext(scaler);
        return loader->scaler = NULL;
    }
    set_colours(scaler, frame);
    loader->scaled_format = frame->format;
    return scaler;
}

static bool is_grey(const AVFrame *frame)
{
    return frame->format == AV_PIX_FMT_GRAY8 || frame->format == AV_PIX_FMT_YA8;
}

/* Grey as floats, of which some versions of libswscale make another colour. */
static void convert_grey(struct loader *loader)
{
    const AVFrame *frame = loader->frame;
    const int step = frame->format == AV_PIX_FMT_YA8 ? 2 : 1;
    for (int y = 0; y < frame->height; y++)
        for (int x = 0; x < frame->width; x++)
            for (int plane = 0; plane < (loader->has_alpha ? 4 : 3); plane++) {
                const uint8_t stored = frame->data[0][(ptrdiff_t)y * frame->linesize[0] + x * step + (plane == 3)];
                const float value = (float)(stored << 8) * (1.0f / 65535.0f);
                memcpy(loader->planes[plane] + (ptrdiff_t)y * loader->strides[plane] + (ptrdiff_t)sizeof value * x,
                       &value, sizeof value);
            }
}

static int convert(struct loader *loader, struct error *error)
{
    const AVFrame *frame = loader->frame;
    if (!loader->are_bytes && frame->width % ALIGNED) { /* libswscale's vector code has its own way with odd ends */
        int code = pad(loader, error);
        if (code)
            return code;
        frame = loader->padded;
    }
    if (!loader->planes[0] && av_image_alloc(loader->planes, loader->strides, FFALIGN(frame->width, ALIGNED),
                                             FFALIGN(frame->height, ALIGNED), loader->format, 64) < 0)
        return error_set(error, ERROR_NO_MEMORY, "no memory for a frame of %d x %d pixels", frame->width,
                         frame->height);
    if (is_grey(frame)) {
        convert_grey(loader);
        return 0;
    }
    if (!scaler_for(loader, frame))
        return error_set(error, ERROR_BAD_FILE, "has frames of a pixel format that cannot be converted");
    if (sws_scale(loader->scaler, (const uint8_t *const *)frame->data, frame->linesize, 0, frame->height,
                  loader->planes, loader->strides) != frame->height)
        return error_set(error, ERROR_BAD_FILE, "has frames that cannot be converted");
    return 0;
}

/* Where pixel (x, y) of a height x width frame goes when it is turned. */
static size_t turned_place(int x, int y, int height, int width, int quarter_turns)
{
    switch (quarter_turns) {
    case 1: return (size_t)x * (size_t)height + (size_t)(height - 1 - y);
    case 2: return (size_t)(height - 1 - y) * (size_t)width + (size_t)(width - 1 - x);
    case 3: return (size_t)(width - 1 - x) * (size_t)height + (size_t)y;
    default: return (size_t)y * (size_t)width + (size_t)x;
    }
}

/* Put the converted frame behind the others. */
static void keep_values(const struct loader *loader, struct loaded_frames *out)
{
    const int height = loader->frame->height, width = loader->frame->width;
    const size_t before = (size_t)out->count * (size_t)height * (size_t)width;
    enum { GREEN, BLUE, RED, ALPHA }; /* the order of planes */
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            const size_t at = before + turned_place(x, y, height, width, loader->quarter_turns);
            if (loader->are_bytes) {
                const uint8_t *pixel =
                    loader->planes[0] + (ptrdiff_t)y * loader->strides[0] + (loader->has_alpha ? 4 : 3) * (ptrdiff_t)x;
                memcpy(out->bytes + 3 * at, pixel, 3);
                if (loader->has_alpha)
                    out->alpha[at] = (float)pixel[3] / 255.0f;
                continue;
            }
            float values[4];
            for (int plane = 0; plane < (loader->has_alpha ? 4 : 3); plane++)
                memcpy(&values[plane],
                       loader->planes[plane] + (ptrdiff_t)y * loader->strides[plane] + (ptrdiff_t)sizeof(float) * x,
                       sizeof(float));
            memcpy(out->floats + 3 * at, (const float[]){values[RED], values[GREEN], values[BLUE]}, 3 * sizeof(float));
            if (loader->has_alpha)
                out->alpha[at] = values[ALPHA];
        }
}

static int make_room(struct loader *loader, struct loaded_frames *out, struct error *error)
{
    if (out->count < loader->room)
        return 0;
    const size_t pixels = (size_t)out->height * (size_t)out->width, value = loader->are_bytes ? 1 : sizeof(float);
    const size_t one = pixels * (3 * value + (loader->has_alpha ? sizeof(float) : 0));
    loader->room = loader->room ? 2 * loader->room : FIRST_ROOM;
    if ((size_t)out->count * one > loader->max_bytes)
        return error_set(error, ERROR_TOO_LARGE, "has more frames of %d x %d pixels than %llu bytes hold", out->width,
                         out->height, (unsigned long long)loader->max_bytes);
    void *values = realloc(loader->are_bytes ? (void *)out->bytes : (void *)out->floats,
                           (size_t)loader->room * pixels * 3 * value);
    if (values && loader->are_bytes)
        out->bytes = values;
    else if (values)
        out->floats = values;
    float *alpha = loader->has_alpha ? realloc(out->alpha, (size_t)loader->room * pixels * sizeof *alpha) : NULL;
    out->alpha = alpha ? alpha : out->alpha;
    return values && (alpha || !loader->has_alpha)
               ? 0
               : error_set(error, ERROR_NO_MEMORY, "no memory for %d frames of %d x %d pixels", loader->room,
                           out->width, out->height);
}

static int keep_frame(struct loader *loader, struct loaded_frames *out, struct error *error)
{
    const AVFrame *frame = loader->frame;
    const bool is_turned = loader->quarter_turns % 2;
    const int height = is_turned ? frame->width : frame->height, width = is_turned ? frame->height : frame->width;
    int code = clip_check_size(height, width, error);
    if (!code && !out->count) {
        choose_format(loader, (enum AVPixelFormat)frame->format);
        out->height = height;
        out->width = width;
    } else if (!code && (height != out->height || width != out->width)) {
        code = error_set(error, ERROR_BAD_FILE, "has frames of several sizes");
    }
    if (!code)
        code = make_room(loader, out, error);
    if (!code)
        code = convert(loader, error);
    if (!code)
        keep_values(loader, out);
    out->count += !code;
    return code;
}

/* ---- Reading ---- */

/* Keep what the decoder has ready. */
static int drain(struct loader *loader, struct loaded_frames *out, struct error *error)
{
    int code = 0;
    while (!code && avcodec_receive_frame(loader->codec, loader->frame) >= 0)
        if (loader->frame->pts == AV_NOPTS_VALUE || loader->frame->pts >= 0)
            code = keep_frame(loader, out, error);
    return code;
}

static int read_frames(struct loader *loader, struct loaded_frames *out, struct error *error)
{
    int code = 0;
    while (!code && av_read_frame(loader->file, loader->packet) >= 0) {
        if (loader->packet->stream_index == loader->stream->index &&
            avcodec_send_packet(loader->codec, loader->packet) >= 0)
            code = drain(loader, out, error);
        av_packet_unref(loader->packet);
    }
    if (!code && avcodec_send_packet(loader->codec, NULL) >= 0)
        code = drain(loader, out, error);
    if (!code && !out->count)
        code = error_set(error, ERROR_BAD_FILE, "has no pictures that can be decoded");
    const AVRational rate = loader->stream->avg_frame_rate;
    out->fps = rate.num > 0 && rate.den > 0 ? av_q2d(rate) : 1;
    return code;
}

int loaded_frames_read(struct loaded_frames *out, const char *path, uint64_t max_bytes, struct error *error)
{
    *out = (struct loaded_frames){0};
    struct loader loader = {.max_bytes = max_bytes};
    int code = open_stream(&loader, path, error);
    if (!code)
        code = open_codec(&loader, error);
    if (!code && !loader.quarter_turns)
        loader.quarter_turns = turns_of_exif(path);
    if (!code)
        code = read_frames(&loader, out, error);
    loader_close(&loader);
    if (!code)
        return 0;
    loaded_frames_close(out);
    return error_prefix(error, "%s", path);
}

void loaded_frames_close(struct loaded_frames *frames)
{
    free(frames->bytes);
    free(frames->floats);
    free(frames->alpha);
    *frames = (struct loaded_frames){0};
}
