/* The mailbox's stack. The reader takes the whole stack at once, so there is no ABA problem; it clears the eventfd
 * before that, so a poster that finds the stack empty afterwards always wakes it again. */
#include "server/mailbox.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum rk_status rk_mailbox_init(struct rk_mailbox *mailbox, struct rk_error *error)
{
    atomic_init(&mailbox->newest, NULL);
    mailbox->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (mailbox->fd < 0)
        return rk_error_set(error, RK_IO, "failed to create an eventfd: %s", strerror(errno));
    return RK_OK;
}

void rk_mailbox_deinit(struct rk_mailbox *mailbox)
{
    if (mailbox->fd >= 0)
        close(mailbox->fd);
    mailbox->fd = -1;
}

void rk_mailbox_post(struct rk_mailbox *mailbox, struct rk_mail *mail)
{
    struct rk_mail *newest = atomic_load_explicit(&mailbox->newest, memory_order_relaxed);
    do {
        mail->next = newest;
    } while (!atomic_compare_exchange_weak_explicit(&mailbox->newest, &newest, mail, memory_order_release,
                                                    memory_order_relaxed));
    if (newest != NULL)
        return; /* whoever posted onto the empty stack wakes the reader */
    uint64_t one = 1;
    while (write(mailbox->fd, &one, sizeof one) < 0 && errno == EINTR)
        continue;
}

struct rk_mail *rk_mailbox_collect(struct rk_mailbox *mailbox)
{
    uint64_t count;
    while (read(mailbox->fd, &count, sizeof count) < 0 && errno == EINTR)
        continue;
    struct rk_mail *stack = atomic_exchange_explicit(&mailbox->newest, NULL, memory_order_acquire);
    struct rk_mail *oldest = NULL;
    while (stack != NULL) {
        struct rk_mail *next = stack->next;
        stack->next = oldest;
        oldest = stack;
        stack = next;
    }
    return oldest;
}
