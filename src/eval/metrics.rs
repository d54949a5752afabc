//! Retrieval metrics of one query, from nothing but the ranks and grades of its judged passages.
//!
//! A grade is what a passage is worth to a query: 0 is not relevant, 1 is relevant where there are no degrees. Metrics that
//! know no degrees take every grade from 1 on for relevant. A cut-off `k` leaves what ranks behind it unseen; relevant
//! passages there, and those that were never ranked, count as not found.
//!
//! The definitions are those of trec_eval (`map`, `recip_rank`, `ndcg_cut`, `recall`, `P`, `success`), which BEIR, MTEB and
//! MIRACL report.
//! sentence-transformers' `map@k` differs: it divides by at most `k`.

/// A metric: how it is called and shown, and how it is computed for one query.
pub struct Metric {
    /// As figures' names, files and options have it.
    pub name: &'static str,
    /// As tables have it.
    pub title: &'static str,
    /// The same at the head of a narrow column.
    pub column: &'static str,
    /// Digits that are shown behind the point.
    pub decimals: usize,
    /// In [0, 1], and shown times 100 in a table of languages.
    pub is_share: bool,
    /// Whether a smaller value is the better one.
    pub lower_is_better: bool,
    /// The value for one query, of ranks up to the cut-off if there is one; `None` for a query that does not count.
    pub of: fn(&Ranking, Option<u32>) -> Option<f64>,
}

impl Metric {
    /// True when `new` improves on `old`; an equal value does not.
    pub fn is_better(&self, new: f64, old: f64) -> bool {
        if self.lower_is_better { new < old } else { new > old }
    }
}

/// What is shown of a metric in [0, 1].
const SHARE: Metric =
    Metric { name: "", title: "", column: "", decimals: 4, is_share: true, lower_is_better: false, of: |_, _| None };

/// Mean average precision.
pub static MAP: Metric =
    Metric { name: "map", title: "mAP", column: "mAP", of: |ranking, k| Some(ranking.average_precision(k)), ..SHARE };

/// Mean reciprocal rank.
pub static MRR: Metric =
    Metric { name: "mrr", title: "MRR", column: "MRR", of: |ranking, k| Some(ranking.reciprocal_rank(k)), ..SHARE };

/// Normalized discounted cumulative gain.
pub static NDCG: Metric =
    Metric { name: "ndcg", title: "nDCG", column: "nDCG", of: |ranking, k| Some(ranking.ndcg(k)), ..SHARE };

/// Recall.
pub static RECALL: Metric =
    Metric { name: "recall", title: "recall", column: "recall", of: |ranking, k| Some(ranking.recall(k)), ..SHARE };

/// Precision; there is none without a cut-off, as nothing says how many passages were ranked.
pub static PRECISION: Metric = Metric {
    name: "precision",
    title: "precision",
    column: "prec.",
    of: |ranking, k| k.map(|k| ranking.precision(k)),
    ..SHARE
};

/// Hit rate.
pub static HIT_RATE: Metric =
    Metric { name: "hit_rate", title: "hit rate", column: "hits", of: |ranking, k| Some(ranking.hit_rate(k)), ..SHARE };

/// Where the relevant passages of one query came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranking {
    /// Rank and grade of each that was ranked, by rank.
    found: Vec<(u32, u32)>,
    /// Grades of all of them, largest first.
    grades: Vec<u32>,
}

impl Ranking {
    /// Of judged passages in any order: the 1-based rank of each, `None` where a ranking that was cut off does not hold it,
    /// and its grade.
    pub fn new(judged: impl IntoIterator<Item = (Option<u32>, u32)>) -> Self {
        let relevant: Vec<_> = judged.into_iter().filter(|&(_, grade)| grade > 0).collect();
        let found = relevant.iter().filter_map(|&(rank, grade)| Some((rank?, grade))).collect();
        Self::of_relevant(found, relevant.iter().map(|&(_, grade)| grade).collect())
    }

    /// Of relevant passages in any order: 1-based rank and grade of those that were `found`, and the `grades` of all of them,
    /// found or not; every grade is above 0.
    pub fn of_relevant(mut found: Vec<(u32, u32)>, mut grades: Vec<u32>) -> Self {
        found.sort_unstable();
        // Each would give a wrong number silently.
        assert!(found.first().is_none_or(|&(first, _)| first >= 1), "ranks start at 1");
        assert!(found.is_sorted_by(|(a, _), (b, _)| a < b), "no two passages have the same rank");
        assert!(found.len() <= grades.len(), "what was found is among what is relevant");
        assert!(
            grades.iter().chain(found.iter().map(|(_, grade)| grade)).all(|&grade| grade > 0),
            "relevant is above 0"
        );
        grades.sort_unstable_by(|a, b| b.cmp(a));
        Ranking { found, grades }
    }

