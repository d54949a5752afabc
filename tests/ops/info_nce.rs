//! The loss of a block of scores and its gradient.

use super::support::{Random, assert_close_on_scale, ints, poisoned, read, rounded, tensor};
use crate::reference::difference::assert_gradient_each;
use crate::reference::distillation::Teacher;
use crate::reference::info_nce::{Block, bits};
use crate::reference::pooling::l2_normalize;
use crate::tolerance;
use hbt::backend::{
    Backend, Candidates, DISTILL_STATS, DistillRows, Distillation, Element, InfoNceColumns, InfoNceExps, InfoNceRows,
    Ints, ROW_STATS, TeacherScores, Tensor,
};
use std::collections::HashSet;
use std::ops::Range;

pub struct Inputs {
    scores: Vec<f64>,
    n_columns: usize,
    first_positive: usize,
    row_labels: Vec<i32>,
    column_labels: Vec<i32>,
    rejected: Option<Vec<i32>>,
    /// Rows, and columns counted from the first passage.
    left_out: HashSet<(usize, usize)>,
    first_passage: usize,
    skipped: Range<usize>,
    false_negative_margin: f32,
    margin: f32,
    inv_temperature: f32,
    weight: f32,
    /// Rows at a time, if the columns are trained, too.
    columns: Option<usize>,
    /// What is learned from a teacher, and its weight.
    teacher: Option<(Teacher, f32)>,
}

/// Everything that is written.
#[derive(PartialEq)]
pub struct Outputs {
    stats: Vec<f64>,
    d_scores: Vec<f64>,
    column_losses: Vec<f64>,
    teacher_stats: Vec<f64>,
}

impl Inputs {
    /// Scores like cosines; nothing is left out. The positives are the last columns, so that they are not the first.
    pub fn new(rows: usize, n_columns: usize, temperature: f32) -> Self {
        let mut random = Random::new((rows + n_columns) as u64);
        Inputs {
            scores: (0..rows * n_columns).map(|_| rounded::<f32>((random.normal() * 0.4).clamp(-1.0, 1.0))).collect(),
            n_columns,
            first_positive: n_columns - rows,
            row_labels: vec![-1; rows],
            column_labels: (0..n_columns as i32).collect(),
            rejected: None,
            left_out: HashSet::new(),
            first_passage: 0,
            skipped: 0..0,
            false_negative_margin: f32::INFINITY,
            margin: 0.0,
            inv_temperature: 1.0 / temperature,
            weight: 1.0 / rows as f32,
            columns: None,
            teacher: None,
        }
    }

    /// With a teacher whose scores spread over some 4 times `teacher_temperature`, and up to `most` own negatives a row, which
    /// are among the columns from `first` on, those of one row next to those of another; every third row has none.
    fn with_teacher(mut self, kind: Distillation, most: usize, first: usize, teacher_temperature: f32) -> Self {
        let (n_passages, first) = (self.n_columns - self.first_passage, first - self.first_passage);
        let mut random = Random::new((self.n_columns + most) as u64);
        let mut next = first;
        let mut own = |row: usize| {
            let n = if row % 3 == 2 { 0 } else { most - row % 2 };
            let from = if next + n > n_passages { first } else { next };
            next = (from + n).min(n_passages);
            from..next
        };
        let own = (0..self.n_rows()).map(&mut own).collect();
        let scores = random.normals(n_passages).into_iter();
        let scores = scores.map(|x| rounded::<f32>(4.0 * x * f64::from(teacher_temperature))).collect();
        // A temperature of its own.
        let inv_temperature = f64::from(0.5 * self.inv_temperature);
        let inv_teacher_temperature = f64::from(1.0 / teacher_temperature);
        self.teacher =
            Some((Teacher { kind, own, scores, inv_temperature, inv_teacher_temperature }, 0.7 * self.weight));
        self
    }

    /// The losses that the teacher gives the rows; none without a teacher.
    fn teacher_losses(&self, teacher: Option<&Teacher>, scores: &[f64], rows: Range<usize>) -> Vec<f64> {
        let Some(teacher) = teacher else { return Vec::new() };
        let of_row = |(row, scores): (usize, &[f64])| {
            let positive = self.first_positive + row - self.first_passage;
            teacher.loss(row, positive, |passage| scores[self.first_passage + passage])
        };
        rows.zip(scores.chunks(self.n_columns)).map(of_row).collect()
    }

    fn n_rows(&self) -> usize {
        self.row_labels.len()
    }

