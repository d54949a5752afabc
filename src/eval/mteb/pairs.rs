//! The numbers of pair classification: how well a threshold on a similarity tells pairs that belong together from others.

use super::runs::Runs;
use super::similarity::PairSimilarities;
use super::{DECIMALS, Numbers, rounded};

/// For each similarity, the best accuracy, the best F1 with its precision and recall, and average precision; then the largest of
/// each over the similarities. `labels` has for each pair whether it belongs together.
///
/// A threshold lies between two different values, so that equal ones are never told apart and the order of pairs does not
/// matter. As in mteb, no threshold for accuracy and F1 takes all pairs.
pub fn pair_numbers(labels: &[bool], similarities: &PairSimilarities) -> Numbers {
    let similarities = [
        ("similarity", Nearer::Larger, &similarities.model),
        ("cosine", Nearer::Larger, &similarities.cosine),
        ("manhattan", Nearer::Smaller, &similarities.manhattan),
        ("euclidean", Nearer::Smaller, &similarities.euclidean),
        ("dot", Nearer::Larger, &similarities.dot),
    ];
    let mut numbers = Numbers::new();
    let mut largest: Option<Measures> = None;
    for (similarity, nearer, values) in similarities {
        let measures = measures(&thresholds(labels, values, nearer));
        numbers.extend(named(similarity, &measures));
        let so_far = largest.get_or_insert(measures);
        so_far.iter_mut().zip(measures).for_each(|(largest, x)| *largest = largest.max(x));
    }
    numbers.extend(largest.iter().flat_map(|largest| named("max", largest)));
    numbers
}

/// What is measured of a similarity.
const MEASURES: [&str; 5] = ["accuracy", "f1", "precision", "recall", "ap"];

/// A value for each of [`MEASURES`].
type Measures = [f64; MEASURES.len()];

fn named(similarity: &str, measures: &Measures) -> impl Iterator<Item = (String, f64)> {
    MEASURES.iter().zip(measures).map(move |(name, &x)| (format!("{similarity}_{name}"), rounded(x, DECIMALS)))
}

/// Which values are of pairs that are nearer to one another.
#[derive(Clone, Copy)]
enum Nearer {
    Larger,
    Smaller,
}

/// The pairs that a threshold takes for belonging together.
#[derive(Clone, Copy)]
struct Taken {
    n: usize,
    /// Those of them that do.
    n_right: usize,
}

/// What a threshold takes behind each value, nearest first; the last takes all.
fn thresholds(labels: &[bool], values: &[f32], nearer: Nearer) -> Vec<Taken> {
    assert_eq!(labels.len(), values.len(), "a label for each pair");
    let values: Vec<f64> = match nearer {
        Nearer::Larger => values.iter().map(|&x| -f64::from(x)).collect(),
        Nearer::Smaller => values.iter().map(|&x| x.into()).collect(),
    };
    let add = |taken: &mut Taken, run: &[usize]| {
        taken.n += run.len();
        taken.n_right += run.iter().filter(|&&pair| labels[pair]).count();
        Some(*taken)
    };
    Runs::of(&values).iter().scan(Taken { n: 0, n_right: 0 }, add).collect()
}

fn measures(thresholds: &[Taken]) -> Measures {
    let Some((all, others)) = thresholds.split_last() else {
        return [f64::NAN; MEASURES.len()];
    };
    let [f1, precision, recall] = best_f1(all, others);
    [best_accuracy(all, others), f1, precision, recall, average_precision(all, thresholds)]
}

/// Share of the pairs that a threshold takes or leaves rightly.
fn best_accuracy(all: &Taken, thresholds: &[Taken]) -> f64 {
    let n_left_rightly = |taken: &Taken| (all.n - all.n_right) - (taken.n - taken.n_right);
    let n_right = thresholds.iter().map(|taken| taken.n_right + n_left_rightly(taken)).max();
    n_right.unwrap_or(0) as f64 / all.n as f64
}

/// Best F1, with its precision and recall; of the first threshold that reaches it.
fn best_f1(all: &Taken, thresholds: &[Taken]) -> [f64; 3] {
    let mut best = [0.0; 3];
    for taken in thresholds.iter().filter(|taken| taken.n_right > 0) {
        let precision = taken.n_right as f64 / taken.n as f64;
        let recall = taken.n_right as f64 / all.n_right as f64;
        let f1 = 2.0 * precision * recall / (precision + recall);
        if f1 > best[0] {
            best = [f1, precision, recall];
        }
    }
    best
}

