/* test_lancectl.c: lancectl's parts that need no daemon: the command line, what it asks for, the progress line,
 * file names, receipts and the PNG files that carry them. */
#include "protocol/known_parameters.h"
#include "tools/lancectl/arguments.h"
#include "tools/lancectl/exit_codes.h"
#include "tools/lancectl/help.h"
#include "tools/lancectl/output.h"
#include "tools/lancectl/progress.h"
#include "tools/lancectl/receipt.h"
#include "tools/lancectl/submission.h"
#include "tools/media/picture_file.h"

#include <dirent.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <png.h>

#include "tests/unit/lancectl_fixture.h"

static void t2i_takes_all_its_options(void **state)
{
    (void)state;
    struct arguments arguments;
    struct error error;
    assert_int_equal(PARSE(&arguments, &error, "t2i", "a red fox in snow", "-o", "fox.png", "--seed",
                           "18446744073709551615", "--steps", "30", "--guidance", "4", "--size", "768x512", "--count=4",
                           "--shift", "3.5", "--interval", "0.4,1", "--renorm", "channel", "--noise", "comfyui",
                           "--endpoint", "ipc:///x", "-q"),
                     0);
    assert_int_equal(arguments.command, COMMAND_T2I);
    assert_string_equal(arguments.endpoint, "ipc:///x");
    assert_true(arguments.quiet);
    struct job job = {.prompt = arguments.operand};
    cJSON *params = job_params(&job, &arguments);
    char *json = cJSON_PrintUnformatted(params);
    assert_string_equal(json,
                        "{\"prompt\":\"a red fox in snow\",\"width\":768,\"height\":512,\"num_inference_steps\":30,"
                        "\"guidance_scale\":4,\"guidance_interval\":[0.4,1],\"guidance_renorm\":\"channel\","
                        "\"timestep_shift\":3.5,\"batch_size\":4,\"noise_source\":\"comfyui\","
                        "\"seed\":\"18446744073709551615\"}");
    cJSON_free(json);
    cJSON_Delete(params);
}

static void what_is_not_given_is_not_sent(void **state)
{
    (void)state;
    struct arguments arguments;
    struct error error;
    assert_int_equal(PARSE(&arguments, &error, "-o", "fox.png", "t2i", "--seed", "7", "--", "--a prompt with dashes"),
                     0);
    struct job job = {.prompt = arguments.operand};
    cJSON *params = job_params(&job, &arguments);
    char *json = cJSON_PrintUnformatted(params);
    assert_string_equal(json, "{\"prompt\":\"--a prompt with dashes\",\"seed\":7}");
    cJSON_free(json);
    cJSON_Delete(params);
}

