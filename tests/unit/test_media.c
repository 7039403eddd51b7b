/* test_media.c: pictures and videos as files: against Pillow (tests/golden/make_media.py),
 * there and back, and damaged. */
#include "tools/media/clip.h"
#include "tools/media/frames_folder.h"
#include "tools/media/picture_file.h"
#include "tools/media/still.h"
#include "tools/media/video_file.h"

#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <libavformat/avformat.h>

#include "base/bicubic.h"
#include "base/sha256.h"

static const char data_folder[] = "tests/golden/data/media";
static char folder[64]; /* of this run, empty at the start of every test */

enum { HEIGHT = 48, WIDTH = 64, FRAMES = 9, NO_LIMIT = 1 << 30 };

/* ---- Helpers ---- */

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/test-media-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static void empty(const char *path)
{
    DIR *directory = opendir(path);
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        char inside[512];
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        snprintf(inside, sizeof inside, "%s/%s", path, entry->d_name);
        if (unlink(inside))
            empty(inside);
    }
    if (directory)
        closedir(directory);
    rmdir(path);
}

static int remove_folder(void **state)
{
    (void)state;
    empty(folder);
    return 0;
}

/* A path in the folder of the run; good until the next call but three. */
static const char *in_folder(const char *name)
{
    static char paths[4][128];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static void write_bytes(const char *path, const void *bytes, size_t count)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, count, file), count);
    fclose(file);
}

