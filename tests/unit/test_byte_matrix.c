/* A matrix that is rounded to 8 bits a weight, against its definition. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/engine/model/byte_matrix.h"
#include "kernels/formats/linear_source.h"

enum { ROWS = 5, COLUMNS = 384, GROUP = 128 };

static void each_weight_is_within_half_a_step_of_its_groups_scale(void **state)
{
    (void)state;
    static float dense[ROWS * COLUMNS];
    static uint16_t halves[ROWS * COLUMNS];
    for (int i = 0; i < ROWS * COLUMNS; i++) {
        const float value = sinf((float)i * 0.7f) * (float)(1 + i / GROUP);
        halves[i] = float_to_bf16(i / GROUP == 4 ? 0 : value); /* one group of nothing but zeros */
        dense[i] = bf16_at(halves, (size_t)i);
    }
    const struct linear_source sources[] = {{.format = WEIGHT_F32, .data = dense},
                                            {.format = WEIGHT_BF16, .data = halves}};
    for (int s = 0; s < 2; s++) {
        struct linear_source source = sources[s];
        struct byte_matrix made;
        struct error error;
        source.out_features = ROWS;
        source.in_features = COLUMNS;
        assert_int_equal(byte_matrix_open(&made, &source, &error), 0);
        assert_int_equal(linear_source_check(&made.source, &error), 0);
        assert_int_equal(made.source.format, WEIGHT_INT8);
        assert_int_equal(made.bytes, ROWS * COLUMNS + 2 * ROWS * COLUMNS / GROUP);
        for (int i = 0; i < ROWS * COLUMNS; i++) {
            float largest = 0;
            for (int k = i / GROUP * GROUP; k < (i / GROUP + 1) * GROUP; k++)
                largest = fmaxf(largest, fabsf(dense[k]));
            const float worth = (float)((const int8_t *)made.source.data)[i] *
                                bf16_at(made.source.scales, (size_t)(i / GROUP));
            /* Half a step, and what a scale of 8 bits falls short of the largest. */
            assert_true(fabsf(worth - dense[i]) <= largest * (0.5f / 127 + 1 / 256.0f));
        }
        byte_matrix_close(&made);
        assert_null(made.memory);
    }
}

static void what_is_no_number_and_columns_without_groups_are_refused(void **state)
{
    (void)state;
    static float dense[ROWS][COLUMNS];
    struct linear_source source = {
        .format = WEIGHT_F32, .data = dense, .out_features = ROWS, .in_features = COLUMNS};
    struct byte_matrix made;
    struct error error;
    const float none[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        dense[3][200] = none[i];
        assert_int_equal(byte_matrix_open(&made, &source, &error), ERROR_BAD_FILE);
        assert_string_equal(error.text, "8 bits a weight: row 3 holds what is no number");
        assert_null(made.memory);
    }
    dense[3][200] = 0;
    source.in_features = COLUMNS - 1;
    assert_int_equal(byte_matrix_open(&made, &source, &error), ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.text, "383 columns"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_weight_is_within_half_a_step_of_its_groups_scale),
        cmocka_unit_test(what_is_no_number_and_columns_without_groups_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