    /// Whether a pair is no candidate, by the words of [`Candidates`].
    fn is_left_out(&self, row: usize, column: usize) -> bool {
        let score = |column: usize| self.scores[row * self.n_columns + column];
        let rejected = self.rejected.as_ref().is_some_and(|ends| {
            let passage = column as i64 - self.first_passage as i64;
            (i64::from(ends[2 * row])..i64::from(ends[2 * row + 1])).contains(&passage)
        });
        // Before the first passage there are the queries of as many passages.
        let bit = column.checked_sub(self.first_passage).unwrap_or(column);
        self.row_labels[row] == self.column_labels[column]
            || rejected
            || self.left_out.contains(&(row, bit))
            || self.skipped.contains(&column)
            || score(column) > score(self.first_positive + row) + f64::from(self.false_negative_margin)
    }

    /// The bits of the columns that are left out.
    fn bits(&self) -> Vec<i32> {
        let pairs: Vec<(usize, usize)> = self.left_out.iter().copied().collect();
        bits(&pairs, self.n_rows(), self.n_columns - self.first_passage)
    }

    fn block(&self) -> Block {
        let (rows, n) = (self.n_rows(), self.n_columns);
        Block {
            n,
            first_positive: self.first_positive,
            left_out: (0..rows * n).map(|i| self.is_left_out(i / n, i % n)).collect(),
            margin: f64::from(self.margin),
            inv_temperature: f64::from(self.inv_temperature),
        }
    }

    pub fn run<B: Backend>(&self, backend: &B) -> Outputs {
        let (rows, n) = (self.n_rows(), self.n_columns);
        let (row_labels, column_labels) = (ints(backend, &self.row_labels), ints(backend, &self.column_labels));
        let rejected = self.rejected.as_ref().map(|ends| ints(backend, ends));
        let (bits, words) = (ints(backend, &self.bits()), self.bits().len() / rows);
        let candidates = |chunk: &Range<usize>| Candidates {
            first_positive: self.first_positive + chunk.start,
            row_labels: Ints::new(&row_labels, chunk.clone()),
            column_labels: Ints::all(&column_labels),
            rejected: rejected.as_ref().map(|ends| Ints::new(ends, 2 * chunk.start..2 * chunk.end)),
            left_out: (words > 0).then(|| Ints::new(&bits, words * chunk.start..words * chunk.end)),
            first_passage: self.first_passage,
            skipped: self.skipped.clone(),
            false_negative_margin: self.false_negative_margin,
        };
        let at_once = self.columns.unwrap_or(rows);
        let chunks = || (0..rows).step_by(at_once).map(|first| first..rows.min(first + at_once));
        let scores = |chunk: &Range<usize>| -> Tensor<B, f32> {
            tensor(backend, &self.scores[chunk.start * n..chunk.end * n], &[chunk.len(), n])
        };
        let (mut state, mut loss) = (poisoned(backend, &[3, rows]), poisoned(backend, &[rows]));
        if self.columns.is_some() {
            for chunk in chunks() {
                let columns = InfoNceColumns {
                    scores: &scores(&chunk),
                    candidates: candidates(&chunk),
                    inv_temperature: self.inv_temperature,
                    margin: self.margin,
                    is_first: chunk.start == 0,
                    is_last: chunk.end == rows,
                    state: &mut state,
                    loss: &mut loss,
                };
                backend.info_nce_columns(columns).unwrap();
            }
        }
        let own = self.teacher.as_ref().map_or(Vec::new(), |(teacher, _)| {
            teacher.own.iter().flat_map(|own| [own.start as i32, own.end as i32]).collect()
        });
        let own = ints(backend, &own);
        let score_bits = |(teacher, _): &(Teacher, f32)| {
            teacher.scores.iter().map(|&score| (score as f32).to_bits() as i32).collect()
        };
        let teacher_scores = ints(backend, &self.teacher.as_ref().map_or(Vec::new(), score_bits));
        let mut teacher_stats: Tensor<B, f32> = poisoned(backend, &[rows, DISTILL_STATS]);
        let (mut all_stats, mut all_d_scores) = (Vec::new(), Vec::new());
        for chunk in chunks() {
            let mut stats = poisoned(backend, &[rows, ROW_STATS]);
            let mut d_scores: Tensor<B, B::E> = poisoned(backend, &[chunk.len(), n]);
            let rows = InfoNceRows {
                scores: &scores(&chunk),
                candidates: candidates(&chunk),
                inv_temperature: self.inv_temperature,
                margin: self.margin,
                weight: self.weight,
                columns: self.columns.map(|_| &state),
                distill: self.teacher.as_ref().map(|(teacher, weight)| DistillRows {
                    kind: teacher.kind,
                    teacher: TeacherScores {
                        own: Ints::new(&own, 2 * chunk.start..2 * chunk.end),
                        scores: Ints::all(&teacher_scores),
                    },
                    inv_temperature: teacher.inv_temperature as f32,
                    inv_teacher_temperature: teacher.inv_teacher_temperature as f32,
                    weight: *weight,
                    stats: &mut teacher_stats,
                }),
                stats: &mut stats,
                first_stats: chunk.start,
                d_scores: &mut d_scores,
            };
            backend.info_nce_rows(rows).unwrap();
            let stats = read(backend, &stats);
            all_stats.extend(&stats[chunk.start * ROW_STATS..chunk.end * ROW_STATS]);
            all_d_scores.extend(read(backend, &d_scores));
        }
        let column_losses = if self.columns.is_some() { read(backend, &loss) } else { Vec::new() };
        let teacher_stats = if self.teacher.is_some() { read(backend, &teacher_stats) } else { Vec::new() };
        Outputs { stats: all_stats, d_scores: all_d_scores, column_losses, teacher_stats }
    }

