//! Answers of a plan: whether a run fits, the largest chunks that do, and what to change.

use super::{Setting, config, groups_of, machine, sample_source};
use crate::common::{Sandbox, fixture, jsonl};
use hbt::config::Config;
use hbt::data::catalog::TextSource;
use hbt::model_dir::ModelDir;
use hbt::plan::report::Report;
use hbt::plan::{Batches, Machine, Measured, Needs, Part, Plan, Question, Sample, Speed, Verdict};
use hbt::train::TrainSettings;
use serde_json::{Value, json};

const PLENTY: Option<u64> = Some(1 << 40);

/// Memory of a run with these numbers on a machine of that kind.
fn total(setting: &Setting, config: &Config, is_gpu: bool, chunk_tokens: usize, kept_chunks: usize) -> u64 {
    let machine = machine(is_gpu, PLENTY);
    let settings = TrainSettings { chunk_tokens, kept_chunks, ..setting.settings(config) };
    let batches = Batches::of_tokens(&settings, setting.model.config.vocab_size, &setting.data).unwrap();
    Needs::new(&setting.question(config, &machine), &batches, &settings).unwrap().total()
}

#[test]
fn a_run_with_room_to_spare_fits_and_its_time_follows_from_its_work() {
    let setting = Setting::new();
    let config = config(&["chunk_tokens=64", "kept_chunks=1"]);
    let plan = setting.plan(&config, &machine(false, PLENTY));
    assert_eq!((plan.verdict, plan.change.as_deref()), (Verdict::Fits, None));
    assert_eq!(plan.settings, setting.settings(&config), "what is given stays");
    let (most, is_all) = plan.most_chunk_tokens.unwrap();
    assert!(is_all && most >= plan.batches.bounds.n_tokens);
    assert_eq!(plan.chunks[1], plan.chunks[0] - 1);
    assert_eq!(plan.needs.total(), total(&setting, &config, false, 64, 1));
    let time = plan.time.unwrap();
    assert!(time.seconds > time.flops / 1e12 && time.flops > 0.0 && time.bytes > 0.0);
    let unknown = setting.plan(&config, &machine(false, None));
    assert_eq!(unknown.verdict, Verdict::Unknown);
    assert!(unknown.require(&machine(false, None)).is_ok());
}

/// On machines that have room for half of what a run with whole batches and everything kept would take.
#[test]
fn auto_fills_what_is_there_and_no_more() {
    let setting = Setting::new();
    let config = config(&["chunk_tokens=auto", "kept_chunks=auto"]);
    for is_gpu in [false, true] {
        let needed = |kept| total(&setting, &config, is_gpu, 256, kept);
        for memory in [needed(1) * 10 / 9 + 100, needed(2) * 10 / 9 + 100, 1 << 40] {
            let machine = machine(is_gpu, Some(memory));
            let plan = setting.plan(&config, &machine);
            assert_eq!(plan.verdict, Verdict::Fits, "{memory} {is_gpu}");
            let TrainSettings { chunk_tokens, kept_chunks: kept, .. } = plan.settings;
            let limit = (0.9 * memory as f64) as u64;
            assert!(plan.needs.total() <= limit);
            let (most, is_all) = plan.most_chunk_tokens.unwrap();
            assert!(is_all || total(&setting, &config, is_gpu, most + 256, 1) > limit, "{memory} {is_gpu}: {most}");
            assert!(total(&setting, &config, is_gpu, most, 1) <= limit);
            assert!(chunk_tokens <= most && kept >= 1);
            let n_chunks = plan.batches.n_chunks(chunk_tokens);
            assert!(kept == n_chunks || total(&setting, &config, is_gpu, chunk_tokens, kept + 1) > limit);
        }
    }
}

