/* test_identity.c: the name of a model's files, and what is kept of it. */
#include "daemon/engine/model/checkpoint/identity.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/sha256.h"

enum { LARGE_BYTES = 20 << 20 };

/* A folder for files and one for what is kept, both removed at the end. */
static char folder[64], kept[64];

static int make_folders(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/test_identity.XXXXXX");
    strcpy(kept, "/tmp/test_identity.XXXXXX");
    return mkdtemp(folder) && mkdtemp(kept) ? 0 : -1;
}

/* Do something with each file of a folder; returns how many there are. */
static int each_file(const char *where, int (*action)(const char *path))
{
    int count = 0;
    DIR *directory = opendir(where);
    assert_non_null(directory);
    for (struct dirent *entry; (entry = readdir(directory));) {
        char path[400];
        snprintf(path, sizeof path, "%s/%s", where, entry->d_name);
        if (entry->d_name[0] == '.')
            continue;
        count++;
        if (action)
            assert_int_equal(action(path), 0);
    }
    closedir(directory);
    return count;
}

static int remove_folders(void **state)
{
    (void)state;
    each_file(folder, unlink);
    each_file(kept, unlink);
    return rmdir(folder) + rmdir(kept);
}

static const char *file_of(const char *name, size_t bytes, char fill)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    char *content = malloc(bytes);
    memset(content, fill, bytes);
    FILE *file = fopen(path, "wb");
    assert_int_equal(fwrite(content, 1, bytes, file), bytes);
    fclose(file);
    free(content);
    return path;
}

static void hash_of(char hex[65], size_t bytes, char fill)
{
    struct sha256 sha;
    char *content = malloc(bytes);
    memset(content, fill, bytes);
    sha256_start(&sha);
    sha256_add(&sha, content, bytes);
    sha256_finish(&sha, hex);
    free(content);
}

/* The name of one file, "weights 0". */
static void name_of(char hex[65], const char *path)
{
    struct identity *identity;
    struct error error = {0};
    assert_int_equal(identity_open(&identity, kept, &error), 0);
    assert_int_equal(identity_add(identity, "weights 0", path, &error), 0);
    identity_start(identity);
    if (identity_wait(identity, hex, &error))
        fail_msg("%s", error.text);
    identity_close(identity);
}

static void the_name_is_the_hash_of_a_line_for_each_file(void **state)
{
    (void)state;
    struct identity *identity;
    struct error error = {0};
    char found[65], expected[65], one[65], lines[1200] = "";
    assert_int_equal(identity_open(&identity, NULL, &error), 0);
    for (int i = 0; i < 7; i++) { /* more than threads */
        char name[16];
        snprintf(name, sizeof name, "file %d", i);
        assert_int_equal(identity_add(identity, name, file_of(name, (size_t)(i * 700000), (char)i), &error), 0);
        hash_of(one, (size_t)(i * 700000), (char)i);
        snprintf(lines + strlen(lines), sizeof lines - strlen(lines), "%s %s\n", name, one);
    }
    identity_start(identity);
    assert_int_equal(identity_wait(identity, found, &error), 0);
    struct sha256 sha;
    sha256_start(&sha);
    sha256_add(&sha, lines, strlen(lines));
    sha256_finish(&sha, expected);
    assert_string_equal(found, expected);
    identity_close(identity);
}

static int lie(const char *path)
{
    FILE *file = fopen(path, "wb");
    return fprintf(file, "%064d\n", 7) != 65 || fclose(file);
}

static int damage(const char *path)
{
    return truncate(path, 64);
}

static void a_large_file_is_read_once_and_again_when_it_changed(void **state)
{
    (void)state;
    char first[65], again[65];
    const char *path = file_of("large", LARGE_BYTES, 'a');
    name_of(first, path);
    assert_int_equal(each_file(kept, NULL), 1);
    name_of(again, path);
    assert_string_equal(again, first);
    each_file(kept, lie);
    name_of(again, path);
    assert_string_not_equal(again, first); /* what is kept was taken */
    each_file(kept, damage);
    name_of(again, path);
    assert_string_equal(again, first);
    each_file(kept, lie);
    struct stat before;
    assert_int_equal(stat(path, &before), 0);
    file_of("large", LARGE_BYTES, 'b');
    const struct timespec times[2] = {before.st_atim, before.st_mtim}; /* as some copying programs put it back */
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    name_of(again, path);
    assert_string_not_equal(again, first);
    assert_int_equal(each_file(kept, NULL), 2);
    each_file(kept, unlink);
}

