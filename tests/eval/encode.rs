//! Encoding many texts: the order of the results, and that nothing but the texts decides them.

use super::Noise;
use crate::common::fixture;
use crate::ops::threads::assert_same_on_any_number_of_threads;
use half::bf16;
use hbt::backend::Cpu;
use hbt::backend::cpu::CpuElement;
use hbt::config::Config;
use hbt::model_dir::ModelDir;
use hbt::retriever::Retriever;

/// More than two of the windows in which texts are tokenized, and a rest.
const N_TEXTS: usize = 4500;

fn of_config<E: CpuElement>(config: &Config) -> Retriever<Cpu<E>> {
    let dir = ModelDir::open(fixture("bert")).unwrap();
    let settings = config.retriever(&dir).unwrap();
    Retriever::load(Cpu::new(), dir, settings).unwrap()
}

fn retriever<E: CpuElement>() -> Retriever<Cpu<E>> {
    let config = Config { chunk_tokens: 1000.into(), ..Config::default() };
    of_config(&config)
}

/// 1 to 12 words each, hardly two alike.
fn texts() -> Vec<String> {
    let (mut noise, words) = (Noise(5), ["old", "river", "green", "sea", "x", "who", "wrote", "it", "?", "the"]);
    let text = |noise: &mut Noise| {
        let words: Vec<&str> = (0..1 + noise.below(12)).map(|_| words[noise.below(10) as usize]).collect();
        words.join(" ")
    };
    (0..N_TEXTS).map(|_| text(&mut noise)).collect()
}

fn encode<E: CpuElement>(retriever: &Retriever<Cpu<E>>, texts: &[String]) -> Vec<Vec<f32>> {
    let embeddings = retriever.encode(&retriever.settings.query, texts, &mut |_| ()).unwrap();
    assert_eq!(embeddings.n_rows(), texts.len());
    embeddings.values().chunks(embeddings.dim()).map(<[f32]>::to_vec).collect()
}

/// Wherever a text stands, and whatever stands beside it, it has the embedding that it has alone.
fn neighbours_do_not_matter<E: CpuElement>(tolerance: f32) {
    let (retriever, texts) = (retriever::<E>(), texts());
    let all = encode(&retriever, &texts);
    let close = |a: &[f32], b: &[f32], what: &str| {
        let distance = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(distance <= tolerance, "{what}: {distance}");
    };
    for i in [0, 1, 2047, 2048, 2049, 4095, 4096, N_TEXTS - 1] {
        close(&all[i], &encode(&retriever, &texts[i..=i])[0], &format!("text {i} alone"));
    }
    // Other windows and other chunks.
    for (i, shifted) in (777..).zip(encode(&retriever, &texts[777..])) {
        close(&all[i], &shifted, &format!("text {i}, shifted"));
    }
}

#[test]
fn neighbours_do_not_matter_in_f32() {
    neighbours_do_not_matter::<f32>(0.0);
}

#[test]
fn neighbours_do_not_matter_in_bf16() {
    neighbours_do_not_matter::<bf16>(0.0);
}

#[test]
fn the_number_of_threads_does_not_matter() {
    let texts = texts();
    let retriever = retriever::<f32>();
    assert_same_on_any_number_of_threads("encode in f32", || encode(&retriever, &texts));
    let retriever = self::retriever::<bf16>();
    assert_same_on_any_number_of_threads("encode in bf16", || encode(&retriever, &texts));
}

#[test]
fn progress_counts_the_texts() {
    let (retriever, texts) = (retriever::<f32>(), texts());
    let mut seen = vec![0];
    retriever.encode(&retriever.settings.query, &texts, &mut |n| seen.push(n)).unwrap();
    assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "{seen:?}");
    assert_eq!(seen.last(), Some(&N_TEXTS));
    let nothing: [&str; 0] = [];
    assert_eq!(retriever.encode(&retriever.settings.query, &nothing, &mut |_| ()).unwrap().n_rows(), 0);
}

#[test]
fn a_sink_that_fails_ends_it() {
    let (retriever, texts, mut calls) = (retriever::<f32>(), texts(), 0);
    let result = retriever.encode_windows(&retriever.settings.query, &texts, &mut |_| (), &mut |_| {
        calls += 1;
        Err(hbt::Error::other("full"))
    });
    assert_eq!((result.unwrap_err().to_string().as_str(), calls), ("full", 1));
}

/// As Matryoshka models are used: the first dimensions, brought to length 1 again.
#[test]
fn embeddings_are_cut_to_leading_dimensions() {
    let (whole, texts) = (retriever::<f32>(), &texts()[..50]);
    let config = Config { truncate_dim: Some(5), ..Config::default() };
    let cut = of_config::<f32>(&config);
    for (whole, cut) in encode(&whole, texts).iter().zip(encode(&cut, texts)) {
        let norm = whole[..5].iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        assert_eq!(cut.len(), 5);
        for (whole, cut) in whole.iter().zip(cut) {
            assert!((f64::from(*whole) / norm - f64::from(cut)).abs() < 1e-6);
        }
    }
    let config = Config { truncate_dim: Some(1000), ..config };
    let error = config.retriever(&ModelDir::open(fixture("bert")).unwrap()).err().unwrap().to_string();
    assert!(error.starts_with("truncate_dim: is 1000, but the model's embeddings have "), "{error}");
}
