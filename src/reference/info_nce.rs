//! The contrastive loss.

use super::distillation::Teacher;

/// A block of scores `(R, n)`, row r's positive in column `first_positive + r`.
#[derive(Clone)]
pub struct Block {
    pub n: usize,
    pub first_positive: usize,
    /// `(R, n)`; says nothing about positives.
    pub left_out: Vec<bool>,
    pub margin: f64,
    pub inv_temperature: f64,
}

impl Block {
    /// `loss[r] = logsumexp_j(l_rj) - l_rp`, where j are the columns that are not left out.
    pub fn rows(&self, scores: &[f64]) -> Vec<f64> {
        let rows = scores.chunks(self.n).zip(self.left_out.chunks(self.n));
        rows.enumerate()
            .map(|(r, (row, left_out))| {
                let positive = self.first_positive + r;
                let others = (0..self.n).filter(|&j| j != positive && !left_out[j]).map(|j| row[j]);
                self.loss(row[positive], others)
            })
            .collect()
    }

    /// The gradient of the sum of [`Block::rows`]: the softmax of each row, less 1 at its positive, over the temperature.
    pub fn rows_gradient(&self, scores: &[f64]) -> Vec<f64> {
        let rows = scores.chunks(self.n).zip(self.left_out.chunks(self.n)).zip(self.rows(scores));
        rows.enumerate()
            .flat_map(|(r, ((row, left_out), loss))| {
                let positive = self.first_positive + r;
                let target = row[positive] - self.margin;
                let softmax = move |j: usize| ((row[j] - target) * self.inv_temperature - loss).exp();
                (0..self.n).map(move |j| match j {
                    _ if j == positive => ((-loss).exp() - 1.0) * self.inv_temperature,
                    _ if left_out[j] => 0.0,
                    _ => softmax(j) * self.inv_temperature,
                })
            })
            .collect()
    }

    /// The same of the first `R` columns of a block whose row r's positive is column r.
    pub fn columns(&self, scores: &[f64]) -> Vec<f64> {
        let at = |r: usize, j: usize| r * self.n + j;
        let rows = scores.len() / self.n;
        (0..rows)
            .map(|j| {
                let others = (0..rows).filter(|&r| r != j && !self.left_out[at(r, j)]).map(|r| scores[at(r, j)]);
                self.loss(scores[at(j, j)], others)
            })
            .collect()
    }

    /// Written as ln(1 + sum over the others), which stays exact where the positive wins by far; what would overflow where it
    /// loses by far is taken out of the sum.
    fn loss(&self, positive: f64, others: impl Iterator<Item = f64>) -> f64 {
        let positive = positive - self.margin;
        let exponents: Vec<f64> = others.map(|s| (s - positive) * self.inv_temperature).collect();
        let largest = exponents.iter().copied().fold(0.0, f64::max);
        if largest < 700.0 {
            return exponents.iter().map(|x| x.exp()).sum::<f64>().ln_1p();
        }
        largest + exponents.iter().map(|x| (x - largest).exp()).sum::<f64>().ln()
    }
}

/// Loss of a batch's embeddings `(S, d)`: the queries, then the passages, of which the first ones are the queries'
/// positives in order.
#[derive(Clone)]
pub struct Loss {
    pub d: usize,
    pub n_queries: usize,
    pub temperature: f64,
    pub symmetric: bool,
    pub margin: f64,
    pub in_batch_negatives: bool,
    pub query_negatives: bool,
    pub passage_negatives: bool,
    pub false_negative_margin: f64,
    /// `(S,)`
    pub labels: Vec<i32>,
    /// `(B, 2)` ranges of passages
    pub rejected: Vec<i32>,
    /// Queries and passages that are no negatives of each other, for other reasons; of two rows, both pairs
    pub left_out: Vec<(usize, usize)>,
    /// Leading dimensions and weights
    pub dimensions: Vec<(usize, f64)>,
    /// Weight of InfoNCE itself
    pub weight: f64,
    /// What is learned beside it, and its weight
    pub teacher: Option<(Teacher, f64)>,
}

impl Loss {
    /// The usual loss, in which no two rows say the same.
    pub fn plain(d: usize, n_queries: usize, n_seqs: usize, temperature: f64, symmetric: bool) -> Self {
        Loss {
            d,
            n_queries,
            temperature,
            symmetric,
            margin: 0.0,
            in_batch_negatives: true,
            query_negatives: false,
            passage_negatives: false,
            false_negative_margin: f64::INFINITY,
            labels: distinct_labels(n_queries, n_seqs),
            rejected: vec![0; 2 * n_queries],
            left_out: Vec::new(),
            dimensions: vec![(d, 1.0)],
            weight: 1.0,
            teacher: None,
        }
    }

