/* test_lancectl_tasks.c: the command lines of all tasks, what they ask for, where results go, and example files. */
#include "daemon/engine/task.h"
#include "tools/lancectl/arguments.h"
#include "tools/lancectl/examples.h"
#include "tools/lancectl/make_command.h"
#include "tools/lancectl/output.h"
#include "tools/lancectl/submission.h"
#include "tools/media/example_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/lancectl_fixture.h"

static void expect_params(const struct job *job, const struct arguments *arguments, const char *expected)
{
    cJSON *params = job_params(job, arguments);
    char *json = cJSON_PrintUnformatted(params);
    assert_string_equal(json, expected);
    cJSON_free(json);
    cJSON_Delete(params);
}

static void tasks_take_and_make_what_the_engine_says(void **state)
{
    (void)state;
    for (int task = 0; task < LANCE_TASK_COUNT; task++) {
        const struct task_kind *kind = task_kind_of(lance_task_name((enum lance_task)task));
        assert_non_null(kind);
        assert_int_equal(kind->makes_video, task_makes_video((enum lance_task)task));
        assert_int_equal(kind->answers, task_answers((enum lance_task)task));
        assert_int_equal(kind->source != SOURCE_NONE, task_has_source((enum lance_task)task));
        assert_int_equal(kind->source == SOURCE_VIDEO, task_takes_video((enum lance_task)task));
    }
}

static void a_video_edit_takes_its_source_and_all_options(void **state)
{
    (void)state;
    struct arguments arguments;
    struct error error = {0};
    if (PARSE(&arguments, &error, "video-edit", "run.mp4", "at night", "-o", "night/", "--resolution", "video_360p",
              "--fps", "24", "--latent-mean", "--source-seed", "7", "--renorm-min", "0.5", "--positions", "consistent",
              "--system", "Do it.", "--negative", "by day"))
        fail_msg("%s", error.text);
    assert_int_equal(arguments.command, COMMAND_VIDEO_EDIT);
    assert_string_equal(arguments.source, "run.mp4");
    assert_string_equal(arguments.operand, "at night");
    assert_true(arguments.fps == 24);
    struct clip clip = {.fps = 12};
    struct job job = {.prompt = arguments.operand, .source = &clip};
    expect_params(&job, &arguments,
                  "{\"prompt\":\"at night\",\"negative_prompt\":\"by day\",\"system_prompt\":\"Do "
                  "it.\",\"guidance_renorm_min\":0.5,"
                  "\"uncond_positions\":\"consistent\",\"resolution\":\"video_360p\","
                  "\"source_latent_mean\":true,\"source_seed\":7,\"fps\":12}");
}

static void a_frame_rate_is_a_number_or_a_fraction(void **state)
{
    (void)state;
    struct arguments arguments;
    struct error error = {0};
    assert_int_equal(PARSE(&arguments, &error, "ask", "run.mp4", "what?", "--fps", "24000/1001"), 0);
    assert_true(arguments.fps == 24000.0 / 1001);
    assert_int_equal(PARSE(&arguments, &error, "ask", "run.mp4", "what?", "--fps", "0.5"), 0);
    assert_true(arguments.fps == 0.5);
}

static void a_part_of_the_steps_starts_from_a_file_of_latents(void **state)
{
    (void)state;
    struct arguments arguments;
    struct error error = {0};
    if (PARSE(&arguments, &error, "t2i", "a fox", "-o", "half.latent", "--init-latent", "fox.latent", "--denoise",
              "0.5", "--start-step", "2", "--end-step", "4", "--leftover-noise", "--no-noise"))
        fail_msg("%s", error.text);
    assert_string_equal(arguments.init_latent, "fox.latent");
    struct job job = {.prompt = arguments.operand, .keeps_latents = true};
    expect_params(&job, &arguments,
                  "{\"prompt\":\"a fox\",\"denoise\":0.5,\"start_step\":2,\"end_step\":4,\"add_noise\":false,"
                  "\"leftover_noise\":true,\"decode\":false}");
    if (PARSE(&arguments, &error, "decode", "fox.latent", "-o", "fox.webm"))
        fail_msg("%s", error.text);
    assert_int_equal(arguments.command, COMMAND_DECODE);
    assert_string_equal(arguments.source, "fox.latent");
    assert_null(arguments.operand);
    assert_int_equal(PARSE(&arguments, &error, "decode", "-o", "fox.png"), ERROR_BAD_REQUEST);
    assert_string_equal(error.text, "decode needs a file of latents");
    assert_int_equal(PARSE(&arguments, &error, "ask", "fox.png", "--denoise", "1"), ERROR_BAD_REQUEST);
    assert_string_equal(error.text, "--denoise means nothing to ask");
}

