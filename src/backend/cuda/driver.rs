//! The driver's objects as Rust values that free themselves: context, streams, events, modules, pinned memory.
//!
//! One context a device (the primary one, which other libraries in the process share). Every method that calls the
//! driver binds it to the calling thread first.

use super::api::{Status, driver as sys};
use crate::{Error, Result};
use cudarc::driver::sys::{CUdevice_attribute, CUevent_flags, CUfunction_attribute, CUstream_flags};
use std::cell::Cell;
use std::ffi::{CString, c_uint, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

/// Turns a driver's answer into an error that says what hbt was doing.
pub(super) fn check(status: Status, doing: &str) -> Result<()> {
    status.ok().map_err(|status| Error::other(format!("cuda: {doing} failed: {}", sys::describe(status))))
}

/// Starts or stops what profiles the calling thread's context, if anything does.
pub(super) fn profiler(on: bool) -> Result<()> {
    // SAFETY: both take nothing.
    let code = unsafe { if on { sys::cuProfilerStart() } else { sys::cuProfilerStop() } };
    check(code, "switching the profiler")
}

/// Asked while the host waits for a device that may wait for others, whether these come.
pub(super) trait Alarm: Send + Sync {
    /// # Errors
    /// If they do not.
    fn check(&self) -> Result<()>;
}

/// Lets others have the processor between two looks at something, and more the longer it takes.
pub(super) fn pause(n_looks: &mut u32) {
    const PATIENT: u32 = 200;
    *n_looks = n_looks.saturating_add(1);
    if *n_looks < PATIENT { std::thread::yield_now() } else { std::thread::sleep(Duration::from_micros(50)) }
}

/// A device with its primary context.
pub(super) struct Context {
    context: sys::CUcontext,
    alarm: OnceLock<Weak<dyn Alarm>>,
    /// The alarm has gone off: the device may never be done, and nothing may wait for it any more.
    is_stuck: AtomicBool,
    /// Tells it from all others that this process opens, also from one that is gone and had the same handle.
    id: u64,
    device: sys::CUdevice,
    /// Such as `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// Shared memory that a block may ask for, in bytes.
    pub max_shared_bytes: usize,
}

// SAFETY: a context may be used from any thread that binds it, which `bind` does.
unsafe impl Send for Context {}
// SAFETY: as above; the driver locks its own state.
unsafe impl Sync for Context {}

/// The last [`Context::id`].
static LAST_ID: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The context that was last bound to this thread, which may be gone; 0 for none.
    static BOUND: Cell<u64> = const { Cell::new(0) };
}

impl Context {
    /// The device `ordinal`, whose driver is known to be there.
    pub fn new(ordinal: i32) -> Result<Arc<Self>> {
        let failed = |doing: &'static str| {
            move |status| Error::other(format!("cuda: {doing} of device {ordinal} failed: {}", sys::describe(status)))
        };
        sys::load().map_err(|why| Error::other(format!("cuda: {why}")))?;
        sys::start().or_else(|status| check(status, "starting the driver"))?;
        let device = sys::device(ordinal).map_err(failed("looking for the driver's handle"))?;
        let name = sys::device_name(device).map_err(failed("asking for the name"))?;
        let capability = sys::capability(device).map_err(failed("asking for the compute capability"))?;
        let shared = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
        let max_shared_bytes = sys::attribute(device, shared).map_err(failed("asking for the shared memory"))? as usize;
        let mut context = ptr::null_mut();
        // SAFETY: `device` is a device; the context is given back when this value is dropped.
        check(unsafe { sys::cuDevicePrimaryCtxRetain(&mut context, device) }, "opening the device")?;
        let id = LAST_ID.fetch_add(1, Ordering::Relaxed) + 1;
        let (alarm, is_stuck) = (OnceLock::new(), AtomicBool::new(false));
        Ok(Arc::new(Self { context, alarm, is_stuck, id, device, name, capability, max_shared_bytes }))
    }

    /// From now on, whoever waits for the device does so no longer than `alarm` has no error.
    pub fn watch(&self, alarm: Weak<dyn Alarm>) {
        // One is enough.
        let _ = self.alarm.set(alarm);
    }

    /// Says that the device may never be done.
    pub fn give_up(&self) {
        self.is_stuck.store(true, Ordering::Relaxed);
    }

    /// What is to be asked while the host waits.
    fn alarm(&self) -> Option<Arc<dyn Alarm>> {
        self.alarm.get()?.upgrade()
    }

    /// Makes this the calling thread's context. An error where the device may never be done: the driver may wait for it in any
    /// call, even in those that give things back.
    pub fn bind(&self) -> Result<()> {
        if self.is_stuck.load(Ordering::Relaxed) {
            return Err(Error::other("cuda: the device waits for those of other ranks, which do not come"));
        }
        if BOUND.get() == self.id {
            return Ok(());
        }
        // SAFETY: the context lives as long as `self`.
        check(unsafe { sys::cuCtxSetCurrent(self.context) }, "binding the context")?;
        BOUND.set(self.id);
        Ok(())
    }

    /// Free and total memory of the device in bytes.
    pub fn memory(&self) -> Result<(usize, usize)> {
        self.bind()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: writes two sizes.
        check(unsafe { sys::cuMemGetInfo_v2(&mut free, &mut total) }, "asking for free memory")?;
        Ok((free, total))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if !*self.is_stuck.get_mut() {
            // SAFETY: retained once in `new`. An error here has nobody to go to.
            let _ = unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.device) };
        }
    }
}

