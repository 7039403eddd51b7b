/* transfer.c: see transfer.h. Everything runs on the caller's thread. */
#include "protocol/transfer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sha256.h"

enum { ROUNDS = 16 /* of asking what the daemon lacks; it names at most 64 ranges of a blob at once */ };

/* How far the bytes of a submit or a result have come. */
struct transfer {
    struct client *client;
    const struct transfer_watch *watch; /* or NULL */
    uint64_t piece_bytes, moved_bytes, total_bytes;
};

/* Begin a transfer: pieces are of limits.piece_bytes. */
static int start(struct transfer *transfer, struct client *client, const struct transfer_watch *watch,
                 struct error *error)
{
    *transfer = (struct transfer){.client = client, .watch = watch};
    const cJSON *limits = cJSON_GetObjectItemCaseSensitive(client_hello(client), "limits");
    json_uint64(cJSON_GetObjectItemCaseSensitive(limits, "piece_bytes"), &transfer->piece_bytes);
    return transfer->piece_bytes > 0 ? 0
                                     : error_set(error, ERROR_INTERNAL, "the daemon does not say how large a piece is");
}

static int tell(const struct transfer *transfer, struct error *error)
{
    const struct transfer_watch *watch = transfer->watch;
    if (watch && watch->on_progress &&
        watch->on_progress(watch->context, transfer->moved_bytes, transfer->total_bytes))
        return error_set(error, ERROR_CANCELLED, "cancelled");
    return 0;
}

/* Wait for the answer to a piece on its way, or a moment; *answer is NULL then. `tag`: see client_begin. */
static int take_answer(struct transfer *transfer, uint64_t *tag, struct message **answer, struct error *error)
{
    int code = client_next(transfer->client, tag, answer, error);
    if (code == 0 && !*answer)
        code = tell(transfer, error);
    return code;
}

/* A request of fields that are deleted here; a piece goes with "put". */
static int begin_piece(struct transfer *transfer, const char *request, cJSON *fields, const struct tensor_view *piece,
                       uint64_t tag, struct error *error)
{
    int code = json_is_complete(fields)
                     ? client_begin(transfer->client, request, fields, piece, piece ? 1 : 0, tag, error)
                     : error_set(error, ERROR_NO_MEMORY, "%s: out of memory", request);
    cJSON_Delete(fields);
    return code;
}

static void add_whole(cJSON *object, const char *name, uint64_t number)
{
    json_add(object, name, json_from_uint64(number));
}

/* --- Sending ---------------------------------------------------------------------------- */

static cJSON *put_fields(const char *blob, const struct tensor_view *tensor, uint64_t offset)
{
    cJSON *fields = json_object();
    json_add_text(fields, "blob", blob);
    add_whole(fields, "bytes", tensor->bytes);
    add_whole(fields, "offset", offset);
    return fields;
}

/* Take the answer to one "put"; the tag is the piece's length. */
static int take_put(struct transfer *transfer, struct error *error)
{
    struct message *answer;
    uint64_t length;
    int code = take_answer(transfer, &length, &answer, error);
    if (code != 0 || !answer)
        return code;
    message_close(answer);
    transfer->moved_bytes += length;
    return tell(transfer, error);
}

/* Send the pieces of one range that the daemon lacks. Returns with some of them still on their way. */
static int put_range(struct transfer *transfer, const char *blob, const struct tensor_view *tensor, uint64_t begin,
                     uint64_t end, struct error *error)
{
    int code = 0;
    for (uint64_t offset = begin; offset < end && code == 0; offset += transfer->piece_bytes) {
        const uint64_t length = end - offset < transfer->piece_bytes ? end - offset : transfer->piece_bytes;
        const struct tensor_view piece = {.name = "piece",
                                          .dtype = DTYPE_U8,
                                          .dimensions = 1,
                                          .shape = {length},
                                          .data = (const uint8_t *)tensor->data + offset,
                                          .bytes = length};
        while (code == 0 && client_in_flight(transfer->client) == CLIENT_IN_FLIGHT)
            code = take_put(transfer, error);
        if (code == 0)
            code = begin_piece(transfer, "put", put_fields(blob, tensor, offset), &piece, length, error);
    }
    return code;
}

