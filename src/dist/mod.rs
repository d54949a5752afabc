//! Several processes that train as one: which of them this one is, and what they exchange.
//!
//! Knows neither backend nor model: bytes and numbers in memory. [`Place`] says who this process is, [`Peers`] are all of
//! them: they gather, add up and broadcast, over MPI ([`mpi`]), which is loaded when a run has several processes.

pub mod hello;
pub mod launch;
pub mod link;
pub mod mpi;
pub mod peers;
pub mod place;
pub mod rendezvous;
pub mod wire;

pub use peers::Peers;
pub use place::{Launcher, Place};
