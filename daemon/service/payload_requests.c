/* payload_requests.c: put, get, and result, which says what there is to get: payloads in pieces. */
#include <string.h>

#include "daemon/blobs.h"
#include "daemon/jobs/jobs.h"
#include "daemon/service/handling.h"

enum { INLINE_BYTES = 64 << 10 }; /* a result's tensors come with it when they have no more bytes than this together */

/* --- put ---------------------------------------------------------------------------------------- */

static int read_name(struct blob_name *name, const cJSON *request, struct error *error)
{
    const char *text = json_text(request, "blob");
    const cJSON *bytes = cJSON_GetObjectItemCaseSensitive(request, "bytes");
    if (!blob_name_is_right(text))
        return error_set(error, ERROR_BAD_REQUEST, "blob: must be " BLOB_NAME_RULE);
    memcpy(name->text, text, strlen(text) + 1);
    if (!json_uint64(bytes, &name->bytes) || name->bytes == 0)
        return error_set(error, ERROR_BAD_REQUEST,
                         "bytes: must be a whole number from 1 on, the size of the whole blob");
    return 0;
}

/* The piece in the message, or NULL when the client just asks. */
static int read_piece(const struct tensor_view **piece, const struct message *message, struct error *error)
{
    *piece = message_tensor(message, "piece");
    if (message_tensor_count(message) == (*piece != NULL) &&
        (!*piece || ((*piece)->dtype == DTYPE_U8 && (*piece)->dimensions == 1)))
        return 0;
    return error_set(error, ERROR_BAD_REQUEST, "put: takes one tensor, \"piece\", U8 [bytes], or none");
}

static void add_state(cJSON *fields, const struct blob_state *state)
{
    json_add_bool(fields, "complete", state->is_complete);
    cJSON *missing = json_add_array(fields, "missing");
    for (int i = 0; i < state->range_count; i++) {
        cJSON *range = json_array();
        json_append_number(range, (double)state->missing[i].offset);
        json_append_number(range, (double)state->missing[i].bytes);
        json_append(missing, range);
    }
}

int handle_put(struct call *call, const cJSON *request, struct error *error)
{
    struct blobs *blobs = call->service->blobs;
    struct blob_name name;
    struct blob_state state;
    const struct tensor_view *piece;
    uint64_t offset;
    int code = read_name(&name, request, error);
    if (code == 0)
        code = call_read_whole(&offset, request, "offset", 0, UINT64_MAX, error);
    if (code == 0)
        code = read_piece(&piece, call->message, error);
    if (code == 0 && piece)
        code = blobs_put(blobs, &name, offset, piece->data, piece->bytes, &state, error);
    else if (code == 0)
        code = blobs_ask(blobs, &name, &state, error);
    if (code == 0)
        add_state(call->fields, &state);
    return code;
}

/* --- result, get --------------------------------------------------------------------------------- */

static uint64_t tensor_bytes(const struct message *result)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < message_tensor_count(result); i++)
        bytes += message_tensor_at(result, i)->bytes;
    return bytes;
}

/* The kept result without its tensors; or all of it, when these are small. */
static int answer_in_brief(struct call *call, struct blob *whole, struct error *error)
{
    struct message *message;
    void *data;
    uint64_t bytes;
    int code = message_parse(&message, whole->data, whole->bytes, 0, error);
    if (code != 0)
        return code;
    const uint64_t of_tensors = tensor_bytes(message);
    if (of_tensors <= INLINE_BYTES) {
        call->answer = blob_share(whole);
        jobs_count_fetched(call->service->rooms.jobs, call->job, of_tensors, of_tensors);
    } else if ((code = message_encode(&data, &bytes, message_envelope(message), NULL, 0, error)) == 0) {
        call->answer = blob_open(data, bytes);
        if (!call->answer)
            code = error_set(error, ERROR_NO_MEMORY, "result: out of memory");
    }
    message_close(message);
    return code;
}

int handle_result(struct call *call, const cJSON *request, struct error *error)
{
    struct blob *whole = NULL;
    int code = call_find_job(call, request, error);
    if (code == 0)
        code = jobs_result(call->service->rooms.jobs, call->job, &whole, error);
    if (code == 0)
        code = answer_in_brief(call, whole, error);
    blob_close(whole);
    return code;
}

/* What of which tensor a client asks for. */
struct slice {
    const char *tensor;
    uint64_t offset, length;
};

static int read_slice(struct slice *slice, const cJSON *request, struct error *error)
{
    slice->tensor = json_text(request, "tensor");
    if (!slice->tensor)
        return error_set(error, ERROR_BAD_REQUEST, "tensor: must be the name of one of the result's tensors");
    int code = call_read_whole(&slice->offset, request, "offset", 0, UINT64_MAX, error);
    if (code == 0)
        code = call_read_whole(&slice->length, request, "length", BLOBS_PIECE_BYTES, UINT64_MAX, error);
    if (code == 0 && (slice->length == 0 || slice->length > BLOBS_PIECE_BYTES))
        return error_set(error, ERROR_BAD_REQUEST, "length: must be from 1 to %d", BLOBS_PIECE_BYTES);
    return code;
}

/* Encode the slice of a tensor; one over its end is cut there. */
static int answer_slice(struct call *call, const struct tensor_view *tensor, const struct slice *slice, uint64_t *bytes,
                        struct error *error)
{
    if (slice->offset > tensor->bytes)
        return error_set(error, ERROR_BAD_REQUEST, "offset: tensor \"%.40s\" has %llu bytes, and ends before %llu",
                         tensor->name, (unsigned long long)tensor->bytes, (unsigned long long)slice->offset);
    *bytes = tensor->bytes - slice->offset < slice->length ? tensor->bytes - slice->offset : slice->length;
    call->piece = (struct tensor_view){
        .name = "piece",
        .dtype = DTYPE_U8,
        .dimensions = 1,
        .shape = {*bytes},
        .data = (const char *)tensor->data + slice->offset,
        .bytes = *bytes,
    };
    return 0;
}

int handle_get(struct call *call, const cJSON *request, struct error *error)
{
    struct jobs *jobs = call->service->rooms.jobs;
    struct slice slice;
    struct message *result = NULL;
    uint64_t bytes = 0;
    int code = call_find_job(call, request, error);
    if (code == 0)
        code = read_slice(&slice, request, error);
    if (code == 0)
        code = jobs_result(jobs, call->job, &call->piece_of, error);
    if (code == 0)
        code = message_parse(&result, call->piece_of->data, call->piece_of->bytes, 0, error);
    if (code != 0)
        return code;
    const struct tensor_view *tensor = message_tensor(result, slice.tensor);
    if (!tensor)
        code = error_set(error, ERROR_BAD_REQUEST, "tensor: \"%.40s\" is none of the result's tensors", slice.tensor);
    else
        code = answer_slice(call, tensor, &slice, &bytes, error);
    if (code == 0)
        jobs_count_fetched(jobs, call->job, bytes, tensor_bytes(result));
    message_close(result);
    return code;
}