    pub fn of(&self, embeddings: &[f64]) -> f64 {
        self.dimensions.iter().map(|&(d, weight)| weight * self.of_dimensions(embeddings, d)).sum()
    }

    fn of_dimensions(&self, embeddings: &[f64], d: usize) -> f64 {
        let unit = |x: &[f64]| {
            let norm = if d < self.d { x[..d].iter().map(|v| v * v).sum::<f64>().sqrt() } else { 1.0 };
            x[..d].iter().map(|v| v / norm).collect::<Vec<_>>()
        };
        let x: Vec<Vec<f64>> = embeddings.chunks(self.d).map(unit).collect();
        let (b, s) = (self.n_queries, x.len());
        let cosine = |i: usize, j: usize| x[i].iter().zip(&x[j]).map(|(a, b)| a * b).sum::<f64>();
        // Both-sided rows are judged each by its own positive, one-sided pairs by the query's, in both directions.
        let both_sides = self.query_negatives || self.passage_negatives;
        let is_false = |row: usize, column: usize| {
            let positive = if row < b { row + b } else { row - b };
            let by_label = self.labels[row] == self.labels[column];
            // Of a row's query and its positive alike, a row's query and its positive alike.
            let by_pair = self.left_out.contains(&(row % b, if column < b { column } else { column - b }));
            by_label || by_pair || cosine(row, column) > cosine(row, positive) + self.false_negative_margin
        };
        let loss = |row: usize, candidates: Vec<usize>| {
            let positive = cosine(row, if row < b { row + b } else { row - b }) - self.margin;
            candidates.iter().map(|&j| ((cosine(row, j) - positive) / self.temperature).exp()).sum::<f64>().ln_1p()
        };
        // By a teacher, for the i-th query and its positive.
        let rejected = |i: usize| self.rejected[2 * i] as usize + b..self.rejected[2 * i + 1] as usize + b;
        let mut total = 0.0;
        for i in 0..b {
            let counts = |&j: &usize| {
                let is_candidate = match j {
                    j if j == i || j == i + b => false,
                    j if j < b => self.query_negatives,
                    j if j < 2 * b => self.in_batch_negatives,
                    _ => true,
                };
                is_candidate && !is_false(i, j) && !rejected(i).contains(&j)
            };
            total += loss(i, (0..s).filter(counts).collect());
        }
        let of_teacher = self.teacher.as_ref().map_or(0.0, |(teacher, weight)| {
            let of_query = |i: usize| teacher.loss(i, i, |passage| cosine(i, b + passage));
            weight * (0..b).map(of_query).sum::<f64>() / b as f64
        });
        if !self.symmetric {
            return self.weight * total / b as f64 + of_teacher;
        }
        for i in b..2 * b {
            let counts = |&j: &usize| match j {
                j if j == i || j + b == i => false,
                j if j < b && both_sides => !is_false(i, j),
                j if j < b => !is_false(j, i),
                _ => self.passage_negatives && !is_false(i, j) && !rejected(i - b).contains(&j),
            };
            total += loss(i, (0..s).filter(counts).collect());
        }
        self.weight * total / (2 * b) as f64 + of_teacher
    }
}

/// The pairs of a [`Loss::left_out`] as the bits that operations read: for each query as many words of 32 bits as the
/// passages take, the lowest bit first; empty if there are no pairs.
pub fn bits(pairs: &[(usize, usize)], n_queries: usize, n_passages: usize) -> Vec<i32> {
    let words = n_passages.div_ceil(32);
    let mut bits = vec![0u32; if pairs.is_empty() { 0 } else { n_queries * words }];
    for &(query, passage) in pairs.iter().filter(|(_, passage)| *passage < n_passages) {
        bits[query * words + passage / 32] |= 1 << (passage % 32);
    }
    bits.into_iter().map(|word| word as i32).collect()
}

/// Labels of a batch in which a query's positive says what the query asks for, and nothing else says the same.
pub fn distinct_labels(n_queries: usize, n_seqs: usize) -> Vec<i32> {
    (0..n_seqs).map(|seq| if seq < 2 * n_queries { seq % n_queries } else { seq } as i32).collect()
}
