/* test_damaged_media.c: every picture, animation and clip of the recorded data, cut short and with bytes changed: the
 * readers say what is wrong or read something of a sane size, and nothing else happens (the sanitizer builds look
 * closer). */
#include "tools/media/animation.h"
#include "tools/media/still.h"
#include "tools/media/video_file.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mapped_file.h"
#include "tests/unit/packed_fixture.h"

static const char pictures_folder[] = "tests/golden/data/media",
                  videos_file[] = "tests/golden/data/video_colours.safetensors.gz";
static char damaged_path[64];

enum { NO_LIMIT = 1 << 30, CUTS = 9, CHANGES = 24 };

static void write_damaged(const uint8_t *bytes, size_t count)
{
    FILE *file = fopen(damaged_path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, count, file), count);
    fclose(file);
}

static void expect_sane_clip(int code, struct clip *clip, const struct error *error, const char *what)
{
    if (code ? clip->pixels || !strstr(error->text, damaged_path)
             : clip->frames < 1 || clip->frames > SAMPLING_MAX_FRAMES || clip->height < 1 || clip->width < 1)
        fail_msg("%s: %d, %d frames, %s", what, code, clip->frames, code ? error->text : "");
    clip_free(clip);
}

static void read_as_picture(const char *what)
{
    struct still still;
    struct error error = {0};
    int code = still_read(&still, damaged_path, true, &error);
    if (code ? still.pixels || !strstr(error.text, damaged_path) : still.height < 1 || still.width < 1)
        fail_msg("%s: %d, %s", what, code, code ? error.text : "");
    free(still.pixels);
}

static void read_as_animation(const char *what)
{
    struct clip clip;
    struct error error = {0};
    assert_true(animation_pictures(damaged_path) >= 1);
    int code = animation_is_webp(damaged_path) ? animation_read_webp(&clip, damaged_path, 12, NO_LIMIT, &error)
                                               : video_read(&clip, damaged_path, 0, NO_LIMIT, &error);
    expect_sane_clip(code, &clip, &error, what);
}

static void read_as_video(const char *what)
{
    struct clip clip;
    struct error error = {0};
    expect_sane_clip(video_read(&clip, damaged_path, 0, NO_LIMIT, &error), &clip, &error, what);
}

/* Read the bytes cut short at several places, and with one to four of them changed, mostly near the beginning, where
 * sizes stand. */
static void damage(const uint8_t *bytes, size_t count, const char *name, void read(const char *what))
{
    char what[160];
    uint8_t *copy = malloc(count);
    assert_non_null(copy);
    for (size_t cut = 0; cut <= CUTS; cut++) {
        size_t left = cut == CUTS ? count - 1 : count * cut / CUTS;
        snprintf(what, sizeof what, "%s cut to %zu bytes", name, left);
        write_damaged(bytes, left);
        read(what);
    }
    uint32_t random = 12345;
    for (int change = 0; change < CHANGES; change++) {
        memcpy(copy, bytes, count);
        for (int i = 0; i <= change % 4; i++) {
            random = random * 1664525 + 1013904223;
            size_t range = change % 3 || count < 256 ? count : 256;
            copy[(random >> 8) % range] = change % 2 ? (uint8_t)(random >> 4) : 0xff;
        }
        snprintf(what, sizeof what, "%s, change %d", name, change);
        write_damaged(copy, count);
        read(what);
    }
    free(copy);
}

static void damaged_pictures_and_animations_give_words_or_pictures(void **state)
{
    (void)state;
    DIR *folder = opendir(pictures_folder);
    assert_non_null(folder);
    int files = 0;
    for (struct dirent *entry; (entry = readdir(folder));) {
        char path[512];
        struct mapped_file file;
        struct error error;
        snprintf(path, sizeof path, "%s/%s", pictures_folder, entry->d_name);
        if (*entry->d_name == '.' || strstr(entry->d_name, ".txt") || mapped_file_open(&file, path, &error))
            continue;
        damage(file.data, file.bytes, entry->d_name, read_as_picture);
        if (animation_pictures(path) > 1)
            damage(file.data, file.bytes, entry->d_name, read_as_animation);
        mapped_file_close(&file);
        files++;
    }
    closedir(folder);
    assert_true(files >= 100);
}

/* libwebp alone would ask for 34 GB, or say that the file is damaged. */
static void a_webp_that_claims_a_huge_canvas_is_too_large_before_memory_is_asked_for(void **state)
{
    enum { CANVAS_AT = 24, CANVAS_BYTES = 6 };
    static const uint8_t huge[CANVAS_BYTES] = {0xff, 0xff, 0xff, 254, 0, 0}; /* less 1: 16777216 x 255 */
    struct mapped_file file;
    struct error error = {0};
    struct clip clip;
    struct still still;
    (void)state;
    assert_int_equal(mapped_file_open(&file, "tests/golden/data/media/moving.webp", &error), 0);
    uint8_t *copy = malloc(file.bytes);
    memcpy(copy, file.data, file.bytes);
    memcpy(copy + CANVAS_AT, huge, CANVAS_BYTES);
    write_damaged(copy, file.bytes);
    assert_int_equal(still_read(&still, damaged_path, true, &error), ERROR_TOO_LARGE);
    assert_non_null(strstr(error.text, "16777216 x 255"));
    assert_int_equal(animation_read_webp(&clip, damaged_path, 12, NO_LIMIT, &error), ERROR_TOO_LARGE);
    free(copy);
    mapped_file_close(&file);
}

static void damaged_videos_give_words_or_frames(void **state)
{
    (void)state;
    struct packed packed = packed_open(videos_file);
    const struct safetensors *file = packed.file;
    int clips = 0;
    for (size_t i = 0; i < safetensors_count(file); i++) {
        const struct tensor_view *bytes = safetensors_at(file, i);
        if (!strstr(bytes->name, ":clip") || i % 14)
            continue;
        damage(bytes->data, bytes->bytes, bytes->name, read_as_video);
        clips++;
    }
    packed_close(&packed);
    assert_true(clips >= 20);
}

static int make_path(void **state)
{
    (void)state;
    strcpy(damaged_path, "/tmp/test-damaged-XXXXXX");
    int descriptor = mkstemp(damaged_path);
    return descriptor < 0 ? -1 : close(descriptor);
}

static int remove_path(void **state)
{
    (void)state;
    return unlink(damaged_path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(damaged_pictures_and_animations_give_words_or_pictures, make_path, remove_path),
        cmocka_unit_test_setup_teardown(a_webp_that_claims_a_huge_canvas_is_too_large_before_memory_is_asked_for,
                                        make_path, remove_path),
        cmocka_unit_test_setup_teardown(damaged_videos_give_words_or_frames, make_path, remove_path),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
