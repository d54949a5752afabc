//! How well a retriever's scores tell which of its rankings are good: abstention curves and the area under them
//! (arXiv 2402.12997), as mteb defines them from 2.26.12 on.
//!
//! Of queries in the order of some confidence, the least confident are refused, and a metric is averaged over the others. Over
//! the rates of refusal that is a curve, which rises if the confidence means something. Its area is set to 0 at that of a curve
//! which stays flat, and to 1 at that of the oracle, which orders queries by the metric itself.

use super::runs::Runs;

/// Rates of refusal: so many tenths of all queries, none first.
const N_RATES: u32 = 10;

/// Queries in the order of a confidence, least confident first.
pub struct Abstention(Runs);

impl Abstention {
    /// Orders queries by the confidence that each has.
    pub fn by(confidences: &[f64]) -> Self {
        Abstention(Runs::of(confidences))
    }

    /// Values of the queries in this order. Those of equal confidence have their mean, so that it does not depend on the order
    /// of the data which of them are refused.
    fn in_order(&self, values: &[f64]) -> Vec<f64> {
        let mut in_order = Vec::with_capacity(values.len());
        for run in self.0.iter() {
            let mean = run.iter().map(|&query| values[query]).sum::<f64>() / run.len() as f64;
            in_order.resize(in_order.len() + run.len(), mean);
        }
        in_order
    }
}

/// Normalized area under the abstention curve of a metric for each order, at most 1, and negative where a confidence misleads.
/// `values` has the metric of each query. NaN for a metric that is the same for all, as no order is any better there. (mteb
/// divides two rounding errors then, and writes NaN or whatever comes out.)
pub fn naucs<const N: usize>(orders: [&Abstention; N], values: &[f64]) -> [f64; N] {
    let mut oracle = values.to_vec();
    oracle.sort_unstable_by(f64::total_cmp);
    if oracle.first() == oracle.last() {
        return [f64::NAN; N];
    }
    let mean = oracle.iter().sum::<f64>() / oracle.len() as f64;
    let flat = mean * f64::from(N_RATES - 1);
    let best = area(&oracle) - flat;
    orders.map(|order| (area(&order.in_order(values)) - flat) / best)
}

/// Area by the trapezoid rule, with the distance of two rates for the unit, under the curve of those who are left at each rate:
/// the mean of their values, which are in the order of refusal.
fn area(in_order: &[f64]) -> f64 {
    let n = in_order.len();
    let mut curve = Vec::new();
    let (mut sum, mut end) = (0.0, n);
    for tenths in (0..N_RATES).rev() {
        // NumPy's rates, whose products with n Python rounds: 0.30000000000000004 * 15 is above 4.5.
        let n_refused = (f64::from(tenths) * 0.1 * n as f64).round_ties_even() as usize;
        let start = n_refused.min(n - 1);
        sum += in_order[start..end].iter().sum::<f64>();
        curve.push(sum / (n - start) as f64);
        end = start;
    }
    curve.windows(2).map(|ends| (ends[0] + ends[1]) / 2.0).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: f64, expected: f64) {
        assert!((got - expected).abs() < 1e-12, "{got} is not {expected}");
    }

    fn nauc(confidences: &[f64], values: &[f64]) -> f64 {
        let [nauc] = naucs([&Abstention::by(confidences)], values);
        nauc
    }

    /// Two queries: rates up to 0.2 leave both, of 0.3 and more (0.6 is nearly 1) only the more confident one. So the oracle
    /// has three times 1/2 and seven times 1 on its curve.
    #[test]
    fn confidence_that_knows_all_or_the_opposite() {
        close(area(&[0.0, 1.0]), 0.5 + 0.5 + 0.75 + 6.0);
        close(nauc(&[-3.0, 8.0], &[0.0, 1.0]), 1.0);
        close(nauc(&[8.0, -3.0], &[0.0, 1.0]), -1.0);
        close(nauc(&[2.0, 2.0], &[0.0, 1.0]), 0.0);
    }

    /// Ten queries: one more is refused at each rate. The metric is 1 for the fourth and the last in the order of confidence; the
    /// curves are how many of these are left, over how many queries are.
    #[test]
    fn hand_computed() {
        let confidences: Vec<f64> = (0..10).map(|i| f64::from(i) * 0.25).collect();
        let values = [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0];
        let area = |ones: [f64; 10]| {
            let curve: Vec<f64> = ones.iter().zip(1..).map(|(ones, i)| ones / f64::from(11 - i)).collect();
            curve.iter().sum::<f64>() - curve[0] / 2.0 - curve[9] / 2.0
        };
        let own = area([2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
        let oracle = area([2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0]);
        close(nauc(&confidences, &values), (own - 9.0 * 0.2) / (oracle - 9.0 * 0.2));
    }

    #[test]
    fn equal_confidences_count_as_their_mean_in_any_order() {
        let confidences = [1.0, 1.0, 1.0, 2.0, 0.0, 2.0];
        let reversed: Vec<f64> = confidences.iter().rev().copied().collect();
        let values = [0.9, 0.1, 0.2, 1.0, 0.3, 0.4];
        let values_reversed: Vec<f64> = values.iter().rev().copied().collect();
        let swapped = [0.1, 0.2, 0.9, 0.4, 0.3, 1.0];
        close(nauc(&confidences, &values), nauc(&confidences, &swapped));
        close(nauc(&confidences, &values), nauc(&reversed, &values_reversed));
    }

    #[test]
    fn what_is_the_same_for_all_has_none() {
        assert!(nauc(&[1.0, 2.0, 3.0], &[0.1, 0.1, 0.1]).is_nan());
        assert!(nauc(&[1.0], &[0.5]).is_nan());
        assert!(nauc(&[], &[]).is_nan());
    }
}
