/* test_state.c - snapshots and their files: round trips to the bit, refusals, allocation failures. */
#include "unit/tiny_model.h"

typedef struct bed {
    test_folder folder;
    char path[256], file[256];
    fm_model *m;
    fm_session *s;
    fm_seq seq;
} bed;

static const int32_t text[] = {1, 5, 9, 2, 40, 63, 0, 7};

static void open_bed(bed *b, fm_dtype type)
{
    fm_error err = {0};
    b->folder = test_folder_make();
    test_path(b->path, &b->folder, "tiny.gguf");
    test_path(b->file, &b->folder, "x.state");
    tiny_model_write(b->path, type);
    if (fm_model_open(&b->m, b->path, NULL, &err) != FM_OK) fail_msg("%s", err.text);
    assert_ok(fm_session_open(&b->s, b->m, &(fm_session_options){.threads = 1, .n_seq = 2}, NULL));
    assert_ok(fm_seq_new(b->s, &b->seq, NULL));
    assert_ok(fm_seq_append(b->s, b->seq, text, FM_COUNT(text), NULL));
}

static int make_bed(void **state)
{
    static bed b;
    open_bed(&b, FM_Q4_K);
    *state = &b;
    return 0;
}

static void close_bed(bed *b)
{
    fm_session_free(b->s);
    fm_model_free(b->m);
    test_folder_remove(&b->folder);
}

static int drop_bed(void **state)
{
    close_bed(*state);
    return 0;
}

static fm_state *take(bed *b)
{
    fm_state *st;
    assert_ok(fm_state_take(&st, b->s, b->seq, NULL));
    return st;
}

static const float *logits_after(bed *b, const fm_state *st, float *out)
{
    fm_seq seq;
    const int32_t next = 3;
    assert_ok(fm_seq_new(b->s, &seq, NULL));
    assert_ok(fm_state_put(b->s, seq, st, false, NULL));
    assert_ok(fm_seq_append(b->s, seq, &next, 1, NULL));
    memcpy(out, fm_seq_logits(b->s, seq), TINY_VOCAB * sizeof *out);
    fm_seq_free(b->s, seq);
    return out;
}

static void files_keep_the_bits(void **state)
{
    bed *b = *state;
    fm_state *st = take(b), *mark = take(b), *back, *back_mark;
    float a[TINY_VOCAB], c[TINY_VOCAB];
    assert_ok(fm_state_save(st, mark, b->file, FM_STATE_F32, NULL));
    assert_ok(fm_state_load(&back, &back_mark, b->file, NULL, NULL));
    const fm_state_info i = fm_state_get_info(back);
    assert_int_equal(i.tokens, FM_COUNT(text));
    assert_int_equal(i.state_bytes, (TINY_CONV - 1 + TINY_STATE) * TINY_INNER * sizeof(float));
    assert_true(i.has_logits && i.type == FM_STATE_F32 && i.vocab == TINY_VOCAB && strlen(i.model_id) == 64);
    assert_string_equal(i.arch, "falcon_mamba");
    assert_string_equal(i.weight_type, "Q4_K");
    assert_non_null(back_mark);
    assert_memory_equal(logits_after(b, st, a), logits_after(b, back, c), sizeof a);
    fm_state_free(back_mark);
    fm_state_free(back);
    assert_ok(fm_state_save(st, NULL, b->file, FM_STATE_F32, NULL));
    assert_ok(fm_state_load(&back, &back_mark, b->file, NULL, NULL));
    assert_null(back_mark);
    fm_state_free(back);
    fm_state_free(st);
    fm_state_free(mark);
}

/* Half the size, near but not the same; saved again as bf16 it no longer changes. */
static void bf16_is_near(void **state)
{
    bed *b = *state;
    fm_state *st = take(b), *back, *again;
    float a[TINY_VOCAB], c[TINY_VOCAB], d[TINY_VOCAB];
    assert_ok(fm_state_save(st, NULL, b->file, FM_STATE_BF16, NULL));
    assert_ok(fm_state_load(&back, NULL, b->file, NULL, NULL));
    assert_int_equal(fm_state_get_info(back).type, FM_STATE_BF16);
    logits_after(b, st, a);
    logits_after(b, back, c);
    assert_memory_not_equal(a, c, sizeof a);
    for (size_t i = 0; i < TINY_VOCAB; i++) assert_true(a[i] - c[i] < 0.1f && c[i] - a[i] < 0.1f);
    assert_ok(fm_state_save(back, NULL, b->file, FM_STATE_BF16, NULL));
    assert_ok(fm_state_load(&again, NULL, b->file, NULL, NULL));
    assert_memory_equal(c, logits_after(b, again, d), sizeof c);
    fm_state_free(st);
    fm_state_free(back);
    fm_state_free(again);
}

