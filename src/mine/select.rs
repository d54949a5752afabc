//! Selects the negatives of one row by its scores.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::corpus::{Corpus, CorpusRow};
use super::rules::{Rules, Sampling};
use crate::random::hash;

/// Scores that are compared at once with the worst of the best so far.
const STRIDE: usize = 64;

/// A passage with its score. Greater means worse: the lower score or, of equal scores, the later passage.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ranked {
    score: f32,
    passage: u32,
}

impl Eq for Ranked {}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then(self.passage.cmp(&other.passage))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Numbers of passages within the window, or above its lower end, that were not mined, by the first rule that excluded
/// them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Excluded {
    /// Passages that hold the answer, in any language.
    pub answers: u64,
    /// Passages that rank above the window.
    pub above: u64,
    /// Passages that the row has as negatives already.
    pub known: u64,
    /// Passages too close to the positive, relative to its score.
    pub relative_margin: u64,
    /// Passages too close to the positive.
    pub absolute_margin: u64,
    /// Passages that score too high.
    pub max_score: u64,
    /// Passages that score too low.
    pub min_score: u64,
}

/// Negatives of one row in one pool.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selected {
    /// The selected passages, the best first.
    pub negatives: Vec<u32>,
    /// Their scores.
    pub scores: Vec<f32>,
    /// Score of the positive that each was compared with.
    pub positive_scores: Vec<f32>,
    /// Number of passages that answer the row's question.
    pub n_answers: usize,
    /// Number of positives that the row itself has.
    pub n_positives: usize,
    /// Numbers of the passages that were not selected.
    pub excluded: Excluded,
}

impl Selected {
    /// As numbers, for other processes.
    pub fn numbers(&self) -> Vec<u64> {
        let Selected { negatives, scores, positive_scores, n_answers, n_positives, excluded } = self;
        let Excluded { answers, above, known, relative_margin, absolute_margin, max_score, min_score } = *excluded;
        let mut numbers = vec![negatives.len() as u64, *n_answers as u64, *n_positives as u64];
        numbers.extend([answers, above, known, relative_margin, absolute_margin, max_score, min_score]);
        for ((negative, score), positive) in negatives.iter().zip(scores).zip(positive_scores) {
            numbers.extend([*negative, score.to_bits(), positive.to_bits()].map(u64::from));
        }
        numbers
    }

    /// Takes it off such numbers.
    pub fn of_numbers(numbers: &mut impl Iterator<Item = u64>) -> Self {
        let mut next = || numbers.next().expect("all numbers are there");
        let (n_negatives, mut found) = (next(), Selected::default());
        [found.n_answers, found.n_positives] = [next() as usize, next() as usize];
        let Excluded { answers, above, known, relative_margin, absolute_margin, max_score, min_score } =
            &mut found.excluded;
        for count in [answers, above, known, relative_margin, absolute_margin, max_score, min_score] {
            *count = next();
        }
        for _ in 0..n_negatives {
            found.negatives.push(next() as u32);
            found.scores.push(f32::from_bits(next() as u32));
            found.positive_scores.push(f32::from_bits(next() as u32));
        }
        found
    }
}

