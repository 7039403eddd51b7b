/* The ViT against a recorded official run (tests/golden/make_vision_vectors.py), and its promises about memory and
 * stepping. */
#include "tests/unit/vision_fixture.h"

#include "daemon/engine/model/vit.h"

enum { GRID_H = 12, GRID_W = 18, PATCHES = GRID_H * GRID_W, TOKENS = PATCHES / 4, FRAME = 196 * PATCHES * 3 };
enum { DEPTH = 4, HIDDEN = 64, OUT = 128 };

static struct fixture fixture;
static struct vit *vit;

static int open_vit(void **state)
{
    (void)state;
    struct error error = {0};
    if (fixture_open(&fixture) < 0)
        return -1;
    if (vit_open(&vit, fixture.kernels, fixture.checkpoint, false, &error) < 0) {
        print_error("%s\n", error.text);
        return -1;
    }
    return 0;
}

static int close_vit(void **state)
{
    (void)state;
    vit_close(vit);
    if (fixture.kernels->memory_in_use(fixture.kernels)) {
        print_error("device memory is still in use after vit_close\n");
        return -1;
    }
    return fixture_close(&fixture);
}

static act *tokens_memory(size_t tokens)
{
    struct error error = {0};
    void *memory;
    ASSERT_OK(
        fixture.kernels->memory_alloc(fixture.kernels, &memory, tokens * OUT * fixture.kernels->act_bytes, &error),
        error);
    return memory;
}

/* Runs `which` on t frame pairs into fresh host memory [t * TOKENS, OUT]. */
static float *run(struct vit *which, const uint8_t *pixels, int t)
{
    struct error error = {0};
    size_t tokens = (size_t)t * TOKENS;
    act *memory = tokens_memory(tokens);
    struct vit_pass *pass;
    int code, done, blocks;
    ASSERT_OK(vit_begin(&pass, which, pixels, (struct vit_grid){t, GRID_H, GRID_W}, memory, &error), error);
    while ((code = vit_step(pass, &done, &blocks, &error)) > 0)
        ;
    ASSERT_OK(code, error);
    vit_pass_close(pass);
    float *out = malloc(tokens * OUT * sizeof *out);
    assert_non_null(out);
    fixture.kernels->download(fixture.kernels, out, memory, tokens * OUT);
    fixture.kernels->memory_free(fixture.kernels, memory);
    return out;
}

/* The recorded picture twice, as pictures are given to the ViT; free() it. */
static uint8_t *recorded_pair(const struct safetensors *file)
{
    const struct tensor_view *picture = safetensors_find(file, "pixels");
    assert_non_null(picture);
    assert_int_equal(picture->bytes, FRAME);
    uint8_t *pair = malloc(2 * FRAME);
    assert_non_null(pair);
    memcpy(pair, picture->data, FRAME);
    memcpy(pair + FRAME, picture->data, FRAME);
    return pair;
}

static void a_recorded_picture_gives_the_official_tokens(void **state)
{
    (void)state;
    struct safetensors *file = open_recorded("tests/golden/data/vision/vit.safetensors");
    uint8_t *pair = recorded_pair(file);
    float *want = recorded(file, "tokens", TOKENS * OUT), *got = run(vit, pair, 1);
    ASSERT_CLOSE(got, want, TOKENS * OUT, 1e-5);
    free(got);
    free(want);
    free(pair);
    safetensors_close(file);
}

static void the_first_blocks_are_the_official_ones(void **state)
{
    (void)state;
    struct error error = {0};
    struct safetensors *file = open_recorded("tests/golden/data/vision/vit.safetensors");
    uint8_t *pair = recorded_pair(file);
    act *memory = tokens_memory(TOKENS);
    struct vit_pass *pass;
    int done, blocks;
    ASSERT_OK(vit_begin(&pass, vit, pair, (struct vit_grid){1, GRID_H, GRID_W}, memory, &error), error);
    for (int block = 0; block < 2; block++) {
        assert_int_equal(vit_step(pass, &done, &blocks, &error), 1);
        assert_int_equal(done, block + 1);
        assert_int_equal(blocks, DEPTH);
        float got[64 * HIDDEN], *want = recorded(file, block ? "block1_head" : "block0_head", 64 * HIDDEN);
        fixture.kernels->download(fixture.kernels, got, vit_hidden(pass), 64 * HIDDEN);
        ASSERT_CLOSE(got, want, 64 * HIDDEN, 1e-5);
        free(want);
    }
    vit_pass_close(pass); /* in the middle: a cancelled job */
    fixture.kernels->memory_free(fixture.kernels, memory);
    free(pair);
    safetensors_close(file);
}

/* Frame pairs do not see each other, so each of a clip's gives what it gives alone. With 24 pairs the clip is longer
 * than what is processed in one go. */
