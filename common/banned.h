/* banned.h: force-included everywhere. Functions that overflow, keep hidden state or swallow errors do not compile. */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#pragma GCC poison strcpy strcat sprintf vsprintf strtok atoi atol atoll gmtime localtime ctime asctime rand srand gets
