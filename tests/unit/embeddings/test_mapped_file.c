/* Mapped files: what is refused, what a hash is, and files that shrink under their readers. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <xxhash.h>

#include "embeddings/mapped_file.h"
#include "tests/unit/embeddings/folder.h"

static struct folder folder;

static void setup(void)
{
    folder = folder_create();
}

static void teardown(void)
{
    folder_destroy(&folder);
}

TestSuite(mapped_file, .init = setup, .fini = teardown, .timeout = 30);

static struct rk_mapped_file *open_file(const char *name)
{
    struct rk_mapped_file *file = NULL;
    struct rk_error error = {0};
    enum rk_status status = rk_mapped_file_open(folder.fd, name, UINT64_MAX, &file, &error);
    cr_assert(status == RK_OK, "%s", error.text);
    return file;
}

static void expect_refusal(const char *name, uint64_t bytes, enum rk_status expected, const char *text)
{
    struct rk_mapped_file *file = NULL;
    struct rk_error error = {0};
    enum rk_status status = rk_mapped_file_open(folder.fd, name, bytes, &file, &error);
    cr_assert(status == expected, "%s: status is %s, expected %s", name, rk_status_name(status),
              rk_status_name(expected));
    cr_assert(status == error.status);
    cr_assert(strstr(error.text, text) != NULL, "%s: text is '%s', expected '%s' in it", name, error.text, text);
    cr_assert(file == NULL);
}

Test(mapped_file, shows_the_bytes_of_the_file)
{
    folder_write(&folder, "rows", "0123456789", 10);
    struct rk_mapped_file *file = open_file("rows");
    cr_assert(rk_mapped_file_bytes(file) == 10);
    cr_assert(memcmp(rk_mapped_file_data(file), "0123456789", 10) == 0);
    cr_assert(!rk_mapped_file_damaged(file));
    rk_mapped_file_mark_damaged(file);
    cr_assert(rk_mapped_file_damaged(file));
    rk_mapped_file_close(file);
    rk_mapped_file_close(NULL);
}

Test(mapped_file, an_empty_file_is_an_empty_range)
{
    folder_write(&folder, "empty", "", 0);
    struct rk_mapped_file *file = open_file("empty");
    uint64_t hash = 0;
    cr_assert(rk_mapped_file_bytes(file) == 0);
    cr_assert(rk_mapped_file_hash(file, NULL, NULL, &hash) == RK_OK);
    cr_assert(hash == XXH3_64bits("", 0));
    rk_mapped_file_close(file);
}

Test(mapped_file, another_size_than_expected_is_corrupt)
{
    folder_write(&folder, "rows", "0123456789", 10);
    expect_refusal("rows", 11, RK_CORRUPT, "10 bytes where 11 are expected");
    expect_refusal("rows", 0, RK_CORRUPT, "10 bytes where 0 are expected");
}

Test(mapped_file, what_is_not_a_regular_file_is_refused_without_blocking)
{
    folder_write(&folder, "rows", "0123456789", 10);
    cr_assert(symlinkat("rows", folder.fd, "link") == 0);
    cr_assert(mkfifoat(folder.fd, "fifo", 0600) == 0);
    cr_assert(mkdirat(folder.fd, "folder", 0700) == 0);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s/socket", folder.path);
    cr_assert(bind(listener, (struct sockaddr *)&address, sizeof address) == 0);

    expect_refusal("link", UINT64_MAX, RK_CORRUPT, "symbolic link");
    expect_refusal("fifo", UINT64_MAX, RK_CORRUPT, "FIFO");
    expect_refusal("folder", UINT64_MAX, RK_CORRUPT, "directory");
    expect_refusal("socket", UINT64_MAX, RK_CORRUPT, "socket");
    expect_refusal("absent", UINT64_MAX, RK_NOT_FOUND, "'absent' is missing");
    close(listener);
}

Test(mapped_file, names_that_leave_the_folder_are_refused)
{
    static const char *const names[] = {"", ".", "..", "../rows", "/etc/passwd", "a/b", "rows/"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        expect_refusal(names[i], UINT64_MAX, RK_INVALID, "one path component");
}

Test(mapped_file, refused_files_leave_no_descriptor_behind)
{
    cr_assert(mkfifoat(folder.fd, "fifo", 0600) == 0);
    int before = dup(folder.fd);
    close(before);
    for (int i = 0; i < 50; i++)
        expect_refusal("fifo", UINT64_MAX, RK_CORRUPT, "FIFO");
    int after = dup(folder.fd);
    close(after);
    cr_assert(before == after, "the next descriptor was %d, now it is %d", before, after);
}

struct progress {
    uint64_t bytes;
    int calls, stop_after;
};

static bool count_progress(void *context, uint64_t bytes)
{
    struct progress *progress = context;
    progress->bytes += bytes;
    return ++progress->calls != progress->stop_after;
}

Test(mapped_file, the_hash_is_that_of_all_bytes_and_progress_adds_up)
{
    const size_t bytes = (80u << 20) + 12345;
    unsigned char *data = malloc(bytes);
    for (size_t i = 0; i < bytes; i++)
        data[i] = (unsigned char)(i * 2654435761u >> 13);
    folder_write(&folder, "big", data, bytes);
    struct rk_mapped_file *file = open_file("big");
    rk_mapped_file_advise_random(file);
    struct progress progress = {0};
    uint64_t hash = 0;
    cr_assert(rk_mapped_file_hash(file, count_progress, &progress, &hash) == RK_OK);
    cr_assert(hash == XXH3_64bits(data, bytes), "%016llx", (unsigned long long)hash);
    cr_assert(progress.bytes == bytes, "progress of %llu bytes", (unsigned long long)progress.bytes);
    cr_assert(progress.calls == 2, "%d calls", progress.calls);
    progress = (struct progress){.stop_after = 1};
    cr_assert(rk_mapped_file_hash(file, count_progress, &progress, &hash) == RK_CANCELLED);
    cr_assert(progress.calls == 1);
    rk_mapped_file_close(file);
    free(data);
}

enum { PAGES = 64 };

static struct rk_mapped_file *open_and_truncate(size_t *bytes, off_t keep)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    unsigned char *data = malloc(PAGES * page);
    memset(data, 7, PAGES * page);
    folder_write(&folder, "rows", data, PAGES * page);
    free(data);
    struct rk_error error = {0};
    cr_assert(rk_mapped_file_contain_sigbus(&error) == RK_OK, "%s", error.text);
    cr_assert(rk_mapped_file_contain_sigbus(&error) == RK_OK, "a second time: %s", error.text);
    struct rk_mapped_file *file = open_file("rows");
    folder_truncate(&folder, "rows", keep);
    *bytes = PAGES * page;
    return file;
}

Test(mapped_file, a_reader_survives_truncation_and_the_damage_shows)
{
    size_t bytes;
    struct rk_mapped_file *file = open_and_truncate(&bytes, 4096);
    cr_assert(!rk_mapped_file_damaged(file));
    const volatile unsigned char *data = rk_mapped_file_data(file);
    cr_assert(data[0] == 7);
    cr_assert(!rk_mapped_file_damaged(file), "bytes that are there are no damage");
    cr_assert(data[bytes - 1] == 0, "a byte that is gone reads as %d", data[bytes - 1]);
    cr_assert(rk_mapped_file_damaged(file));
    for (size_t i = 0; i < bytes; i += 512)
        (void)data[i];
    rk_mapped_file_close(file);
}

Test(mapped_file, hashing_a_truncated_file_says_corrupt)
{
    size_t bytes;
    struct rk_mapped_file *file = open_and_truncate(&bytes, 0);
    uint64_t hash;
    cr_assert(rk_mapped_file_hash(file, NULL, NULL, &hash) == RK_CORRUPT);
    cr_assert(rk_mapped_file_damaged(file));
    rk_mapped_file_close(file);
}

Test(mapped_file, damage_to_one_file_leaves_the_others_alone)
{
    size_t bytes;
    folder_write(&folder, "sound", "sound", 5);
    struct rk_mapped_file *sound = open_file("sound"), *file = open_and_truncate(&bytes, 0);
    cr_assert(*(const volatile char *)rk_mapped_file_data(file) == 0);
    cr_assert(!rk_mapped_file_damaged(sound));
    cr_assert(memcmp(rk_mapped_file_data(sound), "sound", 5) == 0);
    rk_mapped_file_close(file);
    rk_mapped_file_close(sound);
}

static atomic_bool stop;

/* Maps and unmaps all the time, so that slots change while the handler looks through them. */
static void *churn(void *unused)
{
    (void)unused;
    while (!atomic_load(&stop))
        rk_mapped_file_close(open_file("other"));
    return NULL;
}

