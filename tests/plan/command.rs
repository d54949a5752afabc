//! `hbt plan`, and `hbt train` as far as it plans.

use crate::common::{Sandbox, fixture, groups, jsonl, train};
use hbt::config::{Auto, Config};
use serde_json::Value;

const SETS: [&str; 6] = ["--set", "batch_size=8", "--set", "query_max_len=24", "--set", "passage_max_len=24"];

fn plan(sandbox: &Sandbox, more: &[&str]) -> String {
    plan_of(sandbox, &fixture("bert"), more)
}

fn plan_of(sandbox: &Sandbox, model: &str, more: &[&str]) -> String {
    let args = [&["plan", "--model", model, "--data", "data.jsonl"], &SETS[..], more].concat();
    sandbox.hbt(&args).ok().stdout
}

#[test]
fn it_answers_before_and_after_the_data_is_tokenized() {
    let sandbox = Sandbox::with_groups(40);
    let before = plan(&sandbox, &["--precision", "f32"]);
    assert!(before.contains("40 groups of 40, tokenized; hbt prepare counts all"), "{before}");
    assert!(sandbox.contents().keys().eq(["data.jsonl"]), "a plan writes nothing");
    let model = fixture("bert");
    sandbox.hbt(&[&["prepare", "--model", &model, "--data", "data.jsonl"], &SETS[..]].concat()).ok();
    let after = plan(&sandbox, &["--precision", "f32"]);
    assert!(after.contains("all 40 groups, tokenized"), "{after}");
    for line in
        ["weights", "optimizer", "gradients", "activations", "cache", "loss", "batches", "total", "chunk_tokens = 8192"]
    {
        assert!(after.lines().any(|text| text.starts_with(line)), "{line}: {after}");
    }
    assert!(after.contains("fits") && after.contains("projected, not measured"), "{after}");
    assert!(after.lines().all(|line| line.chars().count() <= 120), "{after}");
}

#[test]
fn json_says_the_same() {
    let sandbox = Sandbox::with_groups(40);
    let of_model = |model: &str, more: &[&str]| {
        let json: Value = serde_json::from_str(&plan_of(&sandbox, model, &[&["--json"], more].concat())).unwrap();
        assert_eq!(plan_of(&sandbox, model, more), text_of(&json), "{more:?}");
        json
    };
    let bert = fixture("bert");
    let say_the_same = |more: &[&str]| of_model(&bert, more);
    let json = say_the_same(&["--for", "a100-80gb", "--set", "steps=10"]);
    let bytes = |value: &Value| value.as_u64().unwrap();
    let items = json["memory"].as_array().unwrap();
    assert_eq!(items.iter().map(|item| bytes(&item["bytes"])).sum::<u64>(), bytes(&json["total"]));
    assert_eq!((&json["fits"], &json["most_chunk_tokens"]), (&Value::from(true), &Value::from("any")));
    assert_eq!(json["precision"], "bf16", "auto is what the GPU is fast with");
    assert_eq!((bytes(&json["steps"]), bytes(&json["batch_size"])), (10, 8));
    let machine = &json["machine"];
    assert_eq!((machine["gpu"].as_bool(), machine["measured"].as_bool()), (Some(true), Some(false)));
    assert_eq!(machine["flops_per_second"], 312e12);
    let projected = |key: &str| json["projected"][key].as_f64().unwrap();
    assert!((projected("seconds") - 10.0 * projected("seconds_per_step")).abs() < 1e-9);
    let [small, large] =
        ["rtx4090", "h200-141gb"].map(|name| bytes(&say_the_same(&["--for", name])["machine"]["memory"]));
    assert!(small < large);
    let json = say_the_same(&["--for", "l4", "--set", "chunk_tokens=24", "--set", "kept_chunks=2"]);
    assert_eq!(json["most_kept_chunks"], json["chunks"], "all of them can be kept");
    say_the_same(&["--for", "l4", "--set", "chunk_tokens=24", "--set", "kept_chunks=1000000"]);
    assert_eq!(json["ranks"], Value::Null);
    say_the_same(&["--for", "h100-80gb", "--devices", "8"]);
    let json = say_the_same(&["--for", "l4", "--devices", "2", "--nodes", "3", "--link", "100", "--gpu-link", "20"]);
    let ranks = |key: &str| json["ranks"][key].as_f64().unwrap();
    // 90 % of 12.5 GB/s, less than 80 % of 20.
    assert_eq!((ranks("ranks"), ranks("bytes_per_second")), (6.0, 11.25e9));
    assert!((ranks("seconds_per_step") - ranks("received_per_step") / 11.25e9).abs() < 1e-12);
    assert_eq!(say_the_same(&["--for", "l4", "--set", "kept_chunks=auto"])["auto"], serde_json::json!(["kept_chunks"]));

    sandbox.copy_model("bert", "huge");
    let config =
        sandbox.read("huge/config.json").replace("\"intermediate_size\": 64", "\"intermediate_size\": 9000000");
    sandbox.write("huge/config.json", config);
    let json = of_model("huge", &["--for", "l4", "--from-scratch"]);
    assert_eq!((&json["fits"], &json["most_chunk_tokens"]), (&Value::from(false), &Value::Null));
    assert!(json["change"].as_str().unwrap().starts_with("take a smaller model"), "{}", json["change"]);
}

