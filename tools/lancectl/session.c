/* session.c: see session.h. */
#include "tools/lancectl/session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/nng_start.h"
#include "protocol/version.h"
#include "tools/lancectl/complain.h"
#include "tools/lancectl/interrupt.h"
#include "tools/lancectl/private_daemon.h"
#include "tools/lancectl/say.h"

enum { LONG_SILENCE_SECONDS = 5 }; /* a busy machine answers within it */

static const char client_name[] = "lancectl " LANCED_VERSION;

int session_request(struct session *session, const char *request, cJSON *fields, struct message **answer,
                    struct error *error)
{
    if (!fields)
        return error_set(error, ERROR_NO_MEMORY, "%s: no memory", request);
    int code = client_request(session->client, request, fields, NULL, 0, answer, error);
    cJSON_Delete(fields);
    return code;
}

/* Have a daemon that was there before use the model that the user named by its folder. */
static int use_model(struct session *session, const char *model_dir, struct error *error)
{
    cJSON *fields = json_object();
    json_add_text(fields, "model", strrchr(model_dir, '/') + 1);
    int code = session_request(session, "load", fields, NULL, error);
    return code ? error_prefix(error, "lanced at %s", client_endpoint(session->client)) : 0;
}

/* Versions with the same protocol work together; one may not know all that the other does. */
static void tell_version(const struct session *session)
{
    const char *version = json_text(client_hello(session->client), "version");
    if (version && strcmp(version, LANCED_VERSION) != 0)
        say(stderr, "lanced at %s has version %s, lancectl %s; install both from the same release\n",
            client_endpoint(session->client), version, LANCED_VERSION);
}

/* An answer is overdue: say so once, and do not keep who has pressed Ctrl-C, for a cancellation that cannot be sent. */
static bool on_silence(void *context, int seconds)
{
    const struct session *session = context;
    if (seconds == LONG_SILENCE_SECONDS && !session->quiet)
        fprintf(stderr, "lancectl: lanced has not answered for %d seconds; waiting\n", seconds);
    return seconds >= LONG_SILENCE_SECONDS && interrupt_signal();
}

static struct client_options connection_of(struct session *session, const struct arguments *arguments)
{
    return (struct client_options){.endpoint = arguments->endpoint,
                                   .ca = arguments->ca,
                                   .name = client_name,
                                   .silence_ms = (int)(arguments->silence * 1000),
                                   .on_silence = on_silence,
                                   .context = session};
}

/* The folder of --model as a path that has a name, as "." has none; malloc'ed. */
static int model_folder(char **out, const struct arguments *arguments, struct error *error)
{
    *out = realpath(arguments->model_dir, NULL);
    return *out ? 0 : error_set(error, ERROR_BAD_REQUEST, "--model %s: %s", arguments->model_dir, strerror(errno));
}

int session_open_private(struct session *session, const struct arguments *arguments, struct error *error)
{
    *session = (struct session){.quiet = arguments->quiet};
    char *model_dir = NULL;
    const struct client_options options = connection_of(session, arguments);
    int code = model_folder(&model_dir, arguments, error);
    if (!code)
        code =
            private_daemon_start(&session->daemon, &session->client, model_dir, arguments->precision, &options, error);
    free(model_dir);
    return code;
}

int session_open(struct session *session, const struct arguments *arguments, struct error *error)
{
    *session = (struct session){.quiet = arguments->quiet};
    char *model_dir = NULL;
    if (arguments->model_dir && model_folder(&model_dir, arguments, error))
        return error->code;

    const struct client_options options = connection_of(session, arguments);
    int code = client_open(&session->client, &options, error);
    if (code == ERROR_IO && model_dir) {
        if (!arguments->quiet)
            fprintf(stderr, "no lanced answers; starting a private one with %s\n", model_dir);
        code =
            private_daemon_start(&session->daemon, &session->client, model_dir, arguments->precision, &options, error);
    } else if (!code && model_dir) {
        code = use_model(session, model_dir, error);
    }
    free(model_dir);
    if (code)
        session_close(session);
    else if (!arguments->quiet)
        tell_version(session);
    return code;
}

enum exit_code session_start(struct session *session, const struct arguments *arguments)
{
    struct error error;
    interrupt_install();
    if (nng_start("lancectl", &error))
        return complain(error.code, &error);
    int code = session_open(session, arguments, &error);
    if (!code)
        return EXIT_OK;
    enum exit_code exit_code = complain(code, &error);
    return interrupt_signal() ? (enum exit_code)(EXIT_INTERRUPTED + interrupt_signal()) : exit_code;
}

void session_close(struct session *session)
{
    private_daemon_stop(session->daemon, session->client);
    client_close(session->client);
    *session = (struct session){0};
}

void session_leave(struct session *session)
{
    if (session->daemon)
        private_daemon_leave(session->daemon);
    client_close(session->client);
    *session = (struct session){0};
}