static void *read_all(void *argument)
{
    const struct rk_mapped_file *file = argument;
    const volatile unsigned char *data = rk_mapped_file_data(file);
    for (uint64_t i = 0; i < rk_mapped_file_bytes(file); i += 4096)
        (void)data[i];
    return NULL;
}

Test(mapped_file, many_readers_survive_truncation_while_others_map)
{
    folder_write(&folder, "other", "other", 5);
    pthread_t churner, readers[4];
    cr_assert(rk_mapped_file_contain_sigbus(NULL) == RK_OK);
    cr_assert(pthread_create(&churner, NULL, churn, NULL) == 0);
    for (int round = 0; round < 20; round++) {
        size_t bytes;
        struct rk_mapped_file *file = open_and_truncate(&bytes, 0);
        for (int r = 0; r < 4; r++)
            cr_assert(pthread_create(&readers[r], NULL, read_all, file) == 0);
        for (int r = 0; r < 4; r++)
            pthread_join(readers[r], NULL);
        cr_assert(rk_mapped_file_damaged(file), "round %d", round);
        rk_mapped_file_close(file);
    }
    atomic_store(&stop, true);
    pthread_join(churner, NULL);
}

/* ---- a SIGBUS that is not ours ---- */

static void *foreign_mapping(void)
{
    folder_write(&folder, "foreign", "x", 1);
    int fd = openat(folder.fd, "foreign", O_RDONLY);
    void *data = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    cr_assert(data != MAP_FAILED);
    folder_truncate(&folder, "foreign", 0);
    return data;
}

