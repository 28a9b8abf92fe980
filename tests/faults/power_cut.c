/* A disk that loses power: preloaded, it remembers what was written to the files of one folder since their last fsync.
 *
 * At the cut each such write is taken back, and then any of them, whole or torn at a sector, reaches the disk after
 * all, as a write cache may have it. The process ends there and then. Compiled and driven by power_cuts.py.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECTOR 512

struct change {
  char path[PATH_MAX];
  off_t at, size_before, size_after;
  size_t count, old_count;
  char *old_bytes, *new_bytes;
  struct change *before;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct change *newest;
static const char *folder;
static long operations_left = -1;
static unsigned seed;

static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_ftruncate)(int, off_t);
static int (*real_unlink)(const char *);

__attribute__((constructor)) static void find_real(void) {
  real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
  real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
  real_unlink = dlsym(RTLD_NEXT, "unlink");
}

/* Called by the test: cut before that many more writes and syncs of files in the folder; below 0 never. */
void power_cut_after(const char *of_folder, long operations, unsigned with_seed) {
  pthread_mutex_lock(&mutex);
  folder = strdup(of_folder);
  operations_left = operations;
  seed = with_seed;
  pthread_mutex_unlock(&mutex);
}

static int is_watched(int file, char *path) {
  char link[64];
  ssize_t length;
  if (!folder) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  length = readlink(link, path, PATH_MAX - 1);
  if (length <= 0) return 0;
  path[length] = 0;
  if (strncmp(path, folder, strlen(folder))) return 0;
  return !(length > 4 && !strcmp(path + length - 4, "-shm")); /* not durable, and made anew */
}

static void apply(struct change *change, int back) {
  int file = open(change->path, O_WRONLY);
  if (file < 0) return;
  if (back) {
    if (change->old_count) real_pwrite(file, change->old_bytes, change->old_count, change->at);
    real_ftruncate(file, change->size_before);
  } else if (change->new_bytes) {
    size_t count = change->count;
    if (rand_r(&seed) % 4 == 0 && count > SECTOR) count = count / 2 / SECTOR * SECTOR;
    real_pwrite(file, change->new_bytes, count, change->at);
  } else {
    real_ftruncate(file, change->size_after);
  }
  close(file);
}

static void cut(void) {
  struct change *change, *later = NULL, *next;
  int keep = rand_r(&seed) % 3; /* nothing arrives, half of it, or nearly all */
  for (change = newest; change; change = change->before) apply(change, 1);
  for (change = newest; change; change = next) { /* oldest first from here on */
    next = change->before;
    change->before = later;
    later = change;
  }
  for (change = later; change; change = change->before)
    if (keep == 1 ? rand_r(&seed) % 2 : keep == 2 ? rand_r(&seed) % 8 : 0) apply(change, 0);
  kill(getpid(), SIGKILL);
  pause();
}

static void count_down(void) {
  if (operations_left >= 0 && operations_left-- == 0) cut();
}

static void remember(int file, const char *path, const void *bytes, size_t count, off_t at) {
  struct change *change = calloc(1, sizeof *change);
  struct stat status;
  int old = open(path, O_RDONLY);
  fstat(file, &status);
  strcpy(change->path, path);
  change->at = at;
  change->count = count;
  change->size_before = status.st_size;
  if (bytes) {
    change->new_bytes = memcpy(malloc(count), bytes, count);
  } else {
    change->size_after = at;
    count = status.st_size > at ? status.st_size - at : 0;
  }
  change->old_bytes = malloc(count + 1);
  ssize_t found = pread(old, change->old_bytes, count, at);
  change->old_count = found > 0 ? found : 0;
  close(old);
  change->before = newest;
  newest = change;
}

static void forget(const char *path) {
  for (struct change **place = &newest; *place;) {
    struct change *change = *place;
    if (strcmp(change->path, path)) {
      place = &change->before;
      continue;
    }
    *place = change->before;
    free(change->old_bytes);
    free(change->new_bytes);
    free(change);
  }
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off_t at) {
  char path[PATH_MAX];
  if (!is_watched(file, path)) return real_pwrite(file, bytes, count, at);
  pthread_mutex_lock(&mutex);
  count_down();
  remember(file, path, bytes, count, at);
  ssize_t done = real_pwrite(file, bytes, count, at);
  pthread_mutex_unlock(&mutex);
  return done;
}

ssize_t pwrite(int file, const void *bytes, size_t count, off_t at) { return pwrite64(file, bytes, count, at); }

int ftruncate64(int file, off_t size) {
  char path[PATH_MAX];
  if (!is_watched(file, path)) return real_ftruncate(file, size);
  pthread_mutex_lock(&mutex);
  count_down();
  remember(file, path, NULL, 0, size);
  int done = real_ftruncate(file, size);
  pthread_mutex_unlock(&mutex);
  return done;
}

int ftruncate(int file, off_t size) { return ftruncate64(file, size); }

static int sync_of(int file) {
  char path[PATH_MAX];
  if (!is_watched(file, path)) return 0; /* only the power of this disk is ever cut */
  pthread_mutex_lock(&mutex);
  count_down();
  forget(path);
  pthread_mutex_unlock(&mutex);
  return 0;
}

int fsync(int file) { return sync_of(file); }

int fdatasync(int file) { return sync_of(file); }

int unlink(const char *path) { /* as if durable at once; a new file of that name has nothing to do with the old one */
  pthread_mutex_lock(&mutex);
  forget(path);
  pthread_mutex_unlock(&mutex);
  return real_unlink(path);
}
