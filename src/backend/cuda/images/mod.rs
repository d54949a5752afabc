//! Compiled kernels, and the ways to such as the driver at hand takes.
//!
//! build.rs embeds what nvcc makes of kernels/, if it finds one. Not every driver takes that: an older one refuses code of
//! a newer major version's compilers, PTX that is newer than itself, and GPUs that nvcc did not know need PTX. So there
//! are several ways, gone through until one serves: the embedded code, the embedded PTX, and what each NVRTC that goes
//! with the driver makes of the sources, as code and as PTX. What NVRTC compiles is kept in the cache.

mod compiler;
mod kept;

use super::api::{Opened, Status, driver as sys, nvrtc};
use super::driver::{Context, Module};
use super::probe::pip;
use crate::{Error, Result};
use compiler::Form;
use nvrtc::Nvrtc;
use rayon::prelude::*;
use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// A file of kernels/.
struct Source {
    /// Such as `rows.cu`.
    name: &'static str,
    text: &'static str,
    /// What nvcc made of it.
    embedded: Option<Embedded>,
}

struct Embedded {
    /// Code for the architectures that [`COMPILER`] names.
    fat_binary: &'static [u8],
    /// For all others; ends with a zero byte.
    ptx: &'static str,
}

/// The driver reads images in words.
#[repr(C, align(16))]
#[allow(dead_code, reason = "there is nothing to include without nvcc")]
struct Aligned<Bytes: ?Sized>(Bytes);

/// A file's bytes, aligned.
#[allow(unused_macros, reason = "as above")]
macro_rules! include_aligned {
    ($path:literal) => {{
        static ALIGNED: &Aligned<[u8]> = &Aligned(*include_bytes!($path));
        &ALIGNED.0
    }};
}

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// The least there is to compile: whether the driver takes what an NVRTC makes of it tells about all else.
const PROBE: Source = Source { name: "probe.cu", text: "extern \"C\" __global__ void probe() {}\n", embedded: None };

/// A way to a module.
#[derive(Clone, Copy)]
enum Way {
    EmbeddedCode,
    EmbeddedPtx,
    Compiled(&'static Opened<Nvrtc>, Form),
}

impl Way {
    /// All that this build and this machine offer, in the order in which they are tried. No NVRTC is opened before it is
    /// asked for.
    fn all() -> impl Iterator<Item = Way> {
        let embedded = if COMPILER.is_some() { &[Way::EmbeddedCode, Way::EmbeddedPtx][..] } else { &[] };
        let compiled =
            || nvrtc::all().iter().flat_map(|nvrtc| [Form::Cubin, Form::Ptx].map(|form| Way::Compiled(nvrtc, form)));
        embedded.iter().copied().chain(std::iter::once_with(compiled).flatten())
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Way::EmbeddedCode => write!(f, "this build's code"),
            Way::EmbeddedPtx => write!(f, "this build's PTX"),
            Way::Compiled(nvrtc, form) => {
                let ((major, minor), form) = (nvrtc.version, if *form == Form::Cubin { "code" } else { "PTX" });
                write!(f, "NVRTC {major}.{minor}'s {form}")
            }
        }
    }
}

/// How many files have been compiled, and how long the last of them took.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// The file, such as `rows.cu`.
    pub file: &'static str,
    /// Files compiled so far, this one among them.
    pub done: usize,
    /// Of so many.
    pub total: usize,
    /// What this one took.
    pub time: Duration,
}

/// Whether the driver's answer is about the image, so that another one may do.
fn is_about_the_image(status: Status) -> bool {
    const ANSWERS: [i32; 9] = [
        200, // INVALID_IMAGE: a damaged one, one of a newer compiler's format, compressed in a way it does not know
        209, // NO_BINARY_FOR_GPU: no code for this architecture
        218, // INVALID_PTX
        221, // JIT_COMPILER_NOT_FOUND: a container without the driver's compiler of PTX
        222, // UNSUPPORTED_PTX_VERSION: of a compiler newer than the driver
        223, // JIT_COMPILATION_DISABLED: by the user's environment
        300, // INVALID_SOURCE: neither code nor PTX, as far as it can see
        302, // SHARED_OBJECT_SYMBOL_NOT_FOUND: the compiler of PTX is another driver's
        303, // SHARED_OBJECT_INIT_FAILED: the same
    ];
    ANSWERS.contains(&status.0)
}

/// True when every GPU that is new enough may get its kernels one way or the other.
pub(super) fn can_be_had() -> bool {
    Way::all().next().is_some()
}

/// The kernels of one device.
pub(super) struct Images {
    context: Arc<Context>,
    /// The first of the ways that serves: its number and itself.
    first: OnceLock<(usize, Way)>,
}

impl Images {
    pub fn new(context: &Arc<Context>) -> Self {
        Images { context: context.clone(), first: OnceLock::new() }
    }

    /// Loads these instances, at least, of kernels/`name`.cu.
    pub fn load(&self, name: &str, instances: &[String]) -> Result<Module> {
        let source = source(name);
        let mut refusals = Vec::new();
        for way in Way::all().skip(self.first_way()?.0) {
            match self.load_by(way, source, instances)? {
                Ok(module) => return Ok(module),
                Err(why) => refusals.push(format!("{way}: {why}")),
            }
        }
        Err(self.spent(source.name, &refusals))
    }