/* The first `percent` of a file of the data folder, under a name of its own. */
static const char *truncated(const char *name, int percent)
{
    char path[256], bytes[65536];
    snprintf(path, sizeof path, "%s/%s", data_folder, name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t count = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    const char *copy = in_folder(name);
    write_bytes(copy, bytes, count * (size_t)percent / 100);
    return copy;
}

/* Frames with a bright block that moves to the right over a dark ground, and a mark for the frame's number. */
static uint8_t *moving_block(int frames, int height, int width)
{
    uint8_t *pixels = malloc(3 * (size_t)frames * (size_t)height * (size_t)width), *out = pixels;
    assert_non_null(pixels);
    for (int f = 0; f < frames; f++)
        for (int y = 0; y < height; y++)
            for (int x = 0; x < width; x++) {
                bool is_block = y >= height / 4 && y < height * 3 / 4 && x >= f * 4 && x < f * 4 + 16;
                *out++ = is_block ? 220 : 40;
                *out++ = (uint8_t)(is_block ? 60 : 60 + 10 * f);
                *out++ = is_block ? 30 : 120;
            }
    return pixels;
}

static double mean_difference(const uint8_t *a, const uint8_t *b, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += abs(a[i] - b[i]);
    return sum / (double)count;
}

static void expect_refusal(int code, const struct error *error, int expected, const char *reason)
{
    assert_int_equal(code, expected);
    if (!strstr(error->text, reason))
        fail_msg("\"%s\" does not say \"%s\"", error->text, reason);
}

/* ---- Pictures ---- */

static void pictures_have_the_pixels_that_pillow_gives(void **state)
{
    (void)state;
    char list[256], name[64], expected[65], digest[65];
    snprintf(list, sizeof list, "%s/pillow.txt", data_folder);
    FILE *file = fopen(list, "r");
    if (!file)
        fail_msg("%s cannot be read; run from the repository's root", list);
    int width, height, pictures = 0, wrong = 0;
    while (fscanf(file, "%63s %d %d %64s", name, &width, &height, expected) == 4) {
        char path[256];
        struct still still;
        struct error error;
        snprintf(path, sizeof path, "%s/%s", data_folder, name);
        pictures++;
        if (still_read(&still, path, false, &error) || still.width != width || still.height != height) {
            print_error("%s: %s, %d x %d\n", name, still.pixels ? "read" : error.text, still.width, still.height);
            free(still.pixels);
            wrong++;
            continue;
        }
        assert_true(still_is_one(path));
        struct sha256 sha;
        sha256_start(&sha);
        sha256_add(&sha, still.pixels, 3 * (size_t)width * (size_t)height);
        sha256_finish(&sha, digest);
        if (strcmp(digest, expected)) {
            print_error("%s differs\n", name);
            wrong++;
        }
        free(still.pixels);
    }
    fclose(file);
    assert_int_equal(wrong, 0);
    assert_true(pictures >= 70);
}

static void heic_photos_have_the_pixels_of_pillows_plugin(void **state)
{
    (void)state;
    static const char *const names[] = {"heic_420", "heic_444", "heic_turned", "heic_alpha"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char photo[256], expected[256];
        struct still found, wanted;
        struct error error;
        snprintf(photo, sizeof photo, "%s/%s.heic", data_folder, names[i]);
        snprintf(expected, sizeof expected, "%s/%s.png", data_folder, names[i]);
        if (still_read(&found, photo, false, &error) || still_read(&wanted, expected, false, &error))
            fail_msg("%s", error.text);
        assert_int_equal(found.width, wanted.width);
        assert_int_equal(found.height, wanted.height);
        for (int p = 0; p < 3 * found.width * found.height; p++)
            if (abs(found.pixels[p] - wanted.pixels[p]) > 1)
                fail_msg("%s: value %d is %d instead of %d", names[i], p, found.pixels[p], wanted.pixels[p]);
        free(found.pixels);
        free(wanted.pixels);
    }
}

static void a_truncated_picture_is_refused(void **state)
{
    (void)state;
    static const char *const names[] = {"rgb.png", "interlaced.png", "420.jpg", "progressive.jpg", "cmyk.jpg",
                                        "lossy.webp", "lossless_alpha.webp"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        for (int percent = 30; percent <= 90; percent += 20) {
            struct still still;
            struct error error;
            const char *path = truncated(names[i], percent);
            int code = still_read(&still, path, false, &error);
            if (code != ERROR_BAD_FILE)
                fail_msg("%d %% of %s are taken (%d)", percent, names[i], code);
            assert_non_null(strstr(error.text, path));
            assert_null(still.pixels);
        }
}

static void what_is_no_picture_is_refused(void **state)
{
    (void)state;
    struct still still;
    struct error error;
    const char *path = in_folder("text.png");
    write_bytes(path, "a red fox in snow\n", 18);
    expect_refusal(still_read(&still, path, false, &error), &error, ERROR_BAD_FILE,
                   "text.png: is no picture; PNG, JPEG, WebP, GIF");
    assert_false(still_is_one(path));
    write_bytes(path, "", 0);
    expect_refusal(still_read(&still, path, false, &error), &error, ERROR_BAD_FILE, "text.png");
    expect_refusal(still_read(&still, in_folder("missing.png"), false, &error), &error, ERROR_BAD_FILE, "missing.png");
    expect_refusal(still_read(&still, folder, false, &error), &error, ERROR_BAD_FILE, folder);
}

static void a_picture_too_wide_is_refused_before_memory_is_taken(void **state)
{
    (void)state;
    /* A header alone: 16,385 x 2,000,000,000 pixels. */
    static const uint8_t header[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n', 0, 0, 0, 13, 'I', 'H', 'D', 'R',
                                     0, 0, 0x40, 0x01, 0x77, 0x35, 0x94, 0, 8, 2, 0, 0, 0, 0xcf, 0x0b, 0x38, 0xbe,
                                     0, 0, 0, 0, 'I', 'D', 'A', 'T', 0x35, 0xaf, 0x06, 0x1e};
    struct still still;
    struct error error;
    const char *path = in_folder("wide.png");
    write_bytes(path, header, sizeof header);
    expect_refusal(still_read(&still, path, false, &error), &error, ERROR_TOO_LARGE,
                   "16385 x 2000000000 pixels; 1 to 8192");
}

static void a_picture_over_the_limit_is_made_smaller(void **state)
{
    (void)state;
    struct clip clip;
    struct error error;
    uint8_t *pixels = moving_block(1, 100, 200);
    const char *path = in_folder("large.png");
    assert_int_equal(picture_write(path, pixels, 200, 100, NULL, &error), 0);
    assert_int_equal(still_read_clip(&clip, path, false, 3 * 50 * 100, &error), 0);
    assert_int_equal(clip.width, 100);
    assert_int_equal(clip.height, 50);
    assert_int_equal(clip.source_width, 200);
    uint8_t expected[3 * 50 * 100];
    assert_int_equal(bicubic_resize(pixels, 3 * 200, 100, 200, expected, 50, 100, &error), 0);
    assert_memory_equal(clip.pixels, expected, sizeof expected);
    clip_free(&clip);
    free(pixels);
    expect_refusal(still_read_clip(&clip, path, false, 3, &error), &error, ERROR_TOO_LARGE, "cannot be made to fit");
}

/* ---- Which frames are sent ---- */

static void the_daemon_takes_every_frame_that_was_chosen(void **state)
{
    (void)state;
    for (int frames = 1; frames <= 400; frames++)
        for (int fps = 8; fps <= 120; fps += 7) {
            int chosen[SAMPLING_MAX_FRAMES], again[SAMPLING_MAX_FRAMES];
            struct error error;
            int count = clip_sample(frames, fps, chosen, &error);
            assert_in_range(count, 1, SAMPLING_MAX_FRAMES);
            assert_int_equal(sampling_frames(count, SAMPLING_FPS, again, SAMPLING_MAX_FRAMES, &error), count);
            for (int i = 0; i < count; i++)
                assert_int_equal(again[i], i);
        }
}

/* ---- Videos ---- */

static const struct {
    const char *name;
    enum video_format format;
    double tolerance; /* mean difference of a value after there and back */
} formats[] = {{"a.mp4", VIDEO_MP4, 3}, {"a.webm", VIDEO_WEBM, 3}, {"a.y4m", VIDEO_Y4M, 1.5}};

static void a_video_comes_back_in_every_format(void **state)
{
    (void)state;
    uint8_t *pixels = moving_block(FRAMES, HEIGHT, WIDTH);
    const size_t bytes = 3 * FRAMES * HEIGHT * WIDTH;
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        struct error error;
        struct clip clip;
        const char *path = in_folder(formats[i].name);
        if (video_write(path, formats[i].format, pixels, FRAMES, HEIGHT, WIDTH, 12, "{\"prompt\":\"\\u732b\"}", &error))
            fail_msg("%s", error.text);
        if (video_read(&clip, path, 0, NO_LIMIT, &error))
            fail_msg("%s", error.text);
        assert_int_equal(clip.frames, FRAMES);
        assert_int_equal(clip.source_frames, FRAMES);
        assert_int_equal(clip.height, HEIGHT);
        assert_int_equal(clip.width, WIDTH);
        assert_true(clip.source_fps == 12 && clip.fps == SAMPLING_FPS);
        double difference = mean_difference(clip.pixels, pixels, bytes);
        if (difference > formats[i].tolerance)
            fail_msg("%s: values differ by %g on average", formats[i].name, difference);
        clip_free(&clip);
    }
    free(pixels);
}

static void mp4_and_webm_hold_the_receipt(void **state)
{
    (void)state;
    uint8_t *pixels = moving_block(FRAMES, HEIGHT, WIDTH);
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        struct error error;
        char *receipt;
        const char *path = in_folder(formats[i].name);
        assert_int_equal(
            video_write(path, formats[i].format, pixels, FRAMES, HEIGHT, WIDTH, 12, "{\"seed\":7}", &error), 0);
        int code = video_read_receipt(&receipt, path, &error);
        if (formats[i].format == VIDEO_Y4M) {
            expect_refusal(code, &error, ERROR_BAD_FILE, "has no receipt");
        } else {
            assert_int_equal(code, 0);
            assert_string_equal(receipt, "{\"seed\":7}");
        }
        free(receipt);
    }
    free(pixels);
}

