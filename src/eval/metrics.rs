//! Retrieval metrics of one query, from nothing but the ranks of its relevant passages.
//!
//! Everywhere below, `ranks` holds the 1-based ranks of the relevant passages that were ranked at all, ascending and
//! distinct, and `n_relevant` is how many relevant passages exist. hbt ranks every passage, so the two agree; a
//! ranking that was cut off passes the larger number, and what it lost counts as not found.
//!
//! Relevance is binary. The definitions are those of trec_eval (`map`, `recip_rank`, `ndcg_cut`, `recall`), which
//! BEIR, MTEB and MIRACL report. sentence-transformers' `map@k` differs: it divides by at most `k`.

/// Mean over the relevant passages of the precision at their rank, over the whole ranking, however long: `map` of
/// trec_eval for one query. 0 when nothing is relevant.
pub fn average_precision(ranks: &[u32], n_relevant: usize) -> f64 {
    check(ranks, n_relevant);
    let precisions: f64 = ranks.iter().zip(1u32..).map(|(&rank, found)| f64::from(found) / f64::from(rank)).sum();
    share(precisions, n_relevant as f64)
}

/// Reciprocal of the first relevant passage's rank, 0 when that rank is beyond `k`.
pub fn mrr_at(ranks: &[u32], k: u32) -> f64 {
    check(ranks, ranks.len());
    ranks.first().filter(|&&rank| rank <= k).map_or(0.0, |&rank| 1.0 / f64::from(rank))
}

/// Discounted gain `sum 1 / log2(1 + rank)` of the ranks up to `k`, over that of the best possible ranking. 0 when
/// nothing is relevant.
pub fn ndcg_at(ranks: &[u32], n_relevant: usize, k: u32) -> f64 {
    check(ranks, n_relevant);
    let gain = |rank: u32| 1.0 / (1.0 + f64::from(rank)).log2();
    let found: f64 = up_to(ranks, k).iter().map(|&rank| gain(rank)).sum();
    let n_ideal = n_relevant.min(k as usize) as u32;
    share(found, (1..=n_ideal).map(gain).sum())
}

/// Share of the relevant passages that rank at `k` or better. 0 when nothing is relevant.
pub fn recall_at(ranks: &[u32], n_relevant: usize, k: u32) -> f64 {
    check(ranks, n_relevant);
    share(up_to(ranks, k).len() as f64, n_relevant as f64)
}

/// The ranks that are at most `k`.
fn up_to(ranks: &[u32], k: u32) -> &[u32] {
    &ranks[..ranks.partition_point(|&rank| rank <= k)]
}

/// `part / whole`, 0 where the whole is.
fn share(part: f64, whole: f64) -> f64 {
    if whole == 0.0 { 0.0 } else { part / whole }
}

/// Unsorted or repeated ranks would give a wrong number silently.
fn check(ranks: &[u32], n_relevant: usize) {
    assert!(ranks.first().is_none_or(|&first| first >= 1), "ranks start at 1");
    assert!(ranks.is_sorted_by(|a, b| a < b), "ranks ascend and are distinct");
    assert!(ranks.len() <= n_relevant, "more ranks than relevant passages");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: f64, expected: f64) {
        assert!((got - expected).abs() < 1e-12, "{got} is not {expected}");
    }

    /// Relevant passages at ranks 2, 3 and 7 of which one more was never ranked; values worked out by hand.
    #[test]
    fn hand_computed() {
        let ranks = [2, 3, 7];
        close(average_precision(&ranks, 3), (1.0 / 2.0 + 2.0 / 3.0 + 3.0 / 7.0) / 3.0);
        close(average_precision(&ranks, 4), (1.0 / 2.0 + 2.0 / 3.0 + 3.0 / 7.0) / 4.0);
        close(mrr_at(&ranks, 10), 0.5);
        close(mrr_at(&ranks, 2), 0.5);
        close(mrr_at(&ranks, 1), 0.0);
        close(recall_at(&ranks, 3, 3), 2.0 / 3.0);
        close(recall_at(&ranks, 4, 100), 3.0 / 4.0);
        // 1/log2(3) = 0.630930, 1/log2(4) = 0.5; the ideal ranks are 1, 2, 3: 1 + 0.630930 + 0.5 = 2.130930.
        close(ndcg_at(&[3], 1, 10), 0.5);
        assert!((ndcg_at(&ranks, 3, 5) - 1.130_929_75 / 2.130_929_75).abs() < 1e-8);
        // Cut at 2, the best ranking has only two relevant passages in view.
        assert!((ndcg_at(&ranks, 3, 2) - 0.630_929_75 / 1.630_929_75).abs() < 1e-8);
    }

    #[test]
    fn perfect_and_hopeless_rankings() {
        for n in [1, 2, 11] {
            let perfect: Vec<u32> = (1..=n).collect();
            let n = n as usize;
            close(average_precision(&perfect, n), 1.0);
            close(ndcg_at(&perfect, n, 10), 1.0);
            close(mrr_at(&perfect, 10), 1.0);
            close(recall_at(&perfect, n, 100), 1.0);
            close(average_precision(&[], n), 0.0);
            close(ndcg_at(&[1000], n, 10), 0.0);
        }
        close(average_precision(&[], 0), 0.0);
        close(ndcg_at(&[], 0, 10), 0.0);
        close(recall_at(&[], 0, 10), 0.0);
    }

    #[test]
    #[should_panic(expected = "ranks ascend")]
    fn unsorted_ranks_are_a_bug() {
        average_precision(&[3, 2], 2);
    }
}