/* The range [offset, length] of a list of what is missing. */
static bool read_range(const cJSON *range, const struct tensor_view *tensor, uint64_t *begin, uint64_t *end)
{
    uint64_t length;
    if (cJSON_GetArraySize(range) != 2 || !json_uint64(cJSON_GetArrayItem(range, 0), begin) ||
        !json_uint64(cJSON_GetArrayItem(range, 1), &length) || *begin > tensor->bytes ||
        length > tensor->bytes - *begin)
        return false;
    *end = *begin + length;
    return true;
}

static int put_missing(struct transfer *transfer, const char *blob, const struct tensor_view *tensor,
                       const cJSON *missing, struct error *error)
{
    const cJSON *range;
    uint64_t begin, end;
    int code = 0;
    cJSON_ArrayForEach(range, missing)
    {
        if (code == 0 && !read_range(range, tensor, &begin, &end))
            code = error_set(error, ERROR_INTERNAL, "put: the daemon lacks bytes that the tensor does not have");
        if (code == 0)
            code = put_range(transfer, blob, tensor, begin, end, error);
    }
    while (code == 0 && client_in_flight(transfer->client) > 0)
        code = take_put(transfer, error);
    if (code != 0)
        client_abandon(transfer->client);
    return code;
}

/* Bytes in a list of ranges. */
static uint64_t bytes_missing(const cJSON *missing, const struct tensor_view *tensor)
{
    uint64_t begin, end, bytes = 0;
    const cJSON *range;
    cJSON_ArrayForEach(range, missing) if (read_range(range, tensor, &begin, &end)) bytes += end - begin;
    return bytes < tensor->bytes ? bytes : tensor->bytes;
}

/* Have the daemon take one blob, as far as it lacks it. */
static int put(struct transfer *transfer, const char *blob, const struct tensor_view *tensor, struct error *error)
{
    const uint64_t before = transfer->moved_bytes;
    for (int round = 0; round < ROUNDS; round++) {
        struct message *answer;
        cJSON *fields = put_fields(blob, tensor, 0);
        int code = json_is_complete(fields) ? client_request(transfer->client, "put", fields, NULL, 0, &answer, error)
                                            : error_set(error, ERROR_NO_MEMORY, "put: out of memory");
        cJSON_Delete(fields);
        if (code != 0)
            return code;
        const cJSON *missing = cJSON_GetObjectItemCaseSensitive(message_envelope(answer), "missing");
        const uint64_t lacking = bytes_missing(missing, tensor);
        transfer->moved_bytes = before + tensor->bytes - lacking;
        code = tell(transfer, error);
        if (code == 0 && lacking > 0)
            code = put_missing(transfer, blob, tensor, missing, error);
        message_close(answer);
        if (code != 0 || lacking == 0)
            return code;
    }
    return error_set(error, ERROR_INTERNAL, "put: the daemon does not keep the pieces of a tensor");
}

/* The tensors of a request: some go within it, the others are named. */
struct payloads {
    struct tensor_view inline_tensors[MESSAGE_MAX_TENSORS], named[MESSAGE_MAX_TENSORS];
    char blobs[MESSAGE_MAX_TENSORS][SHA256_HEX_BYTES]; /* of `named` */
    size_t inline_count, named_count;
};

static void sort_out(struct payloads *payloads, const struct tensor_view *tensors, size_t count)
{
    uint64_t room = TRANSFER_INLINE_BYTES;
    for (size_t i = 0; i < count; i++)
        if (tensors[i].bytes <= room) {
            payloads->inline_tensors[payloads->inline_count++] = tensors[i];
            room -= tensors[i].bytes;
        } else {
            sha256_of(tensors[i].data, tensors[i].bytes, payloads->blobs[payloads->named_count]);
            payloads->named[payloads->named_count++] = tensors[i];
        }
}

/* The field `tensors` of submit. */
static void add_named(cJSON *fields, const struct payloads *payloads)
{
    cJSON *tensors = payloads->named_count > 0 ? json_add_object(fields, "tensors") : NULL;
    for (size_t i = 0; i < payloads->named_count; i++) {
        const struct tensor_view *tensor = &payloads->named[i];
        cJSON *entry = json_add_object(tensors, tensor->name);
        json_add_text(entry, "blob", payloads->blobs[i]);
        json_add_text(entry, "dtype", dtype_name(tensor->dtype));
        cJSON *shape = json_add_array(entry, "shape");
        for (int d = 0; d < tensor->dimensions; d++)
            json_append(shape, json_from_uint64(tensor->shape[d]));
    }
}

