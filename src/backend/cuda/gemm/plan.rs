//! cuBLASLt's description of a product, and the algorithm that carries it out.

use super::super::api::cublaslt::{CublasLt, HeuristicResult, NOT_SUPPORTED};
use super::super::driver::Stream;
use super::super::memory::DeviceBuffer;
use super::{Answer, Operands, Shape};
use cudarc::cublaslt::sys;
use std::ffi::{c_int, c_void};
use sys::cublasLtMatmulDescAttributes_t as DescAttribute;
use sys::cublasLtMatmulPreferenceAttributes_t as PrefAttribute;
use sys::cublasLtMatrixLayoutAttribute_t as LayoutAttribute;

/// Algorithms that the heuristic is asked for.
const CANDIDATES: usize = 8;

/// How products of a shape, or of one that is rounded to it, are computed.
pub struct ProductPlan {
    lt: &'static CublasLt,
    desc: sys::cublasLtMatmulDesc_t,
    /// Of cuBLASLt's A, B and D, which are our `b`, `a` and `out`.
    layouts: [sys::cublasLtMatrixLayout_t; 3],
    /// What the heuristic names, the best by its own estimate first.
    candidates: Vec<sys::cublasLtMatmulAlgo_t>,
    /// The one that is taken.
    pub algorithm: sys::cublasLtMatmulAlgo_t,
}

impl ProductPlan {
    pub fn new(
        lt: &'static CublasLt,
        handle: sys::cublasLtHandle_t,
        shape: Shape,
        workspace: &DeviceBuffer<u8>,
    ) -> Answer<Self> {
        let (compute, scale) = (sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, sys::cudaDataType_t::CUDA_R_32F);
        let mut desc = std::ptr::null_mut();
        // SAFETY: writes one handle, destroyed when this value is dropped.
        unsafe { lt.cublasLtMatmulDescCreate(&mut desc, compute, scale) }.ok()?;
        let (layouts, algorithm) = ([std::ptr::null_mut(); 3], HeuristicResult::EMPTY.algo);
        let mut plan = ProductPlan { lt, desc, layouts, candidates: Vec::new(), algorithm };
        let matrices = shape.matrices().into_iter().zip(shape.leading_dimensions());
        for (layout, ((ty, len, lines), ld)) in plan.layouts.iter_mut().zip(matrices) {
            // SAFETY: as above.
            unsafe { lt.cublasLtMatrixLayoutCreate(layout, ty.raw(), len as u64, lines as u64, ld as i64) }.ok()?;
        }
        plan.set_desc(DescAttribute::CUBLASLT_MATMUL_DESC_TRANSA, &i32::from(shape.trans_b))?;
        plan.set_desc(DescAttribute::CUBLASLT_MATMUL_DESC_TRANSB, &i32::from(shape.trans_a))?;
        if shape.has_bias {
            let epilogue = sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS as u32;
            plan.set_desc(DescAttribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
            // `Gemm::check` saw to it.
            plan.set_desc(DescAttribute::CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &shape.output.raw())?;
            // For the heuristic, which may look how it is aligned, any address with the alignment of all.
            plan.set_desc(DescAttribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &workspace.address())?;
        }
        plan.candidates = plan.ask(handle, workspace.len())?;
        plan.algorithm = *plan.candidates.first().ok_or(NOT_SUPPORTED)?;
        Ok(plan)
    }

    /// What the heuristic names, the best by its own estimate first; not none.
    pub fn candidates(&self) -> &[sys::cublasLtMatmulAlgo_t] {
        &self.candidates
    }

    /// Queues a product of `shape`, which the plan is for or is rounded to what it is for.
    pub fn run(
        &self,
        algorithm: &sys::cublasLtMatmulAlgo_t,
        handle: sys::cublasLtHandle_t,
        stream: &Stream,
        shape: Shape,
        operands: Operands,
        workspace: &DeviceBuffer<u8>,
    ) -> Answer<()> {
        self.resize(shape)?;
        if shape.has_bias {
            self.set_desc(DescAttribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &operands.bias)?;
        }
        let (one, beta) = (1.0f32, if shape.accumulate { 1.0f32 } else { 0.0 });
        let [layout_a, layout_b, layout_d] = self.layouts;
        // SAFETY: the layouts have the sizes of the tensors, which `Gemm::check` compared; scalars are read at the call.
        let status = unsafe {
            self.lt.cublasLtMatmul(
                handle,
                self.desc,
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
                algorithm,
                workspace.address() as *mut c_void,
                workspace.len(),
                stream.raw(),
            )
        };
        status.ok()
    }

    /// Whether cuBLASLt takes the algorithm for what the plan is for, and the workspace is enough.
    pub fn accepts(
        &self,
        handle: sys::cublasLtHandle_t,
        algorithm: &sys::cublasLtMatmulAlgo_t,
        workspace: usize,
    ) -> bool {
        let ([a, b, d], mut result) = (self.layouts, HeuristicResult::EMPTY);
        // SAFETY: all handles live; writes one result.
        let status = unsafe { self.lt.cublasLtMatmulAlgoCheck(handle, self.desc, a, b, d, d, algorithm, &mut result) };
        status.ok().is_ok() && result.state.ok().is_ok() && result.workspace_bytes <= workspace
    }

    /// Gives the layouts the exact sizes.
    fn resize(&self, shape: Shape) -> Answer<()> {
        for (&layout, (_, len, lines)) in self.layouts.iter().zip(shape.matrices()) {
            let set = |attribute, value: usize| {
                let (value, bytes) = (value as u64, size_of::<u64>());
                // SAFETY: the attribute is 64 bits.
                unsafe { self.lt.cublasLtMatrixLayoutSetAttribute(layout, attribute, (&raw const value).cast(), bytes) }
                    .ok()
            };
            set(LayoutAttribute::CUBLASLT_MATRIX_LAYOUT_ROWS, len)?;
            set(LayoutAttribute::CUBLASLT_MATRIX_LAYOUT_COLS, lines)?;
        }
        Ok(())
    }

    /// The attribute has to be as large as `T`.
    fn set_desc<T: Copy>(&self, attribute: DescAttribute, value: &T) -> Answer<()> {
        let (value, bytes) = ((&raw const *value).cast(), size_of::<T>());
        // SAFETY: `value` is readable for its own size; the callers pass the attribute's type.
        unsafe { self.lt.cublasLtMatmulDescSetAttribute(self.desc, attribute, value, bytes) }.ok()
    }

    /// Asks the heuristic.
    fn ask(&self, handle: sys::cublasLtHandle_t, workspace: usize) -> Answer<Vec<sys::cublasLtMatmulAlgo_t>> {
        // Partial products may be added up in f32 only, in an order that does not depend on time.
        let reductions = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
        let (mut results, mut found) = ([HeuristicResult::EMPTY; CANDIDATES], 0);
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
        let found = &results[..(found.max(0) as usize).min(CANDIDATES)];
        Ok(found.iter().filter(|result| result.state.ok().is_ok()).map(|result| result.algo).collect())
    }
}

impl Drop for ProductPlan {
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
