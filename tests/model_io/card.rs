//! `README.md` of a saved model.

use super::tiny::Tiny;
use super::write::{card, model, no_extra, save_copy};
use hbt::model_dir::{Carried, ModelCard, ModelDir, ModelSave, Origin, save};
use std::fs;

#[test]
fn the_model_card_says_what_the_hub_asks_for() {
    let tiny = Tiny::plain();
    let root = tempfile::tempdir().unwrap();
    fs::write(tiny.path("README.md"), "---\nlicense: mit\n---\n").unwrap();
    save_copy(tiny.dir(), &root.path().join("base"), no_extra).unwrap();
    // What a card says of the license, a model that goes on from it says, too.
    save_copy(&root.path().join("base"), &root.path().join("model"), no_extra).unwrap();
    let card = fs::read_to_string(root.path().join("model/README.md")).unwrap();
    let (yaml, body) = card.strip_prefix("---\n").unwrap().split_once("---\n").unwrap();
    for line in [
        "library_name: sentence-transformers",
        "pipeline_tag: sentence-similarity",
        "language:\n- \"de\"\n- \"no\"",
        "base_model: \"intfloat/multilingual-e5-small\"\nbase_model_relation: finetune\n",
        "license: \"mit\"",
        "- multilingual\n",
    ] {
        assert!(yaml.contains(line), "{line:?} is not in {yaml}");
    }
    for text in
        ["60 steps of hybrid batches.", "SentenceTransformer(", "`\"query: \"`", "`\"passage: \"`", "| 4 tokens |"]
    {
        assert!(body.contains(text), "{text:?} is not in {body}");
    }
}

/// A prefix is shown as it is: it neither ends its cell or its code span nor becomes HTML.
#[test]
fn a_card_shows_prefixes_literally() {
    let tiny = Tiny::plain();
    let dir = ModelDir::open(tiny.dir()).unwrap();
    let root = tempfile::tempdir().unwrap();
    let card = ModelCard { origin: Origin { base_model: Some("org/<b>*x*".into()), ..Origin::default() }, ..card() };
    let carried = Carried::read(&dir).unwrap();
    let model = |query_prefix| ModelSave { query_prefix, ..model(&dir, &carried, &card) };
    for (prefix, cell) in [
        ("query: ", "`\"query: \"`"),
        ("a\nb\u{1b}[2J\u{9b}", "`\"a\\nb\\u001b[2J\\u009b\"`"),
        ("` | <img src=x>`", "`` \"` \\| <img src=x>`\" ``"),
        ("``` x ` y", "```` \"``` x ` y\" ````"),
    ] {
        let target = root.path().join("model");
        save(&target, &model(prefix), |_, part| Ok(vec![0.0; part.len()]), no_extra).unwrap();
        let readme = fs::read_to_string(target.join("README.md")).unwrap();
        assert!(readme.contains(&format!("\n| Before a query | {cell} |\n")), "{readme}");
        assert!(readme.contains("\n# org/\\<b\\>\\*x\\*, fine-tuned"), "{readme}");
    }
}