/* Send those blobs that the daemon, refusing the request, says it lacks. */
static int put_refused(struct transfer *transfer, const struct payloads *payloads, const cJSON *missing,
                       struct error *error)
{
    bool wanted[MESSAGE_MAX_TENSORS] = {false};
    transfer->moved_bytes = transfer->total_bytes = 0;
    const cJSON *blob;
    cJSON_ArrayForEach(blob, missing) for (size_t i = 0; i < payloads->named_count; i++)
        wanted[i] = wanted[i] || (cJSON_IsString(blob) && strcmp(blob->valuestring, payloads->blobs[i]) == 0);
    for (size_t i = 0; i < payloads->named_count; i++)
        transfer->total_bytes += wanted[i] ? payloads->named[i].bytes : 0;
    if (transfer->total_bytes == 0)
        return error_set(error, ERROR_INTERNAL, "submit: the daemon lacks a blob that the request does not name");
    int code = 0;
    for (size_t i = 0; i < payloads->named_count && code == 0; i++)
        if (wanted[i])
            code = put(transfer, payloads->blobs[i], &payloads->named[i], error);
    return code;
}

static int submit(struct transfer *transfer, const cJSON *fields, const struct payloads *payloads, struct error *error)
{
    for (int round = 0; round < ROUNDS; round++) {
        int code = client_request(transfer->client, "submit", fields, payloads->inline_tensors,
                                  payloads->inline_count, NULL, error);
        if (code != ERROR_NOT_FOUND)
            return code;
        cJSON *missing =
            cJSON_Duplicate(cJSON_GetObjectItemCaseSensitive(client_refusal(transfer->client), "missing_blobs"), true);
        if (missing)
            code = put_refused(transfer, payloads, missing, error);
        cJSON_Delete(missing);
        if (code != 0)
            return code;
    }
    return error_set(error, ERROR_INTERNAL, "submit: the daemon does not keep the request's tensors");
}

int transfer_submit(struct client *client, const cJSON *fields, const struct tensor_view *tensors, size_t count,
                    const struct transfer_watch *watch, struct error *error)
{
    struct transfer transfer;
    int code = start(&transfer, client, watch, error);
    if (code != 0)
        return code;
    if (count > MESSAGE_MAX_TENSORS)
        return error_set(error, ERROR_TOO_LARGE, "submit: %zu tensors; at most %d are accepted", count,
                         MESSAGE_MAX_TENSORS);
    struct payloads *payloads = calloc(1, sizeof *payloads);
    if (!payloads)
        return error_set(error, ERROR_NO_MEMORY, "submit: out of memory");
    sort_out(payloads, tensors, count);
    cJSON *all = cJSON_Duplicate(fields, true);
    add_named(all, payloads);
    code = json_is_complete(all) ? submit(&transfer, all, payloads, error)
                                 : error_set(error, ERROR_NO_MEMORY, "submit: out of memory");
    cJSON_Delete(all);
    free(payloads);
    return code;
}

/* --- Receiving -------------------------------------------------------------------------- */

struct job_result {
    struct message *answer;
    size_t count; /* of tensors that came in pieces */
    struct tensor_view tensors[JOB_RESULT_MOST_TENSORS];
    uint8_t *data[JOB_RESULT_MOST_TENSORS];
};

/* A piece on its way: which tensor's, and where. */
enum { TAG_OFFSET_BITS = 56 };

static int begin_get(struct transfer *transfer, const char *job, const struct tensor_view *tensor, size_t index,
                     uint64_t offset, struct error *error)
{
    const uint64_t left = tensor->bytes - offset;
    cJSON *fields = json_object();
    json_add_text(fields, "job", job);
    json_add_text(fields, "tensor", tensor->name);
    add_whole(fields, "offset", offset);
    add_whole(fields, "length", left < transfer->piece_bytes ? left : transfer->piece_bytes);
    return begin_piece(transfer, "get", fields, NULL, (uint64_t)index << TAG_OFFSET_BITS | offset, error);
}

