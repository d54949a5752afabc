//! Compiled kernels. Fat binaries that build.rs made with nvcc, if it found one; else, or where they have no code for the
//! GPU at hand, the sources in kernels/, compiled by NVRTC on first use and kept in the cache for the next run.

use super::driver::{Context, Module};
use crate::cache::cache_dir;
use crate::{Error, Result};
use cudarc::driver::sys::CUresult;
use cudarc::nvrtc::{result::NvrtcError, sys};
use rayon::prelude::*;
use std::ffi::{CString, c_char, c_int};
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// What NVRTC is told, as build.rs tells nvcc; see kernels/common.cuh. Multiplications and additions are fused where the
/// source says so, and nowhere else: the stand-in and every GPU then compute the same.
const OPTIONS: [&str; 2] = ["--std=c++17", "--fmad=false"];

/// Where the kernels of this build come from, for `hbt info`.
pub(super) fn origin() -> String {
    match (COMPILER, nvrtc_version()) {
        (Some(compiler), _) => format!("compiled by {compiler}, and PTX for later GPUs"),
        (None, Some((major, minor))) => {
            format!("built without nvcc: NVRTC {major}.{minor} compiles them on first use and keeps them in the cache")
        }
        (None, None) => "built without nvcc, and there is no NVRTC to compile them on first use".to_owned(),
    }
}

/// True when every GPU that is new enough gets its kernels one way or the other.
pub(super) fn can_be_had() -> bool {
    COMPILER.is_some() || nvrtc_version().is_some()
}

/// Loads the kernels of kernels/`name`.cu.
pub(super) fn load(context: &Arc<Context>, name: &str) -> Result<Module> {
    let file = format!("{name}.cu");
    let module = MODULES.iter().find(|(module, ..)| *module == file).expect("a module of kernels/");
    if let Some(image) = module.2 {
        match Module::load(context, image)? {
            Ok(module) => return Ok(module),
            Err(code) if has_no_code(code) => {}
            Err(code) => return Err(refused(&file, code)),
        }
    }
    let image = compiled(module, context.capability)?;
    Module::load(context, &image)?.map_err(|code| refused(&file, code))
}

/// Compiles, side by side, what of the kernels is neither in this build nor in the cache; says how many files it will be.
pub(super) fn prepare(capability: (u32, u32), say: &dyn Fn(usize)) -> Result<()> {
    if COMPILER.is_some() {
        return Ok(());
    }
    let version = nvrtc_version().ok_or_else(no_nvrtc)?;
    let missing: Vec<_> = MODULES
        .iter()
        .filter(|module| !cached_image(module, capability, version).is_some_and(|path| path.is_file()))
        .collect();
    if !missing.is_empty() {
        say(missing.len());
    }
    missing.into_par_iter().try_for_each(|module| compiled(module, capability).map(drop))
}

/// Whether the driver's answer means that an image has nothing that this GPU and driver can run.
fn has_no_code(code: CUresult) -> bool {
    matches!(
        code,
        CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU
            | CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION
            | CUresult::CUDA_ERROR_INVALID_PTX
            | CUresult::CUDA_ERROR_JIT_COMPILER_NOT_FOUND
    )
}

fn refused(file: &str, code: CUresult) -> Error {
    Error::other(format!("cuda: the driver refused the kernels of {file}: {code:?}; update the NVIDIA driver"))
}

fn no_nvrtc() -> Error {
    Error::other(
        "cuda: this hbt has no compiled kernels for this GPU, and NVRTC, which would compile them now, is not there either; \
         install it (pip install nvidia-cuda-nvrtc, then put its lib folder on LD_LIBRARY_PATH), or build hbt where nvcc is",
    )
}

/// Major and minor version of NVRTC, if it is there.
fn nvrtc_version() -> Option<(i32, i32)> {
    // SAFETY: only opens and closes the library. Anything else in cudarc panics without it.
    if !unsafe { sys::is_culib_present() } {
        return None;
    }
    let (mut major, mut minor) = (0, 0);
    // SAFETY: writes two ints.
    unsafe { sys::nvrtcVersion(&mut major, &mut minor) }.result().ok().map(|()| (major, minor))
}

/// Name and text of the file, and its fat binary.
type ModuleSource = (&'static str, &'static str, Option<&'static [u8]>);

/// Where the cubin of a module is kept: a name that changes with all that it depends on.
fn cached_image(module: &ModuleSource, capability: (u32, u32), version: (i32, i32)) -> Option<PathBuf> {
    let mut hash = Xxh3::new();
    for text in HEADERS.iter().map(|(_, text)| *text).chain([module.1]).chain(OPTIONS) {
        hash.update(text.as_bytes());
        // So that no two lists of texts look alike.
        hash.update(&text.len().to_le_bytes());
    }
    let ((major, minor), (nvrtc_major, nvrtc_minor)) = (capability, version);
    let stem = module.0.trim_end_matches(".cu");
    let name = format!("{stem}-sm_{major}{minor}-nvrtc{nvrtc_major}.{nvrtc_minor}-{:016x}.cubin", hash.digest());
    Some(cache_dir().ok()?.join("kernels").join(name))
}

/// The cubin of a module, from the cache or from NVRTC.
fn compiled(module: &ModuleSource, capability: (u32, u32)) -> Result<Vec<u8>> {
    let path = cached_image(module, capability, nvrtc_version().ok_or_else(no_nvrtc)?);
    if let Some(image) = path.as_ref().and_then(|path| fs::read(path).ok()) {
        return Ok(image);
    }
    let image = compile(module.0, module.1, &format!("sm_{}{}", capability.0, capability.1))?;
    // A cache that cannot be written costs time, not the run.
    if let Some(path) = path {
        let _ = keep(&path, &image);
    }
    Ok(image)
}

/// Writes the file in one step, as another process may be reading or writing it.
fn keep(path: &std::path::Path, image: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().expect("a file in the cache");
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(image)?;
    file.persist(path)?;
    Ok(())
}

/// A cubin.
fn compile(file: &str, source: &str, architecture: &str) -> Result<Vec<u8>> {
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
        let log = program.log();
        let first = log.lines().find(|line| line.contains("error")).unwrap_or("no message");
        Error::other(format!(
            "cuda: NVRTC cannot compile {file} for {architecture} ({e}): {first}; a newer NVRTC may know this GPU"
        ))
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

    fn cubin(&self) -> std::result::Result<Vec<u8>, NvrtcError> {
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
