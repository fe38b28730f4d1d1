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

// A GNU extension, hidden from Swift: the new connection is non-blocking and close-on-exec from the
// start.
int apus_accept(int listener, void *peer, unsigned int *length);

// mremap that may move: a variadic call. NULL when it fails.
void *apus_resize_pages(void *start, size_t from, size_t to);

// ioctl SIOCOUTQ: a variadic call.
int apus_unacknowledged_bytes(int descriptor);

// Opens `path` for reading beneath the directory `root` and nowhere else: no `..`, no absolute or
// magic link leaves it.
int apus_open_beneath(int root, const char *path);

// Names what stands there, the symbolic link itself if it is one (O_PATH, O_NOFOLLOW).
int apus_open_link_beneath(int root, const char *path);

// Names what stands at a path (O_PATH, a GNU extension).
int apus_open_name(const char *path);

// Makes a file there, or nowhere.
int apus_create_beneath(int root, const char *path);

// The macros that take a wait status apart.
int apus_exited(int status);
int apus_exit_status(int status);
int apus_term_signal(int status);

// The signal's name without SIG, or NULL (a GNU extension).
const char *apus_signal_name(int signal);

// CPUs this process may run on: the CPU_COUNT macro over sched_getaffinity; 0 when that fails.
int apus_usable_processors(void);

// Prepares this process for its parent's death, at which the kernel interrupts whatever it does:
// the listeners' numbers then name /dev/null, so that the port is free although a callback is
// stuck, and SIGALRM ends the process `seconds` later. To be called again after the process has
// changed its user, which clears the wish. Async-signal-safe calls only: dup3, alarm.
int apus_guard_orphan(pid_t parent, const int *listeners, int count, unsigned seconds);
// Other listeners from now on; no system call.
int apus_guard_listeners(const int *listeners, int count);
// More listeners than this are an error (E2BIG).
#define APUS_MAX_GUARDED 4096
// Power failure: nobody else sends it to a process.
#define APUS_ORPHANED 30

// Spreads new connections over the first `count` sockets of a SO_REUSEPORT group but for `except`,
// fewer than `count` in ascending order, at random (SO_ATTACH_REUSEPORT_CBPF).
int apus_steer(int listener, unsigned count, const unsigned *except, unsigned exceptions);

// SO_PASSCRED; and recvmsg of one packet with the pid of its sender (SCM_CREDENTIALS), without
// waiting.
int apus_pass_credentials(int socket);
ssize_t apus_receive_with_sender(int socket, void *buffer, size_t size, pid_t *sender);

// sendmsg and recvmsg of one packet with descriptors (SCM_RIGHTS), 1 to APUS_MAX_PASSED, without
// waiting; `descriptors` has room for that many.
#define APUS_MAX_PASSED 128
ssize_t apus_send_descriptors(int socket, const void *bytes, size_t size, const int *descriptors, int count);
ssize_t apus_receive_descriptors(int socket, void *buffer, size_t size, int *descriptors, int *count);

// pwritev2 at the end of what was written, without waiting (RWF_NOWAIT); to be had from a kernel of
// 5.4 for sockets, 6.4 for pipes.
ssize_t apus_write_without_waiting(int file, const void *bytes, size_t count);

// One datagram to a service manager's socket: a path, or an abstract name that begins with @.
int apus_notify(const char *path, const char *text);

// fcntl F_SETLK and F_GETLK on a whole file; the holder is 0 when there is none. A fork does not
// inherit the lock.
int apus_lock_file(int file);
pid_t apus_lock_holder(int file);

// What ps shows as the command line.
void apus_set_title(const char *title);

// Swift's overlay marks exec unavailable.
int apus_execute(const char *program, char *const *arguments);

