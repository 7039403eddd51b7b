/* test_video_colours.c: videos of every pixel format that libav can write, against the frames that the official code's
 * reader gets from them (tests/golden/make_video_colours.py). LANCED_VIDEO_COLOURS names another file of that script's
 * than the kept one. */
#include "tools/media/video_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/packed_fixture.h"

static const char kept_file[] = "tests/golden/data/video_colours.safetensors.gz";

/* How far a value may be off. Debian 12's libav converts planar RGB of more than 8 bits otherwise than the older one in
 * the official reader, and decodes ProRes 4444 to 12 bits where that one stops at 10. Where the processor has no AVX2,
 * with which the frames were recorded, libswscale's other code rounds otherwise. */
static int tolerance(const char *name, const char *recorded)
{
    int allowed = 0;
    if (!strncmp(recorded, "decord gbr", 10) && strncmp(recorded, "decord gbrp ", 12) &&
        strncmp(recorded, "decord gbrap ", 13))
        allowed = 3;
    else if (!strncmp(name, "prores", 6) && !strncmp(recorded, "decord", 6))
        allowed = 1;
#if defined __x86_64__
    return __builtin_cpu_supports("avx2") ? allowed : allowed + 4;
#else
    return allowed + 4;
#endif
}

static void write_clip(const char *path, const struct tensor_view *bytes)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes->data, 1, bytes->bytes, file), bytes->bytes);
    fclose(file);
}

/* The greatest difference of a value in the clip's first frame; -1: it cannot be read, or has another size. */
static int greatest_difference(const char *path, const struct tensor_view *expected)
{
    struct clip clip;
    struct error error;
    if (video_read(&clip, path, 12, 1 << 30, &error)) {
        print_error("%s\n", error.text);
        return -1;
    }
    int greatest = -1;
    if ((uint64_t)clip.height == expected->shape[0] && (uint64_t)clip.width == expected->shape[1]) {
        const uint8_t *wanted = expected->data;
        greatest = 0;
        for (uint64_t i = 0; i < expected->bytes; i++) {
            int difference = abs(clip.pixels[i] - wanted[i]);
            greatest = difference > greatest ? difference : greatest;
        }
    }
    clip_free(&clip);
    return greatest;
}

static void videos_of_every_pixel_format_have_the_official_readers_colours(void **state)
{
    (void)state;
    const char *named = getenv("LANCED_VIDEO_COLOURS");
    struct packed packed = packed_open(named ? named : kept_file);
    const struct safetensors *file = packed.file;
    char folder[] = "/tmp/test-video-colours-XXXXXX", path[256], name[128];
    assert_non_null(mkdtemp(folder));
    int clips = 0, wrong = 0;
    for (size_t i = 0; i < safetensors_count(file); i++) {
        const struct tensor_view *bytes = safetensors_at(file, i);
        const char *colon = strchr(bytes->name, ':');
        if (!colon || strcmp(colon, ":clip"))
            continue;
        int length = (int)(colon - bytes->name);
        snprintf(name, sizeof name, "%.*s:frame", length, bytes->name);
        const struct tensor_view *expected = safetensors_find(file, name);
        name[length] = '\0';
        const char *recorded = safetensors_metadata(file, name);
        assert_true(expected && recorded);
        snprintf(path, sizeof path, "%s/%s", folder, name);
        write_clip(path, bytes);
        int difference = greatest_difference(path, expected);
        unlink(path);
        if (difference < 0 || difference > tolerance(name, recorded)) {
            print_error("%s (%s): %d off\n", name, recorded, difference);
            wrong++;
        }
        clips++;
    }
    rmdir(folder);
    packed_close(&packed);
    if (wrong)
        fail_msg("%d of %d clips differ", wrong, clips);
    assert_true(clips >= 250);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(videos_of_every_pixel_format_have_the_official_readers_colours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
