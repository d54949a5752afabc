//! Batches from several datasets: drawn shares against configured ones, passes, and refusals that name a dataset.

use super::passes::check_passes;
use super::*;
use hbt::data::sampler::{DatasetBatches, DatasetSampling, Mixture, MixtureConfig, WeightedDataset};

/// The length of a block of turns: drawn shares are exact over it.
const BLOCK: u64 = 4096;

fn mixing(sampling: DatasetSampling, batches: DatasetBatches) -> MixtureConfig {
    MixtureConfig { sampling, temperature: 2.0, batches }
}

/// Datasets `d0`, `d1`, ... with these weights.
fn mixture(
    catalogs: &[Catalog],
    weights: &[f64],
    config: &SamplerConfig,
    mixing: &MixtureConfig,
) -> hbt::Result<Mixture> {
    let names: Vec<String> = (0..catalogs.len()).map(|i| format!("d{i}")).collect();
    let parts = names.iter().zip(catalogs).zip(weights);
    let parts: Vec<WeightedDataset> =
        parts.map(|((name, catalog), &weight)| WeightedDataset { name, catalog, weight, left_out_by: &[] }).collect();
    Mixture::new(&parts, config, mixing)
}

/// The classes of all catalogs, one after the other: as groups are numbered.
fn joint(catalogs: &[Catalog]) -> Catalog {
    let classes = catalogs.iter().flat_map(|catalog| catalog.classes.clone());
    Catalog { languages: catalogs[0].languages.clone(), classes: classes.collect() }
}

/// The numbers of each dataset's groups.
fn ranges(catalogs: &[Catalog]) -> Vec<std::ops::Range<u64>> {
    let mut start = 0;
    let mut range = |catalog: &Catalog| {
        start += catalog.n_groups();
        start - catalog.n_groups()..start
    };
    catalogs.iter().map(&mut range).collect()
}

const SIZES: [u64; 3] = [100, 400, 1600];
const WEIGHTS: [f64; 3] = [1.0, 2.0, 0.5];

/// By definition, for [`SIZES`] and [`WEIGHTS`] at T = 2.
fn shares(sampling: DatasetSampling) -> [f64; 3] {
    let weights = match sampling {
        DatasetSampling::Weights => [1.0, 2.0, 0.5],
        DatasetSampling::Proportional => [100.0, 800.0, 800.0],
        DatasetSampling::Temperature => [10.0, 40.0, 20.0],
        DatasetSampling::RoundRobin => [1.0; 3],
    };
    weights.map(|weight| weight / weights.iter().sum::<f64>())
}

#[test]
fn one_dataset_is_drawn_as_ever() {
    let catalog = catalog(vec![class(60, &[0, 1], &[0, 1]), class(90, &[0], &[0])]);
    let config = config(BatchMode::Hybrid, 8);
    let plain = sampler(&catalog, &config);
    for batches in [DatasetBatches::Homogeneous, DatasetBatches::Mixed] {
        let mixing = mixing(DatasetSampling::Weights, batches);
        let mixture = mixture(std::slice::from_ref(&catalog), &[3.0], &config, &mixing).unwrap();
        assert!((0..100).all(|step| mixture.batch(step) == plain.batch(step)));
        assert_eq!(mixture.steps_per_pass(), plain.steps_per_pass());
    }
}

#[test]
fn homogeneous_batches_share_the_steps_as_configured() {
    let catalogs = SIZES.map(|n| parallel(n, 3));
    let (ranges, config) = (ranges(&catalogs), config(BatchMode::Hybrid, 16));
    for &sampling in DatasetSampling::ALL {
        let mixing = mixing(sampling, DatasetBatches::Homogeneous);
        let mixture = mixture(&catalogs, &WEIGHTS, &config, &mixing).unwrap();
        let (mut sequences, mut monolingual) = (vec![Vec::new(); 3], [0.0; 3]);
        for step in 0..BLOCK {
            let batch = mixture.batch(step);
            check_batch(&joint(&catalogs), &batch, 16);
            let dataset = batch.dataset.expect("all of one");
            assert!(batch.rows.iter().all(|row| ranges[dataset].contains(&row.group)));
            sequences[dataset].extend(groups(&batch));
            monolingual[dataset] += f64::from(u8::from(batch.kind.mode() == BatchMode::Monolingual));
        }
        for dataset in 0..3 {
            let n = sequences[dataset].len() as f64 / 16.0;
            let expected = shares(sampling)[dataset] * BLOCK as f64;
            assert!((n - expected).abs() < 1.0, "{sampling}: {n} for {expected:.1}");
            check_passes(&sequences[dataset], ranges[dataset].clone(), &format!("{sampling}, dataset {dataset}"));
            // Alpha is each dataset's own share, not only that of all together.
            assert!((monolingual[dataset] - n / 2.0).abs() < 33.0, "{} of {n}", monolingual[dataset]);
        }
        assert_eq!(mixture.n_groups(), 2100);
        assert_eq!(mixture.steps_per_pass(), 2100.0 / 16.0);
    }
}

