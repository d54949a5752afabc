//! The numbers of bitext mining.

use super::{DECIMALS, Numbers, rounded};

/// Weighted precision, recall and F1, and accuracy, of mining n pairs of translations: `predictions` has for each source the
/// index of the target that is nearest to it, and the one that translates it has the index of the source.
///
/// Every target is a class that has one source, so scikit-learn's averages, weighted by the number of sources, are plain means:
/// where i is predicted for i and c is how often i is predicted at all, precision is 1/c, recall 1 and F1 2/(1 + c); where
/// it is not, all are 0. NaN of no pairs.
pub fn bitext_numbers(predictions: &[u32]) -> Numbers {
    let n_targets = predictions.iter().map(|&target| target as usize + 1).max().unwrap_or(0);
    let mut counts = vec![0u32; n_targets];
    for &target in predictions {
        counts[target as usize] += 1;
    }
    let right = predictions.iter().enumerate().filter(|&(source, &target)| source == target as usize);
    let counts: Vec<f64> = right.map(|(source, _)| f64::from(counts[source])).collect();
    let mean = |of: fn(f64) -> f64| {
        let sum = counts.iter().fold(0.0, |sum, &count| sum + of(count));
        rounded(sum / predictions.len() as f64, DECIMALS)
    };
    let recall = mean(|_| 1.0);
    let numbers =
        [("precision", mean(|c| 1.0 / c)), ("recall", recall), ("f1", mean(|c| 2.0 / (1.0 + c))), ("accuracy", recall)];
    numbers.map(|(name, number)| (name.to_owned(), number)).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expect(predictions: &[u32], expected: [f64; 4]) {
        let names = ["precision", "recall", "f1", "accuracy"];
        let expected: Numbers = names.iter().map(|&name| name.to_owned()).zip(expected).collect();
        assert_eq!(bitext_numbers(predictions), expected);
    }

    #[test]
    fn hand_computed() {
        expect(&[0, 1, 2], [1.0; 4]);
        expect(&[1, 2, 0], [0.0; 4]);
        // 1 is predicted three times and once rightly, 3 once and rightly.
        expect(&[1, 1, 1, 3], [(1.0 / 3.0 + 1.0) / 4.0, 0.5, (0.5 + 1.0) / 4.0, 0.5].map(|x| rounded(x, 6)));
        // More targets than sources.
        expect(&[7, 1], [0.5, 0.5, 0.5, 0.5]);
        assert!(bitext_numbers(&[]).iter().all(|(_, x)| x.is_nan()));
    }
}
