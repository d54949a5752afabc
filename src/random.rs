//! Random bits as a function of their purpose: no generator, no state.

/// 2^64 divided by the golden ratio: the step between SplitMix64's states; keeps small fields away from the fixed
/// point of [`mix`] at 0.
pub const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// A bijection of 64-bit words in which every input bit moves every output bit with probability near 1/2:
/// the finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
#[inline]
pub fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// 64 random bits for a list of fields, in their order.
#[inline]
pub fn hash(fields: &[u64]) -> u64 {
    fields.iter().fold(GOLDEN, |state, &field| mix(state ^ mix(field.wrapping_add(GOLDEN))))
}

/// A whole number in `0..n` from random bits; uniform up to n / 2^64.
#[inline]
pub fn below(bits: u64, n: u64) -> u64 {
    ((u128::from(bits) * u128::from(n)) >> 64) as u64
}

/// A number in `[0, 1)` from random bits, a multiple of 2^-53.
#[inline]
pub fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mix_is_splitmix64() {
        // The first outputs of SplitMix64 from seed 1234567, as published with its reference implementation.
        let expected = [6457827717110365317, 3203168211198807973, 9817491932198370423u64];
        for (i, expected) in (1..).zip(expected) {
            assert_eq!(mix(GOLDEN.wrapping_mul(i).wrapping_add(1234567)), expected);
        }
    }

    #[test]
    fn order_and_number_of_fields_matter() {
        let all = [hash(&[1, 2]), hash(&[2, 1]), hash(&[1]), hash(&[1, 2, 0]), hash(&[0, 1, 2]), hash(&[])];
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a != b));
        }
    }

    #[test]
    fn ranges_end_where_they_should() {
        assert_eq!(below(0, 10), 0);
        assert_eq!(below(u64::MAX, 10), 9);
        assert_eq!(below(u64::MAX / 2 + 1, 10), 5);
        assert_eq!(unit(0), 0.0);
        assert_eq!(unit(u64::MAX), 1.0 - f64::EPSILON / 2.0);
    }
}
