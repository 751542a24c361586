/* A writer holds the parent directory, the temporary directory in it, and at most one open file with its running
 * checksum. Everything goes through directory descriptors, so that a rename of a directory above does not lead astray.
 * Killed at any moment, it leaves at worst a hidden temporary directory, which no reader takes for a version. One
 * thread per writer. */
#include "model/package.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

struct rk_package_writer {
    char *path;            /* as given, without trailing slashes */
    char *name;            /* its last component */
    char *parent;          /* what is before that */
    unsigned made_parents; /* how many of the parent's last components we made */
    char temporary[NAME_MAX + 1];
    int parent_fd, dir_fd, file_fd; /* -1: not open */
    char *file;                     /* the open file's name */
    uint64_t bytes;                 /* written to it */
    XXH3_state_t *hash;
};

static enum rk_status io_error(struct rk_error *error, const char *what, const struct rk_package_writer *writer,
                               const char *file)
{
    return rk_error_set(error, errno == EEXIST || errno == ENOTEMPTY ? RK_EXISTS : RK_IO, "failed to %s %s%s%s: %s",
                        what, writer->path, file != NULL ? "/" : "", file != NULL ? file : "", strerror(errno));
}

/* "a/b/" -> parent "a", name "b"; "b" -> parent ".", name "b". */
static enum rk_status split_path(struct rk_package_writer *writer, const char *output, struct rk_error *error)
{
    size_t length = strlen(output);
    while (length > 1 && output[length - 1] == '/')
        length--;
    writer->path = strndup(output, length);
    if (writer->path == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "%s: out of memory", output);
    char *slash = strrchr(writer->path, '/');
    const char *name = slash != NULL ? slash + 1 : writer->path;
    writer->name = strdup(name);
    writer->parent = slash == NULL           ? strdup(".")
                     : slash == writer->path ? strdup("/")
                                             : strndup(output, (size_t)(slash - writer->path));
    if (writer->name == NULL || writer->parent == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "%s: out of memory", output);
    if (name[0] == '\0' || name[0] == '.' || strlen(name) > NAME_MAX - 16)
        return rk_error_set(error, RK_INVALID,
                            "output '%s' must end in a name that does not begin with '.' and is not overlong", output);
    return RK_OK;
}

/* Makes the directories above the package that are missing, each synced into the one above it. */
static enum rk_status make_parents(struct rk_package_writer *writer, struct rk_error *error)
{
    char *path = writer->parent;
    for (size_t i = 1, length = strlen(path); i <= length; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        char *slash = NULL;
        path[i] = '\0';
        bool made = mkdir(path, 0777) == 0;
        int why = errno;
        if (made && (slash = strrchr(path, '/')) != NULL && slash != path)
            *slash = '\0';
        int above = made ? open(slash == NULL   ? "."
                                : slash == path ? "/"
                                                : path,
                                O_RDONLY | O_DIRECTORY | O_CLOEXEC)
                         : -1;
        bool synced = !made || (above >= 0 && fsync(above) == 0);
        if (above >= 0)
            close(above);
        if (slash != NULL)
            *slash = '/';
        if (made)
            writer->made_parents++;
        bool fine = synced && (made || why == EEXIST);
        if (!fine)
            return rk_error_set(error, RK_IO, "failed to make directory %s for the package: %s", path,
                                strerror(made ? errno : why));
        if (i < length)
            path[i] = '/';
    }
    return RK_OK;
}

