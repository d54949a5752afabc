//! The loss over a batch's embeddings, in chunks of rows, in all its variants, against the reference.

use crate::ops::support::{Random, assert_close_on_scale, ints, poisoned, read, receive, rounded, tensor};
use crate::reference::difference::assert_along_directions;
use crate::reference::info_nce::{Loss, bits};
use crate::reference::pooling::l2_normalize;
use crate::tolerance;
use hbt::backend::{Backend, Device, Element, Ints, Pairing, Tally, Tensor};
use hbt::loss::{InfoNce, LearnedTemperature, LossConfig};
use std::ops::Range;
use std::panic::catch_unwind;

/// Embedding sizes: what no vector instruction divides, and what tensor cores take.
const ODD: usize = 9;
const EVEN: usize = 16;
const TEMPERATURE: f32 = 0.1;

/// Embeddings and what is said of them.
struct Case<const D: usize> {
    /// `(S, D)`, as sequences are numbered
    unit: Vec<f64>,
    n_queries: usize,
    labels: Vec<i32>,
    rejected: Vec<i32>,
    left_out: Vec<(usize, usize)>,
    config: LossConfig,
}

impl<const D: usize> Case<D> {
    fn new<B: Backend>(n_queries: usize, n_seqs: usize, config: LossConfig) -> Self {
        let raw = Random::new(93).normals(n_seqs * D);
        let unit = l2_normalize(&raw, D).into_iter().map(rounded::<B::E>).collect();
        let Loss { labels, rejected, .. } = Loss::plain(D, n_queries, n_seqs, 1.0, false);
        Case { unit, n_queries, labels, rejected, left_out: Vec::new(), config }
    }

    fn n_seqs(&self) -> usize {
        self.unit.len() / D
    }

    fn reference(&self) -> Loss {
        let LossConfig { temperature, symmetric, margin, ref dimensions, .. } = self.config;
        let all = vec![(D, 1.0)];
        Loss {
            margin: f64::from(margin),
            in_batch_negatives: self.config.in_batch_negatives,
            query_negatives: self.config.query_negatives,
            passage_negatives: self.config.passage_negatives,
            false_negative_margin: self.config.false_negative_margin.map_or(f64::INFINITY, f64::from),
            labels: self.labels.clone(),
            rejected: self.rejected.clone(),
            left_out: self.left_out.clone(),
            dimensions: match &dimensions[..] {
                [] => all,
                some => some.iter().map(|&(d, weight)| (d, f64::from(weight))).collect(),
            },
            ..Loss::plain(D, self.n_queries, self.n_seqs(), f64::from(temperature), symmetric)
        }
    }

    /// Loss report and gradient, with the embeddings in another order than that of their numbers.
    fn run<B: Backend>(&self, backend: &B, rows: usize) -> (hbt::loss::LossReport, Vec<f64>) {
        let n_seqs = self.n_seqs();
        // 7 has no divisor in common with any number of sequences here but 7 itself and its multiples.
        let step = if n_seqs.is_multiple_of(7) { 5 } else { 7 };
        let places: Vec<i32> = (0..n_seqs).map(|seq| (seq * step % n_seqs) as i32).collect();
        let mut stream = vec![0.0; self.unit.len()];
        for (seq, &place) in places.iter().enumerate() {
            stream[place as usize * D..][..D].copy_from_slice(&self.unit[seq * D..][..D]);
        }
        let mut loss = InfoNce::new(backend, D, self.config.clone()).unwrap().with_rows_per_chunk(rows);
        let mut gradient: Tensor<B, f32> = poisoned(backend, &[n_seqs, D]);
        let embeddings = tensor(backend, &stream, &[n_seqs, D]);
        let mut results = backend.readback(loss.n_results(self.n_queries)).unwrap();
        let bits = bits(&self.left_out, self.n_queries, n_seqs - self.n_queries);
        let numbers = [&places, &self.labels, &self.rejected, &bits].map(|numbers| ints(backend, numbers));
        let [places_there, labels, rejected, bits] = numbers.each_ref().map(Ints::all);
        let left_out = Some(bits).filter(|bits| !bits.is_empty());
        let pairing = Pairing { n_queries: self.n_queries, places: places_there, labels, rejected, left_out };
        loss.forward_backward(backend, &embeddings, pairing, &mut gradient, &mut results).unwrap();
        let report = loss.report(self.n_queries, n_seqs, &receive(backend, &mut results));
        let gradient = read(backend, &gradient);
        (report, places.iter().flat_map(|&place| gradient[place as usize * D..][..D].to_vec()).collect())
    }

