/* What the .proto files say, for server reflection: each as a google.protobuf.FileDescriptorProto, and which of them
 * defines what. protobuf-c keeps no such thing; embed_descriptors.py makes the tables from what the compiler writes. */
#ifndef RANKD_PROTO_DESCRIPTORS_H
#define RANKD_PROTO_DESCRIPTORS_H

#include <stddef.h>
#include <stdint.h>

struct rk_descriptor_file {
    const char *name; /* "rankd.proto" */
    const uint8_t *bytes;
    size_t num_bytes;
    const uint16_t *files; /* indexes of this one and of all that it imports, and they import */
    size_t num_files;
};

struct rk_descriptor_symbol {
    const char *name; /* "rankd.v1.Ranking.Rank", fully qualified */
    uint16_t file;
};

extern const struct rk_descriptor_file rk_descriptor_files[];
extern const size_t rk_num_descriptor_files;
extern const struct rk_descriptor_symbol rk_descriptor_symbols[]; /* sorted by name (strcmp) */
extern const size_t rk_num_descriptor_symbols;

/* NULL: there is none. */
const struct rk_descriptor_file *rk_descriptor_file_named(const char *name);
const struct rk_descriptor_file *rk_descriptor_file_of(const char *symbol);

#endif
