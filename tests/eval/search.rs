//! Search and settings from embeddings to report, through the CPU backend.

use super::Noise;
use hbt::backend::Cpu;
use hbt::data::formats::Notes;
use hbt::dist::Peers;
use hbt::eval::bias::RANK_DISTANCE;
use hbt::eval::evaluate;
use hbt::eval::metrics::{MAP, MRR, NDCG, RECALL, Ranking};
use hbt::eval::search::relevant_ranks;
use hbt::eval::settings::FIGURES;
use hbt::eval::tasks::{EvalSet, Passage, Query, Relevant, parallel};
use hbt::retriever::Embeddings;
use serde::Deserialize;
use std::collections::HashMap;

/// A case of `fixtures/metrics.json`, whose script says what is in it.
#[derive(Deserialize)]
struct Case {
    name: String,
    scores: Vec<Vec<f32>>,
    relevant: Vec<Vec<u32>>,
    grades: Option<Vec<Vec<u32>>>,
    expected: HashMap<String, Vec<f64>>,
}

/// One language, one query for each list of judged passages.
fn one_language(n_passages: usize, relevant: Vec<Vec<Relevant>>) -> EvalSet {
    let query = |(group, relevant)| Query { group, relevant, ..Query::default() };
    EvalSet {
        notes: Notes::default(),
        task: &parallel::TASK,
        split: "all".into(),
        languages: vec!["en".into()],
        passages: vec![Passage { lang: 0, text: String::new() }; n_passages],
        queries: (0..).zip(relevant).map(query).collect(),
    }
}

/// Against unit vectors as passages, a query's scores are its own coordinates: the fixture's scores go through search.
#[test]
fn metrics_agree_with_pytrec_eval() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../fixtures/metrics.json")).unwrap();
    for Case { name, scores, relevant, grades, expected } in cases {
        let n = scores[0].len();
        let unit_vectors: Vec<f32> = (0..n * n).map(|i| f32::from(u8::from(i / n == i % n))).collect();
        let (queries, passages) = (Embeddings::new(n, scores.concat()), Embeddings::new(n, unit_vectors));
        let grades = grades.unwrap_or_else(|| relevant.iter().map(|of| vec![1; of.len()]).collect());
        let judged = |(passages, grades): (&Vec<u32>, &Vec<u32>)| {
            passages.iter().zip(grades).map(|(&passage, &grade)| Relevant { passage, grade }).collect()
        };
        let set = one_language(n, relevant.iter().zip(&grades).map(judged).collect());
        let ranks = relevant_ranks(&Cpu::<f32>::new(), &Peers::alone(), &set, &queries, &passages).unwrap();
        for (i, (ranks, grades)) in ranks.iter().zip(&grades).enumerate() {
            let ranking = Ranking::new(ranks.iter().zip(grades).map(|(rank, &grade)| (Some(rank.pooled), grade)));
            for (name_of_metric, expected) in &expected {
                let (metric, cutoff) = name_of_metric.split_once('@').unwrap_or((name_of_metric, ""));
                let row = [&MAP, &MRR, &NDCG, &RECALL, &RANK_DISTANCE].into_iter().find(|row| row.name == metric);
                let got = (row.unwrap().of)(&ranking, cutoff.parse().ok()).unwrap_or(0.0);
                let expected = expected[i];
                assert!((got - expected).abs() < 1e-9, "{name}, query {i}, {name_of_metric}: {got} is not {expected}");
            }
        }
    }
}

