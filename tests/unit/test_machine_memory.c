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
    assert_int_equal(machine_memory_read(&m, root, NULL), 0);
    assert_int_equal(m.total_bytes, 16384 * MIB);
    assert_int_equal(m.available_bytes, 12288 * MIB);
    /* An eighth of 16 GiB stays in reserve. */
    assert_int_equal(machine_memory_for_jobs(&m, 4096 * MIB), 6144 * MIB);
}

/* As systems have them: /proc/self/mountinfo of a unified hierarchy (Debian 12), of the older ones, and of a hybrid
 * machine. */
static const char unified_mounts[] = "24 30 0:22 / /proc rw,relatime shared:5 - proc proc rw\n"
                                     "27 26 0:25 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
static const char older_mounts[] = "35 31 0:30 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n"
                                   "36 31 0:31 / /sys/fs/cgroup/memory rw,relatime shared:12 - cgroup none rw,memory\n";
static const char hybrid_mounts[] = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
                                    "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

/* A group with all its files, in MiB: its limit, what it uses, and how much of that is page cache and tmpfs. */
static void put_unified(const char *folder, const char *limit, int used, int cache, int shared)
{
    char text[200];
    put(folder, "memory.max", limit);
    put(folder, "memory.high", "max\n");
    snprintf(text, sizeof text, "%llu\n", (unsigned long long)used * MIB);
    put(folder, "memory.current", text);
    snprintf(text, sizeof text, "anon 0\nfile %llu\nshmem %llu\ninactive_file %llu\nactive_file %llu\n",
             (unsigned long long)(cache + shared) * MIB, (unsigned long long)shared * MIB,
             (unsigned long long)cache / 2 * MIB, (unsigned long long)(cache - cache / 2) * MIB);
    put(folder, "memory.stat", text);
}

static void put_older(const char *folder, uint64_t limit, int used, int cache, uint64_t limit_of_all)
{
    char text[200];
    snprintf(text, sizeof text, "%llu\n", (unsigned long long)limit);
    put(folder, "memory.limit_in_bytes", text);
    snprintf(text, sizeof text, "%llu\n", (unsigned long long)used * MIB);
    put(folder, "memory.usage_in_bytes", text);
    put(folder, "memory.use_hierarchy", "1\n");
    snprintf(text, sizeof text,
             "cache 0\nhierarchical_memory_limit %llu\ntotal_inactive_file %llu\ntotal_active_file 0\n",
             (unsigned long long)limit_of_all, (unsigned long long)cache * MIB);
    put(folder, "memory.stat", text);
}

static const uint64_t no_limit = 9223372036854771712u; /* as the older hierarchy says it */

static void expect(uint64_t total_mib, uint64_t available_mib)
{
    struct machine_memory m;
    put("/proc", "meminfo", meminfo);
    assert_int_equal(machine_memory_read(&m, root, NULL), 0);
    assert_int_equal(m.total_bytes, total_mib * MIB);
    assert_int_equal(m.available_bytes, available_mib * MIB);
}

static void a_control_group_that_allows_less_counts(void **state)
{
    (void)state;
    put("/proc/self", "cgroup", "0::/farm/worker\n");
    put("/proc/self", "mountinfo", unified_mounts);
    put_unified("/sys/fs/cgroup/farm", "4294967296\n", 2048, 1024, 0);
    put_unified("/sys/fs/cgroup/farm/worker", "max\n", 100, 0, 0);
    expect(4096, 3072); /* the page cache gives way */
}

static void a_group_is_as_full_as_the_fullest_that_it_lies_in(void **state)
{
    (void)state;
    put("/proc/self", "cgroup", "0::/farm/worker\n");
    put("/proc/self", "mountinfo", unified_mounts);
    put_unified("/sys/fs/cgroup/farm", "8589934592\n", 8000, 0, 0); /* by its other workers */
    put_unified("/sys/fs/cgroup/farm/worker", "4294967296\n", 100, 0, 0);
    expect(4096, 192);
}

static void memory_high_is_a_limit_and_tmpfs_gives_no_way(void **state)
{
    (void)state;
    put("/proc/self", "cgroup", "0::/box\n");
    put("/proc/self", "mountinfo", unified_mounts);
    put_unified("/sys/fs/cgroup/box", "4294967296\n", 1024, 256, 512);
    put("/sys/fs/cgroup/box", "memory.high", "2147483648\n");
    expect(2048, 2048 - 768);
}

static void a_container_sees_its_group_as_the_root(void **state)
{
    (void)state;
    put("/proc/self", "cgroup", "0::/\n");
    put("/proc/self", "mountinfo", unified_mounts);
    put_unified("/sys/fs/cgroup", "1073741824\n", 256, 0, 0);
    expect(1024, 768);
}

static void a_group_of_the_older_hierarchy_counts_and_all_that_it_lies_in(void **state)
{
    (void)state;
    put("/proc/self", "cgroup", "9:cpu:/\n4:memory:/farm/worker\n1:name=systemd:/farm\n");
    put("/proc/self", "mountinfo", older_mounts);
    put_older("/sys/fs/cgroup/memory", no_limit, 9000, 0, no_limit);
    put_older("/sys/fs/cgroup/memory/farm", 2048 * MIB, 1024, 512, 2048 * MIB);
    put_older("/sys/fs/cgroup/memory/farm/worker", no_limit, 100, 0, 2048 * MIB);
    expect(2048, 1536);
}

