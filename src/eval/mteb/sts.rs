//! The numbers of semantic textual similarity.

use super::runs::Runs;
use super::similarity::PairSimilarities;
use super::{DECIMALS, Numbers, rounded};

/// Pearson's and Spearman's correlation of the `gold` similarity of each pair with that of its embeddings: the model's own, and
/// by cosine and the Manhattan and Euclidean distance (negated, so that more is nearer). The scale of `gold` does not matter. NaN
/// where all values of either are equal or there is one pair at most.
pub fn sts_numbers(gold: &[f64], similarities: &PairSimilarities) -> Numbers {
    let gold_ranks = ranks(gold);
    let mut numbers = Numbers::new();
    let negated = |distances: &[f32]| distances.iter().map(|x| -x).collect::<Vec<f32>>();
    let kinds = [
        ("", &similarities.model),
        ("cosine_", &similarities.cosine),
        ("manhattan_", &negated(&similarities.manhattan)),
        ("euclidean_", &negated(&similarities.euclidean)),
    ];
    for (prefix, values) in kinds {
        let values: Vec<f64> = values.iter().map(|&x| x.into()).collect();
        numbers.push((format!("{prefix}pearson"), rounded(correlation(gold, &values), DECIMALS)));
        numbers.push((format!("{prefix}spearman"), rounded(correlation(&gold_ranks, &ranks(&values)), DECIMALS)));
    }
    numbers
}

/// Pearson's correlation; Spearman's of ranks.
fn correlation(x: &[f64], y: &[f64]) -> f64 {
    assert_eq!(x.len(), y.len(), "pairs of values");
    let (Some(x), Some(y)) = (standardized(x), standardized(y)) else {
        return f64::NAN;
    };
    x.iter().zip(&y).map(|(x, y)| x * y).sum()
}

/// Less their mean, with norm 1; `None` where all are equal.
fn standardized(values: &[f64]) -> Option<Vec<f64>> {
    values.iter().find(|x| **x != values[0])?;
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let norm = values.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>().sqrt();
    Some(values.iter().map(|x| (x - mean) / norm).collect())
}

/// Ranks from 1 on, smallest first; equal values share the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut ranks = vec![0.0; values.len()];
    let mut n_smaller = 0;
    for run in Runs::of(values).iter() {
        let mean = n_smaller as f64 + (run.len() + 1) as f64 / 2.0;
        for &i in run {
            ranks[i] = mean;
        }
        n_smaller += run.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: f64, expected: f64) {
        assert!((got - expected).abs() < 1e-12, "{got} is not {expected}");
    }

    #[test]
    fn equal_values_share_their_mean_rank() {
        assert_eq!(ranks(&[0.5, -1.0, 0.5, 3.0, 0.5]), [3.0, 1.0, 3.0, 5.0, 3.0]);
    }

    /// Deviations of (-1, 0, 1) and (-1, 2, -1): no correlation; of (-3, -1, 0, 4) and (-2, -1, 1, 2): 15 over the root of 26 *
    /// 10.
    #[test]
    fn hand_computed() {
        close(correlation(&[1.0, 2.0, 3.0], &[1.0, 4.0, 1.0]), 0.0);
        close(correlation(&[0.0, 2.0, 3.0, 7.0], &[1.0, 2.0, 4.0, 5.0]), 15.0 / 260f64.sqrt());
        close(correlation(&[0.1, 0.2, 0.4], &[-1.0, -2.0, -4.0]), -1.0);
        assert!(correlation(&[1.0, 1.0], &[1.0, 2.0]).is_nan());
        assert!(correlation(&[1.0, 2.0], &[3.0, 3.0]).is_nan());
        assert!(correlation(&[], &[]).is_nan());
        assert!(correlation(&[1.0], &[2.0]).is_nan());
    }

    #[test]
    fn distances_count_the_other_way_round() {
        let similarities = PairSimilarities {
            model: vec![0.9, 0.2, 0.1],
            cosine: vec![0.1, 0.2, 0.9],
            dot: vec![0.0; 3],
            manhattan: vec![1.0, 2.0, 3.0],
            euclidean: vec![0.5; 3],
        };
        let numbers = sts_numbers(&[5.0, 3.0, 1.0], &similarities);
        let names: Vec<&str> = numbers.iter().map(|(name, _)| name.as_str()).collect();
        let expected = [
            "pearson",
            "spearman",
            "cosine_pearson",
            "cosine_spearman",
            "manhattan_pearson",
            "manhattan_spearman",
            "euclidean_pearson",
            "euclidean_spearman",
        ];
        assert_eq!(names, expected);
        assert_eq!([numbers[1].1, numbers[3].1, numbers[4].1, numbers[5].1], [1.0, -1.0, 1.0, 1.0]);
        assert!(numbers[6].1.is_nan() && numbers[7].1.is_nan());
    }
}
