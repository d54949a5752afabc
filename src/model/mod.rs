//! The text encoder: its parameters, its forward and its backward pass, and nothing of files.

pub mod arch;
pub mod config;
pub mod encoder;
pub mod head;
pub mod init;
pub mod layer;
pub mod packing;
pub mod params;
mod reading;

pub use arch::Family;
pub use config::{
    Activation, Biases, DenseSpec, LayerConfig, LayerPositions, ModelConfig, Norm, NormPlacement, Window,
};
pub use encoder::{Activations, Encoder, Gradients, Keep, Saved};
pub use init::random_init;
pub use layer::StepDropout;
pub use packing::{Packer, Sequences};
pub use params::{DenseParams, EmbeddingParams, EncoderParams, Init, LayerParams, ParamFile, ParamSpec, specs};
pub use reading::{CHUNKS_ON_THEIR_WAY, Reading};
