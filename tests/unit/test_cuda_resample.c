/* The autoencoder's shortcuts and rearrangements of the CUDA backend, against those of the CPU backend. Both
 * do the same float32 arithmetic in the same order on the same bf16 values: the card's result is the
 * other's, rounded to bf16. */
#include "cuda_fixture.h"

/* One operator on one backend: reads x, changes y. */
struct operation {
    enum { DUPLICATE_UP, AVERAGE_DOWN, SPLIT_FRAMES, PATCHIFY, UNPATCHIFY } kind;
    int frames, height, width, in, out, ft, fs, drop;
};

static float *run_on(struct kernels *k, const struct operation *o, const float *x, size_t x_elements, const float *old,
                     size_t y_elements)
{
    act *device_x = act_with(k, x, x_elements), *y = act_with(k, old, y_elements);
    switch (o->kind) {
    case DUPLICATE_UP:
        k->duplicate_up(k, device_x, o->frames, o->height, o->width, o->in, o->out, o->ft, o->fs, o->drop, y);
        break;
    case AVERAGE_DOWN:
        k->average_down(k, device_x, o->frames, o->height, o->width, o->in, o->out, o->ft, o->fs, y);
        break;
    case SPLIT_FRAMES:
        k->split_frames(k, device_x, o->frames, (size_t)o->height * (size_t)o->width, o->out, y);
        break;
    case PATCHIFY:
        k->patchify(k, device_x, o->frames, o->height, o->width, y);
        break;
    case UNPATCHIFY:
        k->unpatchify(k, device_x, o->frames, o->height, o->width, y);
        break;
    }
    float *out = values_of_act(k, y, y_elements);
    k->memory_free(k, device_x);
    k->memory_free(k, y);
    return out;
}

static void check(struct pair *p, const struct operation *o, size_t x_elements, size_t y_elements)
{
    float *x = random_bf16(x_elements, 1.0f), *old = random_bf16(y_elements, 1.0f);
    float *want = run_on(p->cpu, o, x, x_elements, old, y_elements),
          *got = run_on(p->cuda, o, x, x_elements, old, y_elements);
    for (size_t i = 0; i < y_elements; i++)
        if (got[i] != bf16_to_float(float_to_bf16(want[i])))
            fail_msg("value %zu of %zu is %g, not %g rounded", i, y_elements, (double)got[i], (double)want[i]);
    free(x), free(old), free(want), free(got);
}

static void duplicate_up_repeats_channels_into_time_and_space(void **state)
{
    struct pair *p = *state;
    static const struct { int in, out, ft, fs, drop;
    } cases[] = {{8, 8, 2, 2, 1},   {8, 8, 2, 2, 0},   {16, 8, 1, 2, 0}, {16, 4, 2, 2, 1}, {6, 6, 1, 1, 0},
                 {48, 24, 2, 2, 1}, {24, 12, 1, 2, 0}, {5, 5, 2, 2, 1},  {64, 32, 2, 1, 2}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int width = 3; width <= 37; width += 34) {
            struct operation o = {DUPLICATE_UP, 2,           3,           width,        cases[i].in,
                                  cases[i].out, cases[i].ft, cases[i].fs, cases[i].drop};
            check(p, &o, (size_t)(o.frames * o.height * o.width * o.in),
                  (size_t)((o.frames * o.ft - o.drop) * o.height * o.fs * o.width * o.fs * o.out));
        }
}

static void average_down_averages_groups_and_pads_time_in_front(void **state)
{
    struct pair *p = *state;
    static const struct { int in, out, ft, fs, frames;
    } cases[] = {{8, 8, 2, 2, 4}, {8, 8, 2, 2, 1},     {8, 16, 1, 2, 3}, {4, 8, 2, 2, 3},
                 {6, 6, 1, 1, 2}, {160, 320, 2, 2, 1}, {6, 3, 2, 2, 2}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int width = 6; width <= 70; width += 64) {
            struct operation o = {AVERAGE_DOWN, cases[i].frames, 4,           width, cases[i].in,
                                  cases[i].out, cases[i].ft,     cases[i].fs, 0};
            check(p, &o, (size_t)(o.frames * o.height * o.width * o.in),
                  (size_t)((o.frames + o.ft - 1) / o.ft * (o.height / o.fs) * (o.width / o.fs) * o.out));
        }
}

static void split_frames_makes_two_frames_of_the_channel_halves(void **state)
{
    struct pair *p = *state;
    for (int channels = 5; channels <= 16; channels++) {
        struct operation o = {.kind = SPLIT_FRAMES, .frames = 3, .height = 7, .width = 10, .out = channels};
        size_t n = (size_t)(3 * 70 * 2 * channels);
        check(p, &o, n, n);
    }
}

static void patches_go_out_and_come_back(void **state)
{
    struct pair *p = *state;
    for (int width = 5; width <= 40; width += 7) {
        size_t n = (size_t)(2 * 3 * width * 12);
        check(p, &(struct operation){.kind = PATCHIFY, .frames = 2, .height = 3, .width = width}, n, n);
        check(p, &(struct operation){.kind = UNPATCHIFY, .frames = 2, .height = 3, .width = width}, n, n);
    }
}

/* As the real VAE has them, at 768x768. */
static void the_real_shortcuts_agree_on_a_card(void **state)
{
    struct pair *p = *state;
    if (!on_card(p))
        skip();
    check(p, &(struct operation){DUPLICATE_UP, 1, 96, 96, 1024, 512, 2, 2, 1}, (size_t)96 * 96 * 1024,
          (size_t)192 * 192 * 512);
    check(p, &(struct operation){AVERAGE_DOWN, 2, 192, 192, 320, 640, 2, 2, 0}, (size_t)2 * 192 * 192 * 320,
          (size_t)96 * 96 * 640);
}

static void no_frames_are_no_work(void **state)
{
    struct pair *p = *state;
    check(p, &(struct operation){DUPLICATE_UP, 1, 2, 2, 8, 8, 2, 2, 2}, 32, 8); /* every frame is dropped */
    check(p, &(struct operation){.kind = SPLIT_FRAMES, .frames = 0, .height = 2, .width = 2, .out = 8}, 8, 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(duplicate_up_repeats_channels_into_time_and_space),
        cmocka_unit_test(average_down_averages_groups_and_pads_time_in_front),
        cmocka_unit_test(split_frames_makes_two_frames_of_the_channel_halves),
        cmocka_unit_test(patches_go_out_and_come_back),
        cmocka_unit_test(the_real_shortcuts_agree_on_a_card),
        cmocka_unit_test(no_frames_are_no_work),
    };
    return cmocka_run_group_tests(tests, open_pair, close_pair);
}
