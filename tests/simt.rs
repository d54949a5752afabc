//! The stand-in itself (tests/simt): each of its checks catches a kernel or a call that is wrong in exactly that way, and
//! lets the corrected twin pass, under every order of threads.

#[path = "simt/driver.rs"]
pub mod driver;
#[path = "simt/launches.rs"]
mod launches;
#[cfg(unix)]
#[path = "simt/nccl.rs"]
mod nccl;
#[path = "simt/products.rs"]
mod products;
#[path = "simt/streams.rs"]
mod streams;
