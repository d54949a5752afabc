//! The three settings by hand, and what reports look like as JSON and as text.

use hbt::eval::search::RelevantRank;
use hbt::eval::tasks::{EvalSet, Passage, Query};
use hbt::eval::{EvalReport, Metric, SideBySide, settings};
use std::collections::BTreeMap;

fn close(got: Option<f64>, expected: f64) {
    assert!((got.unwrap() - expected).abs() < 1e-12, "{got:?} is not {expected}");
}

/// Three German and two English passages; a question asked in both languages, and one with a German answer only.
fn two_languages() -> (EvalSet, Vec<Vec<RelevantRank>>) {
    let passage = |lang| Passage { lang, text: String::new() };
    let query = |lang, group, relevant: &[u32]| Query { lang, group, text: String::new(), relevant: relevant.to_vec() };
    let set = EvalSet {
        task: "parallel".into(),
        split: "all".into(),
        languages: vec!["de".into(), "en".into()],
        passages: [0, 0, 0, 1, 1].map(passage).to_vec(),
        queries: vec![query(0, 0, &[0, 3]), query(0, 1, &[1]), query(1, 0, &[0, 3])],
    };
    let rank = |lang, in_language, pooled| RelevantRank { lang, in_language, pooled };
    let ranks = vec![vec![rank(0, 2, 3), rank(1, 1, 1)], vec![rank(0, 1, 2)], vec![rank(0, 3, 5), rank(1, 2, 4)]];
    (set, ranks)
}

#[test]
fn the_three_settings_by_hand() {
    let (set, ranks) = two_languages();
    let report = settings::report("m", &set, &ranks);
    // de-de: 1/2 and 1; de-en: 1, the second question not counting; en-de: 1/3; en-en: 1/2.
    let de_de = (0.5 + 1.0) / 2.0;
    close(report.metric(Metric::MonolingualMap), (de_de + 0.5) / 2.0);
    close(report.metric(Metric::CrossLingualMap), (1.0 + 1.0 / 3.0) / 2.0);
    // Pooled ranks 1 and 3, then 2, then 4 and 5.
    let de = ((1.0 + 2.0 / 3.0) / 2.0 + 0.5) / 2.0;
    let en = (1.0 / 4.0 + 2.0 / 5.0) / 2.0;
    close(report.metric(Metric::MultilingualMap), (de + en) / 2.0);
    // Distances 2 and none for German, 1 for English.
    close(report.metric(Metric::RankDistance), 1.5);
    close(report.by_direction["de"].get("de").copied(), de_de);
    close(Some(report.by_query_language["en"].multilingual_map), en);
    let aps: Vec<_> = report.per_query.iter().map(|q| (q.lang, q.group)).collect();
    assert_eq!(aps, [(0, 0), (0, 1), (1, 0)]);
}