#[test]
fn round_robin_takes_one_after_the_other() {
    let catalogs = SIZES.map(|n| parallel(n, 2));
    let mixing = mixing(DatasetSampling::RoundRobin, DatasetBatches::Homogeneous);
    let mixture = mixture(&catalogs, &[1.0; 3], &config(BatchMode::Hybrid, 10), &mixing).unwrap();
    assert!((0..50).all(|step| mixture.batch(step).dataset == Some(step as usize % 3)));
}

#[test]
fn datasets_do_not_repeat_one_another() {
    let catalogs = [parallel(500, 2), parallel(500, 2)];
    let mixing = mixing(DatasetSampling::RoundRobin, DatasetBatches::Homogeneous);
    let mixture = mixture(&catalogs, &[1.0; 2], &config(BatchMode::Hybrid, 50), &mixing).unwrap();
    let same = (0..10).map(|turn| {
        let [a, b] = [0, 1].map(|dataset| mixture.batch(2 * turn + dataset));
        a.rows.iter().zip(&b.rows).filter(|(a, b)| a.group == b.group - 500).count()
    });
    // One in 500 by chance.
    assert!(same.sum::<usize>() < 8);
}

#[test]
fn mixed_batches_share_the_rows_as_configured() {
    let catalogs = SIZES.map(|n| parallel(n, 3));
    let (ranges, config) = (ranges(&catalogs), config(BatchMode::Hybrid, 17));
    for &sampling in DatasetSampling::ALL {
        let mixing = mixing(sampling, DatasetBatches::Mixed);
        let mixture = mixture(&catalogs, &WEIGHTS, &config, &mixing).unwrap();
        let mut sequences = vec![Vec::new(); 3];
        for step in 0..1500 {
            let batch = mixture.batch(step);
            assert_eq!(batch.dataset, None);
            check_batch(&joint(&catalogs), &batch, 17);
            for (dataset, range) in ranges.iter().enumerate() {
                let rows: Vec<u64> = groups(&batch).into_iter().filter(|group| range.contains(group)).collect();
                let exact = shares(sampling)[dataset] * 17.0;
                // Three datasets leave at most two rows over.
                assert!(exact.floor() <= rows.len() as f64 && rows.len() as f64 <= exact.floor() + 2.0);
                sequences[dataset].extend(rows);
            }
        }
        for dataset in 0..3 {
            let (n, expected) = (sequences[dataset].len() as f64, shares(sampling)[dataset] * 17.0 * 1500.0);
            // Each of four streams counts its rows over in chunks of its own.
            assert!((n - expected).abs() < 8.0, "{sampling}: {n} for {expected:.1}");
            check_passes(&sequences[dataset], ranges[dataset].clone(), &format!("{sampling}, dataset {dataset}"));
        }
        assert_eq!(mixture.steps_per_pass(), 2100.0 / 17.0);
    }
}

#[test]
fn a_dataset_of_less_than_a_row_a_batch_gets_its_share() {
    let catalogs = [parallel(5, 2), parallel(10_000, 2)];
    let mixing = mixing(DatasetSampling::Proportional, DatasetBatches::Mixed);
    let mixture = mixture(&catalogs, &[1.0; 2], &config(BatchMode::CrossLingual, 100), &mixing).unwrap();
    let rows = (0..2001).flat_map(|step| groups(&mixture.batch(step)));
    // 0.04998 of a row a batch.
    let of_small: Vec<u64> = rows.filter(|group| *group < 5).collect();
    assert!((95..=106).contains(&of_small.len()), "{}", of_small.len());
    check_passes(&of_small, 0..5, "the small one");
}