    /// Ranks and grades of the relevant passages that were ranked up to the cut-off, by rank.
    pub fn found(&self, k: Option<u32>) -> &[(u32, u32)] {
        &self.found[..self.found.partition_point(|&(rank, _)| k.is_none_or(|k| rank <= k))]
    }

    /// Mean over the relevant passages of the precision at their rank: `map` of trec_eval for one query, `map_cut` with a
    /// cut-off. 0 when nothing is relevant.
    pub fn average_precision(&self, k: Option<u32>) -> f64 {
        let found = self.found(k).iter().zip(1u32..);
        share(found.map(|(&(rank, _), n)| f64::from(n) / f64::from(rank)).sum(), self.grades.len() as f64)
    }

    /// Reciprocal of the first relevant passage's rank, 0 when it is not found.
    pub fn reciprocal_rank(&self, k: Option<u32>) -> f64 {
        self.found(k).first().map_or(0.0, |&(rank, _)| 1.0 / f64::from(rank))
    }

    /// Discounted gain, the sum of `grade / log2(1 + rank)`, over that of the best possible ranking. 0 when nothing is
    /// relevant. The gain is linear as in trec_eval's `ndcg_cut`; others take `2^grade - 1`, which is the same for grades
    /// of 0 and 1.
    pub fn ndcg(&self, k: Option<u32>) -> f64 {
        let gain = |(rank, grade): (u32, u32)| f64::from(grade) / (1.0 + f64::from(rank)).log2();
        let n_ideal = k.map_or(self.grades.len(), |k| self.grades.len().min(k as usize));
        let ideal = (1..).zip(self.grades[..n_ideal].iter().copied());
        share(self.found(k).iter().copied().map(gain).sum(), ideal.map(gain).sum())
    }

    /// Share of the relevant passages that are found. 0 when nothing is relevant.
    pub fn recall(&self, k: Option<u32>) -> f64 {
        share(self.found(k).len() as f64, self.grades.len() as f64)
    }

    /// Share of the first `k` ranks that hold a relevant passage, `P` of trec_eval: ranks that no passage is left for hold
    /// none.
    pub fn precision(&self, k: u32) -> f64 {
        share(self.found(Some(k)).len() as f64, f64::from(k))
    }

    /// 1 where a relevant passage is found, else 0: `success` of trec_eval.
    pub fn hit_rate(&self, k: Option<u32>) -> f64 {
        if self.found(k).is_empty() { 0.0 } else { 1.0 }
    }
}

