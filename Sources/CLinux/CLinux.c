#define _GNU_SOURCE
#include "CLinux.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <locale.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <linux/filter.h>
#include <linux/openat2.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

pid_t apus_fork(void) { return fork(); }

int apus_pidfd_open(pid_t pid) { return (int)syscall(SYS_pidfd_open, pid, 0); }

int apus_accept(int listener, void *peer, unsigned int *length) {
    return accept4(listener, peer, length, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

void *apus_resize_pages(void *start, size_t from, size_t to) {
    void *moved = mremap(start, from, to, MREMAP_MAYMOVE);
    return moved == MAP_FAILED ? NULL : moved;
}

int apus_unacknowledged_bytes(int descriptor) {
    int bytes = 0;
    return ioctl(descriptor, SIOCOUTQ, &bytes) == 0 ? bytes : -1;
}

int apus_open_beneath(int root, const char *path) {
    struct open_how how = {
        .flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
    };
    return (int)syscall(SYS_openat2, root, path, &how, sizeof how);
}

int apus_open_link_beneath(int root, const char *path) {
    struct open_how how = {
        .flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
    };
    return (int)syscall(SYS_openat2, root, path, &how, sizeof how);
}

int apus_open_name(const char *path) { return open(path, O_PATH | O_CLOEXEC); }

int apus_create_beneath(int root, const char *path) {
    struct open_how how = {.flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, .mode = 0600, .resolve = RESOLVE_BENEATH};
    return (int)syscall(SYS_openat2, root, path, &how, sizeof how);
}

int apus_inherits_orphans(void) {
    int is_subreaper = 0;
    return getpid() == 1 || (prctl(PR_GET_CHILD_SUBREAPER, &is_subreaper, 0, 0, 0) == 0 && is_subreaper);
}

pid_t apus_ended_child(void) {
    siginfo_t end = {0};
    return waitid(P_ALL, 0, &end, WEXITED | WNOHANG | WNOWAIT) == 0 ? end.si_pid : -1;
}

int apus_exited(int status) { return WIFEXITED(status); }
int apus_exit_status(int status) { return WEXITSTATUS(status); }
int apus_term_signal(int status) { return WTERMSIG(status); }

const char *apus_signal_name(int signal) { return sigabbrev_np(signal); }

int apus_usable_processors(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 0;
}

int apus_close_range(unsigned int first, unsigned int last) { return close_range(first, last, 0); }

int apus_set_identity(unsigned int user, unsigned int group) {
    if (setgroups(0, NULL) != 0) return -1;
    if (setresgid(group, group, group) != 0) return -1;
    return setresuid(user, user, user);
}

int apus_drop_bounding_capability(int capability) { return prctl(PR_CAPBSET_DROP, capability, 0, 0, 0); }

int apus_clear_ambient_capabilities(void) { return prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); }

int apus_clear_capabilities(void) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {{0}};
    return (int)syscall(SYS_capset, &header, data);
}

unsigned long long apus_capabilities(void) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
    if (syscall(SYS_capget, &header, data) != 0) return ~0ULL;
    unsigned int low = data[0].effective | data[0].permitted | data[0].inheritable;
    unsigned int high = data[1].effective | data[1].permitted | data[1].inheritable;
    return (unsigned long long)high << 32 | low;
}

int apus_forbid_dumping(void) { return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); }

int apus_forbid_new_privileges(void) { return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); }

const int apus_limit_processes = RLIMIT_NPROC, apus_limit_file_size = RLIMIT_FSIZE, apus_limit_core_size = RLIMIT_CORE;

int apus_limit(int resource, unsigned long long value) {
    struct rlimit limit = {.rlim_cur = value, .rlim_max = value};
    return setrlimit((__rlimit_resource_t)resource, &limit);
}

int apus_chroot(const char *path) { return chroot(path) != 0 ? -1 : chdir("/"); }

// What later versions of the header than Debian 12's define.
#ifndef LANDLOCK_ACCESS_FS_TRUNCATE
#define LANDLOCK_ACCESS_FS_TRUNCATE (1ULL << 14)
#endif
#define APUS_LANDLOCK_FS_IOCTL_DEV (1ULL << 15)
#define APUS_LANDLOCK_NET_BIND (1ULL << 0)
#define APUS_LANDLOCK_NET_CONNECT (1ULL << 1)
#define APUS_LANDLOCK_SCOPES 3ULL
#define APUS_LANDLOCK_RULE_NET_PORT 2
struct apus_landlock_rules { unsigned long long files, network, scopes; };
struct apus_landlock_port { unsigned long long allowed, port; };

