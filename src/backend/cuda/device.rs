//! What all operations of one device share.

use super::driver::{Alarm, Context, Module, Stream};
use super::gemm::{Blas, timing_is_wanted};
use super::images::{self, Images, Progress};
use super::launch::{Kernel, KernelName};
use super::memory::{Arena, DeviceBuffer};
use super::nccl::Communicator;
use super::pointers::Scratch;
use super::probe::require;
use super::transfer::Staging;
use super::workload::{Instances, Kernels};
use crate::backend::Share;
use crate::{Error, Result};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// A device, its streams, its memory and its kernels.
pub(super) struct Device {
    /// The exchange with other ranks' devices, if there are such.
    pub communicator: OnceLock<Arc<Communicator>>,
    /// Dropped in this order: what uses a thing before the thing.
    kernels: Mutex<HashMap<KernelName, Arc<Kernel>>>,
    /// By the file's name and whether it is all of it, not only the instances that were prepared.
    modules: Mutex<HashMap<(&'static str, bool), Arc<Module>>>,
    images: Images,
    /// The instances that were prepared.
    instances: OnceLock<Instances>,
    scratch: Mutex<Option<DeviceBuffer<f32>>>,
    /// What fills the caches in benchmarks.
    filler: Mutex<Option<DeviceBuffer<u8>>>,
    pub blas: Mutex<Blas>,
    /// What uploads go through.
    pub staging: Mutex<Staging>,
    /// The stream of all kernels and products.
    pub compute: Stream,
    /// The stream of batches on their way to the device.
    pub copies: Stream,
    pub arena: Arc<Arena>,
    /// Bytes that the device has, whoever has them at present.
    pub memory: u64,
    pub context: Arc<Context>,
}

impl Device {
    pub fn open(ordinal: i32, separate_memory: bool) -> Result<Self> {
        require(ordinal as usize).map_err(|why| Error::config("device", format!("{why}, or set device = \"cpu\"")))?;
        let context = Context::new(ordinal)?;
        let arena = Arena::new(&context, separate_memory);
        let (compute, copies) = (Stream::new(&context)?, Stream::new(&context)?);
        Ok(Device {
            communicator: OnceLock::new(),
            kernels: Mutex::default(),
            modules: Mutex::default(),
            images: Images::new(&context),
            instances: OnceLock::new(),
            scratch: Mutex::default(),
            filler: Mutex::default(),
            blas: Mutex::new(Blas::new(&context, &arena, timing_is_wanted(separate_memory)?)?),
            staging: Mutex::new(Staging::new(&context)?),
            compute,
            copies,
            arena,
            memory: context.memory()?.1 as u64,
            context,
        })
    }

    /// Connects this device as number `rank` of `size`.
    ///
    /// # Panics
    /// If it is connected already.
    pub fn connect(&self, rank: usize, size: usize, share: Share) -> Result<()> {
        let communicator = Communicator::new(&self.context, rank, size, share)?;
        let alarm: Arc<dyn Alarm> = communicator.clone();
        self.context.watch(Arc::downgrade(&alarm));
        assert!(self.communicator.set(communicator).is_ok(), "cuda: connected once");
        Ok(())
    }

    /// A kernel, loaded on first use.
    pub fn kernel(&self, kernel_name: KernelName) -> Result<Arc<Kernel>> {
        let mut kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = kernels.get(&kernel_name) {
            return Ok(kernel.clone());
        }
        let KernelName { module, name, suffix } = kernel_name;
        let full_name = suffix.map_or(name.to_owned(), |suffix| format!("{name}_{suffix}"));
        let function = match self.module(module, false)?.function(&full_name)? {
            Some(function) => function,
            // An instance that was not expected.
            None => self.module(module, true)?.function(&full_name)?.ok_or_else(|| {
                Error::other(format!("cuda: kernels/{module}.cu, as it was compiled, has no kernel {full_name}"))
            })?,
        };
        let kernel = Arc::new(Kernel::new(function));
        kernels.insert(kernel_name, kernel.clone());
        Ok(kernel)
    }

    /// Compiles what has to be, side by side, and loads it.
    pub fn prepare(&self, kernels: Kernels, is_f32: bool, say: &(dyn Fn(Progress) + Sync)) -> Result<()> {
        let mut names = images::names();
        let instances = match kernels {
            Kernels::Of(workload) => {
                names.retain(|name| workload.needs(name, is_f32));
                workload.instances(is_f32)
            }
            Kernels::All => Instances::new(),
            Kernels::AsUsed => return Ok(()),
        };
        let instances = self.instances.get_or_init(|| instances);
        self.images.prepare(&names, instances, say)?;
        names.into_iter().try_for_each(|name| self.module(name, false).map(drop))
    }

    /// A file's module, with all of it or with the instances that were prepared.
    fn module(&self, name: &'static str, whole: bool) -> Result<Arc<Module>> {
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = modules.get(&(name, whole)) {
            return Ok(module.clone());
        }
        let instances = self.instances.get().filter(|_| !whole).map_or(&[][..], Vec::as_slice);
        let module = Arc::new(self.images.load(name, instances)?);
        modules.insert((name, whole), module.clone());
        Ok(module)
    }

    /// Memory for `len` partial sums, until the next call.
    pub fn scratch(&self, len: usize) -> Result<Scratch> {
        // How many sums there are depends on how a chunk's tokens fall into sequences. 32 MiB serve all chunks of usual sizes,
        // so that no step asks for more.
        const LEAST: usize = 1 << 23;
        let len = len.max(LEAST);
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        if scratch.as_ref().is_none_or(|buffer| buffer.len() < len) {
            // The old one first: there may be no room for both.
            *scratch = None;
            *scratch = Some(DeviceBuffer::new(&self.arena, len)?);
        }
        Ok(Scratch::new(scratch.as_ref().expect("just made")))
    }

    /// Writes more than any GPU's second-level cache holds.
    pub fn flush_cache(&self) -> Result<()> {
        const BYTES: usize = 256 << 20;
        let mut filler = self.filler.lock().unwrap_or_else(PoisonError::into_inner);
        if filler.is_none() {
            *filler = Some(DeviceBuffer::new(&self.arena, BYTES)?);
        }
        filler.as_mut().expect("just made").zero(&self.compute, BYTES)
    }
}
