//! Configurations and data that cannot work, and the words that say so.

use super::*;

fn refusal(catalog: &Catalog, config: &SamplerConfig) -> String {
    let message = Sampler::new(catalog, config).err().expect("an error").to_string();
    assert!(!message.contains('\n'), "one line: {message}");
    message
}

#[test]
fn cross_lingual_batches_need_two_languages() {
    let english = Catalog { languages: vec!["en".to_owned()], classes: vec![class(100, &[0], &[0])] };
    assert_eq!(
        refusal(&english, &config(BatchMode::CrossLingual, 10)),
        "mode: cross_lingual: cross-lingual batches need two languages, but all of the data is in \"en\"; give \
         parallel data, or set mode = \"monolingual\""
    );
    let unnamed = Catalog { languages: vec!["und".to_owned()], ..english };
    assert!(
        refusal(&unnamed, &config(BatchMode::CrossLingual, 10))
            .contains("the data names none (query_lang, passage_lang)")
    );
    let apart = separate(&[100, 100]);
    for mode in [BatchMode::CrossLingual, BatchMode::Hybrid] {
        assert!(refusal(&apart, &config(mode, 10)).contains("each group of the data has one language only (l00, l01)"));
    }
    assert!(refusal(&apart, &config(BatchMode::Hybrid, 10)).ends_with("or set alpha = 1 for monolingual batches only"));
    sampler(&apart, &config(BatchMode::Monolingual, 10));
    sampler(&apart, &config(BatchMode::MixedMonolingual, 10));
}

#[test]
fn monolingual_batches_need_query_and_positive_in_one_language() {
    let crossing = catalog(vec![class(100, &[0], &[1])]);
    for (mode, remedy) in [
        (BatchMode::Monolingual, "set mode = \"cross_lingual\""),
        (BatchMode::MixedMonolingual, "set mode = \"cross_lingual\""),
        (BatchMode::Hybrid, "set alpha = 0 for cross-lingual batches only"),
    ] {
        let message = refusal(&crossing, &config(mode, 10));
        assert!(message.starts_with(&format!("mode: {mode}: monolingual batches need")), "{message}");
        assert!(message.ends_with(remedy), "{message}");
    }
    sampler(&crossing, &config(BatchMode::CrossLingual, 10));
}

#[test]
fn a_batch_larger_than_the_data_is_refused_with_the_numbers() {
    assert_eq!(
        refusal(&separate(&[20, 12, 30]), &config(BatchMode::Monolingual, 64)),
        "batch_size: 64 is more than the 62 groups with query and positive in one language, in all 3 languages together, \
         and no group may come twice in a batch; lower batch_size to 62 or less, or add data"
    );
    let one_of_two = catalog(vec![class(9, &[0], &[0]), class(100, &[0], &[1])]);
    let message = refusal(&one_of_two, &config(BatchMode::Monolingual, 10));
    assert!(message.contains("in one language, in the only one that has any, and"), "{message}");
    let few_cross = catalog(vec![class(100, &[0], &[0]), class(20, &[0], &[1])]);
    let message = refusal(&few_cross, &config(BatchMode::Hybrid, 21));
    assert!(message.contains("21 is more than the 20 groups with query and positive in two languages"), "{message}");
    sampler(&few_cross, &config(BatchMode::Hybrid, 20));
    let message = refusal(&parallel(12, 1), &config(BatchMode::Monolingual, 13));
    assert!(message.ends_with("; lower batch_size to 12 or less, or add data"), "{message}");
    // Lowering batch_size to 1 would not help.
    let message = refusal(&parallel(1, 2), &config(BatchMode::CrossLingual, 2));
    assert!(message.ends_with("twice in a batch; add parallel data"), "{message}");
}

#[test]
fn values_out_of_range_are_named() {
    let catalog = parallel(100, 2);
    let hybrid = || config(BatchMode::Hybrid, 10);
    for alpha in [-0.1, 1.5, f64::NAN] {
        let message = refusal(&catalog, &SamplerConfig { alpha, ..hybrid() });
        assert!(message.starts_with(&format!("alpha: {alpha} is no probability")), "{message}");
    }
    for lang_temperature in [0.3, 0.0, -1.0, f64::INFINITY, f64::NAN] {
        let message = refusal(&catalog, &SamplerConfig { lang_temperature, ..hybrid() });
        assert!(message.starts_with(&format!("lang_temperature: {lang_temperature} is out of range")), "{message}");
    }
    for batch_size in [0, 1] {
        let message = refusal(&catalog, &SamplerConfig { batch_size, ..hybrid() });
        assert!(message.starts_with(&format!("batch_size: {batch_size} leaves a query no in-batch")), "{message}");
    }
    let empty = Catalog { languages: Vec::new(), classes: Vec::new() };
    for mode in ["monolingual", "mixed_monolingual", "cross_lingual", "hybrid"] {
        let message = refusal(&empty, &config(mode.parse().unwrap(), 10));
        assert!(message.starts_with("data: holds no group"), "{message}");
    }
}

#[test]
fn names_are_read_as_they_are_written() {
    for name in ["monolingual", "mixed_monolingual", "cross_lingual", "hybrid"] {
        assert_eq!(name.parse::<BatchMode>().unwrap().to_string(), name);
    }
    for name in ["uniform", "proportional", "temperature"] {
        assert_eq!(name.parse::<LangSampling>().unwrap().to_string(), name);
    }
    assert_eq!(
        "crosslingual".parse::<BatchMode>().unwrap_err().to_string(),
        "unknown word \"crosslingual\"; use one of monolingual, mixed_monolingual, cross_lingual, hybrid"
    );
    assert!("even".parse::<LangSampling>().unwrap_err().to_string().contains("\"even\""));
}
