/* video_read.c: reading of video_file.h. A first pass counts the frames without decoding, so that the sampler can
 * choose; a second one decodes and keeps the chosen ones. */
#include "tools/media/video_file.h"

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libswscale/swscale.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/descriptor.h"
#include "tools/media/frame_rate.h"
#include "tools/media/libav_input.h"
#include "tools/media/libav_reason.h"

struct video_reader {
    AVFormatContext *file;
    AVStream *stream;
    AVCodecContext *codec;
    AVPacket *packet;
    AVFrame *frame;
    struct SwsContext *scaler;
    int height, width;    /* of the frames before they are turned */
    int quarter_turns;    /* clockwise, to be shown upright */
    int64_t duration;     /* of all counted frames, in the stream's unit */
    uint8_t *rgb, *turned; /* one frame each */
};

static int bad_video(struct error *error, const char *what, int libav_code)
{
    char reason[LIBAV_REASON_BYTES];
    /* Of no kind that is accepted. */
    bool is_no_video = libav_code == AVERROR_INVALIDDATA || libav_code == AVERROR(EINVAL);
    return error_set(error, is_no_video ? ERROR_UNSUPPORTED : ERROR_BAD_FILE,
                     "%s: %s; mp4, webm, other video files, y4m and folders of pictures are accepted", what,
                     libav_reason(reason, libav_code));
}

static void reader_close(struct video_reader *reader)
{
    avcodec_free_context(&reader->codec);
    avformat_close_input(&reader->file);
    av_packet_free(&reader->packet);
    av_frame_free(&reader->frame);
    sws_freeContext(reader->scaler);
    free(reader->rgb);
    free(reader->turned);
    *reader = (struct video_reader){0};
}

/* libav refuses a y4m that is too large by a code that means something else, and reads a frame rate by its prefix. Both
 * stand in the first line, as in "YUV4MPEG2 W352 H288 F25:1"; F0:0 is an unknown rate, which libav takes for 25. `fps`
 * is what the user says, or 0. */
static int check_y4m_header(const char *path, double fps, struct error *error)
{
    char line[256] = "";
    FILE *file = regular_file_open(path);
    if (file && !fgets(line, sizeof line, file))
        *line = '\0';
    if (file)
        fclose(file);
    long long width = 0, height = 0;
    double rate;
    char *rest, *word = strtok_r(line, " \n", &rest);
    if (!word || strcmp(word, "YUV4MPEG2"))
        return 0; /* something else, or libav says what is wrong */
    while ((word = strtok_r(NULL, " \n", &rest))) {
        if (*word == 'W')
            width = strtoll(word + 1, NULL, 10);
        else if (*word == 'H')
            height = strtoll(word + 1, NULL, 10);
        else if (*word == 'F' && fps <= 0 && strcmp(word, "F0:0") && !frame_rate_parse(word + 1, ':', &rate))
            return error_set(error, ERROR_BAD_FILE, "has a first line whose frame rate is no fraction such as "
                             "F24000:1001; --fps sets it");
    }
    return clip_check_size(height, width, error);
}

/* Open the file and find its video. */
static int open_container(struct video_reader *reader, const char *path, struct error *error)
{
    int code = libav_input_open(&reader->file, path, LIBAV_INPUT_VIDEOS);
    if (code == AVERROR(ENOMEM))
        return error_set(error, ERROR_NO_MEMORY, "no memory");
    if (code < 0)
        return bad_video(error, "is no video that can be read", code);
    code = avformat_find_stream_info(reader->file, NULL);
    if (code >= 0)
        code = av_find_best_stream(reader->file, AVMEDIA_TYPE_VIDEO, -1, -1, NULL, 0);
    if (code < 0)
        return bad_video(error, "has no video in it that can be read", code);
    reader->stream = reader->file->streams[code];
    if (reader->stream->disposition & AV_DISPOSITION_ATTACHED_PIC)
        return error_set(error, ERROR_BAD_FILE, "has no video in it, only a cover picture");
    return 0;
}