static void every_frame_pair_of_a_clip_is_seen_alone(void **state)
{
    (void)state;
    enum { PAIRS = 24 };
    struct safetensors *file = open_recorded("tests/golden/data/vision/vit.safetensors");
    uint8_t *pair = recorded_pair(file), *other = malloc(2 * FRAME), *clip = malloc(2 * FRAME * PAIRS);
    for (int i = 0; i < 2 * FRAME; i++)
        other[i] = (uint8_t)(255 - pair[i] / (i < FRAME ? 1 : 2));
    for (int t = 0; t < PAIRS; t++)
        memcpy(clip + t * 2 * FRAME, t % 3 ? pair : other, 2 * FRAME);
    float *want_pair = run(vit, pair, 1), *want_other = run(vit, other, 1), *got = run(vit, clip, PAIRS);
    assert_true(relative_error(want_other, want_pair, TOKENS * OUT) > 0.01);
    for (int t = 0; t < PAIRS; t++)
        ASSERT_CLOSE(got + t * TOKENS * OUT, t % 3 ? want_pair : want_other, TOKENS * OUT, 1e-6);
    free(got);
    free(want_other);
    free(want_pair);
    free(clip);
    free(other);
    free(pair);
    safetensors_close(file);
}

static void rounded_tables_change_the_result_a_little(void **state)
{
    (void)state;
    struct error error = {0};
    struct safetensors *file = open_recorded("tests/golden/data/vision/vit.safetensors");
    uint8_t *pair = recorded_pair(file);
    struct vit *rounded;
    ASSERT_OK(vit_open(&rounded, fixture.kernels, fixture.checkpoint, true, &error), error);
    float *want = run(vit, pair, 1), *got = run(rounded, pair, 1);
    double difference = relative_error(got, want, TOKENS * OUT);
    assert_true(difference > 1e-6 && difference < 1e-2);
    free(got);
    free(want);
    vit_close(rounded);
    free(pair);
    safetensors_close(file);
}

static void a_run_takes_exactly_the_memory_that_was_promised(void **state)
{
    (void)state;
    struct error error = {0};
    static const struct vit_grid grids[] = {{1, 2, 2}, {1, 12, 18}, {3, 10, 6}, {30, 12, 18}, {2, 64, 66}};
    for (size_t i = 0; i < sizeof grids / sizeof *grids; i++) {
        struct vit_grid grid = grids[i];
        size_t patches = (size_t)(grid.t * grid.h * grid.w);
        uint8_t *pixels = calloc(2 * patches, 196 * 3);
        act *memory = tokens_memory(patches / 4);
        struct vit_pass *pass;
        uint64_t before = fixture.kernels->memory_in_use(fixture.kernels);
        ASSERT_OK(vit_begin(&pass, vit, pixels, grid, memory, &error), error);
        assert_int_equal(fixture.kernels->memory_in_use(fixture.kernels) - before, vit_bytes(vit, grid));
        vit_pass_close(pass);
        assert_int_equal(fixture.kernels->memory_in_use(fixture.kernels), before);
        fixture.kernels->memory_free(fixture.kernels, memory);
        free(pixels);
    }
}

static uint64_t available_bytes;

static uint64_t as_much_as_is_said(struct kernels *k)
{
    (void)k;
    return available_bytes;
}

/* The fixture's kernels, as if their memory was a card's own, of which `available` bytes are free. */
static void become_a_card(uint64_t available)
{
    available_bytes = available;
    fixture.kernels->host_memory = false;
    fixture.kernels->memory_available = as_much_as_is_said;
}

static void on_a_card_with_much_room_the_weights_stay_and_the_tokens_are_the_same(void **state)
{
    (void)state;
    struct error error = {0};
    struct kernels *k = fixture.kernels, as_it_was = *k;
    const struct vit_grid grid = {1, GRID_H, GRID_W};
    uint8_t *pixels = calloc(2, FRAME);
    assert_non_null(pixels);
    float *expected = run(vit, pixels, 1);
    const uint64_t before = k->memory_in_use(k), resident_run = vit_bytes(vit, grid);
    uint64_t weight_bytes;
    struct vit *stays, *goes;
    become_a_card(UINT64_MAX);
    ASSERT_OK(vit_open(&stays, k, fixture.checkpoint, false, &error), error);
    assert_true(vit_stays(stays, &weight_bytes));
    assert_int_equal(k->memory_in_use(k) - before, weight_bytes);
    assert_int_equal(vit_bytes(stays, grid), resident_run);
    available_bytes = 8 * weight_bytes - 1;
    ASSERT_OK(vit_open(&goes, k, fixture.checkpoint, false, &error), error);
    assert_false(vit_stays(goes, &weight_bytes));
    vit_close(goes);
    assert_int_equal(k->memory_in_use(k) - before, weight_bytes);
    float *tokens = run(stays, pixels, 1);
    assert_memory_equal(tokens, expected, TOKENS * OUT * sizeof *tokens);
    vit_close(stays);
    *k = as_it_was;
    assert_int_equal(k->memory_in_use(k), before);
    free(tokens);
    free(expected);
    free(pixels);
}