/// Work in the order in which it is queued.
pub(super) struct Stream {
    pub context: Arc<Context>,
    stream: sys::CUstream,
}

// SAFETY: the driver's calls on a stream may come from any thread.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

impl Stream {
    pub fn new(context: &Arc<Context>) -> Result<Self> {
        context.bind()?;
        let mut stream = ptr::null_mut();
        let flags = CUstream_flags::CU_STREAM_NON_BLOCKING as c_uint;
        // SAFETY: writes one handle, destroyed when this value is dropped.
        check(unsafe { sys::cuStreamCreate(&mut stream, flags) }, "creating a stream")?;
        Ok(Self { context: context.clone(), stream })
    }

    pub fn raw(&self) -> sys::CUstream {
        self.stream
    }

    /// Waits where the device may wait for others: to be called before what makes the driver wait for the stream.
    pub fn await_others(&self) -> Result<()> {
        if self.context.alarm().is_some() { self.synchronize() } else { Ok(()) }
    }

    /// Waits until all queued work is done. An error of a kernel shows here.
    pub fn synchronize(&self) -> Result<()> {
        self.context.bind()?;
        if self.context.alarm().is_some() {
            let all = Event::new(&self.context, false)?;
            all.record(self)?;
            return all.synchronize();
        }
        // SAFETY: the stream lives.
        check(unsafe { sys::cuStreamSynchronize(self.stream) }, "waiting for the device")
    }

    /// Work queued from now on begins when `event` has happened.
    pub fn wait(&self, event: &Event) -> Result<()> {
        self.context.bind()?;
        // SAFETY: both live.
        check(unsafe { sys::cuStreamWaitEvent(self.stream, event.event, 0) }, "queueing a wait")
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: created in `new`.
        let _ = self.synchronize().map(|()| unsafe { sys::cuStreamDestroy_v2(self.stream) });
    }
}

/// A point in a stream.
pub(super) struct Event {
    context: Arc<Context>,
    event: sys::CUevent,
}

// SAFETY: the driver's calls on an event may come from any thread.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl Event {
    /// An event that orders work. With `timed`, one that can be measured between.
    pub fn new(context: &Arc<Context>, timed: bool) -> Result<Self> {
        context.bind()?;
        let mut event = ptr::null_mut();
        let flags = if timed { CUevent_flags::CU_EVENT_DEFAULT } else { CUevent_flags::CU_EVENT_DISABLE_TIMING };
        // SAFETY: writes one handle, destroyed when this value is dropped.
        check(unsafe { sys::cuEventCreate(&mut event, flags as c_uint) }, "creating an event")?;
        Ok(Self { context: context.clone(), event })
    }

    /// Happens when all work that `stream` has now is done.
    pub fn record(&self, stream: &Stream) -> Result<()> {
        self.context.bind()?;
        // SAFETY: both live.
        check(unsafe { sys::cuEventRecord(self.event, stream.raw()) }, "recording an event")
    }

    /// Waits until it has happened.
    pub fn synchronize(&self) -> Result<()> {
        self.context.bind()?;
        if let Some(alarm) = self.context.alarm() {
            let mut n_looks = 0;
            while !self.has_happened()? {
                alarm.check().inspect_err(|_| self.context.give_up())?;
                pause(&mut n_looks);
            }
            return Ok(());
        }
        // SAFETY: the event lives.
        check(unsafe { sys::cuEventSynchronize(self.event) }, "waiting for an event")
    }

    /// Whether it has happened, without waiting.
    pub fn has_happened(&self) -> Result<bool> {
        self.context.bind()?;
        // SAFETY: the event lives.
        match unsafe { sys::cuEventQuery(self.event) } {
            sys::NOT_READY => Ok(false),
            code => check(code, "asking for an event").map(|()| true),
        }
    }

    /// Milliseconds from `self` to `later`, both of which have happened.
    pub fn milliseconds_to(&self, later: &Event) -> Result<f32> {
        self.context.bind()?;
        let mut milliseconds = 0.0;
        // SAFETY: writes one float.
        check(unsafe { sys::cuEventElapsedTime(&mut milliseconds, self.event, later.event) }, "reading the clock")?;
        Ok(milliseconds)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: created in `new`.
        let _ = self.context.bind().map(|()| unsafe { sys::cuEventDestroy_v2(self.event) });
    }
}