int apus_landlock_version(void) {
    return (int)syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
}

int apus_landlock_create(int version, int may_connect) {
    struct apus_landlock_rules rules = {.files = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1};
    if (version >= 2) rules.files |= LANDLOCK_ACCESS_FS_REFER;
    if (version >= 3) rules.files |= LANDLOCK_ACCESS_FS_TRUNCATE;
    if (version >= 5) rules.files |= APUS_LANDLOCK_FS_IOCTL_DEV;
    if (version >= 4) rules.network = APUS_LANDLOCK_NET_BIND | (may_connect ? 0 : APUS_LANDLOCK_NET_CONNECT);
    if (version >= 6) rules.scopes = APUS_LANDLOCK_SCOPES;
    size_t size = version >= 6 ? 24 : version >= 4 ? 16 : 8;
    return (int)syscall(SYS_landlock_create_ruleset, &rules, size, 0);
}

int apus_landlock_allow_reading(int rules, int beneath, int is_directory) {
    struct landlock_path_beneath_attr attribute = {.allowed_access = LANDLOCK_ACCESS_FS_READ_FILE, .parent_fd = beneath};
    if (is_directory) attribute.allowed_access |= LANDLOCK_ACCESS_FS_READ_DIR;
    return (int)syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &attribute, 0);
}

int apus_landlock_allow_writing(int version, int rules, int beneath, int is_directory) {
    struct landlock_path_beneath_attr attribute = {
        .allowed_access = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE, .parent_fd = beneath};
    if (version >= 3) attribute.allowed_access |= LANDLOCK_ACCESS_FS_TRUNCATE;
    if (is_directory) {
        attribute.allowed_access |= LANDLOCK_ACCESS_FS_READ_DIR | LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |
            LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG;
        if (version >= 2) attribute.allowed_access |= LANDLOCK_ACCESS_FS_REFER;
    }
    return (int)syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &attribute, 0);
}

int apus_landlock_allow_any_port(int rules) {
    struct apus_landlock_port attribute = {.allowed = APUS_LANDLOCK_NET_BIND, .port = 0};
    return (int)syscall(SYS_landlock_add_rule, rules, APUS_LANDLOCK_RULE_NET_PORT, &attribute, 0);
}

int apus_landlock_restrict(int rules) { return (int)syscall(SYS_landlock_restrict_self, rules, 0); }

int apus_find_user(const char *name, unsigned int *user, unsigned int *group) {
    errno = 0;
    struct passwd *entry = getpwnam(name);
    if (!entry) return errno ? errno : ENOENT;
    *user = entry->pw_uid;
    *group = entry->pw_gid;
    return 0;
}

int apus_find_group(const char *name, unsigned int *group) {
    errno = 0;
    struct group *entry = getgrnam(name);
    if (!entry) return errno ? errno : ENOENT;
    *group = entry->gr_gid;
    return 0;
}

long apus_raw_call(long number, long a, long b, long c, long d, long e, long f) { return syscall(number, a, b, c, d, e, f); }

long apus_compatible_getpid(void) {
#if defined(__x86_64__)
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(20) : "memory");
    return result;
#else
    errno = ENOSYS;
    return -1;
#endif
}
// What an orphan does although its loop is stuck: see apus_guard_orphan. All of it is set before
// the handler is.
static int orphan_listeners[APUS_MAX_GUARDED];
static volatile sig_atomic_t orphan_listener_count;
static int orphan_replacement = -1;
static unsigned orphan_seconds;
static pid_t orphan_parent;

static void orphaned(int signal) {
    (void)signal;
    if (getppid() == orphan_parent) return;
    int code = errno;
    for (int i = 0; i < orphan_listener_count; i++) dup3(orphan_replacement, orphan_listeners[i], O_CLOEXEC);
    alarm(orphan_seconds);
    errno = code;
}

int apus_guard_listeners(const int *listeners, int count) {
    if (count > APUS_MAX_GUARDED) {
        errno = E2BIG;
        return -1;
    }
    orphan_listener_count = 0;
    memcpy(orphan_listeners, listeners, sizeof(int) * (size_t)count);
    orphan_listener_count = count;
    return 0;
}

