//! Metrics against a reference that walks a whole ranking.

use super::Noise;
use hbt::eval::metrics::Ranking;

/// The four metrics of a ranking given as one grade a place, straight from their definitions.
struct Naive<'a>(&'a [u32]);

impl Naive<'_> {
    fn n_relevant(&self) -> usize {
        self.0.iter().filter(|&&grade| grade > 0).count()
    }

    fn hits(&self, k: usize) -> usize {
        self.0.iter().take(k).filter(|&&grade| grade > 0).count()
    }

    fn average_precision(&self, k: usize) -> f64 {
        let precision = |place: usize| self.hits(place + 1) as f64 / (place + 1) as f64;
        let sum: f64 = (0..self.0.len().min(k)).filter(|&place| self.0[place] > 0).map(precision).sum();
        sum / self.n_relevant() as f64
    }

    fn mrr(&self, k: usize) -> f64 {
        (1..=k).find(|&place| self.hits(place) > 0).map_or(0.0, |place| 1.0 / place as f64)
    }

    fn dcg(grades: &[u32], k: usize) -> f64 {
        let gain = |(i, &grade): (usize, &u32)| f64::from(grade) * 2.0f64.ln() / (i as f64 + 2.0).ln();
        grades.iter().take(k).enumerate().map(gain).sum()
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
        let (share, largest) = (noise.unit().powi(3), 1 + noise.below(3));
        let grade = |noise: &mut Noise| 1 + noise.below(largest) as u32;
        let mut grades: Vec<u32> = (0..len).map(|_| if noise.unit() < share { grade(&mut noise) } else { 0 }).collect();
        let sure = noise.below(len as u64) as usize;
        grades[sure] = grade(&mut noise);
        let naive = Naive(&grades);
        // In any order, those that are not relevant among them.
        let ranking = Ranking::new((1..).map(Some).zip(grades.iter().copied()).collect::<Vec<_>>().into_iter().rev());
        let cut_offs = [1, 3, 10, 100].map(|k| (Some(k), k as usize)).into_iter().chain([(None, len)]);
        let pairs = cut_offs.flat_map(|(cutoff, k)| {
            [
                (ranking.average_precision(cutoff), naive.average_precision(k)),
                (ranking.reciprocal_rank(cutoff), naive.mrr(k)),
                (ranking.ndcg(cutoff), naive.ndcg(k)),
                (ranking.recall(cutoff), naive.hits(k) as f64 / naive.n_relevant() as f64),
            ]
        });
        for (got, expected) in pairs {
            assert!((got - expected).abs() < 1e-12, "case {case}: {got} is not {expected}");
        }
    }
}
