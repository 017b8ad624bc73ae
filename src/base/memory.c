/* memory.c - see memory.h. */
#include "base/memory.h"

#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/file.h"

#define FILE_BYTES_MAX ((size_t)1 << 16)

/* The number behind `key` in a file of lines "key number ..."; with an empty key the first number of the file. */
static bool read_number(uint64_t *out, const char *path, const char *key)
{
    fm_str text = {0};
    bool found = false;
    if (fm_file_read(&text, path, FILE_BYTES_MAX, NULL) == FM_OK) {
        for (size_t at = 0, end; at < text.n && !found; at = end + 1) {
            for (end = at; end < text.n && text.p[end] != '\n';) end++;
            fm_view line = {text.p + at, end - at};
            if (!fm_view_starts(line, key)) continue;
            line.p += strlen(key), line.n -= strlen(key);
            while (line.n && line.p[0] == ' ') line.p++, line.n--;
            size_t n = 0;
            while (n < line.n && line.p[n] != ' ') n++;
            found = fm_parse_u64((fm_view){line.p, n}, out);
        }
    }
    fm_str_free(&text);
    return found;
}

static uint64_t difference(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

static uint64_t system_free(void)
{
    uint64_t kib;
    return read_number(&kib, "/proc/meminfo", "MemAvailable:") ? kib * 1024 : UINT64_MAX;
}

/* The address space that is left. */
static uint64_t limit_free(void)
{
    struct rlimit limit;
    uint64_t pages;
    if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return UINT64_MAX;
    if (!read_number(&pages, "/proc/self/statm", "")) return UINT64_MAX;
    return difference(limit.rlim_cur, pages * (uint64_t)sysconf(_SC_PAGESIZE));
}

/* Of a container's own group; pages of files that nobody needs would be given up. */
static uint64_t group_free(void)
{
    uint64_t most, used, idle = 0;
    if (!read_number(&most, "/sys/fs/cgroup/memory.max", "") || !read_number(&used, "/sys/fs/cgroup/memory.current", ""))
        return UINT64_MAX;
    read_number(&idle, "/sys/fs/cgroup/memory.stat", "inactive_file");
    return difference(most, difference(used, idle));
}

uint64_t fm_memory_free(void)
{
    const uint64_t limits[] = {system_free(), limit_free(), group_free()};
    uint64_t least = UINT64_MAX;
    for (size_t i = 0; i < FM_COUNT(limits); i++)
        if (limits[i] < least) least = limits[i];
    return least;
}
