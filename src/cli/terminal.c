/* terminal.c - talking to people: sentences, progress bars, Ctrl-C; and to programs: the results on stdout. */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/common.h"

#define BAR_CELLS 30

int fm_cli_fail(const fm_error *err)
{
    const bool stopped = err->code == FM_ERR_CANCELLED && fm_cli_interrupted(NULL);
    fflush(stdout);
    fprintf(stderr, "fmamba: %s\n", stopped ? "stopped" : err->text[0] ? err->text : fm_status_name(err->code));
    return FM_EXIT_FAILURE;
}

int fm_cli_usage(const fm_cli *c, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fflush(stdout);
    fputs("fmamba: ", stderr);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fprintf(stderr, "\nSee 'fmamba %s --help'.\n", c->command->name);
    return FM_EXIT_USAGE;
}

void fm_cli_note(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fputs("fmamba: note: ", stderr);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
}

void fm_cli_log(void *ctx, const char *line)
{
    const fm_cli *c = ctx;
    const bool warning = fm_view_starts(fm_view_of(line), "warning: ");
    if (warning || fm_opt_flag(&c->options, FM_OPT_VERBOSE)) fm_cli_note("%s", line);
    const char *path = fm_opt_str(&c->options, FM_OPT_LOG);
    FILE *f = path ? fopen(path, "a") : NULL; /* opened for each line: these are rare, and a reader sees them at once */
    if (!f) return;
    fprintf(f, "fmamba %s: %s\n", c->command->name, line);
    fclose(f);
}

static int stdout_failed(void)
{
    fm_error err;
    fm_fail_errno(&err, "cannot write to standard output");
    return fm_cli_fail(&err);
}

int fm_cli_put(fm_str *s)
{
    fm_error err = {0};
    int code = FM_EXIT_OK;
    if (fm_str_ok(s, "the output", &err) != FM_OK)
        code = fm_cli_fail(&err);
    else if (s->n > 0 && fwrite(s->p, 1, s->n, stdout) != s->n)
        code = stdout_failed();
    fm_str_free(s);
    return code;
}

int fm_cli_finish(int code)
{
    const bool failed = ferror(stdout) != 0;
    if (fflush(stdout) == 0 && !failed) return code;
    return failed && code != FM_EXIT_OK ? code : stdout_failed();
}

bool fm_cli_is_terminal(int fd)
{
    return isatty(fd) == 1;
}

void fm_cli_style(const fm_cli *c, FILE *f, const char *style)
{
    const char *term = fm_environment("TERM");
    const bool wanted = fm_opt_flag(&c->options, FM_OPT_COLOR) && !fm_environment("NO_COLOR");
    if (wanted && term && strcmp(term, "dumb") != 0 && fm_cli_is_terminal(fileno(f))) fprintf(f, "\033[%sm", style);
}

/* ---- Progress ---- */

fm_cli_bar fm_cli_bar_begin(const char *label)
{
    return (fm_cli_bar){.label = label, .on = fm_cli_is_terminal(STDERR_FILENO), .drawn = -1};
}

bool fm_cli_progress(void *ctx, double fraction)
{
    fm_cli_bar *bar = ctx;
    const int permille = (int)lround(fmin(fmax(fraction, 0), 1) * 1000);
    if (bar->on && permille != bar->drawn) {
        static const char cells[] = "##############################", blanks[] = "..............................";
        const int full = permille * BAR_CELLS / 1000;
        fprintf(stderr, "\r%s [%.*s%.*s] %5.1f %%", bar->label, full, cells, BAR_CELLS - full, blanks, permille / 10.0);
        fflush(stderr);
        bar->drawn = permille;
    }
    return !fm_cli_interrupted(NULL);
}

void fm_cli_bar_end(fm_cli_bar *bar)
{
    if (bar->on && bar->drawn >= 0) fprintf(stderr, "\r%*s\r", (int)strlen(bar->label) + BAR_CELLS + 12, "");
    bar->drawn = -1;
}

/* ---- Ctrl-C, and what ends a program: SIGTERM, and SIGHUP unless nohup had it ignored ---- */

static const int signals[] = {SIGINT, SIGTERM, SIGHUP};

/* The signal that came, or 0.  A mutable global, since a handler is given nothing else. */
static volatile sig_atomic_t interrupted;
static bool caught;

static void on_interrupt(int signal_number)
{
    interrupted = signal_number;
    signal(signal_number, SIG_DFL);
}

static void set_handlers(void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler}, before;
    sigemptyset(&action.sa_mask); /* no SA_RESTART: a read that waits for the keyboard ends */
    for (size_t i = 0; i < FM_COUNT(signals); i++)
        if (signals[i] != SIGHUP || (sigaction(SIGHUP, NULL, &before) == 0 && before.sa_handler != SIG_IGN))
            sigaction(signals[i], &action, NULL);
}

bool fm_cli_terminated(void)
{
    return interrupted != 0 && interrupted != SIGINT;
}

void fm_cli_hold_interrupt(void)
{
    caught = true;
    set_handlers(on_interrupt);
}

void fm_cli_catch_interrupt(void)
{
    if (!fm_cli_terminated()) interrupted = 0;
    fm_cli_hold_interrupt();
}

bool fm_cli_release_interrupt(void)
{
    const bool was = caught;
    if (was) set_handlers(SIG_DFL);
    caught = false;
    return was;
}

bool fm_cli_interrupted(void *unused)
{
    (void)unused;
    return interrupted != 0;
}

void fm_cli_clear_interrupt(void)
{
    if (interrupted && !fm_cli_terminated()) fm_cli_catch_interrupt();
}
