//! The CUDA device that tests run on: the stand-in in tests/simt, or, with `HBT_REQUIRE_CUDA=1`, the machine's own GPU,
//! whose absence is then a failure.

use hbt::backend::Cuda;
use hbt::backend::cuda::CudaElement;
use libloading::{Library, Symbol};
use std::ffi::{CStr, c_char};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Orders in which the stand-in runs threads, warps and blocks.
pub const SEEDS: [u64; 3] = [1, 2, 3];

/// True when the tests are to run on a real GPU.
pub fn is_real() -> bool {
    std::env::var("HBT_REQUIRE_CUDA").is_ok_and(|value| value == "1")
}

/// The stand-in, built and loaded before anything looks for a driver.
pub struct StandIn {
    /// `None` on a real GPU.
    library: Option<Library>,
}

impl StandIn {
    /// What the tests of this process run on.
    pub fn get() -> &'static StandIn {
        static STAND_IN: OnceLock<StandIn> = OnceLock::new();
        STAND_IN.get_or_init(|| {
            if is_real() {
                return StandIn { library: None };
            }
            let version = std::env::var("SIMT_DRIVER_VERSION").ok().map(|version| version.parse().unwrap());
            let folder = version.map_or_else(built, built_for);
            let load = |name: &str| {
                // SAFETY: a library of this project. Once loaded, it answers to its name wherever that is looked for.
                unsafe { Library::new(folder.join(name)) }.unwrap_or_else(|e| panic!("{name} of the stand-in: {e}"))
            };
            let library = load("libcuda.so");
            // They stay for as long as the process runs.
            std::mem::forget((load("libcublasLt.so.12"), load("libnvrtc.so.12")));
            StandIn { library: Some(library) }
        })
    }

    /// Calls a function that only the stand-in has; nothing on a real GPU.
    ///
    /// # Safety
    /// `F` is the type of that function.
    pub unsafe fn function<F>(&self, name: &str) -> Option<Symbol<'_, F>> {
        // SAFETY: the caller's promise.
        self.library.as_ref().map(|library| unsafe { library.get(name.as_bytes()) }.unwrap())
    }

    /// How copies between the device and pageable memory go for the calling thread: `late`, as where the device reads such
    /// memory by itself when the copy's turn comes, `sync`, or `staged`.
    pub fn set_pageable(&self, mode: &CStr) {
        // SAFETY: its type in tests/simt.
        if let Some(set) = unsafe { self.function::<unsafe extern "C" fn(*const c_char)>("simt_set_pageable") } {
            // SAFETY: copies the text.
            unsafe { set(mode.as_ptr()) };
        }
    }

    /// The order for launches of the calling thread.
    pub fn set_seed(&self, seed: u64) {
        // SAFETY: its type in tests/simt.
        if let Some(set) = unsafe { self.function::<unsafe extern "C" fn(u64)>("simt_set_seed") } {
            // SAFETY: takes any number.
            unsafe { set(seed) };
        }
    }
}

/// The folder with the stand-in's libraries, for processes of these tests that others have started.
pub const BUILT: &str = "HBT_TEST_STAND_IN";

/// The folder with the stand-in's libraries, built if it is not up to date.
pub fn built() -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let of_others = || std::env::var_os(BUILT).map(PathBuf::from);
    FOLDER.get_or_init(|| of_others().unwrap_or_else(build)).clone()
}

fn build() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("simt");
    let output = Command::new(root.join("tests/simt/build")).arg(&folder).output().expect("tests/simt/build runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "tests/simt/build: {said}{}", String::from_utf8_lossy(&output.stdout));
    folder
}

/// As [`built`], with the functions of the driver for that version of CUDA, as 12080 for 12.8.
pub fn built_for(version: u32) -> PathBuf {
    let before = [12040, 12080].into_iter().find(|&newer| version < newer);
    before.map_or_else(built, |newer| built().join(format!("before-{newer}")))
}

/// A fresh device under each of the stand-in's orders, which reads what is uploaded as late as it may.
pub fn cuda<E: CudaElement>() -> impl Iterator<Item = Cuda<E>> {
    SEEDS.into_iter().map(|seed| {
        StandIn::get().set_seed(seed);
        StandIn::get().set_pageable(c"late");
        Cuda::with_separate_memory(0).expect("a CUDA device")
    })
}