/// Selects the negatives of `row` among the passages from `first` on, whose scores are `scores`; `allowed` says for
/// each language whether it may be mined. At least one of the row's positives is among the passages.
pub fn select(
    scores: &[f32],
    first: usize,
    row: &CorpusRow,
    corpus: &Corpus,
    rules: &Rules,
    allowed: &[bool],
) -> Selected {
    let is_allowed = |passage: usize| allowed[usize::from(corpus.passages[passage].lang)];
    let answers = corpus.answers(row);
    let best = best(scores, first, rules.range_max, |passage| {
        is_allowed(passage) && answers.binary_search(&(passage as u32)).is_err()
    });

    let mut found = Selected { n_answers: answers.len(), n_positives: row.positives.len(), ..Selected::default() };
    // Whether a window of this size would hold the passage if answers were candidates.
    let is_in_window = |answer: &Ranked| best.len() < rules.range_max || best.last().is_some_and(|last| answer < last);
    let in_pool = |passage: &u32| (first..first + scores.len()).contains(&(*passage as usize));
    let ranked = |passage: u32| Ranked { score: scores[passage as usize - first] + 0.0, passage };
    let answers = answers.into_iter().filter(in_pool).filter(|&p| is_allowed(p as usize));
    found.excluded.answers = answers.map(ranked).filter(is_in_window).count() as u64;

    let positives: Vec<Ranked> = row.positives.iter().copied().filter(in_pool).map(ranked).collect();
    let lang = |passage: u32| corpus.passages[passage as usize].lang;
    let least = |positives: &mut dyn Iterator<Item = &Ranked>| positives.map(|of| of.score).reduce(f32::min);
    // Compares within a language: a model's preference for one language must not hide the negatives in it.
    let positive_score = |passage: u32| {
        least(&mut positives.iter().filter(|of| lang(of.passage) == lang(passage)))
            .or_else(|| least(&mut positives.iter()))
            .expect("a pool has a positive of each of its rows")
    };

    let window = &best[best.len().min(rules.range_min - 1)..];
    found.excluded.above = (best.len() - window.len()) as u64;
    let mut qualified: Vec<(Ranked, f32)> = Vec::new();
    for &candidate in window {
        let positive = positive_score(candidate.passage);
        match rules.excludes(candidate, positive, row, &mut found.excluded) {
            Some(counter) => *counter += 1,
            None => qualified.push((candidate, positive)),
        }
    }
    if rules.sampling_strategy == Sampling::Random {
        // A row's first query is unique. Its answer is not: rows with one answer would draw alike.
        let draw = |of: &(Ranked, f32)| hash(&[rules.seed, row.queries.start as u64, u64::from(of.0.passage)]);
        qualified.sort_by_key(draw);
    }
    qualified.truncate(rules.num_negatives);
    qualified.sort_by_key(|of| of.0);
    found.negatives = qualified.iter().map(|of| of.0.passage).collect();
    found.scores = qualified.iter().map(|of| of.0.score).collect();
    found.positive_scores = qualified.iter().map(|of| of.1).collect();
    found
}

impl Rules {
    /// The counter of the first rule that keeps `candidate` from being a negative of `row`.
    fn excludes<'a>(
        &self,
        candidate: Ranked,
        positive: f32,
        row: &CorpusRow,
        excluded: &'a mut Excluded,
    ) -> Option<&'a mut u64> {
        let score = candidate.score;
        let is_above = |limit: Option<f32>| limit.is_some_and(|limit| score > limit);
        if !self.replace && row.negatives.binary_search(&candidate.passage).is_ok() {
            Some(&mut excluded.known)
        } else if is_above(self.relative_margin.map(|margin| positive - margin * positive.abs())) {
            Some(&mut excluded.relative_margin)
        } else if is_above(self.absolute_margin.map(|margin| positive - margin)) {
            Some(&mut excluded.absolute_margin)
        } else if is_above(self.max_score) {
            Some(&mut excluded.max_score)
        } else if self.min_score.is_some_and(|min| score < min) {
            Some(&mut excluded.min_score)
        } else {
            None
        }
    }
}

/// The best `n` passages for which `is_candidate` holds, the best first.
fn best(scores: &[f32], first: usize, n: usize, is_candidate: impl Fn(usize) -> bool) -> Vec<Ranked> {
    let mut heap: BinaryHeap<Ranked> = BinaryHeap::with_capacity(n.min(scores.len()) + 1);
    // No score below this is among the best. An equal score is not either, because it comes later.
    let mut threshold = f32::NEG_INFINITY;
    for (stride, at) in scores.chunks(STRIDE).zip((first..).step_by(STRIDE)) {
        // Counts instead of searching, so that the loop uses vector instructions: nearly every stride ends here.
        if heap.len() == n && stride.iter().map(|&score| u32::from(score > threshold)).sum::<u32>() == 0 {
            continue;
        }
        for (&score, passage) in stride.iter().zip(at..) {
            if (heap.len() < n || score > threshold) && is_candidate(passage) {
                // Adding zero turns negative zero into zero, so that the two are equal.
                heap.push(Ranked { score: score + 0.0, passage: passage as u32 });
                if heap.len() > n {
                    heap.pop();
                }
                threshold = heap.peek().map_or(threshold, |worst| worst.score);
            }
        }
    }
    heap.into_sorted_vec()
}