/// With commas; one decimal where it has fewer than three digits, unless it is whole.
fn count(number: f64) -> String {
    if number < 99.95 && number.fract() != 0.0 {
        return format!("{number:.1}");
    }
    let digits = format!("{number:.0}").into_bytes();
    let groups: Vec<_> = digits.rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap()).collect();
    groups.join(",")
}

/// Three digits, and the letter of a power of 1000.
fn si(number: f64) -> String {
    let power = (0..6).find(|&power| number < 999.5 * 1000f64.powi(power)).unwrap();
    let number = number / 1000f64.powi(power);
    let decimals = if number < 9.995 { 2 } else { usize::from(number < 99.95) };
    format!("{number:.decimals$} {}", ["", "k", "M", "G", "T", "P"][power as usize])
}

fn duration(seconds: f64) -> String {
    let units =
        [(1.0, 1e3, "ms"), (120.0, 1.0, "seconds"), (7200.0, 1.0 / 60.0, "minutes"), (1e99, 1.0 / 3600.0, "hours")];
    let (_, factor, unit) = units.into_iter().find(|(end, ..)| seconds < *end).unwrap();
    let value = seconds * factor;
    format!("{value:.*} {unit}", usize::from(value < 99.95))
}

/// The text of a plan, made of nothing but its JSON.
fn text_of(json: &Value) -> String {
    let number = |value: &Value| value.as_f64().unwrap();
    let of = |key: &str| count(number(&json[key]));
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    let mib = |value: &Value| count(number(value) / 1048576.0);
    let mut lines = vec![
        format!(
            "model     {}: {} layer{}, hidden size {}, {} million parameters, in {}",
            word(&json["model"]),
            json["layers"],
            if json["layers"] == 1 { "" } else { "s" },
            json["hidden_size"],
            count(number(&json["parameters"]) / 1e6),
            word(&json["precision"])
        ),
        format!("data      {}", word(&json["data"])),
        format!(
            "batches   {} queries, {} texts; {} tokens on average, {} seen, {} at most",
            json["batch_size"],
            json["texts_per_step"],
            of("tokens_per_step"),
            of("most_tokens_seen"),
            of("tokens_at_most")
        ),
        format!("machine   {}", word(&json["machine"]["name"])),
    ];
    let ranks = &json["ranks"];
    if !ranks.is_null() {
        let (n, devices, nodes) = (&ranks["ranks"], &ranks["devices"], &ranks["nodes"]);
        let places = if *nodes == 1 { String::new() } else { format!(", {devices} on each of {nodes} machines") };
        lines.push(format!("ranks     {n}{places}; memory and work are those of one"));
    }
    lines.extend([String::new(), format!("{:<18}{:>10}", "memory", "MiB")]);
    for item in json["memory"].as_array().unwrap() {
        lines.push(format!("{:<18}{:>10}   {}", word(&item["item"]), mib(&item["bytes"]), word(&item["note"])));
    }
    let fits = match json["fits"].as_bool() {
        Some(true) => ": it fits",
        Some(false) => ": it does not fit",
        None => ": it may not fit, for a plan is right to about 10 %",
    };
    let available = mib(&json["machine"]["memory"]);
    lines.push(format!("{:<18}{:>10}   of {available} available{fits}", "total", mib(&json["total"])));
    lines.push(String::new());
    lines.extend(text_of_chunks(json));
    if let Some(change) = json["change"].as_str() {
        lines.push(format!("to make it fit: {change}"));
    }
    if !ranks.is_null() {
        lines.extend(text_of_exchange(ranks));
    }
    lines.push(String::new());
    lines.extend(text_of_time(json));
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn text_of_exchange(ranks: &Value) -> Vec<String> {
    let of = |key: &str| ranks[key].as_f64().unwrap();
    let mb = |value: &Value| count(value.as_f64().unwrap() / 1e6);
    let mut lines = vec![String::new(), format!("{:<18}{:>10}{:>10}", "exchange", "MB", "received")];
    for item in ranks["exchange"].as_array().unwrap() {
        let [name, note] = ["item", "note"].map(|key| item[key].as_str().unwrap());
        lines.push(format!("{name:<18}{:>10}{:>10}   {note}", mb(&item["bytes"]), mb(&item["received"])));
    }
    lines.push(format!(
        "{:<28}{:>10}   by each rank, at {}B/s: {}, {:.1} % of a step, beside no other work",
        "total",
        mb(&ranks["received_per_step"]),
        si(of("bytes_per_second")),
        duration(of("seconds_per_step")),
        100.0 * of("share_of_step")
    ));
    lines
}

fn text_of_chunks(json: &Value) -> Vec<String> {
    let [n, twice] = ["chunks", "chunks_computed_twice"].map(|key| json[key].as_u64().unwrap());
    let none_or = |n: u64| if n == 0 { "none".to_owned() } else { count(n as f64) };
    let auto = |key: &str| if json["auto"].as_array().unwrap().contains(&key.into()) { " (auto)" } else { "" };
    let found = ["chunk_tokens", "kept_chunks"].map(|key| format!("{key} = {}{}", json[key], auto(key)));
    let chunks = format!("{} chunk{}", count(n as f64), if n == 1 { "" } else { "s" });
    let mut lines = vec![found.join(", "), format!("  a batch is {chunks}, {} of them computed twice", none_or(twice))];
    if let Some(asked) = json["kept_chunks_asked"].as_u64() {
        lines.push(format!("  kept_chunks = {asked} is more than a batch has"));
    }
    if let Some(kept) = json["most_kept_chunks"].as_u64() {
        let left = none_or(n - kept);
        lines.push(format!("  kept_chunks = {kept} fits too: then {left} are computed twice, and steps are faster"));
    }
    lines.push(match &json["most_chunk_tokens"] {
        Value::Null => format!("  not even chunks of the longest text fit, {} tokens", json["longest_text"]),
        Value::String(any) if any == "any" => "  chunks of any size fit, with one of them kept".to_owned(),
        most => format!("  the largest chunk_tokens that fits, with one chunk kept: {most}"),
    });
    lines
}

fn text_of_time(json: &Value) -> Vec<String> {
    let (machine, projected) = (&json["machine"], &json["projected"]);
    let of = |key: &str| projected[key].as_f64().unwrap();
    let percent = |key: &str| format!("{:.0} %", 100.0 * projected["efficiency"][key].as_f64().unwrap());
    let per_second = |key: &str| si(machine[key].as_f64().unwrap());
    let source =
        if machine["measured"].as_bool().unwrap() { "measured a moment ago" } else { "published by the maker" };
    let steps = count(json["steps"].as_f64().unwrap());
    let at_most = if json["steps_at_most"].as_bool().unwrap() { "at most " } else { "" };
    vec![
        format!(
            "a step    {}FLOP in {} operations, which read and write at least {}B",
            si(of("flops_per_step")),
            count(of("operations_per_step").round()),
            si(of("least_bytes_per_step"))
        ),
        format!(
            "          about {}: {} tokens/s",
            duration(of("seconds_per_step")),
            count(of("tokens_per_second").round())
        ),
        format!("the run   {at_most}{steps} steps: about {}, evaluation not counted", duration(of("seconds"))),
        format!(
            "          projected, not measured: products at {} and attention at {} of {}FLOP/s,",
            percent("products"),
            percent("attention"),
            per_second("flops_per_second")
        ),
        format!(
            "          everything at no more than {} of {}B/s (both {source})",
            percent("memory"),
            per_second("bytes_per_second")
        ),
    ]
}

#[test]
fn what_cannot_be_planned_is_an_error() {
    let sandbox = Sandbox::with_groups(40);
    let done = sandbox.hbt(&["plan", "--for", "tpu"]);
    assert_eq!(done.code, Some(2));
    assert!(done.stderr.contains("use one of this, a100-40gb"), "{}", done.stderr);
    for device in [&["--device", "cpu"][..], &["--set", "device=cpu"]] {
        let done = sandbox.hbt(&[&["plan", "--for", "l4"], device].concat());
        let message = "error: --for l4 plans for a GPU, and the device is cpu; take one of the two away\n";
        assert_eq!((done.code, done.stdout.as_str(), done.stderr.as_str()), (Some(2), "", message), "{device:?}");
    }
    let done = sandbox.hbt(&["plan", "--for", "l4", "--nodes", "2"]);
    assert_eq!(done.code, Some(2));
    assert!(
        done.stderr.contains("--nodes 2 exchange over a network; say how fast it is, as in --link 400"),
        "{}",
        done.stderr
    );
    for wrong in [["--devices", "0"], ["--link", "0"], ["--gpu-link", "inf"], ["--nodes", "-1"]] {
        assert_eq!(sandbox.hbt(&[&["plan", "--for", "l4"][..], &wrong].concat()).code, Some(2), "{wrong:?}");
    }
    // Wherever its lines end.
    let help = sandbox.hbt(&["plan", "--help"]).ok().stdout;
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(help.contains("this, a100-40gb, a100-80gb, h100-80gb, h200-141gb"), "{help}");
    let model = fixture("bert");
    let error = sandbox.hbt(&["plan", "--model", &model, "--data", "gone.jsonl"]).error();
    assert!(error.contains("gone.jsonl"), "{error}");
    let all =
        [&["plan", "--model", &model, "--data", "data.jsonl"], &SETS[..], &["--set", "kept_chunks=many"]].concat();
    let error = sandbox.hbt(&all).error();
    assert!(error.contains("a whole number of at least 1, or auto"), "{error}");
}

/// A plan says what the run would say, before the data is tokenized and after.
#[test]
fn what_train_refuses_is_no_plan() {
    let sandbox = Sandbox::with_groups(40);
    sandbox.write("en.jsonl", jsonl(&groups(40, &["en"])));
    let model = fixture("bert");
    let both = |data: &str, set: &str| {
        let args = |command| [&[command, "--model", &model, "--data", data], &SETS[..], &["--set", set]].concat();
        let [before, train, after] = ["plan", "train", "plan"].map(|command| sandbox.hbt(&args(command)).error());
        assert_eq!(before, train, "{set}");
        assert_eq!(after, train, "{set}");
        before
    };
    for (data, set, start) in [
        ("data.jsonl", "batch_size=41", "batch_size: 41 is more than the 40 groups"),
        ("en.jsonl", "mode=cross_lingual", "mode: cross_lingual: cross-lingual batches need two languages"),
        ("data.jsonl", "teacher_margin=0.1", "teacher_margin: the data has no scores of a teacher"),
        ("data.jsonl", "in_batch_negatives=false", "in_batch_negatives: is false, but the data has no hard negatives"),
        ("data.jsonl", "truncate_dim=33", "truncate_dim: is 33, but the model's embeddings have 32"),
    ] {
        let error = both(data, set);
        assert!(error.starts_with(&format!("error: {start}")), "{error}");
    }
}

#[test]
fn auto_is_a_number_in_the_run_directory_and_stays_it() {
    let sandbox = Sandbox::with_groups(40);
    let model = fixture("bert");
    let auto = ["chunk_tokens=auto", "kept_chunks=auto", "steps=3", "save_steps=1"];
    let done = sandbox.hbt(&train(&model, &auto)).ok();
    assert!(done.stderr.contains("chunk_tokens = 256, kept_chunks = 1 by plan"), "{}", done.stderr);
    let saved = Config::load(&sandbox.path("run/config.toml")).unwrap();
    assert_eq!((saved.chunk_tokens, saved.kept_chunks), (Auto::Of(256), Some(Auto::Of(1))));
    // The resumed run has a number by now.
    let done = sandbox.hbt(&train(&model, &[&auto[..], &["--resume"]].concat())).ok();
    assert!(done.stderr.contains("complete: nothing to resume"), "{}", done.stderr);
}

/// Values that the device decides are not written down: the device that resumes the run decides anew.
#[test]
fn kept_chunks_are_left_to_the_device() {
    let sandbox = Sandbox::with_groups(40);
    let model = fixture("bert");
    let sets = ["chunk_tokens=64", "query_max_len=16", "passage_max_len=16", "steps=3", "save_steps=1"];
    let done = sandbox.hbt(&train(&model, &sets)).ok();
    assert!(!done.stderr.contains("by plan"), "on a processor one is kept, as ever: {}", done.stderr);
    assert_eq!(Config::load(&sandbox.path("run/config.toml")).unwrap().kept_chunks, None);
    for resumed in [&["--resume"][..], &["--resume", "kept_chunks=auto"], &["--resume", "kept_chunks=2"]] {
        let done = sandbox.hbt(&train(&model, &[&sets[..], resumed].concat())).ok();
        assert!(done.stderr.contains("complete: nothing to resume"), "{resumed:?}: {}", done.stderr);
    }
}

#[test]
fn a_run_that_cannot_fit_is_refused_and_leaves_nothing() {
    let sandbox = Sandbox::with_groups(40);
    sandbox.copy_model("bert", "model");
    let config =
        sandbox.read("model/config.json").replace("\"intermediate_size\": 64", "\"intermediate_size\": 2000000000");
    sandbox.write("model/config.json", config);
    let done = sandbox.hbt(&train("model", &["from_scratch=true", "precision=f32"]));
    let error = done.error();
    assert!(
        error.contains("the run needs ") && error.ends_with(": take a smaller model, or a machine with more memory"),
        "{error}"
    );
    assert!(!sandbox.path("run").exists());
}
