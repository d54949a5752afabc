//! NumPy's generator of random numbers, as far as it takes to draw the samples of the library `datasets`.
//!
//! Numbers are those of `numpy.random.default_rng(42)` in NumPy 2.4: PCG64 with 128 bits of state and the output function XSL-RR
//! (O'Neill, "PCG: A Family of Simple Fast Space-Efficient Statistically Good Algorithms for Random Number Generation", 2014).

/// The state of `default_rng(42).bit_generator`, and what is added to it at each step.
const STATE: u128 = 274_674_114_334_540_486_603_088_602_300_644_985_544;
const INCREMENT: u128 = 332_724_090_758_049_132_448_979_897_138_935_081_983;
const MULTIPLIER: u128 = 0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645;

/// The generator of seed 42, mteb's.
pub(super) struct Generator {
    state: u128,
    /// The upper half of the last 64 bits, of which only the lower has been used.
    kept: Option<u32>,
}

impl Generator {
    pub(super) fn of_seed_42() -> Generator {
        Generator { state: STATE, kept: None }
    }

    fn next_64(&mut self) -> u64 {
        self.state = self.state.wrapping_mul(MULTIPLIER).wrapping_add(INCREMENT);
        let (high, low) = ((self.state >> 64) as u64, self.state as u64);
        (high ^ low).rotate_right((self.state >> 122) as u32)
    }

    fn next_32(&mut self) -> u32 {
        self.kept.take().unwrap_or_else(|| {
            let both = self.next_64();
            self.kept = Some((both >> 32) as u32);
            both as u32
        })
    }

    /// A number from 0 to `most`, both included (Lemire, "Fast Random Integer Generation in an Interval", 2019):
    /// `random_bounded_uint64`. Takes no bits for 0 alone.
    fn up_to(&mut self, most: u32) -> usize {
        let Some(n) = most.checked_add(1) else { return self.next_32() as usize };
        if n == 1 {
            return 0;
        }
        let unfair = n.wrapping_neg() % n;
        loop {
            let product = u64::from(self.next_32()) * u64::from(n);
            if product as u32 >= unfair {
                return (product >> 32) as usize;
            }
        }
    }

    /// A number from 0 to `most`, both included, in as many bits as `most` has: `random_interval`. `most` is above 0.
    fn in_interval(&mut self, most: u32) -> usize {
        let mask = u32::MAX >> most.leading_zeros();
        loop {
            let number = self.next_32() & mask;
            if number <= most {
                return number as usize;
            }
        }
    }

    /// `Generator.shuffle`. `items` has fewer than 2^32 items.
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.in_interval(last as u32));
        }
    }

    /// `Generator.permutation(n)`.
    pub(super) fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut items: Vec<usize> = (0..n).collect();
        self.shuffle(&mut items);
        items
    }

    /// `Generator.choice(n, n_chosen, replace=False)` of at most 10,000, from which on NumPy goes another way (Floyd's
    /// algorithm: Bentley and Floyd, "A Sample of Brilliance", 1987).
    pub(super) fn choice(&mut self, n: usize, n_chosen: usize) -> Vec<usize> {
        let mut chosen = Vec::with_capacity(n_chosen);
        for last in n - n_chosen..n {
            let next = self.up_to(last as u32);
            chosen.push(if chosen.contains(&next) { last } else { next });
        }
        // Not as `shuffle` does it.
        for last in (1..n_chosen).rev() {
            chosen.swap(last, self.up_to(last as u32));
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All numbers are those of NumPy 2.4.6.
    #[test]
    fn numbers_are_those_of_numpy() {
        let mut bits = Generator::of_seed_42();
        let expected = [
            14_276_969_152_011_380_360,
            8_095_878_257_575_067_585,
            15_838_336_090_824_644_132,
            12_864_169_557_245_331_597,
        ];
        assert_eq!([(); 4].map(|()| bits.next_64()), expected);
        // One after the other, from one generator.
        let mut random = Generator::of_seed_42();
        assert_eq!(random.permutation(12), [0, 7, 6, 9, 11, 3, 5, 2, 4, 10, 1, 8]);
        assert_eq!(random.choice(5, 3), [4, 3, 2]);
        assert_eq!(random.choice(3, 1), [1]);
        assert_eq!(random.choice(4, 4), [0, 1, 2, 3]);
        assert_eq!(random.permutation(5), [1, 0, 4, 2, 3]);
        assert_eq!(random.permutation(300)[..6], [26, 241, 256, 75, 292, 97]);
        assert_eq!((random.permutation(0), random.permutation(1)), (vec![], vec![0]));
    }
}