static int reader_open(struct video_reader *reader, const char *path, struct error *error)
{
    *reader = (struct video_reader){0};
    int code = open_container(reader, path, error);
    if (code)
        return code;
    for (unsigned i = 0; i < reader->file->nb_streams; i++)
        if (reader->file->streams[i] != reader->stream)
            reader->file->streams[i]->discard = AVDISCARD_ALL;
    const AVCodecParameters *parameters = reader->stream->codecpar;
    code = clip_check_size(parameters->height, parameters->width, error);
    if (code)
        return code;
    const AVCodec *decoder = avcodec_find_decoder(parameters->codec_id);
    if (!decoder)
        return error_set(error, ERROR_BAD_FILE, "is video of the kind %s, for which there is no decoder here",
                         avcodec_get_name(parameters->codec_id));
    reader->codec = avcodec_alloc_context3(decoder);
    reader->packet = av_packet_alloc();
    reader->frame = av_frame_alloc();
    if (!reader->codec || !reader->packet || !reader->frame)
        return error_set(error, ERROR_NO_MEMORY, "no memory");
    reader->codec->thread_count = 0;
    int status = avcodec_parameters_to_context(reader->codec, parameters);
    if (status >= 0)
        status = avcodec_open2(reader->codec, decoder, NULL);
    if (status < 0)
        return bad_video(error, "cannot be decoded", status);
    reader->quarter_turns = libav_quarter_turns(reader->stream);
    return 0;
}

/* Whether half a frame follows what ends at `end`. libav passes over it in y4m, where a frame has a
 * line of its own before it. */
static bool has_half_frame(const struct video_reader *reader, int64_t end)
{
    const int64_t longest_line = 96;
    return !strcmp(reader->file->iformat->name, "yuv4mpegpipe") && avio_size(reader->file->pb) - end > longest_line;
}

/* How many frames the file says it has. A file that was cut off shows it by half a packet at its end, or by an index
 * that knows of more; a webm does not. */
static int count_frames(struct video_reader *reader, int *count, struct error *error)
{
    int packets = 0;
    int64_t end = INT64_MAX;
    bool is_cut = false;
    *count = 0;
    while (packets < INT32_MAX && av_read_frame(reader->file, reader->packet) >= 0) {
        if (reader->packet->stream_index == reader->stream->index) {
            packets++;
            *count += !(reader->packet->flags & AV_PKT_FLAG_DISCARD);
            if (reader->packet->duration > 0 && reader->duration < INT64_MAX - reader->packet->duration)
                reader->duration += reader->packet->duration;
            is_cut = reader->packet->flags & AV_PKT_FLAG_CORRUPT;
            end = reader->packet->pos + reader->packet->size;
        }
        av_packet_unref(reader->packet);
    }
    if (is_cut || has_half_frame(reader, end) || packets < avformat_index_get_entries_count(reader->stream))
        return error_set(error, ERROR_BAD_FILE, "the file ends too early, after frame %d", *count - is_cut);
    return 0;
}

/* Of GIF and PNG, whose pictures each have a duration of their own, libav guesses the rate from the first ones. */
static double average_fps(const struct video_reader *reader, int count)
{
    const double seconds = (double)reader->duration * av_q2d(reader->stream->time_base);
    const char *kind = reader->file->iformat->name;
    if ((!strcmp(kind, "gif") || !strcmp(kind, "apng")) && seconds > 0)
        return count / seconds;
    AVRational rate = reader->stream->avg_frame_rate;
    if (rate.num <= 0 || rate.den <= 0)
        rate = reader->stream->r_frame_rate;
    return rate.num > 0 && rate.den > 0 ? av_q2d(rate) : 0;
}

/* Turn an RGB picture of height x width clockwise. */
static void turn(uint8_t *out, const uint8_t *in, int height, int width, int quarter_turns)
{
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++, in += 3) {
            size_t at = quarter_turns == 1   ? (size_t)x * (size_t)height + (size_t)(height - 1 - y)
                        : quarter_turns == 2 ? (size_t)(height - 1 - y) * (size_t)width + (size_t)(width - 1 - x)
                                             : (size_t)(width - 1 - x) * (size_t)height + (size_t)y;
            memcpy(out + 3 * at, in, 3);
        }
}

