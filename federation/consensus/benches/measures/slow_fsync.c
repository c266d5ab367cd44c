/* A slow disk for any program: LD_PRELOAD this, and each flush takes 10 ms longer. With SLOW_FSYNC set, only flushes of
   files whose path ends with its value. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int is_slow(int file) {
    const char *only = getenv("SLOW_FSYNC");
    char link[64], path[4096];
    if (!only) return 1;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path);
    size_t end = strlen(only);
    return length >= (ssize_t)end && !memcmp(path + length - end, only, end);
}

static int slowly(const char *name, int file) {
    static const struct timespec delay = {0, 10 * 1000 * 1000};
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    int result = real(file);
    if (is_slow(file)) nanosleep(&delay, 0);
    return result;
}

int fsync(int file) { return slowly("fsync", file); }
int fdatasync(int file) { return slowly("fdatasync", file); }
