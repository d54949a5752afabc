//! The numbers of retrieval and reranking.

use super::nauc::{Abstention, naucs};
use super::{DECIMALS, Numbers, rounded};
use crate::eval::metrics::{HIT_RATE, MAP, MRR, Metric, NDCG, PRECISION, RECALL, Ranking};

/// The cut-offs of mteb.
pub const CUTOFFS: [u32; 7] = [1, 3, 5, 10, 20, 100, 1000];

/// Decimals to which mteb rounds means before it writes a file, all but that of the reciprocal rank.
const DECIMALS_OF_MEANS: usize = 5;

/// What a search found for one query, and what was judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Scores of the kept documents, best first (at most 1000, fewer where identical ids were removed).
    pub scores: Vec<f32>,
    /// Ranks (1-based) and grades of the documents among them that were judged above 0.
    pub found: Vec<(u32, u32)>,
    /// Grades above 0 of all judgements of the query, found or not.
    pub relevant: Vec<u32>,
}

impl Outcome {
    fn ranking(&self) -> Ranking {
        Ranking::of_relevant(self.found.clone(), self.relevant.clone())
    }
}

/// All numbers of one subset: nDCG, MAP, recall, precision, MRR and hit rate at each of [`CUTOFFS`], accuracy, which is recall
/// at 1, and [nAUC](naucs) of all but the hit rate, by each confidence.
///
/// Means are over all `outcomes`: a query for which nothing is relevant or nothing was found counts with 0. NaN of no outcomes.
pub fn retrieval_numbers(outcomes: &[Outcome]) -> Numbers {
    let rankings: Vec<Ranking> = outcomes.iter().map(Outcome::ranking).collect();
    let orders = CONFIDENCES.map(|(_, confidence)| {
        let confidences: Vec<f64> = outcomes.iter().map(|outcome| confidence(&outcome.scores)).collect();
        Abstention::by(&confidences)
    });
    let (mut numbers, mut of_confidences, mut hit_rates) = (Numbers::new(), Numbers::new(), Numbers::new());
    for metric in [&NDCG, &MAP, &RECALL, &PRECISION, &MRR] {
        for k in CUTOFFS {
            let values = of_each(metric, k, &rankings);
            numbers.push(mean(metric, k, &values));
            for ((confidence, _), nauc) in CONFIDENCES.iter().zip(naucs(orders.each_ref(), &values)) {
                let name = format!("nauc_{}_at_{k}_{confidence}", metric.name);
                of_confidences.push((name, rounded(nauc, DECIMALS)));
            }
        }
        if metric.name == RECALL.name {
            let at_1 = numbers[numbers.len() - CUTOFFS.len()].1;
            numbers.push(("accuracy".to_owned(), at_1));
        }
    }
    for k in CUTOFFS {
        hit_rates.push(mean(&HIT_RATE, k, &of_each(&HIT_RATE, k, &rankings)));
    }
    numbers.into_iter().chain(of_confidences).chain(hit_rates).collect()
}

/// Values of a metric for each query.
fn of_each(metric: &Metric, k: u32, rankings: &[Ranking]) -> Vec<f64> {
    let value = |ranking| (metric.of)(ranking, Some(k)).expect("each query counts where there is a cut-off");
    rankings.iter().map(value).collect()
}

/// Name and mean of a metric.
fn mean(metric: &Metric, k: u32, values: &[f64]) -> (String, f64) {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let decimals = if metric.name == MRR.name { DECIMALS } else { DECIMALS_OF_MEANS };
    (format!("{}_at_{k}", metric.name), rounded(mean, decimals))
}

/// How sure a retriever is of a ranking, from its scores, best first; 0 without any.
type Confidence = fn(&[f32]) -> f64;

/// Confidences as the names of nAUC have them.
const CONFIDENCES: [(&str, Confidence); 3] = [("max", largest), ("std", standard_deviation), ("diff1", lead)];

fn largest(scores: &[f32]) -> f64 {
    scores.first().map_or(0.0, |&best| best.into())
}

/// Of the whole population, in the order in which NumPy computes it: queries whose deviations differ by a rounding error, which
/// are many where scores have few values, are then in mteb's order, and nAUC depends on it in the fourth decimal.
fn standard_deviation(scores: &[f32]) -> f64 {
    if scores.is_empty() {
        return 0.0;
    }
    let n = scores.len() as f64;
    let scores: Vec<f64> = scores.iter().map(|&score| score.into()).collect();
    let mean = pairwise_sum(&scores) / n;
    let squares: Vec<f64> = scores.iter().map(|score| (score - mean) * (score - mean)).collect();
    (pairwise_sum(&squares) / n).sqrt()
}

/// Sum as NumPy adds: halves of what is longer than a block, and in a block eight numbers side by side.
fn pairwise_sum(values: &[f64]) -> f64 {
    const LANES: usize = 8;
    const BLOCK: usize = 128;
    if values.len() > BLOCK {
        let half = values.len() / 2;
        let (left, right) = values.split_at(half - half % LANES);
        return pairwise_sum(left) + pairwise_sum(right);
    }
    let (rows, rest) = values.as_chunks::<LANES>();
    let Some((first, rows)) = rows.split_first() else {
        return rest.iter().sum();
    };
    let mut sums = *first;
    for row in rows {
        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
    }
    let [a, b, c, d, e, f, g, h] = sums;
    rest.iter().fold(((a + b) + (c + d)) + ((e + f) + (g + h)), |sum, x| sum + x)
}

