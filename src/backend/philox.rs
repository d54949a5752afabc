//! Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
//!
//! A mask bit is a pure function of (seed, step, site, row, column): nothing is stored, and forward, backward, both
//! GradCache passes and every device see the same mask.

use super::Dropout;

const MULTIPLIER: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Ten rounds of Philox4x32.
///
/// Words are the low halves of 64-bit values, and what is in the high halves does not matter: a product is then a word
/// as it is, and a processor's vectors multiply such values in one instruction.
#[inline(always)]
pub fn philox4x32(counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    const LOW: u64 = 0xFFFF_FFFF;
    let mut c = counter.map(u64::from);
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        }
        let p0 = u64::from(MULTIPLIER[0]) * (c[0] & LOW);
        let p1 = u64::from(MULTIPLIER[1]) * (c[2] & LOW);
        c = [(p1 >> 32) ^ c[1] ^ u64::from(key[0]), p1, (p0 >> 32) ^ c[3] ^ u64::from(key[1]), p0];
    }
    c.map(|word| word as u32)
}

/// Columns that one Philox call decides: four words of two 16-bit values each.
const COLUMNS_PER_CALL: usize = 8;
/// Philox calls done side by side, so that the compiler can use vector registers.
const LANES: usize = 16;

impl Dropout {
    /// An element is dropped when its 16-bit value is below this: `p` to the nearest 1/65536.
    pub fn threshold(&self) -> u32 {
        (self.p * 65536.0).round() as u32
    }

    /// What kept elements are multiplied by: `1 / (1 - p)` for the `p` that the threshold stands for.
    pub fn scale(&self) -> f32 {
        65536.0 / (65536 - self.threshold()) as f32
    }

    /// Columns that [`Dropout::block_factors`] decides.
    pub const BLOCK: usize = LANES * COLUMNS_PER_CALL;

    /// Writes 0 or [`Dropout::scale`] for the columns `0..factors.len()` of one row.
    ///
    /// `row` is the token's row in the whole batch; `head` is 0 except in attention, where columns are key positions.
    #[inline(always)]
    pub fn factors(&self, row: i32, head: u32, factors: &mut [f32]) {
        let (blocks, rest) = factors.as_chunks_mut::<{ Self::BLOCK }>();
        let n = blocks.len();
        for (block, out) in blocks.iter_mut().enumerate() {
            self.block_factors(row, head, block, out);
        }
        if !rest.is_empty() {
            let mut last = [0.0; Self::BLOCK];
            self.block_factors(row, head, n, &mut last);
            rest.copy_from_slice(&last[..rest.len()]);
        }
    }

    /// As [`Dropout::factors`], for the columns from `block * BLOCK` on.
    #[inline(always)]
    pub fn block_factors(&self, row: i32, head: u32, block: usize, factors: &mut [f32; Self::BLOCK]) {
        let (threshold, scale) = (self.threshold(), self.scale());
        let key = [self.seed as u32, (self.seed >> 32) as u32];
        let site = self.site ^ (head << 16);
        let mut words = [[0u32; LANES]; 4];
        let [w0, w1, w2, w3] = &mut words;
        for (lane, (((a, b), c), d)) in w0.iter_mut().zip(w1).zip(w2).zip(w3).enumerate() {
            let random = philox4x32([(block * LANES + lane) as u32, row as u32, site, self.step], key);
            // Little-endian, so that the low half of a word is the first of its two columns.
            [*a, *b, *c, *d] = random.map(u32::to_le);
        }
        let values: [u16; Self::BLOCK] = bytemuck::cast(words);
        for (f, value) in factors.iter_mut().zip(values) {
            *f = if u32::from(u16::from_le(value)) < threshold { 0.0 } else { scale };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The known-answer vectors that Random123 publishes for philox4x32-10.
    #[test]
    fn known_answers() {
        assert_eq!(philox4x32([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox4x32([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox4x32([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn factors_drop_the_configured_share_and_keep_the_mean() {
        let dropout = Dropout { p: 0.1, seed: 7, step: 3, site: 5 };
        let (rows, columns) = (500, 384);
        let mut factors = vec![0.0; columns];
        let (mut dropped, mut total) = (0usize, 0.0f64);
        for row in 0..rows {
            dropout.factors(row, 0, &mut factors);
            dropped += factors.iter().filter(|&&f| f == 0.0).count();
            total += factors.iter().map(|&f| f64::from(f)).sum::<f64>();
        }
        let n = (rows as usize * columns) as f64;
        // Five standard deviations of a binomial.
        let five_sigma = 5.0 * (0.1 * 0.9 / n).sqrt();
        assert!((dropped as f64 / n - 0.1).abs() < five_sigma, "{dropped} of {n}");
        assert!((total / n - 1.0).abs() < five_sigma / 0.9);
    }

    /// The layout, which every device has to share: 128 columns are 16 calls; the first word of each decides the first 32
    /// columns, two neighbours a call, its low half the first of them.
    #[test]
    fn columns_take_their_bits_in_a_fixed_order() {
        let dropout = Dropout { p: 0.4, seed: 0xFEDC_BA98_7654_3210, step: 11, site: 6 };
        let mut factors = vec![0.0; 300];
        dropout.factors(21, 3, &mut factors);
        for (column, &factor) in factors.iter().enumerate() {
            let (block, within) = (column / 128, column % 128);
            let call = block * 16 + within % 32 / 2;
            let words = philox4x32([call as u32, 21, 6 ^ 3 << 16, 11], [0x7654_3210, 0xFEDC_BA98]);
            let value = words[within / 32] >> (16 * (column % 2)) & 0xFFFF;
            assert_eq!(factor == 0.0, value < dropout.threshold(), "column {column}");
        }
    }

    #[test]
    fn a_prefix_of_a_row_has_the_same_mask() {
        let dropout = Dropout { p: 0.5, seed: 1, step: 1, site: 1 };
        let (mut long, mut short) = (vec![0.0; 300], vec![0.0; 131]);
        dropout.factors(9, 2, &mut long);
        dropout.factors(9, 2, &mut short);
        assert_eq!(long[..131], short[..]);
        dropout.factors(9, 3, &mut short);
        assert_ne!(long[..131], short[..], "heads must differ");
    }
}
