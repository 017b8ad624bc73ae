/* convert.h - what the commands that write models share. */
#ifndef FM_CLI_CONVERT_H
#define FM_CLI_CONVERT_H

#include "cli/common.h"
#include "convert/convert.h"

typedef struct fm_cli_conversion {
    const fm_cli *c;
    fm_cli_bar bar;
    fm_convert_options options; /* its ctx is this struct, which stays in place */
    fm_convert_result result;
    fm_status status;
    fm_error err;
} fm_cli_conversion;

void fm_cli_conversion_begin(fm_cli_conversion *v, const fm_cli *c, const char *label);
/* Removes the bar and says what was written, or why not; gives the exit code. */
int fm_cli_conversion_end(fm_cli_conversion *v, const char *out);

#endif