#[test]
fn mixed_batches_take_only_who_can_serve_them() {
    // English only; German and English in parallel; German only.
    let languages = |mut catalog: Catalog| {
        catalog.languages = vec!["de".to_owned(), "en".to_owned()];
        catalog
    };
    let catalogs = [
        languages(catalog(vec![class(300, &[1], &[1])])),
        languages(parallel(200, 2)),
        languages(catalog(vec![class(60, &[0], &[0])])),
    ];
    let ranges = ranges(&catalogs);
    let mixing = mixing(DatasetSampling::Weights, DatasetBatches::Mixed);
    let mixture = mixture(&catalogs, &[1.0, 2.0, 1.0], &config(BatchMode::Hybrid, 12), &mixing).unwrap();
    let mut sequences = vec![Vec::new(); 3];
    for step in 0..700 {
        let batch = mixture.batch(step);
        check_batch(&joint(&catalogs), &batch, 12);
        let rows = |dataset: usize| groups(&batch).iter().filter(|group| ranges[dataset].contains(group)).count();
        let expected = match batch.kind {
            BatchKind::Monolingual(0) => [0, 8, 4],
            BatchKind::Monolingual(_) => [4, 8, 0],
            _ => [0, 12, 0],
        };
        assert_eq!([rows(0), rows(1), rows(2)], expected, "{:?}", batch.kind);
        for (sequence, range) in sequences.iter_mut().zip(&ranges) {
            sequence.extend(groups(&batch).into_iter().filter(|group| range.contains(group)));
        }
    }
    // The parallel groups serve three streams by 8 and by 12 rows, in one order.
    for (sequence, range) in sequences.iter().zip(ranges) {
        check_passes(sequence, range, "one set a dataset");
    }
}

#[test]
fn a_batch_depends_on_seed_and_step_alone() {
    let catalogs = [parallel(300, 3), catalog(vec![class(80, &[0, 2], &[0, 2]), class(70, &[1], &[1, 2])])];
    for batches in [DatasetBatches::Homogeneous, DatasetBatches::Mixed] {
        for &sampling in DatasetSampling::ALL {
            let mixing = mixing(sampling, batches);
            let new = |seed| {
                let config = SamplerConfig { seed, ..config(BatchMode::CrossLingual, 9) };
                mixture(&catalogs, &[1.0, 1.0], &config, &mixing).unwrap()
            };
            let one = new(1);
            let forward: Vec<SampledBatch> = (0..60).map(|step| one.batch(step)).collect();
            for step in (0..60).rev().step_by(7) {
                assert_eq!(new(1).batch(step), forward[step as usize]);
            }
            assert!((0..60).filter(|&step| new(2).batch(step).rows == forward[step as usize].rows).count() == 0);
        }
    }
}

#[test]
fn far_steps_cost_no_more_than_the_first() {
    let catalogs = [parallel(60_000_000, 11), separate(&[1_000_000; 11])];
    for batches in [DatasetBatches::Homogeneous, DatasetBatches::Mixed] {
        let config = config(BatchMode::Monolingual, 64);
        let mixing = mixing(DatasetSampling::Temperature, batches);
        let mixture = mixture(&catalogs, &[1.0, 1.0], &config, &mixing).unwrap();
        let start = std::time::Instant::now();
        for step in [0, 1_000_000, 1_000_000_000_000].iter().flat_map(|step| *step..*step + 20) {
            check_batch(&joint(&catalogs), &mixture.batch(step), 64);
        }
        assert!(start.elapsed() < std::time::Duration::from_secs(3), "60 batches took {:?}", start.elapsed());
    }
}

/// Among datasets for hybrid batches, one in a single language and one whose groups all cross.
#[test]
fn a_dataset_gives_the_only_kind_of_batches_that_it_can() {
    let languages = |mut catalog: Catalog| {
        catalog.languages = vec!["de".to_owned(), "en".to_owned()];
        catalog
    };
    let catalogs =
        [parallel(200, 2), catalog(vec![class(80, &[1], &[1])]), catalog(vec![class(60, &[0], &[1])])].map(languages);
    let mixing = mixing(DatasetSampling::Weights, DatasetBatches::Homogeneous);
    let hybrid = SamplerConfig { alpha: 0.25, ..config(BatchMode::Hybrid, 12) };
    let mixture = mixture(&catalogs, &[2.0, 1.0, 1.0], &hybrid, &mixing).unwrap();
    assert_eq!(
        mixture.notes(),
        [
            "dataset \"d1\" has no pairs across languages: its batches are all monolingual",
            "dataset \"d2\" has no pairs in one language: its batches are all cross_lingual",
        ]
    );
    let mut kinds = [[0; 2]; 3];
    for step in 0..2 * BLOCK {
        let batch = mixture.batch(step);
        if step < 500 {
            check_batch(&joint(&catalogs), &batch, 12);
        }
        kinds[batch.dataset.unwrap()][usize::from(batch.kind == BatchKind::CrossLingual)] += 1;
    }
    let n = BLOCK / 2;
    assert_eq!(kinds, [[n / 2, n / 2 * 3], [n, 0], [0, n]]);
}

