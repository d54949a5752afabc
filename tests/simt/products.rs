//! cuBLASLt's stand-in: right where the real one works, and refusing what the real one may refuse.

use super::driver::{Driver, Handle, call};
use libloading::Library;
use std::ptr;

const F32: u32 = 0;
const BF16: u32 = 14;
const OK: i32 = 0;
const INVALID_VALUE: i32 = 7;
const NOT_SUPPORTED: i32 = 15;

/// A function of cuBLASLt with arguments of the types in the list.
macro_rules! blas {
    ($blas:expr, $name:literal $(, $value:expr => $type:ty)*) => {{
        // SAFETY: the types are those of cuBLASLt's API.
        unsafe { $blas.get::<unsafe extern "C" fn($($type),*) -> i32>($name.as_bytes()).unwrap()($($value),*) }
    }};
}

/// `d = op(a) op(b) + bias + beta c`, as one case of the tests.
#[derive(Clone, Copy)]
struct Case {
    m: usize,
    n: usize,
    k: usize,
    input: u32,
    output: u32,
    transposed: [bool; 2],
    /// Row-major: A, B, D.
    by_rows: [bool; 3],
    bias: bool,
    beta: f32,
    /// Added to each leading dimension.
    gap: usize,
    /// Added to the address of A, in bytes.
    offset: u64,
    workspace: usize,
    /// Which of the algorithms that the heuristic names.
    algorithm: usize,
}

const PLAIN: Case = Case {
    m: 5,
    n: 3,
    k: 7,
    input: F32,
    output: F32,
    transposed: [false; 2],
    by_rows: [false; 3],
    bias: false,
    beta: 0.0,
    gap: 0,
    offset: 0,
    workspace: 0,
    algorithm: 0,
};

fn size_of(ty: u32) -> usize {
    if ty == F32 { 4 } else { 2 }
}

/// Numbers that bf16 holds, in the bytes of `ty`.
fn encode(values: &[f32], ty: u32) -> Vec<u8> {
    let bytes = |x: &f32| if ty == F32 { x.to_le_bytes().to_vec() } else { x.to_le_bytes()[2..].to_vec() };
    values.iter().flat_map(bytes).collect()
}

fn decode(bytes: &[u8], ty: u32) -> Vec<f32> {
    let value = |b: &[u8]| {
        if ty == F32 { f32::from_le_bytes(b.try_into().unwrap()) } else { f32::from_le_bytes([0, 0, b[0], b[1]]) }
    };
    bytes.chunks(size_of(ty)).map(value).collect()
}

/// A matrix as it lies in memory.
#[derive(Clone, Copy)]
struct Matrix {
    rows: usize,
    columns: usize,
    by_rows: bool,
    ld: usize,
    ty: u32,
}

impl Matrix {
    fn new(rows: usize, columns: usize, by_rows: bool, gap: usize, ty: u32) -> Self {
        Matrix { rows, columns, by_rows, ld: if by_rows { columns } else { rows } + gap, ty }
    }

    fn at(&self, row: usize, column: usize) -> usize {
        if self.by_rows { row * self.ld + column } else { column * self.ld + row }
    }

    fn len(&self) -> usize {
        self.at(self.rows - 1, self.columns - 1) + 1
    }

    fn layout(&self, blas: &Library) -> Handle {
        let mut layout = ptr::null_mut();
        let (rows, columns, ld) = (self.rows as u64, self.columns as u64, self.ld as i64);
        blas!(blas, "cublasLtMatrixLayoutCreate", &mut layout => *mut Handle, self.ty => u32, rows => u64, columns => u64, ld => i64);
        let order = u32::from(self.by_rows);
        blas!(blas, "cublasLtMatrixLayoutSetAttribute", layout => Handle, 1 => i32, &order => *const u32, 4 => usize);
        layout
    }
}

