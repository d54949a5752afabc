//! The system's memory: how much a run may take, how much it has taken, and returning unused memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Makes the C library return buffers of 1 MiB and more to the system as soon as they are freed. By default it raises
/// that bound up to 32 MiB as large buffers come and go, and keeps smaller ones, in a heap for each thread: the memory
/// of equal runs then differs by half.
///
/// Call it at the start of a program.
pub fn keep_no_large_buffers() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[allow(unsafe_code)]
    {
        use std::ffi::c_int;
        unsafe extern "C" {
            /// glibc: `int mallopt(int param, int value)`.
            safe fn mallopt(param: c_int, value: c_int) -> c_int;
        }
        const M_MMAP_THRESHOLD: c_int = -3;
        mallopt(M_MMAP_THRESHOLD, 1 << 20);
    }
}

/// Returns memory that was freed in small pieces to the system. The C library would keep it: 300 MB for as long as the
/// process lives after a tokenizer, which is a million small pieces.
pub fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[allow(unsafe_code)]
    {
        unsafe extern "C" {
            /// glibc: `int malloc_trim(size_t pad)`.
            safe fn malloc_trim(pad: usize) -> std::ffi::c_int;
        }
        malloc_trim(0);
    }
}

/// Processes that share this machine's memory.
static N_SHARERS: AtomicU64 = AtomicU64::new(1);

/// Says that `n` processes of this kind share the memory of the machine.
pub fn share_among(n: u64) {
    N_SHARERS.store(n.max(1), Ordering::Relaxed);
}

/// Bytes that this process may still take without swapping: the system's available memory, or less if a control group allows
/// less, divided by those that [share it](share_among). `None` if that is unknown.
pub fn available() -> Option<u64> {
    let of_system = meminfo("MemAvailable");
    let of_group = group_limits().into_iter().min();
    Some(of_system.into_iter().chain(of_group).min()? / N_SHARERS.load(Ordering::Relaxed))
}

/// Value of a line of `/proc/meminfo`, in bytes.
pub fn meminfo(name: &str) -> Option<u64> {
    kib(&fs::read_to_string("/proc/meminfo").ok()?, name)
}

/// Most memory that this process has held at once, in bytes.
pub fn peak() -> Option<u64> {
    kib(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM")
}

/// Formats bytes, as in `31.2 GiB`.
pub fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64)
}

/// The number of a line `name:   number kB`, in bytes.
fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Memory left under each limit that a control group sets to this process, in bytes.
fn group_limits() -> Vec<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    groups.lines().filter_map(memory_group).flat_map(|(folder, names)| limits_up_from(&folder, names)).collect()
}

/// Names of the files that hold a group's limit, its use, and (in `memory.stat`) how much of that is cached files.
type Names = [&'static str; 3];
const V1: Names = ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"];
const V2: Names = ["memory.max", "memory.current", "inactive_file"];

/// Folder of the memory controller's group, from a line `id:controllers:path`.
fn memory_group(line: &str) -> Option<(PathBuf, Names)> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    let (root, names) = match controllers {
        "" => ("/sys/fs/cgroup", V2),
        _ if controllers.split(',').any(|name| name == "memory") => ("/sys/fs/cgroup/memory", V1),
        _ => return None,
    };
    Some((Path::new(root).join(path.trim_start_matches('/')), names))
}

/// Memory left in a group and in those around it. In a container, its own group may be mounted at the root: missing
/// folders are skipped.
fn limits_up_from(folder: &Path, names: Names) -> Vec<u64> {
    let groups = folder.ancestors().take_while(|folder| folder.starts_with("/sys/fs/cgroup"));
    groups.filter_map(|folder| left_of(folder, names)).collect()
}

/// Memory left in one group; `None` if it has no limit.
fn left_of(folder: &Path, [limit, used, cached]: Names) -> Option<u64> {
    let number = |name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
    let (limit, used) = (number(limit)?, number(used)?);
    let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let cached = stat.lines().find_map(|line| line.strip_prefix(cached)?.trim().parse::<u64>().ok());
    // Cached files that nobody has read for a while give way to new memory.
    Some(limit.saturating_sub(used.saturating_sub(cached.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_system_files() {
        let text = "MemTotal:       24683520 kB\nMemAvailable:   23191552 kB\nHugePages_Total:       0\n";
        assert_eq!(kib(text, "MemAvailable"), Some(23_191_552 * 1024));
        assert_eq!(kib(text, "Mem"), None);
        assert_eq!(kib(text, "HugePages_Total"), None);
    }

    #[test]
    fn groups_of_both_versions() {
        let (folder, names) = memory_group("4:memory:/job/1").unwrap();
        assert_eq!((folder, names), (PathBuf::from("/sys/fs/cgroup/memory/job/1"), V1));
        let (folder, names) = memory_group("0::/user.slice").unwrap();
        assert_eq!((folder, names), (PathBuf::from("/sys/fs/cgroup/user.slice"), V2));
        assert_eq!(memory_group("8:pids:/"), None);
    }

    #[test]
    fn the_least_of_all_limits_counts() {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("job");
        fs::create_dir(&group).unwrap();
        let write = |folder: &Path, limit: &str, used: &str, stat: &str| {
            for (name, text) in [(V2[0], limit), (V2[1], used), ("memory.stat", stat)] {
                fs::write(folder.join(name), text).unwrap();
            }
        };
        write(root.path(), "max\n", "500\n", "");
        write(&group, "1000\n", "700\n", "anon 1\ninactive_file 200\n");
        let left: Vec<u64> = group.ancestors().take(2).flat_map(|folder| left_of(folder, V2)).collect();
        assert_eq!(left, [500], "a group without a limit says \"max\"");
        write(&group, "1000\n", "1500\n", "inactive_file 200\n");
        assert_eq!(left_of(&group, V2), Some(0));
    }
}