/* The size and the bits do not depend on how many tokens were read. */
static void a_long_past_costs_nothing(void **state)
{
    bed *b = *state;
    fm_error err = {0};
    fm_seq seq;
    fm_state *st, *back;
    int32_t many[1000];
    for (size_t i = 0; i < FM_COUNT(many); i++) many[i] = (int32_t)(i * 31 % TINY_VOCAB);
    assert_ok(fm_seq_new(b->s, &seq, NULL));
    for (int i = 0; i < 20; i++) assert_ok(fm_seq_append(b->s, seq, many, FM_COUNT(many), NULL));
    assert_ok(fm_state_take(&st, b->s, seq, &err));
    assert_ok(fm_state_save(st, NULL, b->file, FM_STATE_F32, &err));
    assert_ok(fm_state_load(&back, NULL, b->file, NULL, &err));
    assert_int_equal(fm_state_get_info(back).tokens, 20000);
    const int32_t next = 3;
    float c[TINY_VOCAB];
    fm_seq_free(b->s, seq);
    logits_after(b, back, c);
    assert_ok(fm_seq_new(b->s, &seq, NULL));
    for (int i = 0; i < 20; i++) assert_ok(fm_seq_append(b->s, seq, many, FM_COUNT(many), NULL));
    assert_ok(fm_seq_append(b->s, seq, &next, 1, NULL));
    assert_memory_equal(c, fm_seq_logits(b->s, seq), sizeof c);
    fm_seq_free(b->s, seq);
    fm_state_free(st);
    fm_state_free(back);
}

static void other_models_refuse(void **state)
{
    bed *b = *state, other = {0};
    fm_error err = {0};
    open_bed(&other, FM_Q8_0);
    fm_state *st = take(b);
    assert_fails(fm_state_put(other.s, other.seq, st, false, &err), FM_ERR_MISMATCH, err, "Q8_0");
    assert_ok(fm_state_put(other.s, other.seq, st, true, &err));
    assert_int_equal(fm_seq_tokens(other.s, other.seq), FM_COUNT(text));
    fm_state *theirs = take(&other), *none;
    assert_fails(fm_state_save(st, theirs, b->file, FM_STATE_F32, &err), FM_ERR_ARGUMENT, err, "another model");
    assert_fails(fm_state_put(b->s, 0, st, false, &err), FM_ERR_ARGUMENT, err, "no such sequence");
    assert_fails(fm_state_take(&none, b->s, 0, &err), FM_ERR_ARGUMENT, err, "no such sequence");
    assert_null(none);
    fm_state_free(theirs);
    assert_fails(fm_state_save(st, NULL, b->file, (fm_state_type)7, &err), FM_ERR_ARGUMENT, err, "type 7");
    assert_fails(fm_state_save(st, NULL, "no/such/folder/x", FM_STATE_F32, &err), FM_ERR_IO, err, "no/such/folder");
    fm_state_free(st);
    close_bed(&other);
}

static size_t read_file(const char *path, unsigned char *out, size_t room)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    const size_t n = fread(out, 1, room, f);
    fclose(f);
    return n;
}

static void damage_is_refused(void **state)
{
    bed *b = *state;
    fm_error err = {0};
    fm_state *st = take(b), *back, *mark;
    static unsigned char good[65536], bad[65536];
    assert_ok(fm_state_save(st, st, b->file, FM_STATE_BF16, NULL));
    fm_state_free(st);
    const size_t n = read_file(b->file, good, sizeof good);
    assert_in_range(n, 1000, sizeof good - 1);
    for (size_t cut = 0; cut < n; cut += cut < 700 ? 1 : 97) {
        test_file_write(b->file, good, cut);
        assert_int_equal(fm_state_load(&back, &mark, b->file, NULL, &err), FM_ERR_FORMAT);
        assert_non_null(strstr(err.text, "x.state"));
        assert_null(back);
        assert_null(mark);
    }
    for (size_t at = 0; at < n; at += at < 700 ? 1 : 89) {
        memcpy(bad, good, n);
        bad[at] ^= (unsigned char)(1u << at % 8);
        test_file_write(b->file, bad, n);
        assert_int_not_equal(fm_state_load(&back, &mark, b->file, NULL, &err), FM_OK);
        assert_null(back);
    }
    assert_fails(fm_state_load(&back, NULL, "none.state", NULL, &err), FM_ERR_IO, err, "none.state");
}

static fm_status save_and_load(const fm_allocator *a, void *ctx)
{
    bed *b = ctx;
    fm_session *s;
    fm_seq seq;
    fm_state *st = NULL, *back = NULL, *mark = NULL;
    FM_TRY(fm_session_open(&s, b->m, &(fm_session_options){.allocator = a, .threads = 1}, NULL));
    fm_status status = fm_seq_new(s, &seq, NULL);
    if (status == FM_OK) status = fm_seq_append(s, seq, text, 3, NULL);
    if (status == FM_OK) status = fm_state_take(&st, s, seq, NULL);
    if (status == FM_OK) status = fm_state_save(st, st, b->file, FM_STATE_F32, NULL);
    if (status == FM_OK) status = fm_state_load(&back, &mark, b->file, a, NULL);
    if (status == FM_OK) status = fm_state_put(s, seq, back, false, NULL);
    fm_state_free(st);
    fm_state_free(back);
    fm_state_free(mark);
    fm_session_free(s);
    return status;
}

static void every_allocation_may_fail(void **state)
{
    assert_true(test_every_allocation(save_and_load, *state) > 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_keep_the_bits),       cmocka_unit_test(bf16_is_near),
        cmocka_unit_test(a_long_past_costs_nothing), cmocka_unit_test(other_models_refuse),
        cmocka_unit_test(damage_is_refused),         cmocka_unit_test(every_allocation_may_fail)};
    return cmocka_run_group_tests(tests, make_bed, drop_bed);
}