static void of_a_long_video_only_sampled_frames_are_kept(void **state)
{
    (void)state;
    enum { LONG = 200, SIDE = 32 };
    uint8_t *pixels = malloc(3 * LONG * SIDE * SIDE);
    assert_non_null(pixels);
    for (int f = 0; f < LONG; f++)
        memset(pixels + 3 * SIDE * SIDE * f, f, 3 * SIDE * SIDE);
    struct error error;
    struct clip clip;
    int indices[SAMPLING_MAX_FRAMES];
    assert_int_equal(video_write(in_folder("long.y4m"), VIDEO_Y4M, pixels, LONG, SIDE, SIDE, 30, NULL, &error), 0);
    assert_int_equal(video_read(&clip, in_folder("long.y4m"), 0, NO_LIMIT, &error), 0);
    int count = clip_sample(LONG, 30, indices, &error);
    assert_int_equal(clip.source_frames, LONG);
    assert_int_equal(clip.frames, count);
    for (int i = 0; i < count; i++)
        assert_in_range(clip.pixels[3 * SIDE * SIDE * i] + 2, indices[i], indices[i] + 4);
    clip_free(&clip);

    /* Another rate, given from outside, is another choice. */
    assert_int_equal(video_read(&clip, in_folder("long.y4m"), 100, NO_LIMIT, &error), 0);
    assert_int_equal(clip.frames, clip_sample(LONG, 100, indices, &error));
    clip_free(&clip);
    free(pixels);
}