    /// Whole and in chunks of rows, 1, 2 or 3 by the size, with the gradient by central differences.
    fn check<B: Backend>(&self, backend: &B, what: &str) {
        let reference = self.reference();
        let expected = |x: &[f64]| vec![reference.of(x)];
        for rows in [self.n_queries.div_ceil(3), 1024] {
            let (report, gradient) = self.run(backend, rows);
            let what = format!("{what}: {} queries, {} sequences, {rows} rows a chunk", self.n_queries, self.n_seqs());
            let bound = if self.config.dimensions.is_empty() || B::E::IS_F32 {
                tolerance::LOSS
            } else {
                // Unit vectors of fewer dimensions are rounded anew.
                tolerance::BF16_COSINE / f64::from(TEMPERATURE)
            };
            assert_close_on_scale(&what, &[report.loss], &expected(&self.unit), bound, 1.0);
            let bound = match (B::E::IS_F32, self.config.dimensions.is_empty()) {
                (true, _) => tolerance::ENCODER_GRADIENT,
                (false, true) => tolerance::BF16_SCORES,
                (false, false) => 8.0 * tolerance::BF16_SCORES,
            };
            assert_along_directions::<f32>(&what, expected, &self.unit, &[1.0], &gradient, bound);
        }
    }
}

/// Queries and sequences, without and with hard negatives, and a batch of one.
const SIZES: [(usize, usize); 3] = [(1, 2), (5, 10), (7, 30)];

fn base(symmetric: bool) -> LossConfig {
    LossConfig { symmetric, ..LossConfig::new(TEMPERATURE) }
}

/// Mean cosine of the queries with their positives, and with all other passages.
fn mean_cosines<const D: usize>(unit: &[f64], n_queries: usize) -> [f64; 2] {
    let (queries, passages) = unit.split_at(n_queries * D);
    let (mut positive, mut all) = (0.0, 0.0);
    for (i, query) in queries.chunks(D).enumerate() {
        for (j, passage) in passages.chunks(D).enumerate() {
            let cosine = query.iter().zip(passage).map(|(a, b)| a * b).sum::<f64>();
            all += cosine;
            positive += if i == j { cosine } else { 0.0 };
        }
    }
    let n_others = n_queries * (passages.len() / D - 1);
    [positive / n_queries as f64, (all - positive) / n_others.max(1) as f64]
}

fn one_direction_and_both<B: Backend, const D: usize>(backend: &B) {
    for (n_queries, n_seqs) in SIZES {
        for symmetric in [false, true] {
            let case = Case::<D>::new::<B>(n_queries, n_seqs, base(symmetric));
            case.check(backend, &format!("symmetric {symmetric}"));
            let (report, _) = case.run(backend, 2);
            let cosines = [report.positive_cosine, report.negative_cosine];
            assert_close_on_scale("cosines", &cosines, &mean_cosines::<D>(&case.unit, n_queries), tolerance::LOSS, 1.0);
            assert_eq!(report.n_false_negatives, 0);
        }
    }
}

fn margins_and_other_candidates<B: Backend, const D: usize>(backend: &B) {
    for (n_queries, n_seqs) in SIZES {
        let check = |what: &str, config| Case::<D>::new::<B>(n_queries, n_seqs, config).check(backend, what);
        for symmetric in [false, true] {
            check("margin", LossConfig { margin: 0.2, ..base(symmetric) });
            check("query negatives", LossConfig { query_negatives: true, ..base(symmetric) });
            check("too similar", LossConfig { false_negative_margin: Some(0.15), ..base(symmetric) });
        }
        check("passage negatives", LossConfig { passage_negatives: true, ..base(true) });
        let both = LossConfig { query_negatives: true, passage_negatives: true, margin: 0.1, ..base(true) };
        check("queries and passages", LossConfig { false_negative_margin: Some(0.3), ..both });
        check("the paper's equation", LossConfig { in_batch_negatives: false, ..base(false) });
    }
}

fn matryoshka<B: Backend, const D: usize>(backend: &B) {
    for dimensions in [vec![(D, 1.0), (4, 0.5), (1, 0.25)], vec![(D, 0.3)], vec![(6, 2.0)]] {
        for symmetric in [false, true] {
            let config = LossConfig { dimensions: dimensions.clone(), ..base(symmetric) };
            Case::<D>::new::<B>(7, 30, config).check(backend, &format!("dimensions {dimensions:?}"));
        }
    }
}

/// A batch in which the third and fourth row have the same passage, in two languages say, the sixth has the first one's
/// as a hard negative, and the teacher rejects one of the second row's.
fn planted<B: Backend, const D: usize>(config: LossConfig) -> Case<D> {
    let mut case = Case::<D>::new::<B>(7, 30, config);
    let label = case.labels[2];
    (case.labels[3], case.labels[3 + 7]) = (label, label);
    case.labels[2 * 7 + 4] = case.labels[0];
    (case.rejected[2], case.rejected[3]) = (10, 12);
    case
}

