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

    /// Normalized area under the abstention curve of a metric, of which `values` has one for each query. At most 1, negative
    /// where the confidence misleads; NaN for a metric that is the same for all queries, as no order is any better there. (mteb
    /// divides two rounding errors then, and writes NaN or whatever comes out.)
    pub fn nauc(&self, values: &[f64]) -> f64 {
        let Some((first, others)) = values.split_first().filter(|(first, others)| others.iter().any(|x| x != *first))
        else {
            return f64::NAN;
        };
        let mean = (first + others.iter().sum::<f64>()) / values.len() as f64;
        let flat = mean * f64::from(N_RATES - 1);
        (self.area(values) - flat) / (Abstention::by(values).area(values) - flat)
    }

    /// Area under the curve by the trapezoid rule, with the distance of two rates for the unit.
    fn area(&self, values: &[f64]) -> f64 {
        let curve = self.curve(values);
        curve.windows(2).map(|ends| (ends[0] + ends[1]) / 2.0).sum()
    }

    /// Mean of the metric over those who are left at each rate. Queries of equal confidence count as their mean, so that it
    /// does not depend on their order which of them are refused.
    fn curve(&self, values: &[f64]) -> Vec<f64> {
        let n = values.len();
        let mut in_order = Vec::with_capacity(n);
        for run in self.0.iter() {
            let mean = run.iter().map(|&query| values[query]).sum::<f64>() / run.len() as f64;
            in_order.resize(in_order.len() + run.len(), mean);
        }
        let left = (0..N_RATES).map(|tenths| {
            // NumPy's rates, whose products with n Python rounds: 0.30000000000000004 * 15 is above 4.5.
            let n_refused = (f64::from(tenths) * 0.1 * n as f64).round_ties_even() as usize;
            &in_order[n_refused.min(n - 1)..]
        });
        left.map(|left| left.iter().sum::<f64>() / left.len() as f64).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: f64, expected: f64) {
        assert!((got - expected).abs() < 1e-12, "{got} is not {expected}");
    }

    fn nauc(confidences: &[f64], values: &[f64]) -> f64 {
        Abstention::by(confidences).nauc(values)
    }

    /// Two queries: rates up to 0.2 leave both, of 0.3 and more (0.6 is nearly 1) only the more confident one. So the oracle
    /// has three times 1/2 and seven times 1 on its curve.
    #[test]
    fn confidence_that_knows_all_or_the_opposite() {
        close(Abstention::by(&[0.0, 1.0]).area(&[0.0, 1.0]), 0.5 + 0.5 + 0.75 + 6.0);
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
