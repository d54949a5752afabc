//! Passes over the data, purity, and the cost of a batch.

use super::*;
use std::ops::Range;
use std::time::{Duration, Instant};

/// Every group of `expected` once in every stretch of `expected.len()` groups.
pub fn check_passes(sequence: &[u64], expected: Range<u64>, what: &str) {
    let n = (expected.end - expected.start) as usize;
    assert!(sequence.len() >= 2 * n, "{what}: the test must see two passes");
    for (p, pass) in sequence.chunks_exact(n).enumerate() {
        let mut sorted = pass.to_vec();
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(expected.clone()), "{what}: pass {p} is not every group once");
    }
}

#[test]
fn parallel_data_has_one_pass_over_all_kinds_of_batches() {
    for (n, batch_size) in [(96, 16), (100, 16), (33, 16), (32, 16), (257, 32), (31, 16), (16, 16)] {
        let catalog = parallel(n, 3);
        let sampler = sampler(&catalog, &config(BatchMode::Hybrid, batch_size));
        let mut kinds = HashSet::new();
        let mut sequence = Vec::new();
        for step in 0..6 * n / batch_size as u64 + 1 {
            let batch = sampler.batch(step);
            check_batch(&catalog, &batch, batch_size);
            kinds.insert(batch.kind.mode());
            sequence.extend(groups(&batch));
        }
        check_passes(&sequence, 0..n, &format!("n = {n}, batch_size = {batch_size}"));
        assert_eq!(kinds.len(), 2, "both kinds of batches within six passes");
    }
}

#[test]
fn order_changes_from_pass_to_pass() {
    let catalog = parallel(240, 2);
    let sampler = sampler(&catalog, &config(BatchMode::Hybrid, 24));
    let pass = |p: u64| -> Vec<u64> { (10 * p..10 * (p + 1)).flat_map(|step| groups(&sampler.batch(step))).collect() };
    let mates = |p: u64| -> HashSet<(u64, u64)> {
        let batches = (10 * p..10 * (p + 1)).map(|step| groups(&sampler.batch(step)));
        batches.flat_map(|b| b.iter().flat_map(|&x| b.iter().map(move |&y| (x, y))).collect::<Vec<_>>()).collect()
    };
    let passes: Vec<_> = (0..8).map(|p| (pass(p), mates(p))).collect();
    assert!(passes[0].0.windows(2).filter(|w| w[1] == w[0] + 1).count() < 8, "the first pass is shuffled as well");
    for (p, (order, pairs)) in passes.iter().enumerate() {
        for (q, (earlier_order, earlier_pairs)) in passes[..p].iter().enumerate() {
            let kept = order.iter().zip(earlier_order).filter(|(a, b)| a == b).count();
            assert!(kept < 8, "pass {p} keeps {kept} of the 240 places of pass {q} (1 expected)");
            // Of the 240 * 23 ordered pairs that shared a batch, 23 / 239 do so again: 531 in expectation.
            let again = pairs.intersection(earlier_pairs).filter(|(x, y)| x != y).count();
            assert!((350..750).contains(&again), "{again} pairs of pass {q} share a batch in pass {p} (531 expected)");
        }
    }
}

#[test]
fn no_duplicates_for_many_sizes() {
    let mut state = 1u64;
    let mut random = |n: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 16) % n
    };
    for _ in 0..300 {
        let batch_size = 2 + random(40) as usize;
        let spare = if random(2) == 0 { 2 * batch_size as u64 } else { 5000 };
        let n = batch_size as u64 + random(spare);
        let catalog = parallel(n, 2);
        let sampler = sampler(&catalog, &SamplerConfig { seed: n, ..config(BatchMode::Hybrid, batch_size) });
        for _ in 0..5 {
            // Right at the ends of passes, near and far.
            let magnitude = random(30);
            let pass = 1 + random(1 << magnitude);
            check_batch(&catalog, &sampler.batch(pass * n / batch_size as u64), batch_size);
            check_batch(&catalog, &sampler.batch(random(1 << 40)), batch_size);
        }
    }
}

#[test]
fn streams_with_different_groups_have_passes_of_their_own() {
    // Groups 0..60 in both languages, 60..150 in l00 only: two sets (l00: all; l01 and crossing: the first 60).
    let catalog = catalog(vec![class(60, &[0, 1], &[0, 1]), class(90, &[0], &[0])]);
    let sampler = sampler(&catalog, &config(BatchMode::Hybrid, 8));
    let (mut all, mut shared) = (Vec::new(), Vec::new());
    for step in 0..200 {
        let batch = sampler.batch(step);
        check_batch(&catalog, &batch, 8);
        if batch.kind == BatchKind::Monolingual(0) { &mut all } else { &mut shared }.extend(groups(&batch));
    }
    check_passes(&all, 0..150, "monolingual in l00");
    check_passes(&shared, 0..60, "monolingual in l01 and cross-lingual");
    assert_eq!(sampler.n_groups(), 150);
    assert_eq!(sampler.steps_per_pass(), 150.0 / 8.0);
}

