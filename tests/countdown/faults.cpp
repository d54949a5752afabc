// Preloaded into a program: counts the system calls that change files, however they are made, and at one of them lets
// something go wrong. Linux on x86-64. The kernel sends a signal for each such call (seccomp), the handler makes the call.
//
//   COUNTDOWN_LOG    a file that gets a line a call: its name, then the path it is about
//   COUNTDOWN_AT     the number of the call, from 1
//   COUNTDOWN_KIND   kill   the process is gone before the call
//                    torn   the process is gone after half of the write
//                    fails  the call fails with EIO
//                    dead   that call and all later ones fail with EIO
//                    full   that call and all later ones that need space fail with ENOSPC
//                    short  that call and all later ones write half of what they are given
//   COUNTDOWN_EXCHANGE  no: the file system cannot exchange two names

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <initializer_list>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <ucontext.h>
#include <unistd.h>

namespace {

// What a call is about: a path (in the argument of that number), or a file that is open.
enum About { PATH_0, PATH_1, PATH_3, OPEN_FILE };

struct Call {
  long number;
  const char *name;
  About about;
  bool needs_space;
};

const Call CALLS[] = {
    {SYS_open, "open", PATH_0, true},
    {SYS_openat, "open", PATH_1, true},
    {SYS_openat2, "open", PATH_1, true},
    {SYS_creat, "open", PATH_0, true},
    {SYS_write, "write", OPEN_FILE, true},
    {SYS_pwrite64, "pwrite", OPEN_FILE, true},
    {SYS_writev, "writev", OPEN_FILE, true},
    {SYS_pwritev, "pwritev", OPEN_FILE, true},
    {SYS_pwritev2, "pwritev", OPEN_FILE, true},
    {SYS_sendfile, "sendfile", OPEN_FILE, true},
    {SYS_truncate, "truncate", PATH_0, true},
    {SYS_ftruncate, "truncate", OPEN_FILE, true},
    {SYS_fallocate, "fallocate", OPEN_FILE, true},
    {SYS_mkdir, "mkdir", PATH_0, true},
    {SYS_mkdirat, "mkdir", PATH_1, true},
    {SYS_link, "link", PATH_0, true},
    {SYS_linkat, "link", PATH_3, true},
    {SYS_symlink, "symlink", PATH_1, true},
    {SYS_symlinkat, "symlink", PATH_0, true},
    {SYS_rename, "rename", PATH_0, false},
    {SYS_renameat, "rename", PATH_1, false},
    {SYS_renameat2, "rename", PATH_1, false},
    {SYS_unlink, "remove", PATH_0, false},
    {SYS_unlinkat, "remove", PATH_1, false},
    {SYS_rmdir, "remove", PATH_0, false},
    {SYS_fsync, "sync", OPEN_FILE, false},
    {SYS_fdatasync, "sync", OPEN_FILE, false},
    {SYS_sync_file_range, "sync", OPEN_FILE, false},
    {SYS_chmod, "chmod", PATH_0, false},
    {SYS_fchmod, "chmod", OPEN_FILE, false},
    {SYS_fchmodat, "chmod", PATH_1, false},
    {SYS_utimensat, "utimens", PATH_1, false},
};
constexpr size_t N_CALLS = sizeof CALLS / sizeof *CALLS;

long fault_at = 0;
const char *kind = "";
bool can_exchange = true;
int log_file = -1;
std::atomic<long> n_calls{0};

extern "C" long countdown_call(long number, long a, long b, long c, long d, long e, long f);
extern "C" const char countdown_called[];
// A call from here is none of the filter's: it knows the address.
asm(R"(
  .text
  .local countdown_call
  .local countdown_called
countdown_call:
  mov %rdi, %rax
  mov %rsi, %rdi
  mov %rdx, %rsi
  mov %rcx, %rdx
  mov %r8, %r10
  mov %r9, %r8
  mov 8(%rsp), %r9
  syscall
countdown_called:
  ret
)");

bool is(const char *name) { return strcmp(kind, name) == 0; }

// A path with a call's name before it; false if the call changes no file.
bool describe(const Call &call, const long *args, char *text, size_t size) {
  int length = snprintf(text, size, "%s ", call.name);
  char *path = text + length;
  size_t left = size - static_cast<size_t>(length) - 2;
  if (call.about == OPEN_FILE) {
    struct stat status;
    if (fstat(static_cast<int>(args[0]), &status) != 0 || !(S_ISREG(status.st_mode) || S_ISDIR(status.st_mode)))
      return false;
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%ld", args[0]);
    ssize_t got = readlink(link, path, left);
    path[got < 0 ? 0 : got] = 0;
  } else {
    size_t place = call.about == PATH_0 ? 0 : call.about == PATH_1 ? 1 : 3;
    auto given = reinterpret_cast<const char *>(args[place]);
    if (given == nullptr)
      return false;
    snprintf(path, left, "%s", given);
    for (const char *system : {"/dev/", "/proc/", "/sys/"})
      if (strncmp(path, system, strlen(system)) == 0)
        return false;
  }
  if (call.number == SYS_open || call.number == SYS_openat) {
    long flags = args[call.number == SYS_open ? 1 : 2];
    if ((flags & (O_CREAT | O_TRUNC | O_ACCMODE)) == O_RDONLY)
      return false;
  }
  strcat(path, "\n");
  return true;
}

// Half of a write; anything else is made whole.
long half(const Call &call, const long *args) {
  bool is_write = call.number == SYS_write || call.number == SYS_pwrite64;
  long length = is_write && args[2] > 1 ? args[2] / 2 : args[2];
  return countdown_call(call.number, args[0], args[1], length, args[3], args[4], args[5]);
}

long fault(const Call &call, const long *args, bool is_first) {
  if (is("short"))
    return half(call, args);
  if (is_first && is("torn"))
    half(call, args);
  if (is_first && (is("torn") || is("kill")))
    kill(getpid(), SIGKILL);
  if (is("dead") || (is_first && is("fails")))
    return -EIO;
  if (is("full") && call.needs_space)
    return -ENOSPC;
  return countdown_call(call.number, args[0], args[1], args[2], args[3], args[4], args[5]);
}

void on_call(int, siginfo_t *info, void *context) {
  auto registers = static_cast<ucontext_t *>(context)->uc_mcontext.gregs;
  const int PLACES[] = {REG_RDI, REG_RSI, REG_RDX, REG_R10, REG_R8, REG_R9};
  long args[6];
  for (int i = 0; i < 6; i++)
    args[i] = registers[PLACES[i]];
  int saved = errno;
  long result = -ENOSYS;
  for (const Call &call : CALLS) {
    if (call.number != info->si_syscall)
      continue;
    if (call.number == SYS_renameat2 && args[4] != 0 && !can_exchange) {
      result = -EINVAL;
      break;
    }
    char text[600];
    long number = 0;
    if (describe(call, args, text, sizeof text)) {
      number = ++n_calls;
      if (log_file >= 0)
        countdown_call(SYS_write, log_file, reinterpret_cast<long>(text), static_cast<long>(strlen(text)), 0, 0, 0);
    }
    result = fault_at > 0 && number >= fault_at
                 ? fault(call, args, number == fault_at)
                 : countdown_call(call.number, args[0], args[1], args[2], args[3], args[4], args[5]);
    break;
  }
  errno = saved;
  registers[REG_RAX] = result;
}

bool set_filter() {
  sock_filter filter[2 * N_CALLS + 16];
  size_t n = 0;
  auto address = reinterpret_cast<uint64_t>(&countdown_called);
  auto load = [&](size_t offset) { filter[n++] = BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset)); };
  auto answer = [&](uint32_t what) { filter[n++] = BPF_STMT(BPF_RET | BPF_K, what); };
  load(offsetof(seccomp_data, instruction_pointer));
  filter[n++] = BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(address), 0, 3);
  load(offsetof(seccomp_data, instruction_pointer) + 4);
  filter[n++] = BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(address >> 32), 0, 1);
  answer(SECCOMP_RET_ALLOW);
  load(offsetof(seccomp_data, nr));
  for (const Call &call : CALLS) {
    filter[n++] = BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(call.number), 0, 1);
    answer(SECCOMP_RET_TRAP);
  }
  // What copies within the kernel is made by reads and writes instead, as on file systems that do not know it.
  filter[n++] = BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_copy_file_range, 0, 1);
  answer(SECCOMP_RET_ERRNO | ENOSYS);
  answer(SECCOMP_RET_ALLOW);
  sock_fprog program = {static_cast<unsigned short>(n), filter};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

__attribute__((constructor)) void begin() {
  const char *at = getenv("COUNTDOWN_AT");
  fault_at = at == nullptr ? 0 : atol(at);
  if (const char *given = getenv("COUNTDOWN_KIND"))
    kind = given;
  can_exchange = getenv("COUNTDOWN_EXCHANGE") == nullptr;
  if (const char *path = getenv("COUNTDOWN_LOG"))
    log_file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  struct sigaction action = {};
  action.sa_sigaction = on_call;
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  if (sigaction(SIGSYS, &action, nullptr) != 0 || !set_filter()) {
    fputs("countdown: the system lets nobody filter calls\n", stderr);
    _exit(70);
  }
}

}  // namespace