static void a_wrong_command_line_is_explained(void **state)
{
    (void)state;
    static const struct wrong_line lines[] = {
        {{NULL}, "which command"},
        {{"draw", "x"}, "no command \"draw\""},
        {{"t2i", "-o", "a.png"}, "t2i needs a prompt"},
        {{"t2i", "a", "fox", "-o", "a.png"}, "quotes"},
        {{"t2i", "fox"}, "-o FILE.png"},
        {{"t2i", "fox", "-o"}, "-o: needs a value"},
        {{"t2i", "fox", "-o", "a.jpg"}, "does not end in .png"},
        {{"t2i", "fox", "-o", "d/.png"}, "does not end in .png"},
        {{"t2i", "fox", "-o", "a.png", "--steps", "3.5"}, "--steps: \"3.5\" is not a whole number"},
        {{"t2i", "fox", "-o", "a.png", "--guidance", "nan"}, "--guidance: \"nan\" is not a number"},
        {{"t2i", "fox", "-o", "a.png", "--guidance", "4x"}, "--guidance"},
        {{"t2i", "fox", "-o", "a.png", "--size", "768"}, "768x768"},
        {{"t2i", "fox", "-o", "a.png", "--size", "768x"}, "--size"},
        {{"t2i", "fox", "-o", "a.png", "--seed", "-1"}, "--seed"},
        {{"t2i", "fox", "-o", "a.png", "--seed", "18446744073709551616"}, "--seed"},
        {{"t2i", "fox", "-o", "a.png", "--renorm", "some"}, "global, channel, none"},
        {{"t2i", "fox", "-o", "a.png", "--interval", "1"}, "LOW,HIGH"},
        {{"t2i", "fox", "-o", "a.png", "--nonsense"}, "--nonsense: is no option of lancectl"},
        {{"edit", "a.png", "blue", "-o", "b.png", "--source", "7"}, "--source: is no option of lancectl"},
        {{"edit", "a.png", "blue", "-o", "b.png", "--source=7"}, "--source=7: is no option"},
        {{"status", "--js"}, "--js: is no option"},
        {{"status", "--json=yes"}, "--json: takes no value"},
        {{"--seed=3", "-qx", "t2i", "fox", "-o", "a.png"}, "-x: is no option"},
        {{"t2i", "fox", "-o", "a.png", "--seed"}, "--seed: needs a value"},
        {{"t2i", "fox", "-o", "a.png", "--model", "/nowhere"}, "--model /nowhere: No such file"},
        {{"status", "--endpoint", "http://x"}, "must begin with ipc://, tcp:// or tls+tcp://"},
        {{"t2i", "\xff", "-o", "a.png"}, "UTF-8"},
        {{"status", "--seed", "7"}, "--seed means nothing to status"},
        {{"status", "now"}, "\"now\""},
        {{"fetch", "no/id", "-o", "a.png"}, "not a job id"},
    };
    expect_explained(lines, sizeof lines / sizeof *lines);
}

static void errors_have_their_exit_codes(void **state)
{
    (void)state;
    assert_int_equal(exit_code_of_error(ERROR_IO), 3);
    assert_int_equal(exit_code_of_error(ERROR_BAD_REQUEST), 4);
    assert_int_equal(exit_code_of_error(ERROR_BUSY), 4);
    assert_int_equal(exit_code_of_error(ERROR_INTERNAL), 1);
    assert_int_equal(exit_code_of_error(ERROR_CANCELLED), 1);
}

static void the_progress_line_has_bar_rate_and_time_left(void **state)
{
    (void)state;
    cJSON *event =
        cJSON_Parse("{\"event\":\"progress\",\"stage\":\"denoise\",\"step\":15,\"steps\":30,\"total_step\":16,"
                    "\"total_steps\":32,\"eta_seconds\":75.2,\"step_seconds\":0.25}");
    char line[121];
    progress_line(line, 60, event, true);
    assert_string_equal(line, "denoise [##########..........] 15/30  4.0 steps/s  1:15 left");
    progress_line(line, 120, event, false);
    assert_string_equal(line, "denoise 15/30  4.0 steps/s  1:15 left");
    progress_line(line, 20, event, true);
    assert_int_equal(strlen(line), 20);
    cJSON_Delete(event);

    event = cJSON_Parse(
        "{\"event\":\"progress\",\"stage\":\"\\u001b[31m\",\"step\":7,\"eta_seconds\":1e300,\"step_seconds\":2}");
    progress_line(line, 79, event, true);
    assert_string_equal(line, "working 7  2.0 s/step");
    cJSON_Delete(event);
}

static void expect_name(const char *path, int index, int count, const char *expected)
{
    char *name = output_name(path, index, count);
    assert_string_equal(name, expected);
    free(name);
}

static void several_pictures_are_numbered(void **state)
{
    (void)state;
    expect_name("fox.png", 0, 1, "fox.png");
    expect_name("fox.png", 0, 4, "fox-1.png");
    expect_name("a.b/fox.red.PNG", 3, 4, "a.b/fox.red-4.PNG");
}

static const char result_json[] = "{\"seed\":7,\"receipt\":{\"prompt\":\"\\\"n\u00e4ive\\\" \u732b \U0001f600\\n\","
                                  "\"params\":{\"num_inference_steps\":30},\"model\":{\"name\":\"demo\"}}}";