static void a_video_over_the_limit_is_made_smaller(void **state)
{
    (void)state;
    uint8_t *pixels = moving_block(FRAMES, HEIGHT, WIDTH);
    struct error error;
    struct clip clip;
    assert_int_equal(video_write(in_folder("a.y4m"), VIDEO_Y4M, pixels, FRAMES, HEIGHT, WIDTH, 12, NULL, &error), 0);
    free(pixels);
    const uint64_t limit = 3 * FRAMES * HEIGHT * WIDTH / 4;
    assert_int_equal(video_read(&clip, in_folder("a.y4m"), 0, limit, &error), 0);
    assert_int_equal(clip.frames, FRAMES);
    assert_int_equal(clip.height, HEIGHT / 2);
    assert_int_equal(clip.width, WIDTH / 2);
    clip_free(&clip);
}

static void odd_sides_can_be_read(void **state)
{
    (void)state;
    uint8_t *pixels = moving_block(FRAMES, 33, 45);
    struct error error;
    struct clip clip;
    assert_int_equal(video_write(in_folder("odd.y4m"), VIDEO_Y4M, pixels, FRAMES, 33, 45, 12, NULL, &error), 0);
    assert_int_equal(video_read(&clip, in_folder("odd.y4m"), 0, NO_LIMIT, &error), 0);
    assert_int_equal(clip.height, 33);
    assert_int_equal(clip.width, 45);
    assert_true(mean_difference(clip.pixels, pixels, 3 * FRAMES * 33 * 45) < 1.5);
    clip_free(&clip);
    expect_refusal(video_write(in_folder("odd.mp4"), VIDEO_MP4, pixels, FRAMES, 33, 45, 12, NULL, &error), &error,
                   ERROR_UNSUPPORTED, "even sides");
    assert_int_equal(access(in_folder("odd.mp4"), F_OK), -1);
    free(pixels);
}

static void a_video_filmed_sideways_is_turned(void **state)
{
    (void)state;
    uint8_t *pixels = moving_block(1, HEIGHT, WIDTH);
    struct error error;
    struct clip upright, turned;
    const char *path = in_folder("a.mp4");
    assert_int_equal(video_write(path, VIDEO_MP4, pixels, 1, HEIGHT, WIDTH, 12, NULL, &error), 0);
    free(pixels);
    assert_int_equal(video_read(&upright, path, 0, NO_LIMIT, &error), 0);

    /* The matrix of the track's header: by a quarter clockwise to be shown. */
    static const uint8_t quarter[36] = {0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0,
                                        0, 0, 0, 0, 0, 0, 0, HEIGHT, 0, 0, 0, 0, 0, 0, 0x40};
    uint8_t bytes[8192];
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    size_t count = fread(bytes, 1, sizeof bytes, file);
    uint8_t *header = memmem(bytes, count, "tkhd", 4);
    assert_non_null(header);
    fseek(file, header - bytes + 44, SEEK_SET);
    assert_int_equal(fwrite(quarter, 1, sizeof quarter, file), sizeof quarter);
    fclose(file);

    assert_int_equal(video_read(&turned, path, 0, NO_LIMIT, &error), 0);
    assert_int_equal(turned.height, WIDTH);
    assert_int_equal(turned.width, HEIGHT);
    for (int y = 0; y < HEIGHT; y++)
        for (int x = 0; x < WIDTH; x++)
            assert_memory_equal(turned.pixels + 3 * (x * HEIGHT + HEIGHT - 1 - y), upright.pixels + 3 * (y * WIDTH + x),
                                3);
    clip_free(&upright);
    clip_free(&turned);
}

