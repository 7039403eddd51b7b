/* video_write.c: writing of video_file.h. */
#include "tools/media/video_file.h"

#include <errno.h>
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/opt.h>
#include <libswscale/swscale.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/whole_file.h"
#include "tools/media/libav_reason.h"
#include "tools/media/stream_copy.h"

struct video_writer {
    AVFormatContext *file;
    AVStream *stream;
    AVCodecContext *codec;
    AVPacket *packet;
    AVFrame *frame;
    struct SwsContext *scaler;
    struct stream_copy sound;
    char failure[WHOLE_FILE_REASON_BYTES]; /* empty: none so far */
};

/* The options' quality is high enough that the difference is hard to see. y4m cannot say which colour matrix it has,
 * and readers then assume BT.601. */
static const struct {
    const char *container, *encoder, *options;
    enum AVPixelFormat pixels;
    enum AVColorSpace colours;
} formats[] = {
    [VIDEO_MP4] = {"mp4", "libx264", "crf=16:preset=medium", AV_PIX_FMT_YUV420P, AVCOL_SPC_BT709},
    [VIDEO_WEBM] = {"webm", "libvpx-vp9", "crf=20:b=0:cpu-used=4:row-mt=1", AV_PIX_FMT_YUV420P, AVCOL_SPC_BT709},
    [VIDEO_Y4M] = {"yuv4mpegpipe", "wrapped_avframe", "", AV_PIX_FMT_YUV444P, AVCOL_SPC_SMPTE170M},
};

static int fail(struct video_writer *writer, const char *what, int libav_code)
{
    char reason[LIBAV_REASON_BYTES];
    if (!*writer->failure)
        snprintf(writer->failure, sizeof writer->failure, "%s: %s", what, libav_reason(reason, libav_code));
    return -1;
}

static int open_encoder(struct video_writer *writer, enum video_format format, const AVCodec *encoder, int height,
                        int width, double fps)
{
    AVCodecContext *codec = writer->codec = avcodec_alloc_context3(encoder);
    if (!codec)
        return fail(writer, "encoder", AVERROR(ENOMEM));
    AVRational rate = av_d2q(fps, 1001000);
    codec->height = height;
    codec->width = width;
    codec->pix_fmt = formats[format].pixels;
    codec->framerate = rate;
    codec->time_base = av_inv_q(rate);
    codec->thread_count = 0;
    codec->colorspace = formats[format].colours;
    codec->color_primaries = AVCOL_PRI_BT709;
    codec->color_trc = AVCOL_TRC_BT709;
    codec->color_range = AVCOL_RANGE_MPEG;
    if (writer->file->oformat->flags & AVFMT_GLOBALHEADER)
        codec->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
    AVDictionary *options = NULL;
    av_dict_parse_string(&options, formats[format].options, "=", ":", 0);
    int status = avcodec_open2(codec, encoder, &options);
    av_dict_free(&options);
    return status < 0 ? fail(writer, "encoder", status) : 0;
}

/* Texts of the container's metadata; an mp4 keeps those of names of their own only when it is told so. */
static int set_texts(AVFormatContext *file, const struct video_extras *extras, AVDictionary **options)
{
    const bool has_own_names = extras->prompt || extras->workflow;
    int status = av_dict_set(options, "movflags", has_own_names ? "+faststart+use_metadata_tags" : "+faststart", 0);
    if (status >= 0 && extras->receipt)
        status = av_dict_set(&file->metadata, "comment", extras->receipt, 0);
    if (status >= 0 && extras->prompt)
        status = av_dict_set(&file->metadata, "prompt", extras->prompt, 0);
    if (status >= 0 && extras->workflow)
        status = av_dict_set(&file->metadata, "workflow", extras->workflow, 0);
    return status;
}

/* With the texts. A code of libav. */
static int write_header(AVFormatContext *file, const struct video_extras *extras)
{
    AVDictionary *options = NULL;
    int status = set_texts(file, extras, &options);
    if (status >= 0)
        status = avformat_write_header(file, &options);
    av_dict_free(&options);
    return status;
}