static void a_receipt_is_ascii_and_keeps_the_prompt(void **state)
{
    (void)state;
    cJSON *result = cJSON_Parse(result_json);
    char *receipt = receipt_of_picture(result, 2);
    for (const char *c = receipt; *c; c++)
        assert_true(*c >= 0x20 && *c < 0x7f);
    assert_non_null(strstr(receipt, "n\\u00e4ive"));
    assert_non_null(strstr(receipt, "\\u732b \\ud83d\\ude00"));
    cJSON *parsed = cJSON_Parse(receipt);
    assert_string_equal(cJSON_GetObjectItem(parsed, "prompt")->valuestring, "\"n\u00e4ive\" \u732b \U0001f600\n");
    assert_int_equal(cJSON_GetObjectItem(parsed, "seed")->valueint, 9);
    assert_int_equal(cJSON_GetObjectItem(parsed, "batch_index")->valueint, 2);
    cJSON_Delete(parsed);
    free(receipt);
    cJSON_Delete(result);
}

/* A fresh folder for one test, removed by remove_folder with what is in it. */
static char *make_folder(void)
{
    char *folder = strdup("/tmp/test_lancectl.XXXXXX");
    assert_non_null(folder);
    assert_non_null(mkdtemp(folder));
    return folder;
}

static int count_files(const char *folder, bool remove_them)
{
    DIR *directory = opendir(folder);
    assert_non_null(directory);
    int count = 0;
    for (struct dirent *entry; (entry = readdir(directory));) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        count++;
        if (remove_them)
            unlinkat(dirfd(directory), entry->d_name, 0);
    }
    closedir(directory);
    return count;
}

static void remove_folder(char *folder)
{
    count_files(folder, true);
    rmdir(folder);
    free(folder);
}

static void a_picture_comes_back_with_its_receipt(void **state)
{
    (void)state;
    char *folder = make_folder(), path[80];
    snprintf(path, sizeof path, "%s/fox.png", folder);
    uint8_t pixels[5][7][3];
    for (size_t i = 0; i < sizeof pixels; i++)
        ((uint8_t *)pixels)[i] = (uint8_t)(i * 37);
    cJSON *result = cJSON_Parse(result_json);
    char *written = receipt_of_picture(result, 0), *read;
    struct error error;
    assert_int_equal(picture_write(path, &pixels[0][0][0], 7, 5, written, &error), 0);
    assert_int_equal(picture_read_receipt(&read, path, &error), 0);
    assert_string_equal(read, written);
    free(read);
    assert_int_equal(count_files(folder, false), 1);

    png_image image = {.version = PNG_IMAGE_VERSION};
    assert_true(png_image_begin_read_from_file(&image, path));
    image.format = PNG_FORMAT_RGB;
    uint8_t back[5][7][3];
    assert_int_equal(image.width, 7);
    assert_int_equal(image.height, 5);
    assert_true(png_image_finish_read(&image, NULL, back, 0, NULL));
    assert_memory_equal(back, pixels, sizeof pixels);

    struct stat info;
    mode_t mask = umask(022);
    assert_int_equal(picture_write(path, &pixels[0][0][0], 7, 5, NULL, &error), 0); /* replaces the first */
    umask(mask);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0644);
    assert_int_equal(picture_read_receipt(&read, path, &error), ERROR_BAD_FILE);
    assert_non_null(strstr(error.text, "no receipt"));
    free(written);
    cJSON_Delete(result);
    remove_folder(folder);
}

static char *help_of(enum command command)
{
    char *text = NULL;
    size_t bytes;
    FILE *stream = open_memstream(&text, &bytes);
    assert_non_null(stream);
    help_print(stream, command);
    fclose(stream);
    return text;
}

