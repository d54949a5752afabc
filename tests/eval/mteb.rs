//! The numbers of mteb's tasks against mteb itself, to the last digit of its files.

use hbt::eval::mteb::Numbers;
use hbt::eval::mteb::bitext::bitext_numbers;
use hbt::eval::mteb::numbers::{Outcome, retrieval_numbers};
use hbt::eval::mteb::pairs::pair_numbers;
use hbt::eval::mteb::reranking::{RankChange, best_of_subqueries, numbers_over_subqueries, p_mrr, query_of_subquery};
use hbt::eval::mteb::similarity::{ModelSimilarity, PairSimilarities};
use hbt::eval::mteb::sts::sts_numbers;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// A case of `fixtures/mteb_numbers.json`, whose script says what is in it.
#[derive(Deserialize)]
struct Case<T> {
    expected: Numbers,
    #[serde(flatten)]
    given: T,
}

#[derive(Deserialize)]
struct Retrieval {
    outcomes: Vec<Found>,
}

#[derive(Deserialize)]
struct Found {
    scores: Vec<f32>,
    found: Vec<(u32, u32)>,
    relevant: Vec<u32>,
}

#[derive(Deserialize)]
struct Subqueries {
    runs: Vec<(String, Vec<(String, f32)>)>,
    relevant: BTreeMap<String, BTreeMap<String, u32>>,
}

#[derive(Deserialize)]
struct Bitext {
    predictions: Vec<u32>,
}

#[derive(Deserialize)]
struct Pairs {
    #[serde(default)]
    gold: Vec<f64>,
    #[serde(default)]
    labels: Vec<u8>,
    dim: usize,
    model: String,
    first: Vec<f32>,
    second: Vec<f32>,
}

impl Pairs {
    fn similarities(&self) -> PairSimilarities {
        let model = match self.model.as_str() {
            "cosine" => ModelSimilarity::Cosine,
            "dot" => ModelSimilarity::Dot,
            other => panic!("{other}"),
        };
        PairSimilarities::new(model, self.dim, &self.first, &self.second)
    }
}

#[derive(Deserialize)]
struct Changes {
    changes: Vec<Vec<(u32, u32)>>,
}

fn cases<T: DeserializeOwned>(kind: &str) -> Vec<Case<T>> {
    let all: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(include_str!("../fixtures/mteb_numbers.json")).unwrap();
    let cases: Vec<Case<T>> = serde_json::from_value(all[kind].clone()).unwrap();
    assert!(!cases.is_empty(), "no case of {kind}");
    cases
}

/// Holds the numbers that `numbers` makes of each case to mteb's: names, their order and every digit.
fn agree<T: DeserializeOwned>(kind: &str, numbers: impl Fn(&T) -> Numbers) {
    for (i, Case { expected, given }) in cases::<T>(kind).iter().enumerate() {
        let numbers = numbers(given);
        assert_eq!(numbers.len(), expected.len(), "{kind} {i}");
        for (number, expected) in numbers.iter().zip(expected) {
            assert_eq!(number, expected, "{kind} {i}");
        }
    }
}

#[test]
fn retrieval_is_mtebs() {
    agree("retrieval", |given: &Retrieval| {
        let outcome = |of: &Found| {
            let (scores, found, relevant) = (of.scores.clone(), of.found.clone(), of.relevant.clone());
            Outcome { scores, found, relevant }
        };
        retrieval_numbers(&given.outcomes.iter().map(outcome).collect::<Vec<_>>())
    });
}

#[test]
fn the_best_of_subqueries_is_mtebs() {
    agree("subqueries", |given: &Subqueries| {
        let outcome = |(query, grades): (&String, &BTreeMap<String, u32>)| {
            let of_query = given.runs.iter().filter(|(subquery, _)| query_of_subquery(subquery) == query);
            let ranking = best_of_subqueries(of_query.flat_map(|(_, run)| run.iter().map(|(d, x)| (d.as_str(), *x))));
            let grade = |(i, (document, _)): (usize, &(&str, f32))| Some((i as u32 + 1, *grades.get(*document)?));
            Outcome {
                scores: ranking.iter().map(|&(_, score)| score).collect(),
                found: ranking.iter().enumerate().filter_map(grade).collect(),
                relevant: grades.values().copied().collect(),
            }
        };
        numbers_over_subqueries(&given.relevant.iter().map(outcome).collect::<Vec<_>>())
    });
}

#[test]
fn bitext_mining_is_mtebs() {
    agree("bitext", |given: &Bitext| bitext_numbers(&given.predictions));
}

#[test]
fn textual_similarity_is_mtebs() {
    agree("sts", |given: &Pairs| sts_numbers(&given.gold, &given.similarities()));
}

#[test]
fn pair_classification_is_mtebs() {
    agree("pairs", |given: &Pairs| {
        let labels: Vec<bool> = given.labels.iter().map(|&label| label == 1).collect();
        pair_numbers(&labels, &given.similarities())
    });
}

#[test]
fn p_mrr_is_mtebs() {
    agree("p_mrr", |given: &Changes| {
        let change = |&(before, after): &(u32, u32)| RankChange { before, after };
        let changes: Vec<Vec<_>> = given.changes.iter().map(|of| of.iter().map(change).collect()).collect();
        vec![("p-MRR".to_owned(), p_mrr(&changes))]
    });
}