/* Copy a video of one stream into another file, and have frame i shown i * i / 10 seconds after the first. */
static void vary_frame_rate(const char *from, const char *to)
{
    AVFormatContext *in = NULL, *out = NULL;
    AVPacket *packet = av_packet_alloc();
    assert_int_equal(avformat_open_input(&in, from, NULL, NULL), 0);
    assert_true(avformat_find_stream_info(in, NULL) >= 0);
    assert_true(avformat_alloc_output_context2(&out, NULL, NULL, to) >= 0);
    AVStream *stream = avformat_new_stream(out, NULL);
    assert_true(avcodec_parameters_copy(stream->codecpar, in->streams[0]->codecpar) >= 0);
    assert_true(avio_open(&out->pb, to, AVIO_FLAG_WRITE) >= 0);
    assert_true(avformat_write_header(out, NULL) >= 0);
    for (int64_t i = 0; av_read_frame(in, packet) >= 0; i++) {
        packet->pts = packet->dts = av_rescale_q(i * i, (AVRational){1, 10}, stream->time_base);
        packet->duration = av_rescale_q(2 * i + 1, (AVRational){1, 10}, stream->time_base);
        assert_true(av_write_frame(out, packet) >= 0);
        av_packet_unref(packet);
    }
    assert_true(av_write_trailer(out) >= 0);
    avio_closep(&out->pb);
    avformat_free_context(out);
    avformat_close_input(&in);
    av_packet_free(&packet);
}

static void a_variable_frame_rate_counts_with_its_average(void **state)
{
    (void)state;
    uint8_t *pixels = moving_block(FRAMES, HEIGHT, WIDTH);
    struct error error;
    struct clip clip;
    assert_int_equal(video_write(in_folder("even.webm"), VIDEO_WEBM, pixels, FRAMES, HEIGHT, WIDTH, 12, NULL, &error),
                     0);
    vary_frame_rate(in_folder("even.webm"), in_folder("uneven.mp4"));
    assert_int_equal(video_read(&clip, in_folder("uneven.mp4"), 0, NO_LIMIT, &error), 0);
    assert_int_equal(clip.source_frames, FRAMES);
    assert_true(clip.source_fps >= 1 && clip.source_fps < 2); /* 9 frames in 8.1 seconds */
    int indices[SAMPLING_MAX_FRAMES];
    assert_int_equal(clip.frames, clip_sample(FRAMES, clip.source_fps, indices, &error));
    const size_t bytes = 3 * HEIGHT * WIDTH;
    for (int i = 0; i < clip.frames; i++)
        assert_true(mean_difference(clip.pixels + bytes * (size_t)i, pixels + bytes * (size_t)indices[i], bytes) < 4);
    clip_free(&clip);
    free(pixels);
}

static void what_is_no_video_is_refused(void **state)
{
    (void)state;
    struct clip clip;
    struct error error;
    const char *path = in_folder("text.mp4");
    write_bytes(path, "a red fox in snow\n", 18);
    expect_refusal(video_read(&clip, path, 0, NO_LIMIT, &error), &error, ERROR_UNSUPPORTED,
                   "y4m and folders of pictures are accepted");
    assert_non_null(strstr(error.text, path));
    write_bytes(path, "", 0);
    expect_refusal(video_read(&clip, path, 0, NO_LIMIT, &error), &error, ERROR_UNSUPPORTED, path);
    expect_refusal(video_read(&clip, in_folder("missing.mp4"), 0, NO_LIMIT, &error), &error, ERROR_BAD_FILE,
                   "No such file");
    /* A playlist could make libav open other files. */
    write_bytes(path, "#EXTM3U\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n", 46);
    expect_refusal(video_read(&clip, path, 0, NO_LIMIT, &error), &error, ERROR_UNSUPPORTED,
                   "is no video that can be read");
}

