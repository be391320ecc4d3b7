/* Stands between a process and its disk (LD_PRELOAD).
 *
 * DISK_SHIM_ROOT    the folder whose files are watched
 * DISK_SHIM_FAULTS  a file with "<ending of a path>": one sync of such a file fails with EIO; with
 *                   "!<ending of a path>" it kills the process; the file is removed as it is read
 * DISK_SHIM_NTH     "S12": the 12th sync of a database or its log fails with EIO; "W12": the 12th write
 * DISK_SHIM_KILL    a number: so many changes after that fault the process is killed
 * DISK_SHIM_RECORD  a file that every change of the watched files and folders is appended to
 *
 * A record: one byte for the operation, 4 bytes for the length of the path, 8 for an offset, 8 for
 * the file's inode, 4 for the length of the data, then path and data, integers as the machine writes
 * them. Operations: W written, E write failed, T truncated, A allocated, S synced, F sync failed, C created,
 * D folder made, U name removed, L linked and R renamed (the data is the new path).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define MAKES(flags) (((flags) & O_CREAT) || ((flags) & O_TMPFILE) == O_TMPFILE)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static ssize_t raw_write(int fd, const void *data, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t);
    return real(fd, data, size);
}

static int raw_open(const char *path, int flags, mode_t mode) {
    REAL(int, "open", const char *, int, ...);
    return real(path, flags, mode);
}

static int is_watched(const char *path) {
    const char *root = getenv("DISK_SHIM_ROOT");
    return root && strncmp(path, root, strlen(root)) == 0;
}

static uint64_t inode_at(const char *path) {
    struct stat found;
    return lstat(path, &found) == 0 ? found.st_ino : 0;
}

static uint64_t inode_of(int fd) {
    struct stat found;
    return fstat(fd, &found) == 0 ? found.st_ino : 0;
}

/* The path of an open file, or 0 when it is not watched. */
static int watched_fd(int fd, char *path) {
    char link[64];
    if (!getenv("DISK_SHIM_ROOT")) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, PATH_MAX - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return is_watched(path);
}

