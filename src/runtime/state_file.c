/* state_file.c - states on disk, docs/formats/state.md: a header of fixed size, one or two snapshots, a checksum over all.
 *
 * Numbers are little-endian, as on every machine this builds for; the header is copied field by field, so that its layout is
 * written down here and nowhere depends on a compiler. */
#include <string.h>

#include "base/crc64.h"
#include "base/file.h"
#include "runtime/state.h"

#define MAGIC          "FMSTATE"
#define VERSION        1u
#define HEADER_BYTES   320u
#define SNAPSHOT_BYTES 64u
/* More than any model has, and small enough that no size below overflows: 2^40 floats, 2^24 ids. */
#define FLOATS_MAX ((uint64_t)1 << 40)
#define VOCAB_MAX  ((uint64_t)1 << 24)

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "state files are little-endian");

/* ---- One walk over the header serves writing and reading ---- */

typedef struct header {
    char magic[8];
    uint32_t version, type, n_snapshots, reserved;
    uint64_t sizes[FM_STATE_SIZES], state_floats;
    char model_id[65], arch[33], weight_type[17], name[65];
} header;

typedef struct cursor {
    unsigned char *p;
    size_t at;
    bool write;
} cursor;

static void field(cursor *c, void *value, size_t n)
{
    if (c->write)
        memcpy(c->p + c->at, value, n);
    else
        memcpy(value, c->p + c->at, n);
    c->at += n;
}

/* `room` bytes of text without a terminator; what is unused is zero. */
static void text(cursor *c, char *value, size_t room)
{
    field(c, value, room);
    if (!c->write) value[room] = 0;
}

static void walk_header(cursor *c, header *h)
{
    field(c, h->magic, sizeof h->magic);
    field(c, &h->version, sizeof h->version);
    field(c, &h->type, sizeof h->type);
    field(c, &h->n_snapshots, sizeof h->n_snapshots);
    field(c, &h->reserved, sizeof h->reserved);
    field(c, h->sizes, sizeof h->sizes);
    field(c, &h->state_floats, sizeof h->state_floats);
    text(c, h->model_id, 64);
    text(c, h->arch, 32);
    text(c, h->weight_type, 16);
    text(c, h->name, 64);
    FM_ASSERT(c->at <= HEADER_BYTES);
}

static uint64_t number_bytes(uint32_t type)
{
    return type == FM_STATE_BF16 ? 2 : 4;
}

/* ---- Writing ---- */

typedef struct writer {
    fm_out out;
    uint64_t crc;
} writer;

static fm_status put(writer *w, const void *p, size_t n, fm_error *err)
{
    w->crc = fm_crc64(w->crc, p, n);
    return fm_out_write(&w->out, p, n, err);
}

static fm_status put_header(writer *w, const fm_state *st, uint32_t n_snapshots, fm_state_type type, fm_error *err)
{
    unsigned char bytes[HEADER_BYTES] = {0};
    header h = {.magic = MAGIC, .version = VERSION, .type = type, .n_snapshots = n_snapshots, .state_floats = st->state_floats};
    memcpy(h.sizes, st->sizes, sizeof h.sizes);
    memcpy(h.model_id, st->model_id, sizeof h.model_id);
    memcpy(h.arch, st->arch, sizeof h.arch);
    memcpy(h.weight_type, st->weight_type, sizeof h.weight_type);
    memcpy(h.name, st->name, sizeof h.name);
    walk_header(&(cursor){.p = bytes, .write = true}, &h);
    return put(w, bytes, sizeof bytes, err);
}

static fm_status put_bf16(writer *w, const float *p, size_t n, fm_error *err)
{
    uint16_t part[2048];
    for (size_t at = 0; at < n; at += FM_COUNT(part)) {
        const size_t m = n - at < FM_COUNT(part) ? n - at : FM_COUNT(part);
        for (size_t i = 0; i < m; i++) part[i] = fm_f32_to_bf16(p[at + i]);
        FM_TRY(put(w, part, m * sizeof part[0], err));
    }
    return FM_OK;
}

static fm_status put_snapshot(writer *w, const fm_state *st, fm_state_type type, fm_error *err)
{
    uint64_t head[SNAPSHOT_BYTES / 8] = {st->tokens, st->has_logits};
    FM_TRY(put(w, head, sizeof head, err));
    if (type == FM_STATE_BF16)
        FM_TRY(put_bf16(w, st->state, st->state_floats, err));
    else
        FM_TRY(put(w, st->state, st->state_floats * sizeof(float), err));
    return put(w, st->logits, st->sizes[FM_STATE_VOCAB] * sizeof(float), err);
}

static fm_status save(writer *w, const fm_state *st, const fm_state *mark, fm_state_type type, fm_error *err)
{
    FM_TRY(put_header(w, st, mark ? 2 : 1, type, err));
    FM_TRY(put_snapshot(w, st, type, err));
    if (mark) FM_TRY(put_snapshot(w, mark, type, err));
    const uint64_t crc = w->crc;
    FM_TRY(fm_out_write(&w->out, &crc, sizeof crc, err));
    return fm_out_commit(&w->out, err);
}