/// Runs a case and compares it with loops; gives cuBLASLt's answer otherwise.
fn run(driver: &Driver, case: Case) -> i32 {
    // SAFETY: the stand-in's, loaded before by its path.
    let blas = unsafe { Library::new("libcublasLt.so.12") }.unwrap();
    let Case { m, n, k, .. } = case;
    let [ta, tb] = case.transposed;
    let a = Matrix::new(if ta { k } else { m }, if ta { m } else { k }, case.by_rows[0], case.gap, case.input);
    let b = Matrix::new(if tb { n } else { k }, if tb { k } else { n }, case.by_rows[1], case.gap, case.input);
    let d = Matrix::new(m, n, case.by_rows[2], case.gap, case.output);
    let numbers =
        |len: usize, seed: usize| -> Vec<f32> { (0..len).map(|i| ((i * 7 + seed) % 9) as f32 - 4.0).collect() };
    let (a_values, b_values, d_values, bias) =
        (numbers(a.len(), 1), numbers(b.len(), 2), numbers(d.len(), 3), numbers(m, 4));
    let stream = driver.stream();
    let upload = |values: &[f32], ty: u32, offset: u64| {
        let bytes = encode(values, ty);
        let address = driver.allocate(bytes.len() + offset as usize) + offset;
        call!(driver, "cuMemcpyHtoDAsync_v2", address => u64, bytes.as_ptr() => *const u8, bytes.len() => usize, stream => Handle);
        address
    };
    let (a_device, b_device) = (upload(&a_values, case.input, case.offset), upload(&b_values, case.input, 0));
    let (d_device, bias_device) = (upload(&d_values, case.output, 0), upload(&bias, case.output, 0));

    let (mut handle, mut desc, mut preference) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
    assert_eq!(blas!(blas, "cublasLtCreate", &mut handle => *mut Handle), OK);
    blas!(blas, "cublasLtMatmulDescCreate", &mut desc => *mut Handle, 68 => u32, F32 => u32);
    for (attribute, transposed) in [(3, ta), (4, tb)] {
        let value = i32::from(transposed);
        blas!(blas, "cublasLtMatmulDescSetAttribute", desc => Handle, attribute => i32, &value => *const i32, 4 => usize);
    }
    if case.bias {
        let epilogue = 4u32;
        blas!(blas, "cublasLtMatmulDescSetAttribute", desc => Handle, 7 => i32, &epilogue => *const u32, 4 => usize);
        blas!(blas, "cublasLtMatmulDescSetAttribute", desc => Handle, 8 => i32, &bias_device => *const u64, 8 => usize);
    }
    blas!(blas, "cublasLtMatmulPreferenceCreate", &mut preference => *mut Handle);
    let most = 1u64 << 20;
    blas!(blas, "cublasLtMatmulPreferenceSetAttribute", preference => Handle, 1 => i32, &most => *const u64, 8 => usize);
    let [la, lb, ld] = [a, b, d].map(|matrix| matrix.layout(&blas));
    // cublasLtMatmulHeuristicResult_t: the algorithm, workspace, status and waves, and more.
    let (mut results, mut n_found) = ([[0u64; 12]; 8], 0);
    let status = blas!(blas, "cublasLtMatmulAlgoGetHeuristic", handle => Handle, desc => Handle, la => Handle, lb => Handle,
        ld => Handle, ld => Handle, preference => Handle, 8 => i32, results.as_mut_ptr() => *mut [u64; 12],
        &mut n_found => *mut i32);
    if status != OK {
        return status;
    }
    assert_eq!(n_found, 8);
    let found = &results[case.algorithm];
    let mut checked = [0u64; 12];
    let status = blas!(blas, "cublasLtMatmulAlgoCheck", handle => Handle, desc => Handle, la => Handle, lb => Handle,
        ld => Handle, ld => Handle, found.as_ptr() => *const u64, checked.as_mut_ptr() => *mut u64);
    assert_eq!((status, checked[..9].to_vec()), (OK, found[..9].to_vec()), "its workspace is that of the heuristic");
    let workspace = driver.allocate(case.workspace.max(1));
    let (alpha, beta) = (1.0f32, case.beta);
    let status = blas!(blas, "cublasLtMatmul", handle => Handle, desc => Handle, &alpha => *const f32, a_device => u64, la => Handle,
        b_device => u64, lb => Handle, &beta => *const f32, d_device => u64, ld => Handle, d_device => u64,
        ld => Handle, found.as_ptr() => *const u64, workspace => u64, case.workspace => usize, stream => Handle);
    if status != OK {
        return status;
    }
    let mut bytes = vec![0u8; d.len() * size_of(case.output)];
    call!(driver, "cuMemcpyDtoHAsync_v2", bytes.as_mut_ptr() => *mut u8, d_device => u64, bytes.len() => usize, stream => Handle);
    let got = decode(&bytes, case.output);
    for row in 0..m {
        for column in 0..n {
            let term = |i| {
                let (ar, ac) = if ta { (i, row) } else { (row, i) };
                let (br, bc) = if tb { (column, i) } else { (i, column) };
                a_values[a.at(ar, ac)] * b_values[b.at(br, bc)]
            };
            let sum: f32 = (0..k).map(term).sum();
            let more = case.beta * d_values[d.at(row, column)] + if case.bias { bias[row] } else { 0.0 };
            assert_eq!(got[d.at(row, column)], sum + more, "row {row}, column {column}");
        }
    }
    OK
}