static void on_a_card_with_little_room_the_weights_are_there_during_runs_alone(void **state)
{
    (void)state;
    struct error error = {0};
    struct kernels *k = fixture.kernels, as_it_was = *k;
    const struct vit_grid grid = {1, GRID_H, GRID_W};
    uint8_t *pixels = calloc(2, FRAME);
    assert_non_null(pixels);
    float *expected = run(vit, pixels, 1);
    const uint64_t before = k->memory_in_use(k), resident_run = vit_bytes(vit, grid);
    struct vit *brought;
    struct vit_pass *first, *second;
    become_a_card(0);
    ASSERT_OK(vit_open(&brought, k, fixture.checkpoint, false, &error), error);
    assert_int_equal(k->memory_in_use(k), before);
    assert_true(vit_bytes(brought, grid) > resident_run);
    act *memory = tokens_memory(TOKENS);
    const uint64_t at_rest = k->memory_in_use(k);
    ASSERT_OK(vit_begin(&first, brought, pixels, grid, memory, &error), error);
    ASSERT_OK(vit_begin(&second, brought, pixels, grid, memory, &error), error); /* of another job */
    assert_int_equal(k->memory_in_use(k) - at_rest, 2 * vit_bytes(brought, grid));
    vit_pass_close(first);
    assert_int_equal(k->memory_in_use(k) - at_rest, vit_bytes(brought, grid));
    vit_pass_close(second);
    assert_int_equal(k->memory_in_use(k), at_rest);
    k->memory_free(k, memory);
    float *tokens = run(brought, pixels, 1);
    assert_memory_equal(tokens, expected, TOKENS * OUT * sizeof *tokens);
    vit_close(brought);
    *k = as_it_was;
    assert_int_equal(k->memory_in_use(k), before);
    free(tokens);
    free(expected);
    free(pixels);
}

static int attempt_open(struct error *error)
{
    struct vit *attempted;
    int code = vit_open(&attempted, fixture.kernels, fixture.checkpoint, false, error);
    if (code == 0)
        vit_close(attempted);
    else
        assert_null(attempted);
    return code;
}

static int attempt_run(struct error *error)
{
    static const uint8_t pixels[2 * 28 * 28 * 3];
    float tokens[OUT]; /* never written: no step is taken */
    struct vit_pass *pass;
    int code = vit_begin(&pass, vit, pixels, (struct vit_grid){1, 2, 2}, (act *)tokens, error);
    if (code == 0)
        vit_pass_close(pass);
    else
        assert_null(pass);
    return code;
}

/* With weights of its own. */
static int attempt_to_bring(struct error *error)
{
    static const uint8_t pixels[2 * 28 * 28 * 3];
    float tokens[OUT];
    struct vit *brought;
    struct vit_pass *pass;
    int code = vit_open(&brought, fixture.kernels, fixture.checkpoint, false, error);
    if (code == 0)
        code = vit_begin(&pass, brought, pixels, (struct vit_grid){1, 2, 2}, (act *)tokens, error);
    if (code == 0)
        vit_pass_close(pass);
    vit_close(brought);
    return code;
}

static void running_out_of_memory_is_reported_and_leaks_nothing(void **state)
{
    (void)state;
    assert_true(count_failures(fixture.kernels, attempt_open) > 2 * DEPTH);
    assert_true(count_failures(fixture.kernels, attempt_run) > 2);
    fixture.kernels->host_memory = false;
    assert_true(count_failures(fixture.kernels, attempt_to_bring) > 4 * DEPTH);
    fixture.kernels->host_memory = true;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_recorded_picture_gives_the_official_tokens),
        cmocka_unit_test(the_first_blocks_are_the_official_ones),
        cmocka_unit_test(every_frame_pair_of_a_clip_is_seen_alone),
        cmocka_unit_test(rounded_tables_change_the_result_a_little),
        cmocka_unit_test(a_run_takes_exactly_the_memory_that_was_promised),
        cmocka_unit_test(on_a_card_with_much_room_the_weights_stay_and_the_tokens_are_the_same),
        cmocka_unit_test(on_a_card_with_little_room_the_weights_are_there_during_runs_alone),
        cmocka_unit_test(running_out_of_memory_is_reported_and_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, open_vit, close_vit);
}
