//! Languages with fewer groups than a batch has rows.

use super::*;
use hbt::data::sampler::{DatasetBatches, DatasetSampling, Mixture, MixtureConfig, WeightedDataset};

const BLOCK: u64 = 4096;

/// The languages of a batch's rows, each with how often it is there.
fn langs(batch: &SampledBatch, n_langs: usize) -> Vec<u64> {
    let mut counts = vec![0; n_langs];
    for row in &batch.rows {
        assert_eq!(row.query_lang, row.passage_lang);
        counts[usize::from(row.query_lang)] += 1;
    }
    counts
}

#[test]
fn small_languages_have_their_turns_and_are_filled_up() {
    // One group, a few, nearly enough, enough, and many.
    let sizes = [1, 5, 15, 16, 200];
    let catalog = separate(&sizes);
    let config = SamplerConfig { lang_sampling: LangSampling::Uniform, ..config(BatchMode::Monolingual, 16) };
    let sampler = sampler(&catalog, &config);
    let (mut rows, mut own, mut drawn) = (vec![0; 5], vec![0; 5], HashSet::new());
    for step in 0..BLOCK {
        let batch = sampler.batch(step);
        check_batch(&catalog, &batch, 16);
        let here = langs(&batch, 5);
        match batch.kind {
            BatchKind::Monolingual(lang) => own[usize::from(lang)] += 1,
            // The small language whose turn it is gives all it has. The others have no more groups than that either, so
            // it is the one that is in its batches for certain.
            kind => {
                assert_eq!(kind, BatchKind::MixedMonolingual);
                let whole: Vec<usize> = (0..3).filter(|&lang| here[lang] == sizes[lang]).collect();
                assert!(!whole.is_empty(), "{here:?}");
                assert_eq!(here[3..], [0, 0], "other small languages are enough to fill up");
            }
        }
        rows.iter_mut().zip(here).for_each(|(sum, n)| *sum += n);
        drawn.extend(groups(&batch));
    }
    assert_eq!(drawn.len() as u64, sampler.n_groups());
    // A fifth of the batches each, and so of the rows; three fifths of all rows are those of the small ones.
    assert!(own[3..].iter().all(|&n| (n as f64 - BLOCK as f64 / 5.0).abs() < 1.0) && own[..3] == [0; 3], "{own:?}");
    let of_small: u64 = rows[..3].iter().sum();
    assert!((of_small as f64 / (16 * BLOCK) as f64 - 0.6).abs() < 1e-3, "{rows:?}");
    // The one group is in its own fifth of the batches at least.
    assert!(rows[0] >= BLOCK / 5 - 1);
    assert_eq!(
        sampler.notes(),
        [
            "3 languages with fewer groups than the 16 rows of a batch (l00, l01, l02): their monolingual batches are filled up \
          with rows in other languages (exclude_languages leaves languages out)"
        ]
    );
}

/// As many groups in each of many small languages: every language has the share of rows that its weight gives it.
#[test]
fn rows_are_shared_as_configured_among_languages_of_a_size() {
    let mut sizes = vec![12; 20];
    sizes.push(2000);
    let catalog = separate(&sizes);
    for (lang_sampling, of_large) in
        [(LangSampling::Uniform, 1.0 / 21.0), (LangSampling::Proportional, 2000.0 / 2240.0)]
    {
        let config = SamplerConfig { lang_sampling, ..config(BatchMode::Monolingual, 16) };
        let sampler = sampler(&catalog, &config);
        let mut rows = vec![0; 21];
        (0..2 * BLOCK)
            .for_each(|step| rows.iter_mut().zip(langs(&sampler.batch(step), 21)).for_each(|(sum, n)| *sum += n));
        let total = (16 * 2 * BLOCK) as f64;
        assert!((rows[20] as f64 / total - of_large).abs() < 1e-3, "{rows:?}");
        let of_small = (1.0 - of_large) / 20.0 * total;
        assert!(rows[..20].iter().all(|&n| (n as f64 / of_small - 1.0).abs() < 0.1), "{of_small}: {rows:?}");
    }
}

