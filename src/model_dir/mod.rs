//! Directories of Hugging Face and sentence-transformers that hold a model: found on the hub, read, and written.

mod card;
mod carried;
pub mod directory;
mod front_matter;
pub mod hub;
mod lengths;
mod prompts;
pub mod save;
mod sent;
mod tokenizer_files;
pub mod weights;

pub use card::{DataName, Evaluated, ModelCard, Origin};
pub use carried::Carried;
pub use directory::ModelDir;
pub use prompts::Prompts;
pub use save::{ModelSave, save};
pub use sent::DESCRIBING;