/// Average precision by walking down the ranking that a stable sort makes of f64 scores.
fn walk(scores: &[f64], candidates: &[usize], relevant: &[usize]) -> (f64, f64) {
    let mut ranking = candidates.to_vec();
    ranking.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let places: Vec<usize> = (0..ranking.len()).filter(|&i| relevant.contains(&ranking[i])).collect();
    let precisions: f64 = places.iter().enumerate().map(|(k, &i)| (k + 1) as f64 / (i + 1) as f64).sum();
    (precisions / places.len() as f64, (places[places.len() - 1] - places[0]) as f64)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// 60 questions in three languages; every language has one answer to each, and fillers.
#[test]
fn the_three_settings_agree_with_a_naive_evaluation() {
    let (n_langs, n_groups, n_passages_of, dim) = (3, 60, [60, 75, 100], 16);
    let mut noise = Noise(21);
    let first: Vec<usize> = (0..n_langs).map(|l| n_passages_of[..l].iter().sum()).collect();
    let passages: Vec<Passage> =
        (0..n_langs).flat_map(|l| vec![Passage { lang: l as u16, text: String::new() }; n_passages_of[l]]).collect();
    let query = |lang: usize, group: usize| Query {
        lang: lang as u16,
        group: group as u32,
        relevant: first.iter().map(|f| Relevant::binary((f + group) as u32)).collect(),
        ..Query::default()
    };
    let set = EvalSet {
        notes: Notes::default(),
        task: &parallel::TASK,
        split: "all".into(),
        languages: vec!["aa".into(), "bb".into(), "cc".into()],
        queries: (0..n_langs).flat_map(|l| (0..n_groups).map(move |g| (l, g))).map(|(l, g)| query(l, g)).collect(),
        passages,
    };
    let mut embed = |n: usize| -> Vec<f32> { (0..n * dim).map(|_| noise.unit() as f32 - 0.5).collect() };
    let passages = embed(set.passages.len());
    let mut queries = embed(set.queries.len());
    // Queries lean towards the answer in their own language, so that the settings differ.
    for (row, query) in queries.chunks_mut(dim).zip(&set.queries) {
        let answer = query.relevant[usize::from(query.lang)].passage as usize * dim;
        row.iter_mut().zip(&passages[answer..answer + dim]).for_each(|(q, p)| *q += p);
    }

    let (mut mono, mut cross, mut multi, mut distance) = (vec![], vec![], vec![], vec![]);
    for ql in 0..n_langs {
        let mut by_passage_lang = vec![vec![]; n_langs];
        let (mut pooled, mut distances) = (vec![], vec![]);
        for (i, query) in set.queries.iter().enumerate().filter(|(_, q)| usize::from(q.lang) == ql) {
            let row = &queries[i * dim..(i + 1) * dim];
            let dot = |p: &[f32]| row.iter().zip(p).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
            let scores: Vec<f64> = passages.chunks(dim).map(dot).collect();
            let relevant: Vec<usize> = query.relevant.iter().map(|of| of.passage as usize).collect();
            for (pl, aps) in by_passage_lang.iter_mut().enumerate() {
                let candidates: Vec<usize> = (first[pl]..first[pl] + n_passages_of[pl]).collect();
                aps.push(walk(&scores, &candidates, &relevant).0);
            }
            let (ap, spread) = walk(&scores, &(0..scores.len()).collect::<Vec<_>>(), &relevant);
            pooled.push(ap);
            distances.push(spread);
        }
        for (pl, aps) in by_passage_lang.iter().enumerate() {
            if pl == ql { &mut mono } else { &mut cross }.push(mean(aps));
        }
        multi.push(mean(&pooled));
        distance.push(mean(&distances));
    }

    let (queries, passages) = (Embeddings::new(dim, queries), Embeddings::new(dim, passages));
    let report = evaluate(&Cpu::<f32>::new(), &Peers::alone(), "noise", &set, None, &queries, &passages).unwrap();
    for (key, expected) in FIGURES.iter().zip([mono, cross, multi, distance]) {
        let (got, expected) = (report.value(*key).unwrap(), mean(&expected));
        assert!((got - expected).abs() < 1e-9, "{key}: {got} is not {expected}");
    }
}

#[test]
fn a_diverged_model_is_an_error_not_a_perfect_score() {
    let set = one_language(2, vec![vec![Relevant::binary(0)]]);
    let (queries, passages) = (Embeddings::new(1, vec![f32::NAN]), Embeddings::new(1, vec![1.0, 0.5]));
    let message =
        evaluate(&Cpu::<f32>::new(), &Peers::alone(), "m", &set, None, &queries, &passages).unwrap_err().to_string();
    assert!(message.contains("query 0") && message.contains("learning_rate"), "{message}");
}
