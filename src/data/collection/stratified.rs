//! A sample that has the classes of the whole in proportion: that of mteb's `stratified_subsampling`, which is the `test` part
//! of `Dataset.train_test_split(test_size=n, seed=42, stratify_by_column=...)` of the library `datasets`, to the row.

use super::cell::Parsed;
use super::numpy::Generator;

/// The places of `n_sample` rows in the order in which they are drawn, by the classes of all rows; of no more rows than that,
/// all places in their order. `n_classes` is at most 10,000.
///
/// # Errors
/// A class of one row, or fewer rows beside the sample than classes: `datasets` draws no such sample.
pub(super) fn sample(classes: &[usize], n_classes: usize, n_sample: usize) -> Parsed<Vec<usize>> {
    let n_others = match classes.len().checked_sub(n_sample) {
        None | Some(0) => return Ok((0..classes.len()).collect()),
        Some(n) => n,
    };
    let mut rows_of = vec![Vec::new(); n_classes];
    classes.iter().enumerate().for_each(|(row, class)| rows_of[*class].push(row));
    rows_of.retain(|rows| !rows.is_empty());
    let counts: Vec<usize> = rows_of.iter().map(Vec::len).collect();
    if counts.contains(&1) {
        return Err(format!("a class has but one of {} rows; a sample needs two of each", classes.len()));
    }
    if n_others < counts.len() || n_sample < counts.len() {
        let n = classes.len();
        return Err(format!("{n} rows are too few for a sample of {n_sample} with rows of each class beside it"));
    }
    let mut random = Generator::of_seed_42();
    let of_others = shares(&counts, n_others, &mut random);
    let left: Vec<usize> = counts.iter().zip(&of_others).map(|(all, others)| all - others).collect();
    let of_sample = shares(&left, n_sample, &mut random);
    let mut drawn = Vec::with_capacity(n_sample);
    for (rows, (n_others, n_sample)) in rows_of.iter().zip(of_others.into_iter().zip(of_sample)) {
        let places = random.permutation(rows.len());
        drawn.extend(places[n_others..n_others + n_sample].iter().map(|place| rows[*place]));
    }
    // The others are shuffled first, whose order nobody wants.
    random.permutation(n_others);
    random.shuffle(&mut drawn);
    Ok(drawn)
}

/// How many of `n` rows are of each class, in proportion to `counts`: rounded down, and what is missing goes to the largest
/// remainders, by lot among equal ones.
fn shares(counts: &[usize], n: usize, random: &mut Generator) -> Vec<usize> {
    let n_all: usize = counts.iter().sum();
    let exact: Vec<f64> = counts.iter().map(|count| (n * count) as f64 / n_all as f64).collect();
    let mut shares: Vec<usize> = exact.iter().map(|exact| exact.floor() as usize).collect();
    let remainders: Vec<f64> = exact.iter().map(|exact| exact - exact.floor()).collect();
    let mut n_missing = n.saturating_sub(shares.iter().sum());
    let mut values = remainders.clone();
    values.sort_by(|a, b| b.total_cmp(a));
    values.dedup();
    for value in values {
        if n_missing == 0 {
            break;
        }
        let equal: Vec<usize> = (0..counts.len()).filter(|class| remainders[*class] == value).collect();
        let n_chosen = n_missing.min(equal.len());
        random.choice(equal.len(), n_chosen).into_iter().for_each(|place| shares[equal[place]] += 1);
        n_missing -= n_chosen;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All samples are those of `datasets` 5.2.0 with NumPy 2.4.6.
    #[test]
    fn samples_are_those_of_datasets() {
        let thirds = |n: usize| (0..n).map(|row| row % 3).collect::<Vec<_>>();
        let of = |classes: &[usize], n| sample(classes, 3, n).unwrap();
        assert_eq!(of(&thirds(15), 7), [5, 0, 10, 1, 4, 11, 3]);
        assert_eq!(of(&[2, 0, 0, 1, 0, 2, 1, 0, 0, 1, 2, 0], 5), [9, 1, 2, 5, 11]);
        assert_eq!(of(&[0, 1, 0, 1, 0, 1, 1, 1], 4), [2, 1, 3, 5]);
        // A class without rows is none.
        assert_eq!(of(&[0, 2, 0, 2, 0, 2, 0, 2, 0, 2, 0, 2], 5), [7, 2, 3, 11, 10]);
        // No sample is drawn of so few.
        assert_eq!(of(&thirds(4), 4), [0, 1, 2, 3]);
        assert_eq!(of(&[], 4), [0; 0]);
    }

    #[test]
    fn samples_that_datasets_does_not_draw() {
        let refused = |classes: &[usize], n| sample(classes, 3, n).unwrap_err();
        assert_eq!(refused(&[0, 0, 1, 0, 0], 2), "a class has but one of 5 rows; a sample needs two of each");
        let thirds: Vec<usize> = (0..9).map(|row| row % 3).collect();
        for n in [8, 2] {
            let expected = format!("9 rows are too few for a sample of {n} with rows of each class beside it");
            assert_eq!(refused(&thirds, n), expected);
        }
    }
}
