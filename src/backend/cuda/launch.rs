//! How a kernel is launched: its size, its parameters by their places in memory, and the one call that trusts them.

use super::driver::Function;
use super::{Cuda, CudaElement};
use crate::Result;
use crate::backend;
use std::ffi::c_void;
use std::marker::PhantomData;

/// `struct Dropout` of kernels/philox.cuh.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Dropout {
    pub threshold: u32,
    pub scale: f32,
    pub seed_low: u32,
    pub seed_high: u32,
    pub step: u32,
    pub site: u32,
}

impl Dropout {
    pub const NONE: Self = Dropout { threshold: 0, scale: 0.0, seed_low: 0, seed_high: 0, step: 0, site: 0 };
}

impl From<backend::Dropout> for Dropout {
    fn from(dropout: backend::Dropout) -> Self {
        Dropout {
            threshold: dropout.threshold(),
            scale: dropout.scale(),
            seed_low: dropout.seed as u32,
            seed_high: (dropout.seed >> 32) as u32,
            step: dropout.step,
            site: dropout.site,
        }
    }
}

/// Launches a kernel of kernels.rs: `launch!(cuda, gelu::BiasGeluForward { out: args.out, ... }, grid)`, or, where there are
/// several to choose from, `launch!(cuda, ..., instance, grid)`. The fields are what `Pass` makes of the values given.
macro_rules! launch {
    ($cuda:expr, $($kernel:ident)::+ { $($field:ident $(: $value:expr)?),* $(,)? }, $($how:expr),+ $(,)?) => {
        $crate::backend::cuda::kernels::$($kernel)::+ {
            $($field: $crate::backend::cuda::pointers::Pass::pass(
                $crate::backend::cuda::launch::launch!(@ $field $($value)?)
            )),*
        }
        .launch($cuda, $($how),+)
    };
    (@ $field:ident) => { $field };
    (@ $field:ident $value:expr) => { $value };
}
pub(super) use launch;

/// Size of a launch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    blocks: usize,
    threads: Option<usize>,
    shared_bytes: usize,
}

impl From<usize> for Grid {
    /// So many blocks of as many threads as the kernel says.
    fn from(blocks: usize) -> Self {
        Grid { blocks, threads: None, shared_bytes: 0 }
    }
}

impl Grid {
    /// `blocks` blocks of `threads` threads, which may be fewer than the kernel says.
    pub fn new(blocks: usize, threads: usize) -> Self {
        Grid { threads: Some(threads), ..Grid::from(blocks) }
    }

    /// With so much dynamic shared memory a block.
    pub fn with_shared(self, bytes: usize) -> Self {
        Grid { shared_bytes: bytes, ..self }
    }
}

/// A kernel's parameter, by where its value lies.
pub(super) struct Parameter<'a> {
    value: *const c_void,
    size: usize,
    lives: PhantomData<&'a ()>,
}

impl<'a> Parameter<'a> {
    pub fn of<T>(value: &'a T) -> Self {
        Parameter { value: std::ptr::from_ref(value).cast(), size: size_of::<T>(), lives: PhantomData }
    }
}

/// Where the fields of a struct of kernels/ lie, as C++ places them.
pub(super) struct Layout {
    end: usize,
    align: usize,
}

impl Layout {
    pub const fn new() -> Self {
        Layout { end: 0, align: 1 }
    }

    /// The place of the next field.
    pub const fn field(&mut self, align: usize, size: usize) -> usize {
        let place = self.end.next_multiple_of(align);
        self.end = place + size;
        if align > self.align {
            self.align = align;
        }
        place
    }

    /// The size of all.
    pub const fn size(&self) -> usize {
        self.end.next_multiple_of(self.align)
    }
}

/// The kernel `name` or, where it is one of several by element, `name_suffix` of kernels/`module`.cu.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct KernelName {
    pub module: &'static str,
    pub name: &'static str,
    pub suffix: Option<&'static str>,
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
    /// Queues a kernel whose blocks have at most `most_threads` threads. A grid without blocks is nothing to do.
    ///
    /// # Safety
    /// `parameters` are values of the kernel's parameter types, all of them, in its order: what a launcher of kernels.rs
    /// gives, which was read from the kernel's own text. What pointers among them point to is as long as the kernel takes
    /// it to be for this grid, which the operation's `check` and the sizes that it passes on see to, and is not given back
    /// before work queued now is done, which [`Arena`](super::memory::Arena) sees to.
    pub(super) unsafe fn launch(
        &self,
        name: KernelName,
        most_threads: usize,
        grid: Grid,
        parameters: &[Parameter],
    ) -> Result<()> {
        use std::sync::atomic::Ordering::Relaxed;
        let kernel = self.device.kernel(name)?;
        if grid.blocks == 0 {
            return Ok(());
        }
        let name = &kernel.function.name;
        // Where the driver can tell: the compiler reads all of C++, build.rs what it knows.
        if let Some(sizes) = &kernel.parameter_sizes {
            let given = parameters.iter().map(|parameter| parameter.size);
            assert!(given.eq(sizes.iter().copied()), "{name}: its parameters are {sizes:?} bytes");
        }
        let threads = grid.threads.unwrap_or(most_threads);
        assert!(threads <= most_threads, "{name}: {threads} threads, more than {most_threads}");
        let blocks = i32::try_from(grid.blocks).unwrap_or_else(|_| panic!("{name}: {} blocks", grid.blocks));
        self.device.context.bind()?;
        if grid.shared_bytes > kernel.shared_bytes.load(Relaxed) {
            kernel.function.allow_shared(grid.shared_bytes)?;
            kernel.shared_bytes.store(grid.shared_bytes, Relaxed);
        }
        // The driver copies what they point to, and writes nothing.
        let mut values: Vec<*mut c_void> = parameters.iter().map(|parameter| parameter.value.cast_mut()).collect();
        // SAFETY: the caller's promise.
        unsafe {
            kernel.function.launch(
                &self.device.compute,
                blocks.unsigned_abs(),
                threads as u32,
                grid.shared_bytes as u32,
                &mut values,
            )
        }
    }
}