/* Take the answer to one "get" into its place. */
static int take_get(struct transfer *transfer, struct job_result *result, struct error *error)
{
    struct message *answer;
    uint64_t tag;
    int code = take_answer(transfer, &tag, &answer, error);
    if (code != 0 || !answer)
        return code;
    const size_t index = (size_t)(tag >> TAG_OFFSET_BITS);
    const uint64_t offset = tag & ((UINT64_C(1) << TAG_OFFSET_BITS) - 1), left = result->tensors[index].bytes - offset;
    const uint64_t length = left < transfer->piece_bytes ? left : transfer->piece_bytes;
    const struct tensor_view *piece = message_tensor(answer, "piece");
    if (!piece || !tensor_is(piece, DTYPE_U8, 1, &length)) {
        code = error_set(error, ERROR_INTERNAL, "get: the daemon sent no piece of %" PRIu64 " bytes", length);
    } else {
        memcpy(result->data[index] + offset, piece->data, length);
        transfer->moved_bytes += length;
    }
    message_close(answer);
    return code != 0 ? code : tell(transfer, error);
}

static int get_all(struct transfer *transfer, struct job_result *result, const char *job, struct error *error)
{
    int code = 0;
    for (size_t i = 0; i < result->count && code == 0; i++)
        for (uint64_t offset = 0; offset < result->tensors[i].bytes && code == 0; offset += transfer->piece_bytes) {
            while (code == 0 && client_in_flight(transfer->client) == CLIENT_IN_FLIGHT)
                code = take_get(transfer, result, error);
            if (code == 0)
                code = begin_get(transfer, job, &result->tensors[i], i, offset, error);
        }
    while (code == 0 && client_in_flight(transfer->client) > 0)
        code = take_get(transfer, result, error);
    if (code != 0)
        client_abandon(transfer->client);
    return code;
}

/* Make room for the tensors that the answer describes and does not hold. */
static int make_room(struct job_result *result, uint64_t *total_bytes, struct error *error)
{
    const cJSON *entry, *described = cJSON_GetObjectItemCaseSensitive(message_envelope(result->answer), "tensors");
    cJSON_ArrayForEach(entry, described)
    {
        if (message_tensor(result->answer, entry->string))
            continue;
        struct tensor_view *tensor = &result->tensors[result->count];
        if (result->count == JOB_RESULT_MOST_TENSORS || !tensor_describe(tensor, entry) ||
            tensor->bytes >> TAG_OFFSET_BITS != 0)
            return error_set(error, ERROR_INTERNAL,
                             "result: tensor \"%.40s\" is described in a way that is not understood", entry->string);
        uint8_t *data = malloc(tensor->bytes > 0 ? tensor->bytes : 1);
        if (!data)
            return error_set(error, ERROR_NO_MEMORY, "result: out of memory for a tensor of %" PRIu64 " bytes",
                             tensor->bytes);
        tensor->name = entry->string;
        tensor->data = result->data[result->count++] = data;
        *total_bytes += tensor->bytes;
    }
    return 0;
}

int job_result_fetch(struct job_result **out, struct client *client, const char *job,
                     const struct transfer_watch *watch, struct error *error)
{
    *out = NULL;
    struct transfer transfer;
    int code = start(&transfer, client, watch, error);
    if (code != 0)
        return code;
    struct job_result *result = calloc(1, sizeof *result);
    if (!result)
        return error_set(error, ERROR_NO_MEMORY, "result: out of memory");
    code = client_job_request(client, "result", job, &result->answer, error);
    if (code == 0)
        code = make_room(result, &transfer.total_bytes, error);
    if (code == 0)
        code = get_all(&transfer, result, job, error);
    if (code != 0) {
        job_result_close(result);
        return code;
    }
    *out = result;
    return 0;
}

void job_result_close(struct job_result *result)
{
    if (!result)
        return;
    for (size_t i = 0; i < result->count; i++)
        free(result->data[i]);
    message_close(result->answer);
    free(result);
}

const cJSON *job_result_fields(const struct job_result *result)
{
    return message_envelope(result->answer);
}

const struct tensor_view *job_result_tensor(const struct job_result *result, const char *name)
{
    for (size_t i = 0; i < result->count; i++)
        if (strcmp(result->tensors[i].name, name) == 0)
            return &result->tensors[i];
    return message_tensor(result->answer, name);
}
