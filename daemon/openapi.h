/* OpenAPI 3.1 of the API, printed from the route table (api_table.c), the job's option tables
 * and the components below it. */
#ifndef HEBB_DAEMON_OPENAPI_H
#define HEBB_DAEMON_OPENAPI_H

#include "proto/base/buf.h"

void openapi_print(struct buf *out);

#endif