/// If kept chunks are not configured, a GPU keeps all that fit, and a processor one. So does a GPU of unknown memory.
#[test]
fn a_gpu_keeps_what_fits_and_a_processor_one() {
    let setting = Setting::new();
    let [by_default, auto] = [&["chunk_tokens=64"][..], &["chunk_tokens=64", "kept_chunks=auto"]].map(config);
    let kept = |config: &Config, is_gpu, memory| setting.plan(config, &machine(is_gpu, memory)).settings.kept_chunks;
    let two = Some(total(&setting, &by_default, true, 64, 2) * 10 / 9 + 100);
    let all = setting.plan(&by_default, &machine(true, PLENTY)).chunks[0];
    assert!(all > 2, "{all} chunks");
    for (is_gpu, memory, default, if_auto) in
        [(true, PLENTY, all, all), (true, two, 2, 2), (true, None, 1, 1), (false, PLENTY, 1, all), (false, None, 1, 1)]
    {
        let got = [&by_default, &auto].map(|config| kept(config, is_gpu, memory));
        assert_eq!(got, [default, if_auto], "GPU: {is_gpu}, {memory:?}");
    }
    // A number that is given is the run's on every machine.
    assert_eq!(kept(&config(&["chunk_tokens=64", "kept_chunks=2"]), true, PLENTY), 2);
}

/// A configured number beyond that is reported.
#[test]
fn no_more_chunks_are_kept_than_a_batch_has() {
    let setting = Setting::new();
    let all = setting.plan(&config(&["chunk_tokens=64"]), &machine(true, PLENTY)).chunks[0];
    for is_gpu in [false, true] {
        for asked in [all, all + 1, usize::MAX / 2] {
            let config = config(&["chunk_tokens=64", &format!("kept_chunks={asked}")]);
            let machine = machine(is_gpu, PLENTY);
            let plan = setting.plan(&config, &machine);
            assert_eq!((plan.settings.kept_chunks, plan.chunks), (all, [all, 0]), "{asked}");
            assert_eq!(plan.needs.total(), total(&setting, &config, is_gpu, 64, all));
            let question = setting.question(&config, &machine);
            let report = Report { question: &question, model_name: "bert", plan: &plan };
            let (text, json) = (report.to_string(), report.to_json());
            let (is_more, said) = (asked > all, format!("  kept_chunks = {asked} is more than a batch has\n"));
            assert_eq!(text.contains(&said), is_more, "{text}");
            assert_eq!(json["kept_chunks_asked"], if is_more { json!(asked) } else { Value::Null });
        }
    }
}

/// A measurement beside other work is told for what it is.
#[test]
fn a_busy_machine_is_called_busy() {
    let (setting, config) = (Setting::new(), config(&[]));
    let report = |measured: Option<Measured>| {
        let idle = machine(false, PLENTY);
        let speed = idle.speed.map(|speed| Speed { measured, ..speed });
        let machine = Machine { speed, ..idle };
        let plan = setting.plan(&config, &machine);
        let question = setting.question(&config, &machine);
        let report = Report { question: &question, model_name: "bert", plan: &plan };
        (report.to_string(), report.to_json()["machine"]["busy"].clone())
    };
    for (others, is_busy) in [(0.0, false), (0.1, false), (0.62, true)] {
        let (text, busy) = report(Some(Measured { others }));
        assert_eq!(text.contains("\nbusy      other work took"), is_busy, "{text}");
        assert!(!is_busy || text.contains("took 62 % of this machine"), "{text}");
        assert_eq!(busy, json!(others));
    }
    let (text, busy) = report(None);
    assert!(!text.contains("busy") && busy.is_null(), "{text}");
}