FM_API fm_status fm_state_save(const fm_state *st, const fm_state *mark, const char *path, fm_state_type type, fm_error *err)
{
    if (type != FM_STATE_F32 && type != FM_STATE_BF16)
        return fm_fail(err, FM_ERR_ARGUMENT, "state type %d, expected FM_STATE_F32 or FM_STATE_BF16", (int)type);
    if (mark && (strcmp(mark->model_id, st->model_id) || memcmp(mark->sizes, st->sizes, sizeof st->sizes) ||
                 mark->state_floats != st->state_floats))
        return fm_fail(err, FM_ERR_ARGUMENT, "the mark is a state of another model: both snapshots of a file are of one");
    writer w = {0};
    FM_TRY(fm_out_open(&w.out, path, st->a, err));
    const fm_status status = save(&w, st, mark, type, err);
    if (status != FM_OK) fm_out_abort(&w.out);
    return status;
}

/* ---- Reading ---- */

static fm_status check_header(const header *h, const char *path, size_t file_bytes, fm_error *err)
{
    if (memcmp(h->magic, MAGIC, sizeof h->magic))
        return fm_fail(err, FM_ERR_FORMAT, "%s: not a state file: it does not begin with %s", path, MAGIC);
    if (h->version != VERSION)
        return fm_fail(err, FM_ERR_UNSUPPORTED,
                       "%s: a state file of version %u, this program reads version %u: use the program that "
                       "wrote it",
                       path, h->version, VERSION);
    if (h->type > FM_STATE_BF16 || h->n_snapshots < 1 || h->n_snapshots > 2 || h->state_floats > FLOATS_MAX ||
        h->sizes[FM_STATE_VOCAB] > VOCAB_MAX)
        return fm_fail(err, FM_ERR_FORMAT, "%s: impossible numbers in the header: the file is damaged", path);
    const uint64_t snapshot =
        SNAPSHOT_BYTES + h->state_floats * number_bytes(h->type) + h->sizes[FM_STATE_VOCAB] * sizeof(float);
    const uint64_t want = HEADER_BYTES + h->n_snapshots * snapshot + sizeof(uint64_t);
    if (file_bytes != want)
        return fm_fail(err, FM_ERR_FORMAT, "%s: %zu bytes, expected %llu by its header: the file is cut off or damaged", path,
                       file_bytes, (unsigned long long)want);
    return FM_OK;
}

static fm_status check_sum(const fm_map *m, const char *path, fm_error *err)
{
    uint64_t stored;
    const size_t n = m->n - sizeof stored;
    memcpy(&stored, m->p + n, sizeof stored);
    if (fm_crc64(0, m->p, n) == stored) return FM_OK;
    return fm_fail(err, FM_ERR_FORMAT, "%s: the checksum does not fit: the file was altered or damaged", path);
}

static fm_status read_snapshot(fm_state **out, const header *h, const unsigned char **p, const fm_allocator *a, fm_error *err)
{
    uint64_t head[SNAPSHOT_BYTES / 8];
    fm_state *st;
    FM_TRY(fm_state_new(&st, h->state_floats, h->sizes[FM_STATE_VOCAB], a, err));
    memcpy(st->sizes, h->sizes, sizeof st->sizes);
    memcpy(st->model_id, h->model_id, sizeof st->model_id);
    memcpy(st->arch, h->arch, sizeof st->arch);
    memcpy(st->weight_type, h->weight_type, sizeof st->weight_type);
    memcpy(st->name, h->name, sizeof st->name);
    memcpy(head, *p, sizeof head);
    *p += sizeof head;
    st->tokens = head[0];
    st->has_logits = head[1] != 0;
    st->type = (fm_state_type)h->type;
    const size_t bytes = h->state_floats * number_bytes(h->type);
    if (h->type == FM_STATE_F32) {
        memcpy(st->state, *p, bytes);
    } else {
        for (size_t i = 0; i < h->state_floats; i++) {
            uint16_t v;
            memcpy(&v, *p + 2 * i, sizeof v);
            st->state[i] = fm_bf16_to_f32(v);
        }
    }
    *p += bytes;
    memcpy(st->logits, *p, h->sizes[FM_STATE_VOCAB] * sizeof(float));
    *p += h->sizes[FM_STATE_VOCAB] * sizeof(float);
    *out = st;
    return FM_OK;
}

static fm_status read_map(fm_state **out, fm_state **mark, const fm_map *m, const char *path, const fm_allocator *a,
                          fm_error *err)
{
    unsigned char bytes[HEADER_BYTES];
    header h = {0};
    if (m->n < HEADER_BYTES + SNAPSHOT_BYTES)
        return fm_fail(err, FM_ERR_FORMAT, "%s: %zu bytes, too short for a state file: cut off, or something else", path, m->n);
    memcpy(bytes, m->p, sizeof bytes);
    walk_header(&(cursor){.p = bytes}, &h);
    FM_TRY(check_header(&h, path, m->n, err));
    FM_TRY(check_sum(m, path, err));
    const unsigned char *p = m->p + HEADER_BYTES;
    FM_TRY(read_snapshot(out, &h, &p, a, err));
    return mark && h.n_snapshots > 1 ? read_snapshot(mark, &h, &p, a, err) : FM_OK;
}

FM_API fm_status fm_state_load(fm_state **out, fm_state **mark, const char *path, const fm_allocator *a, fm_error *err)
{
    fm_map m;
    *out = NULL;
    if (mark) *mark = NULL;
    FM_TRY(fm_map_open(&m, path, FM_MAP_SHARED, err));
    const fm_status status = read_map(out, mark, &m, path, a, err);
    fm_map_close(&m);
    if (status != FM_OK) {
        fm_state_free(*out);
        *out = NULL;
    }
    return status;
}
