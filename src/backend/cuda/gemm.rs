//! Matrix products by cuBLASLt.
//!
//! A row-major matrix is the transpose of a column-major one, which is what cuBLASLt is best at: `out = op(a) op(b)` is
//! computed as `out^T = op(b)^T op(a)^T`.
//!
//! A plan is what cuBLASLt's heuristic found for a shape: asking it costs more than a small product. The number of
//! tokens differs from chunk to chunk, so plans are made for it rounded up, where it is not a leading dimension: the
//! product itself has the exact size, and the same sizes always take the same algorithm.

use super::api::cublaslt::{self, CublasLt, HeuristicResult};
use super::api::{Opened, Status};
use super::driver::{Context, Stream};
use super::memory::{Arena, DeviceBuffer};
use super::{Cuda, CudaElement};
use crate::backend::{Backend, Gemm, Tensor, Value};
use crate::{Error, Result};
use cudarc::cublaslt::sys;
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::sync::{Arc, PoisonError};
use sys::cublasLtMatmulDescAttributes_t as DescAttribute;
use sys::cublasLtMatmulPreferenceAttributes_t as PrefAttribute;
use sys::cublasLtMatrixLayoutAttribute_t as LayoutAttribute;

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
}

impl Shape {
    fn rounded(self) -> Self {
        let m = if self.trans_a { self.m } else { rounded(self.m) };
        let k = if self.trans_a && !self.trans_b { rounded(self.k) } else { self.k };
        Shape { m, k, ..self }
    }
}

/// A number of tokens that stands for all from the one before: powers of 2, then multiples of 128.
fn rounded(n: usize) -> usize {
    if n <= 128 { n.next_power_of_two() } else { n.next_multiple_of(128) }
}

/// cuBLASLt with its plans.
pub(super) struct Blas {
    plans: HashMap<Shape, Plan>,
    lt: &'static Opened<CublasLt>,
    handle: sys::cublasLtHandle_t,
    workspace: DeviceBuffer<u8>,
}

// SAFETY: a handle may be used from any thread, one at a time; it is behind a mutex.
unsafe impl Send for Blas {}

struct Plan {
    lt: &'static CublasLt,
    desc: sys::cublasLtMatmulDesc_t,
    /// Of cuBLASLt's A, B and D, which are our `b`, `a` and `out`.
    layouts: [sys::cublasLtMatrixLayout_t; 3],
    algo: sys::cublasLtMatmulAlgo_t,
}

impl Blas {
    pub fn new(context: &Arc<Context>, arena: &Arc<Arena>) -> Result<Self> {
        let lt = cublaslt::get().expect("the device was found fit for use").map_err(Error::other)?;
        context.bind()?;
        // What NVIDIA recommends: 32 MiB from Hopper on, 4 MiB before.
        let bytes = if context.capability >= (9, 0) { 32 << 20 } else { 4 << 20 };
        let workspace = DeviceBuffer::new(arena, bytes)?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: writes one handle, destroyed when this value is dropped.
        let status = unsafe { lt.cublasLtCreate(&mut handle) };
        status.ok().map_err(|status| failed(lt, status, "starting"))?;
        Ok(Blas { plans: HashMap::new(), lt, handle, workspace })
    }

    /// Queues a product of that shape.
    fn run(&mut self, stream: &Stream, shape: Shape, operands: Operands) -> Result<()> {
        stream.context.bind()?;
        let rounded = shape.rounded();
        let key = if self.plans.contains_key(&shape) { shape } else { rounded };
        if self.run_planned(stream, key, shape, operands).is_ok() {
            return Ok(());
        }
        // An algorithm found for the rounded size may not take this one; from now on it has its own.
        self.run_planned(stream, shape, shape, operands)
            .map_err(|status| failed(self.lt, status, &format!("the product {shape:?}")))
    }

    /// The product with the plan `key`, which is made if it is not there.
    fn run_planned(&mut self, stream: &Stream, key: Shape, shape: Shape, operands: Operands) -> Answer<()> {
        if !self.plans.contains_key(&key) {
            let plan = Plan::new(self.lt, self.handle, key, self.workspace.len())?;
            self.plans.insert(key, plan);
        }
        let plan = &self.plans[&key];
        plan.resize(shape)?;
        if shape.has_bias {
            plan.set_desc(DescAttribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &operands.bias)?;
        }
        let (one, beta) = (1.0f32, if shape.accumulate { 1.0f32 } else { 0.0 });
        let [layout_a, layout_b, layout_d] = plan.layouts;
        // SAFETY: the layouts have the sizes of the tensors, which `Gemm::check` compared; scalars are read at the call.
        let status = unsafe {
            self.lt.cublasLtMatmul(
                self.handle,
                plan.desc,
                (&raw const one).cast(),
                operands.b as *const c_void,
                layout_a,
                operands.a as *const c_void,
                layout_b,
                (&raw const beta).cast(),
                operands.out as *const c_void,
                layout_d,
                operands.out as *mut c_void,
                layout_d,
                &plan.algo,
                self.workspace.address() as *mut c_void,
                self.workspace.len(),
                stream.raw(),
            )
        };
        status.ok()
    }
}

/// What cuBLASLt gives, or its reason for not giving it.
type Answer<T> = std::result::Result<T, Status>;

