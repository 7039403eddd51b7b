/* progress.c: see progress.h. */
#include "tools/lancectl/progress.h"

#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "protocol/message.h"

enum { MAX_COLUMNS = 200, WIDEST_BAR = 40, NARROWEST_BAR = 10 };

static double number_of(const cJSON *event, const char *name)
{
    const double number = json_number(event, name);
    return number > 0 ? number : 0;
}

/* The event's stage; "working" where it is no short word of small letters, such as a terminal takes. */
static const char *stage_of(const cJSON *event)
{
    const char *name = json_text(event, "stage");
    const size_t letters = name ? strspn(name, "abcdefghijklmnopqrstuvwxyz") : 0;
    return letters > 0 && letters < PROGRESS_STAGE_BYTES && name[letters] == '\0' ? name : "working";
}

static void format_rate(char *out, size_t size, double step_seconds)
{
    if (step_seconds <= 0)
        *out = '\0';
    else if (step_seconds >= 1)
        snprintf(out, size, "  %.1f s/step", step_seconds);
    else
        snprintf(out, size, "  %.1f steps/s", 1 / step_seconds);
}

static void format_time_left(char *out, size_t size, const cJSON *event)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(event, "eta_seconds");
    *out = '\0';
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0 && item->valuedouble < 1e7))
        return;
    long seconds = (long)(item->valuedouble + 0.5);
    if (seconds >= 3600)
        snprintf(out, size, "  %ld:%02ld:%02ld left", seconds / 3600, seconds / 60 % 60, seconds % 60);
    else
        snprintf(out, size, "  %ld:%02ld left", seconds / 60, seconds % 60);
}

/* " [###...]" of at most so many characters between its ends. */
static void draw_bar(char bar[WIDEST_BAR + 4], size_t width, double fraction)
{
    if (width > WIDEST_BAR)
        width = WIDEST_BAR;
    size_t filled = (size_t)((fraction < 1 ? fraction : 1) * (double)width);
    bar[0] = ' ';
    bar[1] = '[';
    memset(bar + 2, '#', filled);
    memset(bar + 2 + filled, '.', width - filled);
    bar[2 + width] = ']';
    bar[3 + width] = '\0';
}

void progress_line(char *line, size_t columns, const cJSON *event, bool with_bar)
{
    char counted[48] = "", rate[32], left[32], bar[WIDEST_BAR + 4] = "";
    double step = number_of(event, "step"), steps = number_of(event, "steps");
    double total_step = number_of(event, "total_step"), total_steps = number_of(event, "total_steps");
    if (steps > 0)
        snprintf(counted, sizeof counted, " %.0f/%.0f", step, steps);
    else if (step > 0)
        snprintf(counted, sizeof counted, " %.0f", step);
    format_rate(rate, sizeof rate, number_of(event, "step_seconds"));
    format_time_left(left, sizeof left, event);

    size_t words = 7 + strlen(counted) + strlen(rate) + strlen(left);
    if (with_bar && total_steps > 0 && words + NARROWEST_BAR + 3 <= columns)
        draw_bar(bar, columns - words - 3, total_step / total_steps);
    char whole[MAX_COLUMNS + 1];
    snprintf(whole, sizeof whole, "%-7s%s%s%s%s", stage_of(event), bar, counted, rate, left);
    snprintf(line, columns + 1, "%s", whole);
}

void progress_start(struct progress *progress, FILE *out, bool is_quiet)
{
    *progress = (struct progress){.out = out, .is_quiet = is_quiet, .is_terminal = isatty(fileno(out)),
                                  .began_seconds = clock_seconds()};
}

static size_t terminal_columns(FILE *out)
{
    struct winsize size;
    if (ioctl(fileno(out), TIOCGWINSZ, &size) || size.ws_col < 20)
        return 79;
    return size.ws_col > MAX_COLUMNS ? MAX_COLUMNS : (size_t)size.ws_col - 1;
}

/* Write a line over the one that stands there. */
static void redraw(struct progress *progress, const char *line)
{
    fprintf(progress->out, "\r\033[K%s", line);
    fflush(progress->out);
    progress->has_line = true;
}

static void show_line(struct progress *progress, const char *line)
{
    if (progress->is_terminal)
        redraw(progress, line);
    else
        fprintf(progress->out, "%s\n", line);
}

static void show_step(struct progress *progress, const cJSON *event)
{
    char line[MAX_COLUMNS + 1];
    if (progress->is_terminal) {
        progress_line(line, terminal_columns(progress->out), event, true);
        redraw(progress, line);
        return;
    }
    double now = clock_seconds();
    bool is_last = number_of(event, "total_step") >= number_of(event, "total_steps");
    const char *stage = stage_of(event);
    if (!strcmp(stage, progress->last_stage) && now - progress->last_seconds < 1 && !is_last)
        return;
    snprintf(progress->last_stage, sizeof progress->last_stage, "%s", stage);
    progress->last_seconds = now;
    progress_line(line, MAX_COLUMNS, event, false);
    fprintf(progress->out, "%s\n", line);
}

void progress_show(struct progress *progress, const cJSON *event)
{
    const char *name = json_text(event, "event");
    if (progress->is_quiet || !name)
        return;
    if (!strcmp(name, "progress")) {
        show_step(progress, event);
    } else if (!strcmp(name, "started")) {
        show_line(progress, "started");
    } else if (!strcmp(name, "paused")) {
        show_line(progress, "paused: other jobs go first");
    } else if (!strcmp(name, "queued")) {
        char line[64];
        double ahead = number_of(event, "position");
        snprintf(line, sizeof line, ahead > 0 ? "waiting for %.0f other job%s" : "queued", ahead, ahead > 1 ? "s" : "");
        show_line(progress, line);
    }
}

void progress_show_transfer(struct progress *progress, const char *what, uint64_t moved_bytes, uint64_t total_bytes)
{
    const double now = clock_seconds();
    if (progress->is_quiet || total_bytes == 0 || now - progress->began_seconds < 1 ||
        (!progress->is_terminal && now - progress->last_seconds < 1))
        return;
    progress->last_seconds = now;
    char counted[64], bar[WIDEST_BAR + 4] = "", line[MAX_COLUMNS + 1];
    snprintf(counted, sizeof counted, " %.1f/%.1f MB", (double)moved_bytes / 1e6, (double)total_bytes / 1e6);
    const size_t columns = progress->is_terminal ? terminal_columns(progress->out) : 0;
    const size_t words = strlen(what) + strlen(counted);
    if (words + NARROWEST_BAR + 3 <= columns)
        draw_bar(bar, columns - words - 3, (double)moved_bytes / (double)total_bytes);
    snprintf(line, sizeof line, "%s%s%s", what, bar, counted);
    show_line(progress, line);
}

void progress_clear(struct progress *progress)
{
    if (progress->has_line)
        fputs("\r\033[K", progress->out);
    progress->has_line = false;
}

void progress_end(struct progress *progress)
{
    if (progress->has_line)
        fputc('\n', progress->out);
    progress->has_line = false;
}
