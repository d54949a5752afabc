//! The real XQuAD-R: no mined negative is a version of the answer, by the original files.

use crate::common::{Sandbox, fixture};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::path::Path;

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// By question id, the versions of the answer's sentence by language.
fn answers(dir: &Path, langs: &[&str]) -> HashMap<String, HashMap<String, String>> {
    let split = json(&dir.join("split.json"));
    let is_train = |title: &Value| split["train"].as_array().unwrap().contains(title);
    let mut answers: HashMap<String, HashMap<String, String>> = HashMap::new();
    for lang in langs {
        let file = json(&dir.join(format!("{lang}.json")));
        for article in file["data"].as_array().unwrap().iter().filter(|article| is_train(&article["title"])) {
            for paragraph in article["paragraphs"].as_array().unwrap() {
                for question in paragraph["qas"].as_array().unwrap() {
                    let start = &question["answers"][0]["answer_start"].as_u64().unwrap();
                    let breaks = paragraph["sentence_breaks"].as_array().unwrap();
                    let holds =
                        |range: &Value| (range[0].as_u64().unwrap()..range[1].as_u64().unwrap()).contains(start);
                    let sentence = &paragraph["sentences"][breaks.iter().position(holds).unwrap()];
                    let versions = answers.entry(question["id"].as_str().unwrap().to_owned()).or_default();
                    versions.insert(lang.to_string(), sentence.as_str().unwrap().to_owned());
                }
            }
        }
    }
    answers
}

#[test]
fn no_negative_is_a_version_of_the_answer() {
    let Some(dir) = crate::data::xquad_r::xquad_r() else { return };
    let langs = ["ar", "de", "el", "en", "es", "hi", "ru", "th", "tr", "vi", "zh"];
    let answers = answers(&dir, &langs);
    // Versions of a sentence stand in every question's group that it answers.
    let mut questions_of: HashMap<&str, Vec<&str>> = HashMap::new();
    for (id, versions) in &answers {
        versions.values().for_each(|text| questions_of.entry(text).or_default().push(id));
    }
    let sandbox = Sandbox::new();
    let (bert, data) = (fixture("bert"), dir.to_str().unwrap());
    for languages in ["same", "all"] {
        // All ranks, so that every version would be found.
        let ranks = ["--range-min", "1", "--range-max", "50", "--num-negatives", "50", "--relative-margin", "none"];
        let args = ["mine", "--model", &bert, "--data", data, "--set", "split=train", "--output", "mined.jsonl"];
        sandbox.hbt(&[&args[..], &ranks, &["--languages", languages]].concat()).ok();
        let mined = sandbox.read("mined.jsonl");
        assert_eq!(mined.lines().count(), answers.len());
        let mut n_negatives = 0;
        for line in mined.lines() {
            let row: Value = serde_json::from_str(line).unwrap();
            let own = &answers[row["id"].as_str().unwrap()];
            let same: HashSet<&String> = own
                .values()
                .flat_map(|text| &questions_of[text.as_str()])
                .flat_map(|id| answers[*id].values())
                .collect();
            for (lang, texts) in row["negatives"].as_object().unwrap() {
                for text in texts.as_array().unwrap() {
                    let text = text.as_str().unwrap().to_owned();
                    assert!(!same.contains(&text), "{}: {text}", row["id"]);
                    assert!(questions_of[text.as_str()].iter().any(|id| answers[*id][lang] == text), "{lang}: {text}");
                    n_negatives += 1;
                }
            }
        }
        assert_eq!(n_negatives, answers.len() * 50 * if languages == "same" { langs.len() } else { 1 });
    }
}
