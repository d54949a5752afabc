//! The text encoder: its parameters, its forward and backward pass, and the directories it is read from and written to.

mod card;
pub mod config;
pub mod directory;
pub mod encoder;
pub mod head;
pub mod hub;
pub mod init;
mod json;
pub mod layer;
pub mod packing;
pub mod params;
mod reading;
pub mod save;
mod tokenizer_files;
pub mod weights;

pub use card::ModelCard;

pub use config::{Arch, DenseSpec, ModelConfig};
pub use directory::ModelDir;
pub use encoder::{Activations, Encoder, Gradients, Keep, Saved};
pub use init::random_init;
pub use layer::StepDropout;
pub use packing::{Packer, Sequences};
pub use params::{DenseParams, EmbeddingParams, EncoderParams, Init, LayerParams, ParamFile, ParamSpec, specs};
pub use reading::{CHUNKS_ON_THEIR_WAY, Reading};
pub use save::{ModelSave, save};