    fn check<B: Backend>(&self, backend: &B, what: &str) {
        let (n, inv_t, block) = (self.n_columns, f64::from(self.inv_temperature), self.block());
        let got = self.run(backend);
        // A logit of size |s| / t is rounded, and so is the loss.
        let (tolerance, scale) = (tolerance::sum(n), 1.0 + inv_t);
        let losses: Vec<f64> = got.stats.iter().step_by(ROW_STATS).copied().collect();
        let expected = block.rows(&self.scores);
        assert_close_on_scale(&format!("info_nce, {what}, loss"), &losses, &expected, tolerance, scale);
        for (row, (scores, stats)) in self.scores.chunks(n).zip(got.stats.chunks(ROW_STATS)).enumerate() {
            let positive = self.first_positive + row;
            let others = || (0..n).filter(|&j| j != positive && !self.is_left_out(row, j));
            let sum = others().map(|j| scores[j]).sum();
            let what = format!("info_nce, {what}, row {row}, cosines");
            assert_close_on_scale(&what, &stats[1..3], &[scores[positive], sum], tolerance, 1.0 + n as f64 / 10.0);
            assert_eq!(stats[3], others().count() as f64, "{what}: number of candidates");
        }
        self.check_gradient::<B>(what, &block, &got);
        self.check_temperature(what, &block, &got);
        self.check_teacher(what, &got);
    }

    /// What is told of the teacher's losses.
    fn check_teacher(&self, what: &str, got: &Outputs) {
        let Some((teacher, _)) = &self.teacher else { return };
        let at = |inv_temperature: f64| {
            let teacher = Teacher { inv_temperature, ..teacher.clone() };
            self.teacher_losses(Some(&teacher), &self.scores, 0..self.n_rows())
        };
        let (inv_t, step) = (teacher.inv_temperature, 1e-6 * teacher.inv_temperature);
        let most = teacher.own.iter().map(ExactSizeIterator::len).max().unwrap_or(0);
        let (above, below) = (at(inv_t + step), at(inv_t - step));
        let difference = above.iter().zip(&below).map(|(a, b)| (a - b) / (2.0 * step));
        for (row, (expected, derivative)) in at(inv_t).into_iter().zip(difference).enumerate() {
            // Logits are a few powers of e apart, margins as far as the temperature makes them, and squared.
            let scale = 1.0 + expected + inv_t;
            let bound = tolerance::SOFTMAX + tolerance::sum(most);
            let of_row = &got.teacher_stats[row * DISTILL_STATS..][..DISTILL_STATS];
            let what = format!("info_nce, {what}, row {row}, teacher's");
            assert_close_on_scale(&format!("{what} loss"), &of_row[..1], &[expected], bound, scale);
            let scale = 2.0 + 4.0 * expected.sqrt();
            assert_close_on_scale(&format!("{what} derivative"), &of_row[1..], &[derivative], bound, scale);
        }
    }

