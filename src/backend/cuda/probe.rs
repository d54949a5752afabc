//! What there is of CUDA on this machine, found out without using it.

use super::images;
use cudarc::cublaslt;
use cudarc::driver::{result, sys};

/// What is there of CUDA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CudaProbe {
    /// No driver library on this machine.
    NoDriver,
    /// There is a driver, but it refuses to work; its own name for the reason, such as `CUDA_ERROR_NO_DEVICE`.
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
}

/// Looks for a driver and its devices. Creates no context, so it takes no GPU memory.
pub fn probe() -> CudaProbe {
    // SAFETY: only opens and closes the driver's shared library. Anything else in cudarc panics without one.
    if !unsafe { sys::is_culib_present() } {
        return CudaProbe::NoDriver;
    }
    match look() {
        Ok((version, devices)) => CudaProbe::Driver { version, devices },
        Err(error) => CudaProbe::Refused(format!("{:?}", error.0)),
    }
}

/// The oldest GPUs whose instructions the kernels use, and the oldest driver whose functions are called.
const OLDEST_GPU: (u32, u32) = (8, 0);
const OLDEST_DRIVER: (u32, u32) = (12, 0);

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
    // SAFETY: only opens and closes the library.
    if !unsafe { cublaslt::sys::is_culib_present() } {
        return Err(
            "cuBLASLt, which multiplies matrices, is not there; install it (pip install nvidia-cublas, then put \
                    its lib folder on LD_LIBRARY_PATH)"
                .to_owned(),
        );
    }
    if !images::can_be_had() {
        return Err("this hbt was built without nvcc, and NVRTC, which would compile its kernels now, is not there \
                    either; install it (pip install nvidia-cuda-nvrtc, then put its lib folder on LD_LIBRARY_PATH)"
            .to_owned());
    }
    Ok(device)
}

fn look() -> Result<((u32, u32), Vec<CudaDevice>), result::DriverError> {
    result::init()?;
    let mut version = 0;
    // SAFETY: the driver is there and initialized, and writes one int to a place of that size.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result()?;
    let devices = (0..result::device::get_count()?).map(device).collect::<Result<_, _>>()?;
    // The driver gives 12080 for 12.8.
    Ok(((version.unsigned_abs() / 1000, version.unsigned_abs() % 1000 / 10), devices))
}

fn device(ordinal: i32) -> Result<CudaDevice, result::DriverError> {
    use sys::CUdevice_attribute_enum as Attribute;
    let device = result::device::get(ordinal)?;
    let attribute = |attribute| {
        // SAFETY: `device` was returned by `get`.
        unsafe { result::device::get_attribute(device, attribute) }.map(i32::unsigned_abs)
    };
    Ok(CudaDevice {
        name: result::device::get_name(device)?,
        // SAFETY: `device` was returned by `get`.
        memory: unsafe { result::device::total_mem(device) }? as u64,
        capability: (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
    })
}
