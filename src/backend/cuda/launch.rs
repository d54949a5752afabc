//! How a kernel is launched: its arguments by value, checked once against the kernel's own parameters.

use super::driver::Function;
use super::memory::DeviceBuffer;
use super::{Cuda, CudaElement};
use crate::Result;
use crate::backend::{Dropout, Ints, Tensor, Value};
use std::ffi::c_void;
use std::sync::Arc;

/// A kernel's argument.
#[derive(Clone, Copy)]
pub(super) enum Arg<'a> {
    /// Up to 24 bytes.
    Value {
        /// They are the first of these.
        words: [u64; 3],
        /// How many.
        size: usize,
    },
    /// A struct, where it lies.
    Struct(&'a [u8]),
}

impl<'a> Arg<'a> {
    fn new<T: bytemuck::NoUninit>(value: T) -> Self {
        let mut words = [0; 3];
        bytemuck::bytes_of_mut(&mut words)[..size_of::<T>()].copy_from_slice(bytemuck::bytes_of(&value));
        Arg::Value { words, size: size_of::<T>() }
    }

    /// A struct that the kernel declares alike.
    pub fn of_struct<T: bytemuck::NoUninit>(value: &'a T) -> Self {
        Arg::Struct(bytemuck::bytes_of(value))
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Arg::Value { words, size } => &bytemuck::bytes_of(words)[..*size],
            Arg::Struct(bytes) => bytes,
        }
    }

    /// An address.
    pub fn pointer(address: u64) -> Self {
        Arg::new(address)
    }
}

macro_rules! arg_from {
    ($($type:ty)+) => {
        $(impl From<$type> for Arg<'_> {
            fn from(value: $type) -> Self {
                Arg::new(value)
            }
        })+
    };
}
arg_from!(f32 i32 u32 i64 u64);

impl From<usize> for Arg<'_> {
    fn from(value: usize) -> Self {
        Arg::new(value as i64)
    }
}

impl From<bool> for Arg<'_> {
    fn from(value: bool) -> Self {
        Arg::new(i32::from(value))
    }
}

impl From<Option<Dropout>> for Arg<'_> {
    /// `struct Dropout` of kernels/philox.cuh.
    fn from(dropout: Option<Dropout>) -> Self {
        Arg::new(match dropout {
            None => [0u32; 6],
            Some(d) => [d.threshold(), d.scale().to_bits(), d.seed as u32, (d.seed >> 32) as u32, d.step, d.site],
        })
    }
}

impl<T: Value> From<&DeviceBuffer<T>> for Arg<'_> {
    fn from(buffer: &DeviceBuffer<T>) -> Self {
        Arg::pointer(buffer.address())
    }
}

impl<E: CudaElement, T: Value> From<&Tensor<Cuda<E>, T>> for Arg<'_> {
    fn from(tensor: &Tensor<Cuda<E>, T>) -> Self {
        tensor.buffer().into()
    }
}

impl<E: CudaElement, T: Value> From<&mut Tensor<Cuda<E>, T>> for Arg<'_> {
    fn from(tensor: &mut Tensor<Cuda<E>, T>) -> Self {
        tensor.buffer().into()
    }
}

impl<E: CudaElement, T: Value> From<Option<&Tensor<Cuda<E>, T>>> for Arg<'_> {
    fn from(tensor: Option<&Tensor<Cuda<E>, T>>) -> Self {
        tensor.map_or(Arg::pointer(0), Arg::from)
    }
}

impl<E: CudaElement, T: Value> From<Option<&mut Tensor<Cuda<E>, T>>> for Arg<'_> {
    fn from(tensor: Option<&mut Tensor<Cuda<E>, T>>) -> Self {
        tensor.map_or(Arg::pointer(0), Arg::from)
    }
}

impl<E: CudaElement> From<Ints<'_, Cuda<E>>> for Arg<'_> {
    fn from(ints: Ints<Cuda<E>>) -> Self {
        Arg::pointer(ints.buffer().address() + (ints.start() * size_of::<i32>()) as u64)
    }
}

