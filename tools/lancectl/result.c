/* result.c: see result.h. */
#include "tools/lancectl/result.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/transfer.h"
#include "tools/lancectl/complain.h"
#include "tools/lancectl/interrupt.h"
#include "tools/lancectl/latents.h"
#include "tools/lancectl/output.h"
#include "tools/lancectl/progress.h"
#include "tools/lancectl/receipt.h"
#include "tools/lancectl/say.h"
#include "tools/media/clip.h"

/* The pictures or videos of a result: u8 [batch, frames, height, width, 3]. */
static int find_pixels(const struct job_result *result, const struct tensor_view **pixels, struct error *error)
{
    *pixels = job_result_tensor(result, "pixels");
    if (!*pixels)
        return error_set(error, ERROR_UNSUPPORTED, "the job made no picture");
    const uint64_t *shape = (*pixels)->shape;
    bool fits = (*pixels)->dtype == DTYPE_U8 && (*pixels)->dimensions == 5 && shape[4] == 3;
    for (int i = 0; fits && i < 4; i++)
        fits = shape[i] >= 1 && shape[i] <= INT_MAX;
    return fits ? 0 : error_set(error, ERROR_INTERNAL, "the daemon sent pictures of an unknown form");
}

static double fps_of(const struct job_result *result)
{
    const cJSON *fps = cJSON_GetObjectItemCaseSensitive(job_result_fields(result), "fps");
    return cJSON_IsNumber(fps) && fps->valuedouble > 0 ? fps->valuedouble : SAMPLING_FPS;
}

static int save_item(const struct job_result *result, const struct tensor_view *pixels, int index, const char *path,
                     struct error *error)
{
    int frames = (int)pixels->shape[1], height = (int)pixels->shape[2], width = (int)pixels->shape[3];
    const uint8_t *item =
        (const uint8_t *)pixels->data + (size_t)index * (size_t)frames * (size_t)height * (size_t)width * 3;
    char *receipt = receipt_of_picture(job_result_fields(result), index);
    if (!receipt)
        return error_set(error, ERROR_NO_MEMORY, "no memory for the receipt");
    int code = output_write(path, item, frames, height, width, fps_of(result), receipt, error);
    free(receipt);
    return code;
}

/* What -o may be named, in the kind that was asked for. */
static const char *name_of_kind(const char *output)
{
    switch (output_kind_of(output)) {
    case OUTPUT_PNG: return "FILE.png";
    case OUTPUT_MP4: return "FILE.mp4";
    case OUTPUT_WEBM: return "FILE.webm";
    case OUTPUT_Y4M: return "FILE.y4m";
    case OUTPUT_LATENT: return "FILE.latent";
    default: return "FOLDER/";
    }
}

/* `output` is where it was to go; NULL: the result is a text. */
static void say_how_to_fetch(const struct session *session, const char *job, const char *output,
                             const struct arguments *arguments)
{
    const char *endpoint = client_endpoint(session->client);
    bool is_default = !session->daemon && !arguments->endpoint;
    fprintf(stderr, "lancectl: the result is still with the daemon; fetch it with:\n  lancectl fetch %s%s%s%s%s\n", job,
            output ? " -o " : "", output ? name_of_kind(output) : "", is_default ? "" : " --endpoint ",
            is_default ? "" : endpoint);
    if (session->daemon)
        fprintf(
            stderr,
            "and then end the private daemon, which was left running for that:\n  lancectl shutdown --endpoint %s\n",
            endpoint);
}

/* With --json: one object. `name` and `value` (consumed) are what was made: "files" or "text". */
static int print_object(const char *job, const struct job_result *result, const char *name, cJSON *value,
                        struct error *error)
{
    cJSON *object = json_object();
    json_add_text(object, "job", job);
    json_add(object, name, value);
    const cJSON *receipt = cJSON_GetObjectItemCaseSensitive(job_result_fields(result), "receipt");
    if (receipt)
        json_add(object, "receipt", cJSON_Duplicate(receipt, true));
    char *text = json_print(object);
    cJSON_Delete(object);
    if (!text)
        return error_set(error, ERROR_NO_MEMORY, "no memory for the result as JSON");
    say(stdout, "%s\n", text);
    fflush(stdout);
    cJSON_free(text);
    return 0;
}

static int save_text(const struct job_result *result, const char *text, const struct saving *saving,
                     const struct arguments *arguments, struct error *error)
{
    if (saving->answer && !(*saving->answer = strdup(text)))
        return error_set(error, ERROR_NO_MEMORY, "no memory for the answer");
    if (arguments->json)
        return print_object(saving->job, result, "text", json_from_text(text), error);
    if (!saving->text_is_shown && !saving->answer)
        say(stdout, "%s\n", text);
    return 0;
}

