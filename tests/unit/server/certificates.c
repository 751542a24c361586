/* OpenSSL makes the key and signs. */
#include "certificates.h"

#include <criterion/criterion.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct made_certificate make_certificate(int days)
{
    char folder[] = "/tmp/rankd-test-XXXXXX";
    struct made_certificate made;
    cr_assert_not_null(mkdtemp(folder));
    snprintf(made.certificate, sizeof made.certificate, "%s/certificate.pem", folder);
    snprintf(made.key, sizeof made.key, "%s/key.pem", folder);
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = X509_new();
    X509_set_version(certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate), days < 0 ? days * 2L * 86400 : 0);
    X509_gmtime_adj(X509_getm_notAfter(certificate), days * 86400L);
    X509_NAME *name = X509_get_subject_name(certificate);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"test.example", -1, -1, 0);
    X509_set_issuer_name(certificate, name);
    X509_set_pubkey(certificate, key);
    cr_assert_gt(X509_sign(certificate, key, EVP_sha256()), 0);
    FILE *file = fopen(made.certificate, "w");
    cr_assert(file != NULL && PEM_write_X509(file, certificate) == 1 && fclose(file) == 0);
    file = fopen(made.key, "w");
    cr_assert(file != NULL && PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL) == 1 && fclose(file) == 0);
    chmod(made.key, 0600);
    X509_free(certificate);
    EVP_PKEY_free(key);
    return made;
}

void remove_certificate(const struct made_certificate *made)
{
    char folder[256];
    snprintf(folder, sizeof folder, "%s", made->key);
    *strrchr(folder, '/') = '\0';
    unlink(made->certificate);
    unlink(made->key);
    rmdir(folder);
}
