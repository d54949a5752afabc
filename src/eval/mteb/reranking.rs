//! What some tasks of reranking have beside the numbers of retrieval.

use super::numbers::{Outcome, retrieval_numbers};
use super::{DECIMALS, Numbers, rounded};
use std::cmp::Ordering;
use std::collections::HashMap;

/// 1-based ranks of a document before and after the instruction that its query has was changed. A document that was not
/// retrieved comes after the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RankChange {
    /// For the query with the original instruction.
    pub before: u32,
    /// For the query with the changed one, to which the document is no longer relevant.
    pub after: u32,
}

impl RankChange {
    /// In (-1, 1), and above 0 where the document falls, as it should.
    fn score(self) -> f64 {
        let [before, after] = [self.before, self.after].map(|rank| 1.0 / f64::from(rank));
        if self.before >= self.after { before / after - 1.0 } else { 1.0 - after / before }
    }
}

/// p-MRR of following instructions (arXiv 2403.15246): the mean of the changes of each query, and of these the mean over the
/// queries that have any; NaN if none has.
pub fn p_mrr(queries: &[Vec<RankChange>]) -> f64 {
    let changed = queries.iter().filter(|changes| !changes.is_empty());
    let means = changed.map(|changes| changes.iter().map(|change| change.score()).sum::<f64>() / changes.len() as f64);
    let (sum, n) = means.fold((0.0, 0u32), |(sum, n), mean| (sum + mean, n + 1));
    rounded(sum / f64::from(n), DECIMALS)
}

/// The query that a subquery belongs to: its id up to the last `_`.
pub fn query_of_subquery(id: &str) -> &str {
    id.rsplit_once('_').map_or("", |(query, _)| query)
}

/// One ranking of what the subqueries of one query found: each document with its best score, best first, and of equal ones
/// the larger id first.
pub fn best_of_subqueries<'a>(found: impl IntoIterator<Item = (&'a str, f32)>) -> Vec<(&'a str, f32)> {
    let mut best: HashMap<&str, f32> = HashMap::new();
    for (document, score) in found {
        best.entry(document).and_modify(|best| *best = best.max(score)).or_insert(score);
    }
    let mut ranking: Vec<_> = best.into_iter().collect();
    ranking.sort_unstable_by(|a, b| best_first(*a, *b));
    ranking
}

/// The order in which mteb ranks documents of these ids and scores: larger scores first, and of equal ones the larger id,
/// compared as bytes. 0 and -0 are equal.
pub fn best_first(a: (&str, f32), b: (&str, f32)) -> Ordering {
    // Adding 0 makes 0 of -0.
    (b.1 + 0.0).total_cmp(&(a.1 + 0.0)).then_with(|| b.0.cmp(a.0))
}

/// The numbers of retrieval of such rankings, by the names that mteb gives them.
pub fn numbers_over_subqueries(outcomes: &[Outcome]) -> Numbers {
    let numbers = retrieval_numbers(outcomes).into_iter();
    numbers.map(|(name, number)| (format!("max_over_subqueries_{name}"), number)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(ranks: &[(u32, u32)]) -> Vec<RankChange> {
        ranks.iter().map(|&(before, after)| RankChange { before, after }).collect()
    }

    /// From rank 2 to 8 is 1 - 2/8, from 8 to 2 the opposite; the first query's mean is that of 3/4 and 0.
    #[test]
    fn p_mrr_by_hand() {
        assert_eq!(p_mrr(&[changes(&[(2, 8), (5, 5)])]), 0.375);
        assert_eq!(p_mrr(&[changes(&[(8, 2)])]), -0.75);
        assert_eq!(p_mrr(&[changes(&[(2, 8), (5, 5)]), vec![], changes(&[(8, 2)])]), -0.1875);
        assert!(p_mrr(&[]).is_nan());
        assert!(p_mrr(&[vec![]]).is_nan());
    }

    #[test]
    fn subqueries_are_of_what_stands_before_the_last_underscore() {
        assert_eq!(query_of_subquery("q_1_20"), "q_1");
        assert_eq!(query_of_subquery("q"), "");
    }

    #[test]
    fn the_best_score_counts_and_ties_go_by_id() {
        let found = [("d9", 0.5), ("d10", 0.25), ("d9", 0.75), ("z", -0.0), ("a", 0.0), ("d10", 0.75)];
        let ranking = best_of_subqueries(found);
        assert_eq!(ranking, [("d9", 0.75), ("d10", 0.75), ("z", 0.0), ("a", 0.0)]);
    }

    #[test]
    fn zero_of_either_sign_is_a_tie() {
        assert_eq!(best_first(("z", -0.0), ("a", 0.0)), Ordering::Less);
        assert_eq!(best_first(("a", 0.0), ("z", -0.0)), Ordering::Greater);
        assert_eq!(best_first(("a", 0.5), ("z", 0.25)), Ordering::Less);
    }

    #[test]
    fn numbers_have_their_own_names() {
        let outcome = Outcome { scores: vec![0.5, 0.25], found: vec![(2, 1)], relevant: vec![1] };
        let numbers = numbers_over_subqueries(&[outcome]);
        assert_eq!(numbers.len(), 148);
        assert!(numbers.contains(&("max_over_subqueries_map_at_1000".to_owned(), 0.5)));
    }
}
