/* Tests of the default memory limit, on made-up machines in a temporary folder. */
#include "daemon/machine_memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MIB (UINT64_C(1) << 20)

static char root[] = "/tmp/lance-machine-XXXXXX";

static void put(const char *folder, const char *name, const char *text)
{
    char path[300];
    snprintf(path, sizeof path, "mkdir -p %s%s", root, folder);
    assert_int_equal(system(path), 0);
    snprintf(path, sizeof path, "%s%s/%s", root, folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static int make_root(void **state)
{
    (void)state;
    return mkdtemp(root) ? 0 : -1;
}

static int clear_root(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s/*", root);
    return system(command);
}

static int remove_root(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", root);
    return system(command);
}

static const char meminfo[] = "MemTotal:       16777216 kB\nMemFree:         1000000 kB\nMemAvailable:   12582912 kB\n";

static void a_plain_machine_gives_what_is_available(void **state)
{
    (void)state;
    struct machine_memory m;
    put("/proc", "meminfo", meminfo);
    machine_memory_read(&m, root);
    assert_int_equal(m.total_bytes, 16384 * MIB);
    assert_int_equal(m.available_bytes, 12288 * MIB);
    /* An eighth of 16 GiB stays in reserve. */
    assert_int_equal(machine_memory_for_jobs(&m, 4096 * MIB), 6144 * MIB);
}

static void a_control_group_that_allows_less_counts(void **state)
{
    (void)state;
    struct machine_memory m;
    put("/proc", "meminfo", meminfo);
    put("/proc/self", "cgroup", "0::/farm/worker\n");
    put("/sys/fs/cgroup/farm", "memory.max", "4294967296\n");
    put("/sys/fs/cgroup/farm", "memory.current", "2147483648\n");
    put("/sys/fs/cgroup/farm", "memory.stat", "anon 1073741824\nfile 1073741824\n");
    put("/sys/fs/cgroup/farm/worker", "memory.max", "max\n");
    machine_memory_read(&m, root);
    assert_int_equal(m.total_bytes, 4096 * MIB);
    assert_int_equal(m.available_bytes, 3072 * MIB); /* the page cache gives way */
}

static void a_container_of_the_older_kind_counts_too(void **state)
{
    (void)state;
    struct machine_memory m;
    put("/proc", "meminfo", meminfo);
    put("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "1073741824\n");
    put("/sys/fs/cgroup/memory", "memory.usage_in_bytes", "268435456\n");
    machine_memory_read(&m, root);
    assert_int_equal(m.available_bytes, 768 * MIB);
}

static void a_full_machine_still_runs_small_jobs(void **state)
{
    (void)state;
    const struct machine_memory m = {.total_bytes = 2048 * MIB, .available_bytes = 300 * MIB};
    assert_int_equal(machine_memory_for_jobs(&m, 8192 * MIB), 64 * MIB);
}

static void a_system_that_does_not_say_sets_no_limit(void **state)
{
    (void)state;
    struct machine_memory m;
    machine_memory_read(&m, root);
    assert_int_equal(m.total_bytes, 0);
    assert_int_equal(machine_memory_for_jobs(&m, MIB), 0);
}

static void a_card_keeps_a_sixteenth_for_itself_and_always_runs_small_jobs(void **state)
{
    (void)state;
    assert_int_equal(device_memory_for_jobs(16384 * MIB), 15360 * MIB);
    assert_int_equal(device_memory_for_jobs(1024 * MIB), 768 * MIB);
    assert_int_equal(device_memory_for_jobs(100 * MIB), 64 * MIB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_plain_machine_gives_what_is_available, clear_root),
        cmocka_unit_test_teardown(a_control_group_that_allows_less_counts, clear_root),
        cmocka_unit_test_teardown(a_container_of_the_older_kind_counts_too, clear_root),
        cmocka_unit_test(a_full_machine_still_runs_small_jobs),
        cmocka_unit_test(a_system_that_does_not_say_sets_no_limit),
        cmocka_unit_test(a_card_keeps_a_sixteenth_for_itself_and_always_runs_small_jobs),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}
