/* Reads through one descriptor: what was checked is what is read. Any thread. */
#include "server/text_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum rk_status read_all(int fd, const char *path, struct rk_text_file *file, struct rk_error *error)
{
    while (file->length < RK_TEXT_FILE_MAX_BYTES) {
        ssize_t got = read(fd, file->text + file->length, RK_TEXT_FILE_MAX_BYTES - file->length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return rk_error_set(error, RK_IO, "failed to read %s: %s", path, strerror(errno));
        if (got == 0)
            break;
        file->length += (size_t)got;
    }
    file->text[file->length] = '\0';
    return RK_OK;
}

enum rk_status rk_text_file_read(const char *path, const char *what, struct rk_text_file *file, struct rk_error *error)
{
    enum rk_status status;
    struct stat about;
    *file = (struct rk_text_file){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hang the start */
    if (fd < 0)
        return rk_error_set(error, errno == ENOENT ? RK_NOT_FOUND : RK_IO, "failed to open %s %s: %s", what, path,
                            strerror(errno));
    if (fstat(fd, &about) != 0) {
        status = rk_error_set(error, RK_IO, "%s: %s", path, strerror(errno));
        goto done;
    }
    if (!S_ISREG(about.st_mode)) {
        status = rk_error_set(error, RK_INVALID, "%s is %s; %s has to be a file", path,
                              S_ISDIR(about.st_mode) ? "a directory" : "not a regular file", what);
        goto done;
    }
    if (about.st_size > RK_TEXT_FILE_MAX_BYTES) {
        status = rk_error_set(error, RK_INVALID, "%s is %lld bytes long; %s has at most %u", path,
                              (long long)about.st_size, what, RK_TEXT_FILE_MAX_BYTES);
        goto done;
    }
    file->mode = about.st_mode & 07777;
    file->text = malloc(RK_TEXT_FILE_MAX_BYTES + 1);
    status = file->text != NULL ? read_all(fd, path, file, error)
                                : rk_error_set(error, RK_NO_MEMORY, "%s: out of memory", path);
    if (status != RK_OK)
        rk_text_file_free(file);
done:
    close(fd);
    return status;
}

void rk_text_file_free(struct rk_text_file *file)
{
    if (file->text != NULL)
        explicit_bzero(file->text, file->length);
    free(file->text);
    *file = (struct rk_text_file){0};
}