static void a_video_without_frames_is_refused(void **state)
{
    (void)state;
    struct clip clip;
    struct error error;
    static const char header[] = "YUV4MPEG2 W32 H32 F12:1 Ip A1:1 C420jpeg\n";
    const char *path = in_folder("none.y4m");
    write_bytes(path, header, sizeof header - 1);
    expect_refusal(video_read(&clip, path, 0, NO_LIMIT, &error), &error, ERROR_BAD_FILE, path);
}

static void a_y4m_of_absurd_size_is_refused_with_its_size(void **state)
{
    (void)state;
    static const struct {
        const char *header, *said;
        int code;
    } cases[] = {
        {"YUV4MPEG2 W100000 H100001 F12:1 C420jpeg\nFRAME\n",
         "is 100000 x 100001 pixels; 1 to 8192 a side are accepted", ERROR_TOO_LARGE},
        {"YUV4MPEG2 H64 F12:1 W99999999999\nFRAME\n", "is 99999999999 x 64 pixels", ERROR_TOO_LARGE},
        {"YUV4MPEG2 W-5 H64 F12:1\nFRAME\n", "does not tell its size", ERROR_BAD_FILE},
        {"YUV4MPEG2 W64 F12:1\nFRAME\n", "does not tell its size", ERROR_BAD_FILE},
    };
    struct clip clip;
    struct error error;
    const char *path = in_folder("huge.y4m");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_bytes(path, cases[i].header, strlen(cases[i].header));
        expect_refusal(video_read(&clip, path, 0, NO_LIMIT, &error), &error, cases[i].code, cases[i].said);
    }
}

/* Of a webm whole frames may be left, with nothing that tells of others. */
static void a_cut_off_video_is_refused(void **state)
{
    (void)state;
    uint8_t *pixels = moving_block(FRAMES, HEIGHT, WIDTH);
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        struct error error;
        struct clip clip;
        const char *path = in_folder(formats[i].name);
        assert_int_equal(video_write(path, formats[i].format, pixels, FRAMES, HEIGHT, WIDTH, 12, NULL, &error), 0);
        struct stat info;
        assert_int_equal(stat(path, &info), 0);
        for (off_t bytes = info.st_size - 1; bytes > 0; bytes -= info.st_size / 7 + 1) {
            assert_int_equal(truncate(path, bytes), 0);
            int code = video_read(&clip, path, 0, NO_LIMIT, &error);
            bool is_whole_to_its_end =
                formats[i].format == VIDEO_WEBM && code == 0 && clip.frames >= 1 && clip.frames <= FRAMES;
            if (code != ERROR_BAD_FILE && code != ERROR_UNSUPPORTED && !is_whole_to_its_end)
                fail_msg("%lld of %lld bytes of %s: %s", (long long)bytes, (long long)info.st_size, formats[i].name,
                         code ? error.text : "read");
            clip_free(&clip);
        }
    }
    free(pixels);
}

/* ---- Folders ---- */

static void a_folder_of_frames_comes_back_exactly(void **state)
{
    (void)state;
    uint8_t *pixels = moving_block(FRAMES, HEIGHT, WIDTH);
    struct error error;
    struct clip clip;
    char *receipt;
    assert_int_equal(frames_folder_check(in_folder("clip/"), &error), 0);
    assert_int_equal(frames_folder_write(in_folder("clip/"), pixels, FRAMES, HEIGHT, WIDTH, 12, "{\"seed\":7}", &error),
                     0);
    assert_int_equal(frames_folder_read(&clip, in_folder("clip"), 0, false, NO_LIMIT, &error), 0);
    assert_int_equal(clip.frames, FRAMES);
    assert_true(clip.source_fps == 12);
    assert_memory_equal(clip.pixels, pixels, 3 * FRAMES * HEIGHT * WIDTH);
    clip_free(&clip);
    assert_int_equal(picture_read_receipt(&receipt, in_folder("clip/00009.png"), &error), 0);
    assert_string_equal(receipt, "{\"seed\":7}");
    free(receipt);

    expect_refusal(frames_folder_check(in_folder("clip/"), &error), &error, ERROR_IO, "not empty");
    expect_refusal(frames_folder_write(in_folder("clip"), pixels, 1, HEIGHT, WIDTH, 12, NULL, &error), &error, ERROR_IO,
                   "clip");
    assert_int_equal(access(in_folder("clip/00009.png"), F_OK), 0);
    free(pixels);
}

