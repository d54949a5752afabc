//! Model directories: read, written, refused, and never left half-written.

mod bad_input;
mod card;
mod crash;
pub mod hub;
mod new_file;
mod owned;
mod read;
mod tiny;
mod write;
