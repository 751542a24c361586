/* Certificates made on the spot, for tests of TLS. */
#ifndef RANKD_TESTS_UNIT_SERVER_CERTIFICATES_H
#define RANKD_TESTS_UNIT_SERVER_CERTIFICATES_H

struct made_certificate {
    char certificate[256], key[256]; /* paths */
};

/* A self-signed P-256 certificate for "test.example", valid from now by so many days, in a new folder under /tmp. */
struct made_certificate make_certificate(int days);
void remove_certificate(const struct made_certificate *made);

#endif