impl<E: CudaElement> From<Option<Ints<'_, Cuda<E>>>> for Arg<'_> {
    fn from(ints: Option<Ints<Cuda<E>>>) -> Self {
        ints.map_or(Arg::pointer(0), Arg::from)
    }
}

/// f32 memory for partial sums; what it holds is undefined.
#[derive(Clone, Copy)]
pub(super) struct Scratch {
    pub(super) address: u64,
}

impl From<&Scratch> for Arg<'_> {
    fn from(scratch: &Scratch) -> Self {
        Arg::pointer(scratch.address)
    }
}

/// The arguments of a launch, in the kernel's order.
macro_rules! args {
    ($($arg:expr),* $(,)?) => {
        &[$($crate::backend::cuda::launch::Arg::from($arg)),*]
    };
}
pub(super) use args;

/// Size of a launch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    blocks: usize,
    threads: usize,
    shared_bytes: usize,
}

impl Grid {
    /// `blocks` blocks of `threads` threads.
    pub fn new(blocks: usize, threads: usize) -> Self {
        Grid { blocks, threads, shared_bytes: 0 }
    }

    /// With so much dynamic shared memory a block.
    pub fn with_shared(self, bytes: usize) -> Self {
        Grid { shared_bytes: bytes, ..self }
    }
}

/// A function with what is known of it.
pub(super) struct Kernel {
    function: Function,
    parameter_sizes: Option<Vec<usize>>,
    /// Dynamic shared memory that it may ask for so far.
    shared_bytes: std::sync::atomic::AtomicUsize,
}

impl Kernel {
    pub fn new(function: Function) -> Self {
        /// What every launch may ask for.
        const WITHOUT_ASKING: usize = 48 << 10;
        let parameter_sizes = function.parameter_sizes();
        Kernel { function, parameter_sizes, shared_bytes: WITHOUT_ASKING.into() }
    }
}

impl<E: CudaElement> Cuda<E> {
    /// Queues the kernel `name` with `_f32` or `_bf16` appended, of kernels/`module`.cu.
    pub(super) fn launch_typed(
        &self,
        module: &'static str,
        name: &'static str,
        grid: Grid,
        args: &[Arg],
    ) -> Result<()> {
        self.launch_kernel(self.device.kernel(module, name, Some(E::NAME))?, grid, args)
    }

    /// Queues the kernel `name` of kernels/`module`.cu. A grid without blocks is nothing to do.
    pub(super) fn launch(&self, module: &'static str, name: &'static str, grid: Grid, args: &[Arg]) -> Result<()> {
        self.launch_kernel(self.device.kernel(module, name, None)?, grid, args)
    }

    fn launch_kernel(&self, kernel: Arc<Kernel>, grid: Grid, args: &[Arg]) -> Result<()> {
        use std::sync::atomic::Ordering::Relaxed;
        if grid.blocks == 0 {
            return Ok(());
        }
        let name = &kernel.function.name;
        if let Some(sizes) = &kernel.parameter_sizes {
            assert!(
                args.iter().map(|arg| arg.bytes().len()).eq(sizes.iter().copied()),
                "{name}: its parameters are {sizes:?} bytes"
            );
        }
        let blocks = i32::try_from(grid.blocks).unwrap_or_else(|_| panic!("{name}: {} blocks", grid.blocks));
        self.device.context.bind()?;
        if grid.shared_bytes > kernel.shared_bytes.load(Relaxed) {
            kernel.function.allow_shared(grid.shared_bytes)?;
            kernel.shared_bytes.store(grid.shared_bytes, Relaxed);
        }
        // The driver copies what they point to, and writes nothing.
        let mut parameters: Vec<*mut c_void> = args.iter().map(|arg| arg.bytes().as_ptr().cast_mut().cast()).collect();
        // SAFETY: the arguments have the sizes of the kernel's parameters, as just checked (drivers before CUDA 12.4 cannot
        // tell, but launch the same kernels), and come in the order and with the types that kernels/ gives, as the tests of
        // each operation see. The operation's check() sized the buffers, which live on until work queued later uses them.
        unsafe {
            kernel.function.launch(
                &self.device.compute,
                blocks.unsigned_abs(),
                grid.threads as u32,
                grid.shared_bytes as u32,
                &mut parameters,
            )
        }
    }
}