fn failed(lt: &CublasLt, status: Status, doing: &str) -> Error {
    Error::other(format!("cuda: cuBLASLt: {doing} failed: {}", lt.name(status)))
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

impl Plan {
    fn new(lt: &'static CublasLt, handle: sys::cublasLtHandle_t, shape: Shape, workspace: usize) -> Answer<Self> {
        let (compute, scale) = (sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, sys::cudaDataType_t::CUDA_R_32F);
        let mut desc = std::ptr::null_mut();
        // SAFETY: writes one handle, destroyed when this value is dropped.
        unsafe { lt.cublasLtMatmulDescCreate(&mut desc, compute, scale) }.ok()?;
        let (layouts, algo) = ([std::ptr::null_mut(); 3], HeuristicResult::EMPTY.algo);
        let mut plan = Plan { lt, desc, layouts, algo };
        let types = [shape.input, shape.input, shape.output];
        for ((layout, (rows, columns)), ty) in plan.layouts.iter_mut().zip(extents(shape)).zip(types) {
            // SAFETY: as above.
            unsafe { lt.cublasLtMatrixLayoutCreate(layout, ty.raw(), rows, columns, rows as i64) }.ok()?;
        }
        plan.set_desc(DescAttribute::CUBLASLT_MATMUL_DESC_TRANSA, &i32::from(shape.trans_b))?;
        plan.set_desc(DescAttribute::CUBLASLT_MATMUL_DESC_TRANSB, &i32::from(shape.trans_a))?;
        if shape.has_bias {
            let epilogue = sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS as u32;
            plan.set_desc(DescAttribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
        }
        plan.algo = plan.choose(handle, workspace)?;
        Ok(plan)
    }

    /// Gives the layouts the exact sizes.
    fn resize(&self, shape: Shape) -> Answer<()> {
        for (&layout, (rows, columns)) in self.layouts.iter().zip(extents(shape)) {
            let set = |attribute, value: u64| {
                let bytes = size_of::<u64>();
                // SAFETY: the attribute is 64 bits.
                unsafe { self.lt.cublasLtMatrixLayoutSetAttribute(layout, attribute, (&raw const value).cast(), bytes) }
                    .ok()
            };
            set(LayoutAttribute::CUBLASLT_MATRIX_LAYOUT_ROWS, rows)?;
            set(LayoutAttribute::CUBLASLT_MATRIX_LAYOUT_COLS, columns)?;
        }
        Ok(())
    }

    /// The attribute has to be as large as `T`.
    fn set_desc<T: Copy>(&self, attribute: DescAttribute, value: &T) -> Answer<()> {
        let (value, bytes) = ((&raw const *value).cast(), size_of::<T>());
        // SAFETY: `value` is readable for its own size; the callers pass the attribute's type.
        unsafe { self.lt.cublasLtMatmulDescSetAttribute(self.desc, attribute, value, bytes) }.ok()
    }

    fn choose(&self, handle: sys::cublasLtHandle_t, workspace: usize) -> Answer<sys::cublasLtMatmulAlgo_t> {
        // Partial products may be added up in f32 only, in an order that does not depend on time.
        let reductions = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
        let (mut results, mut found) = ([HeuristicResult::EMPTY], 0);
        let ([a, b, d], wanted) = (self.layouts, results.len() as c_int);
        let mut preference = std::ptr::null_mut();
        // SAFETY: all handles live; both attributes have the sizes of the values given; there is room for what is wanted.
        unsafe {
            self.lt.cublasLtMatmulPreferenceCreate(&mut preference).ok()?;
            let set = |attribute, value: *const c_void, size| {
                self.lt.cublasLtMatmulPreferenceSetAttribute(preference, attribute, value, size).ok()
            };
            let answer = set(
                PrefAttribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                (&raw const workspace).cast(),
                size_of::<usize>(),
            )
            .and_then(|()| {
                set(
                    PrefAttribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                    (&raw const reductions).cast(),
                    size_of::<u32>(),
                )
            })
            .and_then(|()| {
                let (lt, results) = (self.lt, results.as_mut_ptr());
                lt.cublasLtMatmulAlgoGetHeuristic(
                    handle, self.desc, a, b, d, d, preference, wanted, results, &mut found,
                )
                .ok()
            });
            self.lt.cublasLtMatmulPreferenceDestroy(preference).ok()?;
            answer?;
        }
        let [result] = results;
        if found == 0 {
            return Err(cublaslt::NOT_SUPPORTED);
        }
        result.state.ok().map(|()| result.algo)
    }
}

/// Rows and columns of cuBLASLt's A, B and D as they lie in memory, column-major without gaps.
fn extents(shape: Shape) -> [(u64, u64); 3] {
    let (m, n, k) = (shape.m as u64, shape.n as u64, shape.k as u64);
    let a = if shape.trans_b { (k, n) } else { (n, k) };
    let b = if shape.trans_a { (m, k) } else { (k, m) };
    [a, b, (n, m)]
}

impl Drop for Plan {
    fn drop(&mut self) {
        // SAFETY: created in `new`; a null layout was never made.
        unsafe {
            for layout in self.layouts {
                if !layout.is_null() {
                    let _ = self.lt.cublasLtMatrixLayoutDestroy(layout);
                }
            }
            let _ = self.lt.cublasLtMatmulDescDestroy(self.desc);
        }
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
    };
    let operands = Operands {
        a: address(args.a),
        b: address(args.b),
        bias: args.bias.map_or(0, |bias| bias.buffer().address()),
        out: args.out.buffer().address(),
    };
    let mut blas = cuda.device.blas.lock().unwrap_or_else(PoisonError::into_inner);
    blas.run(&cuda.device.compute, shape, operands)
}
