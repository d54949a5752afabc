//! Several processes that train as one: which of them this one is, and what they exchange.
//!
//! Knows neither backend nor model: bytes and numbers in memory. [`Place`] says who this process is, [`Peers`] are all of
//! them: they gather, add up, broadcast and deal out work, over MPI ([`mpi`]), which is loaded when a run has several
//! processes. Whether they fit together ([`hello`]) and all live ([`Watch`]) they tell each other over TCP ([`Star`]), whatever
//! else they exchange by; what is small can go there, too ([`Relay`]). GPUs exchange what is large by themselves
//! (`backend::Collectives`). [`launch`] starts the processes of one machine.

mod dealt;
pub mod hello;
pub mod launch;
pub mod link;
pub mod mpi;
pub mod peers;
pub mod place;
pub mod relay;
pub mod rendezvous;
pub mod star;
pub mod watch;
pub mod wire;

pub use peers::Peers;
pub use place::{Launcher, Place};
pub use relay::Relay;
pub use rendezvous::Rendezvous;
pub use star::Star;
pub use watch::{Progress, Watch};
