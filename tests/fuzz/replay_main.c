/* replay_main.c - runs a fuzz target without libFuzzer: every file of a corpus folder, then fixed mutations of each.
 *
 * The mutations come from a fixed seed, so a failure repeats: the last input tried is described on standard error before the
 * target sees it.  Usage: fuzz_x CORPUS_FOLDER [mutations] */
#include <dirent.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum {
    N_MUTATIONS = 3000,    /* in all, shared between the inputs */
    N_INPUTS_MAX = 4096,
    INPUT_BYTES_MAX = 1 << 20
};

typedef struct input {
    char *name;
    uint8_t *data;
    size_t n;
} input;

static uint64_t next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static bool read_file(input *in, const char *folder, const char *name)
{
    char path[4096];
    int n = snprintf(path, sizeof(path), "%s/%s", folder, name);
    if (n < 0 || (size_t)n >= sizeof(path)) return false;
    FILE *f = fopen(path, "rb");
    if (!f) return false;
    uint8_t *data = malloc(INPUT_BYTES_MAX);
    if (!data) {
        fclose(f);
        return false;
    }
    in->n = fread(data, 1, INPUT_BYTES_MAX, f);
    fclose(f);
    in->data = data;
    in->name = strdup(name);
    return in->name != NULL;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const input *)a)->name, ((const input *)b)->name);
}

/* Every file of the folder, in the order of the names, so that a run repeats on any file system. */
static size_t read_folder(input *inputs, const char *folder)
{
    size_t n = 0;
    DIR *dir = opendir(folder);
    if (!dir) return 0;
    for (struct dirent *e; (e = readdir(dir)) && n < N_INPUTS_MAX;)
        if (e->d_name[0] != '.' && read_file(&inputs[n], folder, e->d_name)) n++;
    closedir(dir);
    qsort(inputs, n, sizeof(*inputs), by_name);
    return n;
}

/* The target gets memory of exactly n bytes, so that a sanitizer sees the first byte read beyond them. */
static void feed(const uint8_t *data, size_t n)
{
    uint8_t *exact = malloc(n ? n : 1);
    if (!exact) return;
    if (n) memcpy(exact, data, n);
    LLVMFuzzerTestOneInput(exact, n);
    free(exact);
}

/* Changes, inserts or removes a few bytes; returns the new length.  buf holds at least n + 64 bytes. */
static size_t mutate(uint8_t *buf, size_t n, uint64_t *rng)
{
    static const uint8_t telling[] = {0, 1, 0x7f, 0x80, 0xff, '"', '{', '}', '[', ']', '<', '%', '\\', '\n', ' ', '9'};
    size_t n_edits = 1 + next(rng) % 4;
    for (size_t i = 0; i < n_edits; i++) {
        uint64_t r = next(rng);
        size_t at = n ? (size_t)(r >> 16) % n : 0;
        switch (n ? r % 6 : 4) {
        case 0: buf[at] ^= (uint8_t)(1u << (r >> 8 & 7)); break;
        case 1: buf[at] = (uint8_t)(r >> 8); break;
        case 2: buf[at] = telling[(r >> 8) % sizeof(telling)]; break;
        case 3: n = at; break; /* cut off */
        case 4:
            memmove(buf + at + 1, buf + at, n - at);
            buf[at] = telling[(r >> 8) % sizeof(telling)];
            n++;
            break;
        default: {
            size_t run = 1 + (r >> 8) % 8;
            if (run > n - at) run = n - at;
            memmove(buf + at, buf + at + run, n - at - run);
            n -= run;
        }
        }
    }
    return n;
}

static size_t replay(const input *inputs, size_t n_inputs, size_t n_mutations)
{
    uint8_t *buf = malloc(INPUT_BYTES_MAX + 64);
    if (!buf) return 0;
    uint64_t rng = UINT64_C(0x9e3779b97f4a7c15);
    size_t done = 0;
    for (size_t i = 0; i < n_inputs; i++) {
        fprintf(stderr, "%s\n", inputs[i].name);
        feed(inputs[i].data, inputs[i].n);
        for (size_t k = 0; k < (n_mutations + n_inputs - 1) / n_inputs; k++, done++) {
            memcpy(buf, inputs[i].data, inputs[i].n);
            feed(buf, mutate(buf, inputs[i].n, &rng));
        }
    }
    free(buf);
    return done;
}

int main(int argc, char **argv)
{
    static input inputs[N_INPUTS_MAX + 1];
    if (argc < 2) {
        fprintf(stderr, "usage: %s CORPUS_FOLDER [mutations]\n", argv[0]);
        return 2;
    }
    size_t n = read_folder(inputs, argv[1]);
    if (n == 0) {
        fprintf(stderr, "%s: no corpus there; a target needs at least one input to start from\n", argv[1]);
        return 1;
    }
    size_t done = replay(inputs, n, argc > 2 ? (size_t)strtoul(argv[2], NULL, 10) : N_MUTATIONS);
    for (size_t i = 0; i < n; i++) {
        free(inputs[i].name);
        free(inputs[i].data);
    }
    printf("%zu inputs and %zu mutations of them\n", n, done);
    return 0;
}
