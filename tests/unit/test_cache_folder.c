/* test_cache_folder.c: where lanced keeps what it can find out again, and whose folder it believes. */
#include "daemon/cache_folder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { NOBODY = 65534 };

static char cache[64], folder[80], found[CACHE_FOLDER_BYTES];

static int set_up(void **state)
{
    (void)state;
    strcpy(cache, "/tmp/test_cache_folder.XXXXXX");
    if (!mkdtemp(cache))
        return -1;
    snprintf(folder, sizeof folder, "%s/lanced", cache);
    return setenv("XDG_CACHE_HOME", cache, 1);
}

static int tear_down(void **state)
{
    (void)state;
    if (rmdir(folder) != 0)
        unlink(folder);
    return rmdir(cache);
}

static void it_is_made_for_its_owner_alone_and_found_again(void **state)
{
    (void)state;
    struct stat info;
    for (int i = 0; i < 2; i++) {
        cache_folder_make(found, sizeof found);
        assert_string_equal(found, folder);
    }
    assert_int_equal(stat(folder, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
}

static void one_that_others_can_write_to_is_none(void **state)
{
    (void)state;
    static const mode_t modes[] = {0770, 0702, 0777};
    assert_int_equal(mkdir(folder, 0700), 0);
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        assert_int_equal(chmod(folder, modes[i]), 0);
        cache_folder_make(found, sizeof found);
        assert_string_equal(found, "");
    }
    assert_int_equal(chmod(folder, 0755), 0);
    cache_folder_make(found, sizeof found);
    assert_string_equal(found, folder);
}

static void a_link_or_a_file_is_none(void **state)
{
    (void)state;
    assert_int_equal(symlink("/tmp", folder), 0);
    cache_folder_make(found, sizeof found);
    assert_string_equal(found, "");
    assert_int_equal(unlink(folder), 0);
    fclose(fopen(folder, "w"));
    cache_folder_make(found, sizeof found);
    assert_string_equal(found, "");
}

static void somebody_elses_is_none(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip(); /* only root can give a folder away */
    assert_int_equal(mkdir(folder, 0700), 0);
    assert_int_equal(chown(folder, NOBODY, NOBODY), 0);
    cache_folder_make(found, sizeof found);
    assert_string_equal(found, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(it_is_made_for_its_owner_alone_and_found_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(one_that_others_can_write_to_is_none, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_link_or_a_file_is_none, set_up, tear_down),
        cmocka_unit_test_setup_teardown(somebody_elses_is_none, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
