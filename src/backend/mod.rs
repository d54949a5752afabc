//! The operations an encoder, its loss and its optimizer are made of, and the devices that carry them out.
//!
//! Conventions, said once: tensors are contiguous and row-major. Parameter gradients accumulate (`+=`), activation
//! gradients overwrite (`=`). Statistics, losses, parameter gradients and optimizer state are f32; [`Device::E`] is
//! the type of activations and of the weights' working copy. `T` is the number of tokens of a packed batch, `H` the
//! hidden size, `F` the feed-forward size, `S` the number of sequences. No operation uses a float atomic: the same
//! call on the same machine gives the same bytes, whatever the number of threads.

/// A device's operations, one a row: `name(&self, arguments) => what carries it out;`. Each is a [range](crate::trace)
/// of its name.
macro_rules! traced_ops {
    ($($name:ident(&$self:ident $(, $arg:ident: $type:ty)*) => $run:expr;)*) => {$(
        fn $name(&$self $(, $arg: $type)*) -> $crate::Result<()> {
            let _range = $crate::trace::op(stringify!($name));
            $run;
            Ok(())
        }
    )*};
}

mod collectives;
pub mod cpu;
pub mod cuda;
mod device;
mod measurement;
pub mod ops;
pub mod packed;
pub mod philox;
mod purpose;
pub mod tally;
pub mod tensor;

pub use collectives::{Collectives, Share};
pub use cpu::Cpu;
pub use cuda::Cuda;
pub use device::Device;
pub use measurement::{Measurement, MemoryUse};
pub use ops::*;
pub use packed::{
    ATTENTION_ROWS, HostPairing, Ints, Packed, PackedBatch, PackedHost, Pairing, Segments, attention_work,
};
pub use purpose::Purpose;
pub use tally::Tally;
pub use tensor::{Element, Precision, Tensor, Value};

/// A device that the encoder, its loss and its optimizer run on: it holds memory, carries out operations, and can be measured.
pub trait Backend: Operations + Measurement {}

impl<D: Operations + Measurement> Backend for D {}