static int open_stream(struct video_writer *writer, const struct video_extras *extras)
{
    writer->stream = avformat_new_stream(writer->file, NULL);
    if (!writer->stream)
        return fail(writer, "container", AVERROR(ENOMEM));
    writer->stream->time_base = writer->codec->time_base;
    writer->stream->avg_frame_rate = writer->codec->framerate;
    int status = avcodec_parameters_from_context(writer->stream->codecpar, writer->codec);
    if (status >= 0 && extras->sound)
        status = stream_copy_open(&writer->sound, extras->sound, AVMEDIA_TYPE_AUDIO, writer->file);
    if (status >= 0)
        status = write_header(writer->file, extras);
    return status < 0 ? fail(writer, "container", status) : 0;
}

static int open_frame(struct video_writer *writer, int height, int width)
{
    writer->packet = av_packet_alloc();
    writer->frame = av_frame_alloc();
    if (!writer->packet || !writer->frame)
        return fail(writer, "frame", AVERROR(ENOMEM));
    writer->frame->height = height;
    writer->frame->width = width;
    writer->frame->format = writer->codec->pix_fmt;
    writer->frame->colorspace = writer->codec->colorspace;
    writer->frame->color_range = AVCOL_RANGE_MPEG;
    int status = av_frame_get_buffer(writer->frame, 0);
    if (status < 0)
        return fail(writer, "frame", status);
    writer->scaler = sws_getContext(width, height, AV_PIX_FMT_RGB24, width, height, writer->codec->pix_fmt,
                                    SWS_BICUBIC | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INP, NULL, NULL, NULL);
    if (!writer->scaler)
        return fail(writer, "colour conversion", AVERROR(ENOMEM));
    sws_setColorspaceDetails(writer->scaler, sws_getCoefficients(SWS_CS_DEFAULT), 1,
                             sws_getCoefficients((int)writer->codec->colorspace), 0, 0, 1 << 16, 1 << 16);
    return 0;
}

/* Hand one frame (NULL: no more) to the encoder, and what it has ready to the file. */
static int encode(struct video_writer *writer, const AVFrame *frame)
{
    int status = avcodec_send_frame(writer->codec, frame);
    while (status >= 0) {
        status = avcodec_receive_packet(writer->codec, writer->packet);
        if (status == AVERROR(EAGAIN) || status == AVERROR_EOF)
            return 0;
        if (status >= 0) {
            writer->packet->stream_index = writer->stream->index;
            writer->packet->duration = 1;
            av_packet_rescale_ts(writer->packet, writer->codec->time_base, writer->stream->time_base);
            status = av_interleaved_write_frame(writer->file, writer->packet);
        }
    }
    return fail(writer, "a frame", status);
}

static int write_frames(struct video_writer *writer, const uint8_t *pixels, int frames, int height, int width)
{
    size_t frame_bytes = 3 * (size_t)height * (size_t)width;
    for (int i = 0; i < frames; i++) {
        int status = av_frame_make_writable(writer->frame);
        if (status < 0)
            return fail(writer, "a frame", status);
        const uint8_t *planes[4] = {pixels + (size_t)i * frame_bytes};
        const int strides[4] = {3 * width};
        sws_scale(writer->scaler, planes, strides, 0, height, writer->frame->data, writer->frame->linesize);
        writer->frame->pts = i;
        if (encode(writer, writer->frame))
            return -1;
    }
    return encode(writer, NULL);
}

/* The sound, as far as `seconds`. */
static int write_sound(struct video_writer *writer, double seconds)
{
    const int status = writer->sound.to ? stream_copy_run(&writer->sound, writer->file, seconds) : 0;
    return status < 0 ? fail(writer, "the sound", status) : 0;
}

static void close_writer(struct video_writer *writer)
{
    if (writer->file && writer->file->pb) {
        int status = avio_closep(&writer->file->pb);
        if (status < 0)
            fail(writer, "the file", status);
    }
    avformat_free_context(writer->file);
    avcodec_free_context(&writer->codec);
    av_packet_free(&writer->packet);
    av_frame_free(&writer->frame);
    sws_freeContext(writer->scaler);
    stream_copy_close(&writer->sound);
}

/* Open the file that is written. */
static int open_file(struct video_writer *writer, const struct whole_file *whole, const char *container)
{
    char *url = NULL;
    int status = avformat_alloc_output_context2(&writer->file, NULL, container, NULL);
    if (status >= 0 && asprintf(&url, "file:%s", whole->temporary) < 0)
        status = AVERROR(ENOMEM);
    if (status >= 0) /* the muxer opens the file a second time to put the index in front */
        status =
            (writer->file->url = av_strdup(url)) ? avio_open(&writer->file->pb, url, AVIO_FLAG_WRITE) : AVERROR(ENOMEM);
    free(url);
    return status < 0 ? fail(writer, "the file", status) : 0;
}

