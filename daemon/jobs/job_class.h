/* job_class.h: which jobs go before which others; schedule.h says how. */
#ifndef LANCE_JOB_CLASS_H
#define LANCE_JOB_CLASS_H

enum job_class { JOB_INTERACTIVE, JOB_NORMAL, JOB_BATCH, JOB_CLASSES };

extern const char *const job_class_names[]; /* "interactive", "normal", "batch", NULL */

#endif
