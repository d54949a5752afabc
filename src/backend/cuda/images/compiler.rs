//! NVRTC: a file of kernels/ in, an image out.

use super::{HEADERS, Source};
use crate::backend::cuda::api::Status;
use crate::backend::cuda::api::nvrtc::Nvrtc;
use cudarc::nvrtc::sys::nvrtcProgram;
use std::ffi::{CString, c_char, c_int};

/// What NVRTC makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Code for the GPU at hand.
    Cubin,
    /// What the driver compiles for whatever GPU there is.
    Ptx,
}

/// What NVRTC is told, as build.rs tells nvcc; see kernels/common.cuh. Multiplications and additions are fused where the
/// source says so, and nowhere else: the stand-in and every GPU then compute the same.
const OPTIONS: [&str; 2] = ["--std=c++17", "--fmad=false"];

/// All options, for some instances of a file's templates and a GPU of that compute capability. The kernels use nothing
/// newer than sm_80, so its PTX serves every GPU.
pub fn options(form: Form, (major, minor): (u32, u32), instances: &[String]) -> Vec<String> {
    let architecture = match form {
        Form::Cubin => format!("sm_{major}{minor}"),
        Form::Ptx => "compute_80".to_owned(),
    };
    let architecture = format!("--gpu-architecture={architecture}");
    OPTIONS.into_iter().map(str::to_owned).chain([architecture]).chain(instances.iter().cloned()).collect()
}

/// The image; or why there is none, in NVRTC's words.
pub fn compile(nvrtc: &Nvrtc, source: &Source, form: Form, options: &[String]) -> Result<Vec<u8>, String> {
    let c = |text: &str| CString::new(text).expect("sources have no zero byte");
    let headers: Vec<(CString, CString)> = HEADERS.iter().map(|(name, text)| (c(name), c(text))).collect();
    let names: Vec<*const c_char> = headers.iter().map(|(name, _)| name.as_ptr()).collect();
    let texts: Vec<*const c_char> = headers.iter().map(|(_, text)| text.as_ptr()).collect();
    let (text, name) = (c(source.text), c(source.name));
    let mut handle = std::ptr::null_mut();
    // SAFETY: all strings live until the program is made, which copies them.
    let status = unsafe {
        nvrtc.nvrtcCreateProgram(
            &mut handle,
            text.as_ptr(),
            name.as_ptr(),
            names.len() as c_int,
            texts.as_ptr(),
            names.as_ptr(),
        )
    };
    let said = |status| nvrtc.name(status);
    status.ok().map_err(said)?;
    let program = Program { nvrtc, handle };
    let options: Vec<CString> = options.iter().map(|option| c(option)).collect();
    let options: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
    // SAFETY: the program and the options live.
    let status = unsafe { nvrtc.nvrtcCompileProgram(handle, options.len() as c_int, options.as_ptr()) };
    status.ok().map_err(|status| {
        let log = program.log();
        let first = log.lines().find(|line| line.contains("error")).unwrap_or("no message");
        format!("{} ({first})", said(status))
    })?;
    program.image(form).map_err(said)
}

struct Program<'a> {
    nvrtc: &'a Nvrtc,
    handle: nvrtcProgram,
}

impl Program<'_> {
    fn log(&self) -> String {
        let mut size = 0;
        // SAFETY: the program lives; the second call writes the bytes that the first one counted.
        let log = unsafe {
            self.nvrtc.nvrtcGetProgramLogSize(self.handle, &mut size).ok().and_then(|()| {
                let mut log = vec![0u8; size];
                self.nvrtc.nvrtcGetProgramLog(self.handle, log.as_mut_ptr().cast()).ok().map(|()| log)
            })
        };
        let log = log.unwrap_or_default();
        String::from_utf8_lossy(log.split(|&byte| byte == 0).next().unwrap_or_default()).into_owned()
    }

    fn image(&self, form: Form) -> Result<Vec<u8>, Status> {
        let (nvrtc, mut size) = (self.nvrtc, 0);
        // SAFETY: the program lives; the second call writes the bytes that the first one counted, of PTX with a zero byte.
        unsafe {
            match form {
                Form::Cubin => nvrtc.nvrtcGetCUBINSize(self.handle, &mut size).ok()?,
                Form::Ptx => nvrtc.nvrtcGetPTXSize(self.handle, &mut size).ok()?,
            }
            let mut image = vec![0u8; size];
            match form {
                Form::Cubin => nvrtc.nvrtcGetCUBIN(self.handle, image.as_mut_ptr().cast()).ok()?,
                Form::Ptx => nvrtc.nvrtcGetPTX(self.handle, image.as_mut_ptr().cast()).ok()?,
            }
            Ok(image)
        }
    }
}

impl Drop for Program<'_> {
    fn drop(&mut self) {
        // SAFETY: created in `compile`.
        let _ = unsafe { self.nvrtc.nvrtcDestroyProgram(&mut self.handle) };
    }
}
