//! Language bias: how far apart one pool of all languages ranks passages that say the same.
//!
//! A retriever without language bias puts the parallel answers to a question next to one another; a biased one puts
//! the passage in the query's language first and its translations hundreds of ranks below.

use super::metrics::{Metric, Ranking};

/// Largest minus smallest rank of a query's relevant passages in the ranking of the pool of all languages (Huang et
/// al. 2023; arXiv 2408.10536). The best possible value for `n` parallel answers is `n - 1`, when they follow one another.
pub static RANK_DISTANCE: Metric = Metric {
    name: "rank_distance",
    title: "rank distance",
    column: "rank dist",
    decimals: 1,
    is_share: false,
    lower_is_better: true,
    of: |ranking, k| rank_distance(ranking, k).map(f64::from),
};

/// `None` for fewer than two relevant passages: there is no distance to speak of, and a 0 would flatter the mean.
fn rank_distance(ranking: &Ranking, k: Option<u32>) -> Option<u32> {
    match ranking.found(k) {
        [(first, _), .., (last, _)] => Some(last - first),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_spread_of_the_ranks_in_any_order() {
        let distance = |ranks: &[u32]| rank_distance(&Ranking::new(ranks.iter().map(|&rank| (Some(rank), 1))), None);
        assert_eq!(distance(&[40, 3, 12]), Some(37));
        assert_eq!(distance(&[5, 6]), Some(1));
        assert_eq!(distance(&[9]), None);
        assert_eq!(distance(&[]), None);
    }
}
