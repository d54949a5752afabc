//! What there is of CUDA on this machine, found out without using it.

use super::api::driver::{self as sys, Unusable};
use super::api::{OLDEST_TOOLKIT, Status, cublaslt, nccl, nvrtc};
use super::images;

/// What is there of CUDA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CudaProbe {
    /// No driver library on this machine.
    NoDriver,
    /// There is a driver, but it does not work: why, in its own words where it has some, such as `CUDA_ERROR_NO_DEVICE`.
    Refused(String),
    /// A working driver.
    Driver {
        /// Newest CUDA version that the driver supports, major and minor.
        version: (u32, u32),
        /// In the driver's order.
        devices: Vec<CudaDevice>,
    },
}

/// One GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CudaDevice {
    /// Such as `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// Memory in bytes, used or not.
    pub memory: u64,
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// What tells it from all others, on any machine.
    pub uuid: String,
}

/// Looks for a driver and its devices. Creates no context, so it takes no GPU memory.
pub fn probe() -> CudaProbe {
    match sys::load() {
        Err(Unusable::Absent) => return CudaProbe::NoDriver,
        Err(why) => return CudaProbe::Refused(why.to_string()),
        Ok(()) => {}
    }
    match look() {
        Ok((version, devices)) => CudaProbe::Driver { version, devices },
        Err(status) => CudaProbe::Refused(sys::name(status)),
    }
}

/// The oldest GPUs whose instructions the kernels use, and the oldest driver whose functions are called.
const OLDEST_GPU: (u32, u32) = (8, 0);
const OLDEST_DRIVER: (u32, u32) = (OLDEST_TOOLKIT, 0);

/// The GPU `ordinal` if hbt can compute on it; else why not and what to do, as the first half of a sentence.
///
/// # Errors
/// No driver or too old a one, no such GPU or too old a one, no cuBLASLt, no kernels and no NVRTC to compile them.
pub fn require(ordinal: usize) -> Result<CudaDevice, String> {
    let (version, devices) = match probe() {
        CudaProbe::NoDriver => {
            return Err("there is no CUDA driver on this machine; install NVIDIA's".to_owned());
        }
        CudaProbe::Refused(reason) => {
            return Err(format!("the CUDA driver refuses to work ({reason}); run nvidia-smi to see why"));
        }
        CudaProbe::Driver { version, devices } => (version, devices),
    };
    if version < OLDEST_DRIVER {
        let ((major, minor), (needed, _)) = (version, OLDEST_DRIVER);
        return Err(format!(
            "the NVIDIA driver is for CUDA {major}.{minor}, and hbt needs {needed}.0 or newer; update it"
        ));
    }
    let n = devices.len();
    let Some(device) = devices.into_iter().nth(ordinal) else {
        return Err(format!("there is no GPU {ordinal}, only {n} of them; look at CUDA_VISIBLE_DEVICES"));
    };
    let (name, (major, minor)) = (&device.name, device.capability);
    if device.capability < OLDEST_GPU {
        return Err(format!(
            "{name} is sm_{major}{minor}, and the kernels need sm_80 (Ampere) or newer; take another GPU"
        ));
    }
    match cublaslt::get() {
        Some(Ok(_)) => {}
        Some(Err(why)) => return Err(format!("{why}; install a newer cuBLASLt ({})", pip("nvidia-cublas"))),
        None => {
            let install = pip("nvidia-cublas");
            return Err(format!("cuBLASLt, which multiplies matrices, is not there; install it ({install})"));
        }
    }
    if !images::can_be_had() {
        return Err(format!(
            "this hbt was built without nvcc, and NVRTC, which would compile its kernels now, is not there either; \
             install it ({})",
            pip("nvidia-cuda-nvrtc")
        ));
    }
    Ok(device)
}

/// How to install one of the toolkit's libraries, of the driver's major version. From CUDA 13 on, the packages have no
/// version in their names.
pub(super) fn pip(package: &str) -> String {
    let suffix = match sys::version() {
        Ok(version) if version / 1000 == 12 => "-cu12",
        _ => "",
    };
    format!("pip install {package}{suffix}, then put its lib folder on LD_LIBRARY_PATH")
}

/// What `hbt info` says of the libraries and the kernels, each with a name: versions, where they are, and by which way the
/// GPU `ordinal`, if there is one that can be used, gets its kernels. To find that out, the smallest of them is loaded.
pub fn libraries(ordinal: Option<usize>) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    if sys::load().is_ok() {
        lines.extend(sys::path().map(|path| ("driver", path.display().to_string())));
        let driver = sys::version().unwrap_or_default().unsigned_abs() / 1000;
        let note = |major| if major < driver { " (an older one, which this driver serves too)" } else { "" };
        match cublaslt::get() {
            Some(Ok(lt)) => lines.push(("cublaslt", format!("{lt}{}", note(lt.version.0)))),
            Some(Err(why)) => lines.push(("cublaslt", why.to_owned())),
            None => lines.push(("cublaslt", "none for this driver".to_owned())),
        }
        match nccl::get() {
            Ok(nccl) => lines.push(("nccl", nccl.to_string())),
            Err(why) => lines.push(("nccl", format!("several GPUs need it: {why}"))),
        }
        lines.extend(nvrtc::all().iter().map(|nvrtc| ("nvrtc", format!("{nvrtc}{}", note(nvrtc.version.0)))));
    }
    let serving = match ordinal.map(|ordinal| images::serving(ordinal as i32)) {
        None => String::new(),
        Some(Ok(way)) => format!("; here it is {way}"),
        Some(Err(why)) => format!("; {why}"),
    };
    lines.push(("kernels", images::origin() + &serving));
    lines
}

fn look() -> Result<((u32, u32), Vec<CudaDevice>), Status> {
    sys::start()?;
    let version = sys::version()?.unsigned_abs();
    let devices = (0..sys::n_devices()?).map(device).collect::<Result<_, _>>()?;
    // The driver gives 12080 for 12.8.
    Ok(((version / 1000, version % 1000 / 10), devices))
}

fn device(ordinal: i32) -> Result<CudaDevice, Status> {
    let device = sys::device(ordinal)?;
    Ok(CudaDevice {
        name: sys::device_name(device)?,
        memory: sys::device_memory(device)?,
        capability: sys::capability(device)?,
        uuid: sys::device_uuid(device)?,
    })
}
