//! Matrix products by cuBLASLt.
//!
//! A row-major matrix is the transpose of a column-major one, which is what cuBLASLt is best at: `out = op(a) op(b)` is
//! computed as `out^T = op(b)^T op(a)^T`.
//!
//! A plan is an algorithm for a shape: asking cuBLASLt's heuristic costs more than a small product. The number of
//! tokens differs from chunk to chunk, so plans are made for it rounded up, where it is not a leading dimension: the
//! product itself has the exact size, and the same sizes always take the same algorithm. Which of those that the heuristic
//! names is the fastest is [timed](timing) the first time that a machine sees the rounded shape, and [kept](choices).

mod choices;
mod padding;
mod plan;
mod timing;

pub(super) use timing::is_wanted as timing_is_wanted;

use super::api::cublaslt::{self, CublasLt, NOT_SUPPORTED};
use super::api::{Opened, Status};
use super::driver::{Context, Stream};
use super::memory::{Arena, DeviceBuffer};
use super::{Cuda, CudaElement};
use crate::backend::{Device as _, Gemm, Tensor, Value};
use crate::{Error, Result};
use choices::Choices;
use cudarc::cublaslt::sys;
use plan::ProductPlan;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, PoisonError};

/// What products that are split over their sum may work in. NVIDIA recommends 32 MiB for Hopper and 4 MiB before; the weight
/// gradients of a layer have too few tiles for any large GPU, and need it everywhere.
const WORKSPACE: usize = 32 << 20;

/// Element types of a matrix, as cuBLASLt names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum MatrixType {
    F32,
    Bf16,
}

impl MatrixType {
    fn of<T: Value>() -> Self {
        match size_of::<T>() {
            2 => MatrixType::Bf16,
            _ => MatrixType::F32,
        }
    }

    fn raw(self) -> sys::cudaDataType {
        match self {
            MatrixType::F32 => sys::cudaDataType_t::CUDA_R_32F,
            MatrixType::Bf16 => sys::cudaDataType_t::CUDA_R_16BF,
        }
    }

    fn bytes(self) -> usize {
        match self {
            MatrixType::F32 => 4,
            MatrixType::Bf16 => 2,
        }
    }
}

impl fmt::Display for MatrixType {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            MatrixType::F32 => "f32",
            MatrixType::Bf16 => "bf16",
        })
    }
}

/// What a plan is made for. `m`, `n` and `k` as in [`Gemm`], those rounded up that no leading dimension depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Shape {
    m: usize,
    n: usize,
    k: usize,
    trans_a: bool,
    trans_b: bool,
    input: MatrixType,
    output: MatrixType,
    has_bias: bool,
    accumulate: bool,
    /// Whether lines of bf16 are as far apart as [`padding`] lays them.
    is_padded: bool,
}

impl Shape {
    fn rounded(self) -> Self {
        let m = if self.trans_a { self.m } else { rounded(self.m) };
        let k = if self.trans_a && !self.trans_b { rounded(self.k) } else { self.k };
        Shape { m, k, ..self }
    }

    /// Types, and lengths and number of the lines, of cuBLASLt's A, B and D: our `b`, `a` and `out`.
    fn matrices(self) -> [(MatrixType, usize, usize); 3] {
        let Shape { m, n, k, input, output, .. } = self;
        let (a_len, a_lines) = if self.trans_b { (k, n) } else { (n, k) };
        let (b_len, b_lines) = if self.trans_a { (m, k) } else { (k, m) };
        [(input, a_len, a_lines), (input, b_len, b_lines), (output, n, m)]
    }

    /// Elements from one line to the next, of the same.
    fn leading_dimensions(self) -> [usize; 3] {
        let of = |(ty, len, _)| if self.is_padded && ty == MatrixType::Bf16 { padding::padded(len) } else { len };
        self.matrices().map(of)
    }
}

/// `64 x 768 x 33 (m x n x k), bf16 to f32, a transposed, added`: for messages, and by which choices are kept.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Shape { m, n, k, input, output, .. } = self;
        write!(f, "{m} x {n} x {k} (m x n x k), {input} to {output}")?;
        let traits = [
            (self.trans_a, ", a transposed"),
            (self.trans_b, ", b transposed"),
            (self.has_bias, ", with bias"),
            (self.accumulate, ", added"),
            (self.is_padded, ", padded"),
        ];
        traits.iter().filter(|(has, _)| *has).try_for_each(|(_, name)| f.write_str(name))
    }
}

/// A number of tokens that stands for all from the one before: powers of 2, then multiples of 128.
fn rounded(n: usize) -> usize {
    if n <= 128 { n.next_power_of_two() } else { n.next_multiple_of(128) }
}

/// cuBLASLt with its plans.
pub(super) struct Blas {
    plans: HashMap<Shape, ProductPlan>,
    /// Rounded shapes that cuBLASLt has no algorithm for as they are.
    padded: HashSet<Shape>,
    /// `None` where the heuristic's first algorithm is taken untimed.
    choices: Option<Choices>,
    lt: &'static Opened<CublasLt>,
    handle: sys::cublasLtHandle_t,
    workspace: DeviceBuffer<u8>,
    /// What is timed adds to other memory than the result's.
    scratch: Arc<Arena>,
}

