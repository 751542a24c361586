/* Runs a fuzz target without a fuzzer: every file of its corpus, then a bounded number of seeded mutations of them.
 *
 *   fuzz_x CORPUS_DIRECTORY [MUTATIONS]
 *
 * RANKD_SEED repeats a run; a crash leaves its input in the message of the sanitizer or in ./crash.input. */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/random.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_INPUTS 4096
#define MAX_BYTES  (1u << 20)

static struct input {
    unsigned char *data;
    size_t size;
} inputs[MAX_INPUTS];
static size_t num_inputs;

static const unsigned char *current;
static size_t current_size;

/* Only async-signal-safe calls. */
static void keep_input(int signal_number)
{
    int fd = open("crash.input", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd >= 0 && write(fd, current, current_size) == (ssize_t)current_size)
        close(fd);
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

/* From memory of exactly its size, so that a sanitizer sees a read past the end. */
static void run(const unsigned char *data, size_t size)
{
    unsigned char *copy = malloc(size > 0 ? size : 1);
    if (copy == NULL)
        exit(1);
    memcpy(copy, data, size);
    current = copy;
    current_size = size;
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

static void load(const char *directory)
{
    DIR *dir = opendir(directory);
    if (dir == NULL) {
        fprintf(stderr, "failed to open corpus %s\n", directory);
        exit(1);
    }
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL && num_inputs < MAX_INPUTS;) {
        char path[4096];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", directory, entry->d_name);
        FILE *file = fopen(path, "r");
        struct input *input = &inputs[num_inputs++];
        input->data = malloc(MAX_BYTES);
        if (file == NULL || input->data == NULL) {
            fprintf(stderr, "failed to read %s\n", path);
            exit(1);
        }
        input->size = fread(input->data, 1, MAX_BYTES, file);
        fclose(file);
    }
    closedir(dir);
}

/* Puts another number where the text has one at or after `at`: what parses still, but means something else. */
static size_t replace_number(struct random *random, unsigned char *data, size_t size, size_t at)
{
    static const char *const numbers[] = {"0",
                                          "-1",
                                          "1",
                                          "2",
                                          "65",
                                          "4096",
                                          "4294967296",
                                          "1099511627776",
                                          "1.5",
                                          "1e39",
                                          "9223372036854775807",
                                          "-9223372036854775808",
                                          "9223372036854775808",
                                          "null"};
    while (at < size && (data[at] < '0' || data[at] > '9'))
        at++;
    size_t end = at;
    while (end < size && data[end] >= '0' && data[end] <= '9')
        end++;
    const char *number = numbers[random_below(random, sizeof numbers / sizeof numbers[0])];
    size_t length = strlen(number);
    if (at == end || size - (end - at) + length > MAX_BYTES)
        return size;
    memmove(data + at + length, data + end, size - end);
    memcpy(data + at, number, length);
    return size - (end - at) + length;
}

/* Flips, overwrites, cuts, doubles and splices, as fuzzers do. */
static size_t mutate(struct random *random, unsigned char *data, size_t size)
{
    static const unsigned char interesting[] = {0,   1,   0x7f, 0x80, 0xff, '"', '{',  '}',
                                                '[', ']', ',',  ':',  '-',  '9', '\\', 'e'};
    for (uint64_t n = random_between(random, 1, 3); n > 0; n--) {
        size_t at = size > 0 ? random_below(random, size) : 0, length = size > at ? random_below(random, size - at) : 0;
        switch (size > 0 ? random_below(random, 10) : 5) {
        case 0:
            data[at] ^= (unsigned char)(1u << random_below(random, 8));
            break;
        case 1:
            data[at] = interesting[random_below(random, sizeof interesting)];
            break;
        case 2:
            memmove(data + at, data + at + length, size - at - length);
            size -= length;
            break;
        case 3:
            length = length > 64 ? 64 : length;
            if (size + length <= MAX_BYTES) {
                memmove(data + at + length, data + at, size - at);
                size += length;
            }
            break;
        case 4:
            size = at;
            break;
        case 5: {
            const struct input *other = &inputs[random_below(random, num_inputs)];
            size_t from = other->size > 0 ? random_below(random, other->size) : 0;
            size_t take = other->size - from < MAX_BYTES - at ? other->size - from : MAX_BYTES - at;
            memcpy(data + at, other->data + from, take);
            size = at + take > size ? at + take : size;
            break;
        }
        default:
            size = replace_number(random, data, size, at);
        }
    }
    return size;
}

int main(int argc, char **argv)
{
    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: %s CORPUS_DIRECTORY [MUTATIONS]\n", argv[0]);
        return 2;
    }
    signal(SIGSEGV, keep_input);
    signal(SIGABRT, keep_input);
    signal(SIGBUS, keep_input);
    load(argv[1]);
    if (num_inputs == 0) {
        fprintf(stderr, "%s has no inputs\n", argv[1]);
        return 1;
    }
    for (size_t i = 0; i < num_inputs; i++)
        run(inputs[i].data, inputs[i].size);
    unsigned long mutations = argc == 3 ? strtoul(argv[2], NULL, 10) : 20000;
    struct random random = random_from_seed();
    unsigned char *data = malloc(MAX_BYTES);
    if (data == NULL)
        return 1;
    for (unsigned long m = 0; m < mutations; m++) {
        const struct input *input = &inputs[random_below(&random, num_inputs)];
        memcpy(data, input->data, input->size);
        run(data, mutate(&random, data, input->size));
    }
    free(data);
    for (size_t i = 0; i < num_inputs; i++)
        free(inputs[i].data);
    printf("%zu inputs and %lu mutations\n", num_inputs, mutations);
    return 0;
}
