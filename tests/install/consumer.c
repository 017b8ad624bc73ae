/* consumer.c - the smallest program that uses the installed library: its header, a call, and a type. */
#include <fmamba.h>
#include <stdio.h>

int main(void)
{
    fm_model_options options = {.no_mmap = true};
    printf("fmamba %s\n", fm_version());
    return options.no_mmap && fm_status_name(FM_ERR_IO) ? 0 : 1;
}