/// Following the advice makes the run fit.
#[test]
fn advice_is_the_least_change_that_helps() {
    let setting = Setting::new();
    let follow = |config: &Config, plan: &Plan, memory: u64| {
        let machine = machine(true, Some(memory));
        let error = plan.require(&machine).unwrap_err().to_string();
        let change = plan.change.clone().unwrap();
        assert!(error.ends_with(&format!(": {change}")) && error.contains("most of it is "), "{error}");
        let mut changed = config.clone();
        for part in change.trim_start_matches("lower ").split(" and ") {
            let (key, value) = part.split_once(" to ").unwrap();
            let value: usize = value.parse().unwrap();
            match key {
                "chunk_tokens" => changed.chunk_tokens = value.into(),
                "kept_chunks" => changed.kept_chunks = Some(value.into()),
                "batch_size" => changed.batch_size = value,
                other => panic!("{other}"),
            }
        }
        assert_eq!(setting.plan(&changed, &machine).verdict, Verdict::Fits, "{change}");
        change
    };
    let kept = config(&["chunk_tokens=256", "kept_chunks=50"]);
    let memory = total(&setting, &kept, true, 256, 1) * 10 / 9 + 100;
    let change = follow(&kept, &setting.plan(&kept, &machine(true, Some(memory))), memory);
    assert_eq!(change, "lower kept_chunks to 1");

    // Chunks of all tokens, where memory is for fewer.
    let large = config(&["batch_size=60", "chunk_tokens=4096"]);
    let memory = total(&setting, &large, true, 256, 1) * 10 / 9 + 100;
    let plan = setting.plan(&large, &machine(true, Some(memory)));
    assert_eq!(follow(&large, &plan, memory), "lower chunk_tokens to 256");

    // The smallest chunks of large batches do not fit.
    let batches = config(&["batch_size=60", "chunk_tokens=256"]);
    let memory = total(&setting, &config(&["batch_size=4"]), true, 256, 1) * 10 / 9 + 100;
    let plan = setting.plan(&batches, &machine(true, Some(memory)));
    if plan.verdict == Verdict::DoesNot {
        assert!(follow(&batches, &plan, memory).starts_with("lower batch_size to "));
    }

    let nothing = setting.plan(&batches, &machine(true, Some(1000)));
    assert_eq!((nothing.verdict, nothing.most_chunk_tokens), (Verdict::DoesNot, None));
    assert_eq!(nothing.change.unwrap(), "take a smaller model, precision = \"bf16\", or a machine with more memory");
}

/// If evaluations take most memory, the advice is not only smaller batches; if no batch is small enough, it is not
/// about batches.
#[test]
fn advice_is_about_what_takes_most() {
    let setting = Setting::new();
    let config = config(&["batch_size=60", "chunk_tokens=256", "kept_chunks=1"]);
    let needs = |config: &Config, eval_texts| {
        let machine = machine(true, PLENTY);
        let question = Question { eval_texts, ..setting.question(config, &machine) };
        Plan::new(&question).unwrap().needs
    };
    let change = |eval_texts, memory| {
        let machine = machine(true, Some(memory));
        let question = Question { eval_texts: Some(eval_texts), ..setting.question(&config, &machine) };
        Plan::new(&question).unwrap().change.unwrap()
    };
    let less = |n: usize| {
        format!("evaluate on fewer than 10 queries and {n} passages (another eval_data, or eval_task = \"none\")")
    };
    // Room for the run and half of its evaluation.
    let (few, many) = ([10, 100_000], [10, 1_000_000]);
    let half = (needs(&config, None).total() + needs(&config, Some(many)).total()) / 2;
    assert_eq!(change(many, half), less(1_000_000));
    // Room for all but the difference that half of a batch makes.
    let smaller = needs(&Config { batch_size: 30, ..config.clone() }, Some(few));
    assert_eq!(smaller.largest().name, "evaluation");
    assert_eq!(change(few, smaller.total() * 10 / 9 + 100), format!("lower batch_size to 30, or {}", less(100_000)));
}

#[test]
fn only_what_cannot_fit_is_refused() {
    let setting = Setting::new();
    let config = config(&["chunk_tokens=256"]);
    let needed = setting.plan(&config, &machine(false, PLENTY)).needs.total() as f64;
    for (share, verdict) in
        [(1.2, Verdict::Fits), (1.0, Verdict::Barely), (0.95, Verdict::Barely), (0.8, Verdict::DoesNot)]
    {
        let machine = machine(false, Some((share * needed) as u64));
        let plan = setting.plan(&config, &machine);
        assert_eq!(plan.verdict, verdict, "{share}");
        assert_eq!(plan.require(&machine).is_err(), verdict == Verdict::DoesNot, "{share}");
        let (warning, change) = (plan.warning(&machine), plan.change);
        assert_eq!(warning.is_some(), verdict == Verdict::Barely, "{share}");
        if let Some(warning) = warning {
            assert!(warning.contains("it may not fit") && warning.ends_with(&change.unwrap()), "{warning}");
        }
    }
}

