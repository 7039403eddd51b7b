/* result.c: see result.h. */
#include "tools/lancectl/result.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "tools/lancectl/complain.h"
#include "tools/lancectl/picture_file.h"
#include "tools/lancectl/receipt.h"

/* The pictures of a result: u8 [batch, 1, height, width, 3]. */
static int find_pictures(const struct message *result, const struct tensor_view **pixels, struct error *error)
{
    *pixels = message_tensor(result, "pixels");
    if (!*pixels)
        return error_set(error, ERROR_UNSUPPORTED, "the job made no picture");
    const uint64_t *shape = (*pixels)->shape;
    if ((*pixels)->dtype != DTYPE_U8 || (*pixels)->dimensions != 5 || shape[4] != 3 || shape[0] > INT_MAX ||
        shape[2] == 0 || shape[2] > INT_MAX || shape[3] == 0 || shape[3] > INT_MAX)
        return error_set(error, ERROR_INTERNAL, "the daemon sent pictures of an unknown form");
    if (shape[1] != 1)
        return error_set(error, ERROR_UNSUPPORTED, "the job made a video of %llu frames; lancectl writes pictures only",
                         (unsigned long long)shape[1]);
    return 0;
}

static int save_picture(const struct message *result, const struct tensor_view *pixels, int index, const char *path,
                        struct error *error)
{
    int height = (int)pixels->shape[2], width = (int)pixels->shape[3];
    const uint8_t *picture = (const uint8_t *)pixels->data + (size_t)index * (size_t)height * (size_t)width * 3;
    char *receipt = receipt_of_picture(message_envelope(result), index);
    if (!receipt)
        return error_set(error, ERROR_NO_MEMORY, "no memory for the receipt");
    int code = picture_write(path, picture, width, height, receipt, error);
    free(receipt);
    return code;
}

static void say_how_to_fetch(const struct session *session, const char *job, const struct arguments *arguments)
{
    const char *endpoint = client_endpoint(session->client);
    bool is_default = !session->daemon && !arguments->endpoint;
    fprintf(stderr, "lancectl: the result is still with the daemon; fetch it with:\n  lancectl fetch %s -o FILE.png%s%s\n", job,
            is_default ? "" : " --endpoint ", is_default ? "" : endpoint);
    if (session->daemon)
        fprintf(stderr, "and then end the private daemon, which was left running for that:\n  lancectl shutdown --endpoint %s\n",
                endpoint);
}

static void print_saved(const char *job, const struct message *result, const cJSON *files,
                        const struct arguments *arguments)
{
    const cJSON *file;
    if (!arguments->json) {
        cJSON_ArrayForEach(file, files) puts(file->valuestring);
        return;
    }
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "job", job);
    cJSON_AddItemToObject(object, "files", cJSON_Duplicate(files, true));
    const cJSON *receipt = cJSON_GetObjectItemCaseSensitive(message_envelope(result), "receipt");
    if (receipt)
        cJSON_AddItemToObject(object, "receipt", cJSON_Duplicate(receipt, true));
    char *text = cJSON_PrintUnformatted(object);
    puts(text ? text : "{}");
    cJSON_free(text);
    cJSON_Delete(object);
}

enum exit_code result_save(struct session *session, const char *job, const struct arguments *arguments)
{
    struct error error;
    struct message *result;
    int code = client_job_request(session->client, "result", job, &result, &error);
    if (code)
        return complain(code, &error);
    const struct tensor_view *pixels;
    code = find_pictures(result, &pixels, &error);
    if (code) {
        message_close(result);
        return complain(code, &error);
    }

    cJSON *files = cJSON_CreateArray();
    int count = (int)pixels->shape[0];
    for (int i = 0; i < count && !code; i++) {
        char *path = picture_name(arguments->output, i, count);
        code = path ? save_picture(result, pixels, i, path, &error)
                    : error_set(&error, ERROR_NO_MEMORY, "no memory for a file name");
        if (!code)
            cJSON_AddItemToArray(files, cJSON_CreateString(path));
        free(path);
    }
    print_saved(job, result, files, arguments);
    cJSON_Delete(files);
    message_close(result);
    if (code) {
        complain(code, &error);
        say_how_to_fetch(session, job, arguments);
        session_leave(session);
        return EXIT_NOT_WRITTEN;
    }
    client_job_request(session->client, "release", job, NULL, &error); /* it would forget the job by itself later */
    return EXIT_OK;
}
