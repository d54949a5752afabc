//! mteb's numbers of retrieval by their definitions, in the plainest way: from all scores, with nothing of hbt.

use std::collections::BTreeMap;

/// A query: the scores of its documents, and the grades of those that were judged.
pub struct Judged<'a> {
    pub scores: Vec<(f32, &'a str)>,
    pub grades: BTreeMap<&'a str, i32>,
}

const KS: [usize; 7] = [1, 3, 5, 10, 20, 100, 1000];

/// All numbers; infinite where mteb's depend on rounding.
pub fn numbers(queries: &[Judged]) -> BTreeMap<String, f64> {
    let rankings: Vec<Vec<(f32, &str)>> = queries.iter().map(ranking).collect();
    let confidence = |of: &dyn Fn(&[f64]) -> f64| -> Vec<f64> {
        let scores =
            rankings.iter().map(|ranking| ranking.iter().map(|(score, _)| f64::from(*score)).collect::<Vec<_>>());
        scores.map(|scores| of(&scores)).collect()
    };
    let confidences = [
        ("max", confidence(&|scores| scores[0])),
        ("std", confidence(&standard_deviation)),
        ("diff1", confidence(&|scores| scores.get(1).map_or(0.0, |second| scores[0] - second))),
    ];
    let mut numbers = BTreeMap::new();
    for name in ["ndcg", "map", "recall", "precision", "mrr", "hit_rate"] {
        for k in KS {
            let values = queries.iter().zip(&rankings).map(|(query, ranking)| value(name, k, query, ranking));
            let values: Vec<f64> = values.collect();
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            numbers.insert(format!("{name}_at_{k}"), rounded(mean, if name == "mrr" { 6 } else { 5 }));
            for (of, confidence) in confidences.iter().filter(|_| name != "hit_rate") {
                numbers.insert(format!("nauc_{name}_at_{k}_{of}"), rounded(nauc(confidence, &values), 6));
            }
        }
    }
    numbers.insert("accuracy".to_owned(), numbers["recall_at_1"]);
    numbers
}

fn rounded(x: f64, decimals: usize) -> f64 {
    format!("{x:.decimals$}").parse().unwrap()
}

/// The best 1000 documents: larger scores first, of equal ones the larger id.
fn ranking<'a>(query: &Judged<'a>) -> Vec<(f32, &'a str)> {
    let mut all = query.scores.clone();
    all.sort_by(|a, b| b.0.partial_cmp(&a.0).unwrap().then(b.1.cmp(a.1)));
    all.truncate(1000);
    all
}

fn standard_deviation(scores: &[f64]) -> f64 {
    let n = scores.len() as f64;
    let mean = scores.iter().sum::<f64>() / n;
    (scores.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n).sqrt()
}

fn value(name: &str, k: usize, query: &Judged, ranking: &[(f32, &str)]) -> f64 {
    let gain = |id: &str| f64::from(query.grades.get(id).copied().unwrap_or(0).max(0));
    let gains: Vec<f64> = ranking.iter().take(k).map(|(_, id)| gain(id)).collect();
    let mut ideal: Vec<f64> =
        query.grades.values().map(|grade| f64::from(*grade)).filter(|grade| *grade > 0.0).collect();
    ideal.sort_by(|a, b| b.total_cmp(a));
    let n_relevant = ideal.len() as f64;
    let n_hits = gains.iter().filter(|gain| **gain > 0.0).count() as f64;
    let dcg = |gains: &[f64]| gains.iter().zip(2u32..).map(|(gain, n)| gain / f64::from(n).log2()).sum::<f64>();
    if ideal.is_empty() {
        return 0.0;
    }
    match name {
        "ndcg" => dcg(&gains) / dcg(&ideal[..ideal.len().min(k)]),
        "map" => {
            let precision =
                |at: usize| gains[..=at].iter().filter(|gain| **gain > 0.0).count() as f64 / (at + 1) as f64;
            (0..gains.len()).filter(|&at| gains[at] > 0.0).map(precision).sum::<f64>() / n_relevant
        }
        "recall" => n_hits / n_relevant,
        "precision" => n_hits / k as f64,
        "mrr" => gains.iter().position(|gain| *gain > 0.0).map_or(0.0, |at| 1.0 / (at + 1) as f64),
        "hit_rate" => f64::from(u8::from(n_hits > 0.0)),
        other => panic!("{other}"),
    }
}

/// Area under the mean metric of those queries that are left when the least confident are refused, between that of refusing
/// at random and that of an oracle.
fn nauc(confidence: &[f64], values: &[f64]) -> f64 {
    if values.iter().all(|value| *value == values[0]) {
        return f64::INFINITY;
    }
    let (own, oracle) = (area(confidence, values), area(values, values));
    let flat = values.iter().sum::<f64>() / values.len() as f64 * 0.9;
    (own - flat) / (oracle - flat)
}

fn area(confidence: &[f64], values: &[f64]) -> f64 {
    let n = values.len();
    // Equal confidences share their mean.
    let shared = |i: usize| {
        let alike: Vec<f64> = (0..n).filter(|&j| confidence[j] == confidence[i]).map(|j| values[j]).collect();
        alike.iter().sum::<f64>() / alike.len() as f64
    };
    let mut order: Vec<(f64, f64)> = (0..n).map(|i| (confidence[i], shared(i))).collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    let at = |rate: f64| {
        let refused = (rate * n as f64).round_ties_even() as usize;
        let left = &order[refused.min(n - 1)..];
        left.iter().map(|(_, value)| value).sum::<f64>() / left.len() as f64
    };
    let rates: Vec<f64> = (0..10).map(|i| f64::from(i) / 10.0).collect();
    rates.windows(2).map(|two| (two[1] - two[0]) * (at(two[0]) + at(two[1])) / 2.0).sum()
}
