/* stream_copy.c: see stream_copy.h. */
#include "tools/media/stream_copy.h"

#include <libavcodec/avcodec.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "tools/media/libav_input.h"

enum { MATRIX_BYTES = 9 * sizeof(int32_t) }; /* of how a video is turned */

int stream_copy_open(struct stream_copy *copy, const char *path, enum AVMediaType type, AVFormatContext *into)
{
    *copy = (struct stream_copy){0};
    int status = libav_input_open(&copy->file, path, LIBAV_INPUT_VIDEOS);
    if (status >= 0)
        status = avformat_find_stream_info(copy->file, NULL);
    if (status < 0)
        return status;
    const int found = av_find_best_stream(copy->file, type, -1, -1, NULL, 0);
    if (found < 0)
        return 0;
    for (int i = 0; i < (int)copy->file->nb_streams; i++)
        copy->file->streams[i]->discard = i == found ? AVDISCARD_DEFAULT : AVDISCARD_ALL;
    copy->from = copy->file->streams[found];
    if (avformat_query_codec(into->oformat, copy->from->codecpar->codec_id, FF_COMPLIANCE_NORMAL) != 1)
        return 0;
    copy->to = avformat_new_stream(into, NULL);
    if (!copy->to)
        return AVERROR(ENOMEM);
    copy->to->time_base = copy->from->time_base;
    copy->to->avg_frame_rate = copy->from->avg_frame_rate;
    status = avcodec_parameters_copy(copy->to->codecpar, copy->from->codecpar);
    copy->to->codecpar->codec_tag = 0; /* the other format's */
    const uint8_t *turn = av_stream_get_side_data(copy->from, AV_PKT_DATA_DISPLAYMATRIX, NULL);
    uint8_t *same = turn ? av_stream_new_side_data(copy->to, AV_PKT_DATA_DISPLAYMATRIX, MATRIX_BYTES) : NULL;
    if (same)
        memcpy(same, turn, MATRIX_BYTES);
    return status < 0 ? status : 0;
}

int stream_copy_run(struct stream_copy *copy, AVFormatContext *into, double until_seconds)
{
    AVPacket *packet = av_packet_alloc();
    int status = packet ? 0 : AVERROR(ENOMEM);
    while (status >= 0 && av_read_frame(copy->file, packet) >= 0) {
        const bool is_ours = packet->stream_index == copy->from->index && packet->dts != AV_NOPTS_VALUE;
        const bool is_late = until_seconds > 0 && (double)packet->dts * av_q2d(copy->from->time_base) >= until_seconds;
        if (is_ours && !is_late) {
            packet->stream_index = copy->to->index;
            packet->pos = -1;
            av_packet_rescale_ts(packet, copy->from->time_base, copy->to->time_base);
            status = av_interleaved_write_frame(into, packet);
        }
        av_packet_unref(packet);
    }
    av_packet_free(&packet);
    return status < 0 ? status : 0;
}

void stream_copy_close(struct stream_copy *copy)
{
    avformat_close_input(&copy->file);
    *copy = (struct stream_copy){0};
}