    /// Row by row, so that a row with a large gradient does not hide one with a small one; all at once where the rows
    /// depend on one another.
    fn check_gradient<B: Backend>(&self, what: &str, block: &Block, got: &Outputs) {
        let (n, rows) = (self.n_columns, self.n_rows());
        let (tolerance, weight) = (tolerance::sum(n), f64::from(self.weight));
        let (teacher, teacher_weight) = match &self.teacher {
            Some((teacher, weight)) => (Some(teacher), f64::from(*weight)),
            None => (None, 0.0),
        };
        if self.columns.is_some() {
            let expected = block.columns(&self.scores);
            let scale = 1.0 + block.inv_temperature;
            let what = format!("info_nce, {what}, columns");
            assert_close_on_scale(&what, &got.column_losses, &expected, tolerance::sum(rows), scale);
            let forward = |scores: &[f64]| {
                let of_teacher = self.teacher_losses(teacher, scores, 0..rows);
                [block.rows(scores), block.columns(scores), of_teacher].concat()
            };
            let gradient = tolerance::SOFTMAX + 2.0 * tolerance;
            let weights =
                [vec![weight; 2 * rows], vec![teacher_weight; if teacher.is_some() { rows } else { 0 }]].concat();
            let more = |i: usize| self.rounding_of_teacher(i / n, i % n);
            return assert_gradient_each::<B::E>(&what, forward, &self.scores, &weights, &got.d_scores, gradient, more);
        }
        for (row, scores) in self.scores.chunks(n).enumerate() {
            let of_row = Block {
                left_out: block.left_out[row * n..(row + 1) * n].to_vec(),
                first_positive: self.first_positive + row,
                ..*block
            };
            let d = &got.d_scores[row * n..(row + 1) * n];
            let gradient = tolerance::SOFTMAX + tolerance;
            let what = format!("info_nce, {what}, row {row}, d_scores");
            let forward = |scores: &[f64]| {
                let of_teacher = self.teacher_losses(teacher, scores, row..row + 1);
                [of_row.rows(scores), of_teacher].concat()
            };
            let weights = &[weight, teacher_weight][..if teacher.is_some() { 2 } else { 1 }];
            let more = |column: usize| self.rounding_of_teacher(row, column);
            assert_gradient_each::<B::E>(&what, forward, scores, weights, d, gradient, more);
        }
    }

    /// How far the teacher's part of the gradient at a score may be off: it is the difference of two probabilities or logits,
    /// and as exact as these, however near they are to each other.
    fn rounding_of_teacher(&self, row: usize, column: usize) -> f64 {
        let Some((teacher, weight)) = &self.teacher else { return 0.0 };
        let own = &teacher.own[row];
        let positive = self.first_positive + row;
        let is_own = column.checked_sub(self.first_passage).is_some_and(|passage| own.contains(&passage));
        if column != positive && !is_own {
            return 0.0;
        }
        let score = |column: usize| self.scores[row * self.n_columns + column];
        let margin = |passage: usize| {
            let of_student = score(self.first_passage + passage) - score(positive);
            let of_teacher = teacher.scores[passage] - teacher.scores[positive - self.first_passage];
            of_student.abs() * teacher.inv_temperature + of_teacher.abs() * teacher.inv_teacher_temperature
        };
        let size = match teacher.kind {
            Distillation::Kl => 1.0,
            Distillation::MarginMse => 2.0 * own.clone().map(margin).fold(0.0, f64::max),
        };
        tolerance::SOFTMAX * size * f64::from(*weight) * teacher.inv_temperature
    }

    /// The derivative by the inverse temperature, of all losses together.
    fn check_temperature(&self, what: &str, block: &Block, got: &Outputs) {
        let total = |inv_temperature: f64| {
            let block = Block { inv_temperature, ..block.clone() };
            let columns = if self.columns.is_some() { block.columns(&self.scores) } else { Vec::new() };
            block.rows(&self.scores).iter().chain(&columns).sum::<f64>()
        };
        let step = 1e-5 * block.inv_temperature;
        let (above, below) = (total(block.inv_temperature + step), total(block.inv_temperature - step));
        let sum: f64 = got.stats.iter().skip(4).step_by(ROW_STATS).sum();
        // A term is a cosine times a softmax.
        let scale = 2.0 * self.n_rows() as f64;
        let what = format!("info_nce, {what}, derivative by the inverse temperature");
        let expected = (above - below) / (2.0 * step);
        assert_close_on_scale(&what, &[sum], &[expected], tolerance::SOFTMAX + tolerance::sum(self.n_columns), scale);
    }
}

pub fn info_nce_rows<B: Backend>(backend: &B) {
    // Single columns and fours of them, by warps of 32 and blocks that hold 4,096, 8,192 and 16,384, and rows of several
    // times that.
    let small = [(1, 1), (1, 2), (3, 7), (2, 31), (2, 32), (5, 64), (8, 33), (2, 1000), (2, 1500)];
    let large = [(2, 4096), (2, 4097), (2, 5000), (3, 8193), (3, 16_388), (1, 65_537)];
    for (rows, columns) in small.into_iter().chain(large) {
        for temperature in [1.0, 0.05, 0.01] {
            let inputs = Inputs::new(rows, columns, temperature);
            inputs.check(backend, &format!("{rows} x {columns}, t = {temperature}"));
            let first = Inputs { first_positive: 0, ..inputs };
            first.check(backend, &format!("{rows} x {columns}, t = {temperature}, positives first"));
        }
    }
}

