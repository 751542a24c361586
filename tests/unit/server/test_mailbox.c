/* The mailbox between threads: nothing lost, each poster in order, the reader always woken. */
#include <criterion/criterion.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

#include "server/mailbox.h"

#define POSTERS      4
#define MAIL_OF_EACH 20000

struct letter {
    struct rk_mail mail;
    uint32_t poster, number;
};

struct poster {
    struct rk_mailbox *mailbox;
    struct letter *letters;
    uint32_t index;
};

static void *post_all(void *argument)
{
    struct poster *poster = argument;
    for (uint32_t i = 0; i < MAIL_OF_EACH; i++) {
        poster->letters[i].poster = poster->index;
        poster->letters[i].number = i;
        rk_mailbox_post(poster->mailbox, &poster->letters[i].mail);
    }
    return NULL;
}

Test(mailbox, all_mail_of_many_threads_arrives_in_each_ones_order_and_none_sleeps_on, .timeout = 60)
{
    struct rk_mailbox mailbox;
    cr_assert_eq(rk_mailbox_init(&mailbox, NULL), RK_OK);
    struct poster posters[POSTERS];
    pthread_t threads[POSTERS];
    for (uint32_t i = 0; i < POSTERS; i++) {
        posters[i] = (struct poster){&mailbox, calloc(MAIL_OF_EACH, sizeof(struct letter)), i};
        cr_assert_not_null(posters[i].letters);
        cr_assert_eq(pthread_create(&threads[i], NULL, post_all, &posters[i]), 0);
    }
    uint32_t next[POSTERS] = {0}, received = 0;
    while (received < POSTERS * MAIL_OF_EACH) {
        struct pollfd ready = {.fd = mailbox.fd, .events = POLLIN};
        cr_assert_eq(poll(&ready, 1, 20000), 1, "no wake-up though only %u of %u letters came", received,
                     POSTERS * MAIL_OF_EACH);
        for (struct rk_mail *mail = rk_mailbox_collect(&mailbox); mail != NULL; mail = mail->next, received++) {
            struct letter *letter = (struct letter *)mail;
            cr_assert_eq(letter->number, next[letter->poster], "poster %u: letter %u came instead of %u",
                         letter->poster, letter->number, next[letter->poster]);
            next[letter->poster]++;
        }
    }
    for (uint32_t i = 0; i < POSTERS; i++) {
        pthread_join(threads[i], NULL);
        free(posters[i].letters);
    }
    cr_expect_null(rk_mailbox_collect(&mailbox));
    rk_mailbox_deinit(&mailbox);
}