/// The same texts and parallel versions are no negatives, whoever brings them.
fn false_negatives_are_left_out<B: Backend, const D: usize>(backend: &B) {
    for symmetric in [false, true] {
        let mut configs = vec![
            base(symmetric),
            LossConfig { query_negatives: true, ..base(symmetric) },
            LossConfig { dimensions: vec![(D, 1.0), (4, 0.5)], ..base(symmetric) },
        ];
        if symmetric {
            configs.push(LossConfig { passage_negatives: true, ..base(true) });
        }
        for config in configs {
            let queries = config.query_negatives;
            let case = planted::<B, D>(config);
            case.check(backend, "planted false negatives");
            // Two pairs of the third and fourth row, one of the first, two rejected; and queries 3 and 4 say the same.
            let (report, _) = case.run(backend, 3);
            assert_eq!(report.n_false_negatives, if queries { 7 } else { 5 });
        }
    }
}

/// Rows in a chain, of which each shares an answer with the next and with no other, and a hard negative that answers two
/// queries: what no labels can say.
fn chains_are_left_out_pair_by_pair<B: Backend, const D: usize>(backend: &B) {
    for symmetric in [false, true] {
        let mut configs = vec![base(symmetric), LossConfig { query_negatives: true, ..base(symmetric) }];
        configs.push(match symmetric {
            true => LossConfig { passage_negatives: true, ..base(true) },
            false => LossConfig { in_batch_negatives: false, ..base(false) },
        });
        for config in configs {
            let (queries, in_batch) = (config.query_negatives, config.in_batch_negatives);
            // 80 passages: their bits are more than two words a row.
            let mut case = Case::<D>::new::<B>(20, 100, config);
            let links = (3..8).flat_map(|row| [(row, row + 1), (row + 1, row)]);
            case.left_out = links.chain([(0, 70), (19, 70), (5, 33)]).collect();
            case.labels[20 + 50] = case.labels[2];
            case.check(backend, "a chain");
            let (report, _) = case.run(backend, 7);
            let of_rows = 10 * (usize::from(queries) + usize::from(in_batch));
            assert_eq!(report.n_false_negatives, of_rows + 3 + 1);
        }
    }
}

/// A row whose candidates are all left out has loss 0 and asks for nothing.
fn a_batch_of_one_answer_has_no_loss<B: Backend, const D: usize>(backend: &B) {
    for symmetric in [false, true] {
        let mut case = Case::<D>::new::<B>(5, 10, base(symmetric));
        case.labels.fill(3);
        let (report, gradient) = case.run(backend, 2);
        assert_eq!((report.loss, report.n_false_negatives), (0.0, 20));
        assert!(gradient.iter().all(|&d| d == 0.0));
    }
}

fn the_temperature_has_a_derivative<B: Backend, const D: usize>(backend: &B) {
    let dimensions = vec![(D, 1.0), (4, 0.5)];
    for config in [base(false), base(true), LossConfig { query_negatives: true, margin: 0.1, dimensions, ..base(true) }]
    {
        let case = planted::<B, D>(config);
        let (inv_t, step) = (1.0 / f64::from(TEMPERATURE), 1e-4);
        let at = |inv_t: f64| Loss { temperature: 1.0 / inv_t, ..case.reference() }.of(&case.unit);
        let expected = (at(inv_t + step) - at(inv_t - step)) / (2.0 * step);
        let (report, _) = case.run(backend, 3);
        let bound = if B::E::IS_F32 { tolerance::ENCODER_GRADIENT } else { tolerance::BF16_COSINE };
        assert_close_on_scale("by inverse temperature", &[report.d_inv_temperature], &[expected], bound, 1.0);
    }
}

/// Against Adam as Kingma and Ba write it, of ln(1 / t), for a fixed series of derivatives.
#[test]
fn a_learned_temperature_follows_adam() {
    let mut learned = LearnedTemperature::new(0.05);
    let (mut log, mut m, mut v) = ((1.0f64 / 0.05).ln(), 0.0, 0.0);
    for t in 1..20 {
        let by_inv = 0.3 * f64::from(t).sin();
        learned.step(by_inv, 0.01);
        let g = by_inv * log.exp();
        (m, v) = (0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g);
        log -= 0.01 * (m / (1.0 - 0.9f64.powi(t))) / ((v / (1.0 - 0.999f64.powi(t))).sqrt() + 1e-8);
        assert!((learned.temperature() - (-log).exp()).abs() < 1e-12);
        learned = LearnedTemperature::from_bits(learned.to_bits());
    }
    // Never below 0.01.
    (0..10_000).for_each(|_| learned.step(-1.0, 0.1));
    assert!((learned.temperature() - 0.01).abs() < 1e-12);
}