/// The ends of what cosines can be at the smallest temperature: a lost row, a won row, ties.
pub fn info_nce_rows_at_the_extremes<B: Backend>(backend: &B) {
    let rows: [(&str, [f64; 4], usize); 6] = [
        ("the positive wins by far", [-1.0, 1.0, -1.0, -0.9], 1),
        ("the positive wins by a little", [0.80, 0.81, 0.7, 0.75], 1),
        ("the positive loses by far", [1.0, 0.99, -1.0, 1.0], 2),
        ("all equal", [0.5; 4], 3),
        ("all one", [1.0; 4], 0),
        ("all minus one", [-1.0; 4], 0),
    ];
    for (what, scores, first_positive) in rows {
        let scores = scores.map(rounded::<f32>).to_vec();
        let inputs = Inputs { scores, first_positive, weight: 1.0, ..Inputs::new(1, 4, 0.01) };
        inputs.check(backend, what);
        let alone = Inputs { row_labels: vec![7], column_labels: vec![7; 4], ..inputs };
        alone.check(backend, &format!("{what}, all others left out"));
    }
}

/// Masks of every kind, alone and together, on one side and on both.
pub fn info_nce_masks<B: Backend>(backend: &B) {
    for (rows, n_columns) in [(6, 24), (7, 37), (40, 41), (9, 4100)] {
        let plain = || Inputs::new(rows, n_columns, 0.05);
        let mut random = Random::new(n_columns as u64);
        // Few labels, so that many are equal.
        let mut some = |n: usize| (0..n).map(|_| random.below(5) as i32).collect::<Vec<_>>();
        let (row_labels, column_labels) = (some(rows), some(n_columns));
        let n_passages = n_columns - 3;
        let mut rejected = vec![0; 2 * rows];
        for (row, ends) in rejected.chunks_mut(2).enumerate() {
            let from = (row * 5) % n_passages;
            ends.copy_from_slice(&[from as i32, (from + row % 4).min(n_passages) as i32]);
        }
        let labels = || Inputs { row_labels: row_labels.clone(), column_labels: column_labels.clone(), ..plain() };
        // Every third, the first and the last, of which some are positives or before the first passage.
        let left_out: HashSet<(usize, usize)> = (0..rows)
            .flat_map(|row| {
                (0..n_passages)
                    .filter(move |p| (row + p) % 3 == 0 || [0, n_passages - 1].contains(p))
                    .map(move |p| (row, p))
            })
            .collect();
        let cases = [
            ("bits", Inputs { left_out: left_out.clone(), ..plain() }),
            ("bits after others", Inputs { left_out: left_out.clone(), first_passage: 3, ..plain() }),
            ("labels", labels()),
            ("rejected", Inputs { rejected: Some(rejected.clone()), first_passage: 3, ..plain() }),
            ("skipped", Inputs { skipped: 1..n_columns - 1, ..plain() }),
            ("too similar", Inputs { false_negative_margin: 0.1, ..plain() }),
            ("margin", Inputs { margin: 0.2, ..plain() }),
            (
                "everything",
                Inputs {
                    rejected: Some(rejected.clone()),
                    left_out: left_out.clone(),
                    first_passage: 3,
                    skipped: 2..rows,
                    false_negative_margin: 0.3,
                    margin: 0.1,
                    ..labels()
                },
            ),
        ];
        for (what, inputs) in cases {
            let what = format!("{rows} x {n_columns}, {what}");
            inputs.check(backend, &what);
            // Both directions: the positives come first. Rejected passages are none of the columns that are trained.
            let rejected = inputs.rejected.map(|_| {
                let last = (n_columns - 3) as i32;
                (0..rows).flat_map(|row| [(last - row as i32 % 3).max(rows as i32 - 3), last]).collect()
            });
            let mut inputs = Inputs { first_positive: 0, rejected, ..inputs };
            for at_once in [rows, 4, 1] {
                inputs.columns = Some(at_once);
                if n_columns < 100 {
                    inputs.check(backend, &format!("{what}, both directions, {at_once} rows at once"));
                }
            }
        }
    }
}

/// Both directions where a column's sum is over many blocks of rows, or beyond what one exponent can hold.
pub fn info_nce_both_directions<B: Backend>(backend: &B) {
    for (rows, n_columns, temperature, at_once) in
        [(1, 1, 1.0, 1), (2, 3, 0.05, 2), (33, 33, 0.01, 8), (33, 40, 0.01, 33), (65, 70, 0.02, 17)]
    {
        let inputs = Inputs { first_positive: 0, columns: Some(at_once), ..Inputs::new(rows, n_columns, temperature) };
        inputs.check(backend, &format!("{rows} x {n_columns}, t = {temperature}, {at_once} rows at once"));
    }
    // Cosines near -1 and near 1 at the smallest usual temperature: e^-200 of the largest there could be.
    let scores = [-1.0, -0.99, 1.0, -0.98, -1.0, 0.9, -0.97, -0.99, -1.0].map(rounded::<f32>).to_vec();
    for at_once in [1, 3] {
        let inputs =
            Inputs { scores: scores.clone(), first_positive: 0, columns: Some(at_once), ..Inputs::new(3, 3, 0.01) };
        inputs.check(backend, &format!("extremes, {at_once} rows at once"));
    }
}

