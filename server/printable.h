/* Text from clients and error texts, on their way into strings of our own messages and log lines. */
#ifndef RANKD_SERVER_PRINTABLE_H
#define RANKD_SERVER_PRINTABLE_H

/* Each byte that belongs to no printable UTF-8 character becomes '?'. */
void rk_printable_make(char *text);

#endif
