/* run.c - see run.h. */
#define _GNU_SOURCE
#include "train/run.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/file.h"
#include "train/internal.h"

#define FILE_BYTES_MAX ((size_t)256 << 20)

static const char *const tokenizer_files[] = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                                              "chat_template.jinja", "generation_config.json"};

static const char *const keep_file = "keep";

/* A file system without locks does not hinder a training. */
fm_status fm_run_lock(fm_run_folder *f, fm_error *err)
{
    if (f->locked) return FM_OK;
    FM_TRY(fm_dir_make(f->out, err));
    f->lock = open(f->out, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (f->lock < 0) return fm_fail_errno(err, "cannot open %s", f->out);
    f->locked = true;
    if (flock(f->lock, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return FM_OK;
    fm_run_unlock(f);
    return fm_fail(err, FM_ERR_ARGUMENT, "another training writes to %s: wait for its end, or give run.out another folder",
                   f->out);
}

void fm_run_unlock(fm_run_folder *f)
{
    if (f->locked) close(f->lock);
    f->locked = false;
}

/* "step-00000120": the number. */
static bool step_of(const char *name, uint64_t *step)
{
    return strncmp(name, "step-", 5) == 0 && fm_parse_u64(fm_view_of(name + 5), step);
}

/* Steps of the checkpoints in the folder, ascending, at most `room` of the newest; returns how many. */
static size_t list_steps(const char *out, uint64_t *steps, size_t room)
{
    DIR *d = opendir(out);
    size_t n = 0;
    if (!d) return 0;
    for (const struct dirent *e; (e = readdir(d));) {
        uint64_t step;
        if (!step_of(e->d_name, &step)) continue;
        size_t at = n;
        while (at > 0 && steps[at - 1] > step) at--;
        if (n == room && at == 0) continue;
        if (n == room) {
            memmove(steps, steps + 1, (--at) * sizeof *steps);
        } else {
            memmove(steps + at + 1, steps + at, (n++ - at) * sizeof *steps);
        }
        steps[at] = step;
    }
    closedir(d);
    return n;
}

static char *step_path(const fm_run_folder *f, uint64_t step, const char *end, fm_error *err)
{
    char name[64];
    snprintf(name, sizeof name, "step-%08llu%s", (unsigned long long)step, end);
    return fm_path_join(f->out, name, f->a, err);
}

fm_status fm_run_newest(char **dir, const fm_run_folder *f, fm_error *err)
{
    uint64_t steps[1];
    *dir = NULL;
    if (list_steps(f->out, steps, 1) == 0) return FM_OK;
    *dir = step_path(f, steps[0], "", err);
    return *dir ? FM_OK : FM_ERR_MEMORY;
}

fm_status fm_run_newest_until(char **dir, const fm_run_folder *f, uint64_t step, fm_error *err)
{
    enum { ROOM = 64 };
    uint64_t steps[ROOM];
    size_t n = list_steps(f->out, steps, ROOM);
    *dir = NULL;
    while (n > 0 && steps[n - 1] > step) n--;
    if (n == 0) return FM_OK;
    *dir = step_path(f, steps[n - 1], "", err);
    return *dir ? FM_OK : FM_ERR_MEMORY;
}

bool fm_run_holds(const fm_run_folder *f, const char *dir)
{
    char *parent = fm_path_join(dir, "..", f->a, NULL);
    const bool holds = parent && fm_path_same(parent, f->out);
    fm_free(f->a, parent);
    return holds;
}

/* ---- Saving ---- */

static fm_status copy_file(const char *from, const char *to, const char *name, const fm_allocator *a, fm_error *err)
{
    fm_str text = {.a = a};
    char *path = fm_path_join(from, name, a, err);
    if (!path) return FM_ERR_MEMORY;
    fm_status status = FM_OK;
    if (fm_path_exists(path)) {
        status = fm_file_read(&text, path, FILE_BYTES_MAX, err);
        if (status == FM_OK) status = fm_file_write(to, name, (fm_view){text.p, text.n}, a, err);
    }
    fm_str_free(&text);
    fm_free(a, path);
    return status;
}

static fm_status fill(const fm_run_folder *f, const fm_trainer *t, const char *dir, fm_error *err)
{
    const fm_str *config = &t->g.m->source.config;
    FM_TRY(fm_dir_make(dir, err));
    FM_TRY(fm_file_write(dir, "config.json", (fm_view){config->p, config->n}, f->a, err));
    for (size_t i = 0; f->tokenizer && i < FM_COUNT(tokenizer_files); i++)
        FM_TRY(copy_file(f->tokenizer, dir, tokenizer_files[i], f->a, err));
    if (f->milestone)
        FM_TRY(fm_file_write(dir, keep_file, FM_VIEW("a milestone: stays until this file is removed\n"), f->a, err));
    return fm_trainer_save(t, dir, err);
}

static bool is_milestone(const char *dir, const fm_allocator *a)
{
    char *path = fm_path_join(dir, keep_file, a, NULL);
    const bool yes = !path || fm_path_exists(path); /* without memory to look, it stays */
    fm_free(a, path);
    return yes;
}

/* All but the newest f->keep + 1 that are neither milestones nor the anchor.  The one before the newest stays in any case: no
 * step has tried the newest's weights yet, and if their loss is no number, that one is what the run goes back to. */
static void remove_old(const fm_run_folder *f, uint64_t anchor)
{
    enum { ROOM = 4096 };
    uint64_t steps[ROOM];
    const size_t n = list_steps(f->out, steps, ROOM);
    size_t plain = 0;
    for (size_t i = n; i-- > 0;) {
        char *path = step_path(f, steps[i], "", NULL);
        const bool old = path && !is_milestone(path, f->a) && plain++ > f->keep;
        if (old && i + 2 < n && steps[i] != anchor) fm_dir_remove(path);
        fm_free(f->a, path);
    }
}

/* A checkpoint of the same step, of a run that went back to an earlier one, changes places with the new one, so that at no moment
 * a folder is half there; where the file system cannot do that, it is removed first. */
static fm_status put_in_place(const char *tmp, const char *dir, fm_error *err)
{
    bool done = rename(tmp, dir) == 0;
    if (!done && fm_path_exists(dir)) {
        done = renameat2(AT_FDCWD, tmp, AT_FDCWD, dir, RENAME_EXCHANGE) == 0;
        fm_dir_remove(done ? tmp : dir);
        done = done || rename(tmp, dir) == 0;
    }
    if (!done) return fm_fail_errno(err, "cannot put the finished checkpoint in place of %s", dir);
    fm_path_sync(dir);
    return FM_OK;
}

static fm_status save_at(const fm_run_folder *f, const fm_trainer *t, const char *tmp, const char *dir, fm_error *err)
{
    fm_dir_remove(tmp); /* of a run that was killed here */
    FM_TRY(fill(f, t, tmp, err));
    FM_TRY(put_in_place(tmp, dir, err));
    remove_old(f, t->anchor);
    return FM_OK;
}

fm_status fm_run_save(const fm_run_folder *f, const fm_trainer *t, fm_error *err)
{
    FM_TRY(fm_dir_make(f->out, err));
    char *tmp = step_path(f, t->step, ".tmp", err), *dir = step_path(f, t->step, "", err);
    const fm_status status = tmp && dir ? save_at(f, t, tmp, dir, err) : FM_ERR_MEMORY;
    if (status != FM_OK && tmp) fm_dir_remove(tmp);
    fm_free(f->a, tmp);
    fm_free(f->a, dir);
    return status;
}

fm_status fm_run_rewind(bool *gone, const fm_run_folder *f, fm_trainer *t, fm_error *err)
{
    char *dir = step_path(f, t->anchor, "", err);
    if (!dir) return FM_ERR_MEMORY;
    *gone = t->anchor > 0 && fm_path_exists(dir); /* a decay begins with the anchor of another run */
    const fm_status status = *gone ? fm_trainer_rewind(t, dir, err) : FM_OK;
    fm_free(f->a, dir);
    return status;
}