#[test]
fn data_that_is_not_parallel_is_gone_through_language_by_language() {
    let sizes = [40, 25, 100];
    let catalog = separate(&sizes);
    let sampler = sampler(&catalog, &config(BatchMode::Monolingual, 10));
    let mut sequences = vec![Vec::new(); 3];
    for step in 0..120 {
        let batch = sampler.batch(step);
        check_batch(&catalog, &batch, 10);
        let BatchKind::Monolingual(lang) = batch.kind else { panic!("{:?}", batch.kind) };
        sequences[lang as usize].extend(groups(&batch));
    }
    let starts = [0, 40, 65];
    for lang in 0..3 {
        check_passes(&sequences[lang], starts[lang]..starts[lang] + sizes[lang], &format!("language {lang}"));
    }
}

#[test]
fn groups_that_cannot_serve_the_mode_are_never_drawn() {
    let catalog =
        catalog(vec![class(30, &[0], &[0]), class(30, &[0], &[1]), class(30, &[1], &[1]), class(30, &[1], &[0, 1])]);
    let sampler = sampler(&catalog, &config(BatchMode::CrossLingual, 4));
    assert_eq!(sampler.n_groups(), 60);
    let drawn: HashSet<u64> = (0..15).flat_map(|step| groups(&sampler.batch(step))).collect();
    assert_eq!(drawn, (30..60).chain(90..120).collect());
}

#[test]
fn a_batch_depends_on_configuration_and_step_alone() {
    let catalogs = [parallel(1000, 5), catalog(vec![class(300, &[0, 1, 2], &[0, 1, 2]), class(90, &[1], &[1])])];
    for catalog in &catalogs {
        let config = config(BatchMode::Hybrid, 32);
        let one = sampler(catalog, &config);
        let forward: Vec<SampledBatch> = (0..60).map(|step| one.batch(step)).collect();
        for step in (0..60).rev().step_by(7) {
            assert_eq!(one.batch(step), forward[step as usize]);
            assert_eq!(sampler(catalog, &config).batch(step), forward[step as usize]);
        }
    }
}

#[test]
fn seeds_draw_unrelated_runs() {
    let catalog = parallel(10_000, 4);
    let run = |seed| {
        let sampler = sampler(&catalog, &SamplerConfig { seed, ..config(BatchMode::Hybrid, 50) });
        (0..40).map(|step| sampler.batch(step)).collect::<Vec<_>>()
    };
    let (a, b) = (run(1), run(2));
    let same_kind = a.iter().zip(&b).filter(|(x, y)| x.kind.mode() == y.kind.mode()).count();
    assert!((6..35).contains(&same_kind), "{same_kind} of 40 batches of one kind, 20 expected");
    let same_groups = a.iter().zip(&b).map(|(x, y)| {
        let x: HashSet<u64> = groups(x).into_iter().collect();
        groups(y).iter().filter(|group| x.contains(group)).count()
    });
    // 50 * 50 / 10,000 a batch: 10 in expectation.
    assert!(same_groups.sum::<usize>() < 35);
}

#[test]
fn a_hundred_million_groups_cost_no_more_than_a_batch() {
    let langs: Vec<LangId> = (0..11).collect();
    let catalog = catalog(vec![
        class(40_000_000, &langs, &langs),
        class(35_000_000, &[2], &[2]),
        class(24_999_999, &[0, 2, 5], &[2, 5]),
        class(1, &[7], &[7, 8]),
    ]);
    let sampler = sampler(&catalog, &config(BatchMode::Hybrid, 64));
    assert_eq!(sampler.n_groups(), 100_000_000);
    let start = Instant::now();
    let mut drawn = HashSet::new();
    for step in [0, 1_000_000, 1_000_000_000_000, u64::MAX - 20].iter().flat_map(|s| *s..*s + 20) {
        let batch = sampler.batch(step);
        check_batch(&catalog, &batch, 64);
        drawn.extend(groups(&batch));
    }
    // 5,120 draws from 40 million or more: hardly any group twice, and they come from everywhere.
    assert!(drawn.len() > 5100, "{} of 5120 are different", drawn.len());
    assert!(drawn.iter().any(|&group| group < 4_000_000) && drawn.iter().any(|&group| group > 96_000_000));
    // Writing out one order of this size takes longer than this, 80 batches take milliseconds.
    assert!(start.elapsed() < Duration::from_secs(3), "80 batches took {:?}", start.elapsed());
}
