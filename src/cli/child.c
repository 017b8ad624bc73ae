/* child.c - running another program: words without a shell, two pipes, a deadline. */
#define _GNU_SOURCE /* pipe2, environ */
#include "cli/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define OUTPUT_BYTES_MAX ((size_t)16 << 20)
#define STDERR_SHOWN     400u /* bytes of its end that fit an error's text */

/* ---- Words ---- */

static fm_status push(fm_cli_words *w, const char *p, size_t n, fm_error *err)
{
    FM_TRY(fm_grow((void **)&w->v, &w->cap, w->n + 2, sizeof *w->v, NULL, "the words", err));
    w->v[w->n] = fm_strdup(NULL, p, n, err);
    if (!w->v[w->n]) return FM_ERR_MEMORY;
    w->v[++w->n] = NULL;
    return FM_OK;
}

fm_status fm_cli_words_add(fm_cli_words *w, const char *word, fm_error *err)
{
    return push(w, word, strlen(word), err);
}

/* Appends the word at `at` to s, quotes resolved; gives what follows it, or NULL when a quote stays open. */
static const char *take_word(fm_str *s, const char *at)
{
    char quote = 0;
    for (; *at && (quote || !strchr(" \t\n", *at)); at++) {
        if (quote ? *at == quote : *at == '\'' || *at == '"') {
            quote = quote ? 0 : *at;
        } else {
            if (*at == '\\' && quote != '\'' && at[1]) at++;
            fm_str_putc(s, *at);
        }
    }
    return quote ? NULL : at;
}

fm_status fm_cli_words_split(fm_cli_words *w, const char *command, fm_error *err)
{
    for (const char *at = command + strspn(command, " \t\n"); *at; at += strspn(at, " \t\n")) {
        fm_str_reset(&w->text);
        at = take_word(&w->text, at);
        if (!at) return fm_fail(err, FM_ERR_ARGUMENT, "a quote is not closed in: %s", command);
        FM_TRY(fm_str_ok(&w->text, "the words", err));
        FM_TRY(push(w, w->text.p ? w->text.p : "", w->text.n, err));
    }
    return w->n > 0 ? FM_OK : fm_fail(err, FM_ERR_ARGUMENT, "an empty command: name a program");
}

bool fm_cli_words_have(const fm_cli_words *w, const char *const *options)
{
    for (size_t i = 1; i < w->n; i++)
        for (const char *const *o = options; *o; o++)
            if (strcmp(w->v[i], *o) == 0) return true;
    return false;
}

void fm_cli_words_free(fm_cli_words *w)
{
    for (size_t i = 0; i < w->n; i++) fm_free(NULL, w->v[i]);
    fm_free(NULL, w->v);
    fm_str_free(&w->text);
    *w = (fm_cli_words){0};
}

/* ---- The child ---- */

enum { OUT, ERR, N_PIPES };

typedef struct child {
    const char *name;
    pid_t pid;
    int from[N_PIPES], to[N_PIPES]; /* the pipes' ends: ours to read, the child's to write; -1 closed */
    fm_str *text[N_PIPES];
    double deadline;
} child;

static void shut(int *fd)
{
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

static fm_status open_pipes(child *c, fm_error *err)
{
    for (int i = 0; i < N_PIPES; i++) {
        int ends[2];
        if (pipe2(ends, O_CLOEXEC) != 0) return fm_fail_errno(err, "cannot open a pipe to %s", c->name);
        c->from[i] = ends[0];
        c->to[i] = ends[1];
    }
    return FM_OK;
}

/* A process group of its own, so that a script is stopped with all it started; signals as at the start of a program. */
static fm_status spawn(child *c, char *const *argv, fm_error *err)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t how;
    sigset_t none;
    if (posix_spawn_file_actions_init(&files) != 0) return fm_fail(err, FM_ERR_MEMORY, "out of memory");
    if (posix_spawnattr_init(&how) != 0) {
        posix_spawn_file_actions_destroy(&files);
        return fm_fail(err, FM_ERR_MEMORY, "out of memory");
    }
    sigemptyset(&none);
    posix_spawnattr_setsigmask(&how, &none);
    posix_spawnattr_setpgroup(&how, 0);
    posix_spawnattr_setflags(&how, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK);
    int failed = posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    if (!failed) failed = posix_spawn_file_actions_adddup2(&files, c->to[OUT], STDOUT_FILENO);
    if (!failed) failed = posix_spawn_file_actions_adddup2(&files, c->to[ERR], STDERR_FILENO);
    if (!failed) failed = posix_spawnp(&c->pid, argv[0], &files, &how, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&how);
    if (!failed) return FM_OK;
    errno = failed;
    return fm_fail_errno(err, "cannot run \"%s\"", c->name);
}