#[test]
fn dimensions_come_largest_first() {
    for wrong in [vec![(4, 1.0), (ODD, 1.0)], vec![(ODD, 1.0), (ODD, 0.5)], vec![(ODD + 1, 1.0)], vec![(0, 1.0)]] {
        let config = LossConfig { dimensions: wrong, ..base(false) };
        assert!(catch_unwind(|| InfoNce::new(&Tally::<f32>::new(1), ODD, config)).is_err());
    }
}

/// A smaller batch could have more rows in a chunk than the largest one. On a backend that only counts, so at full size.
#[test]
fn no_batch_needs_more_memory_than_was_reserved() {
    let tally = Tally::<f32>::new(1);
    for config in [base(false), base(true), LossConfig { query_negatives: true, ..base(true) }] {
        let mut loss = InfoNce::new(&tally, ODD, config).unwrap();
        loss.reserve(&tally, 50_000, 150_000).unwrap();
        for n_seqs in [200_000, 150_000, 100_000] {
            let matrix = || Tensor::<_, f32>::zeros(&tally, &[n_seqs, ODD]).unwrap();
            let (embeddings, mut gradient) = (matrix(), matrix());
            let numbers = ints(&tally, &vec![0; n_seqs]);
            let mut results = tally.readback(0).unwrap();
            let before = tally.memory();
            let all = Ints::all(&numbers);
            let rejected = all.part(0..100_000);
            let pairing = Pairing { n_queries: 50_000, places: all, labels: all, rejected, left_out: None };
            loss.forward_backward(&tally, &embeddings, pairing, &mut gradient, &mut results).unwrap();
            assert_eq!(tally.memory(), before, "{n_seqs} sequences");
        }
    }
}

/// The bound that docs/measurements.md gives, with the gradient of the embeddings, of 192 MiB, counted too; the matrix of
/// all scores alone would be 16 GiB.
#[test]
fn sixty_five_thousand_queries_take_less_than_a_gigabyte_besides_their_embeddings() {
    let tally = Tally::<f32>::new(1);
    let (n, d) = (1 << 16, 384);
    for symmetric in [false, true] {
        let mut loss = InfoNce::new(&tally, d, base(symmetric)).unwrap();
        loss.reserve(&tally, n, n).unwrap();
        let bytes = tally.memory().on_device() + (2 * n * d * size_of::<f32>()) as u64;
        assert!((600 << 20..1_000_000_000).contains(&bytes), "symmetric: {symmetric}: {bytes} bytes");
    }
}

/// A GPU holds more rows, and in bf16 no scores at all: 1 GiB of exponentials, or of scores and half as much gradient.
#[test]
fn a_gpu_holds_a_gigabyte_of_scores() {
    fn check<E: Element>(memory: u64, symmetric: bool, bytes: Range<u64>) {
        let (tally, n, d) = (Tally::<E>::of_gpu(memory), 1 << 16, 768);
        let mut loss = InfoNce::new(&tally, d, base(symmetric)).unwrap();
        loss.reserve(&tally, n, n).unwrap();
        let held = tally.memory().on_device();
        assert!(bytes.contains(&held), "{}, symmetric: {symmetric}, {memory}: {held} bytes", E::NAME);
    }
    const GIB: u64 = 1 << 30;
    // Candidates, rows, and their gradients, on top.
    check::<half::bf16>(80 * GIB, false, GIB..GIB + 350_000_000);
    check::<half::bf16>(80 * GIB, true, GIB / 2 * 3..GIB / 2 * 3 + 350_000_000);
    check::<f32>(80 * GIB, false, 2 * GIB..2 * GIB + 440_000_000);
    check::<half::bf16>(8 * GIB, false, GIB / 2..GIB / 2 + 350_000_000);
}

/// Runs every check on backends, each as a test of its own.
macro_rules! check_backend {
    ($($module:ident: $backends:expr;)+) => { $(
        mod $module {
            check_backend!(@ $backends;
                one_direction_and_both margins_and_other_candidates matryoshka false_negatives_are_left_out
                chains_are_left_out_pair_by_pair
                a_batch_of_one_answer_has_no_loss the_temperature_has_a_derivative
            );
        }
    )+ };
    (@ $backends:expr; $($check:ident)+) => { $(
        #[test]
        fn $check() {
            for backend in $backends {
                super::$check::<_, { super::ODD }>(&backend);
                super::$check::<_, { super::EVEN }>(&backend);
            }
        }
    )+ };
}

check_backend! {
    cpu_f32: [hbt::backend::Cpu::<f32>::new()];
    cpu_bf16: [hbt::backend::Cpu::<half::bf16>::new()];
    cuda_f32: crate::device::cuda::<f32>();
    cuda_bf16: crate::device::cuda::<half::bf16>();
}
