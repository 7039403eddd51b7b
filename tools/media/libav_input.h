/* libav_input.h: files that libav reads: which kinds, and how they are to be turned.
 *
 * One place says what is opened, for files come from anywhere: kinds that hold their own frames, no playlists, which
 * could name other files or hosts; and nothing but files of this machine.
 */
#ifndef LANCE_MEDIA_LIBAV_INPUT_H
#define LANCE_MEDIA_LIBAV_INPUT_H

#include <libavformat/avformat.h>

#define LIBAV_INPUT_VIDEOS                                                                                             \
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,yuv4mpegpipe,mpegts,mpeg,ogg,gif,flv,asf,ivf,mpegvideo,h264,hevc,apng"
#define LIBAV_INPUT_PICTURES "png_pipe,jpeg_pipe,webp_pipe,bmp_pipe,tiff_pipe,image2"

/* Open a file of one of these kinds. Returns 0, or a code of libav (AVERROR(ENOMEM) without memory) and *file NULL.
 * From now on libav says nothing on stderr. */
int libav_input_open(AVFormatContext **file, const char *path, const char *kinds);

/* By how many quarter turns, clockwise, the stream's frames are to be turned to stand upright: 0 to 3. */
int libav_quarter_turns(const AVStream *stream);

#endif