// SAFETY: a handle may be used from any thread, one at a time; it is behind a mutex.
unsafe impl Send for Blas {}

/// What cuBLASLt gives, or its reason for not giving it.
type Answer<T> = std::result::Result<T, Status>;

fn failed(lt: &CublasLt, status: Status, doing: &str) -> Error {
    Error::other(format!("cuda: cuBLASLt: {doing} failed: {}", lt.name(status)))
}

impl Blas {
    /// `is_timed`: whether algorithms are timed where the choice is not known.
    pub fn new(context: &Arc<Context>, arena: &Arc<Arena>, is_timed: bool) -> Result<Self> {
        let lt = cublaslt::get().expect("the device was found fit for use").map_err(Error::other)?;
        context.bind()?;
        let workspace = DeviceBuffer::new(arena, WORKSPACE)?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: writes one handle, destroyed when this value is dropped.
        let status = unsafe { lt.cublasLtCreate(&mut handle) };
        status.ok().map_err(|status| failed(lt, status, "starting"))?;
        let choices = if is_timed { timing::choices(context, lt) } else { None };
        let scratch = Arena::new(context, true);
        Ok(Blas { plans: HashMap::new(), padded: HashSet::new(), choices, lt, handle, workspace, scratch })
    }

    /// Queues a product of that shape.
    fn run(&mut self, stream: &Stream, arena: &Arc<Arena>, shape: Shape, operands: Operands) -> Result<()> {
        stream.context.bind()?;
        let padded = Shape { is_padded: true, ..shape };
        let can_be_padded = padded.leading_dimensions() != shape.leading_dimensions();
        if !can_be_padded || !self.padded.contains(&shape.rounded()) {
            match self.run_as_it_is(stream, shape, operands) {
                Ok(()) => return Ok(()),
                Err(NOT_SUPPORTED) if can_be_padded => self.padded.insert(shape.rounded()),
                Err(status) => return Err(failed(self.lt, status, &format!("the product {shape}"))),
            };
        }
        padding::with_padding(stream, arena, shape, operands, |operands| {
            self.run_as_it_is(stream, padded, operands)
                .map_err(|status| failed(self.lt, status, &format!("the product {padded}")))
        })
    }

    fn run_as_it_is(&mut self, stream: &Stream, shape: Shape, operands: Operands) -> Answer<()> {
        let key = if self.plans.contains_key(&shape) { shape } else { shape.rounded() };
        match self.run_planned(stream, key, shape, operands) {
            // An algorithm found for the rounded size may not take this one; from now on it has its own.
            Err(_) if key != shape => self.run_planned(stream, shape, shape, operands),
            answer => answer,
        }
    }

    /// The product with the plan `key`, which is made if it is not there.
    fn run_planned(&mut self, stream: &Stream, key: Shape, shape: Shape, operands: Operands) -> Answer<()> {
        if !self.plans.contains_key(&key) {
            let mut plan = ProductPlan::new(self.lt, self.handle, key, &self.workspace)?;
            // What serves one size only, because the algorithm for all like it does not, is not worth the time.
            if key == shape.rounded() {
                self.choose(&mut plan, stream, shape, operands);
            }
            self.plans.insert(key, plan);
        }
        let plan = &self.plans[&key];
        plan.run(&plan.algorithm, self.handle, stream, shape, operands, &self.workspace)
    }
}

/// Addresses of our `a`, `b`, `bias` (or 0) and `out`.
#[derive(Clone, Copy)]
struct Operands {
    a: u64,
    b: u64,
    bias: u64,
    out: u64,
}

impl Drop for Blas {
    fn drop(&mut self) {
        self.plans.clear();
        // SAFETY: created in `new`.
        let _ = unsafe { self.lt.cublasLtDestroy(self.handle) };
    }
}

/// `out = op(a) op(b) [+ bias] [+ out]`
pub(super) fn gemm<E: CudaElement, C: Value>(cuda: &Cuda<E>, args: Gemm<Cuda<E>, C>) -> Result<()> {
    let (m, n, k) = args.check();
    if m == 0 || n == 0 || (k == 0 && args.accumulate) {
        return Ok(());
    }
    // cuBLASLt takes no empty matrices: a sum of no terms is a sum of one zero.
    let zeros = if k == 0 { Some(cuda.alloc::<E>(m.max(n))?) } else { None };
    let address = |x: &Tensor<Cuda<E>, E>| zeros.as_ref().unwrap_or(x.buffer()).address();
    let (input, output) = (MatrixType::of::<E>(), MatrixType::of::<C>());
    let shape = Shape {
        m,
        n,
        k: k.max(1),
        trans_a: args.trans_a,
        trans_b: args.trans_b,
        input,
        output,
        has_bias: args.bias.is_some(),
        accumulate: args.accumulate,
        is_padded: false,
    };
    let operands = Operands {
        a: address(args.a),
        b: address(args.b),
        bias: args.bias.map_or(0, |bias| bias.buffer().address()),
        out: args.out.buffer().address(),
    };
    let mut blas = cuda.device.blas.lock().unwrap_or_else(PoisonError::into_inner);
    blas.run(&cuda.device.compute, &cuda.device.arena, shape, operands)
}
