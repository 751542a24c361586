/* What an accepted socket holds on its way. Any thread. */
#include "server/endpoint.h"

#include <stdlib.h>
#include <unistd.h>

#include "server/tls_stream.h"

void rk_accepted_drop(const struct rk_accepted *accepted)
{
    rk_tls_stream_destroy(accepted->stream);
    free(accepted->early);
    close(accepted->fd);
}
