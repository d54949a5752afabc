//! The three settings by hand, and what reports look like as JSON and as text.

use hbt::data::formats::Notes;
use hbt::eval::metrics::NDCG;
use hbt::eval::search::RelevantRank;
use hbt::eval::settings::{FIGURES, MULTILINGUAL_MAP};
use hbt::eval::tasks::{EvalSet, Passage, Query, Relevant, Task, parallel};
use hbt::eval::{EvalReport, FigureKey, SideBySide, bias, settings};
use serde_json::json;
use std::collections::BTreeMap;

const MONOLINGUAL_MAP: FigureKey = FigureKey { setting: Some(&settings::MONOLINGUAL), ..MULTILINGUAL_MAP };
const CROSS_LINGUAL_MAP: FigureKey = FigureKey { setting: Some(&settings::CROSS_LINGUAL), ..MULTILINGUAL_MAP };
const RANK_DISTANCE: FigureKey = FigureKey { setting: None, metric: &bias::RANK_DISTANCE, cutoff: None };

fn close(got: Option<f64>, expected: f64) {
    assert!((got.unwrap() - expected).abs() < 1e-12, "{got:?} is not {expected}");
}

/// Three German and two English passages; a question asked in both languages, and one with a German answer only.
fn two_languages() -> (EvalSet, Vec<Vec<RelevantRank>>) {
    let passage = |lang| Passage { lang, text: String::new() };
    let query = |lang, group, relevant: &[u32]| {
        let relevant = relevant.iter().copied().map(Relevant::binary).collect();
        Query { lang, group, relevant, ..Query::default() }
    };
    let set = EvalSet {
        notes: Notes::default(),
        task: &parallel::TASK,
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
    close(report.value(MONOLINGUAL_MAP), (de_de + 0.5) / 2.0);
    close(report.value(CROSS_LINGUAL_MAP), (1.0 + 1.0 / 3.0) / 2.0);
    // Pooled ranks 1 and 3, then 2, then 4 and 5.
    let de = ((1.0 + 2.0 / 3.0) / 2.0 + 0.5) / 2.0;
    let en = (1.0 / 4.0 + 2.0 / 5.0) / 2.0;
    close(report.value(MULTILINGUAL_MAP), (de + en) / 2.0);
    // Distances 2 and none for German, 1 for English.
    close(report.value(RANK_DISTANCE), 1.5);
    close(report.by_direction["map"]["de"].get("de").copied(), de_de);
    close(report.by_query_language["multilingual_map"].get("en").copied(), en);
    close(report.by_query_language["rank_distance"].get("de").copied(), 2.0);
    let aps: Vec<_> = report.per_query.iter().map(|q| (q.stratum, q.group)).collect();
    assert_eq!(aps, [((0, None), 0), ((0, None), 1), ((1, None), 0)]);
}

#[test]
fn one_language_has_no_cross_lingual_number() {
    let (mut set, ranks) = two_languages();
    set.queries.truncate(2);
    set.queries[0].relevant.pop();
    let only_german: Vec<_> = ranks[..2].iter().map(|ranks| ranks[..1].to_vec()).collect();
    let report = settings::report("m", &set, &only_german);
    assert_eq!(report.value(CROSS_LINGUAL_MAP), None);
    assert_eq!(report.value(RANK_DISTANCE), None);
    close(report.value(MONOLINGUAL_MAP), 0.75);
    let json = serde_json::to_string(&report).unwrap();
    let figure = r#"{"task":"parallel","setting":"cross_lingual","metric":"map","cutoff":null,"value":null}"#;
    assert!(json.contains(figure), "{json}");
    assert_eq!(serde_json::from_str::<EvalReport>(&json).unwrap().value(CROSS_LINGUAL_MAP), None);
    for (key, is_given) in FIGURES.iter().zip([true, false, true, false]) {
        let (asked, gives) = (set.deciding(Some(*key)), set.gives(*key));
        assert_eq!((gives, asked.is_ok()), (is_given, is_given), "{key}");
    }
    assert_eq!(set.deciding(None).unwrap(), MULTILINGUAL_MAP);
    let message = set.deciding(Some(RANK_DISTANCE)).unwrap_err().to_string();
    assert!(message.starts_with("best_metric: the evaluation data gives no rank_distance"), "{message}");
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
    let mut report = settings::report("intfloat/multilingual-e5-small", &set, &ranks);
    assert_eq!(report.data, set.key());
    report.data = "0123".into();
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(
        json,
        concat!(
            r#"{"model":"intfloat/multilingual-e5-small","task":"parallel","split":"all","languages":["de","en"],"#,
            r#""main":"multilingual_map","figures":["#,
            r#"{"task":"parallel","setting":"monolingual","metric":"map","cutoff":null,"value":0.625},"#,
            r#"{"task":"parallel","setting":"cross_lingual","metric":"map","cutoff":null,"value":0.625},"#,
            r#"{"task":"parallel","setting":"multilingual","metric":"map","cutoff":null,"value":0.6875},"#,
            r#"{"task":"parallel","setting":null,"metric":"rank_distance","cutoff":null,"value":3.5}],"#,
            r#""by_direction":{"map":{"de":{"de":0.75,"en":1.0},"en":{"de":0.25,"en":0.5}}},"#,
            r#""by_query_language":{"multilingual_map":{"de":1.0,"en":0.375},"#,
            r#""rank_distance":{"de":1.0,"en":6.0}},"n_queries":{"de":{"de":2,"en":1},"en":{"de":1,"en":1}},"#,
            r#""data":"0123","per_query":["#,
            r#"{"query_language":0,"passage_language":null,"groups":[0,1],"values":[1.0,1.0]},"#,
            r#"{"query_language":1,"passage_language":null,"groups":[0],"values":[0.375]}]}"#
        )
    );
    assert_eq!(serde_json::from_str::<EvalReport>(&json).unwrap(), report);
    // As earlier versions wrote it.
    let mut old = serde_json::to_value(&report).unwrap();
    old.as_object_mut().unwrap().retain(|name, _| !["n_queries", "data", "per_query"].contains(&name.as_str()));
    let read: EvalReport = serde_json::from_value(old).unwrap();
    assert_eq!(read, EvalReport { n_queries: BTreeMap::new(), data: String::new(), per_query: Vec::new(), ..report });
}

/// A report over `codes` in which every direction has another value.
fn filled(codes: &[&str]) -> EvalReport {
    let (set, ranks) = two_languages();
    let mut report = settings::report("weights/tiny", &set, &ranks);
    let row = |q: usize| codes.iter().enumerate().map(|(p, c)| (c.to_string(), 1.0 / (1 + q + p) as f64)).collect();
    report.languages = codes.iter().map(|c| c.to_string()).collect();
    let matrix = codes.iter().enumerate().map(|(q, c)| (c.to_string(), row(q))).collect::<BTreeMap<_, _>>();
    report.by_direction = BTreeMap::from([("map".to_owned(), matrix)]);
    for values in report.by_query_language.values_mut() {
        let value = values["de"];
        *values = codes.iter().map(|c| (c.to_string(), value)).collect();
    }
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
queries with an answer in the passages' language: 1 (de-en) to 2 (de-de)

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
    after.figures[2].value = Some(0.75);
    after.figures[3].value = Some(1.0);
    after.by_direction.get_mut("map").unwrap().get_mut("de").unwrap().insert("en".into(), 0.9);
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
fn names_titles_and_what_is_better() {
    let ndcg = FigureKey { metric: &NDCG, cutoff: Some(10), ..CROSS_LINGUAL_MAP };
    let plain = FigureKey { setting: None, ..ndcg };
    let [names, titles]: [Vec<String>; 2] = [FigureKey::to_string, FigureKey::title]
        .map(|of| [MULTILINGUAL_MAP, RANK_DISTANCE, ndcg, plain].iter().map(of).collect());
    assert_eq!(names, ["multilingual_map", "rank_distance", "cross_lingual_ndcg@10", "ndcg@10"]);
    assert_eq!(titles, ["multilingual mAP", "rank distance", "cross-lingual nDCG@10", "nDCG@10"]);
    let (map, distance) = (MULTILINGUAL_MAP.metric, RANK_DISTANCE.metric);
    assert!(map.is_better(0.5, 0.4) && !map.is_better(0.4, 0.4));
    assert!(distance.is_better(400.0, 500.0) && !distance.is_better(500.0, 400.0));
}

/// Figures that a task does not list are given on demand, and read back.
#[test]
fn one_figure_more_by_hand() {
    let (set, ranks) = two_languages();
    let named = |name: &str| settings::ON_DEMAND.into_iter().find(|key| key.to_string() == name).unwrap();
    let gain = |rank: f64| 1.0 / (1.0 + rank).log2();
    let both = gain(1.0) + gain(2.0);
    // Ranks 3 and 1, and 2, in German; 5 and 4 in English. In a language: 2, 1 (de-de); 1 (de-en); 3 (en-de); 2 (en-en).
    for (name, expected) in [
        (
            "multilingual_ndcg@10",
            (((gain(3.0) + gain(1.0)) / both + gain(2.0)) / 2.0 + (gain(5.0) + gain(4.0)) / both) / 2.0,
        ),
        ("monolingual_ndcg@10", ((gain(2.0) + gain(1.0)) / 2.0 + gain(2.0)) / 2.0),
        ("multilingual_mrr@10", ((1.0 + 1.0 / 2.0) / 2.0 + 1.0 / 4.0) / 2.0),
        ("cross_lingual_mrr@10", (1.0 + 1.0 / 3.0) / 2.0),
        ("multilingual_recall@100", 1.0),
    ] {
        let key = named(name);
        assert!(set.gives(key) && set.deciding(Some(key)).unwrap() == key, "{name}");
        let report = settings::report_with(Some(key), "m", &set, &ranks);
        close(report.value(key), expected);
        assert_eq!(report.figures[..4], settings::report("m", &set, &ranks).figures, "{name}");
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<EvalReport>(&json).unwrap(), report, "{name}");
    }
    // One that is listed is not listed twice.
    let same = settings::report_with(Some(MULTILINGUAL_MAP), "m", &set, &ranks);
    assert_eq!(same, settings::report("m", &set, &ranks));
}

/// A task with other figures than the paper's, whose judgements have grades.
#[test]
fn figures_are_those_that_the_task_lists() {
    const NDCG_AT_2: FigureKey = FigureKey { setting: None, metric: &NDCG, cutoff: Some(2) };
    static FIGURES: [FigureKey; 3] = [
        NDCG_AT_2,
        FigureKey { setting: Some(&settings::MONOLINGUAL), ..NDCG_AT_2 },
        FigureKey { setting: Some(&settings::CROSS_LINGUAL), ..MULTILINGUAL_MAP },
    ];
    static GRADED: Task = Task { name: "graded", figures: &FIGURES, main: FIGURES[1], ..parallel::TASK };
    let (set, ranks) = two_languages();
    let mut set = EvalSet { task: &GRADED, ..set };
    set.queries[0].relevant[0].grade = 3;
    set.queries[2].relevant[1].grade = 0;
    let report = settings::report("m", &set, &ranks);
    // In German grades 3 and 1 at ranks 3 and 1: 1 of 3 + 1/log2(3); then 1 at rank 2: 1/log2(3). In English rank 5: 0.
    let second = 1.0 / 3.0f64.log2();
    close(report.value(FIGURES[0]), ((1.0 / (3.0 + second) + second) / 2.0 + 0.0) / 2.0);
    // German: 3 at rank 2, so log2(3) less than the best, and 1. English finds nothing that is relevant.
    close(report.value(FIGURES[1]), ((second + 1.0) / 2.0 + 0.0) / 2.0);
    close(report.value(FIGURES[2]), (1.0 + 1.0 / 3.0) / 2.0);
    assert_eq!(report.value(MULTILINGUAL_MAP), None);
    let text = report.to_string();
    let expected = "\
m: graded, split all, 2 languages
nDCG@2               0.2266
monolingual nDCG@2   0.4077
cross-lingual mAP    0.6667
queries with an answer in the passages' language: 1 (de-en) to 2 (de-de)

nDCG@2 x 100 by query language (rows) and passage language (columns); pool = all languages
     de   en   pool
de 81.5    -   45.3
en    -  0.0    0.0

mAP x 100 by query language (rows) and passage language (columns)
     de   en
de    -  100
en 33.3    -
";
    assert_eq!(text, expected);
    let strata: Vec<_> = report.per_query.iter().map(|q| q.stratum).collect();
    assert_eq!(strata, [(0, Some(0)), (0, Some(0)), (1, Some(1))]);
    for (query, expected) in report.per_query.iter().zip([second, 1.0, 0.0]) {
        close(Some(query.value), expected);
    }
}

/// What a report that is read back may not say, and what is said of it.
#[test]
fn a_report_that_is_read_back_is_checked() {
    let (set, ranks) = two_languages();
    let good = serde_json::to_value(settings::report("m", &set, &ranks)).unwrap();
    let error = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut report = good.clone();
        change(&mut report);
        serde_json::from_value::<EvalReport>(report).unwrap_err().to_string()
    };
    let old = json!({
        "model": "m", "task": "parallel", "split": "all", "languages": ["de"], "monolingual": {"map": 0.5},
        "cross_lingual": {"map": null}, "multilingual": {"map": 0.5, "rank_distance": null},
        "by_direction": {"de": {"de": 0.5}}, "by_query_language": {"de": {"multilingual_map": 0.5, "rank_distance": null}},
    });
    assert_eq!(error(&|report| *report = old.clone()), "its report lists no figures, so an earlier hbt wrote it");
    assert_eq!(error(&|report| report["task"] = "lareqa".into()), "there is no task \"lareqa\"");
    assert_eq!(error(&|report| report["main"] = "map".into()), "its main figure is not among its figures");
    assert_eq!(error(&|report| report["figures"][0]["metric"] = "gap".into()), "parallel gives no monolingual_gap");
    assert_eq!(error(&|report| report["figures"][2]["cutoff"] = 10.into()), "parallel gives no multilingual_map@10");
    assert_eq!(error(&|report| report["figures"][3]["task"] = "xquad-r".into()), "xquad-r gives no rank_distance");
    let twice = |report: &mut serde_json::Value| report["figures"][1] = report["figures"][0].clone();
    assert_eq!(error(&twice), "monolingual_map is listed twice");
    for (place, name) in [("/by_direction", "ndcg"), ("/by_direction/map", "fr"), ("/by_direction/map/de", "fr")] {
        let details = |report: &mut serde_json::Value| {
            let value = if name == "fr" && place.ends_with("de") { json!(0.5) } else { json!({}) };
            report.pointer_mut(place).unwrap()[name] = value;
        };
        assert_eq!(error(&details), format!("its report has details of {name:?}, but does not list it"));
    }
    for (list, value, message) in [
        ("groups", json!([0]), "per_query has 1 groups beside 2 values"),
        ("query_language", json!(2), "per_query has language 2 of 2, counted from 0"),
    ] {
        assert_eq!(error(&|report| report["per_query"][0][list] = value.clone()), message);
    }
    let other = |report: &mut serde_json::Value| report["by_query_language"]["rank_distance"]["fr"] = json!(1.0);
    assert_eq!(error(&other), "its report has details of \"fr\", but does not list it");
}