#[test]
fn refusals_name_the_dataset() {
    let refusal = |catalogs: &[Catalog], mode: BatchMode, batches: DatasetBatches| {
        let mixing = mixing(DatasetSampling::Weights, batches);
        let message = mixture(catalogs, &[1.0, 1.0], &config(mode, 20), &mixing).err().expect("an error").to_string();
        assert!(!message.contains('\n'), "one line: {message}");
        message
    };
    let (large, small) = (parallel(100, 2), parallel(9, 2));
    let catalogs = [large.clone(), small.clone()];
    let message = refusal(&catalogs, BatchMode::CrossLingual, DatasetBatches::Homogeneous);
    assert!(message.starts_with("batch_size: dataset \"d1\": 20 is more than the 9 groups"), "{message}");
    let message = refusal(&catalogs, BatchMode::CrossLingual, DatasetBatches::Mixed);
    assert_eq!(
        message,
        "batch_size: dataset \"d1\" has 9 groups for cross_lingual batches and would have to give up to 10 to one, each \
         at most once; lower batch_size, lower its weight, or set dataset_batches = \"homogeneous\""
    );
    let mut apart = separate(&[100]);
    apart.languages = large.languages.clone();
    let message = refusal(&[large.clone(), apart.clone()], BatchMode::CrossLingual, DatasetBatches::Homogeneous);
    // Of its own languages, not those of the others.
    assert_eq!(
        message,
        "mode: dataset \"d1\": cross_lingual: cross-lingual batches need two languages, but all of the data is in \"l00\"; \
         give parallel data, or set mode = \"monolingual\", or dataset_batches = \"mixed\", where others serve such batches"
    );
    // Hybrid, but with an alpha that asks for one kind alone.
    let alone = SamplerConfig { alpha: 0.0, ..config(BatchMode::Hybrid, 20) };
    let homogeneous = mixing(DatasetSampling::Weights, DatasetBatches::Homogeneous);
    assert!(mixture(&[large.clone(), apart.clone()], &[1.0; 2], &alone, &homogeneous).is_err());
    let message = refusal(&[apart.clone(), apart], BatchMode::CrossLingual, DatasetBatches::Mixed);
    assert!(message.starts_with("mode: cross_lingual: "), "{message}");
    for temperature in [0.5, f64::NAN, f64::INFINITY] {
        let mixing = MixtureConfig { temperature, ..mixing(DatasetSampling::Temperature, DatasetBatches::Mixed) };
        let message = mixture(&catalogs, &[1.0; 2], &config(BatchMode::Hybrid, 2), &mixing).err().unwrap().to_string();
        assert!(message.starts_with("dataset_temperature: "), "{message}");
    }
}

/// Weights are shares: those that add up to no finite number are the same as smaller ones in the same proportion.
#[test]
fn huge_weights_are_shares_as_well() {
    let catalogs = SIZES.map(|n| parallel(n, 3));
    let config = config(BatchMode::Hybrid, 20);
    for sampling in [DatasetSampling::Weights, DatasetSampling::Proportional, DatasetSampling::Temperature] {
        for batches in [DatasetBatches::Homogeneous, DatasetBatches::Mixed] {
            let mixing = mixing(sampling, batches);
            let drawn = |weights: [f64; 3]| {
                let mixture = mixture(&catalogs, &weights, &config, &mixing).unwrap();
                (0..200).map(|step| mixture.batch(step)).collect::<Vec<_>>()
            };
            let small = [1.0, 1.0, 0.5];
            let huge = small.map(|weight| weight * 2f64.powi(1023));
            assert!(huge.iter().sum::<f64>().is_infinite() && huge.iter().all(|weight| weight.is_finite()));
            assert!(drawn(huge) == drawn(small), "{sampling} {batches}");
        }
    }
}

/// As where there are several datasets: data that can serve only one kind of hybrid batches gives that kind, and says so.
#[test]
fn one_dataset_that_serves_only_one_kind_gives_that_kind() {
    for (data, mode, note) in [
        (
            separate(&[30, 40]),
            BatchMode::Monolingual,
            "the data has no pairs across languages, in 2 languages: its batches are all monolingual",
        ),
        (
            catalog(vec![class(30, &[0], &[1])]),
            BatchMode::CrossLingual,
            "the data has no pairs in one language, in 2 languages: its batches are all cross_lingual",
        ),
    ] {
        let mixing = mixing(DatasetSampling::Proportional, DatasetBatches::Homogeneous);
        let mixture = mixture(std::slice::from_ref(&data), &[1.0], &config(BatchMode::Hybrid, 10), &mixing).unwrap();
        assert_eq!(mixture.notes(), [note]);
        let alone = sampler(&data, &config(mode, 10));
        assert!((0..20).all(|step| mixture.batch(step) == alone.batch(step)));
    }
}
