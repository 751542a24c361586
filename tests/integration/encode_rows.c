/* encode_rows FORMAT DIM < float32 numbers > rows: the encoders of quant/rows.h for tests that compare them with
 * others. */
#include <stdio.h>
#include <stdlib.h>

#include "quant/rows.h"

int main(int argc, char **argv)
{
    enum rk_row_format format;
    if (argc != 3 || !rk_row_format_parse(argv[1], &format)) {
        fprintf(stderr, "encode_rows FORMAT DIM\n");
        return 2;
    }
    const size_t dim = strtoul(argv[2], NULL, 10), bytes = rk_row_bytes(format, (uint32_t)dim);
    float *values = malloc(dim * sizeof *values);
    unsigned char *row = malloc(bytes);
    int status = values == NULL || row == NULL;
    while (status == 0 && fread(values, sizeof *values, dim, stdin) == dim) {
        rk_row_traits(format)->encode(values, dim, row);
        status = fwrite(row, 1, bytes, stdout) != bytes;
    }
    free(values);
    free(row);
    return status;
}
