//! What a newcomer runs first: the built-in model and questions, without any file or network.

use crate::common::Sandbox;

#[test]
fn the_built_in_model_learns_across_languages_in_a_few_steps() {
    let sandbox = Sandbox::new();
    sandbox.hbt(&["train", "--set", "steps=100", "--set", "eval_data=none"]).ok();
    let reports = sandbox.json("runs/train/eval.json");
    let cross = |when: &str| reports[when]["cross_lingual"]["map"].as_f64().unwrap();
    assert_eq!(reports["before"]["languages"].as_array().unwrap().len(), 8);
    assert!(cross("after") > 2.0 * cross("before"), "{} to {}", cross("before"), cross("after"));
    // A second run takes a directory of its own.
    sandbox.hbt(&["train", "--set", "steps=2", "--set", "eval_task=none"]).ok();
    assert!(sandbox.path("runs/train-2/last/model.safetensors").exists());
}

#[test]
fn the_built_in_data_is_what_its_readme_says() {
    let sandbox = Sandbox::new();
    let report = sandbox.hbt(&["prepare"]).ok().stdout;
    assert!(report.contains("1,088") || report.contains("1088"), "{report}");
}
