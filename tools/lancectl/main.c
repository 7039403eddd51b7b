/* main.c: lancectl, the command-line client of lanced. Parses the command line, connects,
 * and hands over to the command's file. One thread, besides nng's own.
 */
#include <signal.h>
#include <stdio.h>

#include "protocol/version.h"
#include "tools/lancectl/arguments.h"
#include "tools/lancectl/authority.h"
#include "tools/lancectl/clip.h"
#include "tools/lancectl/complain.h"
#include "tools/lancectl/doctor.h"
#include "tools/lancectl/examples.h"
#include "tools/lancectl/exit_codes.h"
#include "tools/lancectl/graph/command.h"
#include "tools/lancectl/help.h"
#include "tools/lancectl/inquiries.h"
#include "tools/lancectl/make_command.h"
#include "tools/lancectl/output.h"
#include "tools/lancectl/result.h"
#include "tools/lancectl/session.h"
#include "tools/lancectl/sheet.h"
#include "tools/lancectl/top.h"

static enum exit_code run_with_daemon(const struct arguments *arguments)
{
    struct session session;
    enum exit_code exit_code = session_start(&session, arguments);
    if (exit_code != EXIT_OK)
        return exit_code;
    const struct saving fetched = {.job = arguments->operand, .output = arguments->output};
    switch (arguments->command) {
    case COMMAND_T2I:
    case COMMAND_T2V:
    case COMMAND_I2V:
    case COMMAND_EDIT:
    case COMMAND_VIDEO_EDIT:
    case COMMAND_ASK:
    case COMMAND_ENCODE:
    case COMMAND_DECODE:
        exit_code = task_command(&session, arguments);
        break;
    case COMMAND_RUN:
        exit_code = examples_run(&session, arguments);
        break;
    case COMMAND_FETCH:
        exit_code = result_save(&session, &fetched, arguments);
        break;
    case COMMAND_TOP:
        exit_code = top_command(&session, arguments);
        break;
    default:
        exit_code = inquire(&session, arguments);
        break;
    }
    session_close(&session);
    return exit_code;
}

/* What was printed may not have arrived: a full disk, say. */
static enum exit_code flushed(enum exit_code exit_code)
{
    struct error error;
    if (exit_code != EXIT_OK || !output_flush(&error))
        return exit_code;
    if (!output_is_closed()) /* as `lancectl help | head` does, on purpose */
        complain(error.code, &error);
    return EXIT_NOT_WRITTEN;
}

int main(int argc, char **argv)
{
    struct arguments arguments;
    struct error error;
    signal(SIGPIPE, SIG_IGN); /* a reader that ends early is an error like a full disk, see output.h, */
    signal(SIGXFSZ, SIG_IGN); /* and so is a limit on the size of files */
    if (arguments_parse(&arguments, argc, argv, &error)) {
        complain(error.code, &error);
        return EXIT_USAGE;
    }
    switch (arguments.command) {
    case COMMAND_HELP:
        help_print(stdout, arguments.topic);
        return flushed(EXIT_OK);
    case COMMAND_VERSION:
        puts("lancectl " LANCED_VERSION);
        return flushed(EXIT_OK);
    case COMMAND_SHOW:
        return flushed(show_receipt(&arguments));
    case COMMAND_GRAPH:
        return flushed(graph_command(&arguments));
    case COMMAND_GRAPHS:
        return flushed(graphs_command(&arguments));
    case COMMAND_SHEET:
        return flushed(sheet_command(&arguments));
    case COMMAND_DOCTOR:
        return flushed(doctor_command(&arguments));
    case COMMAND_CA:
        return flushed(authority_command(&arguments));
    case COMMAND_CLIP:
        return flushed(clip_command(&arguments));
    default:
        return flushed(run_with_daemon(&arguments));
    }
}
