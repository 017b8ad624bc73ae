/* sums.c - see sums.h. */
#include "train/sums.h"

#include "base/crc64.h"
#include "base/file.h"
#include "base/json.h"

#define FILE_BYTES_MAX ((size_t)1 << 20)

static const char *const sums_name = "checksums.json";

static fm_status sum_of(uint64_t *sum, const char *dir, const char *name, const fm_allocator *a, fm_error *err)
{
    fm_map map;
    char *path = fm_path_join(dir, name, a, err);
    if (!path) return FM_ERR_MEMORY;
    const fm_status status = fm_map_open(&map, path, FM_MAP_SHARED, err);
    fm_free(a, path);
    if (status != FM_OK) return status;
    *sum = fm_crc64(0, map.p, map.n);
    fm_map_close(&map);
    return FM_OK;
}

static fm_status put_sums(fm_str *out, const char *dir, const char *const *names, size_t n, fm_error *err)
{
    fm_jsonw w = {.out = out, .pretty = true};
    fm_jsonw_object(&w);
    for (size_t i = 0; i < n; i++) {
        uint64_t sum;
        FM_TRY(sum_of(&sum, dir, names[i], out->a, err));
        fm_jsonw_key(&w, names[i]), fm_jsonw_u64(&w, sum);
    }
    fm_jsonw_end(&w, '}');
    fm_str_putc(out, '\n');
    return fm_str_ok(out, "check sums", err);
}

fm_status fm_sums_write(const char *dir, const char *const *names, size_t n, const fm_allocator *a, fm_error *err)
{
    fm_str text = {.a = a};
    fm_status status = put_sums(&text, dir, names, n, err);
    if (status == FM_OK) status = fm_file_write(dir, sums_name, (fm_view){text.p, text.n}, a, err);
    fm_str_free(&text);
    return status;
}

static fm_status check_file(const char *dir, const char *name, uint64_t want, const fm_allocator *a, fm_error *err)
{
    uint64_t found;
    FM_TRY(sum_of(&found, dir, name, a, err));
    if (found == want) return FM_OK;
    return fm_fail(
        err, FM_ERR_FORMAT,
        "%s/%s is damaged: its check sum is %016llx, expected %016llx; remove this folder to go on from the checkpoint "
        "before it",
        dir, name, (unsigned long long)found, (unsigned long long)want);
}

static fm_status check_files(fm_json *j, const char *dir, const fm_allocator *a, fm_error *err)
{
    fm_view key;
    uint64_t want;
    if (!fm_json_enter_object(j)) return fm_json_finish(j, err);
    while (fm_json_key(j, &key)) {
        if (!fm_json_u64(j, &want)) continue;
        char *name = fm_strdup(a, key.p, key.n, err);
        const fm_status status = name ? check_file(dir, name, want, a, err) : FM_ERR_MEMORY;
        fm_free(a, name);
        if (status != FM_OK) return status;
    }
    return fm_json_finish(j, err);
}

static fm_status check_sums(const char *path, const char *dir, const fm_allocator *a, fm_error *err)
{
    fm_str text = {.a = a};
    fm_status status = fm_file_read(&text, path, FILE_BYTES_MAX, err);
    if (status == FM_OK) {
        fm_json j = fm_json_begin(text.p, text.n, path);
        status = check_files(&j, dir, a, err);
    }
    fm_str_free(&text);
    return status;
}

fm_status fm_sums_check(const char *dir, const fm_allocator *a, fm_error *err)
{
    char *path = fm_path_join(dir, sums_name, a, err);
    if (!path) return FM_ERR_MEMORY;
    const fm_status status = fm_path_exists(path) ? check_sums(path, dir, a, err) : FM_OK;
    fm_free(a, path);
    return status;
}
