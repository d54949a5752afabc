//! Matrix products of a training step of multilingual-E5-small at 2,600 tokens, and a large square one, in bf16 and f32.
//!
//! `cargo bench --bench gemm`. Each shape's answer is checked, then the best of many short runs is printed: on a machine
//! with other work the best says what the code can do, the mean what the neighbours did. Criterion's throughput
//! (Gelem/s) counts floating-point operations.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::bf16;
use hbt::backend::cpu::CpuElement;
use hbt::backend::{Backend, Cpu, Element, Gemm, Tensor};
use std::time::{Duration, Instant};

/// Tokens in a chunk.
const TOKENS: usize = 2600;
/// (inputs, outputs) of the linear layers: query, key and value; attention output; the feed-forward network's two.
const LAYERS: [(usize, usize); 4] = [(384, 1152), (384, 384), (384, 1536), (1536, 384)];
/// Time spent looking for the best run.
const BUDGET: Duration = Duration::from_millis(500);

#[derive(Clone, Copy)]
enum Kind {
    /// `x w^T`: forward.
    Nt,
    /// `d_out w`: the gradient of the input.
    Nn,
    /// `d_out^T x`, with an f32 result: the gradient of the weight.
    Tn,
}

#[derive(Clone, Copy)]
struct Shape {
    kind: Kind,
    m: usize,
    n: usize,
    k: usize,
}

impl Shape {
    fn name(&self) -> String {
        let kind = match self.kind {
            Kind::Nt => "nt",
            Kind::Nn => "nn",
            Kind::Tn => "tn",
        };
        format!("{kind}/{}x{}x{}", self.m, self.n, self.k)
    }

    fn operations(&self) -> u64 {
        2 * (self.m * self.n * self.k) as u64
    }
}

fn shapes() -> Vec<Shape> {
    let mut shapes = Vec::new();
    for (inputs, outputs) in LAYERS {
        shapes.push(Shape { kind: Kind::Nt, m: TOKENS, n: outputs, k: inputs });
        shapes.push(Shape { kind: Kind::Nn, m: TOKENS, n: inputs, k: outputs });
        shapes.push(Shape { kind: Kind::Tn, m: outputs, n: inputs, k: TOKENS });
    }
    shapes.extend([Kind::Nt, Kind::Nn, Kind::Tn].map(|kind| Shape { kind, m: 4096, n: 4096, k: 4096 }));
    shapes
}

struct Problem<E: CpuElement> {
    shape: Shape,
    a: Tensor<Cpu<E>, E>,
    b: Tensor<Cpu<E>, E>,
    /// The result of `Nt` and `Nn`.
    out: Tensor<Cpu<E>, E>,
    /// The result of `Tn`.
    out_f32: Tensor<Cpu<E>, f32>,
}

/// Uniform in [-1, 1), and a bf16 in either element type.
fn random<E: Element>(len: usize, seed: u64) -> Vec<E> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| E::from_f32(bf16::from_f32(next()).to_f32())).collect()
}

impl<E: CpuElement> Problem<E> {
    fn new(shape: Shape) -> Self {
        let Shape { kind, m, n, k } = shape;
        let a_shape = if matches!(kind, Kind::Tn) { [k, m] } else { [m, k] };
        let b_shape = if matches!(kind, Kind::Nt) { [n, k] } else { [k, n] };
        let backend = Cpu::<E>::new();
        Problem {
            shape,
            a: Tensor::from_slice(&backend, &random(m * k, 1), &a_shape).unwrap(),
            b: Tensor::from_slice(&backend, &random(k * n, 2), &b_shape).unwrap(),
            out: Tensor::zeros(&backend, &[m, n]).unwrap(),
            out_f32: Tensor::zeros(&backend, &[m, n]).unwrap(),
        }
    }

    fn run(&mut self) {
        let backend = Cpu::<E>::new();
        let (a, b, bias, accumulate) = (&self.a, &self.b, None, false);
        let (trans_a, trans_b) = (matches!(self.shape.kind, Kind::Tn), matches!(self.shape.kind, Kind::Nt));
        if trans_a {
            backend.gemm_f32(Gemm { a, trans_a, b, trans_b, bias, out: &mut self.out_f32, accumulate }).unwrap();
        } else {
            backend.gemm(Gemm { a, trans_a, b, trans_b, bias, out: &mut self.out, accumulate }).unwrap();
        }
    }

    /// A thousand elements of the result against f64.
    fn check(&mut self) {
        self.run();
        let Shape { kind, m, n, k } = self.shape;
        let (a, b) = (self.a.as_slice(), self.b.as_slice());
        let is_f32 = E::IS_F32 || matches!(kind, Kind::Tn);
        for sample in 0..1000usize {
            let (i, j) = (sample * 7919 % m, sample * 104_729 % n);
            let term = |l: usize| {
                let a = if matches!(kind, Kind::Tn) { a[l * m + i] } else { a[i * k + l] };
                let b = if matches!(kind, Kind::Nt) { b[j * k + l] } else { b[l * n + j] };
                f64::from(a.to_f32()) * f64::from(b.to_f32())
            };
            let (sum, size) = (0..k).map(term).fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()));
            let got = if matches!(kind, Kind::Tn) {
                self.out_f32.as_slice()[i * n + j]
            } else {
                self.out.as_slice()[i * n + j].to_f32()
            };
            let bound = 1e-6 * size + if is_f32 { 0.0 } else { sum.abs() / 256.0 };
            assert!((f64::from(got) - sum).abs() <= bound, "{}: {got} for {sum}", self.shape.name());
        }
    }

    /// GFLOP/s of the fastest run.
    fn best(&mut self) -> f64 {
        let (begin, mut best) = (Instant::now(), f64::INFINITY);
        while begin.elapsed() < BUDGET {
            let start = Instant::now();
            self.run();
            best = best.min(start.elapsed().as_secs_f64());
        }
        self.shape.operations() as f64 / best / 1e9
    }
}

fn gemm(c: &mut Criterion) {
    println!("best of {BUDGET:?}, {} threads, GFLOP/s", rayon::current_num_threads());
    for shape in shapes() {
        let (mut narrow, mut wide) = (Problem::<bf16>::new(shape), Problem::<f32>::new(shape));
        narrow.check();
        wide.check();
        // In turn, so that both meet the same neighbours.
        let mut best = (0.0f64, 0.0f64);
        for _ in 0..3 {
            best = (best.0.max(narrow.best()), best.1.max(wide.best()));
        }
        println!("{:20} bf16 {:5.0}   f32 {:5.0}", shape.name(), best.0, best.1);
        let mut group = c.benchmark_group("gemm");
        group.throughput(Throughput::Elements(shape.operations()));
        group.sample_size(10).warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(500));
        group.bench_function(BenchmarkId::new("cpu bf16", shape.name()), |b| b.iter(|| narrow.run()));
        group.bench_function(BenchmarkId::new("cpu f32", shape.name()), |b| b.iter(|| wide.run()));
        group.finish();
    }
}

criterion_group!(benches, gemm);
criterion_main!(benches);
