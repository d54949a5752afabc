//! Drawn frequencies against the configured ones.

use super::*;
use std::collections::HashMap;

/// The length of a block of turns: drawn shares are exact over it. Part of what the sampler promises.
const BLOCK: u64 = 4096;

#[test]
fn alpha_is_the_share_of_monolingual_batches() {
    let catalog = parallel(100, 5);
    for alpha in [0.1, 0.25, 0.5, 0.9] {
        let sampler = sampler(&catalog, &SamplerConfig { alpha, ..config(BatchMode::Hybrid, 2) });
        let kinds: Vec<bool> =
            (0..BLOCK).map(|step| sampler.batch(step).kind.mode() == BatchMode::Monolingual).collect();
        let monolingual = kinds.iter().filter(|&&m| m).count() as f64;
        assert!((monolingual - alpha * BLOCK as f64).abs() <= 0.5, "alpha {alpha}: {monolingual} of {BLOCK}");
        // Neighbouring steps differ in kind as often as independent ones: not alternating, not in clumps.
        let changes = kinds.windows(2).filter(|w| w[0] != w[1]).count() as f64;
        let p = 2.0 * alpha * (1.0 - alpha);
        let sd = (BLOCK as f64 * p * (1.0 - p)).sqrt();
        assert!((changes - BLOCK as f64 * p).abs() < 5.0 * sd, "alpha {alpha}: {changes} changes");
    }
}

#[test]
fn alpha_of_one_or_zero_is_the_pure_mode() {
    let catalog = parallel(100, 5);
    for (alpha, mode) in [(1.0, BatchMode::Monolingual), (0.0, BatchMode::CrossLingual)] {
        let hybrid = sampler(&catalog, &SamplerConfig { alpha, ..config(BatchMode::Hybrid, 10) });
        let pure = sampler(&catalog, &config(mode, 10));
        assert!((0..50).all(|step| hybrid.batch(step) == pure.batch(step)));
    }
    // Nor do they ask for data that they have no use for.
    let one_lang = parallel(100, 1);
    sampler(&one_lang, &SamplerConfig { alpha: 1.0, ..config(BatchMode::Hybrid, 10) });
}

/// Expected shares of four languages with 100, 200, 400 and 1600 groups.
fn shares(lang_sampling: LangSampling) -> [f64; 4] {
    match lang_sampling {
        LangSampling::Uniform => [0.25; 4],
        LangSampling::Proportional => [1.0, 2.0, 4.0, 16.0].map(|n| n / 23.0),
        // T = 2: square roots.
        LangSampling::Temperature => [10.0, 200f64.sqrt(), 20.0, 40.0].map(|n| n / (70.0 + 200f64.sqrt())),
    }
}

const ALL_LANG_SAMPLINGS: [LangSampling; 3] =
    [LangSampling::Uniform, LangSampling::Proportional, LangSampling::Temperature];

#[test]
fn monolingual_batches_share_the_steps_as_configured() {
    let catalog = separate(&[100, 200, 400, 1600]);
    for lang_sampling in ALL_LANG_SAMPLINGS {
        let config = SamplerConfig { lang_sampling, lang_temperature: 2.0, ..config(BatchMode::Monolingual, 2) };
        let sampler = sampler(&catalog, &config);
        let mut counts = [0f64; 4];
        for step in 3 * BLOCK..4 * BLOCK {
            let BatchKind::Monolingual(lang) = sampler.batch(step).kind else { panic!("another kind") };
            counts[lang as usize] += 1.0;
        }
        for (lang, share) in shares(lang_sampling).into_iter().enumerate() {
            let expected = share * BLOCK as f64;
            assert!((counts[lang] - expected).abs() < 1.0, "{lang_sampling}: {} for {expected:.1}", counts[lang]);
        }
    }
}

