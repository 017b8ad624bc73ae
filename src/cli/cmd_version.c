/* cmd_version.c - the version, and what this machine computes with. */
#include "base/cpu.h"
#include "cli/common.h"
#include "kernels/kernels.h"

static int run(const fm_cli *c)
{
    fm_kernels k;
    fm_str out = {0};
    unsigned features = 0;
    FM_UNUSED const fm_status automatic = fm_cpu_cap(&features, NULL, NULL); /* never fails */
    fm_kernels_for(&k, features);
    if (fm_opt_flag(&c->options, FM_OPT_JSON)) {
        fm_jsonw w = {.out = &out};
        fm_jsonw_object(&w);
        fm_jsonw_key(&w, "version"), fm_jsonw_cstr(&w, fm_version());
        fm_jsonw_key(&w, "kernels"), fm_jsonw_cstr(&w, k.name);
        fm_jsonw_key(&w, "cpus"), fm_jsonw_u64(&w, fm_cpu_count());
        fm_jsonw_end(&w, '}');
        fm_str_putc(&out, '\n');
    } else {
        fm_str_printf(&out, "fmamba %s\nkernels %s, %u CPUs\n", fm_version(), k.name, fm_cpu_count());
    }
    return fm_cli_put(&out);
}

static const fm_opt options[] = {FM_OPTS_COMMON, FM_OPT_JSON, FM_OPT_END};

const fm_command fm_command_version = {
    .name = "version",
    .summary = "print the version",
    .usage = "[--json]",
    .options = options,
    .max_operands = 0,
    .run = run,
};