int apus_guard_orphan(pid_t parent, const int *listeners, int count, unsigned seconds) {
    if (apus_guard_listeners(listeners, count) != 0) return -1;
    orphan_seconds = seconds;
    orphan_parent = parent;
    if (orphan_replacement < 0) orphan_replacement = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (orphan_replacement < 0) return -1;
    struct sigaction action = {.sa_handler = orphaned, .sa_flags = SA_RESTART};
    if (sigaction(APUS_ORPHANED, &action, NULL) != 0) return -1;
    signal(SIGALRM, SIG_DFL);
    // Whoever started the master may have blocked them.
    sigset_t both;
    sigemptyset(&both);
    sigaddset(&both, APUS_ORPHANED);
    sigaddset(&both, SIGALRM);
    sigprocmask(SIG_UNBLOCK, &both, NULL);
    return prctl(PR_SET_PDEATHSIG, APUS_ORPHANED, 0, 0, 0);
}

int apus_steer(int listener, unsigned count, const unsigned *except, unsigned exceptions) {
    struct sock_filter code[BPF_MAXINSNS];
    if (exceptions >= count || 2 * exceptions + 3 > BPF_MAXINSNS) {
        errno = EINVAL;
        return -1;
    }
    unsigned short length = 0;
    code[length++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)(SKF_AD_OFF + SKF_AD_RANDOM));
    code[length++] = (struct sock_filter)BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, count - exceptions);
    // The n-th of those that are left: each exception at or below moves it up by one.
    for (unsigned i = 0; i < exceptions; i++) {
        code[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, except[i], 0, 1);
        code[length++] = (struct sock_filter)BPF_STMT(BPF_ALU | BPF_ADD | BPF_K, 1);
    }
    code[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_A, 0);
    struct sock_fprog program = {.len = length, .filter = code};
    return setsockopt(listener, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof program);
}

int apus_pass_credentials(int socket) {
    int on = 1;
    return setsockopt(socket, SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
}

ssize_t apus_receive_with_sender(int socket, void *buffer, size_t size, pid_t *sender) {
    // Room for the credentials and no descriptor: the kernel closes those that somebody sends
    // along.
    union {
        char bytes[CMSG_SPACE(sizeof(struct ucred))];
        struct cmsghdr aligned;
    } control;
    struct iovec piece = {.iov_base = buffer, .iov_len = size};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    *sender = 0;
    ssize_t count = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (count < 0) return count;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level != SOL_SOCKET) continue;
        if (header->cmsg_type == SCM_CREDENTIALS) {
            struct ucred credentials;
            memcpy(&credentials, CMSG_DATA(header), sizeof credentials);
            *sender = credentials.pid;
        } else if (header->cmsg_type == SCM_RIGHTS) {
            size_t descriptors = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            for (size_t i = 0; i < descriptors; i++) {
                int descriptor;
                memcpy(&descriptor, CMSG_DATA(header) + i * sizeof(int), sizeof descriptor);
                close(descriptor);
            }
        }
    }
    return count;
}

ssize_t apus_send_descriptors(int socket, const void *bytes, size_t size, const int *descriptors, int count) {
    union {
        char bytes[CMSG_SPACE(sizeof(int) * APUS_MAX_PASSED)];
        struct cmsghdr aligned;
    } control;
    if (count < 1 || count > APUS_MAX_PASSED) {
        errno = EINVAL;
        return -1;
    }
    struct iovec piece = {.iov_base = (void *)bytes, .iov_len = size};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = control.bytes};
    message.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)count);
    memset(control.bytes, 0, message.msg_controllen);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)count);
    memcpy(CMSG_DATA(header), descriptors, sizeof(int) * (size_t)count);
    return sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

ssize_t apus_receive_descriptors(int socket, void *buffer, size_t size, int *descriptors, int *count) {
    union {
        char bytes[CMSG_SPACE(sizeof(int) * APUS_MAX_PASSED)];
        struct cmsghdr aligned;
    } control;
    struct iovec piece = {.iov_base = buffer, .iov_len = size};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    *count = 0;
    ssize_t length = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (length < 0) return length;
    // The kernel puts all of a message's descriptors in one header, and no more than there is room
    // for.
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
        *count = (int)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(descriptors, CMSG_DATA(header), sizeof(int) * (size_t)*count);
    }
    return length;
}

ssize_t apus_write_without_waiting(int file, const void *bytes, size_t count) {
    struct iovec piece = {.iov_base = (void *)bytes, .iov_len = count};
    return pwritev2(file, &piece, 1, -1, RWF_NOWAIT);
}

