/* A mailbox: how other threads hand things to an event loop. Any thread posts, one thread collects.
 *
 * A stack of intrusive links that posters push onto without a lock; an eventfd wakes the reader when the stack was
 * empty, so a burst of mail costs one system call. */
#ifndef RANKD_SERVER_MAILBOX_H
#define RANKD_SERVER_MAILBOX_H

#include <stdatomic.h>

#include "quant/base/status.h"

/* Stands first in whatever is sent; the receiver calls `deliver`, which owns the mail from then on. */
struct rk_mail {
    struct rk_mail *next;
    void (*deliver)(void *receiver, struct rk_mail *mail);
};

struct rk_mailbox {
    _Atomic(struct rk_mail *) newest;
    int fd; /* readable when there may be mail */
};

enum rk_status rk_mailbox_init(struct rk_mailbox *mailbox, struct rk_error *error);
void rk_mailbox_deinit(struct rk_mailbox *mailbox);

void rk_mailbox_post(struct rk_mailbox *mailbox, struct rk_mail *mail);

/* Takes all that is there, in the order in which it was posted; NULL when there is none. */
struct rk_mail *rk_mailbox_collect(struct rk_mailbox *mailbox);

#endif