static void a_container_of_the_older_kind_counts_too(void **state)
{
    (void)state;
    put("/proc/self", "cgroup", "4:memory:/docker/4f2a\n");
    put("/proc/self", "mountinfo", "36 31 0:31 /docker/4f2a /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n");
    /* What holds it is not to be seen but in memory.stat. */
    put_older("/sys/fs/cgroup/memory", no_limit, 256, 0, 1024 * MIB);
    put("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "1073741824\n");
    expect(1024, 768);
}

static void a_limit_of_a_hybrid_machine_counts(void **state)
{
    (void)state;
    put("/proc/self", "cgroup", "9:name=systemd:/\n4:memory:/jobs/17\n0::/\n");
    put("/proc/self", "mountinfo", hybrid_mounts);
    put("/sys/fs/cgroup/unified", "cgroup.procs", "1\n");
    put_older("/sys/fs/cgroup/memory/jobs", no_limit, 900, 0, no_limit);
    put_older("/sys/fs/cgroup/memory/jobs/17", 20 * MIB, 4, 0, 20 * MIB);
    expect(20, 16);
}

static void a_group_that_is_mounted_elsewhere_is_the_one_that_is_to_be_seen(void **state)
{
    (void)state;
    put("/proc/self", "cgroup", "0::/../../system.slice/lanced\n");
    put("/proc/self", "mountinfo", "27 26 0:25 /../.. /mnt/groups rw - cgroup2 none rw\n");
    put_unified("/mnt/groups", "2147483648\n", 1024, 0, 0);
    expect(2048, 1024);
}

static void groups_without_limits_leave_the_machine_as_it_is(void **state)
{
    (void)state;
    put("/proc/self", "cgroup", "4:memory:/a\n0::/\n");
    put("/proc/self", "mountinfo", hybrid_mounts);
    put_older("/sys/fs/cgroup/memory/a", no_limit, 900, 0, no_limit);
    expect(16384, 12288);
}

static void a_full_machine_has_nothing_for_jobs_which_is_not_the_same_as_no_limit(void **state)
{
    (void)state;
    const struct machine_memory m = {.total_bytes = 2048 * MIB, .available_bytes = 300 * MIB};
    assert_int_equal(machine_memory_for_jobs(&m, 8192 * MIB), 1);
}

static void a_small_machine_keeps_a_quarter_back_not_all_that_it_has(void **state)
{
    (void)state;
    const struct machine_memory m = {.total_bytes = 200 * MIB, .available_bytes = 190 * MIB};
    assert_int_equal(machine_memory_for_jobs(&m, 15 * MIB), 125 * MIB);
}

static void a_system_that_does_not_say_sets_no_limit(void **state)
{
    (void)state;
    struct machine_memory m;
    assert_int_equal(machine_memory_read(&m, root, NULL), 0);
    assert_int_equal(m.total_bytes, 0);
    assert_int_equal(machine_memory_for_jobs(&m, MIB), 0);
}

static void a_card_keeps_a_sixteenth_for_itself(void **state)
{
    (void)state;
    assert_int_equal(device_memory_for_jobs(16384 * MIB), 15360 * MIB);
    assert_int_equal(device_memory_for_jobs(1024 * MIB), 768 * MIB);
    assert_int_equal(device_memory_for_jobs(100 * MIB), 75 * MIB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_plain_machine_gives_what_is_available, clear_root),
        cmocka_unit_test_teardown(a_control_group_that_allows_less_counts, clear_root),
        cmocka_unit_test_teardown(a_group_is_as_full_as_the_fullest_that_it_lies_in, clear_root),
        cmocka_unit_test_teardown(memory_high_is_a_limit_and_tmpfs_gives_no_way, clear_root),
        cmocka_unit_test_teardown(a_container_sees_its_group_as_the_root, clear_root),
        cmocka_unit_test_teardown(a_group_of_the_older_hierarchy_counts_and_all_that_it_lies_in, clear_root),
        cmocka_unit_test_teardown(a_container_of_the_older_kind_counts_too, clear_root),
        cmocka_unit_test_teardown(a_limit_of_a_hybrid_machine_counts, clear_root),
        cmocka_unit_test_teardown(a_group_that_is_mounted_elsewhere_is_the_one_that_is_to_be_seen, clear_root),
        cmocka_unit_test_teardown(groups_without_limits_leave_the_machine_as_it_is, clear_root),
        cmocka_unit_test(a_full_machine_has_nothing_for_jobs_which_is_not_the_same_as_no_limit),
        cmocka_unit_test(a_small_machine_keeps_a_quarter_back_not_all_that_it_has),
        cmocka_unit_test(a_system_that_does_not_say_sets_no_limit),
        cmocka_unit_test(a_card_keeps_a_sixteenth_for_itself),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}