/// `part / whole`, 0 where the whole is; never -0, which a sum of nothing is and files would show.
fn share(part: f64, whole: f64) -> f64 {
    if whole == 0.0 { 0.0 } else { (0.0 + part) / whole }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: f64, expected: f64) {
        assert!((got - expected).abs() < 1e-12, "{got} is not {expected}");
    }

    /// Passages of grade 1 at these ranks.
    fn found(ranks: &[u32]) -> impl Iterator<Item = (Option<u32>, u32)> {
        ranks.iter().map(|&rank| (Some(rank), 1))
    }

    /// Relevant passages at ranks 2, 3 and 7, in another one more that was never ranked; values worked out by hand.
    #[test]
    fn hand_computed() {
        let whole = Ranking::new(found(&[7, 2, 3]));
        let cut_off = Ranking::new(found(&[2, 3, 7]).chain([(None, 1)]));
        close(whole.average_precision(None), (1.0 / 2.0 + 2.0 / 3.0 + 3.0 / 7.0) / 3.0);
        close(whole.average_precision(Some(3)), (1.0 / 2.0 + 2.0 / 3.0) / 3.0);
        close(cut_off.average_precision(None), (1.0 / 2.0 + 2.0 / 3.0 + 3.0 / 7.0) / 4.0);
        close(whole.reciprocal_rank(None), 0.5);
        close(whole.reciprocal_rank(Some(2)), 0.5);
        close(whole.reciprocal_rank(Some(1)), 0.0);
        close(whole.recall(Some(3)), 2.0 / 3.0);
        close(cut_off.recall(Some(100)), 3.0 / 4.0);
        close(cut_off.recall(None), 3.0 / 4.0);
        close(cut_off.precision(5), 2.0 / 5.0);
        close(cut_off.precision(1000), 3.0 / 1000.0);
        close((PRECISION.of)(&whole, Some(3)).expect("there is a cut-off"), 2.0 / 3.0);
        assert_eq!((PRECISION.of)(&whole, None), None);
        close(whole.hit_rate(Some(1)), 0.0);
        close(whole.hit_rate(Some(2)), 1.0);
        close(whole.hit_rate(None), 1.0);
        // 1/log2(3) = 0.630930, 1/log2(4) = 0.5; the ideal ranks are 1, 2, 3: 1 + 0.630930 + 0.5 = 2.130930.
        close(Ranking::new(found(&[3])).ndcg(Some(10)), 0.5);
        assert!((whole.ndcg(Some(5)) - 1.130_929_75 / 2.130_929_75).abs() < 1e-8);
        // Cut at 2, the best ranking has only two relevant passages in view.
        assert!((whole.ndcg(Some(2)) - 0.630_929_75 / 1.630_929_75).abs() < 1e-8);
    }

    /// Grades 1 and 3 at ranks 1 and 3, 2 never ranked, and two that are not relevant: by hand.
    #[test]
    fn grades_are_gains_and_all_but_zero_are_relevant() {
        let ranking = Ranking::new([(Some(3), 3), (Some(2), 0), (None, 2), (Some(1), 1), (None, 0)]);
        // 1/1 + 3/2 over 3/1 + 2 * 0.630930 + 1/2.
        assert!((ranking.ndcg(None) - 2.5 / 4.761_859_51).abs() < 1e-8, "{}", ranking.ndcg(None));
        assert!((ranking.ndcg(Some(2)) - 1.0 / 4.261_859_51).abs() < 1e-8, "{}", ranking.ndcg(Some(2)));
        close(ranking.average_precision(None), (1.0 + 2.0 / 3.0) / 3.0);
        close(ranking.reciprocal_rank(None), 1.0);
        close(ranking.recall(Some(2)), 1.0 / 3.0);
        let binary = Ranking::new([(Some(3), 1), (None, 1), (Some(1), 1)]);
        close(ranking.average_precision(None), binary.average_precision(None));
        assert_eq!(Ranking::new([(Some(1), 0)]), Ranking::new([]));
    }

    #[test]
    fn perfect_and_hopeless_rankings() {
        for n in [1, 2, 11] {
            let perfect = Ranking::new((1..=n).map(|rank| (Some(rank), n + 1 - rank)));
            close(perfect.average_precision(None), 1.0);
            close(perfect.ndcg(Some(10)), 1.0);
            close(perfect.reciprocal_rank(Some(10)), 1.0);
            close(perfect.recall(Some(100)), 1.0);
            let hopeless = Ranking::new((0..n).map(|_| (None, 1)));
            for value in [hopeless.average_precision(None), hopeless.ndcg(Some(10)), hopeless.recall(None)] {
                assert!(value == 0.0 && value.is_sign_positive(), "{value}");
            }
            close(Ranking::new(found(&[1000])).ndcg(Some(10)), 0.0);
        }
        let nothing = Ranking::new([]);
        for value in [nothing.average_precision(None), nothing.ndcg(Some(10)), nothing.recall(Some(10))] {
            close(value, 0.0);
        }
        close(nothing.precision(10), 0.0);
        close(nothing.hit_rate(None), 0.0);
    }

    #[test]
    fn what_was_found_and_what_is_relevant_make_the_same_ranking() {
        let judged = Ranking::new([(Some(3), 3), (None, 2), (Some(1), 1)]);
        assert_eq!(Ranking::of_relevant(vec![(3, 3), (1, 1)], vec![1, 2, 3]), judged);
    }

    #[test]
    #[should_panic(expected = "the same rank")]
    fn two_passages_at_one_rank_are_a_bug() {
        Ranking::new(found(&[3, 2, 3]));
    }

    #[test]
    #[should_panic(expected = "among what is relevant")]
    fn what_was_found_without_being_relevant_is_a_bug() {
        Ranking::of_relevant(vec![(1, 1), (2, 1)], vec![1]);
    }
}