// Calls that glibc has no function for, or hides; results and errno as the kernel gives them.
int apus_close_range(unsigned int first, unsigned int last);
int apus_set_identity(unsigned int user, unsigned int group);
int apus_drop_bounding_capability(int capability);
int apus_clear_ambient_capabilities(void);
int apus_clear_capabilities(void);
// Effective, permitted and inheritable, or'ed; all ones if they cannot be read.
unsigned long long apus_capabilities(void);
int apus_forbid_dumping(void);
int apus_forbid_new_privileges(void);
extern const int apus_limit_processes, apus_limit_file_size, apus_limit_core_size;
int apus_limit(int resource, unsigned long long value);
int apus_chroot(const char *path);

// The version of Landlock that the kernel speaks; negative if it has none.
int apus_landlock_version(void);
// A descriptor of rules that forbid all that version `version` knows, but connecting where
// `may_connect`.
int apus_landlock_create(int version, int may_connect);
// The file may be read; or the files beneath the directory, and directories among them be opened.
int apus_landlock_allow_reading(int rules, int beneath, int is_directory);
// The file may be read and written; or beneath the directory, files and directories be made,
// removed and renamed as well.
int apus_landlock_allow_writing(int version, int rules, int beneath, int is_directory);
// A socket may be bound to a port that the kernel chooses.
int apus_landlock_allow_any_port(int rules);
int apus_landlock_restrict(int rules);

// The ids of a name; the group is the user's own. 0, or an errno; ENOENT if there is no such name.
int apus_find_user(const char *name, unsigned int *user, unsigned int *group);
int apus_find_group(const char *name, unsigned int *group);

// A system call by its number, as an attacker would make it.
long apus_raw_call(long number, long a, long b, long c, long d, long e, long f);
// The same through the gate of 32-bit programs: getpid.
long apus_compatible_getpid(void);

// Whether processes whose parents have ended become children of this one: PID 1, or
// PR_SET_CHILD_SUBREAPER.
int apus_inherits_orphans(void);
// A child that has ended and is not reaped yet, which it stays; 0 if there is none, -1 if there are
// no children.
pid_t apus_ended_child(void);

// Lines of standard output leave as they end, whatever it is.
void apus_prepare_streams(void);
// What the C library's streams still hold is written.
void apus_flush_streams(void);
// Reads the time zone, sets TZ if it is unset, and maps the locales, so that none of it takes a
// file later.
void apus_load_time_zone(void);
// Makes CoreFoundation look for the program's bundle, if it is there: later it could not, and
// Bundle.main traps.
void apus_load_bundle(void);
// From now on getcwd, stat of "/" and sysconf(_SC_PHYS_PAGES) give what they give now where the
// kernel refuses them.
void apus_load_facts(void);

// From now on what is written to `stderr` is sent to `channel`, too: a record of `tag` and at most
// `max` bytes.
void apus_relay_errors(int channel, unsigned char tag, unsigned char note_tag, size_t max);
// Sends a record behind the note's tag, for the log. Nothing before apus_relay_errors.
void apus_relay_note(const char *text);

// From here on no thread starts, and no timer or event source of Dispatch and CoreFoundation fires:
// see Interposition.c. The first of each is noted.
void apus_refuse_threads(void);
// Passes every job of Swift's global executor and of the main actor to `take`, and what Swift does
// after a delay (Task.sleep) to `take_later`, which calls `work(context)` once, `nanoseconds`
// later.
// With `all`, also work for Dispatch's global queues, and asyncAfter. Both are called on the thread
// that enqueues. With null for both, nothing is passed any more. -1 if the runtime has no such
// hook.
int apus_take_jobs(
    void (*take)(void (*work)(void *), void *context), void (*take_later)(uint64_t nanoseconds, void (*work)(void *), void *context),
    int all);
// Whether Dispatch has made the eventfd of its main queue or a loop of its own in this process or
// in the one that forked it; 0 where that cannot be seen, as in a static program.
int apus_dispatch_is_used(void);
// An eventfd that is readable while Dispatch's main queue, which is Swift's main actor, has work;
// -1 if there is no Dispatch.
int apus_main_queue(void);
// Does the main queue's work.
void apus_serve_main_queue(void);

#endif