/* A scaler from the frame, whatever its size, to RGB of the size of the first one, which takes libswscale the same way
 * as in the official code's reader: bilinear; the frame's colour matrix, but BT.601 for one that is none (RGB, YCgCo,
 * unknown); the frame's range, but libswscale's choice for one that is unknown (grey and RGB are full, YUV is limited).
 * NULL: a format without conversion. */
static struct SwsContext *scaler_for(struct video_reader *reader, const AVFrame *frame)
{
    reader->scaler =
        sws_getCachedContext(reader->scaler, frame->width, frame->height, (enum AVPixelFormat)frame->format,
                             reader->width, reader->height, AV_PIX_FMT_RGB24, SWS_BILINEAR, NULL, NULL, NULL);
    int *matrix, *rgb_matrix, is_full, rgb_is_full, brightness, contrast, saturation;
    if (!reader->scaler || sws_getColorspaceDetails(reader->scaler, &matrix, &is_full, &rgb_matrix, &rgb_is_full,
                                                    &brightness, &contrast, &saturation) < 0)
        return reader->scaler;
    bool is_matrix = frame->colorspace > AVCOL_SPC_RGB && frame->colorspace <= AVCOL_SPC_BT2020_CL &&
                     frame->colorspace != AVCOL_SPC_UNSPECIFIED && frame->colorspace != AVCOL_SPC_YCGCO;
    if (frame->color_range != AVCOL_RANGE_UNSPECIFIED)
        is_full = frame->color_range == AVCOL_RANGE_JPEG;
    sws_setColorspaceDetails(reader->scaler, sws_getCoefficients(is_matrix ? (int)frame->colorspace : SWS_CS_DEFAULT),
                             is_full, rgb_matrix, rgb_is_full, brightness, contrast, saturation);
    return reader->scaler;
}

/* Convert the decoded frame and put it into the clip. */
static int keep_frame(struct video_reader *reader, struct clip *clip, int index, struct error *error)
{
    const AVFrame *frame = reader->frame;
    if (!scaler_for(reader, frame))
        return error_set(error, ERROR_BAD_FILE, "has frames of a pixel format that cannot be converted");
    uint8_t *planes[4] = {reader->rgb};
    int strides[4] = {3 * reader->width};
    if (sws_scale(reader->scaler, (const uint8_t *const *)frame->data, frame->linesize, 0, frame->height, planes,
                  strides) != reader->height)
        return error_set(error, ERROR_BAD_FILE, "has frames that cannot be converted");
    if (!reader->quarter_turns)
        return clip_put(clip, index, reader->rgb, error);
    turn(reader->turned, reader->rgb, reader->height, reader->width, reader->quarter_turns);
    return clip_put(clip, index, reader->turned, error);
}

/* Room for one frame, of the size of the first one, and for the clip. */
static int start_clip(struct video_reader *reader, struct clip *clip, int frames, uint64_t max_bytes,
                      struct error *error)
{
    reader->height = reader->frame->height;
    reader->width = reader->frame->width;
    int code = clip_check_size(reader->height, reader->width, error);
    if (code)
        return code;
    /* libswscale's vector code may write a little beyond the end of the last row. */
    size_t bytes = 3 * (size_t)reader->height * (size_t)reader->width + 256;
    reader->rgb = malloc(bytes);
    reader->turned = malloc(bytes);
    if (!reader->rgb || !reader->turned)
        return error_set(error, ERROR_NO_MEMORY, "no memory for a frame of %d x %d pixels", reader->width,
                         reader->height);
    bool is_turned = reader->quarter_turns % 2;
    return clip_open(clip, frames, is_turned ? reader->width : reader->height,
                     is_turned ? reader->height : reader->width, max_bytes, error);
}

