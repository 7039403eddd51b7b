/* report.c: see report.h. */
#include "tests/tools/check-golden/report.h"

#include <stdarg.h>
#include <stdio.h>

static void print_line(struct report *report, const char *stage, bool ok, const char *text)
{
    if (ok)
        report->passed++;
    else
        report->failed++;
    if (!ok || !report->quiet)
        printf("%-28s %-24s %s  %s\n", report->case_name, stage, text, ok ? "ok" : "FAILED");
    fflush(stdout);
}

void report_error(struct report *report, const char *stage, double error, double bound)
{
    char text[64];
    snprintf(text, sizeof text, "%-10.1e (bound %.1e)", error, bound);
    print_line(report, stage, error <= bound, text); /* NaN fails */
}

void report_psnr(struct report *report, const char *stage, double psnr, double bound)
{
    char text[64];
    snprintf(text, sizeof text, "%-7.1f dB (bound %.1f)", psnr, bound);
    print_line(report, stage, psnr >= bound, text);
}

void report_equal(struct report *report, const char *stage, bool equal, const char *detail, ...)
{
    char text[200];
    va_list arguments;
    va_start(arguments, detail);
    vsnprintf(text, sizeof text, detail, arguments);
    va_end(arguments);
    print_line(report, stage, equal, text);
}

void report_failure(struct report *report, const char *stage, const char *format, ...)
{
    char text[700];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    print_line(report, stage, false, text);
}
