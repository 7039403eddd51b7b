/* test_animation.c: pictures that move, and pictures that EXIF wants turned, against Pillow
 * (tests/golden/make_media.py). */
#include "tools/media/animation.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/sha256.h"
#include "tools/media/still.h"
#include "tools/media/video_file.h"

static const char data_folder[] = "tests/golden/data/media";

enum { NO_LIMIT = 1 << 30 };

static const char *in_data(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", data_folder, name);
    return path;
}

static FILE *open_list(const char *name)
{
    FILE *file = fopen(in_data(name), "r");
    if (!file)
        fail_msg("%s cannot be read; run from the repository's root", in_data(name));
    return file;
}

static void digest_of(const uint8_t *pixels, size_t bytes, char digest[65])
{
    struct sha256 sha;
    sha256_start(&sha);
    sha256_add(&sha, pixels, bytes);
    sha256_finish(&sha, digest);
}

static int read_moving(struct clip *clip, const char *name, double fps, struct error *error)
{
    const char *path = in_data(name);
    return animation_is_webp(path) ? animation_read_webp(clip, path, fps, NO_LIMIT, error)
                                   : video_read(clip, path, fps, NO_LIMIT, error);
}

static void an_animation_has_all_the_pictures_that_pillow_gives(void **state)
{
    (void)state;
    FILE *list = open_list("moving.txt");
    char name[64], expected[65], digest[65];
    int pictures, read = 0;
    for (; fscanf(list, "%63s %d %64s", name, &pictures, expected) == 3; read++) {
        struct clip clip;
        struct error error;
        assert_int_equal(animation_pictures(in_data(name)), pictures);
        if (read_moving(&clip, name, 12, &error)) /* at this rate all of five are looked at */
            fail_msg("%s", error.text);
        assert_int_equal(clip.frames, pictures);
        digest_of(clip.pixels, 3 * (size_t)clip.frames * (size_t)clip.height * (size_t)clip.width, digest);
        if (strcmp(digest, expected))
            fail_msg("%s differs", name);
        clip_free(&clip);
    }
    fclose(list);
    assert_int_equal(read, 4);
}

static void an_animation_has_the_average_rate_of_its_durations(void **state)
{
    (void)state;
    static const char *const names[] = {"moving.webp", "moving.png", "moving.gif"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct clip clip;
        struct error error;
        if (read_moving(&clip, names[i], 0, &error))
            fail_msg("%s", error.text);
        assert_int_equal(clip.source_frames, 5);
        if (clip.source_fps < 12.499 || clip.source_fps > 12.501)
            fail_msg("%s has %g pictures a second", names[i], clip.source_fps);
        clip_free(&clip);
    }
}

static void a_still_picture_is_no_animation(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int pictures;
    } cases[] = {{"palette.gif", 1},   {"interlaced.gif", 1}, {"animated.gif", 2}, {"lossy.webp", 1},
                 {"animated.webp", 2}, {"rgb.png", 1},        {"420.avif", 1},     {"animated.avif", 2},
                 {"444.jpg", 1},       {"rgb.bmp", 1},        {"missing", 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (animation_pictures(in_data(cases[i].name)) != cases[i].pictures)
            fail_msg("%s: %d pictures", cases[i].name, animation_pictures(in_data(cases[i].name)));
}

static void a_picture_is_turned_upright_on_demand_as_pillow_does(void **state)
{
    (void)state;
    FILE *list = open_list("upright.txt");
    char name[64], expected[65], digest[65];
    int width, height, read = 0;
    for (; fscanf(list, "%63s %d %d %64s", name, &width, &height, expected) == 4; read++) {
        struct still still;
        struct error error;
        if (still_read(&still, in_data(name), true, &error))
            fail_msg("%s", error.text);
        assert_int_equal(still.orientation, 1);
        digest_of(still.pixels, 3 * (size_t)still.height * (size_t)still.width, digest);
        if (still.width != width || still.height != height || strcmp(digest, expected))
            fail_msg("%s differs", name);
        free(still.pixels);
    }
    fclose(list);
    assert_int_equal(read, 35); /* 7 orientations of 5 formats */
}

static void a_picture_says_how_it_has_to_be_turned(void **state)
{
    (void)state;
    static const char *const formats[] = {"jpg", "png", "webp", "avif", "tif"};
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        for (int orientation = 2; orientation <= 8; orientation++) {
            char name[32];
            struct still still;
            struct error error;
            snprintf(name, sizeof name, "turned%d.%s", orientation, formats[i]);
            if (still_read(&still, in_data(name), false, &error))
                fail_msg("%s", error.text);
            int expected = strcmp(formats[i], "tif") ? orientation : 1; /* Pillow has turned it, and so is it here */
            if (still.orientation != expected)
                fail_msg("%s: orientation %d", name, still.orientation);
            free(still.pixels);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_animation_has_all_the_pictures_that_pillow_gives),
        cmocka_unit_test(an_animation_has_the_average_rate_of_its_durations),
        cmocka_unit_test(a_still_picture_is_no_animation),
        cmocka_unit_test(a_picture_is_turned_upright_on_demand_as_pillow_does),
        cmocka_unit_test(a_picture_says_how_it_has_to_be_turned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