/* The next decoded frame. Damaged packets are passed over. Returns whether there is one. */
static bool next_frame(struct video_reader *reader)
{
    for (;;) {
        int status = avcodec_receive_frame(reader->codec, reader->frame);
        if (status >= 0)
            return true;
        if (status != AVERROR(EAGAIN))
            return false;
        do
            av_packet_unref(reader->packet);
        while ((status = av_read_frame(reader->file, reader->packet)) >= 0 &&
               reader->packet->stream_index != reader->stream->index);
        avcodec_send_packet(reader->codec, status < 0 ? NULL : reader->packet);
        av_packet_unref(reader->packet);
    }
}

/* Decode and keep the frames that are sampled out of `count`. *decoded is how many there really were. */
static int read_sampled(struct clip *clip, const char *path, int count, double fps, uint64_t max_bytes, int *decoded,
                        struct error *error)
{
    int indices[SAMPLING_MAX_FRAMES], kept = 0;
    int wanted = clip_sample(count, fps, indices, error);
    if (wanted < 0)
        return wanted;
    struct video_reader reader;
    int code = reader_open(&reader, path, error);
    for (*decoded = 0; !code && next_frame(&reader); ++*decoded) {
        if (*decoded == 0)
            code = start_clip(&reader, clip, wanted, max_bytes, error);
        while (!code && kept < wanted && indices[kept] == *decoded)
            code = keep_frame(&reader, clip, kept++, error);
    }
    reader_close(&reader);
    return code;
}

static int read_clip(struct clip *clip, const char *path, double fps, uint64_t max_bytes, struct error *error)
{
    struct video_reader reader = {0};
    int code = check_y4m_header(path, fps, error);
    if (!code)
        code = reader_open(&reader, path, error);
    int count = 0;
    if (!code)
        code = count_frames(&reader, &count, error);
    if (!code && fps <= 0)
        fps = average_fps(&reader, count);
    reader_close(&reader);
    /* Some files have packets that are no frames, so a count that turns out wrong is put right once. */
    for (int attempt = 0; !code && count > 0; attempt++) {
        int decoded;
        code = read_sampled(clip, path, count, fps, max_bytes, &decoded, error);
        if (code || decoded == count)
            break;
        clip_free(clip);
        if (attempt > 0)
            return error_set(error, ERROR_BAD_FILE, "had %d frames, then %d: does somebody still write it?", count,
                             decoded);
        count = decoded;
    }
    if (!code && count == 0)
        code = error_set(error, ERROR_BAD_FILE, "has no frames that can be decoded");
    if (!code) {
        clip->source_frames = count;
        clip->source_fps = fps;
        clip->fps = SAMPLING_FPS;
    }
    return code;
}

int video_read(struct clip *clip, const char *path, double fps, uint64_t max_bytes, struct error *error)
{
    *clip = (struct clip){0};
    int code = read_clip(clip, path, fps, max_bytes, error);
    if (!code)
        return 0;
    clip_free(clip);
    return error_prefix(error, "%s", path);
}

void video_size(const char *path, int *width, int *height)
{
    struct video_reader reader = {0};
    struct error ignored;
    const bool is_open = !open_container(&reader, path, &ignored);
    *width = is_open ? reader.stream->codecpar->width : 0;
    *height = is_open ? reader.stream->codecpar->height : 0;
    reader_close(&reader);
}

int video_read_receipt(char **receipt, const char *path, struct error *error)
{
    *receipt = NULL;
    struct video_reader reader = {0};
    int code = open_container(&reader, path, error);
    if (!code) {
        const AVDictionaryEntry *comment = av_dict_get(reader.file->metadata, "comment", NULL, 0);
        *receipt = comment && *comment->value == '{' ? strdup(comment->value) : NULL;
        if (!*receipt)
            code = error_set(error, ERROR_BAD_FILE, "has no receipt: it was not written by lancectl, or edited since");
    }
    reader_close(&reader);
    return code ? error_prefix(error, "%s", path) : 0;
}
