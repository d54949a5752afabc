//! The kernels as Rust sees them: build.rs reads kernels/ and writes a module for each file. `gelu` of kernels/gelu.cu has
//! a struct for each kernel, with the kernel's parameters as its fields, which is launched; for kernels that one macro
//! declares, such as those for widths of 256, 512 and so on, there is one struct, and an enum to choose by; and the file's
//! integer constants. `partials_cuh` has those of kernels/partials.cuh. A parameter or a constant that is changed in
//! kernels/ does not compile here.
//!
//! [`launch!`](super::launch::launch) writes such a struct and launches it.

#![allow(dead_code, reason = "kernels/ has constants for itself too")]
#![allow(unused_imports, unused_parens, reason = "a machine wrote it")]
#![allow(non_snake_case, non_upper_case_globals, reason = "the names of kernels/")]
#![allow(clippy::type_complexity, clippy::identity_op, reason = "as kernels/ has it")]

use super::adamw::AdamWList;
use super::launch::{Dropout, Grid, KernelName, Layout, Parameter};
use super::pointers::{In, Out};
use super::tensor_list::{TensorBlocks, TensorList};
use super::{Cuda, CudaElement};
use crate::Result;
use half::bf16;
use std::mem::offset_of;

include!(concat!(env!("OUT_DIR"), "/launchers.rs"));
