/* tap.h on the CPU and on the CUDA backend: every input of every matrix is shown, each once, and is what the layer
 * computes with. */
#include "cuda_fixture.h"

#include "daemon/engine/lance.h"
#include "daemon/engine/model/checkpoint/checkpoint.h"
#include "daemon/engine/tap.h"
#include "kernels/formats/linear_source.h"
#include "tests/golden/assemble.h"

enum { LAYERS = 4, HIDDEN = 128, INTERMEDIATE = 256, EXPERTS = 2, STEPS = 3, MOST_ROWS = 512 };

/* What was seen: rows of every input, and the first call's rows of the MLP in the first layer. */
struct seen {
    int rows[LAYERS][EXPERTS][LINEAR_PLACES];
    float times[LAYERS * 64];
    int time_count;
    float mlp[EXPERTS][2][MOST_ROWS * INTERMEDIATE]; /* into gate and up, and into down */
    int mlp_rows[EXPERTS][2];
};

static void watch(void *context, const struct linear_input *input)
{
    struct seen *seen = context;
    assert_int_equal(input->width, input->place == PLACE_DOWN ? INTERMEDIATE : HIDDEN);
    seen->rows[input->layer][input->generation][input->place] += input->rows;
    if (input->generation && input->layer == 0 && input->place == PLACE_QKV)
        seen->times[seen->time_count++] = input->time;
    const int part = input->place - PLACE_GATE_UP;
    if (input->layer > 0 || part < 0 || seen->mlp_rows[input->generation][part] > 0)
        return;
    seen->mlp_rows[input->generation][part] = input->rows;
    memcpy(seen->mlp[input->generation][part], input->values, sizeof(float) * (size_t)(input->rows * input->width));
}

static char folder[] = "/tmp/lance-tap-XXXXXX";

static struct seen *run(struct kernels *kernels, float **latents, bool taps)
{
    struct error error = {0};
    struct lance_model *model;
    struct lance_job *job = NULL;
    struct lance_request request;
    struct lance_progress progress;
    struct lance_result result;
    struct seen *seen = calloc(1, sizeof *seen);
    int code;
    lance_request_init(&request, LANCE_T2I);
    request.prompt = "a red fox";
    request.width = request.height = 64;
    request.num_inference_steps = STEPS;
    request.decode = false;
    const struct lance_model_options options = {.model_dir = folder, .prefix_cache_bytes = 0};
    if (lance_model_open(&model, kernels, &options, &error) || (taps && lance_tap_open(model, watch, seen, &error)) ||
        lance_job_start(&job, model, &request, &error))
        fail_msg("%s", error.text);
    while ((code = lance_job_step(job, &progress, &error)) > 0)
        ;
    if (code < 0 || lance_job_result(job, &result, &error))
        fail_msg("%s", error.text);
    *latents = malloc(sizeof(float) * 48 * 16);
    memcpy(*latents, result.latents, sizeof(float) * 48 * 16);
    lance_job_close(job);
    lance_model_close(model);
    return seen;
}

/* y [rows, out] of a layer's matrix, in float64. */
static double *product(const struct checkpoint *checkpoint, const char *name, const float *x, int rows, int out)
{
    struct linear_source source;
    struct error error;
    float weights[HIDDEN];
    double *y = malloc(sizeof *y * (size_t)(rows * out));
    if (checkpoint_linear(checkpoint, name, out, HIDDEN, &source, &error))
        fail_msg("%s", error.text);
    for (int o = 0; o < out; o++) {
        linear_source_decode(&source, o, 0, HIDDEN, weights);
        for (int r = 0; r < rows; r++) {
            double sum = 0;
            for (int i = 0; i < HIDDEN; i++)
                sum += (double)x[r * HIDDEN + i] * (double)weights[i];
            y[r * out + o] = sum;
        }
    }
    return y;
}