/* A pipe in the place of what is kept, which nobody writes into. */
static int put_a_pipe(const char *path)
{
    return unlink(path) || mkfifo(path, 0600);
}

static void what_is_kept_is_a_file_or_nothing(void **state)
{
    (void)state;
    char first[65], again[65];
    const char *path = file_of("large", LARGE_BYTES, 'a');
    name_of(first, path);
    each_file(kept, put_a_pipe);
    alarm(30); /* who opens it to read waits for a writer */
    name_of(again, path);
    alarm(0);
    assert_string_equal(again, first);
    each_file(kept, unlink);
}

static void a_file_whose_name_goes_while_it_is_read_is_read_all_the_same(void **state)
{
    (void)state;
    struct identity *identity;
    struct error error = {0};
    char hex[65], expected[65];
    name_of(expected, file_of("goes", LARGE_BYTES, 'a'));
    each_file(kept, unlink);
    assert_int_equal(identity_open(&identity, kept, &error), 0);
    const char *path = file_of("goes", LARGE_BYTES, 'a');
    assert_int_equal(identity_add(identity, "weights 0", path, &error), 0);
    assert_int_equal(unlink(path), 0); /* opened, not read yet */
    assert_int_equal(identity_wait(identity, hex, &error), 0);
    assert_string_equal(hex, expected);
    identity_close(identity);
    each_file(kept, unlink);
}

static void bytes_that_change_behind_the_back_of_their_time_are_read_again(void **state)
{
    (void)state;
    struct identity *identity;
    struct error error = {0};
    struct stat before;
    char hex[65], expected[65];
    const char *path = file_of("sly", LARGE_BYTES, 'a');
    assert_int_equal(identity_open(&identity, kept, &error), 0);
    assert_int_equal(identity_add(identity, "weights 0", path, &error), 0);
    assert_int_equal(stat(path, &before), 0);
    file_of("sly", LARGE_BYTES, 'b');
    const struct timespec times[2] = {before.st_atim, before.st_mtim};
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    assert_int_equal(identity_wait(identity, hex, &error), 0);
    identity_close(identity);
    name_of(expected, path); /* nothing is kept under the file as it was */
    assert_string_equal(hex, expected);
    assert_int_equal(each_file(kept, NULL), 1);
    each_file(kept, unlink);
}

static void small_files_leave_nothing_behind(void **state)
{
    (void)state;
    char hex[65];
    name_of(hex, file_of("small", 100000, 'a'));
    assert_int_equal(each_file(kept, NULL), 0);
}

static void a_file_that_changes_or_is_not_there_is_named(void **state)
{
    (void)state;
    struct identity *identity;
    struct error error = {0};
    char hex[65];
    assert_int_equal(identity_open(&identity, kept, &error), 0);
    assert_int_equal(identity_add(identity, "vae", file_of("shrinks", 100000, 'a'), &error), 0);
    file_of("shrinks", 5, 'a');
    identity_start(identity);
    assert_int_equal(identity_wait(identity, hex, &error), ERROR_BAD_FILE);
    assert_non_null(strstr(error.text, "/shrinks: changed while it was read"));
    assert_int_equal(identity_add(identity, "vit", "/nowhere/vit", &error), ERROR_BAD_FILE);
    assert_non_null(strstr(error.text, "/nowhere/vit: cannot be read"));
    identity_close(identity);
}

static void one_that_nobody_waits_for_ends_early(void **state)
{
    (void)state;
    struct identity *identity;
    struct error error = {0};
    assert_int_equal(identity_open(&identity, kept, &error), 0);
    for (int i = 0; i < 6; i++)
        assert_int_equal(identity_add(identity, "weights", file_of("large", LARGE_BYTES, 'a'), &error), 0);
    identity_start(identity);
    identity_close(identity);
    each_file(kept, unlink);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_name_is_the_hash_of_a_line_for_each_file),
        cmocka_unit_test(a_large_file_is_read_once_and_again_when_it_changed),
        cmocka_unit_test(what_is_kept_is_a_file_or_nothing),
        cmocka_unit_test(a_file_whose_name_goes_while_it_is_read_is_read_all_the_same),
        cmocka_unit_test(bytes_that_change_behind_the_back_of_their_time_are_read_again),
        cmocka_unit_test(small_files_leave_nothing_behind),
        cmocka_unit_test(a_file_that_changes_or_is_not_there_is_named),
        cmocka_unit_test(one_that_nobody_waits_for_ends_early),
    };
    return cmocka_run_group_tests(tests, make_folders, remove_folders);
}