static int save_pixels(const struct job_result *result, const struct tensor_view *pixels, const struct saving *saving,
                       const struct arguments *arguments, struct error *error)
{
    const struct given_parameter *frames = arguments_given(arguments, "frames");
    if (frames && !arguments->quiet && frames->numbers[0] != (double)pixels->shape[1])
        fprintf(stderr, "%.0f frames were asked for and %llu made: a video has 4n+1\n", frames->numbers[0],
                (unsigned long long)pixels->shape[1]);
    cJSON *files = json_array();
    int count = (int)pixels->shape[0], code = 0;
    for (int i = 0; i < count && !code; i++) {
        char *path = output_name(saving->output, i, count);
        code = path ? save_item(result, pixels, i, path, error)
                    : error_set(error, ERROR_NO_MEMORY, "no memory for a file name");
        if (!code)
            json_append_text(files, path);
        free(path);
    }
    const cJSON *file;
    if (arguments->json) {
        int printed = print_object(saving->job, result, "files", files, code ? NULL : error);
        return code ? code : printed;
    }
    if (!code && !json_is_complete(files))
        code = error_set(error, ERROR_NO_MEMORY, "no memory for the names of the files");
    cJSON_ArrayForEach(file, files) puts(file->valuestring);
    fflush(stdout);
    cJSON_Delete(files);
    return code;
}

static int save_latents(const struct job_result *result, const struct saving *saving, const struct arguments *arguments,
                        struct error *error)
{
    int code = latents_write(saving->output, result, error);
    if (code || !arguments->json) {
        if (!code)
            puts(saving->output);
        return code;
    }
    cJSON *files = json_array();
    json_append_text(files, saving->output);
    return print_object(saving->job, result, "files", files, error);
}

static bool on_progress(void *context, uint64_t moved_bytes, uint64_t total_bytes)
{
    progress_show_transfer(context, "receiving", moved_bytes, total_bytes);
    return interrupt_signal() != 0;
}

static int fetch(struct session *session, const char *job, const struct arguments *arguments, struct job_result **out,
                 struct error *error)
{
    struct progress progress;
    progress_start(&progress, stderr, arguments->quiet);
    const struct transfer_watch watch = {.on_progress = on_progress, .context = &progress};
    int code = job_result_fetch(out, session->client, job, &watch, error);
    progress_end(&progress);
    return code;
}

enum exit_code result_save(struct session *session, const struct saving *saving, const struct arguments *arguments)
{
    struct error error;
    struct job_result *result;
    int code = fetch(session, saving->job, arguments, &result, &error);
    if (code == ERROR_CANCELLED && interrupt_signal()) {
        fprintf(stderr, "lancectl: interrupted\n");
        if (!session->daemon)
            say_how_to_fetch(session, saving->job, saving->output, arguments);
        return (enum exit_code)(EXIT_INTERRUPTED + interrupt_signal());
    }
    if (code)
        return complain(code, &error);
    const char *text = json_text(job_result_fields(result), "text");
    const struct tensor_view *pixels = NULL;
    const bool is_latent = !text && saving->output && output_kind_of(saving->output) == OUTPUT_LATENT;
    if (text)
        code = save_text(result, text, saving, arguments, &error);
    else if (is_latent && !job_result_tensor(result, "latents"))
        code = error_set(&error, ERROR_UNSUPPORTED, "the job made no latents");
    else if (!is_latent)
        code = find_pixels(result, &pixels, &error);
    if (!code && pixels && !saving->output)
        code = error_set(&error, ERROR_BAD_REQUEST, "the result is no text: -o FILE is needed");
    if (code) {
        job_result_close(result);
        enum exit_code exit_code = complain(code, &error);
        return code == ERROR_BAD_REQUEST ? EXIT_USAGE : exit_code;
    }
    if (pixels)
        code = save_pixels(result, pixels, saving, arguments, &error);
    else if (!code && is_latent)
        code = save_latents(result, saving, arguments, &error);
    bool is_unwanted = false; /* who would read stdout has ended: no private daemon has to stay for that */
    if (!code && (code = output_flush(&error)) != 0)
        is_unwanted = output_is_closed();
    const char *output = text ? NULL : saving->output;
    job_result_close(result);
    if (is_unwanted)
        return EXIT_NOT_WRITTEN;
    if (code) {
        complain(code, &error);
        say_how_to_fetch(session, saving->job, output, arguments);
        session_leave(session);
        return EXIT_NOT_WRITTEN;
    }
    /* It would forget the job by itself later. */
    client_job_request(session->client, "release", saving->job, NULL, &error);
    return EXIT_OK;
}
