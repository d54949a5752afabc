//! The number of threads does not change a bit of any result.

use super::support::{Batch, Case, Random, dropouts, tensor, vector};
use super::{adamw, adamw_rows, attention, embedding, gelu, gemm, info_nce, layer_norm, pooling};
use hbt::backend::{Backend, Pooling};

/// Runs on pools of 1, 2 and 5 threads, of which the last does not divide any shape here.
pub fn assert_same_on_any_number_of_threads<T: PartialEq + Send>(what: &str, run: impl Fn() -> T + Sync) {
    let on = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap().install(&run);
    let one = on(1);
    for n in [2, 5] {
        assert!(on(n) == one, "{what}: {n} threads give another result than one");
    }
}

/// Several blocks of 64 rows and a rest, one long sequence among short ones.
fn case() -> Case {
    Case { name: "threads", lens: vec![5, 1, 150, 64, 2, 90, 17], hidden: 48, n_heads: 3 }
}

/// Large enough for `gemm` to use more than one thread, with sums that span its cache blocks.
pub fn gemm_on_threads<B: Backend>(backend: &B) {
    for size in [[300, 96, 384], [65, 200, 1537], [1, 1000, 700], [1000, 1, 700], [129, 130, 131]] {
        for transposed in gemm::TRANSPOSITIONS {
            let inputs = gemm::Inputs::new::<B, f32>(size, transposed);
            assert_same_on_any_number_of_threads(&format!("gemm {size:?} {transposed:?}"), || {
                let accumulate = gemm::Start::Accumulate;
                let working = inputs.run::<B, B::E>(backend, gemm::Start::Bias, |args| backend.gemm(args));
                (working, inputs.run::<B, f32>(backend, accumulate, |args| backend.gemm_f32(args)))
            });
        }
    }
}

pub fn layers_on_threads<B: Backend>(backend: &B) {
    let case = case();
    for dropout in dropouts() {
        let inputs = layer_norm::Inputs::new::<B>(&case, dropout);
        assert_same_on_any_number_of_threads("residual_layer_norm", || inputs.run(backend));
        let inputs = embedding::Inputs::new::<B>(&case, dropout);
        assert_same_on_any_number_of_threads("embedding", || inputs.run(backend));
        let inputs = attention::Inputs::new::<B>(&case, 1.0, dropout);
        assert_same_on_any_number_of_threads("attention", || inputs.run(backend));
    }
    // The second has more rows than blocks of the smallest size.
    for (rows, width) in [(case.n_tokens(), 4 * case.hidden), (9001, 5)] {
        let inputs = gelu::Inputs::new::<B>(rows, width);
        assert_same_on_any_number_of_threads("bias_gelu", || inputs.run(backend));
    }
}

pub fn heads_on_threads<B: Backend>(backend: &B) {
    let (case, mut random) = (case(), Random::new(81));
    let (n_tokens, h) = (case.n_tokens(), case.hidden);
    let batch = Batch::new(&case.lens, &mut random);
    let (x, d_out) = (random.values::<f32>(n_tokens * h, 1.0), random.values::<f32>(n_tokens * h, 1.0));
    let bias = random.values::<B::E>(h, 1.0);
    assert_same_on_any_number_of_threads("pool", || {
        pooling::run_pool(backend, &batch, Pooling::Mean, &x, &d_out[..case.lens.len() * h])
    });
    assert_same_on_any_number_of_threads("bias_tanh", || pooling::run_bias_tanh(backend, &x, &bias, &d_out, &bias));
    assert_same_on_any_number_of_threads("l2_normalize", || pooling::run_l2_normalize(backend, &x, h, &d_out));
    let inputs = info_nce::Inputs::new(100, 333, 0.02);
    assert_same_on_any_number_of_threads("info_nce_rows", || inputs.run(backend));
}

pub fn optimizer_on_threads<B: Backend>(backend: &B) {
    for run in adamw::runs() {
        assert_same_on_any_number_of_threads("adamw", || run.run(backend));
    }
    assert_same_on_any_number_of_threads("adamw_rows", || {
        adamw_rows::run(backend, adamw_rows::USUAL, adamw_rows::CatchUp::Late)
    });
    let x = Random::new(82).values::<f32>(200_000, 1.0);
    assert_same_on_any_number_of_threads("sum_of_squares", || {
        let mut out = vector(backend, &[0.0]);
        backend.sum_of_squares(&[&tensor(backend, &x, &[x.len()])], &mut out).unwrap();
        out.to_vec(backend).unwrap()
    });
}
