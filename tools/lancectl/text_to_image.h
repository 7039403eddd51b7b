/* text_to_image.h: the command t2i. */
#ifndef LANCECTL_TEXT_TO_IMAGE_H
#define LANCECTL_TEXT_TO_IMAGE_H

#include "tools/lancectl/arguments.h"
#include "tools/lancectl/exit_codes.h"
#include "tools/lancectl/session.h"

/* The "params" of the submit request: the prompt and what was given on the command line, nothing else. NULL: out of memory. */
cJSON *text_to_image_params(const struct arguments *arguments);

/* Submit the job, show its progress, save its pictures. Ctrl-C cancels it on the daemon. Prints its own errors. */
enum exit_code text_to_image(struct session *session, const struct arguments *arguments);

#endif
