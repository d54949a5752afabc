//! NVRTC's functions, of every library that goes with the driver.

use super::{Opened, Status, Toolkit, majors, text};
use cudarc::nvrtc::sys::nvrtcProgram;
use std::ffi::{c_char, c_int};
use std::sync::OnceLock;

super::functions! {
    /// All of them are in NVRTC 12.0.
    Nvrtc {
        nvrtcVersion(major: *mut c_int, minor: *mut c_int) -> Status;
        nvrtcGetErrorString(status: Status) -> *const c_char;
        nvrtcCreateProgram(
            program: *mut nvrtcProgram,
            source: *const c_char,
            name: *const c_char,
            n_headers: c_int,
            headers: *const *const c_char,
            names: *const *const c_char
        ) -> Status;
        nvrtcDestroyProgram(program: *mut nvrtcProgram) -> Status;
        nvrtcCompileProgram(program: nvrtcProgram, n_options: c_int, options: *const *const c_char) -> Status;
        nvrtcGetProgramLogSize(program: nvrtcProgram, bytes: *mut usize) -> Status;
        nvrtcGetProgramLog(program: nvrtcProgram, log: *mut c_char) -> Status;
        nvrtcGetCUBINSize(program: nvrtcProgram, bytes: *mut usize) -> Status;
        nvrtcGetCUBIN(program: nvrtcProgram, image: *mut c_char) -> Status;
        nvrtcGetPTXSize(program: nvrtcProgram, bytes: *mut usize) -> Status;
        nvrtcGetPTX(program: nvrtcProgram, image: *mut c_char) -> Status;
    }
}

impl Nvrtc {
    /// `NVRTC_ERROR_COMPILATION`
    pub fn name(&self, status: Status) -> String {
        // SAFETY: gives a text that stays, or null.
        let name = unsafe { text(self.nvrtcGetErrorString(status)) };
        name.map_or_else(|| format!("NVRTC status {}", status.0), str::to_owned)
    }
}

/// Those of the majors that go with this driver, the best first. One that lacks a function is none.
pub fn all() -> &'static [Opened<Nvrtc>] {
    static FOUND: OnceLock<Vec<Opened<Nvrtc>>> = OnceLock::new();
    let toolkit = Toolkit {
        names: |major| {
            if cfg!(windows) {
                vec![format!("nvrtc64_{major}0_0.dll")]
            } else {
                vec![format!("libnvrtc.so.{major}"), "libnvrtc.so".to_owned()]
            }
        },
        functions: Nvrtc::of,
        version: |table: &Nvrtc| {
            let (mut major, mut minor) = (0, 0);
            // SAFETY: writes two ints.
            unsafe { table.nvrtcVersion(&mut major, &mut minor) }.ok().ok()?;
            Some((major.unsigned_abs(), minor.unsigned_abs()))
        },
        address: |table| table.nvrtcVersion as usize,
    };
    FOUND.get_or_init(|| majors().filter_map(|major| toolkit.open(major)).filter_map(Result::ok).collect())
}