static void a_question_takes_the_options_of_text(void **state)
{
    (void)state;
    struct arguments arguments;
    struct error error = {0};
    if (PARSE(&arguments, &error, "ask", "fox.jpg", "What is it?", "--max-tokens", "32", "--temperature", "0.7",
              "--top-k", "40", "--top-p", "0.9", "--repetition-penalty", "1.1", "--seed", "3"))
        fail_msg("%s", error.text);
    struct clip picture = {0};
    struct job job = {.prompt = arguments.operand, .source = &picture};
    expect_params(&job, &arguments,
                  "{\"prompt\":\"What is it?\",\"seed\":3,\"max_new_tokens\":32,\"temperature\":0.7,\"top_k\":40,"
                  "\"top_p\":0.9,\"repetition_penalty\":1.1}");
}

static void prompts_of_i2v_and_ask_may_be_left_out(void **state)
{
    (void)state;
    struct arguments arguments;
    struct error error;
    assert_int_equal(PARSE(&arguments, &error, "ask", "fox.jpg"), 0);
    assert_string_equal(arguments.source, "fox.jpg");
    assert_null(arguments.operand);
    assert_int_equal(PARSE(&arguments, &error, "i2v", "fox.jpg", "-o", "a.webm"), 0);
    assert_null(arguments.operand);
    assert_int_equal(PARSE(&arguments, &error, "fetch", "job-1"), 0);
}

static void a_wrong_command_line_is_explained(void **state)
{
    (void)state;
    static const struct wrong_line lines[] = {
        {{"t2v", "a fox"}, "t2v needs -o FILE.mp4"},
        {{"t2v", "a fox", "-o", "a.png"}, ".mp4, .webm, .y4m or / (a folder of PNGs)"},
        {{"t2v", "a fox", "-o", "a.avi"}, ".mp4, .webm, .y4m"},
        {{"edit", "fox.png", "blue", "-o", "a.mp4"}, "does not end in .png"},
        {{"edit", "fox.png", "-o", "a.png"}, "edit needs a picture and a prompt"},
        {{"i2v", "-o", "a.mp4"}, "i2v needs a picture"},
        {{"ask"}, "ask needs a picture or video"},
        {{"ask", "a.png", "What", "is", "it?"}, "quotes"},
        {{"ask", "a.png", "-o", "a.png"}, "--output means nothing to ask"},
        {{"ask", "a.png", "--steps", "3"}, "--steps means nothing to ask"},
        {{"t2i", "a", "-o", "a.png", "--temperature", "1"}, "--temperature means nothing to t2i"},
        {{"t2i", "a", "-o", "a.png", "--resolution", "image_768res"}, "--resolution means nothing to t2i"},
        {{"video-edit", "a.mp4", "b", "-o", "c.mp4", "--fps", "0"}, "from 0.01 to 1000"},
        {{"video-edit", "a.mp4", "b", "-o", "c.mp4", "--fps", "23,976"}, "\"23,976\" is not from"},
        {{"video-edit", "a.mp4", "b", "-o", "c.mp4", "--fps", "1000.1"}, "from 0.01 to 1000"},
        {{"video-edit", "a.mp4", "b", "-o", "c.mp4", "--fps", "nan"}, "--fps"},
        {{"run", "-o", "out"}, "run needs --examples FILE"},
        {{"run", "--examples", "a.json"}, "run needs -o FOLDER"},
        {{"run", "--examples", "a.json", "-o", "out", "--task", "paint"}, "t2i, t2v, i2v"},
        {{"run", "a.json", "-o", "out"}, "run does not take \"a.json\""},
        {{"fetch", "job-1", "-o", "a.doc"}, "does not end in .png, .mp4"},
    };
    expect_explained(lines, sizeof lines / sizeof *lines);
}

