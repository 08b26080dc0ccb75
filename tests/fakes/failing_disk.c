/* A disk that fails: loaded before a program, the n-th call that changes something below a folder is
   refused, and from then on all if asked. Built and driven by failing_disk.py; Linux only. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static long seen, fail_at;
static int fail_with, fails_on;

void disk_arm(long at, int error, int on) { seen = 0; fail_at = at; fail_with = error; fails_on = on; }
long disk_seen(void) { return seen; }

static int below(const char *path) {
    const char *root = getenv("FAILING_DISK_ROOT");
    return root && path && strncmp(path, root, strlen(root)) == 0;
}

static int refused(const char *path) {
    if (!below(path)) return 0;
    long number = __atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST);
    if (fail_at == 0 || number < fail_at || (number > fail_at && !fails_on)) return 0;
    errno = fail_with;
    return 1;
}

static int refused_file(int file) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return refused(path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define CHANGES(flags) ((flags) & (O_WRONLY | O_RDWR | O_CREAT))

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
        if (CHANGES(flags) && refused(path)) return -1; \
        return REAL(name)(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define FOPEN(name) \
    FILE *name(const char *path, const char *mode) { \
        if (strpbrk(mode, "wa+") && refused(path)) return NULL; \
        return REAL(name)(path, mode); \
    }
FOPEN(fopen)
FOPEN(fopen64)

ssize_t write(int file, const void *data, size_t size) {
    return refused_file(file) ? -1 : REAL(write)(file, data, size);
}
ssize_t writev(int file, const struct iovec *parts, int count) {
    return refused_file(file) ? -1 : REAL(writev)(file, parts, count);
}
ssize_t pwrite(int file, const void *data, size_t size, off_t at) {
    return refused_file(file) ? -1 : REAL(pwrite)(file, data, size, at);
}
ssize_t pwrite64(int file, const void *data, size_t size, off64_t at) {
    return refused_file(file) ? -1 : REAL(pwrite64)(file, data, size, at);
}
ssize_t sendfile(int out, int in, off_t *at, size_t size) {
    return refused_file(out) ? -1 : REAL(sendfile)(out, in, at, size);
}
ssize_t sendfile64(int out, int in, off64_t *at, size_t size) {
    return refused_file(out) ? -1 : REAL(sendfile64)(out, in, at, size);
}
int fsync(int file) { return refused_file(file) ? -1 : REAL(fsync)(file); }
int ftruncate(int file, off_t size) { return refused_file(file) ? -1 : REAL(ftruncate)(file, size); }
int ftruncate64(int file, off64_t size) {
    return refused_file(file) ? -1 : REAL(ftruncate64)(file, size);
}
int rename(const char *old, const char *new) { return refused(new) ? -1 : REAL(rename)(old, new); }
int mkdir(const char *path, mode_t mode) { return refused(path) ? -1 : REAL(mkdir)(path, mode); }