/// What is learned from a teacher, beside InfoNCE and alone: few and many own negatives, rows that are read twice, masks,
/// candidates before the first passage, and both directions.
pub fn info_nce_with_a_teacher<B: Backend>(backend: &B) {
    for kind in Distillation::ALL {
        let shapes = [(1, 2, 1, 1.0), (3, 7, 2, 0.05), (5, 64, 9, 0.02), (6, 300, 40, 0.01), (2, 5000, 33, 0.05)];
        for (rows, n_columns, most, temperature) in shapes {
            for teacher_temperature in if n_columns < 1000 { vec![1.0, 0.02] } else { vec![1.0] } {
                let plain = || Inputs { first_positive: 0, ..Inputs::new(rows, n_columns, temperature) };
                let with_teacher = |inputs: Inputs| inputs.with_teacher(*kind, most, rows, teacher_temperature);
                let what = format!("{kind}, {rows} x {n_columns}, t = {temperature}, {teacher_temperature}");
                with_teacher(plain()).check(backend, &what);
                let alone = Inputs { weight: 0.0, ..with_teacher(plain()) };
                alone.check(backend, &format!("{what}, alone"));
                let masked = Inputs {
                    column_labels: (0..n_columns as i32).map(|column| column % 3).collect(),
                    row_labels: (0..rows as i32).map(|row| row % 3).collect(),
                    false_negative_margin: 0.2,
                    margin: 0.1,
                    ..with_teacher(plain())
                };
                masked.check(backend, &format!("{what}, masked"));
                for at_once in [rows, 2] {
                    let both = Inputs { columns: Some(at_once), ..with_teacher(plain()) };
                    if n_columns < 100 {
                        both.check(backend, &format!("{what}, both directions, {at_once} rows at once"));
                    }
                }
            }
        }
        let behind_others = Inputs { first_passage: 4, first_positive: 4, skipped: 0..4, ..Inputs::new(4, 30, 0.05) };
        behind_others.with_teacher(*kind, 5, 8, 1.0).check(backend, &format!("{kind}, behind others"));
        // The student agrees with the teacher, and there is nothing to learn.
        let mut agreed =
            Inputs { first_positive: 0, weight: 0.0, ..Inputs::new(3, 12, 0.05) }.with_teacher(*kind, 4, 3, 1.0);
        let (teacher, weight) = agreed.teacher.as_mut().unwrap();
        *weight = 1.0;
        for row in 0..3 {
            for column in [row].into_iter().chain(teacher.own[row].clone()) {
                agreed.scores[row * 12 + column] = rounded::<f32>(teacher.scores[column] / teacher.inv_temperature);
            }
        }
        let got = agreed.run(backend);
        let nothing = 12.0 * tolerance::SOFTMAX * teacher_scale(&agreed);
        assert!(
            got.teacher_stats.iter().chain(&got.d_scores).all(|x| x.abs() <= nothing),
            "{kind}: {:?}",
            got.teacher_stats
        );
    }
}

/// Size of a teacher's logits, and of the gradient of one.
fn teacher_scale(inputs: &Inputs) -> f64 {
    let (teacher, _) = inputs.teacher.as_ref().unwrap();
    let largest = teacher.scores.iter().fold(0.0, |largest: f64, score| largest.max(score.abs()));
    largest * teacher.inv_teacher_temperature * teacher.inv_temperature
}

/// A test's change of the usual inputs.
type Change<'a> = &'a dyn Fn(&mut Inputs);

/// Vectors whose scores are [`Inputs`].
struct Vectors {
    /// `(R, d)` and `(N, d)`, near unit length
    rows: Vec<f64>,
    columns: Vec<f64>,
    d: usize,
    inputs: Inputs,
}

