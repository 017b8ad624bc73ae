/* version.c - the version as a string, made from the three numbers in fmamba.h. */
#include "fmamba.h"

#define TEXT_OF(x) #x
#define TEXT(x)    TEXT_OF(x)

const char *fm_version(void)
{
    return TEXT(FM_VERSION_MAJOR) "." TEXT(FM_VERSION_MINOR) "." TEXT(FM_VERSION_PATCH);
}