int apus_notify(const char *path, const char *text) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(address.sun_path, path, length);
    if (path[0] == '@') address.sun_path[0] = 0;
    int descriptor = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (descriptor < 0) return -1;
    ssize_t sent = sendto(
        descriptor, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&address,
        (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length));
    int code = errno;
    close(descriptor);
    errno = code;
    return sent < 0 ? -1 : 0;
}

int apus_lock_file(int file) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return fcntl(file, F_SETLK, &lock);
}

pid_t apus_lock_holder(int file) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(file, F_GETLK, &lock) != 0 || lock.l_type == F_UNLCK) return 0;
    return lock.l_pid;
}

// The memory of argv and the environment, one after the other, is what /proc shows as the command
// line.
static char *title_start;
static size_t title_room;

__attribute__((constructor)) static void find_title_room(int count, char **arguments, char **variables) {
    if (count < 1) return;
    char *end = arguments[0];
    for (int i = 0; i < count; i++)
        if (arguments[i] == end) end += strlen(end) + 1;
    for (int i = 0; variables[i]; i++)
        if (variables[i] == end) end += strlen(end) + 1;
    title_start = arguments[0];
    title_room = (size_t)(end - arguments[0]);
}

void apus_set_title(const char *title) {
    static int is_moved;
    if (!title_start || title_room < 2) return;
    if (!is_moved) {
        for (char **variable = environ; *variable; variable++) {
            char *copy = strdup(*variable);
            if (!copy) return;
            *variable = copy;
        }
        is_moved = 1;
    }
    size_t length = strlen(title);
    if (length > title_room - 1) length = title_room - 1;
    memcpy(title_start, title, length);
    memset(title_start + length, 0, title_room - length);
}

int apus_execute(const char *program, char *const *arguments) { return execvp(program, arguments); }

void apus_prepare_streams(void) { setvbuf(stdout, NULL, _IOLBF, 0); }

void apus_flush_streams(void) { fflush(NULL); }

void apus_load_time_zone(void) {
    const char *zone = getenv("TZ");
    if (!zone) {
        // A name is what Foundation knows; the C library looks at the file's date again and again
        // unless TZ is set.
        char path[512];
        ssize_t length = readlink("/etc/localtime", path, sizeof path - 1);
        path[length > 0 ? length : 0] = 0;
        const char *name = strstr(path, "zoneinfo/");
        if (name) setenv("TZ", name + strlen("zoneinfo/"), 1);
        else setenv("TZ", access("/etc/localtime", R_OK) == 0 ? ":/etc/localtime" : "UTC", 1);
    }
    tzset();
    // Maps the archive of locales for a later setlocale. It is never freed.
    static locale_t loaded;
    if (!loaded) loaded = newlocale(LC_ALL_MASK, "", (locale_t)0);
}

void apus_load_bundle(void) {
    void *(*main_bundle)(void) = (void *(*)(void))dlsym(RTLD_DEFAULT, "CFBundleGetMainBundle");
    if (main_bundle) (void)main_bundle();
}

static struct { int channel; unsigned char tag, note_tag; size_t max; } relay = {.channel = -1};

// Runs while the process dies, so it takes no memory and no lock.
static ssize_t relay_error(void *cookie, const char *bytes, size_t count) {
    (void)cookie;
    int saved = errno;
    char record[1024];
    size_t part = count;
    while (part > 0 && bytes[part - 1] == '\n') part--;
    if (part > relay.max) part = relay.max;
    if (part > sizeof record - 1) part = sizeof record - 1;
    record[0] = (char)relay.tag;
    memcpy(record + 1, bytes, part);
    if (part > 0) (void)send(relay.channel, record, part + 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    errno = saved;
    return write(STDERR_FILENO, bytes, count);
}

void apus_relay_note(const char *text) {
    if (relay.channel < 0) return;
    char record[1024] = {(char)relay.note_tag};
    size_t length = strnlen(text, sizeof record - 1);
    memcpy(record + 1, text, length);
    (void)send(relay.channel, record, length + 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

void apus_relay_errors(int channel, unsigned char tag, unsigned char note_tag, size_t max) {
    relay.channel = channel;
    relay.tag = tag;
    relay.note_tag = note_tag;
    relay.max = max;
    FILE *stream = fopencookie(NULL, "w", (cookie_io_functions_t){.write = relay_error});
    if (!stream) return;
    setvbuf(stream, NULL, _IONBF, 0);
    stderr = stream;
}
