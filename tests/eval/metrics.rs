//! Metrics against a reference that walks a whole ranking.

use super::Noise;
use hbt::eval::metrics::{average_precision, mrr_at, ndcg_at, recall_at};

/// The four metrics of a ranking given as one flag a place, straight from their definitions.
struct Naive<'a>(&'a [bool]);

impl Naive<'_> {
    fn n_relevant(&self) -> usize {
        self.0.iter().filter(|&&r| r).count()
    }

    fn hits(&self, k: usize) -> usize {
        self.0.iter().take(k).filter(|&&r| r).count()
    }

    fn average_precision(&self) -> f64 {
        let precision = |place: usize| self.hits(place + 1) as f64 / (place + 1) as f64;
        let sum: f64 = (0..self.0.len()).filter(|&place| self.0[place]).map(precision).sum();
        sum / self.n_relevant() as f64
    }

    fn mrr(&self, k: usize) -> f64 {
        (1..=k).find(|&place| self.hits(place) > 0).map_or(0.0, |place| 1.0 / place as f64)
    }

    fn dcg(flags: &[bool], k: usize) -> f64 {
        flags
            .iter()
            .take(k)
            .enumerate()
            .map(|(i, &r)| if r { (2.0f64).ln() / (i as f64 + 2.0).ln() } else { 0.0 })
            .sum()
    }

    fn ndcg(&self, k: usize) -> f64 {
        let mut best = self.0.to_vec();
        best.sort_by(|a, b| b.cmp(a));
        Self::dcg(self.0, k) / Self::dcg(&best, k)
    }
}

#[test]
fn agree_with_a_walk_down_the_ranking() {
    let mut noise = Noise(3);
    for case in 0..500 {
        let len = 1 + noise.below(300) as usize;
        let share = noise.unit().powi(3);
        let mut flags: Vec<bool> = (0..len).map(|_| noise.unit() < share).collect();
        let sure = noise.below(len as u64) as usize;
        flags[sure] = true;
        let naive = Naive(&flags);
        let ranks: Vec<u32> = (1..).zip(&flags).filter(|(_, relevant)| **relevant).map(|(rank, _)| rank).collect();
        let n = naive.n_relevant();
        let pairs = [1, 3, 10, 100].into_iter().flat_map(|k| {
            [
                (mrr_at(&ranks, k), naive.mrr(k as usize)),
                (ndcg_at(&ranks, n, k), naive.ndcg(k as usize)),
                (recall_at(&ranks, n, k), naive.hits(k as usize) as f64 / n as f64),
            ]
        });
        for (got, expected) in pairs.chain([(average_precision(&ranks, n), naive.average_precision())]) {
            assert!((got - expected).abs() < 1e-12, "case {case}: {got} is not {expected}");
        }
    }
}
