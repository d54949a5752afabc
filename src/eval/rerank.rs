//! The numbers of tasks whose queries belong together: subqueries of one query, and a query with an instruction and with a
//! changed one.

use super::mteb::Numbers;
use super::mteb::numbers::retrieval_numbers;
use super::mteb::reranking::{RankChange, best_of_subqueries, numbers_over_subqueries, p_mrr, query_of_subquery};
use super::retrieval::{outcome, outcomes};
use super::top::Found;
use crate::data::collection::{Collection, JudgedQuery};
use std::collections::{BTreeMap, HashMap};

/// How the ids of queries with their first instruction end.
const ORIGINAL: &str = "-og";
/// How those with the changed one do.
const CHANGED: &str = "-changed";

/// Numbers of all queries, then those of [rankings over subqueries](best_of_subqueries): a document counts with its best score.
pub fn subquery_numbers(collection: &Collection, found: &Found) -> Numbers {
    let mut numbers = retrieval_numbers(&outcomes(collection, found, false));
    let mut queries: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (number, query) in collection.queries.iter().enumerate() {
        queries.entry(query_of_subquery(&query.id)).or_default().push(number);
    }
    let merged = queries.into_values().map(|of| {
        let ranking = best_of_subqueries(of.iter().flat_map(|&number| found.of(number)));
        // The judgements are those of any subquery.
        outcome(&collection.queries[of[0]], ranking.into_iter())
    });
    numbers.extend(numbers_over_subqueries(&merged.collect::<Vec<_>>()));
    numbers
}

/// Numbers of all queries and p-MRR, then those of the queries with the original and with the changed instruction.
pub fn instruction_numbers(collection: &Collection, found: &Found) -> (Numbers, Vec<(String, Numbers)>) {
    let all = outcomes(collection, found, false);
    let mut numbers = retrieval_numbers(&all);
    numbers.push(("p-MRR".to_owned(), p_mrr(&changes(collection, found))));
    let of = |is_original: bool| {
        let is_of = |query: &JudgedQuery| query.id.ends_with(ORIGINAL) == is_original;
        let chosen = all.iter().zip(&collection.queries).filter(|(_, query)| is_of(query));
        retrieval_numbers(&chosen.map(|(outcome, _)| outcome.clone()).collect::<Vec<_>>())
    };
    (numbers, vec![("og".to_owned(), of(true)), ("changed".to_owned(), of(false))])
}

/// For each query with both instructions, where the documents stand that the change turns.
fn changes(collection: &Collection, found: &Found) -> Vec<Vec<RankChange>> {
    let numbers: HashMap<&str, usize> =
        collection.queries.iter().enumerate().map(|(number, query)| (query.id.as_str(), number)).collect();
    let ranks = |number: usize| -> HashMap<&str, u32> { found.of(number).map(|(id, _)| id).zip(1..).collect() };
    let mut changes = Vec::new();
    for (query, turned) in collection.changes.iter().flatten() {
        let both = [ORIGINAL, CHANGED].map(|end| numbers.get(format!("{query}{end}").as_str()));
        let [Some(&before), Some(&after)] = both else { continue };
        let (before, after) = (ranks(before), ranks(after));
        // What was not retrieved comes after the last.
        let rank = |of: &HashMap<&str, u32>, id: &str| of.get(id).copied().unwrap_or(of.len() as u32 + 1);
        let change = |id: &String| RankChange { before: rank(&before, id), after: rank(&after, id) };
        changes.push(turned.iter().map(change).collect());
    }
    changes
}
