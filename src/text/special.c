/* special.c - the trie of added tokens. */
#include "text/special.h"

static fm_status node_new(fm_trie *t, unsigned char byte, uint32_t *out, const fm_allocator *a, fm_error *err)
{
    const size_t i = t->n == 0 ? 1 : t->n;
    if (i >= UINT32_MAX) return fm_fail(err, FM_ERR_LIMIT, "the added tokens are too many for one tokenizer");
    FM_TRY(fm_grow((void **)&t->nodes, &t->cap, i + 1, sizeof *t->nodes, a, "the added tokens", err));
    t->nodes[i] = (fm_trie_node){.id = -1, .byte = byte};
    t->n = i + 1;
    *out = (uint32_t)i;
    return FM_OK;
}

static uint32_t child_of(const fm_trie *t, uint32_t node, unsigned char byte)
{
    uint32_t i = t->nodes[node].child;
    while (i != 0 && t->nodes[i].byte != byte) i = t->nodes[i].sibling;
    return i;
}

fm_status fm_trie_add(fm_trie *t, fm_view text, int32_t id, const fm_allocator *a, fm_error *err)
{
    if (text.n == 0) return FM_OK;
    const unsigned char first = (unsigned char)text.p[0];
    if (t->root[first] == 0) FM_TRY(node_new(t, first, &t->root[first], a, err));
    uint32_t at = t->root[first];
    for (size_t i = 1; i < text.n; i++) {
        const unsigned char byte = (unsigned char)text.p[i];
        uint32_t next = child_of(t, at, byte);
        if (next == 0) {
            FM_TRY(node_new(t, byte, &next, a, err));
            t->nodes[next].sibling = t->nodes[at].child;
            t->nodes[at].child = next;
        }
        at = next;
    }
    if (t->nodes[at].id < 0) t->nodes[at].id = id;
    return FM_OK;
}

void fm_trie_free(fm_trie *t, const fm_allocator *a)
{
    fm_free(a, t->nodes);
}

size_t fm_trie_match(const fm_trie *t, fm_view text, int32_t *id)
{
    size_t longest = 0;
    uint32_t at = text.n == 0 ? 0 : t->root[(unsigned char)text.p[0]];
    for (size_t i = 1; at != 0; i++) {
        if (t->nodes[at].id >= 0) {
            longest = i;
            *id = t->nodes[at].id;
        }
        at = i < text.n ? child_of(t, at, (unsigned char)text.p[i]) : 0;
    }
    return longest;
}
