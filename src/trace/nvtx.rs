//! NVTX, NVIDIA's protocol between a program and the profiler that started it, as far as ranges need it.
//!
//! A profiler (nsys, ncu) names its library in the environment variable `NVTX_INJECTION64_PATH`. The program loads the
//! library, calls its `InitializeInjectionNvtx2`, and is asked in turn for tables of places in which the profiler puts
//! its functions. This is all that NVIDIA's C header does too: it is spoken here directly, because the header needs a C
//! compiler and its Rust binding libclang, while `libnvToolsExt`, which older programs load, left CUDA with version 12.9.
//!
//! The numbers below are the protocol's (`nvtxTypes.h` of NVTX 3) and cannot change under programs that exist.

#![allow(unsafe_code)]

use super::Label;
use crate::{Error, Result};
use libloading::Library;
use std::error::Error as _;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::io::Write;
use std::mem::{self, transmute};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Environment variable in which a profiler names the library to load.
const INJECTION: &str = "NVTX_INJECTION64_PATH";

/// Numbers of functions of each module, including a number 0 that is not used: none, core, CUDA, OpenCL, CUDA runtime,
/// core 2, synchronization. Only two of all functions are called here, but a profiler expects a place for each.
const SIZES: [usize; 7] = [0, 16, 9, 15, 7, 16, 7];
const MOST_FUNCTIONS: usize = 16;
const CORE: usize = 1;
const RANGE_PUSH_A: usize = 9;
const RANGE_POP: usize = 11;

/// Place for a function of the profiler; null if it has none.
type Slot = AtomicPtr<c_void>;
type RangePushA = unsafe extern "C" fn(*const c_char) -> c_int;
type RangePop = unsafe extern "C" fn() -> c_int;

static SLOTS: [[Slot; MOST_FUNCTIONS]; SIZES.len()] =
    [const { [const { Slot::new(ptr::null_mut()) }; MOST_FUNCTIONS] }; SIZES.len()];
/// Tables of the slots, each one longer than its functions: a reader past the end finds null.
static TABLES: [[AtomicPtr<Slot>; MOST_FUNCTIONS + 1]; SIZES.len()] =
    [const { [const { AtomicPtr::new(ptr::null_mut()) }; MOST_FUNCTIONS + 1] }; SIZES.len()];

/// Export table 1.
#[repr(C)]
struct Callbacks {
    size: usize,
    get_module_function_table: unsafe extern "C" fn(c_int, *mut *const AtomicPtr<Slot>, *mut c_uint) -> c_int,
}

/// Export table 3.
#[repr(C)]
struct VersionInfo {
    size: usize,
    version: u32,
    reserved: u32,
    set_injection_version: extern "C" fn(u32),
}

static CALLBACKS: Callbacks =
    Callbacks { size: size_of::<Callbacks>(), get_module_function_table: module_function_table };
static VERSION_INFO: VersionInfo =
    VersionInfo { size: size_of::<VersionInfo>(), version: 3, reserved: 0, set_injection_version };

/// Returns a table by its number: the function that the profiler is given.
extern "C" fn export_table(number: u32) -> *const c_void {
    match number {
        1 => (&raw const CALLBACKS).cast(),
        3 => (&raw const VERSION_INFO).cast(),
        _ => ptr::null(),
    }
}

/// Returns the slots of a module's functions and their number; 0 for an unknown module.
///
/// # Safety
/// `table` and `size` are null or can be written to.
unsafe extern "C" fn module_function_table(
    module: c_int,
    table: *mut *const AtomicPtr<Slot>,
    size: *mut c_uint,
) -> c_int {
    let Some(module) = usize::try_from(module).ok().filter(|module| (1..SIZES.len()).contains(module)) else {
        return 0;
    };
    if !size.is_null() {
        // SAFETY: the caller's contract.
        unsafe { size.write(SIZES[module] as c_uint) };
    }
    if !table.is_null() {
        // SAFETY: the caller's contract.
        unsafe { table.write(TABLES[module].as_ptr()) };
    }
    1
}

extern "C" fn set_injection_version(_version: u32) {}

/// Lets the profiler that started this process register its functions. Returns false if there is none.
pub(super) fn connect() -> Result<bool> {
    let Some(path) = std::env::var_os(INJECTION).filter(|path| !path.is_empty()) else { return Ok(false) };
    for ((table, slots), size) in TABLES.iter().zip(&SLOTS).zip(SIZES) {
        for (place, slot) in table.iter().zip(slots).take(size).skip(1) {
            place.store(ptr::from_ref(slot).cast_mut(), Ordering::Release);
        }
    }
    let refused = |why: String| Error::other(format!("{INJECTION} names no profiler's library: {why}; take it away"));
    // The message of the system is in the error's source.
    let failed = |e: libloading::Error| refused(e.source().map_or(e.to_string(), |source| source.to_string()));
    // SAFETY: loading runs the library's initialization, as whoever set the variable has asked for.
    let library = unsafe { Library::new(&path) }.map_err(failed)?;
    type Initialize = unsafe extern "C" fn(extern "C" fn(u32) -> *const c_void) -> c_int;
    // SAFETY: the protocol gives this name this type.
    let initialize = unsafe { library.get::<Initialize>(b"InitializeInjectionNvtx2\0") };
    let initialize = initialize.map_err(failed)?;
    // SAFETY: the tables that `export_table` gives are complete, and stay where they are for good.
    if unsafe { initialize(export_table) } == 0 {
        return Err(refused("it cannot start here".to_owned()));
    }
    // Never unloaded: its functions are called until the process ends.
    mem::forget(library);
    Ok(true)
}

/// The profiler's function `number` of the core module.
fn core_function(number: usize) -> Option<ptr::NonNull<c_void>> {
    ptr::NonNull::new(SLOTS[CORE][number].load(Ordering::Acquire))
}

/// Begins a range on this thread.
pub(super) fn push(label: &Label) {
    let Some(function) = core_function(RANGE_PUSH_A) else { return };
    let mut text = [0; 64];
    // All names fit; a longer one would be cut, and its last byte stays zero.
    let _ = write!(&mut text[..63], "{label}");
    let Ok(name) = CStr::from_bytes_until_nul(&text) else { return };
    // SAFETY: the protocol gives this slot this type, and only the profiler writes to it.
    let push = unsafe { transmute::<ptr::NonNull<c_void>, RangePushA>(function) };
    // SAFETY: `name` ends with a zero byte and outlives the call; the profiler copies it.
    unsafe { push(name.as_ptr()) };
}

/// Ends the range that was begun last on this thread.
pub(super) fn pop() {
    let Some(function) = core_function(RANGE_POP) else { return };
    // SAFETY: the protocol gives this slot this type, and only the profiler writes to it.
    let pop = unsafe { transmute::<ptr::NonNull<c_void>, RangePop>(function) };
    // SAFETY: takes nothing.
    unsafe { pop() };
}