/// Compiled kernels, loaded.
pub(super) struct Module {
    context: Arc<Context>,
    module: sys::CUmodule,
}

// SAFETY: the driver's calls on a module may come from any thread.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

impl Module {
    /// Loads a fat binary, a cubin or PTX that ends with a zero byte. The error is the driver's own code, as the caller
    /// may have another image to try.
    pub fn load(context: &Arc<Context>, image: &[u8]) -> Result<std::result::Result<Self, Status>> {
        context.bind()?;
        let mut module = ptr::null_mut();
        // SAFETY: the image tells its own length, and the driver copies it.
        let code = unsafe { sys::cuModuleLoadData(&mut module, image.as_ptr().cast()) };
        Ok(code.ok().map(|()| Self { context: context.clone(), module }))
    }

    /// The kernel of that name, if the module has it.
    pub fn function(self: &Arc<Self>, name: &str) -> Result<Option<Function>> {
        self.context.bind()?;
        let c_name = CString::new(name).expect("kernels' names have no zero byte");
        let mut function = ptr::null_mut();
        // SAFETY: the module lives.
        let code = unsafe { sys::cuModuleGetFunction(&mut function, self.module, c_name.as_ptr()) };
        if code == sys::NOT_FOUND {
            return Ok(None);
        }
        check(code, &format!("looking up the kernel {name}"))?;
        Ok(Some(Function { _module: self.clone(), function, name: name.to_owned() }))
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: loaded in `load`; every function keeps its module.
        let _ = self.context.bind().map(|()| unsafe { sys::cuModuleUnload(self.module) });
    }
}

/// A kernel, ready to be launched.
pub(super) struct Function {
    _module: Arc<Module>,
    function: sys::CUfunction,
    pub name: String,
}

// SAFETY: the driver's calls on a function may come from any thread.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Sync for Function {}

impl Function {
    /// Lets launches ask for `bytes` of dynamic shared memory, which is needed above 48 KiB.
    pub fn allow_shared(&self, bytes: usize) -> Result<()> {
        let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function lives.
        let code = unsafe { sys::cuFuncSetAttribute(self.function, attribute, bytes as i32) };
        check(code, &format!("asking for {bytes} bytes of shared memory for {}", self.name))
    }

    /// Size in bytes of each parameter, or nothing where the driver cannot tell.
    pub fn parameter_sizes(&self) -> Option<Vec<usize>> {
        let mut sizes = Vec::new();
        loop {
            let (mut offset, mut size) = (0, 0);
            // SAFETY: writes two sizes; the function lives.
            match unsafe { sys::cuFuncGetParamInfo(self.function, sizes.len(), &mut offset, &mut size) }? {
                Status::SUCCESS => sizes.push(size),
                _ => return Some(sizes),
            }
        }
    }

    /// Queues a launch.
    ///
    /// # Safety
    /// `parameters` point to values of the kernel's parameter types, in its order, and what pointers among them point to
    /// is as long as the kernel takes it to be and lives until the work queued on `stream` is done.
    pub unsafe fn launch(
        &self,
        stream: &Stream,
        blocks: u32,
        threads: u32,
        shared_bytes: u32,
        parameters: &mut [*mut c_void],
    ) -> Result<()> {
        // SAFETY: the caller's promise.
        let code = unsafe {
            sys::cuLaunchKernel(
                self.function,
                blocks,
                1,
                1,
                threads,
                1,
                1,
                shared_bytes,
                stream.raw(),
                parameters.as_mut_ptr(),
                ptr::null_mut(),
            )
        };
        check(code, &format!("launching {}", self.name))
    }
}
