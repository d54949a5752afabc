//! The YAML at the head of a model card, in the form that the hub documents
//! ([model cards](https://huggingface.co/docs/hub/model-cards)) and `huggingface_hub.ModelCardData` reads.

use super::ModelCard;
use super::card::{DataName, Evaluated};

/// What sentence-transformers writes of its InformationRetrievalEvaluator.
const TASK: &str = "type: information-retrieval\n      name: Information Retrieval";

/// Keys and values, without the lines of dashes around them. Every text of others is in quotes: a bare `no` would be false,
/// not Norwegian.
pub(super) fn render(card: &ModelCard, license: &[(&str, String)]) -> String {
    let mut yaml = String::new();
    let is_fine_tuned = !card.origin.from_scratch;
    for (key, value) in license.iter().filter(|_| is_fine_tuned) {
        yaml += &format!("{key}: {}\n", quoted(value));
    }
    yaml += "library_name: sentence-transformers\npipeline_tag: sentence-similarity\ntags:\n";
    let tags = ["sentence-transformers", "sentence-similarity", "feature-extraction", "dense-retrieval", "hbt"];
    for tag in tags.into_iter().chain(card.is_multilingual().then_some("multilingual")) {
        yaml += &format!("- {tag}\n");
    }
    yaml += &list("language", card.known_languages());
    if let Some(base_model) = card.base_model() {
        yaml += &format!("base_model: {}\nbase_model_relation: finetune\n", quoted(base_model));
    }
    let of_hub = card.origin.data.iter().filter_map(|data| match data {
        DataName::Hub(id) => Some(id.as_str()),
        DataName::Local(_) | DataName::BuiltIn => None,
    });
    yaml + &list("datasets", of_hub) + &model_index(card)
}

/// A key with a list of texts, each once; nothing where there are none.
fn list<'a>(key: &str, items: impl Iterator<Item = &'a str>) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in items.map(|item| format!("- {}\n", quoted(item))) {
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    if lines.is_empty() { String::new() } else { format!("{key}:\n{}", lines.concat()) }
}

/// What was measured; nothing where that is nothing.
fn model_index(card: &ModelCard) -> String {
    let results: Vec<String> = card.results.iter().filter_map(result).collect();
    if results.is_empty() {
        return String::new();
    }
    format!("model-index:\n- name: {}\n  results:\n{}", quoted(&card.title()), results.concat())
}

fn result(Evaluated { dataset, split, metrics }: &Evaluated) -> Option<String> {
    // YAML 1.1 takes 1e-7 for a text: `Display` writes no exponents.
    let metric = |(kind, name, value): &(String, String, f64)| {
        format!("    - type: {}\n      value: {value}\n      name: {}\n", quoted(kind), quoted(name))
    };
    let metrics: Vec<String> = metrics.iter().filter(|(_, _, value)| value.is_finite()).map(metric).collect();
    let dataset = quoted(dataset);
    (!metrics.is_empty()).then(|| {
        format!(
            "  - task:\n      {TASK}\n    dataset:\n      name: {dataset}\n      type: {dataset}\n      split: {}\n    \
             metrics:\n{}",
            quoted(split),
            metrics.concat()
        )
    })
}

/// In double quotes with escapes that JSON and YAML share. What YAML forbids in a text or takes for the end of a line is
/// escaped, too.
pub(super) fn quoted(text: &str) -> String {
    let is_bare =
        |c: char| !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}');
    let json = serde_json::Value::from(text).to_string();
    json.chars().map(|c| if is_bare(c) { c.to_string() } else { format!("\\u{:04x}", u32::from(c)) }).collect()
}

/// What the front matter of a model's README says of its license: `license` and, where that is `other`, its name and the
/// address of its text. Nothing where it says none, or more than one.
pub(super) fn license(readme: &str) -> Vec<(&'static str, String)> {
    let lines: Vec<&str> = readme.trim_start_matches('\u{feff}').lines().map(str::trim_end).collect();
    let Some(("---", lines)) = lines.split_first().map(|(first, rest)| (*first, rest)) else { return Vec::new() };
    let Some(end) = lines.iter().position(|line| *line == "---") else { return Vec::new() };
    let value = |key: &str| {
        let mut values = lines[..end].iter().filter_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
        scalar(values.next()?)
    };
    let is_id = |text: &&str| text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.+".contains(c));
    let is_address = |text: &&str| text.starts_with("https://") && text.chars().all(|c| c.is_ascii_graphic());
    let Some(id) = value("license").filter(is_id) else { return Vec::new() };
    let mut found = vec![("license", id.to_owned())];
    if id == "other" {
        found.extend(value("license_name").filter(is_id).map(|name| ("license_name", name.to_owned())));
        // A name of a file would be one that the saved model lacks.
        found.extend(value("license_link").filter(is_address).map(|link| ("license_link", link.to_owned())));
    }
    found
}