static void a_folder_that_is_no_video_is_refused(void **state)
{
    (void)state;
    uint8_t *pixels = moving_block(1, HEIGHT, WIDTH);
    struct error error;
    struct clip clip;
    expect_refusal(frames_folder_read(&clip, folder, 0, false, NO_LIMIT, &error), &error, ERROR_BAD_FILE,
                   "without frames");
    assert_int_equal(picture_write(in_folder("9.png"), pixels, WIDTH, HEIGHT, NULL, &error), 0);
    expect_refusal(frames_folder_read(&clip, folder, 0, false, NO_LIMIT, &error), &error, ERROR_BAD_FILE, "fps.txt");
    assert_int_equal(frames_folder_read(&clip, folder, 12, false, NO_LIMIT, &error), 0);
    clip_free(&clip);
    for (int i = 10; i < 14; i++) {
        char name[16];
        snprintf(name, sizeof name, "%d.png", i);
        assert_int_equal(picture_write(in_folder(name), pixels, WIDTH - 16, HEIGHT, NULL, &error), 0);
    }
    expect_refusal(frames_folder_read(&clip, folder, 12, false, NO_LIMIT, &error), &error, ERROR_BAD_FILE,
                   "10.png is 48 x 48 pixels and the first frame 64 x 48");
    free(pixels);
}

/* Read a folder of 48 frames with this fps.txt; returns what video_read does. */
static int read_with_fps(struct clip *clip, const char *text, size_t bytes, struct error *error)
{
    write_bytes(in_folder("fps.txt"), text, bytes);
    return frames_folder_read(clip, folder, 0, false, NO_LIMIT, error);
}

static void make_frames(int count)
{
    uint8_t pixels[3 * 4 * 4] = {0};
    struct error error;
    for (int i = 0; i < count; i++) {
        char name[16];
        snprintf(name, sizeof name, "%d.png", i);
        assert_int_equal(picture_write(in_folder(name), pixels, 4, 4, NULL, &error), 0);
    }
}

static void the_whole_of_fps_txt_is_the_frame_rate(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        double fps;
        int frames; /* that the official sampler takes of 48 */
    } cases[] = {{"24", 24, 21},        {"24000/1001\n", 24000.0 / 1001, 21}, {" 23.976 \r\n", 23.976, 21}, {"12/1",
        12, 45},
                 {".5", 0.5, 69},       {"0.01", 0.01, 69},                   {"1000", 1000, 1},            {"2.4e1",
                  24, 21},
                 {"30000/1001", 30000.0 / 1001, 17}};
    make_frames(48);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct clip clip;
        struct error error;
        if (read_with_fps(&clip, cases[i].text, strlen(cases[i].text), &error))
            fail_msg("%s", error.text);
        assert_true(clip.source_fps == cases[i].fps);
        if (clip.frames != cases[i].frames)
            fail_msg("%s: %d frames instead of %d", cases[i].text, clip.frames, cases[i].frames);
        clip_free(&clip);
    }
}

static void an_fps_txt_that_is_no_frame_rate_is_refused(void **state)
{
    (void)state;
    static const char *const none[] = {"23,976", "12:00", "12 fps", "fps=12", "24000/", "/1001", "1/2/3",
                                       "12/0",   "12/-1", "0x18",   "nan",    "inf",    "",      " ",
                                       "12\n24", "12-",   "--12",   "1e",     "12 / 1"};
    static const char *const out_of_range[] = {"0", "-1", "0.009", "1001", "1e300", "24000/1"};
    make_frames(1);
    struct clip clip;
    struct error error;
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        int code = read_with_fps(&clip, none[i], strlen(none[i]), &error);
        if (!code)
            fail_msg("\"%s\" was taken for %g", none[i], clip.source_fps);
        expect_refusal(code, &error, ERROR_BAD_FILE, "as a number or a fraction, such as 12, 23.976 or 24000/1001");
    }
    for (size_t i = 0; i < sizeof out_of_range / sizeof *out_of_range; i++)
        expect_refusal(read_with_fps(&clip, out_of_range[i], strlen(out_of_range[i]), &error), &error, ERROR_BAD_FILE,
                       "a rate of 0.01 to 1000 is accepted");
    char many[512];
    memset(many, '1', sizeof many);
    expect_refusal(read_with_fps(&clip, many, sizeof many, &error), &error, ERROR_BAD_FILE, "as a number");
    expect_refusal(read_with_fps(&clip, "12\0", 3, &error), &error, ERROR_BAD_FILE, "as a number");
}

