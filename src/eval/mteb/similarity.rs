//! Similarities of pairs of embeddings, in f32, by the formulas of mteb and of scikit-learn, from which mteb has some of them.
//!
//! What they round to f32, is rounded here; but sums are taken in f64 and rounded once, so that they are as near to theirs as a
//! sum in another order can be. It decides which similarities are equal, on which Spearman's correlation and average precision
//! depend: of pairs of equal texts, which have cosine 1 but for rounding, mteb's own dot products differ between processors.

/// How a model compares embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelSimilarity {
    /// By their cosine.
    Cosine,
    /// By their dot product.
    Dot,
}

/// Similarities and distances of n pairs of embeddings, each `(n)`.
#[derive(Clone, Debug, PartialEq)]
pub struct PairSimilarities {
    /// As the model compares them.
    pub model: Vec<f32>,
    /// 1 less half the squared distance of the normalized embeddings, which is their cosine and never above 1.
    pub cosine: Vec<f32>,
    /// Dot product.
    pub dot: Vec<f32>,
    /// Sum of the absolute differences; smaller is nearer.
    pub manhattan: Vec<f32>,
    /// Square root of the sum of the squared differences; smaller is nearer.
    pub euclidean: Vec<f32>,
}

impl PairSimilarities {
    /// Of the rows of `first (n, dim)` and `second (n, dim)`, row-major.
    pub fn new(model: ModelSimilarity, dim: usize, first: &[f32], second: &[f32]) -> Self {
        assert_eq!(first.len(), second.len(), "pairs");
        let of_pairs = |similarity: fn(&[f32], &[f32]) -> f32| {
            first.chunks_exact(dim).zip(second.chunks_exact(dim)).map(|(a, b)| similarity(a, b)).collect()
        };
        PairSimilarities {
            model: of_pairs(match model {
                ModelSimilarity::Cosine => cosine,
                ModelSimilarity::Dot => dot,
            }),
            cosine: of_pairs(cosine_by_distance),
            dot: of_pairs(dot),
            manhattan: of_pairs(manhattan),
            euclidean: of_pairs(euclidean),
        }
    }
}

/// Least norm that a vector is divided by, which is PyTorch's.
const LEAST_NORM: f32 = 1e-12;

/// Norm below which scikit-learn takes a vector for zeros and leaves it as it is.
const ZERO_NORM: f32 = 10.0 * f32::EPSILON;

/// Dot product of the normalized vectors, as PyTorch normalizes.
fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let [a, b] = [a, b].map(|x| scaled(x, norm(x).max(LEAST_NORM)));
    dot(&a, &b)
}

/// The same from the distance of the normalized vectors, as scikit-learn has it.
fn cosine_by_distance(a: &[f32], b: &[f32]) -> f32 {
    let [a, b] = [a, b].map(|x| match norm(x) {
        zero if zero < ZERO_NORM => x.to_vec(),
        norm => scaled(x, norm),
    });
    let difference = difference(&a, &b);
    1.0 - 0.5 * dot(&difference, &difference)
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>() as f32
}

fn manhattan(a: &[f32], b: &[f32]) -> f32 {
    difference(a, b).iter().map(|&x| f64::from(x.abs())).sum::<f64>() as f32
}

fn euclidean(a: &[f32], b: &[f32]) -> f32 {
    norm(&difference(a, b))
}

fn norm(x: &[f32]) -> f32 {
    dot(x, x).sqrt()
}

fn difference(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

fn scaled(x: &[f32], norm: f32) -> Vec<f32> {
    x.iter().map(|x| x / norm).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (3, 4) with (4, 3), itself, its opposite and zeros: cosines of 24/25, 1, -1 and what zeros have.
    #[test]
    fn hand_computed() {
        let first = [3.0, 4.0, 3.0, 4.0, 3.0, 4.0, 3.0, 4.0];
        let second = [4.0, 3.0, 3.0, 4.0, -3.0, -4.0, 0.0, 0.0];
        let close = |got: &[f32], expected: [f32; 4]| {
            for (got, expected) in got.iter().zip(expected) {
                assert!((got - expected).abs() < 1e-6, "{got} is not {expected}");
            }
        };
        let by_cosine = PairSimilarities::new(ModelSimilarity::Cosine, 2, &first, &second);
        close(&by_cosine.model, [0.96, 1.0, -1.0, 0.0]);
        // Half of the squared distance between a unit vector and zeros is 1/2.
        close(&by_cosine.cosine, [0.96, 1.0, -1.0, 0.5]);
        assert_eq!(by_cosine.dot, [24.0, 25.0, -25.0, 0.0]);
        assert_eq!(by_cosine.manhattan, [2.0, 0.0, 14.0, 7.0]);
        close(&by_cosine.euclidean, [2.0f32.sqrt(), 0.0, 10.0, 5.0]);
        let by_dot = PairSimilarities::new(ModelSimilarity::Dot, 2, &first, &second);
        assert_eq!(by_dot.model, by_dot.dot);
        assert_eq!(by_dot.cosine, by_cosine.cosine);
    }

    #[test]
    fn what_is_nearly_nothing_is_not_divided_by_nothing() {
        let tiny = [1e-20, 0.0];
        // 1e-20 over 1e-12, squared.
        assert!((cosine(&tiny, &tiny) - 1e-16).abs() < 1e-20);
        assert_eq!(cosine(&[1e-7, 0.0], &[1.0, 0.0]), 1.0);
        // Below scikit-learn's bound, and above.
        assert!((cosine_by_distance(&[1e-7, 0.0], &[1.0, 0.0]) - 0.5).abs() < 1e-6);
        assert_eq!(cosine_by_distance(&[2e-6, 0.0], &[1.0, 0.0]), 1.0);
    }
}