/// The text that YAML writes as `value`, bare or in quotes; `None` for no text. What has an escape is not looked into.
fn scalar(value: &str) -> Option<&str> {
    let value = value.trim();
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
    let text = match quote {
        Some(quote) => value[1..].split_once(quote)?.0,
        None => value.split(" #").next()?.trim_end(),
    };
    let is_null = quote.is_none() && matches!(text, "~" | "null" | "Null" | "NULL");
    (!text.is_empty() && !is_null).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::super::card::Origin;
    use super::*;

    fn card() -> ModelCard {
        ModelCard {
            origin: Origin {
                base_model: Some("intfloat/multilingual-e5-small".into()),
                from_scratch: false,
                data: vec![
                    DataName::Hub("org/set".into()),
                    DataName::Local("my.jsonl".into()),
                    DataName::Hub("org/set".into()),
                ],
            },
            languages: vec!["de".into(), "no".into(), "und".into()],
            results: vec![Evaluated {
                dataset: "xquad-r".into(),
                split: "test".into(),
                metrics: vec![
                    ("multilingual_map".into(), "multilingual mAP".into(), 0.5),
                    ("rank_distance".into(), "rank distance".into(), 0.000_000_25),
                ],
            }],
            training: String::new(),
        }
    }

    /// `tests/fixtures/card_check.py` reads such a text back with PyYAML and huggingface_hub.
    #[test]
    fn has_the_form_of_the_hub() {
        let expected = "license: \"mit\"\n\
            library_name: sentence-transformers\n\
            pipeline_tag: sentence-similarity\n\
            tags:\n- sentence-transformers\n- sentence-similarity\n- feature-extraction\n- dense-retrieval\n- hbt\n\
            - multilingual\n\
            language:\n- \"de\"\n- \"no\"\n\
            base_model: \"intfloat/multilingual-e5-small\"\n\
            base_model_relation: finetune\n\
            datasets:\n- \"org/set\"\n\
            model-index:\n\
            - name: \"intfloat/multilingual-e5-small, fine-tuned for retrieval with hbt\"\n  results:\n  \
              - task:\n      type: information-retrieval\n      name: Information Retrieval\n    \
                dataset:\n      name: \"xquad-r\"\n      type: \"xquad-r\"\n      split: \"test\"\n    \
                metrics:\n    \
                - type: \"multilingual_map\"\n      value: 0.5\n      name: \"multilingual mAP\"\n    \
                - type: \"rank_distance\"\n      value: 0.00000025\n      name: \"rank distance\"\n";
        assert_eq!(render(&card(), &[("license", "mit".into())]), expected);
    }

    #[test]
    fn claims_nothing_that_is_not_known() {
        let unknown = ModelCard { languages: vec!["und".into()], ..ModelCard::default() };
        let plain = "library_name: sentence-transformers\npipeline_tag: sentence-similarity\n\
            tags:\n- sentence-transformers\n- sentence-similarity\n- feature-extraction\n- dense-retrieval\n- hbt\n";
        assert_eq!(render(&unknown, &[]), plain);
        // Weights that were drawn anew owe nothing to those beside whose tokenizer they were trained.
        let mut new = ModelCard { results: Vec::new(), languages: vec!["en".into()], ..card() };
        new.origin.from_scratch = true;
        let expected = format!("{plain}language:\n- \"en\"\ndatasets:\n- \"org/set\"\n");
        assert_eq!(render(&new, &[("license", "mit".into())]), expected);
        // Nor is a figure without a value one.
        new.results = vec![Evaluated {
            dataset: "a".into(),
            split: "b".into(),
            metrics: vec![("map".into(), "mAP".into(), f64::NAN)],
        }];
        assert_eq!(render(&new, &[]), expected);
    }

    #[test]
    fn texts_stay_one_line_of_yaml() {
        assert_eq!(quoted("a \"b\"\n\u{85}\u{2028}\u{7f}\u{feff}ü"), r#""a \"b\"\n\u0085\u2028\u007f\ufeffü""#);
    }

    #[test]
    fn licenses_are_read_from_front_matter_alone() {
        let of = |front: &str| license(&format!("---\n{front}\n---\n\nlicense: gpl\n"));
        let mit = vec![("license", "mit".to_owned())];
        for front in
            ["license: mit", "tags:\n- a\nlicense:   mit  # ours", "license: \"mit\"", "license: 'mit'\r\nx: y"]
        {
            assert_eq!(of(front), mit, "{front}");
        }
        for front in
            ["", "license:", "license: ~", "license: null", "license: [a, b]", "license:\n- mit", "x:\n  license: mit"]
        {
            assert_eq!(of(front), [], "{front}");
        }
        for readme in ["", "license: mit", "---\nlicense: mit\n", "text\n---\nlicense: mit\n---\n"] {
            assert_eq!(license(readme), [], "{readme}");
        }
        let other = "license: other\nlicense_name: gemma\nlicense_link: ";
        let named = vec![("license", "other".to_owned()), ("license_name", "gemma".to_owned())];
        assert_eq!(of(&format!("{other}LICENSE")), named);
        let link = ("license_link", "https://ai.google.dev/gemma/terms#a".to_owned());
        assert_eq!(of(&format!("{other}https://ai.google.dev/gemma/terms#a")), [named, vec![link]].concat());
        // What was written is read again.
        let written = render(&card(), &mit);
        assert_eq!(license(&format!("---\n{written}---\n")), mit);
    }
}