/// If all of the data is read and tokenized, a sample has the facts that the tokens have.
#[test]
fn a_sample_of_all_the_data_has_its_bounds() {
    let setting = Setting::new();
    let (config, machine) = (config(&["chunk_tokens=64"]), machine(true, PLENTY));
    let exact = setting.plan(&config, &machine);
    let sample = setting.sample();
    let question = Question { data: hbt::plan::Data::Sample(&sample), ..setting.question(&config, &machine) };
    let sampled = Plan::new(&question).unwrap();
    assert_eq!(sampled.batches.bounds, exact.batches.bounds);
    assert_eq!(sampled.batches.total_steps, exact.batches.total_steps);
    assert_eq!(sampled.needs, exact.needs);
    assert_eq!(sampled.batches.mean_tokens, exact.batches.mean_tokens);
    assert!(sampled.batches.basis.contains("60 groups of 60, tokenized"), "{}", sampled.batches.basis);
}

/// Data that is not tokenized yet is drawn as the run will draw it: by the mode, from each dataset by its size and
/// weight.
#[test]
fn a_sample_draws_as_the_run_will() {
    let (short, long) = (groups_of("short", 3000, &["de", "en"], 3), groups_of("long", 150, &["de", "en", "tr"], 20));
    let setting = Setting::of(&[("short", &short), ("long", &long)]);
    let (sample, machine) = (setting.sample(), machine(true, PLENTY));
    for sets in [
        &["alpha=0.3"][..],
        &["dataset_sampling=weights", "mode=monolingual"],
        &["dataset_sampling=round_robin", "dataset_batches=mixed"],
        &["dataset_sampling=temperature", "mode=cross_lingual", "lang_sampling=proportional"],
    ] {
        let config = config(sets);
        let exact = setting.plan(&config, &machine).batches;
        let question = Question { data: hbt::plan::Data::Sample(&sample), ..setting.question(&config, &machine) };
        let sampled = Plan::new(&question).unwrap().batches;
        assert_eq!(sampled.total_steps, exact.total_steps, "{sets:?}");
        let ratio = sampled.mean_tokens / exact.mean_tokens;
        assert!((ratio - 1.0).abs() < 0.02, "{sets:?}: {} of {}", sampled.mean_tokens, exact.mean_tokens);
    }
}