#[test]
fn one_small_language_is_filled_up_from_all() {
    let catalog = separate(&[7, 40, 300]);
    let sampler = sampler(&catalog, &config(BatchMode::Monolingual, 16));
    let mut rows = vec![0; 3];
    for step in 0..600 {
        let batch = sampler.batch(step);
        check_batch(&catalog, &batch, 16);
        if batch.kind == BatchKind::MixedMonolingual {
            let here = langs(&batch, 3);
            assert_eq!(here[0], 7);
            rows.iter_mut().zip(here).for_each(|(sum, n)| *sum += n);
        }
    }
    assert!(rows[1] > 0 && rows[2] > 3 * rows[1], "in proportion to their groups: {rows:?}");
    // Where all fit, nothing is said, and nothing is mixed.
    let large = super::sampler(&catalog, &config(BatchMode::Monolingual, 7));
    assert!(large.notes().is_empty() && (0..600).all(|step| large.batch(step).kind.mode() == BatchMode::Monolingual));
}

/// Groups that have a small and a large language come once to a batch, in whichever.
#[test]
fn small_languages_of_parallel_groups() {
    let catalog = catalog(vec![class(100, &[0], &[0]), class(6, &[0, 1], &[0, 1]), class(9, &[1, 2], &[2])]);
    let config = SamplerConfig { alpha: 0.5, ..config(BatchMode::Hybrid, 8) };
    let sampler = sampler(&catalog, &config);
    let mut modes = HashSet::new();
    for step in 0..400 {
        let batch = sampler.batch(step);
        check_batch(&catalog, &batch, 8);
        modes.insert(batch.kind);
    }
    let expected = [0, 2].map(BatchKind::Monolingual);
    assert_eq!(modes, expected.into_iter().chain([BatchKind::MixedMonolingual, BatchKind::CrossLingual]).collect());
}

#[test]
fn data_of_one_language_trains_monolingually_and_says_so() {
    let mixing =
        MixtureConfig { sampling: DatasetSampling::Weights, temperature: 1.0, batches: DatasetBatches::Homogeneous };
    let new = |catalog: &Catalog, config: &SamplerConfig| {
        Mixture::new(&[WeightedDataset { name: "d", catalog, weight: 1.0, left_out_by: &[] }], config, &mixing)
    };
    for name in ["en", "und"] {
        let catalog = Catalog { languages: vec![name.to_owned()], classes: vec![class(100, &[0], &[0])] };
        let hybrid = new(&catalog, &config(BatchMode::Hybrid, 10)).unwrap();
        let plain = new(&catalog, &config(BatchMode::Monolingual, 10)).unwrap();
        assert!((0..100).all(|step| hybrid.batch(step) == plain.batch(step)));
        let note = format!(
            "all of the data is in \"{name}\", with no pairs across languages: its batches are all monolingual"
        );
        assert_eq!((hybrid.notes(), plain.notes()), (&[note][..], &[][..]));
        // Who asks for cross-lingual batches alone gets none.
        assert!(new(&catalog, &SamplerConfig { alpha: 0.0, ..config(BatchMode::Hybrid, 10) }).is_err());
    }
}

/// Time that grows with the square of the number of languages would be minutes here.
#[test]
fn five_thousand_languages() {
    let catalog = separate(&vec![3; 5000]);
    let sampler = sampler(&catalog, &config(BatchMode::Monolingual, 16));
    let mut drawn = HashSet::new();
    for step in 0..3000 {
        drawn.extend(groups(&sampler.batch(step)));
    }
    assert!(drawn.len() > 12_000, "{}", drawn.len());
    let note = &sampler.notes()[0];
    assert!(note.starts_with("5000 languages with fewer groups") && note.contains("l07, 4992 more)"), "{note}");
}
