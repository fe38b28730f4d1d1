// Makes a chosen system call of a chosen process fail: preloaded (LD_PRELOAD) into an `apus serve` by the tests.
//
// FAULTS names a file of one `struct plan`, which the test and every process of the server map. The process `pid` counts its calls of `call`;
// the one that brings `countdown` to zero is not made and fails with `error`. `seen` counts all of them.
//
// The wall clock of all of them is ahead by `wall_clock`.
//
// NO_LANDLOCK makes Landlock look as on a kernel without it.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum call { RECV = 1, SEND, SENDMSG, ACCEPT4, EPOLL_CTL, EPOLL_WAIT, SETSOCKOPT, SHUTDOWN, IOCTL, GETPEERNAME, FCNTL, OPENAT2, FSTAT, SENDFILE, WRITE, READ, RECVMSG, PREAD };

struct plan {
    _Atomic int pid, call, error, countdown, seen, fired;
    // Seconds by which the wall clock is ahead.
    _Atomic int wall_clock;
};

static struct plan *plan;

__attribute__((constructor)) static void load(void) {
    const char *path = getenv("FAULTS");
    if (!path) return;
    int file = open(path, O_RDWR | O_CLOEXEC);
    if (file < 0) abort();
    plan = mmap(NULL, sizeof *plan, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (plan == MAP_FAILED) abort();
}

static int fails(enum call call) {
    if (!plan || plan->call != (int)call || plan->pid != getpid()) return 0;
    plan->seen++;
    if (plan->countdown == 0 || --plan->countdown > 0) return 0;
    plan->fired++;
    errno = plan->error;
    return 1;
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

ssize_t recv(int s, void *b, size_t n, int f) { REAL(recv); return fails(RECV) ? -1 : real(s, b, n, f); }
ssize_t send(int s, const void *b, size_t n, int f) { REAL(send); return fails(SEND) ? -1 : real(s, b, n, f); }
ssize_t sendmsg(int s, const struct msghdr *m, int f) { REAL(sendmsg); return fails(SENDMSG) ? -1 : real(s, m, f); }
ssize_t recvmsg(int s, struct msghdr *m, int f) { REAL(recvmsg); return fails(RECVMSG) ? -1 : real(s, m, f); }
int accept4(int s, struct sockaddr *restrict a, socklen_t *restrict l, int f) { REAL(accept4); return fails(ACCEPT4) ? -1 : real(s, a, l, f); }
int epoll_ctl(int e, int o, int d, struct epoll_event *v) { REAL(epoll_ctl); return fails(EPOLL_CTL) ? -1 : real(e, o, d, v); }
int epoll_wait(int e, struct epoll_event *v, int m, int t) { REAL(epoll_wait); return fails(EPOLL_WAIT) ? -1 : real(e, v, m, t); }
int setsockopt(int s, int l, int o, const void *v, socklen_t n) { REAL(setsockopt); return fails(SETSOCKOPT) ? -1 : real(s, l, o, v, n); }
int shutdown(int s, int h) { REAL(shutdown); return fails(SHUTDOWN) ? -1 : real(s, h); }
int getpeername(int s, struct sockaddr *restrict a, socklen_t *restrict l) { REAL(getpeername); return fails(GETPEERNAME) ? -1 : real(s, a, l); }
int fstat(int d, struct stat *s) { REAL(fstat); return fails(FSTAT) ? -1 : real(d, s); }
ssize_t sendfile(int o, int i, off_t *p, size_t n) { REAL(sendfile); return fails(SENDFILE) ? -1 : real(o, i, p, n); }
ssize_t write(int d, const void *b, size_t n) { REAL(write); return d > 2 && fails(WRITE) ? -1 : real(d, b, n); }
ssize_t read(int d, void *b, size_t n) { REAL(read); return fails(READ) ? -1 : real(d, b, n); }
ssize_t pread(int d, void *b, size_t n, off_t o) { REAL(pread); return fails(PREAD) ? -1 : real(d, b, n, o); }

int clock_gettime(clockid_t c, struct timespec *t) {
    REAL(clock_gettime);
    int result = real(c, t);
    if (result == 0 && c == CLOCK_REALTIME && plan) t->tv_sec += plan->wall_clock;
    return result;
}

int ioctl(int d, unsigned long r, ...) {
    REAL(ioctl);
    va_list list;
    va_start(list, r);
    void *argument = va_arg(list, void *);
    va_end(list);
    return fails(IOCTL) ? -1 : real(d, r, argument);
}

int fcntl(int d, int c, ...) {
    REAL(fcntl);
    va_list list;
    va_start(list, c);
    long argument = va_arg(list, long);
    va_end(list);
    return fails(FCNTL) ? -1 : real(d, c, argument);
}

int fcntl64(int d, int c, ...) {
    REAL(fcntl64);
    va_list list;
    va_start(list, c);
    long argument = va_arg(list, long);
    va_end(list);
    return fails(FCNTL) ? -1 : real(d, c, argument);
}

long syscall(long number, ...) {
    REAL(syscall);
    va_list list;
    va_start(list, number);
    long a[6];
    for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
    va_end(list);
    if (number == SYS_landlock_create_ruleset && getenv("NO_LANDLOCK")) {
        errno = ENOSYS;
        return -1;
    }
    if (number == SYS_openat2 && fails(OPENAT2)) return -1;
    return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
