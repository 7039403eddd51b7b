/* The CUDA backend's guided step beside the CPU's. Latents are float32 on both, so they agree to float32. */
#include "cuda_fixture.h"

struct options {
    int rows, width, first_row;
    bool guided, wants_velocity;
    enum guidance_renorm renorm;
    float scale, renorm_min;
};

static void compare(struct pair *p, const struct options *o)
{
    const size_t n = (size_t)o->rows * (size_t)o->width;
    float *x = random_floats(n, 2.0f), *cond = random_bf16(n, 1.5f), *uncond = random_bf16(n, 1.0f);
    float *moved[2], *velocity[2] = {NULL, NULL};
    struct kernels *k[2] = {p->cuda, p->cpu};
    for (int i = 0; i < 2; i++) {
        param *latents = param_with(k[i], x, n), *v = param_with(k[i], x, n);
        act *c = act_with(k[i], cond, n), *u = act_with(k[i], uncond, n);
        k[i]->guided_step(k[i], &(struct guided_step){.x = latents,
                                                      .v_cond = c,
                                                      .v_uncond = o->guided ? u : NULL,
                                                      .rows = o->rows,
                                                      .width = o->width,
                                                      .first_row = o->first_row,
                                                      .guidance_scale = o->scale,
                                                      .renorm = o->renorm,
                                                      .renorm_min = o->renorm_min,
                                                      .dt = 0.03f,
                                                      .v_out = o->wants_velocity ? v : NULL});
        moved[i] = values_of_param(k[i], latents, n);
        velocity[i] = values_of_param(k[i], v, n);
        k[i]->memory_free(k[i], latents), k[i]->memory_free(k[i], v);
        k[i]->memory_free(k[i], c), k[i]->memory_free(k[i], u);
    }
    assert_near(moved[0], moved[1], n, 1e-6, 1e-6);
    assert_near(velocity[0], velocity[1], n, 1e-6, 1e-6);
    assert_memory_equal(moved[0], x, (size_t)o->first_row * (size_t)o->width * sizeof *x);
    for (int i = 0; i < 2; i++)
        free(moved[i]), free(velocity[i]);
    free(x), free(cond), free(uncond);
}

static void every_kind_of_guidance_moves_the_latents_as_on_the_cpu(void **state)
{
    static const int sizes[][2] = {{1, 1}, {3, 48}, {40, 48}, {7, 33}, {2, 100}};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int renorm = RENORM_GLOBAL; renorm <= RENORM_NONE; renorm++)
            for (int guided = 0; guided < 2; guided++)
                compare(*state, &(struct options){.rows = sizes[s][0], .width = sizes[s][1], .guided = guided,
                                                  .wants_velocity = (s + (size_t)renorm) % 2, .renorm = renorm,
                                                  .scale = 4.0f});
}

/* More values than one round of the blocks that sum the norms. */
static void the_global_norm_takes_every_value_of_a_long_video(void **state)
{
    compare(*state, &(struct options){.rows = 3001, .width = 48, .guided = true, .wants_velocity = true,
                                      .renorm = RENORM_GLOBAL, .scale = 5.0f});
}

static void the_rescaling_is_clamped_below(void **state)
{
    for (int renorm = RENORM_GLOBAL; renorm <= RENORM_CHANNEL; renorm++)
        compare(*state, &(struct options){.rows = 6, .width = 48, .guided = true, .wants_velocity = true,
                                          .renorm = renorm, .scale = 8.0f, .renorm_min = 0.9f});
}

static void given_frames_take_part_in_the_norm_but_stay(void **state)
{
    for (int renorm = RENORM_GLOBAL; renorm <= RENORM_NONE; renorm++)
        compare(*state, &(struct options){.rows = 20, .width = 48, .first_row = 7, .guided = true,
                                          .wants_velocity = true, .renorm = renorm, .scale = 4.0f});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_of_guidance_moves_the_latents_as_on_the_cpu),
        cmocka_unit_test(the_global_norm_takes_every_value_of_a_long_video),
        cmocka_unit_test(the_rescaling_is_clamped_below),
        cmocka_unit_test(given_frames_take_part_in_the_norm_but_stay),
    };
    return cmocka_run_group_tests(tests, open_pair, close_pair);
}