static void note(char operation, const char *path, uint64_t inode, uint64_t offset,
                 const void *data, uint32_t size) {
    static int fd = -1;
    const char *record = getenv("DISK_SHIM_RECORD");
    if (!record) return;
    if (fd < 0) fd = raw_open(record, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    uint32_t path_size = strlen(path);
    char head[25];
    head[0] = operation;
    memcpy(head + 1, &path_size, 4);
    memcpy(head + 5, &offset, 8);
    memcpy(head + 13, &inode, 8);
    memcpy(head + 21, &size, 4);
    struct iovec parts[] = {{head, sizeof head}, {(void *)path, path_size}, {(void *)data, size}};
    writev(fd, parts, 3);
}

static void note_name(char operation, const char *path, const char *new_path) {
    note(operation, path, inode_at(new_path), 0, new_path, strlen(new_path));
}

/* Whether this sync is to fail. May kill the process: its record is whole, as the lock is held. */
static int is_faulty(const char *path) {
    const char *faults = getenv("DISK_SHIM_FAULTS");
    if (!faults) return 0;
    int fd = raw_open(faults, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) return 0;
    char fault[256];
    ssize_t size = read(fd, fault, sizeof fault - 1);
    close(fd);
    while (size > 0 && fault[size - 1] == '\n') size--;
    int kills = size > 0 && fault[0] == '!';
    const char *ending = fault + kills;
    size -= kills;
    if (size <= 0 || (size_t)size > strlen(path)) return 0;
    if (strncmp(path + strlen(path) - size, ending, size) != 0) return 0;
    REAL(int, "unlink", const char *);
    real(faults);
    if (kills) raise(SIGKILL);
    return 1;
}

/* Whether this sync (S) or write (W) of a database or its log is the one that is to fail. */
static int since_fault = -1;

static int is_nth(char kind, const char *path) {
    static long syncs, writes;
    const char *nth = getenv("DISK_SHIM_NTH");
    if (!nth || nth[0] != kind || !strstr(path, ".db") || strstr(path, ".lock")) return 0;
    if ((kind == 'S' ? ++syncs : ++writes) != atol(nth + 1)) return 0;
    since_fault = 0;
    return 1;
}

/* A change is about to be made. */
static void step(void) {
    const char *kill = getenv("DISK_SHIM_KILL");
    if (kill && since_fault >= 0 && since_fault++ == atoi(kill)) raise(SIGKILL);
}

static int synced(int fd, int (*real)(int)) {
    char path[PATH_MAX];
    if (!watched_fd(fd, path)) return real(fd);
    pthread_mutex_lock(&lock);
    int result = 0;
    step();
    if (is_faulty(path) || is_nth('S', path)) {
        errno = EIO;
        result = -1;
        note('F', path, inode_of(fd), 0, "", 0);
    } else {
        result = real(fd);
        note('S', path, inode_of(fd), 0, "", 0);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int fdatasync(int fd) { REAL(int, "fdatasync", int); return synced(fd, real); }
int fsync(int fd) { REAL(int, "fsync", int); return synced(fd, real); }

static ssize_t written(int fd, const void *data, size_t size, off_t at,
                       ssize_t (*real)(int, const void *, size_t, off_t)) {
    char path[PATH_MAX];
    if (!watched_fd(fd, path)) return real(fd, data, size, at);
    pthread_mutex_lock(&lock);
    step();
    ssize_t result = -1;
    if (is_nth('W', path)) {
        note('E', path, inode_of(fd), at, "", 0);
        errno = EIO;
    } else {
        result = real(fd, data, size, at);
    }
    if (result > 0) note('W', path, inode_of(fd), at, data, result);
    pthread_mutex_unlock(&lock);
    return result;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    REAL(ssize_t, "pwrite", int, const void *, size_t, off_t);
    return written(fd, data, size, at, real);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off_t at) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off_t);
    return written(fd, data, size, at, real);
}

ssize_t write(int fd, const void *data, size_t size) {
    char path[PATH_MAX];
    if (!watched_fd(fd, path)) return raw_write(fd, data, size);
    pthread_mutex_lock(&lock);
    off_t at = lseek(fd, 0, SEEK_CUR);
    ssize_t result = raw_write(fd, data, size);
    if (result > 0) note('W', path, inode_of(fd), at < 0 ? 0 : at, data, result);
    pthread_mutex_unlock(&lock);
    return result;
}

static int truncated(int fd, off_t size, int (*real)(int, off_t)) {
    char path[PATH_MAX];
    int watched = watched_fd(fd, path);
    pthread_mutex_lock(&lock);
    int result = real(fd, size);
    if (watched && result == 0) note('T', path, inode_of(fd), size, "", 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int ftruncate(int fd, off_t size) { REAL(int, "ftruncate", int, off_t); return truncated(fd, size, real); }
int ftruncate64(int fd, off_t size) { REAL(int, "ftruncate64", int, off_t); return truncated(fd, size, real); }

static int allocated(int fd, off_t at, off_t size, int (*real)(int, off_t, off_t)) {
    char path[PATH_MAX];
    int watched = watched_fd(fd, path);
    pthread_mutex_lock(&lock);
    int result = real(fd, at, size);
    if (watched && result == 0) note('A', path, inode_of(fd), at + size, "", 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int posix_fallocate(int fd, off_t at, off_t size) {
    REAL(int, "posix_fallocate", int, off_t, off_t);
    return allocated(fd, at, size, real);
}
int posix_fallocate64(int fd, off_t at, off_t size) {
    REAL(int, "posix_fallocate64", int, off_t, off_t);
    return allocated(fd, at, size, real);
}

int unlink(const char *path) {
    REAL(int, "unlink", const char *);
    pthread_mutex_lock(&lock);
    uint64_t inode = is_watched(path) ? inode_at(path) : 0;
    int result = real(path);
    if (result == 0 && inode) note('U', path, inode, 0, "", 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int mkdir(const char *path, mode_t mode) {
    REAL(int, "mkdir", const char *, mode_t);
    pthread_mutex_lock(&lock);
    int result = real(path, mode);
    if (result == 0 && is_watched(path)) note('D', path, inode_at(path), 0, "", 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int rename(const char *path, const char *new_path) {
    REAL(int, "rename", const char *, const char *);
    pthread_mutex_lock(&lock);
    int result = real(path, new_path);
    if (result == 0 && is_watched(new_path)) note_name('R', path, new_path);
    pthread_mutex_unlock(&lock);
    return result;
}

int linkat(int from, const char *path, int to, const char *name, int flags) {
    REAL(int, "linkat", int, const char *, int, const char *, int);
    char folder[PATH_MAX], new_path[2 * PATH_MAX];
    int watched = watched_fd(to, folder);
    pthread_mutex_lock(&lock);
    int result = real(from, path, to, name, flags);
    snprintf(new_path, sizeof new_path, "%s/%s", watched ? folder : "", name);
    if (result == 0 && watched) note_name('L', path, new_path);
    pthread_mutex_unlock(&lock);
    return result;
}

/* A file without a name (O_TMPFILE) is created too. */
static void note_opened(const char *path, int fd, int flags, int is_new) {
    if (fd < 0) return;
    if (is_new || (flags & O_TMPFILE) == O_TMPFILE) note('C', path, inode_of(fd), 0, "", 0);
    else if (flags & O_TRUNC) note('T', path, inode_of(fd), 0, "", 0);
}

static int opened(const char *path, int flags, mode_t mode, const char *name) {
    int (*real)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, name);
    if (!MAKES(flags) || !is_watched(path)) return real(path, flags, mode);
    pthread_mutex_lock(&lock);
    int is_new = (flags & O_CREAT) && !inode_at(path);
    int result = real(path, flags, mode);
    note_opened((flags & O_TMPFILE) == O_TMPFILE ? "" : path, result, flags, is_new);
    pthread_mutex_unlock(&lock);
    return result;
}

#define MODE(flags) \
    mode_t mode = 0; \
    if (MAKES(flags)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, int); va_end(rest); }

int open(const char *path, int flags, ...) { MODE(flags); return opened(path, flags, mode, "open"); }
int open64(const char *path, int flags, ...) { MODE(flags); return opened(path, flags, mode, "open64"); }