/// Of the best before the second; 0 where it is alone.
fn lead(scores: &[f32]) -> f64 {
    match scores {
        [best, second, ..] => f64::from(*best) - f64::from(*second),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(scores: &[f32], found: &[(u32, u32)], relevant: &[u32]) -> Outcome {
        Outcome { scores: scores.to_vec(), found: found.to_vec(), relevant: relevant.to_vec() }
    }

    fn number(numbers: &Numbers, name: &str) -> f64 {
        numbers.iter().find(|(of, _)| of == name).unwrap_or_else(|| panic!("no {name}")).1
    }

    /// The order is that of a file of mteb 2.26.24.
    #[test]
    fn names_and_their_order_are_mtebs() {
        let names: Vec<String> = retrieval_numbers(&[]).into_iter().map(|(name, _)| name).collect();
        let mut expected = Vec::new();
        let at = |name: &str, end: &str| CUTOFFS.map(|k| format!("{name}_at_{k}{end}"));
        expected.extend(["ndcg", "map", "recall"].iter().flat_map(|name| at(name, "")));
        expected.push("accuracy".to_owned());
        expected.extend(["precision", "mrr"].iter().flat_map(|name| at(name, "")));
        for name in ["nauc_ndcg", "nauc_map", "nauc_recall", "nauc_precision", "nauc_mrr"] {
            expected
                .extend(at(name, "").iter().flat_map(|name| ["max", "std", "diff1"].map(|of| format!("{name}_{of}"))));
        }
        expected.extend(at("hit_rate", ""));
        assert_eq!(names, expected);
        assert_eq!(names.len(), 148, "main_score is the caller's");
    }

    /// Three queries by hand: grades 2 and 1 of which the 2 is third; one at the top; zeros alone.
    #[test]
    fn hand_computed() {
        let outcomes = [
            outcome(&[0.5, 0.25, 0.25], &[(3, 2)], &[1, 2]),
            outcome(&[1.0, 0.5, 0.0], &[(1, 1)], &[1]),
            outcome(&[0.75, 0.5, 0.25], &[], &[]),
        ];
        let numbers = retrieval_numbers(&outcomes);
        // 2/log2(4) = 1 over 2 + 1/log2(3) = 2.630930; 1; 0.
        let expected = [
            ("ndcg_at_10", 0.46003),
            ("ndcg_at_1", 0.33333),
            ("map_at_5", 0.38889),
            ("recall_at_3", 0.5),
            ("accuracy", 0.33333),
            ("precision_at_3", 0.22222),
            ("precision_at_20", 0.03333),
            ("mrr_at_3", 0.444444),
            ("mrr_at_1", 0.333333),
            ("hit_rate_at_1", 0.33333),
            ("hit_rate_at_3", 0.66667),
        ];
        for (name, expected) in expected {
            assert_eq!(number(&numbers, name), expected, "{name}");
        }
        // Recall at 1 is 0, 1, 0 and the second query is surest by its largest score and by its lead, which is twice the others'.
        assert_eq!(number(&numbers, "nauc_recall_at_1_max"), 1.0);
        assert_eq!(number(&numbers, "nauc_recall_at_1_diff1"), 1.0);
    }

    #[test]
    fn what_is_the_same_for_all_queries_has_no_nauc() {
        let numbers = retrieval_numbers(&[outcome(&[1.0], &[(1, 1)], &[1]), outcome(&[], &[], &[1])]);
        assert_eq!(number(&numbers, "recall_at_1"), 0.5);
        assert_eq!(number(&numbers, "nauc_recall_at_1_max"), 1.0);
        let numbers = retrieval_numbers(&[outcome(&[1.0], &[(1, 1)], &[1]), outcome(&[0.5], &[(1, 3)], &[3])]);
        assert!(number(&numbers, "nauc_recall_at_1_max").is_nan());
        assert!(retrieval_numbers(&[]).iter().all(|(_, x)| x.is_nan()));
    }

    /// Of 1, 1/2, 1/3, ...; what `numpy.sum` 2.4 says. Adding up one after the other ends in other digits.
    #[test]
    fn adds_as_numpy_does() {
        let sums = [
            (1, 1.0),
            (7, 2.5928571428571425),
            (9, 2.8289682539682537),
            (40, 4.278543038936376),
            (128, 5.433147092589173),
            (129, 5.440899030573669),
            (257, 6.128236013400938),
            (1000, 7.485470860550345),
        ];
        for (n, expected) in sums {
            let values: Vec<f64> = (1..=n).map(|i| 1.0 / f64::from(i)).collect();
            assert_eq!(pairwise_sum(&values), expected, "{n}");
        }
    }

    /// What `numpy.std` 2.4 says.
    #[test]
    fn deviation_is_numpys_to_the_last_bit() {
        let deviations = [(1, 0.0), (3, 0.4720370858488416), (240, 0.45575156194972943), (1000, 0.4559304049739253)];
        for (n, expected) in deviations {
            let scores: Vec<f32> = (0..n).map(|i| (i * 37 % 101 - 50) as f32 / 64.0).collect();
            assert_eq!(standard_deviation(&scores), expected, "{n}");
        }
    }
}
