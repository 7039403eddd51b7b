/* calibration.h: `lanced --calibrate FILE`: how large the inputs of the model's linear layers are in the jobs that it
 * does anyway, as `lance-quant apply` wants to know. What is kept is numbers for each input channel: no prompt, picture
 * or token.
 *
 * The file is written, whole or not at all, every few minutes and at the end; one that is there of the same model is
 * counted on. One thread, the worker's; but for calibration_open and calibration_close, which its owner calls before
 * and after that thread.
 */
#ifndef LANCE_CALIBRATION_H
#define LANCE_CALIBRATION_H

#include "daemon/engine/lance.h"

struct calibration;

/* Reads `path` if it is there. Writes it every so many seconds. Errors: ERROR_BAD_FILE, ERROR_IO (no file can be
 * written there), ERROR_NO_MEMORY. */
int calibration_open(struct calibration **out, const char *path, double seconds, struct error *error);
void calibration_close(struct calibration *calibration); /* writes what is not written yet; NULL is allowed */

/* Count what goes into this model's layers, from now until it is closed. ERROR_BAD_FILE: the file is of another model.
 * NULL is allowed for the calibration: nothing is done. */
int calibration_watch(struct calibration *calibration, struct lance_model *model, struct error *error);

/* A job of this task begins. */
void calibration_note_task(struct calibration *calibration, enum lance_task task);

/* When calibration_tick has something to write, as of clock_seconds; 0: never, as things are. */
double calibration_due(const struct calibration *calibration);

/* No step is running: write the file when it is time. A file that cannot be written is told in the log, and tried
 * again; numbers that make no sense end the counting. */
void calibration_tick(struct calibration *calibration);

#endif
