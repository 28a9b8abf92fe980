/* A disk that fails for a while: preloaded, it answers EIO to some writes and syncs of the files of one folder.
 *
 * DISK_ERRORS_FOLDER names the folder, DISK_ERRORS_FROM the first operation that fails, DISK_ERRORS_COUNT how many do.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static const char *folder;
static long operations, from, count;

__attribute__((constructor)) static void read_environment(void) {
  folder = getenv("DISK_ERRORS_FOLDER");
  if (!folder) return;
  from = atol(getenv("DISK_ERRORS_FROM"));
  count = atol(getenv("DISK_ERRORS_COUNT"));
}

static int fails(int file) {
  char link[64], path[PATH_MAX];
  ssize_t length;
  long now;
  if (!folder) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  length = readlink(link, path, sizeof path - 1);
  if (length <= 0) return 0;
  path[length] = 0;
  if (strncmp(path, folder, strlen(folder))) return 0;
  now = __sync_fetch_and_add(&operations, 1);
  if (now < from || now >= from + count) return 0;
  errno = EIO;
  return 1;
}

ssize_t pwrite64(int file, const void *bytes, size_t size, off_t at) {
  static ssize_t (*real)(int, const void *, size_t, off_t);
  if (!real) real = dlsym(RTLD_NEXT, "pwrite64");
  return fails(file) ? -1 : real(file, bytes, size, at);
}

ssize_t pwrite(int file, const void *bytes, size_t size, off_t at) { return pwrite64(file, bytes, size, at); }

int fsync(int file) {
  static int (*real)(int);
  if (!real) real = dlsym(RTLD_NEXT, "fsync");
  return fails(file) ? -1 : real(file);
}

int fdatasync(int file) {
  static int (*real)(int);
  if (!real) real = dlsym(RTLD_NEXT, "fdatasync");
  return fails(file) ? -1 : real(file);
}
