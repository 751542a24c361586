/* A temporary folder for a test's files. */
#ifndef RANKD_TESTS_UNIT_EMBEDDINGS_FOLDER_H
#define RANKD_TESTS_UNIT_EMBEDDINGS_FOLDER_H

#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct folder {
    char path[64];
    int fd;
};

static inline struct folder folder_create(void)
{
    struct folder folder = {.path = "/tmp/rankd-test-XXXXXX"};
    cr_assert_not_null(mkdtemp(folder.path));
    folder.fd = open(folder.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cr_assert_geq(folder.fd, 0);
    return folder;
}

static inline void folder_write(const struct folder *folder, const char *name, const void *data, size_t bytes)
{
    int fd = openat(folder->fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0);
    for (size_t done = 0; done < bytes;) {
        ssize_t written = write(fd, (const char *)data + done, bytes - done);
        cr_assert_gt(written, 0);
        done += (size_t)written;
    }
    close(fd);
}

static inline void folder_truncate(const struct folder *folder, const char *name, off_t bytes)
{
    int fd = openat(folder->fd, name, O_WRONLY | O_CLOEXEC);
    cr_assert_geq(fd, 0);
    cr_assert_eq(ftruncate(fd, bytes), 0);
    close(fd);
}

/* Everything in it, and the folder. */
static inline void folder_destroy(struct folder *folder)
{
    DIR *directory = fdopendir(folder->fd);
    for (struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            unlinkat(folder->fd, entry->d_name, 0) != 0)
            unlinkat(folder->fd, entry->d_name, AT_REMOVEDIR);
    if (directory != NULL)
        closedir(directory);
    rmdir(folder->path);
}

#endif