/* 48 frames of 4 x 4 grey pixels in a y4m with this in its first line. */
static int read_y4m_with_rate(struct clip *clip, const char *rate, struct error *error)
{
    char bytes[48 * 22 + 64];
    int length = snprintf(bytes, sizeof bytes, "YUV4MPEG2 W4 H4 %s Cmono\n", rate);
    for (int i = 0; i < 48; i++)
        length += snprintf(bytes + length, sizeof bytes - (size_t)length, "FRAME\n0123456789abcdef");
    write_bytes(in_folder("rate.y4m"), bytes, (size_t)length);
    return video_read(clip, in_folder("rate.y4m"), 0, NO_LIMIT, error);
}

static void a_y4m_has_the_rate_of_its_whole_fraction_or_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *word;
        double fps; /* 0: refused */
    } cases[] = {{"F24000:1001", 24000.0 / 1001}, {"F1:2", 0.5}, {"F1:100", 0.01}, {"F0:0", 25},     {"F12:1", 12},
                 {"F23,976", 0},                  {"F12:", 0},   {"F12/1", 0},     {"F1:1000", 0}, {"F5000:1", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct clip clip;
        struct error error;
        int code = read_y4m_with_rate(&clip, cases[i].word, &error);
        if (!cases[i].fps)
            expect_refusal(code, &error, ERROR_BAD_FILE, "--fps sets it");
        else if (code || fabs(clip.source_fps - cases[i].fps) > 1e-9)
            fail_msg("%s: %s, %g", cases[i].word, code ? error.text : "read", code ? 0 : clip.source_fps);
        clip_free(&clip);
    }
}

#define IN_A_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pictures_have_the_pixels_that_pillow_gives),
        cmocka_unit_test(heic_photos_have_the_pixels_of_pillows_plugin),
        IN_A_FOLDER(a_truncated_picture_is_refused),
        IN_A_FOLDER(what_is_no_picture_is_refused),
        IN_A_FOLDER(a_picture_too_wide_is_refused_before_memory_is_taken),
        IN_A_FOLDER(a_picture_over_the_limit_is_made_smaller),
        cmocka_unit_test(the_daemon_takes_every_frame_that_was_chosen),
        IN_A_FOLDER(a_video_comes_back_in_every_format),
        IN_A_FOLDER(mp4_and_webm_hold_the_receipt),
        IN_A_FOLDER(of_a_long_video_only_sampled_frames_are_kept),
        IN_A_FOLDER(a_video_over_the_limit_is_made_smaller),
        IN_A_FOLDER(odd_sides_can_be_read),
        IN_A_FOLDER(a_video_filmed_sideways_is_turned),
        IN_A_FOLDER(a_variable_frame_rate_counts_with_its_average),
        IN_A_FOLDER(what_is_no_video_is_refused),
        IN_A_FOLDER(a_video_without_frames_is_refused),
        IN_A_FOLDER(a_y4m_of_absurd_size_is_refused_with_its_size),
        IN_A_FOLDER(a_cut_off_video_is_refused),
        IN_A_FOLDER(a_folder_of_frames_comes_back_exactly),
        IN_A_FOLDER(a_folder_that_is_no_video_is_refused),
        IN_A_FOLDER(the_whole_of_fps_txt_is_the_frame_rate),
        IN_A_FOLDER(an_fps_txt_that_is_no_frame_rate_is_refused),
        IN_A_FOLDER(a_y4m_has_the_rate_of_its_whole_fraction_or_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
