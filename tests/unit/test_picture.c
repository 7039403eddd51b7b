/* Preprocessing against what Pillow and the official formulas gave (tests/golden/make_picture_vectors.py). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bicubic.h"
#include "daemon/engine/model/picture.h"
#include "protocol/clip_sampling.h"

static const char *const vectors = "tests/golden/data/vision/pictures.txt";

enum { MAX_FRAMES = 400, MAX_SAMPLES = 72 };

/* The same picture as synthetic() in make_picture_vectors.py. */
static uint8_t *synthetic(int height, int width)
{
    uint8_t *pixels = malloc(3 * (size_t)height * (size_t)width), *out = pixels;
    assert_non_null(pixels);
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++)
            for (int c = 0; c < 3; c++)
                *out++ = (uint8_t)((3 * x * x + 5 * y * y + (c + 1) * x * y + 160 * c) / 4);
    return pixels;
}

static void checksum_add(uint64_t *sum, uint64_t *count, uint64_t value)
{
    *sum += (value + 1) * ((*count)++ * UINT64_C(0x9E3779B97F4A7C15) + 1);
}

static uint64_t checksum(const uint8_t *bytes, size_t n)
{
    uint64_t sum = 0, count = 0;
    for (size_t i = 0; i < n; i++)
        checksum_add(&sum, &count, bytes[i]);
    return sum;
}

/* Calls `check` for every line that starts with `kind`; `check` returns whether the line was understood and right. */
static void check_lines(const char *kind, int at_least, bool (*check)(const char *line))
{
    FILE *file = fopen(vectors, "r");
    if (!file)
        fail_msg("%s cannot be read; run from the repository's root", vectors);
    char line[200];
    int lines = 0, wrong = 0;
    while (fgets(line, sizeof line, file))
        if (!strncmp(line, kind, strlen(kind)) && line[strlen(kind)] == ' ') {
            lines++;
            if (!check(line + strlen(kind))) {
                print_error("differs: %s", line);
                wrong++;
            }
        }
    fclose(file);
    assert_int_equal(wrong, 0);
    assert_true(lines >= at_least);
}

static bool resize_matches(const char *line)
{
    int height, width, out_height, out_width;
    unsigned long long want;
    if (sscanf(line, "%d %d %d %d %llx", &height, &width, &out_height, &out_width, &want) != 5)
        return false;
    size_t bytes = 3 * (size_t)out_height * (size_t)out_width;
    uint8_t *in = synthetic(height, width), *out = malloc(bytes);
    struct error error;
    assert_int_equal(bicubic_resize(in, 3 * (size_t)width, height, width, out, out_height, out_width, &error), 0);
    bool same = checksum(out, bytes) == want;
    free(in);
    free(out);
    return same;
}

static void resizing_gives_the_bytes_of_pillow(void **state)
{
    (void)state;
    check_lines("resize", 7, resize_matches);
}

static bool prepare_matches(const char *line)
{
    char resolution[32], use_name[8];
    int height, width, out_height, out_width;
    unsigned long long want;
    if (sscanf(line, "%31s %7s %d %d %d %d %llx", resolution, use_name, &height, &width, &out_height, &out_width,
               &want) != 7)
        return false;
    enum picture_use use = strcmp(use_name, "vit") ? PICTURE_FOR_VAE : PICTURE_FOR_VIT;
    struct picture_size size;
    struct error error;
    if (picture_bucket(resolution, use, height, width, &size, &error) < 0 || size.height != out_height ||
        size.width != out_width)
        return false;
    size_t bytes = 3 * (size_t)size.height * (size_t)size.width;
    uint8_t *in = synthetic(height, width), *out = malloc(bytes);
    assert_int_equal(picture_prepare(in, height, width, resolution, use, out, &error), 0);
    bool same = checksum(out, bytes) == want;
    free(in);
    free(out);
    return same;
}

static void every_bucket_of_every_preset_gives_the_official_pixels(void **state)
{
    (void)state;
    check_lines("prepare", 6 * 2 * 14, prepare_matches);
}

static bool frames_match(const char *line)
{
    double fps;
    unsigned long long want;
    if (sscanf(line, "%lf %llx", &fps, &want) != 2)
        return false;
    uint64_t sum = 0, position = 0;
    for (int count = 1; count <= MAX_FRAMES; count++) {
        int indices[MAX_SAMPLES];
        struct error error;
        int n = sampling_frames(count, fps, indices, MAX_SAMPLES, &error);
        assert_true(n > 0);
        checksum_add(&sum, &position, (uint64_t)n);
        for (int i = 0; i < n; i++)
            checksum_add(&sum, &position, (uint64_t)indices[i]);
    }
    return sum == want;
}

static void frames_are_those_of_the_official_sampler(void **state)
{
    (void)state;
    check_lines("frames", 117, frames_match);
}

static void a_size_given_as_a_resolution_is_rounded_down(void **state)
{
    (void)state;
    struct picture_size size;
    struct error error;
    assert_int_equal(picture_bucket("130x127", PICTURE_FOR_VAE, 99, 77, &size, &error), 0);
    assert_int_equal(size.height, 128);
    assert_int_equal(size.width, 112);
    assert_int_equal(picture_bucket("130x127", PICTURE_FOR_VIT, 99, 77, &size, &error), 0);
    assert_int_equal(size.height, 112);
    assert_int_equal(size.width, 112);
}

