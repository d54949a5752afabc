//! The driver's functions, as free functions under their own names.

use super::{Status, text};
use cudarc::driver::sys::{self, CUDA_MEMCPY2D, CUdevice_attribute, CUfunction_attribute};
use std::ffi::{c_char, c_int, c_uchar, c_uint, c_void};
use std::path::PathBuf;
use std::sync::OnceLock;

pub use sys::{CUcontext, CUdevice, CUdeviceptr, CUevent, CUfunction, CUmodule, CUstream};

pub const OUT_OF_MEMORY: Status = Status(2);
pub const NOT_FOUND: Status = Status(500);
pub const NOT_READY: Status = Status(600);

/// Makes every function of the table a free one, for whoever has called [`load`].
macro_rules! driver_functions {
    ($($name:ident($($arg:ident: $type:ty),*);)* ? $option:ident($($option_arg:ident: $option_type:ty),*);) => {
        super::functions! {
            /// All of them are in CUDA 12.0's driver, but for the last, which 12.4 brought.
            Driver {
                $($name($($arg: $type),*) -> Status;)*
                ? $option($($option_arg: $option_type),*) -> Status;
            }
        }
        $(#[allow(non_snake_case, clippy::too_many_arguments)]
        pub unsafe fn $name($($arg: $type),*) -> Status {
            // SAFETY: the caller's promise.
            unsafe { table().$name($($arg),*) }
        })*
        /// Nothing where the driver has no such function.
        #[allow(non_snake_case)]
        pub unsafe fn $option($($option_arg: $option_type),*) -> Option<Status> {
            // SAFETY: the caller's promise.
            unsafe { table().$option($($option_arg),*) }
        }
    };
}

driver_functions! {
    cuInit(flags: c_uint);
    cuDriverGetVersion(version: *mut c_int);
    cuGetErrorName(status: Status, text: *mut *const c_char);
    cuGetErrorString(status: Status, text: *mut *const c_char);
    cuDeviceGetCount(count: *mut c_int);
    cuDeviceGet(device: *mut CUdevice, ordinal: c_int);
    cuDeviceGetName(name: *mut c_char, len: c_int, device: CUdevice);
    cuDeviceGetUuid_v2(uuid: *mut [u8; 16], device: CUdevice);
    cuDeviceTotalMem_v2(bytes: *mut usize, device: CUdevice);
    cuDeviceGetAttribute(value: *mut c_int, attribute: CUdevice_attribute, device: CUdevice);
    cuDevicePrimaryCtxRetain(context: *mut CUcontext, device: CUdevice);
    cuDevicePrimaryCtxRelease_v2(device: CUdevice);
    cuCtxSetCurrent(context: CUcontext);
    cuCtxSynchronize();
    cuProfilerStart();
    cuProfilerStop();
    cuMemGetInfo_v2(free: *mut usize, total: *mut usize);
    cuMemAlloc_v2(address: *mut CUdeviceptr, bytes: usize);
    cuMemFree_v2(address: CUdeviceptr);
    cuMemHostAlloc(address: *mut *mut c_void, bytes: usize, flags: c_uint);
    cuMemFreeHost(address: *mut c_void);
    cuMemcpyHtoDAsync_v2(to: CUdeviceptr, from: *const c_void, bytes: usize, stream: CUstream);
    cuMemcpyDtoHAsync_v2(to: *mut c_void, from: CUdeviceptr, bytes: usize, stream: CUstream);
    cuMemcpyDtoDAsync_v2(to: CUdeviceptr, from: CUdeviceptr, bytes: usize, stream: CUstream);
    cuMemcpy2DAsync_v2(copy: *const CUDA_MEMCPY2D, stream: CUstream);
    cuMemsetD8Async(address: CUdeviceptr, value: c_uchar, bytes: usize, stream: CUstream);
    cuStreamCreate(stream: *mut CUstream, flags: c_uint);
    cuStreamDestroy_v2(stream: CUstream);
    cuStreamSynchronize(stream: CUstream);
    cuStreamWaitEvent(stream: CUstream, event: CUevent, flags: c_uint);
    cuEventCreate(event: *mut CUevent, flags: c_uint);
    cuEventDestroy_v2(event: CUevent);
    cuEventRecord(event: CUevent, stream: CUstream);
    cuEventSynchronize(event: CUevent);
    cuEventQuery(event: CUevent);
    cuEventElapsedTime(milliseconds: *mut f32, start: CUevent, end: CUevent);
    cuModuleLoadData(module: *mut CUmodule, image: *const c_void);
    cuModuleUnload(module: CUmodule);
    cuModuleGetFunction(function: *mut CUfunction, module: CUmodule, name: *const c_char);
    cuFuncSetAttribute(function: CUfunction, attribute: CUfunction_attribute, value: c_int);
    cuLaunchKernel(
        function: CUfunction,
        grid_x: c_uint,
        grid_y: c_uint,
        grid_z: c_uint,
        block_x: c_uint,
        block_y: c_uint,
        block_z: c_uint,
        shared_bytes: c_uint,
        stream: CUstream,
        parameters: *mut *mut c_void,
        extra: *mut *mut c_void
    );
    ? cuFuncGetParamInfo(function: CUfunction, index: usize, offset: *mut usize, size: *mut usize);
}

