//! Compiled kernels: the sources in kernels/, compiled by NVRTC for the device at hand.

use super::driver::{Context, Module};
use crate::{Error, Result};
use cudarc::nvrtc::sys;
use std::ffi::{CString, c_char, c_int};
use std::sync::Arc;

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// What every compiler of the kernels is told; see kernels/common.cuh. Multiplications and additions are fused where the
/// source says so, and nowhere else: the stand-in and every GPU then compute the same.
const OPTIONS: [&str; 2] = ["--std=c++17", "--fmad=false"];

/// Loads the kernels of kernels/`name`.cu.
pub(super) fn load(context: &Arc<Context>, name: &str) -> Result<Module> {
    let file = format!("{name}.cu");
    let (_, source, _) = MODULES.iter().find(|(module, ..)| *module == file).expect("a module of kernels/");
    let (major, minor) = context.capability;
    let image = compile(&file, source, &format!("sm_{major}{minor}"))?;
    Module::load(context, &image)?
        .map_err(|code| Error::other(format!("cuda: the driver refused the kernels of {file}: {code:?}")))
}

/// A cubin.
fn compile(file: &str, source: &str, architecture: &str) -> Result<Vec<u8>> {
    // SAFETY: only opens and closes the library. Anything else in cudarc panics without it.
    if !unsafe { sys::is_culib_present() } {
        return Err(Error::other(
            "cuda: this hbt was built without nvcc, and NVRTC, which would compile its kernels now, is not there either; \
             install it (pip install nvidia-cuda-nvrtc, then put its lib folder on LD_LIBRARY_PATH) or build hbt where nvcc is",
        ));
    }
    let c = |text: &str| CString::new(text).expect("sources have no zero byte");
    let headers: Vec<(CString, CString)> = HEADERS.iter().map(|(name, text)| (c(name), c(text))).collect();
    let names: Vec<*const c_char> = headers.iter().map(|(name, _)| name.as_ptr()).collect();
    let texts: Vec<*const c_char> = headers.iter().map(|(_, text)| text.as_ptr()).collect();
    let (source, name) = (c(source), c(file));
    let mut program = std::ptr::null_mut();
    // SAFETY: all strings live until the program is made, which copies them.
    let code = unsafe {
        sys::nvrtcCreateProgram(
            &mut program,
            source.as_ptr(),
            name.as_ptr(),
            names.len() as c_int,
            texts.as_ptr(),
            names.as_ptr(),
        )
    };
    code.result().map_err(|e| Error::other(format!("cuda: NVRTC refused {file}: {e}")))?;
    let program = Program(program);
    let options: Vec<CString> =
        OPTIONS.iter().map(|o| c(o)).chain([c(&format!("--gpu-architecture={architecture}"))]).collect();
    let options: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
    // SAFETY: the program and the options live.
    let code = unsafe { sys::nvrtcCompileProgram(program.0, options.len() as c_int, options.as_ptr()) };
    code.result().map_err(|e| {
        Error::other(format!("cuda: NVRTC cannot compile {file} for {architecture}: {e}\n{}", program.log()))
    })?;
    program.cubin().map_err(|e| Error::other(format!("cuda: NVRTC gave no code for {architecture}: {e}")))
}

struct Program(sys::nvrtcProgram);

impl Program {
    fn log(&self) -> String {
        // SAFETY: the program lives.
        let log = unsafe { cudarc::nvrtc::result::get_program_log(self.0) }.unwrap_or_default();
        let bytes: Vec<u8> = log.iter().map(|&c| c as u8).take_while(|&c| c != 0).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn cubin(&self) -> std::result::Result<Vec<u8>, cudarc::nvrtc::result::NvrtcError> {
        let mut size = 0;
        // SAFETY: the program lives; the second call writes the bytes that the first one counted.
        unsafe {
            sys::nvrtcGetCUBINSize(self.0, &mut size).result()?;
            let mut image = vec![0u8; size];
            sys::nvrtcGetCUBIN(self.0, image.as_mut_ptr().cast()).result()?;
            Ok(image)
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: created in `compile`.
        let _ = unsafe { sys::nvrtcDestroyProgram(&mut self.0) };
    }
}
