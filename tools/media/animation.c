/* animation.c: see animation.h. */
#include "tools/media/animation.h"

#include <avif/avif.h>
#include <stdlib.h>
#include <string.h>
#include <webp/demux.h>

#include "base/mapped_file.h"
#include "tools/media/gif.h"
#include "tools/media/still_formats.h"

static bool is_webp(const uint8_t *data, size_t bytes)
{
    return bytes >= 12 && !memcmp(data, "RIFF", 4) && !memcmp(data + 8, "WEBP", 4);
}

static uint32_t big_endian(const uint8_t *data)
{
    return (uint32_t)data[0] << 24 | (uint32_t)data[1] << 16 | (uint32_t)data[2] << 8 | data[3];
}

/* ---- How many ---- */

/* An animated PNG says so in a chunk before the first picture's. */
static uint32_t png_pictures(const uint8_t *data, size_t bytes)
{
    enum { SIGNATURE = 8, CHUNK_HEADER = 8, CHUNK_CLOSE = 4 };
    for (size_t at = SIGNATURE; at + CHUNK_HEADER + 4 <= bytes;
         at += CHUNK_HEADER + CHUNK_CLOSE + (size_t)big_endian(data + at)) {
        if (!memcmp(data + at + 4, "acTL", 4))
            return big_endian(data + at + CHUNK_HEADER);
        if (!memcmp(data + at + 4, "IDAT", 4))
            break;
    }
    return 1;
}

static uint32_t webp_pictures(const uint8_t *data, size_t bytes)
{
    WebPDemuxer *demuxer = WebPDemux(&(WebPData){data, bytes});
    uint32_t count = demuxer ? WebPDemuxGetI(demuxer, WEBP_FF_FRAME_COUNT) : 1;
    WebPDemuxDelete(demuxer);
    return count;
}

static uint32_t avif_pictures(const uint8_t *data, size_t bytes)
{
    avifDecoder *decoder = avifDecoderCreate();
    bool is_parsed = decoder && avifDecoderSetIOMemory(decoder, data, bytes) == AVIF_RESULT_OK &&
                     avifDecoderParse(decoder) == AVIF_RESULT_OK;
    uint32_t count = is_parsed ? (uint32_t)decoder->imageCount : 1;
    if (decoder)
        avifDecoderDestroy(decoder);
    return count;
}

int animation_pictures(const char *path)
{
    struct mapped_file file;
    struct error error;
    if (mapped_file_open(&file, path, &error))
        return 1;
    uint32_t count = 1;
    if (is_webp(file.data, file.bytes))
        count = webp_pictures(file.data, file.bytes);
    else if (file.bytes >= 8 && !memcmp(file.data, "\x89PNG\r\n\x1a\n", 8))
        count = png_pictures(file.data, file.bytes);
    else if (gif_is_one(file.data, file.bytes))
        count = gif_pictures(file.data, file.bytes);
    else if (file.bytes >= 12 && !memcmp(file.data + 4, "ftypavis", 8))
        count = avif_pictures(file.data, file.bytes);
    mapped_file_close(&file);
    return count >= 1 && count <= INT32_MAX ? (int)count : 1;
}

bool animation_is_webp(const char *path)
{
    struct mapped_file file;
    struct error error;
    if (mapped_file_open(&file, path, &error))
        return false;
    bool answer = is_webp(file.data, file.bytes);
    mapped_file_close(&file);
    return answer;
}

/* ---- Animated WebP ---- */

/* The pictures a second on average, as browsers show them: one of no or hardly any duration stays for a tenth of a
 * second. */
static double webp_fps(const WebPDemuxer *demuxer, int count)
{
    enum { SHORTEST_MS = 11, USUAL_MS = 100 };
    double milliseconds = 0;
    WebPIterator picture;
    for (bool is_one = WebPDemuxGetFrame(demuxer, 1, &picture); is_one; is_one = WebPDemuxNextFrame(&picture))
        milliseconds += picture.duration < SHORTEST_MS ? USUAL_MS : picture.duration;
    WebPDemuxReleaseIterator(&picture);
    return milliseconds > 0 ? 1000 * count / milliseconds : 0;
}

static int keep_webp_pictures(struct clip *clip, WebPAnimDecoder *decoder, const int *indices, int wanted,
                              struct error *error)
{
    const size_t pixels = (size_t)clip->source_height * (size_t)clip->source_width;
    uint8_t *rgba, *rgb = malloc(3 * pixels);
    int code = rgb ? 0
                   : error_set(error, ERROR_NO_MEMORY, "no memory for a picture of %d x %d", clip->source_width,
                               clip->source_height);
    for (int index = 0, kept = 0, timestamp; !code && kept < wanted; index++) {
        if (!WebPAnimDecoderGetNext(decoder, &rgba, &timestamp)) {
            code =
                error_set(error, ERROR_BAD_FILE, "cannot be read as WebP: picture %d is damaged or missing", index + 1);
        } else if (index == indices[kept]) {
            still_over_white(rgb, rgba, pixels);
            code = clip_put(clip, kept++, rgb, error);
        }
    }
    free(rgb);
    return code;
}

static int read_webp(struct clip *clip, WebPAnimDecoder *decoder, double fps, uint64_t max_bytes, struct error *error)
{
    WebPAnimInfo info;
    if (!WebPAnimDecoderGetInfo(decoder, &info) || info.frame_count < 1 || info.frame_count > INT32_MAX)
        return error_set(error, ERROR_BAD_FILE, "cannot be read as WebP: it has no picture");
    const int count = (int)info.frame_count;
    if (fps <= 0)
        fps = webp_fps(WebPAnimDecoderGetDemuxer(decoder), count);
    int indices[SAMPLING_MAX_FRAMES];
    int wanted = clip_sample(count, fps, indices, error);
    if (wanted < 0)
        return wanted;
    int code = clip_open(clip, wanted, (int)info.canvas_height, (int)info.canvas_width, max_bytes, error);
    if (!code)
        code = keep_webp_pictures(clip, decoder, indices, wanted, error);
    clip->source_frames = count;
    clip->source_fps = fps;
    clip->fps = SAMPLING_FPS;
    return code;
}

int animation_read_webp(struct clip *clip, const char *path, double fps, uint64_t max_bytes, struct error *error)
{
    *clip = (struct clip){0};
    struct mapped_file file;
    int code = mapped_file_open(&file, path, error);
    if (code)
        return code;
    WebPAnimDecoder *decoder;
    code = still_open_webp(&decoder, file.data, file.bytes, error);
    if (!code)
        code = read_webp(clip, decoder, fps, max_bytes, error);
    WebPAnimDecoderDelete(decoder);
    mapped_file_close(&file);
    if (!code)
        return 0;
    clip_free(clip);
    return error_prefix(error, "%s", path);
}
