/* libav_input.c: see libav_input.h. */
#include "tools/media/libav_input.h"

#include <libavutil/display.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

int libav_input_open(AVFormatContext **file, const char *path, const char *kinds)
{
    av_log_set_level(AV_LOG_QUIET);
    char *url;
    struct stat info;
    *file = NULL;
    /* Who opens a pipe waits for its writer. */
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode))
        return AVERROR(EINVAL);
    if (asprintf(&url, "file:%s", path) < 0)
        return AVERROR(ENOMEM);
    AVDictionary *options = NULL;
    av_dict_set(&options, "format_whitelist", kinds, 0);
    av_dict_set(&options, "protocol_whitelist", "file", 0);
    const int status = avformat_open_input(file, url, NULL, &options);
    av_dict_free(&options);
    free(url);
    return status < 0 ? status : 0;
}

int libav_quarter_turns(const AVStream *stream)
{
    const int32_t *matrix = (const int32_t *)av_stream_get_side_data(stream, AV_PKT_DATA_DISPLAYMATRIX, NULL);
    const double degrees = matrix ? -av_display_rotation_get(matrix) : 0;
    return isfinite(degrees) ? ((int)lrint(degrees / 90) % 4 + 4) % 4 : 0;
}