/// Data of which only pieces are read: what is estimated, and what cannot be known.
#[test]
fn pieces_of_large_data_stand_for_all_of_it() {
    let (sandbox, model) = (Sandbox::new(), ModelDir::open(fixture("bert")).unwrap());
    // 36 MB in two languages, sorted by them, in rows of 1 KB of German and 2 KB of English. The texts are cut soon.
    let (padding, n) = ("x".repeat(900), 12_000);
    let row = |i: usize, lang: &str, copies: usize, id: &str| {
        let positive = format!("{lang} {i} {}", padding.repeat(copies));
        let row =
            json!({"query": format!("a b c {i}"), "query_lang": lang, "positive": positive, "passage_lang": lang});
        let mut row = row.as_object().unwrap().clone();
        if !id.is_empty() {
            row.insert("id".to_owned(), format!("{id}{i}").into());
        }
        Value::Object(row)
    };
    let read = |id: &str| {
        let rows = (0..n).map(|i| row(i, "de", 1, id)).chain((0..n).map(|i| row(i, "en", 2, id)));
        sandbox.write("data.jsonl", jsonl(&rows.collect::<Vec<_>>()));
        let mut source = sample_source("data", sandbox.path("data.jsonl"));
        source.data.columns.join_by_id = true;
        Sample::read(&[source], &Part::default(), &model.tokenizer, 1000).unwrap()
    };
    let batches = |sample: &Sample, sets: &[&str]| {
        let sets = [sets, &["epochs=1"]].concat();
        Batches::of_sample(&config(&sets).training(&model).unwrap(), model.config.vocab_size, sample)
    };

    let unnamed = read("");
    assert!(!unnamed.is_all() && !unnamed.is_at_most());
    let steps = batches(&unnamed, &["mode=monolingual"]).unwrap().total_steps as f64;
    assert!((steps / (2.0 * n as f64 / 20.0) - 1.0).abs() < 0.05, "{steps}");
    // German rows are as many as English ones, which a look at the file's beginning would not show.
    let share = |sample: &Sample, lang: usize| {
        let catalog = sample.catalog();
        catalog.classes[lang].n_groups as f64 / catalog.n_groups() as f64
    };
    assert!((share(&unnamed, 0) - 0.5).abs() < 0.05, "{:?}", unnamed.catalog());
    let refused = batches(&unnamed, &["mode=monolingual", "batch_size=30000"]).err().unwrap().to_string();
    assert!(refused.starts_with("batch_size: 30000 is more than the 2") && refused.contains("(estimated"), "{refused}");

    // Nor are these rows refused for what others may have.
    let crossed = batches(&unnamed, &["mode=cross_lingual"]).unwrap();
    assert!(crossed.caution.unwrap().starts_with("mode: cross_lingual: cross-lingual batches need groups"));

    // Each question is there in both languages, far apart: 12,000 groups, which nobody can tell from pieces.
    let named = read("g");
    assert!(named.is_at_most() && named.to_string().contains(" groups of at most "), "{named}");
    let hybrid = batches(&named, &[]).unwrap();
    assert!(hybrid.is_at_most && hybrid.total_steps >= n as u64 / 20, "{}", hybrid.total_steps);
    let ten = Config { steps: Some(10), epochs: None, ..config(&[]) };
    assert!(!Batches::of_sample(&ten.training(&model).unwrap(), model.config.vocab_size, &named).unwrap().is_at_most);
}

/// Small data is read whole, so versions of a group are found wherever they are.
#[test]
fn groups_sorted_by_language_are_counted_once() {
    let (sandbox, model) = (Sandbox::new(), ModelDir::open(fixture("bert")).unwrap());
    let padding = "y".repeat(400);
    let row = |(lang, i): (&&str, usize)| {
        let positive = format!("{lang} {i} {padding}");
        json!({"id": i.to_string(), "query": "a b", "query_lang": lang, "positive": positive, "passage_lang": lang})
    };
    let rows: Vec<_> =
        ["ar", "de", "en", "tr"].iter().flat_map(|lang| (0..3000).map(move |i| (lang, i))).map(row).collect();
    sandbox.write("data.jsonl", jsonl(&rows));
    let mut source = sample_source("data", sandbox.path("data.jsonl"));
    source.data.columns.join_by_id = true;
    let sample = Sample::read(&[source], &Part::default(), &model.tokenizer, 1000).unwrap();
    assert!(sample.is_all() && sample.catalog().n_groups() == 3000, "{sample}");
}

/// An evaluation adds to what a run takes, the more the more passages it ranks.
#[test]
fn evaluations_count() {
    let setting = Setting::new();
    let (config, machine) = (config(&[]), machine(true, PLENTY));
    let with = |eval_texts| {
        let plan = Plan::new(&Question { eval_texts, ..setting.question(&config, &machine) }).unwrap();
        plan.needs.total()
    };
    let (none, few, many) = (with(None), with(Some([10, 10])), with(Some([10, 1_000_000])));
    assert!(none < few && few < many);
    // A million vectors of 32 numbers, and 16 rows of a million scores.
    assert!(many - none >= 4 * 1_000_000 * (32 + 16), "{}", many - none);
}
