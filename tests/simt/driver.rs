//! The driver's functions, straight from the stand-in.

use crate::device::{StandIn, is_real};
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr;

/// What a launch costs; `Counters` in machine.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub launches: u64,
    pub blocks: u64,
    pub global_read: u64,
    pub global_written: u64,
    pub sectors_read: u64,
    pub sectors_written: u64,
    pub shared_read: u64,
    pub shared_written: u64,
    pub mma: u64,
    pub ldmatrix: u64,
    pub ldmatrix_conflicts: u64,
    pub load_sectors: u64,
    pub store_sectors: u64,
}

/// A handle of the driver's.
pub type Handle = *mut c_void;

/// The stand-in with a context on the calling thread, or nothing where the tests run on a real GPU.
pub struct Driver {
    stand_in: &'static StandIn,
    pub broken: Handle,
}

/// Calls a function of the driver with arguments of the types in the list.
macro_rules! call {
    ($driver:expr, $name:literal $(, $value:expr => $type:ty)*) => {{
        // SAFETY: the types are those of the CUDA driver API.
        unsafe {
            let function = $driver.stand_in().function::<unsafe extern "C" fn($($type),*) -> i32>($name).unwrap();
            function($($value),*)
        }
    }};
}
pub(crate) use call;

impl Driver {
    pub fn new() -> Option<Self> {
        if is_real() {
            eprintln!("skipped: the stand-in's own tests, as HBT_REQUIRE_CUDA=1 asks for a real GPU");
            return None;
        }
        let mut driver = Driver { stand_in: StandIn::get(), broken: ptr::null_mut() };
        let mut context = ptr::null_mut();
        assert_eq!(call!(driver, "cuInit", 0 => u32), 0);
        assert_eq!(call!(driver, "cuDevicePrimaryCtxRetain", &mut context => *mut Handle, 0 => i32), 0);
        assert_eq!(call!(driver, "cuCtxSetCurrent", context => Handle), 0);
        let mut module = ptr::null_mut();
        let image = c"//\n// SIMT kernels of broken\n.version 8.0\n.target sm_80\n";
        let code = call!(driver, "cuModuleLoadData", &mut module => *mut Handle, image.as_ptr() => *const c_char);
        assert_eq!(code, 0);
        driver.broken = module;
        Some(driver)
    }

    pub fn stand_in(&self) -> &'static StandIn {
        self.stand_in
    }

    pub fn function(&self, name: &str) -> Handle {
        let mut function = ptr::null_mut();
        let name = CString::new(name).unwrap();
        let (module, name) = (self.broken, name.as_ptr());
        let code =
            call!(self, "cuModuleGetFunction", &mut function => *mut Handle, module => Handle, name => *const c_char);
        assert_eq!(code, 0, "{name:?}");
        function
    }

    pub fn stream(&self) -> Handle {
        const NON_BLOCKING: u32 = 1;
        let mut stream = ptr::null_mut();
        assert_eq!(call!(self, "cuStreamCreate", &mut stream => *mut Handle, NON_BLOCKING => u32), 0);
        stream
    }

    pub fn event(&self) -> Handle {
        let mut event = ptr::null_mut();
        assert_eq!(call!(self, "cuEventCreate", &mut event => *mut Handle, 0 => u32), 0);
        event
    }

    pub fn allocate(&self, bytes: usize) -> u64 {
        let mut address = 0;
        assert_eq!(call!(self, "cuMemAlloc_v2", &mut address => *mut u64, bytes => usize), 0);
        address
    }

    pub fn free(&self, address: u64) {
        assert_eq!(call!(self, "cuMemFree_v2", address => u64), 0);
    }

    /// Pinned memory for `n` floats. The stand-in's is never given back by these tests.
    pub fn pinned(&self, n: usize) -> &'static mut [f32] {
        let mut memory: *mut f32 = ptr::null_mut();
        assert_eq!(call!(self, "cuMemHostAlloc", &mut memory => *mut *mut f32, n * 4 => usize, 0 => u32), 0);
        // SAFETY: `n` floats that are nobody else's.
        unsafe { std::slice::from_raw_parts_mut(memory, n) }
    }

    pub fn upload(&self, to: u64, from: &[f32], stream: Handle) -> i32 {
        let bytes = size_of_val(from);
        call!(self, "cuMemcpyHtoDAsync_v2", to => u64, from.as_ptr() => *const f32, bytes => usize, stream => Handle)
    }

    pub fn download(&self, to: &mut [f32], from: u64, stream: Handle) -> i32 {
        let bytes = size_of_val(to);
        call!(self, "cuMemcpyDtoHAsync_v2", to.as_mut_ptr() => *mut f32, from => u64, bytes => usize, stream => Handle)
    }

    pub fn synchronize(&self, stream: Handle) -> i32 {
        call!(self, "cuStreamSynchronize", stream => Handle)
    }

    /// Queues `kernel(out, in, n)`.
    #[allow(clippy::too_many_arguments)]
    pub fn launch(
        &self,
        kernel: &str,
        blocks: u32,
        threads: u32,
        shared: u32,
        stream: Handle,
        mut out: u64,
        mut input: u64,
        mut n: i64,
    ) -> i32 {
        let function = self.function(kernel);
        let mut params: [Handle; 3] = [(&raw mut out).cast(), (&raw mut input).cast(), (&raw mut n).cast()];
        call!(self, "cuLaunchKernel", function => Handle, blocks => u32, 1 => u32, 1 => u32, threads => u32, 1 => u32,
            1 => u32, shared => u32, stream => Handle, params.as_mut_ptr() => *mut Handle,
            ptr::null_mut() => *mut Handle)
    }

    /// What the last failed launch of this thread did wrong.
    pub fn last_error(&self) -> String {
        // SAFETY: its type in tests/simt; the text lives until this thread's next error.
        unsafe {
            let last = self.stand_in.function::<unsafe extern "C" fn() -> *const c_char>("simt_last_error").unwrap();
            CStr::from_ptr(last()).to_str().unwrap().to_owned()
        }
    }

    pub fn counters(&self, kernel: &str) -> Counters {
        let (kernel, mut counters) = (CString::new(kernel).unwrap(), Counters::default());
        call!(self, "simt_counters", kernel.as_ptr() => *const c_char, &mut counters => *mut Counters);
        counters
    }
}