static void the_help_of_a_command_has_options_that_the_command_takes_and_no_others(void **state)
{
    (void)state;
    for (int command = 0; command < COMMAND_HELP; command++) {
        char *text = help_of((enum command)command), *rest;
        assert_non_null(strstr(text, "lancectl "));
        for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
            for (char *at = strncmp(line, "  -", 3) ? NULL : strstr(line, "--"); at; at = strstr(at + 2, "--")) {
                char name[40];
                snprintf(name, sizeof name, "%.*s", (int)strspn(at + 2, "abcdefghijklmnopqrstuvwxyz-"), at + 2);
                if (!arguments_option_is_for(name, (enum command)command))
                    fail_msg("the help of command %d has --%s", command, name);
            }
        free(text);
    }
    char *all = help_of(COMMAND_HELP), *drawing = help_of(COMMAND_T2I), *asking = help_of(COMMAND_ASK);
    assert_non_null(strstr(drawing, "--steps N"));
    assert_null(strstr(drawing, "--max-tokens"));
    assert_non_null(strstr(asking, "--max-tokens"));
    assert_null(strstr(asking, "--steps"));
    assert_non_null(strstr(all, "--steps N"));
    assert_non_null(strstr(all, "--max-tokens N"));
    assert_non_null(strstr(all, "Exit codes"));
    free(all);
    free(drawing);
    free(asking);
}

/* Apart from those that the command itself says. */
static void every_parameter_of_a_job_has_an_option(void **state)
{
    (void)state;
    static const char *const said_otherwise[] = {"prompt", "decode", "fps", "preview"};
    for (const struct known_parameter *p = known_parameters; p->name; p++) {
        bool has_option = false;
        for (size_t i = 0; i < sizeof said_otherwise / sizeof *said_otherwise; i++)
            has_option = has_option || !strcmp(said_otherwise[i], p->name);
        for (int i = 0; i < PARAMETER_OPTIONS; i++) {
            const struct parameter_option *option = &parameter_options[i];
            assert_non_null(known_parameter_find(option->parameter));
            has_option = has_option || !strcmp(option->parameter, p->name) ||
                         (option->second && !strcmp(option->second, p->name));
        }
        if (!has_option)
            fail_msg("no option says %s", p->name);
    }
}

static void help_may_be_about_a_command(void **state)
{
    (void)state;
    struct arguments parsed;
    struct error error;
    char *asked[] = {"lancectl", "edit", "--help"}, *named[] = {"lancectl", "help", "edit"},
         *unknown[] = {"lancectl", "help", "paint"};
    char *plain[] = {"lancectl", "--help"};
    assert_int_equal(arguments_parse(&parsed, 3, asked, &error), 0);
    assert_int_equal(parsed.command, COMMAND_HELP);
    assert_int_equal(parsed.topic, COMMAND_EDIT);
    assert_int_equal(arguments_parse(&parsed, 3, named, &error), 0);
    assert_int_equal(parsed.topic, COMMAND_EDIT);
    assert_int_equal(arguments_parse(&parsed, 2, plain, &error), 0);
    assert_int_equal(parsed.topic, COMMAND_HELP);
    assert_int_not_equal(arguments_parse(&parsed, 3, unknown, &error), 0);
    assert_non_null(strstr(error.text, "no command \"paint\""));
}

