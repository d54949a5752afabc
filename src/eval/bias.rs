//! Language bias: how far apart one pool of all languages ranks passages that say the same.
//!
//! A retriever without language bias puts the parallel answers to a question next to one another; a biased one puts
//! the passage in the query's language first and its translations hundreds of ranks below.

/// Largest minus smallest rank of a query's relevant passages in the ranking of the pool of all languages (Huang et
/// al. 2023; arXiv 2408.10536). The best possible value for `n`
/// parallel answers is `n - 1`, when they follow one another.
///
/// `None` for fewer than two relevant passages: there is no distance to speak of, and a 0 would flatter the mean.
pub fn rank_distance(pooled_ranks: &[u32]) -> Option<u32> {
    let (min, max) = (pooled_ranks.iter().min()?, pooled_ranks.iter().max()?);
    (pooled_ranks.len() > 1).then(|| max - min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_spread_of_the_ranks_in_any_order() {
        assert_eq!(rank_distance(&[40, 3, 12]), Some(37));
        assert_eq!(rank_distance(&[5, 6]), Some(1));
        assert_eq!(rank_distance(&[9]), None);
        assert_eq!(rank_distance(&[]), None);
    }
}
