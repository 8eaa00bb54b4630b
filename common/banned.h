/* banned.h: force-included everywhere. Functions that overflow, keep hidden state or swallow errors do not compile. */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef QUORATE_USES_OPENSSL /* its headers name a member rand; common/tls alone sets this */
#include <openssl/evp.h>
#endif

/* glibc's fortified headers make this a macro where the compiler has no __va_arg_pack: clang. A macro that is poisoned
 * is a warning in each file. */
#undef sprintf

#pragma GCC poison strcpy strcat sprintf vsprintf strtok atoi atol atoll gmtime localtime ctime asctime rand srand gets