static void the_ending_says_what_is_written(void **state)
{
    (void)state;
    assert_int_equal(output_kind_of("a.PNG"), OUTPUT_PNG);
    assert_int_equal(output_kind_of("a.b/c.mp4"), OUTPUT_MP4);
    assert_int_equal(output_kind_of("c.webm"), OUTPUT_WEBM);
    assert_int_equal(output_kind_of("c.y4m"), OUTPUT_Y4M);
    assert_int_equal(output_kind_of("clip/"), OUTPUT_FOLDER);
    assert_int_equal(output_kind_of("clip"), OUTPUT_UNKNOWN);
    assert_int_equal(output_kind_of("a/.mp4"), OUTPUT_UNKNOWN);
    assert_int_equal(output_kind_of("/"), OUTPUT_UNKNOWN);
    char *name = output_name("a.b/clip/", 1, 2);
    assert_string_equal(name, "a.b/clip-2/");
    free(name);
    struct error error;
    static const uint8_t pixels[2 * 3 * 16 * 16];
    assert_int_equal(output_write("/tmp/no.png", pixels, 2, 16, 16, 12, NULL, &error), ERROR_BAD_REQUEST);
    assert_non_null(strstr(error.text, "a video of 2 frames"));
}

/* ---- Example files ---- */

static struct example parse_example(const char *json, const char *task, struct error *error)
{
    static cJSON *object; /* the example points into it, until the next call */
    cJSON_Delete(object);
    object = json ? cJSON_Parse(json) : NULL;
    struct example example = {0};
    if (!object)
        return example;
    *error = (struct error){0};
    error->code = example_parse(&example, object->child, task, error);
    return example;
}

static void entries_of_all_official_kinds_are_understood(void **state)
{
    (void)state;
    static const struct {
        const char *json, *task, *expected_task, *source, *prompt, *system;
    } cases[] = {
        {"{\"000003.png\":\"a fox\"}", NULL, "t2i", NULL, "a fox", NULL},
        {"{\"000003.mp4\":\"a fox\"}", NULL, "t2v", NULL, "a fox", NULL},
        {"{\"7\":\"a fox\"}", "t2v", "t2v", NULL, "a fox", NULL},
        {"{\"1\":{\"interleave_array\":[\"blue\",\"a.png\"],\"element_dtype_array\":[\"text\",\"image\"],"
         "\"istarget_in_interleave\":[0,0]}}", "image_edit", "image_edit", "a.png", "blue", NULL},
        {"{\"1\":{\"interleave_array\":[\"it runs\",\"a.png\"],\"element_dtype_array\":[\"text\",\"image\"],"
         "\"istarget_in_interleave\":[0,0]}}", "i2v", "i2v", "a.png", "it runs", NULL},
        {"{\"1\":{\"interleave_array\":[\"night\",\"a.mp4\"],\"element_dtype_array\":[\"text\",\"video\"],"
         "\"istarget_in_interleave\":[0,0]}}", NULL, "video_edit", "a.mp4", "night", NULL},
        {"{\"1\":{\"interleave_array\":[\"a.png\",[\"Look.\",\"What?\",\"A fox.\"]],"
         "\"element_dtype_array\":[\"image\",\"text\"],"
         "\"istarget_in_interleave\":[0,1]}}", NULL, "x2t_image", "a.png", "What?", "Look."},
        {"{\"1\":{\"interleave_array\":[\"a.mp4\",\"A fox runs.\"],\"element_dtype_array\":[\"video\",\"text\"],"
         "\"istarget_in_interleave\":[0,1]}}", NULL, "x2t_video", "a.mp4", "", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct error error;
        struct example example = parse_example(cases[i].json, cases[i].task, &error);
        if (error.code)
            fail_msg("case %zu: %s", i, error.text);
        assert_string_equal(example.kind->name, cases[i].expected_task);
        assert_string_equal(example.prompt, cases[i].prompt);
        assert_int_equal(example.source != NULL, cases[i].source != NULL);
        if (example.source)
            assert_string_equal(example.source, cases[i].source);
        assert_int_equal(example.system != NULL, cases[i].system != NULL);
        if (example.system)
            assert_string_equal(example.system, cases[i].system);
    }
    parse_example(NULL, NULL, NULL);
}

static void an_entry_that_is_wrong_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *json, *task;
        int code;
        const char *reason;
    } cases[] = {
        {"{\"5\":7}", NULL, ERROR_BAD_FILE, "entry \"5\": is neither a prompt nor"},
        {"{\"5\":{\"interleave_array\":[\"a\"],\"element_dtype_array\":[],\"istarget_in_interleave\":[0]}}", NULL,
         ERROR_BAD_FILE,
         "of one length"},
        {"{\"5\":{\"interleave_array\":[\"a\"],\"element_dtype_array\":[\"smell\"],\"istarget_in_interleave\":[0]}}",
         NULL,
         ERROR_BAD_FILE, "neither text nor image nor video"},
        {"{\"5\":{\"interleave_array\":[\"a\"],\"element_dtype_array\":[\"text\"],\"istarget_in_interleave\":[0]}}",
         NULL,
         ERROR_BAD_FILE, "has neither picture nor video"},
        {"{\"5\":{\"interleave_array\":[[1],\"a.png\"],\"element_dtype_array\":[\"text\",\"image\"],"
         "\"istarget_in_interleave\":[0,0]}}", NULL, ERROR_BAD_FILE, "a text is neither"},
        {"{\"5\":{\"interleave_array\":[\"a\",\"a.png\"],\"element_dtype_array\":[\"text\",\"image\"],"
         "\"istarget_in_interleave\":[0,0]}}", NULL, ERROR_BAD_REQUEST, "--task"},
        {"{\"5\":{\"interleave_array\":[\"b.png\",\"a.png\"],\"element_dtype_array\":[\"image\",\"image\"],"
         "\"istarget_in_interleave\":[0,0]}}", NULL, ERROR_UNSUPPORTED, "more than one"},
        {"{\"5\":\"a fox\"}", "image_edit", ERROR_BAD_FILE, "image_edit takes a picture or video"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct error error;
        parse_example(cases[i].json, cases[i].task, &error);
        assert_int_equal(error.code, cases[i].code);
        if (!strstr(error.text, cases[i].reason))
            fail_msg("case %zu: \"%s\" does not say %s", i, error.text, cases[i].reason);
    }
    parse_example(NULL, NULL, NULL);
}

