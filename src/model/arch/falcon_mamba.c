/* falcon_mamba.c - Falcon Mamba: the Mamba-1 mixer with weightless RMS norms on dt, B and C.  A GGUF file calls it "mamba"
 * too and sets mamba.ssm.dt_b_c_rms (spec falcon-mamba.md 4.2). */
#include "model/arch/mamba.h"

static bool claims(const fm_source *s)
{
    bool norms;
    return fm_mamba_claims(s, &norms) && norms;
}

extern const fm_arch fm_arch_falcon_mamba;
const fm_arch fm_arch_falcon_mamba = {
    .name = "falcon_mamba",
    .hf_type = "falcon_mamba",
    .hf_class = "FalconMambaForCausalLM",
    .gguf = "mamba",
    .globals = fm_mamba_globals,
    .claims = claims,
    .read_config = fm_mamba_read_config,
    .block = fm_mamba_block,
    .put_gguf = fm_mamba_put_gguf,
    .put_json = fm_mamba_put_json,
};
