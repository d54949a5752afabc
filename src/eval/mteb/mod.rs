//! mteb's benchmarks: its tasks ([`table`]), the files that it loads ([`files`], [`folder`], [`rankings`]), and the numbers
//! that it writes, from ranks, scores and embeddings, so that they agree with its own to the digit.
//!
//! Each of the numbers' functions returns the numbers of one subset by the names they have in mteb's result files, in the order
//! in which mteb writes them and rounded as they are there; where mteb has NaN, so have they. `main_score` is the caller's to
//! add: the task says which of them it is. The definitions are those of mteb 2.26.

pub mod bitext;
pub mod compare;
pub mod entries;
pub mod files;
pub mod folder;
pub mod languages;
pub mod nauc;
pub mod numbers;
pub mod pairs;
pub mod prompts;
pub mod rankings;
pub mod reranking;
mod runs;
pub mod scores;
pub mod similarity;
pub mod sts;
pub mod table;

/// Numbers of one subset by name, in the order of mteb's files.
pub type Numbers = Vec<(String, f64)>;

/// Decimals of all numbers in mteb's files.
const DECIMALS: usize = 6;

/// As Python's `round`: the decimal number of so many digits that is nearest to the value the binary number has, the even one of
/// two. Multiplying, rounding and dividing would round a product, which has been rounded once before.
fn rounded(x: f64, decimals: usize) -> f64 {
    format!("{x:.decimals$}").parse().expect("a number that was just written")
}

#[cfg(test)]
mod tests {
    use super::rounded;

    /// What Python 3.11 says: the first four lie between two decimals exactly, the fifth is less than it seems.
    #[test]
    fn rounds_as_python_does() {
        let by_python = [
            (0.015625, 5, 0.01562),
            (0.046875, 5, 0.04688),
            (0.5, 0, 0.0),
            (2.5, 0, 2.0),
            (2.675, 2, 2.67),
            (0.123456789, 5, 0.12346),
            (-0.0000004, 6, -0.0),
            (0.99999999, 6, 1.0),
        ];
        for (x, decimals, expected) in by_python {
            assert_eq!(rounded(x, decimals).to_bits(), f64::to_bits(expected), "{x} to {decimals}");
        }
        assert!(rounded(f64::NAN, 5).is_nan());
    }
}