static void outputs_have_the_official_names(void **state)
{
    (void)state;
    static const char *const cases[][2] = {{"000003.png", "000003"}, {"0001", "000001"}, {"12.mp4", "000012"},
                                           {"fox.jpg", "fox"},       {"../a/b", "_._a_b"}, {".png", "_png"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *name = example_name(cases[i][0]);
        assert_string_equal(name, cases[i][1]);
        free(name);
    }
}

static void sources_are_found_in_the_folders_above_the_file(void **state)
{
    (void)state;
    char folder[] = "/tmp/test-examples-XXXXXX", below[64], file[96], picture[64];
    assert_non_null(mkdtemp(folder));
    snprintf(below, sizeof below, "%s/config", folder);
    snprintf(file, sizeof file, "%s/examples.json", below);
    snprintf(picture, sizeof picture, "%s/a.png", folder);
    assert_int_equal(mkdir(below, 0700), 0);
    fclose(fopen(file, "w"));
    fclose(fopen(picture, "w"));

    char *path = example_source_path("a.png", file, NULL);
    assert_string_equal(path, picture);
    free(path);
    path = example_source_path("a.png", file, "/somewhere");
    assert_string_equal(path, "/somewhere/a.png");
    free(path);
    path = example_source_path("/x/a.png", file, "/somewhere");
    assert_string_equal(path, "/x/a.png");
    free(path);
    path = example_source_path("no-such-file.png", file, NULL);
    assert_string_equal(path, "no-such-file.png");
    free(path);

    unlink(picture);
    unlink(file);
    rmdir(below);
    rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tasks_take_and_make_what_the_engine_says),
        cmocka_unit_test(a_video_edit_takes_its_source_and_all_options),
        cmocka_unit_test(a_frame_rate_is_a_number_or_a_fraction),
        cmocka_unit_test(a_part_of_the_steps_starts_from_a_file_of_latents),
        cmocka_unit_test(a_question_takes_the_options_of_text),
        cmocka_unit_test(prompts_of_i2v_and_ask_may_be_left_out),
        cmocka_unit_test(a_wrong_command_line_is_explained),
        cmocka_unit_test(the_ending_says_what_is_written),
        cmocka_unit_test(entries_of_all_official_kinds_are_understood),
        cmocka_unit_test(an_entry_that_is_wrong_is_named),
        cmocka_unit_test(outputs_have_the_official_names),
        cmocka_unit_test(sources_are_found_in_the_folders_above_the_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
