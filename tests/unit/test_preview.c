/* Tests of preview.c with VAEs that are not there; test_job.c has previews of a job with the demo model. */
#include "daemon/engine/preview.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct lance_config config_of(int channels, int encoder_dim, int decoder_dim)
{
    return (struct lance_config){
        .vae = {.present = true, .latent_channels = channels, .encoder_dim = encoder_dim, .decoder_dim = decoder_dim}};
}

static void assert_colour(const struct preview_colours *colours, const float latent[48], int red, int green, int blue)
{
    uint8_t rgb[3];
    preview_paint(colours, 48, latent, 1, rgb);
    assert_int_equal(rgb[0], red);
    assert_int_equal(rgb[1], green);
    assert_int_equal(rgb[2], blue);
}

/* Of the released VAE no picture is encoded for a preview: the colours are the public ones. */
static void colours_of_the_released_vae_are_known(void **state)
{
    (void)state;
    const struct lance_config config = config_of(48, 160, 256);
    struct preview_colours colours;
    float latent[48] = {0};
    assert_true(preview_known_colours(&config, &colours));
    assert_colour(&colours, latent, 132, 116, 110);
    latent[39] = -2; /* brightness, nearly */
    assert_colour(&colours, latent, 219, 207, 161);
    latent[39] = 0;
    latent[21] = 3; /* blue */
    assert_colour(&colours, latent, 146, 142, 219);
    latent[21] = 0;
    latent[47] = -2; /* the last one */
    assert_colour(&colours, latent, 153, 112, 108);
}

static void colours_of_other_vaes_are_not(void **state)
{
    (void)state;
    static const int sizes[][3] = {{48, 8, 12}, {48, 160, 12}, {48, 8, 256}, {16, 160, 256}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const struct lance_config config = config_of(sizes[i][0], sizes[i][1], sizes[i][2]);
        struct preview_colours colours;
        assert_false(preview_known_colours(&config, &colours));
    }
}

/* Several cells, each its own colour, in the order of the latents. */
static void cells_are_painted_one_by_one(void **state)
{
    (void)state;
    const struct preview_colours colours = {.weight = {{1, 0}, {0, 1}, {0.5f, -0.5f}}, .bias = {0, 0, 0.2f}};
    static const float latents[] = {1, -1, -0.2f, 0.2f, 9, -9};
    static const uint8_t wanted[] = {255, 0, 255, 102, 153, 128, 255, 0, 255};
    uint8_t rgb[9];
    preview_paint(&colours, 2, latents, 3, rgb);
    assert_memory_equal(rgb, wanted, sizeof wanted);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(colours_of_the_released_vae_are_known),
        cmocka_unit_test(colours_of_other_vaes_are_not),
        cmocka_unit_test(cells_are_painted_one_by_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
