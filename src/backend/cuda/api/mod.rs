//! NVIDIA's libraries, opened at run time: tables of the functions that hbt calls, looked up by name once.
//!
//! cudarc names their types and finds the driver. Its functions are not called: they panic where a library or a function
//! is missing, take what they answer for a Rust enum, which the status of a newer library would not be, and open the
//! newest cuBLASLt and NVRTC there are, which an older driver refuses.

pub mod cublaslt;
pub mod driver;
pub mod nccl;
pub mod nvrtc;

use libloading::Library;
use std::path::{Path, PathBuf};

/// What a function answers, whatever number that is. Each library has its own; 0 is success in all of them.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub i32);

impl Status {
    pub const SUCCESS: Status = Status(0);

    pub fn ok(self) -> Result<(), Status> {
        if self == Status::SUCCESS { Ok(()) } else { Err(self) }
    }
}

/// A table of a library's functions: those it must have, and after a `?` those that older ones lack.
macro_rules! functions {
    ($(#[$meta:meta])* $table:ident {
        $($name:ident($($arg:ident: $type:ty),*) -> $answer:ty;)*
        $(? $option:ident($($option_arg:ident: $option_type:ty),*) -> $option_answer:ty;)*
    }) => {
        $(#[$meta])*
        #[allow(non_snake_case)]
        pub struct $table {
            $($name: unsafe extern "C" fn($($type),*) -> $answer,)*
            $($option: Option<unsafe extern "C" fn($($option_type),*) -> $option_answer>,)*
        }

        impl $table {
            /// Looks them up. The error is the name of one that is missing.
            fn of(library: &'static ::libloading::Library) -> Result<Self, &'static str> {
                // SAFETY: the types are those of NVIDIA's headers, and the library stays open.
                unsafe {
                    Ok(Self {
                        $($name: *library.get(concat!(stringify!($name), "\0")).map_err(|_| stringify!($name))?,)*
                        $($option: library.get(concat!(stringify!($option), "\0")).ok().map(|function| *function),)*
                    })
                }
            }
        }

        #[allow(non_snake_case, clippy::too_many_arguments)]
        impl $table {
            $(pub unsafe fn $name(&self, $($arg: $type),*) -> $answer {
                // SAFETY: the caller's promise.
                unsafe { (self.$name)($($arg),*) }
            })*
            $(pub unsafe fn $option(&self, $($option_arg: $option_type),*) -> Option<$option_answer> {
                // SAFETY: the caller's promise.
                self.$option.map(|function| unsafe { function($($option_arg),*) })
            })*
        }
    };
}
use functions;

/// A library's functions with what is known of it. It stays open until the process ends.
pub struct Opened<T> {
    pub functions: T,
    /// Major and minor.
    pub version: (u32, u32),
    /// The address of one of its functions.
    address: usize,
}

impl<T> std::ops::Deref for Opened<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.functions
    }
}

/// `12.9, /usr/lib/libnvrtc.so.12`
impl<T> std::fmt::Display for Opened<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let (major, minor) = self.version;
        write!(f, "{major}.{minor}")?;
        // Where it is, if the system tells.
        file_at(self.address).map_or(Ok(()), |path| write!(f, ", {}", path.display()))
    }
}

/// How one of the toolkit's libraries is found.
struct Toolkit<T> {
    /// Its file's name with and, if there is such, without the major version.
    names: fn(major: u32) -> Vec<String>,
    functions: fn(&'static Library) -> Result<T, &'static str>,
    version: fn(&T) -> Option<(u32, u32)>,
    /// The address of one of its functions.
    address: fn(&T) -> usize,
}

impl<T> Toolkit<T> {
    /// The library of that major version; an error if it is there and of no use.
    fn open(&self, major: u32) -> Option<Result<Opened<T>, String>> {
        (self.names)(major).iter().find_map(|name| {
            // SAFETY: a library of NVIDIA's, which does nothing when it is opened but to set itself up.
            let library = unsafe { Library::new(name) }.ok()?;
            // One that is of no use stays open too: what it takes of memory is what was read of it.
            let library: &'static Library = Box::leak(Box::new(library));
            let functions = match (self.functions)(library) {
                Ok(functions) => functions,
                Err(missing) => return Some(Err(format!("{name} has no function {missing}"))),
            };
            let version = (self.version)(&functions)?;
            let address = (self.address)(&functions);
            // A name without a version may stand for any.
            (version.0 == major).then(|| Ok(Opened { functions, version, address }))
        })
    }
}

/// The oldest major version of the toolkit whose libraries are used.
pub const OLDEST_TOOLKIT: u32 = 12;

/// Majors of the toolkit whose libraries work with the driver, the best first: its own and, as a driver serves older
/// programs, older ones. Never newer ones. None without a driver.
fn majors() -> impl Iterator<Item = u32> {
    let version = driver::load().ok().and_then(|()| driver::version().ok()).unwrap_or_default();
    (OLDEST_TOOLKIT..=version.unsigned_abs() / 1000).rev()
}

/// The file that is mapped at `address`.
fn file_at(address: usize) -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let parse = |text| usize::from_str_radix(text, 16).ok();
        let path = &rest[rest.find('/')?..];
        (parse(start)?..parse(end)?).contains(&address).then(|| Path::new(path).to_owned())
    })
}

/// The text that a library gives for a number.
///
/// # Safety
/// `text` is null or ends with a zero byte, and stays.
unsafe fn text(text: *const std::ffi::c_char) -> Option<&'static str> {
    // SAFETY: the caller's promise.
    (!text.is_null()).then(|| unsafe { std::ffi::CStr::from_ptr(text) }).and_then(|text| text.to_str().ok())
}