static void the_vit_may_be_given_a_size_of_its_own(void **state)
{
    (void)state;
    struct picture_size size;
    struct error error;
    assert_int_equal(picture_bucket("96x80/112x140", PICTURE_FOR_VAE, 99, 77, &size, &error), 0);
    assert_int_equal(size.height, 96);
    assert_int_equal(size.width, 80);
    assert_int_equal(picture_bucket("96x80/112x140", PICTURE_FOR_VIT, 99, 77, &size, &error), 0);
    assert_int_equal(size.height, 112);
    assert_int_equal(size.width, 140);
}

static void a_given_size_keeps_the_middle_of_a_wide_picture(void **state)
{
    (void)state;
    uint8_t in[32 * 96 * 3], out[32 * 32 * 3];
    for (int i = 0; i < 32 * 96; i++)
        memset(in + 3 * i, i % 96, 3); /* brightness = column */
    struct error error;
    assert_int_equal(picture_prepare(in, 32, 96, "32x32", PICTURE_FOR_VAE, out, &error), 0);
    assert_int_equal(out[0], 32);
    assert_int_equal(out[3 * 31], 63);
}

static void bad_resolutions_and_sizes_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"",        "768",     "image_4k", "x",        "128x",         "x128",
                                      "128x128x", "-64x64", "1e3x64",   "16x16",    "99999x99999",  " 128x128",
                                      "128x 128", "0x128",  "128X128",  "%s%s%s%n", "128x128x128x1",
                                      "96x96/", "/96x96", "96x96/112", "96x96/112x112/", "96/112x112",
                                          "99999x9999/96x96"};
    struct picture_size size;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct error error;
        assert_int_equal(picture_bucket(bad[i], PICTURE_FOR_VAE, 64, 64, &size, &error), ERROR_BAD_REQUEST);
    }
    struct error error;
    assert_int_equal(picture_bucket("image_4k", PICTURE_FOR_VAE, 64, 64, &size, &error), ERROR_BAD_REQUEST);
    assert_non_null(strstr(error.text, "image_768res"));
    assert_int_equal(picture_bucket("image_768res", PICTURE_FOR_VAE, 0, 64, &size, &error), ERROR_BAD_REQUEST);
    assert_int_equal(picture_bucket("image_768res", PICTURE_FOR_VAE, 64, 1 << 30, &size, &error), ERROR_BAD_REQUEST);
}

static void bad_clips_are_refused(void **state)
{
    (void)state;
    int indices[MAX_SAMPLES];
    struct error error;
    assert_int_equal(sampling_frames(0, 24, indices, MAX_SAMPLES, &error), ERROR_BAD_REQUEST);
    assert_int_equal(sampling_frames(24, 0, indices, MAX_SAMPLES, &error), ERROR_BAD_REQUEST);
    assert_int_equal(sampling_frames(24, -24, indices, MAX_SAMPLES, &error), ERROR_BAD_REQUEST);
    assert_int_equal(sampling_frames(24, NAN, indices, MAX_SAMPLES, &error), ERROR_BAD_REQUEST);
    assert_int_equal(sampling_frames(24, INFINITY, indices, MAX_SAMPLES, &error), ERROR_BAD_REQUEST);
    assert_int_equal(sampling_frames(24, 0.009, indices, MAX_SAMPLES, &error), ERROR_BAD_REQUEST);
    assert_int_equal(sampling_frames(24, 1001, indices, MAX_SAMPLES, &error), ERROR_BAD_REQUEST);
    assert_int_equal(sampling_frames(240, 24, indices, 3, &error), ERROR_TOO_LARGE);
}

static void a_clip_shorter_than_a_sampling_step_gives_its_first_frame(void **state)
{
    (void)state;
    int index = -1;
    struct error error;
    assert_int_equal(sampling_frames(1, 60, &index, 1, &error), 1);
    assert_int_equal(index, 0);
}

static void a_clip_of_any_rate_from_the_range_gives_frames(void **state)
{
    (void)state;
    int indices[MAX_SAMPLES], of_one[MAX_SAMPLES];
    struct error error;
    const int expected = sampling_frames(24, 1, of_one, MAX_SAMPLES, &error);
    assert_true(expected > 1);
    const double slow[] = {0.01, 0.3, 0.5};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(sampling_frames(24, slow[i], indices, MAX_SAMPLES, &error), expected);
        assert_memory_equal(indices, of_one, (size_t)expected * sizeof *indices);
    }
    assert_int_equal(sampling_frames(24, 1000, indices, MAX_SAMPLES, &error), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resizing_gives_the_bytes_of_pillow),
        cmocka_unit_test(every_bucket_of_every_preset_gives_the_official_pixels),
        cmocka_unit_test(frames_are_those_of_the_official_sampler),
        cmocka_unit_test(a_size_given_as_a_resolution_is_rounded_down),
        cmocka_unit_test(the_vit_may_be_given_a_size_of_its_own),
        cmocka_unit_test(a_given_size_keeps_the_middle_of_a_wide_picture),
        cmocka_unit_test(bad_resolutions_and_sizes_are_refused),
        cmocka_unit_test(bad_clips_are_refused),
        cmocka_unit_test(a_clip_shorter_than_a_sampling_step_gives_its_first_frame),
        cmocka_unit_test(a_clip_of_any_rate_from_the_range_gives_frames),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