static int status_of_child(void (*body)(void *), void *argument)
{
    pid_t child = fork();
    if (child == 0) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        body(argument);
        _exit(0);
    }
    int status = 0;
    cr_assert(waitpid(child, &status, 0) == child);
    return status;
}

static void contain_and_read(void *data)
{
    signal(SIGBUS, SIG_DFL);
    rk_mapped_file_contain_sigbus(NULL);
    (void)*(volatile char *)data;
}

static void exit_42(int number)
{
    (void)number;
    _exit(42);
}

static void handle_contain_and_read(void *data)
{
    signal(SIGBUS, exit_42);
    rk_mapped_file_contain_sigbus(NULL);
    (void)*(volatile char *)data;
}

static void contain_and_raise(void *unused)
{
    (void)unused;
    signal(SIGBUS, SIG_DFL);
    rk_mapped_file_contain_sigbus(NULL);
    raise(SIGBUS);
}

Test(mapped_file, a_fault_elsewhere_kills_as_it_would_have)
{
    int status = status_of_child(contain_and_read, foreign_mapping());
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS, "status %x", status);
}

Test(mapped_file, a_fault_elsewhere_goes_to_the_handler_that_was_there)
{
    int status = status_of_child(handle_contain_and_read, foreign_mapping());
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 42, "status %x", status);
}

Test(mapped_file, a_signal_that_somebody_sent_is_no_fault)
{
    int status = status_of_child(contain_and_raise, NULL);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS, "status %x", status);
}
