//! The text encoder: its parameters, its forward and its backward pass, and nothing of files.

pub mod config;
pub mod encoder;
pub mod head;
pub mod init;
pub mod layer;
pub mod packing;
pub mod params;
mod reading;

pub use config::{Arch, DenseSpec, ModelConfig};
pub use encoder::{Activations, Encoder, Gradients, Keep, Saved};
pub use init::random_init;
pub use layer::StepDropout;
pub use packing::{Packer, Sequences};
pub use params::{DenseParams, EmbeddingParams, EncoderParams, Init, LayerParams, ParamFile, ParamSpec, specs};
pub use reading::{CHUNKS_ON_THEIR_WAY, Reading};