/* Reads what there is; closes the pipe at its end. */
static fm_status drain(child *c, int i, fm_error *err)
{
    char bytes[16384];
    const ssize_t n = read(c->from[i], bytes, sizeof bytes);
    if (n < 0 && errno == EINTR) return FM_OK;
    if (n <= 0) {
        shut(&c->from[i]);
        return FM_OK;
    }
    fm_str_put(c->text[i], bytes, (size_t)n);
    if (c->text[i]->n > OUTPUT_BYTES_MAX)
        return fm_fail(err, FM_ERR_LIMIT, "%s printed more than %zu MiB", c->name, OUTPUT_BYTES_MAX >> 20);
    return fm_str_ok(c->text[i], "its output", err);
}

/* The deadline counts for all that holds the pipes open, a grandchild too. */
static fm_status collect(child *c, double timeout_s, fm_error *err)
{
    while (c->from[OUT] >= 0 || c->from[ERR] >= 0) {
        struct pollfd p[N_PIPES] = {{.fd = c->from[OUT], .events = POLLIN}, {.fd = c->from[ERR], .events = POLLIN}};
        const double left = c->deadline - fm_clock_s();
        if (fm_cli_interrupted(NULL)) return fm_fail(err, FM_ERR_CANCELLED, "cancelled while %s ran", c->name);
        if (left <= 0) return fm_fail(err, FM_ERR_IO, "%s did not end within %g s: see --peer-timeout", c->name, timeout_s);
        if (poll(p, N_PIPES, (int)(1e3 * (left < 1 ? left : 1)) + 1) <= 0) continue;
        for (int i = 0; i < N_PIPES; i++)
            if (p[i].revents) FM_TRY(drain(c, i, err));
    }
    return FM_OK;
}

static fm_status judge(const child *c, int how, fm_error *err)
{
    if (WIFSIGNALED(how)) return fm_fail(err, FM_ERR_IO, "%s was killed by signal %d", c->name, WTERMSIG(how));
    if (WEXITSTATUS(how) != 0) return fm_fail(err, FM_ERR_IO, "%s ended with code %d", c->name, WEXITSTATUS(how));
    return FM_OK;
}

/* After its pipes closed a program has nothing left to say, and is given the rest of its time to end. */
static fm_status wait_for(const child *c, fm_status status, fm_error *err)
{
    int how = 0;
    pid_t ended = 0;
    while (status == FM_OK && (ended = waitpid(c->pid, &how, WNOHANG)) == 0) {
        if (fm_cli_interrupted(NULL) || fm_clock_s() > c->deadline)
            status = fm_fail(err, FM_ERR_IO, "%s closed its output and did not end", c->name);
        poll(NULL, 0, 2);
    }
    if (ended > 0) return judge(c, how, err);
    kill(-c->pid, SIGKILL);
    while (waitpid(c->pid, &how, 0) < 0 && errno == EINTR) continue;
    return status;
}

/* Adds the end of what it said, on one line. */
static fm_status add_stderr(const fm_str *text, fm_status status, fm_error *err)
{
    char said[STDERR_SHOWN + 1];
    size_t n = text->n;
    while (n > 0 && strchr(" \t\r\n", text->p[n - 1])) n--;
    if (status == FM_OK || n == 0 || !err) return status;
    const size_t shown = n < STDERR_SHOWN ? n : STDERR_SHOWN;
    for (size_t i = 0; i < shown; i++) {
        const char ch = text->p[n - shown + i];
        said[i] = (char)((unsigned char)ch < ' ' ? ' ' : ch);
    }
    said[shown] = '\0';
    const fm_error e = *err;
    return fm_fail(err, status, "%.200s; it said: %s", e.text, said);
}

fm_status fm_cli_child_run(fm_str *out, const fm_cli_words *w, double timeout_s, fm_error *err)
{
    fm_str said = {0};
    child c = {.name = w->v[0], .from = {-1, -1}, .to = {-1, -1}, .text = {out, &said}, .deadline = fm_clock_s() + timeout_s};
    fm_status status = open_pipes(&c, err);
    if (status == FM_OK) status = spawn(&c, w->v, err);
    for (int i = 0; i < N_PIPES; i++) shut(&c.to[i]);
    if (c.pid > 0) {
        status = collect(&c, timeout_s, err);
        status = wait_for(&c, status, err);
    }
    for (int i = 0; i < N_PIPES; i++) shut(&c.from[i]);
    status = add_stderr(&said, status, err);
    fm_str_free(&said);
    return status;
}
