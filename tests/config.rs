//! Configuration through the public API: what is read, what is refused and in which words, what is saved.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use hbt::cli::{Cli, Command};
use hbt::config::*;
use hbt::eval::tasks::xquad_r;

/// Writes `text` to a file in a fresh directory. The directory goes when the first value is dropped.
fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.toml");
    fs::write(&path, text).unwrap();
    (dir, path)
}

fn load(text: &str) -> hbt::Result<Config> {
    let (_dir, path) = file(text);
    Config::load(&path)
}

/// The error that `text` as a file gives, with the directory taken away.
fn file_error(text: &str) -> String {
    let (dir, path) = file(text);
    let error = Config::load(&path).expect_err(text).to_string();
    error.replace(&format!("{}/", dir.path().display()), "")
}

fn with(assignments: &[&str]) -> hbt::Result<Config> {
    let mut draft = Draft::new();
    for assignment in assignments {
        draft.set(&assignment.parse().unwrap())?;
    }
    draft.finish()
}

fn set_error(assignment: &str) -> String {
    with(&[assignment]).expect_err(assignment).to_string()
}

/// A value for every key that is not its default, as TOML.
const CHANGED: &[(&str, &str)] = &[
    ("model", r#""intfloat/multilingual-e5-small""#),
    ("from_scratch", "true"),
    ("pooling", r#""cls""#),
    ("dropout", "0.25"),
    ("data", r#""a \"b\" ü.jsonl""#),
    ("data_format", r#""squad""#),
    ("split", r#""train""#),
    ("passage_unit", r#""paragraph""#),
    ("datasets", r#"[{ name = "a", data = "b\"", split = "test", query_prefix = "", weight = 0.1 }, { data = "c" }]"#),
    ("dataset_sampling", r#""round_robin""#),
    ("dataset_temperature", "1"),
    ("dataset_batches", r#""mixed""#),
    ("query_prefix", r#""Frage:\t\n""#),
    ("passage_prefix", r#""""#),
    ("query_max_len", "32"),
    ("passage_max_len", "8192"),
    ("mode", r#""mixed_monolingual""#),
    ("alpha", "1"),
    ("lang_sampling", r#""temperature""#),
    ("lang_temperature", "1.5"),
    ("batch_size", "32768"),
    ("negatives_per_query", "0"),
    ("teacher_margin", "-0.5"),
    ("chunk_tokens", "100000"),
    ("kept_chunks", "3"),
    ("stall_minutes", "2.5"),
    ("steps", "60"),
    ("epochs", "0.1"),
    ("learning_rate", "1.2345678901234567e-7"),
    ("lr_schedule", r#""cosine""#),
    ("warmup_ratio", "0"),
    ("weight_decay", "0.0"),
    ("max_grad_norm", r#""none""#),
    ("temperature", "0.1"),
    ("temperature_learning_rate", "0.001"),
    ("symmetric", "true"),
    ("margin", "0.1"),
    ("in_batch_negatives", "false"),
    ("query_negatives", "true"),
    ("passage_negatives", "true"),
    ("false_negative_margin", "0.05"),
    ("matryoshka_dims", "[384, 64]"),
    ("matryoshka_weights", "[1.0, 0.25]"),
    ("distillation", r#""margin_mse""#),
    ("distillation_weight", "0.5"),
    ("distillation_temperature", "0.05"),
    ("teacher_temperature", "2.0"),
    ("contrastive_weight", "0"),
    ("seed", "9223372036854775807"),
    ("eval_task", r#""xquad-r""#),
    ("eval_data", r#""held out""#),
    ("eval_split", r#""test""#),
    ("eval_fraction", "0.1"),
    (
        "evaluations",
        r#"[{ name = "a", task = "mlqa-r", data = "b\"", split = "test", languages = ["de", "sw"] }, { data = "c" }]"#,
    ),
    ("eval_on_start", "false"),
    ("exclude_languages", r#"["sw", "th"]"#),
    ("query_column", r#""frage""#),
    ("positive_column", r#""antwort""#),
    ("negative_column", r#""falsch""#),
    ("join_by_id", "true"),
    ("truncate_dim", "64"),
    ("eval_steps", "20"),
    ("best_metric", r#""rank_distance""#),
    ("patience", "3"),
    ("out", r#""runs/x""#),
    ("device", r#""cuda""#),
    ("precision", r#""bf16""#),
    ("threads", "1"),
    ("log_steps", "1"),
    ("save_steps", "50"),
    ("keep_checkpoints", "3"),
];

#[test]
fn every_key_survives_saving_and_loading() {
    let tested: BTreeSet<_> = CHANGED.iter().map(|(name, _)| *name).collect();
    assert_eq!(tested, KEYS.iter().map(|key| key.name).collect(), "the list above names every key");
    for (name, value) in CHANGED {
        let needed = match *name {
            "patience" => "eval_steps = 5",
            "passage_negatives" => "symmetric = true",
            "matryoshka_weights" => "matryoshka_dims = [2, 3]",
            "distillation_weight" | "distillation_temperature" | "teacher_temperature" | "contrastive_weight" => {
                "distillation = \"kl\""
            }
            _ => "",
        };
        let text = format!("{name} = {value}\n{needed}");
        let config = load(&text).unwrap_or_else(|error| panic!("{error}"));
        assert_ne!(config, Config::default(), "{name}");
        assert_eq!(load(&config.to_toml()).unwrap(), config, "{name}");
    }
}

#[test]
fn defaults_are_the_papers_where_it_states_them() {
    let config = load("").unwrap();
    assert_eq!(config, Config::default());
    assert_eq!((config.mode, config.alpha, config.lang_sampling), (BatchMode::Hybrid, 0.5, LangSampling::Uniform));
    assert_eq!((config.learning_rate, config.batch_size, config.weight_decay), (3e-5, 100, 0.01));
    assert!(config.warnings().is_empty());
}

#[test]
fn a_saved_configuration_explains_itself() {
    let text = Config::default().to_toml();
    let lines: Vec<_> = text.lines().collect();
    for key in KEYS {
        let at = lines.iter().position(|line| line.starts_with(&format!("{} = ", key.name))).expect(key.name);
        let above = lines[..at].rsplit(|line| !line.starts_with("# ")).next().unwrap();
        let above: Vec<&str> = above.iter().map(|line| &line[2..]).collect();
        assert_eq!(above.join(" "), format!("{}. {}", key.help, key.expects()));
    }
    assert!(lines.contains(&"learning_rate = 3e-5"), "{text}");
    assert!(lines.iter().all(|line| line.len() <= 120));
}

#[test]
fn later_sources_win_in_whatever_order_they_are_read() {
    let (_dir, path) = file("batch_size = 2\nalpha = 0.2\nseed = 2\nout = 'from file'");
    let config = |order: [u8; 4]| {
        let mut draft = Draft::new();
        for source in order {
            match source {
                0 => draft.preset("tiny", "batch_size = 3\nalpha = 0.3\nseed = 3\nquery_max_len = 33").unwrap(),
                1 => draft.file(&path).unwrap(),
                2 => draft.option("--out", "out", "from option").unwrap(),
                _ => draft.set(&"alpha=0.4".parse().unwrap()).unwrap(),
            };
        }
        draft.finish().unwrap()
    };
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]] {
        let config = config(order);
        assert_eq!((config.query_max_len, config.batch_size, config.alpha), (Some(33), 2, 0.4));
        assert_eq!((config.out.as_path(), config.seed), (Path::new("from option"), 2));
    }
}

#[test]
fn the_length_of_a_run_is_given_once() {
    let length = |config: Config| (config.steps, config.epochs);
    assert_eq!(length(with(&[]).unwrap()), (None, Some(1.0)));
    assert_eq!(length(with(&["steps=60"]).unwrap()), (Some(60), None));
    assert_eq!(length(with(&["epochs=3"]).unwrap()), (None, Some(3.0)));
    assert!(set_error("epochs=none").contains("neither steps nor epochs"));
    assert_eq!(
        file_error("seed = 1\nsteps = 3\nepochs = 2"),
        "run.toml, line 2: steps: epochs is given as well; keep one of the two"
    );

    let (_dir, path) = file("epochs = 2");
    let mut draft = Draft::new();
    draft.set(&"steps=9".parse().unwrap()).unwrap();
    draft.file(&path).unwrap();
    assert_eq!(length(draft.finish().unwrap()), (Some(9), None));
}

#[test]
fn set_takes_toml_and_bare_words() {
    let config = with(&[
        "mode=cross_lingual",
        " alpha = 0.25",
        "symmetric=true",
        "out=2024",
        "query_prefix=query: ",
        r#"passage_prefix="passage: ""#,
        "max_grad_norm=none",
        "learning_rate=1e-4",
        "data=a=b.jsonl",
    ])
    .unwrap();
    assert_eq!(config.mode, BatchMode::CrossLingual);
    assert_eq!((config.alpha, config.learning_rate, config.max_grad_norm), (0.25, 1e-4, None));
    assert!(config.symmetric);
    assert_eq!(config.out, Path::new("2024"));
    assert_eq!(config.data.as_deref(), Some(Path::new("a=b.jsonl")));
    assert_eq!(config.query_prefix.as_deref(), Some("query: "));
    assert_eq!(config.passage_prefix.as_deref(), Some("passage: "));
    assert!("alpha".parse::<Assignment>().unwrap_err().contains("key=value"));
    assert!("=1".parse::<Assignment>().is_err());
}

#[test]
fn unknown_keys_name_the_place_and_the_nearest_key() {
    assert_eq!(
        file_error("# a comment\n\nseed = 1\nlearning_rat = 1"),
        "run.toml, line 4: unknown key \"learning_rat\"; did you mean learning_rate?"
    );
    assert_eq!(set_error("Batch-Size=4"), "--set: unknown key \"Batch-Size\"; did you mean batch_size?");
    for (theirs, ours) in [("lr", "learning_rate"), ("num_train_epochs", "epochs"), ("tau", "temperature")] {
        assert!(set_error(&format!("{theirs}=1")).ends_with(&format!("did you mean {ours}?")), "{theirs}");
    }
    let far = set_error("xyzzy=1");
    assert!(far.contains("alpha") && far.contains("`hbt config`") && !far.contains("did you mean"), "{far}");
}

#[test]
fn wrong_values_say_what_is_there_and_what_must_be() {
    let cases = [
        ("alpha=1.5", "alpha is 1.5; it must be a number from 0 to 1"),
        ("alpha=-0.1", "alpha is -0.1; it must be a number from 0 to 1"),
        ("alpha=nan", "alpha is nan; it must be a number from 0 to 1"),
        ("alpha=half", "alpha is \"half\"; it must be a number from 0 to 1"),
        ("temperature=0", "temperature is 0; it must be a number of at least 0.0001"),
        ("temperature=inf", "temperature is inf; it must be a number of at least 0.0001"),
        ("learning_rate=0", "learning_rate is 0; it must be a number above 0"),
        ("batch_size=1", "batch_size is 1; it must be a whole number of at least 2"),
        ("batch_size=2.5", "batch_size is 2.5; it must be a whole number of at least 2"),
        ("batch_size=[8]", "batch_size is a list; it must be a whole number of at least 2"),
        ("query_max_len=7", "query_max_len is 7; it must be a whole number of at least 8"),
        ("warmup_ratio=2", "warmup_ratio is 2; it must be a number from 0 to 1"),
        ("dropout=1", "dropout is 1; it must be a number from 0 to below 1, or none"),
        ("patience=0", "patience is 0; it must be a whole number of at least 1, or none"),
        ("seed=-1", "seed is -1; it must be a whole number of at least 0"),
        ("symmetric=1", "symmetric is 1; it must be true or false"),
        ("data=", "data is empty; it must be a path, or none"),
        ("pooling=max", "pooling is \"max\"; it must be one of cls, mean, or none"),
        (
            "eval_task=xquad_r",
            "did you mean xquad-r? It must be one of xquad-r, mlqa-r, belebele, retrieval, parallel, or auto, or none",
        ),
        (
            "eval_task=paralel",
            "did you mean parallel? It must be one of xquad-r, mlqa-r, belebele, retrieval, parallel, or auto, or none",
        ),
        (
            "eval_task=miracl",
            "eval_task is \"miracl\"; it must be one of xquad-r, mlqa-r, belebele, retrieval, parallel, or auto, or none",
        ),
        ("mode=hybird", "did you mean hybrid? It must be one of monolingual, mixed_monolingual, cross_lingual, hybrid"),
        ("mode=7", "mode is 7; it must be one of monolingual, mixed_monolingual, cross_lingual, hybrid"),
        ("best_metric=multilingual", "did you mean multilingual_map? It must be one of"),
        ("best_metric=ndcg@11", "did you mean ndcg@10? It must be one of monolingual_map, "),
        ("best_metric=hits@3", "best_metric is \"hits@3\"; it must be one of monolingual_map, "),
    ];
    for (assignment, message) in cases {
        let error = set_error(assignment);
        assert!(error.starts_with("--set: ") && error.contains(message), "{assignment} gives: {error}");
    }
    assert_eq!(
        file_error("seed = 1\nbatch_size = \"32\""),
        "run.toml, line 2: batch_size is \"32\"; it must be a whole number of at least 2"
    );
}

#[test]
fn a_value_that_loses_is_checked_all_the_same() {
    let (_dir, path) = file("alpha = 7");
    let mut draft = Draft::new();
    draft.set(&"alpha=0.1".parse().unwrap()).unwrap();
    assert!(draft.file(&path).is_err());
}

#[test]
fn files_that_are_no_configuration_are_refused() {
    assert!(file_error("seed = 1\nmode = hybrid\n").starts_with("run.toml, line 2: not valid TOML"));
    assert!(file_error("seed = 1\nseed = 2\n").starts_with("run.toml, line 2: not valid TOML: duplicate key"));
    assert_eq!(
        file_error("seed = 1\n[train]\nsteps = 3"),
        "run.toml, line 2: keys stand by themselves, without tables; take away [train]"
    );

    let dir = tempfile::tempdir().unwrap();
    let error = |path: &Path| Config::load(path).unwrap_err().to_string();
    let path = dir.path().join("data.jsonl");
    fs::write(&path, "{\"query\": \"a\"}\n").unwrap();
    assert!(error(&path).contains("data.jsonl, line 1: not valid TOML"));
    assert!(error(&path).contains("--data"));
    assert!(error(dir.path()).contains("is a directory"));
    fs::write(&path, b"out = \"\xff\"").unwrap();
    assert!(error(&path).ends_with("is not UTF-8; save it as UTF-8 text"));
    assert!(error(&dir.path().join("gone.toml")).contains("cannot read"));
}

#[test]
fn keys_are_checked_against_one_another() {
    let error = |sets: &[&str]| with(sets).unwrap_err().to_string();
    assert!(error(&["chunk_tokens=128", "passage_max_len=256"]).contains("passage_max_len = 256"));
    assert!(error(&["chunk_tokens=300", "query_max_len=301"]).contains("query_max_len = 301"));
    assert!(with(&["chunk_tokens=8"]).is_ok());
    assert!(error(&["patience=2"]).contains("set eval_steps"));
    assert!(error(&["patience=2", "eval_steps=5", "eval_task=none"]).contains("eval_task is none"));
    assert!(error(&["model="]).starts_with("model: is empty"));
    assert!(error(&["passage_negatives=true"]).contains("set symmetric = true"));
    assert!(error(&["in_batch_negatives=false", "symmetric=true"]).contains("take symmetric away"));
    assert!(error(&["in_batch_negatives=false", "query_negatives=true"]).contains("take query_negatives away"));
    assert!(error(&["in_batch_negatives=false", "negatives_per_query=0"]).contains("has no negative at all"));
    assert!(error(&["matryoshka_dims=[]"]).contains("a list of different numbers"));
    assert!(error(&["matryoshka_dims=[64, 64]"]).contains("a list of different numbers"));
    assert!(error(&["matryoshka_dims=[64, 0]"]).contains("a list in brackets, each a whole number of at least 1"));
    assert!(error(&["matryoshka_weights=[1.0]"]).contains("belongs to matryoshka_dims"));
    assert!(error(&["matryoshka_dims=[64]", "matryoshka_weights=[1.0, 2.0]"]).contains("give one each"));
    for key in ["distillation_weight=2", "distillation_temperature=1", "teacher_temperature=2", "contrastive_weight=0"]
    {
        let name = key.split('=').next().unwrap();
        assert!(error(&[key]).starts_with(&format!("{name}: belongs to distillation, which is none")), "{key}");
    }
    assert!(error(&["distillation=mse"]).contains("one of kl, margin_mse, or none"));
    let message = error(&["distillation=kl", "negatives_per_query=0"]);
    assert!(message.starts_with("negatives_per_query: is 0, but distillation"), "{message}");
    for set in ["symmetric=true", "margin=0.1", "in_batch_negatives=false", "query_negatives=true", "teacher_margin=0"]
    {
        let message = error(&["distillation=kl", "contrastive_weight=0", set]);
        let (key, _) = set.split_once('=').unwrap();
        assert!(message.starts_with(&format!("{key}: has no effect where distillation stands alone")), "{message}");
    }
    let alone = ["distillation=kl", "contrastive_weight=0", "temperature_learning_rate=0.1"];
    assert!(with(&alone).is_ok());
    assert!(
        error(&[&alone[..], &["distillation_temperature=0.1"]].concat()).starts_with("temperature_learning_rate: ")
    );
    assert!(file_error("\npatience = 2").starts_with("run.toml, line 2: patience: "));
}

#[test]
fn odd_settings_are_warned_about() {
    let warnings = |sets: &[&str]| with(sets).unwrap().warnings().join("\n");
    assert!(warnings(&["temperature=0.21"]).contains("temperature 0.21"));
    assert_eq!(warnings(&["temperature=0.2"]), "");
    assert!(warnings(&["learning_rate=3"]).contains("learning_rate 3"));
    assert!(warnings(&["mode=monolingual", "alpha=0.3"]).contains("alpha has no effect"));
    assert_eq!(warnings(&["mode=monolingual"]), "");
    let unused = "eval_data has no effect, since eval_task is none\neval_steps has no effect, since eval_task is none";
    assert_eq!(warnings(&["eval_task=none", "eval_data=d", "eval_steps=5"]), unused);
    assert_eq!(warnings(&["eval_task=none"]), "");
    assert!(warnings(&["lang_temperature=2"]).contains("lang_temperature has no effect"));
    assert_eq!(warnings(&["lang_temperature=2", "lang_sampling=temperature"]), "");

    let seen = "evaluation uses texts that training has seen";
    assert!(warnings(&["data=d", "split=all", "eval_task=parallel"]).contains(seen));
    assert_eq!(warnings(&["data=d"]), "", "without eval_data, undivided data is not evaluated on");
    assert!(warnings(&["data=d", "eval_data=d", "split=train", "eval_split=all"]).contains(seen));
    for sets in [["eval_data=e", "split=all"], ["eval_task=none", "split=all"], ["split=train", "eval_split=test"]] {
        assert_eq!(warnings(&[&["data=d"], sets.as_slice()].concat()), "", "{sets:?}");
    }
}

fn command(line: &[&str]) -> Command {
    Cli::try_parse_from([&["hbt"], line].concat()).unwrap().command
}

#[test]
fn options_rank_between_file_and_set() {
    let (_dir, path) = file("model = 'of file'\ndata = 'of file'\nout = 'of file'\nseed = 7");
    let line =
        ["train", path.to_str().unwrap(), "--model", "m", "--data", "none", "--from-scratch", "--set", "model=s"];
    let Command::Train(args) = command(&line) else { panic!("not train") };
    let config = args.draft().unwrap().finish().unwrap();
    assert_eq!((config.model.as_deref(), config.data, config.seed), (Some("s"), None, 7));
    assert_eq!(config.out, Path::new("of file"));
    assert!(config.from_scratch);
}

#[test]
fn eval_and_compare_have_defaults_of_their_own() {
    let line = ["eval", "--model", "m", "--task", "xquad-r", "--data", "d", "--split", "test", "--set", "seed=1"];
    let Command::Eval(args) = command(&line) else { panic!("not eval") };
    let config = args.draft().unwrap().finish().unwrap();
    assert_eq!((config.eval_task, config.eval_split), (Some(Auto::Of(&xquad_r::TASK)), Split::Test.into()));
    assert_eq!((config.eval_data.as_deref(), config.data), (Some(Path::new("d")), None));

    let out = |line: &[&str]| {
        let Command::Compare(args) = command(line) else { panic!("not compare") };
        args.draft().unwrap().finish().unwrap().out
    };
    assert_eq!(out(&["compare"]), Path::new("runs/compare"));
    assert_eq!(out(&["compare", "--set", "out=x"]), Path::new("x"));
}

#[test]
fn resume_reads_the_saved_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let saved = Config { seed: 5, steps: Some(20), epochs: None, out: "moved since".into(), ..Config::default() };
    fs::write(dir.path().join(Config::FILE_NAME), saved.to_toml()).unwrap();
    let resumed = |more: &[&str]| {
        let line = [&["train", "--out", dir.path().to_str().unwrap()], more].concat();
        let Command::Train(args) = command(&line) else { panic!("not train") };
        args.draft().unwrap().finish().unwrap()
    };
    assert_eq!(resumed(&["--resume"]), Config { out: dir.path().to_owned(), ..saved.clone() });
    assert_eq!(resumed(&["--resume", "--set", "steps=30"]).steps, Some(30));
    assert_eq!(resumed(&[]).seed, Config::default().seed);
}

#[test]
fn datasets_are_tables() {
    let config = load(
        "split = 'train'\ndataset_sampling = 'weights'\n[[datasets]]\nname = 'x'\ndata = 'a'\nweight = 2\n\
         [[datasets]]\ndata = 'b'\nsplit = 'all'\nquery_prefix = 'query: '\npassage_prefix = 'none'",
    )
    .unwrap();
    let [x, b] = config.datasets.as_slice() else { panic!("two") };
    assert_eq!(*x, Dataset { name: Some("x".into()), weight: 2.0, ..Dataset::new("a") });
    let expected =
        Dataset { split: Some(Split::All.into()), query_prefix: Some("query: ".into()), ..Dataset::new("b") };
    assert_eq!((b, b.label().as_str()), (&expected, "b"));
    assert_eq!(load(&config.to_toml()).unwrap(), config);

    let cases = [
        ("[[datasets]]\nname = 'x'", "datasets: table 1 has no data; name a file or a directory; it must be a [[dat"),
        (
            "[[datasets]]\ndata = 'a'\n[[datasets]]\ndata = 'b'\nwieght = 2",
            "table 2 has an unknown key \"wieght\"; did you mean weight?",
        ),
        ("[[datasets]]\ndata = 'a'\nalpha = 2", "table 1 has an unknown key \"alpha\"; there are name, data, "),
        ("[[datasets]]\ndata = 'a'\nweight = 0", "table 1 has weight = 0, which must be a number above 0"),
        (
            "[[datasets]]\ndata = 'a'\nsplit = 'dev'",
            "table 1 has split = \"dev\", which must be one of all, train, validation, test",
        ),
        ("datasets = ['a']", "datasets: table 1 is no table"),
        ("datasets = 'a'", "datasets: is no list of tables"),
        ("[datasets]\ndata = 'a'", "write [[datasets]] with two brackets"),
        (
            "[[datasets]]\ndata = 'a'\n[[datasets]]\ndata = 'a'",
            "datasets: \"a\" is given twice; take one away, or give it a larger weight",
        ),
        ("data = 'c'\n[[datasets]]\ndata = 'a'", "data: datasets are given as well"),
        ("dataset_temperature = 0.5", "dataset_temperature is 0.5; it must be a number of at least 1"),
        (
            "dataset_sampling = 'round_robin'\n[[datasets]]\ndata = 'a'\nweight = 2",
            "dataset_sampling: is round_robin, which takes each as often, but \"a\" has a weight",
        ),
    ];
    for (text, message) in cases {
        let error = file_error(text);
        assert!(error.starts_with("run.toml, line ") && error.contains(message), "{text:?} gives: {error}");
    }
}

#[test]
fn evaluations_are_tables() {
    let config = load(
        "best_metric = 'x.y.multilingual_ndcg@10'\n[[evaluations]]\nname = 'x.y'\ndata = 'a'\nsplit = 'test'\n\
         languages = ['de', 'sw']\n[[evaluations]]\ndata = 'dir/b.jsonl'\ntask = 'auto'\n[[evaluations]]\ntask = 'mlqa-r'\n\
         data = 'c'\nname = 'none'\nlanguages = 'none'\n[[evaluations]]\ntask = 'MIRACLRetrieval'",
    )
    .unwrap();
    let labels: Vec<String> = config.evaluations.iter().map(Evaluation::label).collect();
    assert_eq!(labels, ["x.y", "b.jsonl", "mlqa-r", "MIRACLRetrieval"]);
    let expected = Evaluation {
        name: Some("x.y".into()),
        task: Auto::Auto,
        data: Some("a".into()),
        split: Split::Test.into(),
        languages: Some(vec!["de".into(), "sw".into()]),
    };
    assert_eq!(config.evaluations[0], expected);
    let Auto::Of(best) = &config.best_metric else { panic!("a figure is named") };
    assert_eq!((best.evaluation.as_deref(), best.figure.to_string().as_str()), (Some("x.y"), "multilingual_ndcg@10"));
    assert_eq!(load(&config.to_toml()).unwrap(), config);

    let table = |fields: &str| format!("[[evaluations]]\n{fields}");
    let cases = [
        (table("task = 'STS17'"), "or one of mteb's retrieval tasks"),
        (table("name = 'x'"), "evaluations: table 1 has no data; name a file or a directory; it must be an [[eval"),
        (table("data = 'a'\nlanguage = ['de']"), "table 1 has an unknown key \"language\"; did you mean languages?"),
        (table("data = 'a'\nweight = 2"), "table 1 has an unknown key \"weight\"; there are name, task, data, "),
        (
            table("data = 'a'\ntask = 'BEIR'"),
            "table 1 has task = \"BEIR\", which must be one of xquad-r, mlqa-r, belebele, retrieval, parallel",
        ),
        (table("data = 'a'\nlanguages = 'de'"), "table 1 has languages = \"de\", which must be a list in brackets"),
        (table("data = 'a'\nlanguages = []"), "table 1 has no language in languages"),
        (table("data = 'a'\nname = ''"), "table 1 has an empty name"),
        ("[evaluations]\ndata = 'a'".to_owned(), "write [[evaluations]] with two brackets"),
        (table("data = 'a'\n[[evaluations]]\ndata = 'b/a'"), "evaluations: two are called \"a\"; give each a name"),
        ("best_metric = '.multilingual_map'".to_owned(), "did you mean multilingual_map? It must be one of "),
        ("best_metric = 'x.gap'".to_owned(), "it must be one of monolingual_map, "),
    ];
    for (text, message) in cases {
        let error = file_error(&text);
        assert!(error.starts_with("run.toml, line ") && error.contains(message), "{text:?} gives: {error}");
    }

    // Without the single keys' evaluation there is that of the tables.
    let alone = table("data = 'a'");
    load(&format!("eval_task = 'none'\npatience = 2\neval_steps = 5\n{alone}")).unwrap();
    let warnings =
        |text: &str| load(&format!("eval_task = 'none'\neval_steps = 5\n{text}")).unwrap().warnings().join("\n");
    assert_eq!(warnings(&alone), "");
    assert_eq!(warnings(&format!("eval_data = 'd'\n{alone}")), "eval_data has no effect, since eval_task is none");
    for (keys, is_named) in [
        ("", false),
        ("eval_data = 'd'", true),
        ("eval_split = 'test'", true),
        ("eval_fraction = 0.1", true),
        ("eval_task = 'parallel'", true),
        ("eval_task = 'none'\neval_data = 'd'", false),
    ] {
        assert_eq!(load(&format!("{keys}\n{alone}")).unwrap().names_single_evaluation(), is_named, "{keys}");
    }
}

#[test]
fn data_on_the_command_line_is_one_dataset_or_several() {
    let (_dir, path) = file("[[datasets]]\ndata = 'of file'");
    let config = |data: &[&str]| {
        let data: Vec<&str> = data.iter().flat_map(|data| ["--data", data]).collect();
        let Command::Train(args) = command(&[&["train", path.to_str().unwrap()], data.as_slice()].concat()) else {
            panic!("not train")
        };
        let config = args.draft().unwrap().finish().unwrap();
        (config.data, config.datasets)
    };
    assert_eq!(config(&[]), (None, vec![Dataset::new("of file")]));
    assert_eq!(config(&["a"]), (Some("a".into()), vec![]));
    assert_eq!(config(&["a", "b"]), (None, vec![Dataset::new("a"), Dataset::new("b")]));
}

#[test]
fn idle_dataset_settings_are_warned_about() {
    let warnings = |text: &str| load(text).unwrap().warnings().join("\n");
    let two = "[[datasets]]\ndata = 'a'\n[[datasets]]\ndata = 'b'";
    assert_eq!(warnings(two), "");
    assert!(warnings("dataset_batches = 'mixed'").contains("dataset_batches has no effect"));
    assert_eq!(warnings(&format!("dataset_batches = 'mixed'\n{two}")), "");
    assert!(warnings(&format!("dataset_temperature = 2\n{two}")).contains("dataset_temperature has no effect"));
    let seen = "evaluation uses texts that training has seen";
    assert!(warnings(&format!("eval_data = 'b'\neval_split = 'all'\nsplit = 'train'\n{two}")).contains(seen));
    assert_eq!(warnings(&format!("eval_data = 'b'\neval_split = 'test'\n{two}\nsplit = 'train'")), "");
}

#[test]
fn a_held_out_share_and_evaluation_data_contradict_each_other() {
    for (other, without) in [
        ("eval_data=a.jsonl", "eval_data=none"),
        ("eval_split=test", "eval_split=auto"),
        ("eval_task=xquad-r", "eval_task=auto"),
    ] {
        let config = with(&["eval_fraction=0.1", other]).unwrap();
        let message = config.check_eval_fraction().unwrap_err().to_string();
        let key = other.split('=').next().unwrap();
        assert!(message.starts_with(&format!(
            "eval_fraction: holds questions of the training data out to evaluate on, and {key} "
        )));
        assert!(message.ends_with(&format!("(--set {without}, or --set eval_fraction=none)")), "{message}");
        with(&[other]).unwrap().check_eval_fraction().unwrap();
    }
    for fits in ["eval_task=parallel", "eval_task=none", "eval_task=auto"] {
        with(&["eval_fraction=0.1", fits]).unwrap().check_eval_fraction().unwrap();
    }
    for share in ["0", "1", "-0.1", "1.5"] {
        let message = set_error(&format!("eval_fraction={share}"));
        assert!(message.contains("must be a number above 0 and below 1, or none"), "{message}");
    }
}
