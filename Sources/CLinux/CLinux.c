#define _GNU_SOURCE
#include "CLinux.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sched.h>
#include <string.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <linux/openat2.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

pid_t apus_fork(void) { return fork(); }

int apus_pidfd_open(pid_t pid) { return (int)syscall(SYS_pidfd_open, pid, 0); }

int apus_accept(int listener, void *peer, unsigned int *length) {
    return accept4(listener, peer, length, SOCK_NONBLOCK | SOCK_CLOEXEC);
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

int apus_create_beneath(int root, const char *path) {
    struct open_how how = {.flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, .mode = 0600, .resolve = RESOLVE_BENEATH};
    return (int)syscall(SYS_openat2, root, path, &how, sizeof how);
}

int apus_exited(int status) { return WIFEXITED(status); }
int apus_exit_status(int status) { return WEXITSTATUS(status); }
int apus_term_signal(int status) { return WTERMSIG(status); }

const char *apus_signal_name(int signal) { return sigabbrev_np(signal); }

int apus_usable_processors(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 0;
}

int apus_die_with_parent(int signal) { return prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0); }

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
struct apus_landlock_rules { unsigned long long files, network, scopes; };

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
