//! cuBLASLt's functions, of the library that goes with the driver.

use super::{Opened, Status, Toolkit, majors, text};
use cudarc::cublaslt::sys::{
    cublasComputeType_t, cublasLtHandle_t, cublasLtMatmulAlgo_t, cublasLtMatmulDesc_t, cublasLtMatmulDescAttributes_t,
    cublasLtMatmulPreference_t, cublasLtMatmulPreferenceAttributes_t, cublasLtMatrixLayout_t,
    cublasLtMatrixLayoutAttribute_t, cudaDataType,
};
use cudarc::driver::sys::CUstream;
use std::ffi::{c_char, c_int, c_void};
use std::sync::OnceLock;

/// `CUBLAS_STATUS_NOT_SUPPORTED`: it has no algorithm for what was asked.
pub const NOT_SUPPORTED: Status = Status(15);

/// `cublasLtMatmulHeuristicResult_t`
#[repr(C)]
#[derive(Clone, Copy)]
pub struct HeuristicResult {
    pub algo: cublasLtMatmulAlgo_t,
    pub workspace_bytes: usize,
    /// Whether the algorithm can be used.
    pub state: Status,
    pub waves: f32,
    reserved: [c_int; 4],
}

impl HeuristicResult {
    /// For the heuristic to write to.
    pub const EMPTY: Self = HeuristicResult {
        algo: cublasLtMatmulAlgo_t { data: [0; 8] },
        workspace_bytes: 0,
        state: Status::SUCCESS,
        waves: 0.0,
        reserved: [0; 4],
    };
}

super::functions! {
    /// All of them are in cuBLASLt 12.0.
    CublasLt {
        cublasLtGetVersion() -> usize;
        cublasLtGetStatusName(status: Status) -> *const c_char;
        cublasLtCreate(handle: *mut cublasLtHandle_t) -> Status;
        cublasLtDestroy(handle: cublasLtHandle_t) -> Status;
        cublasLtMatmulDescCreate(
            desc: *mut cublasLtMatmulDesc_t, compute: cublasComputeType_t, scale: cudaDataType
        ) -> Status;
        cublasLtMatmulDescDestroy(desc: cublasLtMatmulDesc_t) -> Status;
        cublasLtMatmulDescSetAttribute(
            desc: cublasLtMatmulDesc_t, attribute: cublasLtMatmulDescAttributes_t, value: *const c_void, bytes: usize
        ) -> Status;
        cublasLtMatrixLayoutCreate(
            layout: *mut cublasLtMatrixLayout_t, element: cudaDataType, rows: u64, columns: u64, ld: i64
        ) -> Status;
        cublasLtMatrixLayoutDestroy(layout: cublasLtMatrixLayout_t) -> Status;
        cublasLtMatrixLayoutSetAttribute(
            layout: cublasLtMatrixLayout_t,
            attribute: cublasLtMatrixLayoutAttribute_t,
            value: *const c_void,
            bytes: usize
        ) -> Status;
        cublasLtMatmulPreferenceCreate(preference: *mut cublasLtMatmulPreference_t) -> Status;
        cublasLtMatmulPreferenceDestroy(preference: cublasLtMatmulPreference_t) -> Status;
        cublasLtMatmulPreferenceSetAttribute(
            preference: cublasLtMatmulPreference_t,
            attribute: cublasLtMatmulPreferenceAttributes_t,
            value: *const c_void,
            bytes: usize
        ) -> Status;
        cublasLtMatmulAlgoGetHeuristic(
            handle: cublasLtHandle_t,
            desc: cublasLtMatmulDesc_t,
            a: cublasLtMatrixLayout_t,
            b: cublasLtMatrixLayout_t,
            c: cublasLtMatrixLayout_t,
            d: cublasLtMatrixLayout_t,
            preference: cublasLtMatmulPreference_t,
            wanted: c_int,
            results: *mut HeuristicResult,
            found: *mut c_int
        ) -> Status;
        cublasLtMatmulAlgoCheck(
            handle: cublasLtHandle_t,
            desc: cublasLtMatmulDesc_t,
            a: cublasLtMatrixLayout_t,
            b: cublasLtMatrixLayout_t,
            c: cublasLtMatrixLayout_t,
            d: cublasLtMatrixLayout_t,
            algo: *const cublasLtMatmulAlgo_t,
            result: *mut HeuristicResult
        ) -> Status;
        cublasLtMatmul(
            handle: cublasLtHandle_t,
            desc: cublasLtMatmulDesc_t,
            alpha: *const c_void,
            a: *const c_void,
            layout_a: cublasLtMatrixLayout_t,
            b: *const c_void,
            layout_b: cublasLtMatrixLayout_t,
            beta: *const c_void,
            c: *const c_void,
            layout_c: cublasLtMatrixLayout_t,
            d: *mut c_void,
            layout_d: cublasLtMatrixLayout_t,
            algo: *const cublasLtMatmulAlgo_t,
            workspace: *mut c_void,
            workspace_bytes: usize,
            stream: CUstream
        ) -> Status;
    }
}

impl CublasLt {
    /// `CUBLAS_STATUS_NOT_SUPPORTED`, or the number where the library has no name for it.
    pub fn name(&self, status: Status) -> String {
        // SAFETY: gives a text that stays, or null.
        let name = unsafe { text(self.cublasLtGetStatusName(status)) };
        name.map_or_else(|| format!("cuBLAS status {}", status.0), str::to_owned)
    }
}

/// The library, if there is one for this driver; an error if it is of no use.
pub fn get() -> Option<Result<&'static Opened<CublasLt>, &'static str>> {
    static FOUND: OnceLock<Option<Result<Opened<CublasLt>, String>>> = OnceLock::new();
    let toolkit = Toolkit {
        names: |major| {
            if cfg!(windows) {
                vec![format!("cublasLt64_{major}.dll")]
            } else {
                vec![format!("libcublasLt.so.{major}"), "libcublasLt.so".to_owned()]
            }
        },
        functions: CublasLt::of,
        version: |table: &CublasLt| {
            // SAFETY: takes nothing.
            let version = unsafe { table.cublasLtGetVersion() } as u32;
            // 120903 for 12.9.3
            Some((version / 10_000, version / 100 % 100))
        },
        address: |table| table.cublasLtGetVersion as usize,
    };
    let found = FOUND.get_or_init(|| {
        let mut found = majors().filter_map(|major| toolkit.open(major));
        // One that is of no use does not hide an older one.
        match found.next() {
            Some(Err(why)) => Some(found.find(Result::is_ok).unwrap_or(Err(why))),
            first => first,
        }
    });
    found.as_ref().map(|found| found.as_ref().map_err(String::as_str))
}