/* down's input is silu(gate's output) * up's output. */
static void check_mlp(const struct checkpoint *checkpoint, const struct seen *seen, bool generation)
{
    char gate_name[LINEAR_NAME_BYTES], up_name[LINEAR_NAME_BYTES];
    const int rows = seen->mlp_rows[generation][0];
    assert_int_equal(rows, seen->mlp_rows[generation][1]);
    assert_true(linear_input_name(gate_name, PLACE_GATE_UP, 0, generation, 0));
    assert_true(linear_input_name(up_name, PLACE_GATE_UP, 0, generation, 1));
    assert_false(linear_input_name(up_name, PLACE_DOWN, 0, generation, 1));
    assert_true(linear_input_name(up_name, PLACE_GATE_UP, 0, generation, 1));
    double *gate = product(checkpoint, gate_name, seen->mlp[generation][0], rows, INTERMEDIATE);
    double *up = product(checkpoint, up_name, seen->mlp[generation][0], rows, INTERMEDIATE);
    float *want = malloc(sizeof *want * (size_t)(rows * INTERMEDIATE));
    for (int i = 0; i < rows * INTERMEDIATE; i++)
        want[i] = (float)(gate[i] / (1 + exp(-gate[i])) * up[i]);
    assert_near(seen->mlp[generation][1], want, (size_t)(rows * INTERMEDIATE), 1e-5, 1e-4);
    free(gate), free(up), free(want);
}

/* 16 cells; the caption's branch takes part in every step, the one without in those with guidance. */
static void check_counts(const struct seen *seen)
{
    const int cells = seen->rows[0][1][PLACE_QKV], words = seen->rows[0][0][PLACE_QKV];
    assert_int_equal(cells % 16, 0);
    assert_in_range(cells, 16 * STEPS, 16 * 2 * STEPS);
    assert_true(words > 2 * STEPS);
    for (int layer = 0; layer < LAYERS; layer++)
        for (int place = 0; place < LINEAR_PLACES; place++) {
            assert_int_equal(seen->rows[layer][0][place], words);
            assert_int_equal(seen->rows[layer][1][place], cells);
        }
    assert_true(seen->times[0] == 1);
    assert_true(seen->time_count == STEPS && seen->times[0] > seen->times[1] && seen->times[2] > 0);
}

static void a_tap_shows_every_input_once_and_changes_nothing(void **state)
{
    struct pair *p = *state;
    struct error error;
    struct checkpoint *checkpoint;
    float *with, *without;
    struct seen *seen = run(p->cpu, &with, true), *nothing = run(p->cpu, &without, false);
    assert_memory_equal(with, without, sizeof(float) * 48 * 16);
    assert_int_equal(nothing->rows[0][0][PLACE_QKV], 0);
    check_counts(seen);
    if (checkpoint_open(&checkpoint, &(struct checkpoint_options){.model_dir = folder}, &error))
        fail_msg("%s", error.text);
    check_mlp(checkpoint, seen, false);
    check_mlp(checkpoint, seen, true);
    checkpoint_close(checkpoint);
    free(seen), free(nothing), free(with), free(without);
}

static void a_card_shows_what_the_processor_shows(void **state)
{
    struct pair *p = *state;
    float *latents, *card_latents;
    struct seen *cpu = run(p->cpu, &latents, true), *card = run(p->cuda, &card_latents, true);
    assert_memory_equal(cpu->rows, card->rows, sizeof cpu->rows);
    assert_memory_equal(cpu->times, card->times, sizeof cpu->times);
    for (int expert = 0; expert < EXPERTS; expert++)
        for (int part = 0; part < 2; part++) { /* the processor takes two prompts at once, a card one */
            const int rows = card->mlp_rows[expert][part], width = part ? INTERMEDIATE : HIDDEN;
            assert_in_range(rows, 1, cpu->mlp_rows[expert][part]);
            assert_near(card->mlp[expert][part], cpu->mlp[expert][part], (size_t)(rows * width), 0.02, 0.2);
        }
    free(cpu), free(card), free(latents), free(card_latents);
}

static int open_both(void **state)
{
    struct error error = {0};
    if (!mkdtemp(folder) || assemble_checkpoint("tests/golden/data", NULL, folder, &error)) {
        print_error("%s\n", error.text);
        return -1;
    }
    return open_pair(state);
}

static int close_both(void **state)
{
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command) || close_pair(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_tap_shows_every_input_once_and_changes_nothing),
        cmocka_unit_test(a_card_shows_what_the_processor_shows),
    };
    return cmocka_run_group_tests(tests, open_both, close_both);
}