static enum rk_status make_temporary(struct rk_package_writer *writer, struct rk_error *error)
{
    for (int attempt = 0; attempt < 100; attempt++) {
        uint32_t random = 0;
        if (getrandom(&random, sizeof random, 0) != sizeof random)
            random = (uint32_t)getpid() * 2654435761u + (uint32_t)attempt;
        snprintf(writer->temporary, sizeof writer->temporary, ".%s.tmp-%06x", writer->name, random & 0xffffff);
        if (mkdirat(writer->parent_fd, writer->temporary, 0777) == 0) {
            writer->dir_fd =
                openat(writer->parent_fd, writer->temporary, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
            return writer->dir_fd >= 0 ? RK_OK : io_error(error, "open the temporary directory of", writer, NULL);
        }
        if (errno != EEXIST)
            break;
    }
    writer->temporary[0] = '\0';
    return io_error(error, "make a temporary directory beside", writer, NULL);
}

enum rk_status rk_package_begin(const char *output, struct rk_package_writer **out, struct rk_error *error)
{
    struct stat stat;
    struct rk_package_writer *writer = calloc(1, sizeof *writer);
    if (writer == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "%s: out of memory", output);
    writer->parent_fd = writer->dir_fd = writer->file_fd = -1;
    writer->hash = XXH3_createState();
    enum rk_status status = split_path(writer, output, error);
    if (status == RK_OK && writer->hash == NULL)
        status = rk_error_set(error, RK_NO_MEMORY, "%s: out of memory", output);
    if (status == RK_OK)
        status = make_parents(writer, error);
    if (status != RK_OK)
        goto fail;
    writer->parent_fd = open(writer->parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (writer->parent_fd < 0) {
        status = rk_error_set(error, errno == ENOENT ? RK_NOT_FOUND : RK_IO,
                              "failed to open directory %s for the package: %s", writer->parent, strerror(errno));
        goto fail;
    }
    if (fstatat(writer->parent_fd, writer->name, &stat, AT_SYMLINK_NOFOLLOW) == 0) {
        status = rk_error_set(error, RK_EXISTS,
                              "%s exists already; packages are never overwritten: choose a new version", writer->path);
        goto fail;
    }
    status = make_temporary(writer, error);
    if (status != RK_OK)
        goto fail;
    *out = writer;
    return RK_OK;
fail:
    rk_package_abort(writer);
    return status;
}

int rk_package_dir(const struct rk_package_writer *writer)
{
    return writer->dir_fd;
}

enum rk_status rk_package_open_file(struct rk_package_writer *writer, const char *name, struct rk_error *error)
{
    free(writer->file);
    writer->file = strdup(name);
    if (writer->file == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "%s: out of memory", name);
    writer->file_fd = openat(writer->dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (writer->file_fd < 0)
        return io_error(error, "create", writer, name);
    writer->bytes = 0;
    XXH3_64bits_reset(writer->hash);
    return RK_OK;
}

enum rk_status rk_package_write(struct rk_package_writer *writer, const void *data, size_t bytes,
                                struct rk_error *error)
{
    XXH3_64bits_update(writer->hash, data, bytes);
    writer->bytes += bytes;
    for (size_t done = 0; done < bytes;) {
        ssize_t wrote = write(writer->file_fd, (const char *)data + done, bytes - done);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0)
            return io_error(error, "write", writer, writer->file);
        done += (size_t)wrote;
    }
    return RK_OK;
}

enum rk_status rk_package_close_file(struct rk_package_writer *writer, uint64_t *bytes, uint64_t *xxh3,
                                     struct rk_error *error)
{
    int fd = writer->file_fd;
    writer->file_fd = -1;
    bool synced = fsync(fd) == 0;
    int why = errno;
    bool closed = close(fd) == 0;
    if (!synced)
        errno = why;
    if (!synced || !closed)
        return io_error(error, "sync", writer, writer->file);
    *bytes = writer->bytes;
    *xxh3 = XXH3_64bits_digest(writer->hash);
    return RK_OK;
}

static void release(struct rk_package_writer *writer)
{
    const int fds[] = {writer->file_fd, writer->dir_fd, writer->parent_fd};
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    XXH3_freeState(writer->hash);
    free(writer->file);
    free(writer->name);
    free(writer->path);
    free(writer->parent);
    free(writer);
}

enum rk_status rk_package_commit(struct rk_package_writer *writer, struct rk_error *error)
{
    enum rk_status status = RK_OK;
    if (fsync(writer->dir_fd) != 0) {
        status = io_error(error, "sync", writer, NULL);
    } else if (renameat2(writer->parent_fd, writer->temporary, writer->parent_fd, writer->name, RENAME_NOREPLACE) !=
               0) {
        status = io_error(error, "give the finished package its name", writer, NULL);
    } else if (fsync(writer->parent_fd) != 0) {
        /* The name is not known to be on the disk: take it back, so that failure means that there is none. */
        status = io_error(error, "sync the directory of", writer, NULL);
        renameat2(writer->parent_fd, writer->name, writer->parent_fd, writer->temporary, RENAME_NOREPLACE);
    }
    if (status != RK_OK) {
        rk_package_abort(writer);
        return status;
    }
    release(writer);
    return RK_OK;
}

void rk_package_abort(struct rk_package_writer *writer)
{
    if (writer == NULL)
        return;
    if (writer->dir_fd >= 0) {
        /* The directory is ours and flat: every entry is a file that we made. */
        int fd = dup(writer->dir_fd);
        DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
        if (dir == NULL && fd >= 0)
            close(fd);
        if (dir != NULL) {
            rewinddir(dir);
            for (const struct dirent *entry; (entry = readdir(dir)) != NULL;)
                if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
                    unlinkat(writer->dir_fd, entry->d_name, 0);
            closedir(dir);
        }
    }
    if (writer->temporary[0] != '\0')
        unlinkat(writer->parent_fd, writer->temporary, AT_REMOVEDIR);
    for (; writer->made_parents > 0; writer->made_parents--) {
        rmdir(writer->parent); /* refuses when somebody else put something there */
        char *slash = strrchr(writer->parent, '/');
        if (slash != NULL)
            *slash = '\0';
    }
    release(writer);
}