/// Sum over the thresholds of the precision there times the recall that it adds; 0 where no pair belongs together.
fn average_precision(all: &Taken, thresholds: &[Taken]) -> f64 {
    let mut before = 0;
    let mut sum = 0.0;
    for taken in thresholds {
        sum += (taken.n_right - before) as f64 * taken.n_right as f64 / taken.n as f64;
        before = taken.n_right;
    }
    if all.n_right == 0 { 0.0 } else { sum / all.n_right as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(labels: &[bool], values: &[f32], nearer: Nearer) -> Measures {
        measures(&thresholds(labels, values, nearer))
    }

    fn close(got: Measures, expected: Measures) {
        for ((name, got), expected) in MEASURES.iter().zip(got).zip(expected) {
            assert!((got - expected).abs() < 1e-12, "{name} is {got}, not {expected}");
        }
    }

    /// Best first: yes, no, then yes and no with equal values, yes, no. Thresholds take 1, 2, 4, 5 (and 6) pairs, of which
    /// 1, 1, 2, 3 (and 3) are right; of the 3 that are not, they leave 3, 2, 1, 1.
    #[test]
    fn hand_computed() {
        let labels = [true, false, true, false, true, false];
        let values = [0.9, 0.8, 0.5, 0.5, 0.4, 0.1];
        let ap = (1.0 + 2.0 / 4.0 + 3.0 / 5.0) / 3.0;
        let expected = [4.0 / 6.0, 2.0 * 0.6 / 1.6, 3.0 / 5.0, 1.0, ap];
        close(of(&labels, &values, Nearer::Larger), expected);
        let distances = values.map(|x| 1.0 - x);
        close(of(&labels, &distances, Nearer::Smaller), expected);
        let mut swapped = labels;
        swapped.swap(2, 3);
        close(of(&swapped, &values, Nearer::Larger), expected);
    }

    /// One of two right pairs is first, the other fourth: 2/3 with precision 1 and recall 1/2, and the other way round.
    #[test]
    fn the_first_of_equal_f1_counts() {
        let [_, f1, precision, recall, _] =
            of(&[true, false, false, true, false], &[0.9, 0.8, 0.7, 0.6, 0.5], Nearer::Larger);
        assert_eq!([f1, precision, recall], [2.0 / 3.0, 1.0, 0.5]);
    }

    /// A threshold that takes all is mteb's for average precision alone.
    #[test]
    fn all_equal_all_right_and_none() {
        close(of(&[true, false, true], &[0.5; 3], Nearer::Larger), [0.0, 0.0, 0.0, 0.0, 2.0 / 3.0]);
        close(of(&[true; 2], &[0.5, 0.1], Nearer::Larger), [0.5, 2.0 / 3.0, 1.0, 0.5, 1.0]);
        close(of(&[false; 3], &[0.5, 0.4, 0.1], Nearer::Larger), [2.0 / 3.0, 0.0, 0.0, 0.0, 0.0]);
        assert!(of(&[], &[], Nearer::Larger).iter().all(|x| x.is_nan()));
    }

    #[test]
    fn names_and_the_largest() {
        let similarities = PairSimilarities {
            model: vec![0.1, 0.9],
            cosine: vec![0.1, 0.9],
            dot: vec![0.9, 0.1],
            manhattan: vec![2.0, 1.0],
            euclidean: vec![2.0, 1.0],
        };
        let numbers = pair_numbers(&[true, false], &similarities);
        let names: Vec<&str> = numbers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names[..5],
            ["similarity_accuracy", "similarity_f1", "similarity_precision", "similarity_recall", "similarity_ap"]
        );
        assert_eq!(
            [names[5], names[10], names[15], names[20], names[25], names[29]],
            ["cosine_accuracy", "manhattan_accuracy", "euclidean_accuracy", "dot_accuracy", "max_accuracy", "max_ap"]
        );
        assert_eq!((numbers[4].1, numbers[24].1, numbers[29].1), (0.5, 1.0, 1.0));
    }
}
