/* Tests of the bookkeeping of temporary tensors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/engine/model/workspace.h"

static void freed_room_is_used_again(void **state)
{
    (void)state;
    struct workspace workspace = {0};
    size_t a = workspace_take(&workspace, 100), b = workspace_take(&workspace, 64), c = workspace_take(&workspace, 1);
    assert_int_equal(workspace.peak, 128 + 64 + 64);
    workspace_give(&workspace, b);
    assert_int_equal(workspace_take(&workspace, 65), c + 64); /* does not fit into the gap */
    assert_int_equal(workspace_take(&workspace, 64), b);
    workspace_give(&workspace, a);
    assert_int_equal(workspace_take(&workspace, 128), a);
    assert_int_equal(workspace.peak, 128 + 64 + 64 + 128);
}

static void pieces_in_use_never_overlap(void **state)
{
    (void)state;
    struct workspace workspace = {0};
    size_t at[32], size[32] = {0}, random = 1;
    for (int round = 0; round < 5000; round++) {
        random = (random * 1103515245 + 12345) & 0x7fffffff;
        size_t i = random / 65536 % 32;
        if (size[i]) {
            workspace_give(&workspace, at[i]);
            size[i] = 0;
            continue;
        }
        size[i] = 1 + random % 1000;
        at[i] = workspace_take(&workspace, size[i]);
        assert_int_equal(at[i] % WORKSPACE_ALIGNMENT, 0);
        assert_true(at[i] + size[i] <= workspace.peak);
        for (size_t j = 0; j < 32; j++)
            assert_true(j == i || !size[j] || at[i] + size[i] <= at[j] || at[j] + size[j] <= at[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(freed_room_is_used_again),
        cmocka_unit_test(pieces_in_use_never_overlap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
