//! The CUDA driver and its devices. The driver is loaded at run time: hbt builds and starts without one.

#![allow(unsafe_code)]

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