static void a_misspelt_option_is_named_with_the_one_that_is_meant(void **state)
{
    (void)state;
    static const struct {
        const char *option, *said;
    } cases[] = {
        {"--step=3", "--step=3: is no option of lancectl; did you mean --steps?"},
        {"--outptu", "did you mean --output?"},
        {"--guidence", "did you mean --guidance?"},
        {"--caption", "--caption: is no option of lancectl; see lancectl --help"},
        {"--go", "see lancectl --help"},
        {"--a-name-that-is-much-longer-than-any-name-of-an-option-is", "see lancectl --help"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct arguments parsed;
        struct error error;
        char option[80];
        snprintf(option, sizeof option, "%s", cases[i].option);
        char *argv[] = {"lancectl", "t2i", "a fox", option};
        assert_int_not_equal(arguments_parse(&parsed, 4, argv, &error), 0);
        if (!strstr(error.text, cases[i].said))
            fail_msg("\"%s\" does not say \"%s\"", error.text, cases[i].said);
    }
}

static void a_file_that_is_no_png_has_no_receipt(void **state)
{
    (void)state;
    char *folder = make_folder(), path[80];
    char *receipt;
    struct error error;
    snprintf(path, sizeof path, "%s/fox.png", folder);
    assert_int_equal(picture_read_receipt(&receipt, path, &error), ERROR_IO);
    static const char *const contents[] = {"", "hello", "\x89PNG\r\n\x1a\n",
                                           "\x89PNG\r\n\x1a\n0000IHDR garbage garbage garbage"};
    for (size_t i = 0; i < sizeof contents / sizeof *contents; i++) {
        FILE *file = fopen(path, "wb");
        assert_non_null(file);
        fputs(contents[i], file);
        fclose(file);
        assert_int_equal(picture_read_receipt(&receipt, path, &error), ERROR_BAD_FILE);
        assert_null(receipt);
        assert_non_null(strstr(error.text, path));
    }
    remove_folder(folder);
}

static void a_full_disk_leaves_no_half_file(void **state)
{
    (void)state;
    char *folder = make_folder(), path[80];
    snprintf(path, sizeof path, "%s/fox.png", folder);
    uint8_t old[3] = {1, 2, 3};
    struct error error;
    assert_int_equal(picture_write(path, old, 1, 1, "{\"old\":1}", &error), 0);

    /* A limit on the size of files stands for the full disk: writes beyond it fail likewise. */
    enum { SIDE = 256 };
    uint8_t *noise = malloc(SIDE * SIDE * 3);
    assert_non_null(noise);
    srand(1);
    for (size_t i = 0; i < SIDE * SIDE * 3; i++)
        noise[i] = (uint8_t)rand();
    struct rlimit usual, small;
    getrlimit(RLIMIT_FSIZE, &usual);
    small = usual;
    small.rlim_cur = 20000;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    int code = picture_write(path, noise, SIDE, SIDE, "{\"new\":1}", &error);
    setrlimit(RLIMIT_FSIZE, &usual);
    free(noise);

    assert_int_equal(code, ERROR_IO);
    assert_non_null(strstr(error.text, "File too large"));
    assert_int_equal(count_files(folder, false), 1);
    char *receipt;
    assert_int_equal(picture_read_receipt(&receipt, path, &error), 0);
    assert_string_equal(receipt, "{\"old\":1}");
    free(receipt);
    remove_folder(folder);
}

static void a_missing_folder_is_found_before_the_job(void **state)
{
    (void)state;
    struct error error;
    assert_int_equal(output_check("fox.png", 1, &error), 0);
    assert_int_equal(output_check("/fox.png", 1, &error), 0);
    assert_int_equal(output_check("/no/such/folder/fox.png", 1, &error), ERROR_IO);
    assert_non_null(strstr(error.text, "/no/such/folder"));
    assert_int_equal(output_check("/dev/null/fox.png", 1, &error), ERROR_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t2i_takes_all_its_options),
        cmocka_unit_test(what_is_not_given_is_not_sent),
        cmocka_unit_test(a_wrong_command_line_is_explained),
        cmocka_unit_test(a_misspelt_option_is_named_with_the_one_that_is_meant),
        cmocka_unit_test(every_parameter_of_a_job_has_an_option),
        cmocka_unit_test(help_may_be_about_a_command),
        cmocka_unit_test(the_help_of_a_command_has_options_that_the_command_takes_and_no_others),
        cmocka_unit_test(errors_have_their_exit_codes),
        cmocka_unit_test(the_progress_line_has_bar_rate_and_time_left),
        cmocka_unit_test(several_pictures_are_numbered),
        cmocka_unit_test(a_receipt_is_ascii_and_keeps_the_prompt),
        cmocka_unit_test(a_picture_comes_back_with_its_receipt),
        cmocka_unit_test(a_file_that_is_no_png_has_no_receipt),
        cmocka_unit_test(a_full_disk_leaves_no_half_file),
        cmocka_unit_test(a_missing_folder_is_found_before_the_job),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
