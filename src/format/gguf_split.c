/* gguf_split.c - split GGUF models: "<name>-00001-of-0000N.gguf" and its other parts become one fm_gguf.
 * Keys come from the first part; split.count, split.no (from 0) and split.tensors.count must agree. */
#include <stdio.h>

#include "format/internal.h"

#define SUFFIX_BYTES 20u    /* "00001-of-00003.gguf" and the '-' before it */
#define PARTS_MAX    65535u /* split.count is a u16 */

/* The path of part `no` (from 1) written over the copy `path` of the first part's. */
static void set_part(char *path, size_t no)
{
    char digits[8];
    snprintf(digits, sizeof(digits), "%05u", (unsigned)(no % 100000u));
    memcpy(path + strlen(path) - SUFFIX_BYTES + 1, digits, 5);
}

static bool is_first_part(const char *path, uint64_t count)
{
    char suffix[40];
    snprintf(suffix, sizeof(suffix), "-00001-of-%05u.gguf", (unsigned)count);
    return fm_view_ends(fm_view_of(path), suffix);
}

/* Which part of how many; 0 of 1 for a file that is not split. */
static fm_status read_split(const fm_gguf *g, uint64_t *no, uint64_t *count, fm_error *err)
{
    *no = 0;
    *count = 1;
    FM_TRY(fm_gguf_get_u64(g, "split.count", count, NULL, err));
    FM_TRY(fm_gguf_get_u64(g, "split.no", no, NULL, err));
    if (*count == 0) *count = 1;
    if (*count > PARTS_MAX || *no >= *count)
        return fm_fail(err, FM_ERR_FORMAT, "%s: says it is part %llu (from 0) of %llu of a split model: the file is damaged",
                       g->paths[0], (unsigned long long)*no, (unsigned long long)*count);
    return FM_OK;
}

static fm_status check_first(const fm_gguf *g, uint64_t no, uint64_t count, fm_error *err)
{
    if (no != 0)
        return fm_fail(err, FM_ERR_FORMAT,
                       "%s: is part %llu of %llu of a split model: give the first part, whose name ends in "
                       "-00001-of-%05u.gguf",
                       g->paths[0], (unsigned long long)no + 1, (unsigned long long)count, (unsigned)count);
    if (!is_first_part(g->paths[0], count))
        return fm_fail(err, FM_ERR_FORMAT,
                       "%s: is the first of %llu parts of a split model, but its name does not end in "
                       "-00001-of-%05u.gguf, so the others cannot be found: give the parts their names back",
                       g->paths[0], (unsigned long long)count, (unsigned)count);
    return FM_OK;
}

/* All parts must be there before any is read: one sentence that names the first missing one and counts. */
static fm_status check_parts_exist(const fm_gguf *g, char *path, size_t count, fm_error *err)
{
    size_t n_found = 0, missing = 0;
    for (size_t no = 1; no <= count; no++) {
        set_part(path, no);
        if (fm_path_exists(path))
            n_found++;
        else if (missing == 0)
            missing = no;
    }
    if (missing == 0) return FM_OK;
    set_part(path, missing);
    return fm_fail(err, FM_ERR_FORMAT,
                   "%s: part %zu of the split model %s is missing (%zu of %zu parts are there): download it", path, missing,
                   g->paths[0], n_found, count);
}

static fm_status append_tensors(fm_gguf *g, const fm_gguf *part, uint32_t no, fm_error *err)
{
    size_t n = 0;
    void *p = NULL;
    if (!fm_add(g->n_tensors, part->n_tensors, &n)) n = SIZE_MAX;
    FM_TRY(fm_alloc(&p, g->a, n, sizeof(*g->tensors), "a split model's tensor list", err));
    fm_gguf_tensor *all = p;
    for (size_t i = 0; i < n; i++) {
        const bool old = i < g->n_tensors;
        all[i] = old ? g->tensors[i] : part->tensors[i - g->n_tensors];
        if (!old) all[i].part = no;
    }
    fm_free(g->a, g->tensors);
    g->tensors = all;
    g->n_tensors = n;
    return FM_OK;
}

/* Takes part `no` (from 0) into g, whose arrays have room for it. */
static fm_status add_part(fm_gguf *g, const char *path, size_t no, fm_map_mode mode, fm_error *err)
{
    fm_gguf part;
    uint64_t part_no = 0, count = 0, expected = 0;
    FM_TRY(read_split(g, &part_no, &expected, err));
    FM_TRY(fm_gguf_open_one(&part, path, mode, g->a, err));
    fm_status status = read_split(&part, &part_no, &count, err);
    if (status == FM_OK && (part_no != no || count != expected))
        status = fm_fail(err, FM_ERR_FORMAT,
                         "%s: says it is part %llu of %llu, expected part %zu of %llu of the split model %s: "
                         "the parts are from different models or were renamed",
                         path, (unsigned long long)part_no + 1, (unsigned long long)count, no + 1, (unsigned long long)expected,
                         g->paths[0]);
    if (status == FM_OK) status = append_tensors(g, &part, (uint32_t)no, err);
    if (status == FM_OK) {
        g->maps[no] = part.maps[0];
        g->paths[no] = part.paths[0];
        g->n_maps = no + 1;
        part.n_maps = 0;
        part.paths[0] = NULL;
    }
    fm_gguf_close(&part);
    return status;
}

/* maps and paths become arrays of `count`. */
static fm_status make_room(fm_gguf *g, size_t count, fm_error *err)
{
    void *maps = NULL, *paths = NULL;
    FM_TRY(fm_alloc(&maps, g->a, count, sizeof(*g->maps), "a split model's mappings", err));
    const fm_status status = fm_alloc(&paths, g->a, count, sizeof(*g->paths), "a split model's paths", err);
    if (status != FM_OK) {
        fm_free(g->a, maps);
        return status;
    }
    memcpy(maps, g->maps, sizeof(*g->maps));
    memcpy(paths, g->paths, sizeof(*g->paths));
    fm_free(g->a, g->maps);
    fm_free(g->a, g->paths);
    g->maps = maps;
    g->paths = paths;
    return FM_OK;
}

static fm_status add_parts(fm_gguf *g, char *path, size_t count, fm_map_mode mode, fm_error *err)
{
    FM_TRY(check_parts_exist(g, path, count, err));
    FM_TRY(make_room(g, count, err));
    for (size_t no = 1; no < count; no++) {
        set_part(path, no + 1);
        FM_TRY(add_part(g, path, no, mode, err));
    }
    uint64_t n = g->n_tensors;
    FM_TRY(fm_gguf_get_u64(g, "split.tensors.count", &n, NULL, err));
    if (n != g->n_tensors)
        return fm_fail(err, FM_ERR_FORMAT,
                       "%s: the %zu parts of this split model hold %zu tensors, split.tensors.count says %llu: "
                       "the parts are from different models or damaged",
                       g->paths[0], count, g->n_tensors, (unsigned long long)n);
    return fm_gguf_order_tensors(g, err);
}

fm_status fm_gguf_join(fm_gguf *g, fm_map_mode mode, fm_error *err)
{
    uint64_t no = 0, count = 1;
    FM_TRY(read_split(g, &no, &count, err));
    if (count == 1) return FM_OK;
    FM_TRY(check_first(g, no, count, err));
    char *path = fm_strdup(g->a, g->paths[0], strlen(g->paths[0]), err);
    if (path == NULL) return FM_ERR_MEMORY;
    const fm_status status = add_parts(g, path, (size_t)count, mode, err);
    fm_free(g->a, path);
    return status;
}
