/* failure.c: see failure.h. */
#include "daemon/failure.h"

#include "base/json.h"
#include "protocol/message.h"

cJSON *failure_json(const struct error *failure)
{
    cJSON *answer = json_object();
    json_add_number(answer, "protocol", PROTOCOL_VERSION);
    json_add_bool(answer, "ok", false);
    json_add_text(answer, "version", LANCED_VERSION);
    cJSON *details = json_add_object(answer, "error");
    json_add_text(details, "code", error_name(failure->code));
    json_add_text(details, "message", failure->text);
    return answer;
}

int failure_no_memory(struct blob **out, struct error *error)
{
    struct error failure;
    void *data;
    uint64_t bytes;
    error_set(&failure, ERROR_NO_MEMORY, "lanced has no memory for the answer; ask again later");
    cJSON *answer = failure_json(&failure);
    int code = message_encode(&data, &bytes, answer, NULL, 0, error);
    cJSON_Delete(answer);
    if (code != 0)
        return code;
    *out = blob_open(data, bytes);
    return *out != NULL ? 0 : error_set(error, ERROR_NO_MEMORY, "server: out of memory");
}