    /// Compiles, side by side, those of the files that have to be and are not in the cache.
    pub fn prepare(&self, names: &[&str], instances: &[String], say: &(dyn Fn(Progress) + Sync)) -> Result<()> {
        let (_, Way::Compiled(nvrtc, form)) = self.first_way()? else { return Ok(()) };
        let options = self.options(form, instances);
        // Whether it is whole shows when it is loaded.
        let is_missing =
            |source: &&Source| kept::path(source, &options, nvrtc.version).is_none_or(|path| !path.is_file());
        let missing: Vec<&Source> = names.iter().map(|name| source(name)).filter(is_missing).collect();
        let (done, total) = (AtomicUsize::new(0), missing.len());
        missing.into_par_iter().for_each(|source| {
            let start = Instant::now();
            // An error comes again when the file is loaded, with what else was tried.
            if compiled(source, nvrtc, form, &options).is_ok() {
                let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                say(Progress { file: source.name, done, total, time: start.elapsed() });
            }
        });
        Ok(())
    }

    /// Which of the ways serves, found out with the smallest image of each; with its number.
    fn first_way(&self) -> Result<(usize, Way)> {
        if let Some(&first) = self.first.get() {
            return Ok(first);
        }
        let smallest = MODULES.iter().min_by_key(|source| source.embedded.as_ref().map(|e| e.fat_binary.len()));
        let mut refusals = Vec::new();
        for (i, way) in Way::all().enumerate() {
            let probe = if let Way::Compiled(..) = way { &PROBE } else { smallest.expect("there are kernels") };
            match self.load_by(way, probe, &[])? {
                Ok(_) => return Ok(*self.first.get_or_init(|| (i, way))),
                Err(why) => refusals.push(format!("{way}: {why}")),
            }
        }
        Err(self.spent("any file", &refusals))
    }

    /// The module, or why there is none this way. An error is one that no other image would mend.
    fn load_by(&self, way: Way, source: &Source, instances: &[String]) -> Result<std::result::Result<Module, String>> {
        let (nvrtc, form) = match (way, &source.embedded) {
            (Way::EmbeddedCode, Some(embedded)) => return self.taken(source, embedded.fat_binary),
            (Way::EmbeddedPtx, Some(embedded)) => return self.taken(source, embedded.ptx.as_bytes()),
            (Way::Compiled(nvrtc, form), _) => (nvrtc, form),
            (_, None) => return Ok(Err("there is none".to_owned())),
        };
        let options = self.options(form, instances);
        if let Some(path) = kept::path(source, &options, nvrtc.version)
            && let Some(image) = kept::read(&path)
        {
            if let Ok(module) = self.taken(source, &image)? {
                return Ok(Ok(module));
            }
            // Another driver's, or damaged in a way that its hash does not tell. Compiled anew, it may do.
            kept::remove(&path);
        }
        match compiled(source, nvrtc, form, &options) {
            Ok(image) => self.taken(source, &image),
            Err(why) => Ok(Err(why)),
        }
    }

    /// The module, or why the driver refuses the image.
    fn taken(&self, source: &Source, image: &[u8]) -> Result<std::result::Result<Module, String>> {
        match Module::load(&self.context, image)? {
            Ok(module) => Ok(Ok(module)),
            Err(status) if is_about_the_image(status) => Ok(Err(sys::name(status))),
            Err(status) => {
                let (name, why) = (source.name, sys::describe(status));
                Err(Error::other(format!("cuda: loading the kernels of {name} failed: {why}")))
            }
        }
    }

    fn options(&self, form: Form, instances: &[String]) -> Vec<String> {
        compiler::options(form, self.context.capability, instances)
    }

    /// The error when no way serves.
    fn spent(&self, file: &str, refusals: &[String]) -> Error {
        let (name, (major, minor)) = (&self.context.name, self.context.capability);
        let driver = sys::version().unwrap_or_default();
        let tried = if nvrtc::all().is_empty() {
            let none = "NVRTC: none for this driver".to_owned();
            Cow::Owned(refusals.iter().cloned().chain([none]).collect::<Vec<_>>())
        } else {
            Cow::Borrowed(refusals)
        };
        let (driver_major, driver_minor) = (driver / 1000, driver % 1000 / 10);
        Error::other(format!(
            "cuda: the driver, for CUDA {driver_major}.{driver_minor}, takes no kernels of {file} for {name}, \
             sm_{major}{minor} ({}); install the newest NVRTC of the driver's version ({}), or update the NVIDIA driver",
            tried.join("; "),
            pip("nvidia-cuda-nvrtc")
        ))
    }
}

/// Compiles a file and keeps the image.
fn compiled(
    source: &Source,
    nvrtc: &Opened<Nvrtc>,
    form: Form,
    options: &[String],
) -> std::result::Result<Vec<u8>, String> {
    let image = compiler::compile(nvrtc, source, form, options)?;
    // A cache that cannot be written costs time, not the run.
    if let Some(path) = kept::path(source, options, nvrtc.version) {
        let _ = kept::keep(&path, &image);
    }
    Ok(image)
}

/// The files of kernels/.
pub(super) fn names() -> Vec<&'static str> {
    MODULES.iter().map(|source| source.name.trim_end_matches(".cu")).collect()
}

fn source(name: &str) -> &'static Source {
    MODULES.iter().find(|source| source.name.strip_suffix(".cu") == Some(name)).expect("a file of kernels/")
}

/// Where the kernels of this build come from.
pub(super) fn origin() -> String {
    match COMPILER {
        Some(compiler) => format!("compiled by {compiler}, and PTX for later GPUs"),
        None if sys::load().is_ok() && nvrtc::all().is_empty() => {
            "built without nvcc, and there is no NVRTC to compile them on first use".to_owned()
        }
        None => "built without nvcc: NVRTC compiles them on first use, and they are kept in the cache".to_owned(),
    }
}

/// Which way serves on the device `ordinal`, such as `NVRTC 12.9's code`.
pub(super) fn serving(ordinal: i32) -> Result<String> {
    let images = Images::new(&Context::new(ordinal)?);
    images.first_way().map(|(_, way)| way.to_string())
}
