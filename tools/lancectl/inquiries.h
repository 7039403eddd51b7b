/* inquiries.h: the short commands: one request, one answer, printed. */
#ifndef LANCECTL_INQUIRIES_H
#define LANCECTL_INQUIRIES_H

#include "tools/lancectl/arguments.h"
#include "tools/lancectl/exit_codes.h"
#include "tools/lancectl/session.h"

/* status, models, load, unload, cancel, shutdown. Prints its own errors. */
enum exit_code inquire(struct session *session, const struct arguments *arguments);

/* show: needs no daemon. */
enum exit_code show_receipt(const struct arguments *arguments);

#endif