#[test]
fn products_in_every_layout() {
    let Some(driver) = Driver::new() else { return };
    for bits in 0..32u32 {
        let bit = |i: u32| bits >> i & 1 == 1;
        let case = Case { transposed: [bit(0), bit(1)], by_rows: [bit(2), bit(3), bit(4)], ..PLAIN };
        assert_eq!(run(&driver, case), OK);
        assert_eq!(run(&driver, Case { gap: 3, bias: true, beta: 1.0, ..case }), OK);
        assert_eq!(run(&driver, Case { input: BF16, output: BF16, k: 3, gap: 1, bias: true, ..case }), OK);
        assert_eq!(run(&driver, Case { input: BF16, k: 3, gap: 1, beta: 1.0, ..case }), OK);
    }
    assert_eq!(run(&driver, Case { m: 37, n: 50, k: 129, ..PLAIN }), OK);
    for algorithm in 0..8 {
        assert_eq!(run(&driver, Case { m: 37, n: 50, k: 129, workspace: 1 << 20, algorithm, ..PLAIN }), OK);
    }
}

#[test]
fn products_that_are_refused() {
    let Some(driver) = Driver::new() else { return };
    // f32 into bf16 is no product of cuBLASLt's.
    assert_eq!(run(&driver, Case { output: BF16, ..PLAIN }), NOT_SUPPORTED);
    // The preference did not say that A may be anywhere.
    assert_eq!(run(&driver, Case { offset: 128, ..PLAIN }), NOT_SUPPORTED);
    assert!(driver.last_error().contains("matrix A"), "{}", driver.last_error());
    // Nobody says that the bias is bf16, and the real one would read f32.
    assert_eq!(run(&driver, Case { input: BF16, gap: 1, k: 3, bias: true, ..PLAIN }), NOT_SUPPORTED);
    // The real one has algorithms for some of these.
    assert_eq!(run(&driver, Case { input: BF16, ..PLAIN }), NOT_SUPPORTED);
    assert!(driver.last_error().contains("odd leading dimension"), "{}", driver.last_error());
    // Later algorithms split every sum.
    assert_eq!(run(&driver, Case { algorithm: 1, ..PLAIN }), INVALID_VALUE);
    // Many terms want a workspace.
    assert_eq!(run(&driver, Case { k: 5000, ..PLAIN }), INVALID_VALUE);
    assert_eq!(run(&driver, Case { k: 5000, workspace: 1 << 20, ..PLAIN }), OK);
}