#[test]
fn one_language_has_no_cross_lingual_number() {
    let (mut set, ranks) = two_languages();
    set.queries.truncate(2);
    let only_german: Vec<_> = ranks[..2].iter().map(|ranks| ranks[..1].to_vec()).collect();
    let report = settings::report("m", &set, &only_german);
    assert_eq!(report.metric(Metric::CrossLingualMap), None);
    assert_eq!(report.metric(Metric::RankDistance), None);
    close(report.metric(Metric::MonolingualMap), 0.75);
    let json = serde_json::to_string(&report).unwrap();
    assert!(json.contains(r#""cross_lingual":{"map":null}"#), "{json}");
    assert_eq!(serde_json::from_str::<EvalReport>(&json).unwrap().cross_lingual.map, None);
}

#[test]
fn json_has_the_documented_keys_in_order() {
    let (set, mut ranks) = two_languages();
    // Ranks that give numbers which print shortly.
    ranks[1][0].pooled = 1;
    ranks[0] =
        vec![RelevantRank { lang: 0, in_language: 2, pooled: 2 }, RelevantRank { lang: 1, in_language: 1, pooled: 1 }];
    ranks[2] =
        vec![RelevantRank { lang: 0, in_language: 4, pooled: 8 }, RelevantRank { lang: 1, in_language: 2, pooled: 2 }];
    let report = settings::report("intfloat/multilingual-e5-small", &set, &ranks);
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(
        json,
        concat!(
            r#"{"model":"intfloat/multilingual-e5-small","task":"parallel","split":"all","languages":["de","en"],"#,
            r#""monolingual":{"map":0.625},"cross_lingual":{"map":0.625},"#,
            r#""multilingual":{"map":0.6875,"rank_distance":3.5},"#,
            r#""by_direction":{"de":{"de":0.75,"en":1.0},"en":{"de":0.25,"en":0.5}},"#,
            r#""by_query_language":{"de":{"multilingual_map":1.0,"rank_distance":1.0},"#,
            r#""en":{"multilingual_map":0.375,"rank_distance":6.0}}}"#
        )
    );
    let read: EvalReport = serde_json::from_str(&json).unwrap();
    assert!(read.per_query.is_empty());
    assert_eq!(EvalReport { per_query: report.per_query.clone(), ..read }, report);
}

/// A report over `codes` in which every direction has another value.
fn filled(codes: &[&str]) -> EvalReport {
    let (set, ranks) = two_languages();
    let mut report = settings::report("weights/tiny", &set, &ranks);
    let row = |q: usize| codes.iter().enumerate().map(|(p, c)| (c.to_string(), 1.0 / (1 + q + p) as f64)).collect();
    report.languages = codes.iter().map(|c| c.to_string()).collect();
    report.by_direction = codes.iter().enumerate().map(|(q, c)| (c.to_string(), row(q))).collect::<BTreeMap<_, _>>();
    let score = report.by_query_language["de"];
    report.by_query_language = codes.iter().map(|c| (c.to_string(), score)).collect();
    report
}

const XQUAD: [&str; 11] = ["ar", "de", "el", "en", "es", "hi", "ru", "th", "tr", "vi", "zh"];

#[test]
fn text_shows_headlines_and_an_aligned_matrix() {
    let text = filled(&["de", "en"]).to_string();
    let expected = "\
weights/tiny: parallel, split all, 2 languages
monolingual mAP     0.6250
cross-lingual mAP   0.6667
multilingual mAP    0.4958
rank distance          1.5  (lower is better)

mAP x 100 by query language (rows) and passage language (columns); pool = all languages
     de   en   pool  rank dist
de  100 50.0   66.7        2.0
en 50.0 33.3   66.7        2.0
";
    assert_eq!(text, expected);
}

#[test]
fn text_fits_100_columns_at_any_number_of_languages() {
    let many: Vec<String> = (b'a'..=b'z').map(|c| format!("x{}", char::from(c))).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for codes in [&XQUAD[..], &XQUAD[..8], &many[..], &["und"], &["pt-BR", "zh-Hans"]] {
        let report = filled(codes);
        for text in [report.to_string(), SideBySide { before: &report, after: &report }.to_string()] {
            assert!(text.lines().all(|line| line.len() <= 100), "{text}");
            // Headings stand before and after the blocks; every language is a heading once and a row in each block.
            for code in codes {
                assert!(text.split_whitespace().filter(|word| word == code).count() >= 2, "{code} in\n{text}");
            }
        }
    }
}

#[test]
fn side_by_side_shows_the_change_and_both_matrices() {
    let before = filled(&["de", "en"]);
    let mut after = before.clone();
    after.multilingual.map = Some(0.75);
    after.multilingual.rank_distance = Some(1.0);
    after.by_direction.get_mut("de").unwrap().insert("en".into(), 0.9);
    let expected = "
                     before     after    change
monolingual mAP      0.6250    0.6250   +0.0000
cross-lingual mAP    0.6667    0.6667   +0.0000
multilingual mAP     0.4958    0.7500   +0.2542
rank distance           1.5       1.0      -0.5  (lower is better)

mAP x 100 by query language (rows) and passage language (columns)
before         after
     de   en        de   en
de  100 50.0   de  100 90.0
en 50.0 33.3   en 50.0 33.3
";
    assert_eq!(format!("\n{}", SideBySide { before: &before, after: &after }), expected);
}

#[test]
fn eight_languages_stand_side_by_side_and_eleven_one_below_the_other() {
    let lines = |codes: &[&str]| {
        let report = filled(codes);
        SideBySide { before: &report, after: &report }.to_string().lines().count()
    };
    let headline = 7;
    assert_eq!(lines(&XQUAD[..8]), headline + 1 + 1 + 8);
    assert_eq!(lines(&XQUAD), headline + 2 * (1 + 1 + 11));
}

#[test]
fn metric_names_are_checked() {
    for metric in Metric::ALL {
        assert_eq!(metric.to_string().parse::<Metric>().unwrap(), *metric);
    }
    let message = "multilingual_mpa".parse::<Metric>().unwrap_err();
    assert!(message.contains("multilingual_mpa"), "{message}");
    assert!(Metric::ALL.iter().all(|m| message.contains(&m.to_string())), "{message}");
    assert!(Metric::MultilingualMap.is_better(0.5, 0.4) && !Metric::MultilingualMap.is_better(0.4, 0.4));
    assert!(Metric::RankDistance.is_better(400.0, 500.0) && !Metric::RankDistance.is_better(500.0, 400.0));
}