impl Vectors {
    /// Directions at random, in `E`; the rows' cosines with their positives are `positive_cosines`, in turn.
    fn new<E: Element>(rows: usize, n: usize, d: usize, temperature: f32, positive_cosines: &[f64]) -> Self {
        let mut random = Random::new((rows + n + d) as u64);
        let mut unit = |n: usize| l2_normalize(&random.normals(n * d), d);
        let (queries, mut columns) = (unit(rows), unit(n));
        let inputs = Inputs { first_positive: (n - rows) / 2, ..Inputs::new(rows, n, temperature) };
        for ((row, query), cosine) in queries.chunks(d).enumerate().zip(positive_cosines.iter().cycle()) {
            let positive = &mut columns[(inputs.first_positive + row) * d..][..d];
            let along: f64 = positive.iter().zip(query).map(|(p, q)| p * q).sum();
            positive.iter_mut().zip(query).for_each(|(p, q)| *p -= along * q);
            let across = positive.iter().map(|p| p * p).sum::<f64>().sqrt().max(1e-9);
            let sine = (1.0 - cosine * cosine).sqrt();
            positive.iter_mut().zip(query).for_each(|(p, q)| *p = *p * sine / across + q * cosine);
        }
        let [rows, columns] = [queries, columns].map(|x| x.into_iter().map(rounded::<E>).collect::<Vec<f64>>());
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let scores = rows.chunks(d).flat_map(|row| columns.chunks(d).map(move |column| dot(row, column))).collect();
        Vectors { inputs: Inputs { scores, ..inputs }, rows, columns, d }
    }

    /// Loss, statistics and gradient of every row, the first rows of others' statistics left alone.
    fn check<B: Backend>(&self, backend: &B, what: &str) {
        let Vectors { inputs, d, .. } = self;
        let (rows, n) = (inputs.n_rows(), inputs.n_columns);
        let (row_labels, column_labels) = (ints(backend, &inputs.row_labels), ints(backend, &inputs.column_labels));
        let rejected = inputs.rejected.as_ref().map(|ends| ints(backend, ends));
        let bits = ints(backend, &inputs.bits());
        let mut stats = poisoned(backend, &[rows + 2, ROW_STATS]);
        let (mut scale, mut exps): (_, Tensor<B, B::E>) = (poisoned(backend, &[rows]), poisoned(backend, &[rows, n]));
        let args = InfoNceExps {
            rows: &tensor(backend, &self.rows, &[rows, *d]),
            columns: &tensor(backend, &self.columns, &[n, *d]),
            candidates: Candidates {
                first_positive: inputs.first_positive,
                row_labels: Ints::all(&row_labels),
                column_labels: Ints::all(&column_labels),
                rejected: rejected.as_ref().map(Ints::all),
                left_out: Some(Ints::all(&bits)).filter(|bits| !bits.is_empty()),
                first_passage: inputs.first_passage,
                skipped: inputs.skipped.clone(),
                false_negative_margin: inputs.false_negative_margin,
            },
            inv_temperature: inputs.inv_temperature,
            margin: inputs.margin,
            weight: inputs.weight,
            stats: &mut stats,
            first_stats: 2,
            scale: &mut scale,
            exps: &mut exps,
        };
        backend.info_nce_exps(args).unwrap();
        let (stats, scale, exps) = (read(backend, &stats), read(backend, &scale), read(backend, &exps));
        assert!(stats[..2 * ROW_STATS].iter().all(|x| x.is_nan()), "{what}: statistics of other rows");
        let d_scores = exps.iter().enumerate().map(|(i, exp)| exp * scale[i / n]).collect();
        let got = Outputs {
            stats: stats[2 * ROW_STATS..].to_vec(),
            d_scores,
            column_losses: Vec::new(),
            teacher_stats: Vec::new(),
        };
        let block = inputs.block();
        // A cosine is off by the roundings of its sum, and a logit by that over the temperature.
        let inv_t = f64::from(inputs.inv_temperature);
        let of_logit = inv_t * (tolerance::sum(*d) + tolerance::EPS);
        let losses: Vec<f64> = got.stats.iter().step_by(ROW_STATS).copied().collect();
        let expected = block.rows(&inputs.scores);
        assert_close_on_scale(&format!("{what}, loss"), &losses, &expected, of_logit + tolerance::sum(n), 1.0);
        let mut d_inv_temperature = 0.0;
        for (row, (scores, stats)) in inputs.scores.chunks(n).zip(got.stats.chunks(ROW_STATS)).enumerate() {
            let positive = inputs.first_positive + row;
            let others = || (0..n).filter(|&j| j != positive && !inputs.is_left_out(row, j));
            let sum = others().map(|j| scores[j]).sum();
            let bound = tolerance::sum(*d) + tolerance::sum(n);
            let cosines = [scores[positive], sum];
            assert_close_on_scale(
                &format!("{what}, row {row}, cosines"),
                &stats[1..3],
                &cosines,
                bound,
                1.0 + n as f64 / 10.0,
            );
            assert_eq!(stats[3], others().count() as f64, "{what}, row {row}: number of candidates");

            let logit = |j: usize| (scores[j] - scores[positive] + f64::from(inputs.margin)) * inv_t;
            let largest = others().map(logit).fold(0.0, f64::max);
            let exp = |j: usize| (logit(j) - largest).exp();
            let of_others: f64 = others().map(exp).sum();
            let total = of_others + (-largest).exp();
            d_inv_temperature += others().map(|j| exp(j) * logit(j)).sum::<f64>() / total / inv_t;
            let factor = f64::from(inputs.weight) * inv_t / total;
            for j in 0..n {
                let exact = match j == positive {
                    true => -of_others,
                    false if inputs.is_left_out(row, j) => 0.0,
                    false => exp(j),
                } * factor;
                let got = got.d_scores[row * n + j];
                // Half a spacing of bf16, and what logits and sums are off.
                let bound = exact.abs() * (1.0 / 256.0 + 4.0 * of_logit + tolerance::SOFTMAX + tolerance::sum(n));
                // Far below the row's largest there is nothing left of an exponential.
                let lost = factor * of_others.max((-largest).exp()) * 1e-7;
                assert!((got - exact).abs() <= bound + lost, "{what}, row {row}, column {j}: {got} instead of {exact}");
            }
        }
        let sum: f64 = got.stats.iter().skip(4).step_by(ROW_STATS).sum();
        let bound = 2.0 * of_logit + tolerance::SOFTMAX + tolerance::sum(n);
        let scale = 2.0 * rows as f64;
        assert_close_on_scale(&format!("{what}, derivative"), &[sum], &[d_inv_temperature], bound, scale);
    }
}

