/* cmd_gradients.c - gradients of the next-token loss of some tokens, for checks from outside. */
#include "cli/common.h"
#include "train/gradients.h"

static fm_status compute(fm_gradients *g, double *loss, const fm_cli *c, const fm_cli_input *in, fm_error *err)
{
    const fm_session_options o = fm_cli_session_options(c, 1);
    unsigned threads = o.threads;
    fm_kernels k;
    fm_pool *pool;
    FM_TRY(fm_model_kernels(g->m, o.cpu, &k, &threads, err));
    FM_TRY(fm_pool_open(&pool, threads, NULL, err));
    const fm_status status = fm_gradients_of(g, loss, &k, pool, in->ids, in->n, err);
    fm_pool_free(pool);
    return status;
}

static fm_status gradients(const fm_cli *c, const fm_model *m, const char *out, fm_error *err)
{
    fm_cli_input in = {0};
    fm_gradients g = {0};
    double loss = 0.0;
    fm_status status = fm_cli_read_input(&in, c, fm_model_tokenizer(m), true, fm_model_get_info(m).vocab, err);
    if (status == FM_OK) status = fm_gradients_open(&g, m, NULL, err);
    if (status == FM_OK) status = compute(&g, &loss, c, &in, err);
    if (status == FM_OK) status = fm_gradients_write(&g, loss, out, err);
    if (status == FM_OK) fm_cli_note("%s: loss %.6f of %zu tokens", out, loss, in.n - 1);
    fm_gradients_free(&g);
    fm_cli_input_free(&in);
    return status;
}

static int run(const fm_cli *c)
{
    const char *out = fm_opt_str(&c->options, FM_OPT_OUT);
    fm_error err = {0};
    fm_model *m = NULL;
    if (!out) return fm_cli_usage(c, "-o FILE says where the gradients go");
    fm_status status = fm_cli_model_open(&m, c, 1, &err);
    if (status == FM_OK) status = gradients(c, m, out, &err);
    fm_model_free(m);
    return status == FM_OK ? FM_EXIT_OK : fm_cli_fail(&err);
}

static const fm_opt options[] = {FM_OPTS_COMMON, FM_OPTS_MODEL, FM_OPTS_ENGINE, FM_OPTS_TEXT,
                                 FM_OPT_IDS,     FM_OPT_OUT,    FM_OPT_END};

const fm_command fm_command_gradients = {
    .name = "gradients",
    .summary = "write the gradients of the loss of some tokens",
    .usage = "--ids IDS -o FILE.safetensors [options]",
    .details =
        "Writes `loss`, the mean next-token cross entropy in nats, and `grad.<tensor>` for every tensor of the model, in\n"
        "float32, named and laid out as in a Hugging Face checkpoint.",
    .options = options,
    .max_operands = 0,
    .run = run,
};
