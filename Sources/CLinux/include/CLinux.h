// Calls and macros that Swift cannot import from the C library. No logic lives here.
#ifndef APUS_CLINUX_H
#define APUS_CLINUX_H

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/types.h>

// Swift's overlay marks fork unavailable; the master forks before any thread exists.
pid_t apus_fork(void);

int apus_pidfd_open(pid_t pid);

// A GNU extension, hidden from Swift: the new connection is non-blocking and close-on-exec from the start.
int apus_accept(int listener, void *peer, unsigned int *length);

// ioctl SIOCOUTQ: a variadic call.
int apus_unacknowledged_bytes(int descriptor);

// Opens `path` for reading beneath the directory `root` and nowhere else: no `..`, no absolute or magic link leaves it.
int apus_open_beneath(int root, const char *path);

// The macros that take a wait status apart.
int apus_exited(int status);
int apus_exit_status(int status);
int apus_term_signal(int status);

// The signal's name without SIG, or NULL (a GNU extension).
const char *apus_signal_name(int signal);

// CPUs this process may run on: the CPU_COUNT macro over sched_getaffinity; 0 when that fails.
int apus_usable_processors(void);

// The signal this process gets when its parent dies.
int apus_die_with_parent(int signal);

#endif