static int end_file(struct video_writer *writer)
{
    const int status = av_write_trailer(writer->file);
    return status < 0 ? fail(writer, "the file", status) : 0;
}

bool video_can_write(enum video_format format, const char **encoder)
{
    *encoder = formats[format].encoder;
    return avcodec_find_encoder_by_name(*encoder) != NULL;
}

static int write_all(const char *path, enum video_format format, const uint8_t *pixels, int frames, int height,
                     int width, double fps, const struct video_extras *extras, bool *left_out, struct error *error)
{
    av_log_set_level(AV_LOG_QUIET);
    *left_out = false;
    const AVCodec *encoder = avcodec_find_encoder_by_name(formats[format].encoder);
    if (!encoder)
        return error_set(error, ERROR_UNSUPPORTED,
                         "cannot write %s: libav here has no encoder %s; another ending of the name (.mp4, "
                         ".webm, .y4m, or / for a folder of PNGs) may do",
                         path, formats[format].encoder);
    if (formats[format].pixels == AV_PIX_FMT_YUV420P && (height % 2 || width % 2))
        return error_set(error, ERROR_UNSUPPORTED,
                         "cannot write %s: %d x %d pixels, and this format takes even sides only", path, width, height);
    struct whole_file whole;
    int code = whole_file_begin(&whole, path, error);
    if (code)
        return code;
    struct video_writer writer = {0};
    if (!open_file(&writer, &whole, formats[format].container) &&
        !open_encoder(&writer, format, encoder, height, width, fps) && !open_stream(&writer, extras) &&
        !open_frame(&writer, height, width) && !write_frames(&writer, pixels, frames, height, width) &&
        !write_sound(&writer, frames / fps))
        end_file(&writer);
    *left_out = writer.sound.from && !writer.sound.to;
    close_writer(&writer);
    return whole_file_end(&whole, *writer.failure ? writer.failure : NULL, error);
}

int video_write(const char *path, enum video_format format, const uint8_t *pixels, int frames, int height, int width,
                double fps, const char *receipt, struct error *error)
{
    const struct video_extras extras = {.receipt = receipt};
    bool left_out;
    return write_all(path, format, pixels, frames, height, width, fps, &extras, &left_out, error);
}

int video_write_extras(const char *path, const uint8_t *pixels, int frames, int height, int width, double fps,
                       const struct video_extras *extras, bool *left_out, struct error *error)
{
    return write_all(path, VIDEO_MP4, pixels, frames, height, width, fps, extras, left_out, error);
}

/* Copy the streams into the file that is open. */
static int copy_streams(struct video_writer *writer, struct stream_copy *video, const char *from,
                        const struct video_extras *extras)
{
    int status = stream_copy_open(video, from, AVMEDIA_TYPE_VIDEO, writer->file);
    if (status >= 0 && !video->to)
        status = AVERROR(EINVAL);
    if (status >= 0)
        status = stream_copy_open(&writer->sound, from, AVMEDIA_TYPE_AUDIO, writer->file);
    if (status >= 0)
        status = write_header(writer->file, extras);
    if (status >= 0)
        status = stream_copy_run(video, writer->file, 0);
    if (status < 0)
        return fail(writer, "frames of a kind that mp4 does not hold, or damaged", status);
    return write_sound(writer, 0);
}

int video_copy(const char *path, const char *from, const struct video_extras *extras, bool *left_out,
               struct error *error)
{
    av_log_set_level(AV_LOG_QUIET);
    struct whole_file whole;
    int code = whole_file_begin(&whole, path, error);
    if (code)
        return code;
    struct video_writer writer = {0};
    struct stream_copy video = {0};
    if (!open_file(&writer, &whole, "mp4") && !copy_streams(&writer, &video, from, extras))
        end_file(&writer);
    *left_out = writer.sound.from && !writer.sound.to;
    stream_copy_close(&video);
    close_writer(&writer);
    return whole_file_end(&whole, *writer.failure ? writer.failure : NULL, error);
}