/// Tiles of 128 x 256 and their edges, widths that are odd, positives from the nearest to the farthest, at temperatures at
/// which a shift by the positive's logit is right, too low, and of no use.
pub fn info_nce_exps<B: Backend>(backend: &B) {
    if backend.score_blocks().fused.is_none() {
        return;
    }
    let cosines = [0.9, 1.0, 0.2, -0.3, -1.0, 0.5];
    let shapes = [(1, 1, 8), (3, 7, 8), (6, 300, 40), (129, 257, 64), (70, 264, 24), (5, 520, 96), (4, 16, 768)];
    for (rows, n, d) in shapes {
        for temperature in [1.0, 0.02, 0.01, 0.002] {
            let vectors = Vectors::new::<B::E>(rows, n, d, temperature, &cosines);
            vectors.check(backend, &format!("info_nce_exps, {rows} x {n} x {d}, t = {temperature}"));
        }
    }
    for (rows, n) in [(6, 24), (40, 41), (9, 600)] {
        let masked = |temperature: f32, change: &dyn Fn(&mut Inputs)| {
            let mut vectors = Vectors::new::<B::E>(rows, n, 16, temperature, &cosines);
            change(&mut vectors.inputs);
            vectors
        };
        let labels = |inputs: &mut Inputs| {
            let mut random = Random::new(n as u64);
            let mut some = |n: usize| (0..n).map(|_| random.below(5) as i32).collect::<Vec<_>>();
            (inputs.row_labels, inputs.column_labels) = (some(rows), some(n));
        };
        let rejected = |inputs: &mut Inputs| {
            let from = |row: usize| (row * 5) % (n - 3);
            let ends = |row: usize| [from(row) as i32, (from(row) + row % 4).min(n - 3) as i32];
            (inputs.rejected, inputs.first_passage) = (Some((0..rows).flat_map(ends).collect()), 3);
        };
        // Few of them, so that there are parts of the matrix with bits, with none, and with no other reason.
        let left_out = |inputs: &mut Inputs| {
            inputs.left_out = (0..rows).map(|row| (row, row * 7 % n)).chain([(1, n - 1)]).collect()
        };
        let changes: [(&str, Change); 8] = [
            ("bits", &left_out),
            ("bits and labels", &|inputs| {
                labels(inputs);
                left_out(inputs);
            }),
            ("labels", &labels),
            ("rejected", &rejected),
            ("skipped", &|inputs| inputs.skipped = 1..n - 1),
            ("too similar", &|inputs| inputs.false_negative_margin = 0.1),
            ("margin", &|inputs| inputs.margin = 0.2),
            ("everything", &|inputs| {
                labels(inputs);
                rejected(inputs);
                (inputs.skipped, inputs.false_negative_margin, inputs.margin) = (2..rows, 0.3, 0.1);
            }),
        ];
        for (what, change) in changes {
            for temperature in [0.05, 0.005] {
                let what = format!("info_nce_exps, {rows} x {n}, {what}, t = {temperature}");
                masked(temperature, change).check(backend, &what);
            }
        }
    }
}