/// Why the driver's functions cannot be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// There is no driver library.
    Absent,
    /// It lacks that function.
    Lacks(&'static str),
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Unusable::Absent => write!(f, "there is no CUDA driver"),
            Unusable::Lacks(function) => write!(f, "the CUDA driver has no function {function}"),
        }
    }
}

static TABLE: OnceLock<Result<Driver, Unusable>> = OnceLock::new();

/// Opens the driver's library, the first time. Every other function here needs that to have succeeded.
pub fn load() -> Result<(), Unusable> {
    let table = TABLE.get_or_init(|| {
        // SAFETY: opens and closes the library; without one, cudarc's other functions panic.
        if !unsafe { sys::is_culib_present() } {
            return Err(Unusable::Absent);
        }
        // SAFETY: opens the library, which is there.
        Driver::of(unsafe { sys::culib() }).map_err(Unusable::Lacks)
    });
    table.as_ref().map(|_| ()).map_err(|&why| why)
}

fn table() -> &'static Driver {
    TABLE.get().and_then(|table| table.as_ref().ok()).expect("the driver is loaded before it is called")
}

/// Starts the driver, if that is not done.
pub fn start() -> Result<(), Status> {
    // SAFETY: takes no flags.
    unsafe { cuInit(0) }.ok()
}

/// How many devices there are.
pub fn n_devices() -> Result<i32, Status> {
    let mut n = 0;
    // SAFETY: writes one int.
    unsafe { cuDeviceGetCount(&mut n) }.ok().map(|()| n)
}

/// The device `ordinal`.
pub fn device(ordinal: i32) -> Result<CUdevice, Status> {
    let mut device = 0;
    // SAFETY: writes one int.
    unsafe { cuDeviceGet(&mut device, ordinal) }.ok().map(|()| device)
}

/// A device's name, such as `NVIDIA H100 80GB HBM3`.
pub fn device_name(device: CUdevice) -> Result<String, Status> {
    let mut name = [0u8; 256];
    // SAFETY: writes so many bytes at most.
    unsafe { cuDeviceGetName(name.as_mut_ptr().cast(), name.len() as c_int, device) }.ok()?;
    let name = name.split(|&byte| byte == 0).next().expect("at least one piece");
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// What tells a device, or a part of one that is its own (MIG), from all others, in hexadecimal digits.
pub fn device_uuid(device: CUdevice) -> Result<String, Status> {
    let mut uuid = [0; 16];
    // SAFETY: writes so many bytes.
    unsafe { cuDeviceGetUuid_v2(&mut uuid, device) }.ok()?;
    Ok(uuid.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A device's memory in bytes, used or not.
pub fn device_memory(device: CUdevice) -> Result<u64, Status> {
    let mut bytes = 0;
    // SAFETY: writes one size.
    unsafe { cuDeviceTotalMem_v2(&mut bytes, device) }.ok().map(|()| bytes as u64)
}

/// A number that says what a device can do. None of those that are asked for is negative.
pub fn attribute(device: CUdevice, attribute: CUdevice_attribute) -> Result<u32, Status> {
    let mut value = 0;
    // SAFETY: writes one int.
    unsafe { cuDeviceGetAttribute(&mut value, attribute, device) }.ok().map(|()| value.unsigned_abs())
}

/// Compute capability, major and minor.
pub fn capability(device: CUdevice) -> Result<(u32, u32), Status> {
    use CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
    };
    Ok((attribute(device, MAJOR)?, attribute(device, MINOR)?))
}

/// The newest CUDA version that the driver supports, as 12080 for 12.8; the driver need not be started.
pub fn version() -> Result<i32, Status> {
    let mut version = 0;
    // SAFETY: writes one int to a place of that size.
    unsafe { cuDriverGetVersion(&mut version) }.ok().map(|()| version)
}

/// Where the driver's library is, if the system tells.
pub fn path() -> Option<PathBuf> {
    super::file_at(table().cuInit as usize)
}

/// The driver's own name for a status, and its number where it has none.
pub fn name(status: Status) -> String {
    let mut name = std::ptr::null();
    // SAFETY: writes one address, of a text that stays, or null.
    unsafe {
        let _ = cuGetErrorName(status, &mut name);
        text(name).map_or_else(|| format!("CUDA error {}", status.0), str::to_owned)
    }
}

/// `CUDA_ERROR_NO_DEVICE (no CUDA-capable device is detected)`
pub fn describe(status: Status) -> String {
    let mut description = std::ptr::null();
    // SAFETY: as above.
    let description = unsafe {
        let _ = cuGetErrorString(status, &mut description);
        text(description)
    };
    format!("{} ({})", name(status), description.unwrap_or("no description"))
}