#[test]
fn hybrid_shares_the_monolingual_steps_as_configured() {
    // Nested languages: l00 has 100 groups, l01 200, l02 400, l03 1600.
    let classes = vec![
        class(100, &[0, 1, 2, 3], &[0, 1, 2, 3]),
        class(100, &[1, 2, 3], &[1, 2, 3]),
        class(200, &[2, 3], &[2, 3]),
        class(1200, &[3], &[3]),
    ];
    let catalog = catalog(classes);
    for lang_sampling in ALL_LANG_SAMPLINGS {
        let config =
            SamplerConfig { lang_sampling, lang_temperature: 2.0, alpha: 0.25, ..config(BatchMode::Hybrid, 2) };
        let sampler = sampler(&catalog, &config);
        let mut counts = [0f64; 5];
        for step in 0..BLOCK {
            match sampler.batch(step).kind {
                BatchKind::Monolingual(lang) => counts[lang as usize] += 1.0,
                _ => counts[4] += 1.0,
            }
        }
        assert_eq!(counts[4], 0.75 * BLOCK as f64);
        // A quarter of a block of language turns: like drawing without replacement, so binomial bounds are wide.
        let expected = shares(lang_sampling).map(|share| share * 0.25 * BLOCK as f64);
        check_chi_square(&counts[..4], &expected, &lang_sampling.to_string());
    }
}

#[test]
fn mixed_rows_draw_their_language_among_those_of_the_group() {
    // All languages in every group, l00 and l01 also elsewhere: weights 1600, 800, 400, 400.
    let catalog =
        catalog(vec![class(400, &[0, 1, 2, 3], &[0, 1, 2, 3]), class(400, &[0, 1], &[0, 1]), class(800, &[0], &[0])]);
    let weights = |lang_sampling| match lang_sampling {
        LangSampling::Uniform => [1.0; 4],
        LangSampling::Proportional => [4.0, 2.0, 1.0, 1.0],
        LangSampling::Temperature => [2.0, 2f64.sqrt(), 1.0, 1.0],
    };
    for lang_sampling in ALL_LANG_SAMPLINGS {
        let config = SamplerConfig { lang_sampling, lang_temperature: 2.0, ..config(BatchMode::MixedMonolingual, 40) };
        let sampler = sampler(&catalog, &config);
        let mut counts = [0f64; 4];
        let mut langs_in_batch = 0;
        for step in 0..400 {
            let batch = sampler.batch(step);
            check_batch(&catalog, &batch, 40);
            langs_in_batch += batch.rows.iter().map(|row| row.query_lang).collect::<HashSet<_>>().len();
            for row in batch.rows.iter().filter(|row| row.group < 400) {
                counts[row.query_lang as usize] += 1.0;
            }
        }
        assert!(langs_in_batch > 3 * 400, "languages are mixed within batches");
        let (total, weights) = (counts.iter().sum::<f64>(), weights(lang_sampling));
        let expected = weights.map(|w| w / weights.iter().sum::<f64>() * total);
        check_chi_square(&counts, &expected, &lang_sampling.to_string());
    }
}

#[test]
fn cross_lingual_rows_are_uniform_over_110_directions() {
    let catalog = parallel(2000, 11);
    for mode in [BatchMode::CrossLingual, BatchMode::Hybrid] {
        let sampler = sampler(&catalog, &config(mode, 100));
        let mut counts: HashMap<(LangId, LangId), f64> = HashMap::new();
        let batches = (0..).map(|step| sampler.batch(step)).filter(|batch| batch.kind == BatchKind::CrossLingual);
        for batch in batches.take(330) {
            check_batch(&catalog, &batch, 100);
            for row in &batch.rows {
                *counts.entry((row.query_lang, row.passage_lang)).or_default() += 1.0;
            }
        }
        assert_eq!(counts.len(), 110);
        // 300 in expectation, standard deviation 17.2.
        assert!(counts.values().all(|count| (300.0 - count).abs() < 4.5 * 17.2), "{counts:?}");
        check_chi_square(&counts.into_values().collect::<Vec<_>>(), &[300.0; 110], "directions");
    }
}
