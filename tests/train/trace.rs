//! `--trace`, `--profile-steps`, and what a profiler is told.

use crate::common::{Done, Sandbox, assert_same_run, fixture, metrics, run_contents, train};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// One complete event, in nanoseconds.
#[derive(Clone, Debug, PartialEq)]
struct Event {
    thread: u64,
    category: String,
    name: String,
    args: BTreeMap<String, u64>,
    begin: u64,
    end: u64,
    /// The names of all ranges around it, the outermost first.
    path: Vec<String>,
}

/// The events of a trace, by thread and beginning. Fails unless the ranges of every thread nest.
#[track_caller]
fn events(sandbox: &Sandbox, file: &str) -> Vec<Event> {
    let trace = sandbox.json(file);
    let nanoseconds = |value: &Value| (value.as_f64().unwrap() * 1e3).round() as u64;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let all = trace["traceEvents"].as_array().unwrap();
    let pids: BTreeSet<u64> = all.iter().map(|event| event["pid"].as_u64().unwrap()).collect();
    assert_eq!(pids.len(), 1);
    let mut threads: BTreeMap<u64, Vec<Event>> = BTreeMap::new();
    for event in all.iter().filter(|event| event["ph"] != "M") {
        assert_eq!(event["ph"], "X", "{event}");
        let begin = nanoseconds(&event["ts"]);
        let args = event["args"].as_object().unwrap().iter();
        let event = Event {
            thread: event["tid"].as_u64().unwrap(),
            category: text(&event["cat"]),
            name: text(&event["name"]),
            args: args.map(|(key, value)| (key.clone(), value.as_u64().unwrap())).collect(),
            begin,
            end: begin + nanoseconds(&event["dur"]),
            path: vec![],
        };
        threads.entry(event.thread).or_default().push(event);
    }
    for (thread, events) in &mut threads {
        let name = |event: &&Value| event["name"] == "thread_name" && event["tid"] == *thread;
        assert_eq!(all.iter().filter(name).count(), 1, "thread {thread} has one name");
        let mut open: Vec<(u64, String)> = vec![];
        let mut last = 0;
        for event in events {
            assert!(event.begin >= last, "in the order of their beginnings");
            last = event.begin;
            open.retain(|&(end, _)| end > event.begin);
            assert!(open.iter().all(|&(end, _)| end >= event.end), "{event:?} outlasts one of {open:?}");
            event.path = open.iter().map(|(_, name)| name.clone()).collect();
            open.push((event.end, event.name.clone()));
        }
    }
    threads.into_values().flatten().collect()
}

fn names<'a>(events: impl IntoIterator<Item = &'a Event>) -> Vec<&'a str> {
    events.into_iter().map(|event| event.name.as_str()).collect()
}

fn in_category<'a>(events: &'a [Event], category: &'a str) -> impl Iterator<Item = &'a Event> {
    events.iter().filter(move |event| event.category == category)
}

#[test]
fn a_training_run_by_step_phase_layer_and_op() {
    let sandbox = Sandbox::with_groups(8);
    let model = fixture("labse");
    let done = sandbox.hbt(&train(&model, &["steps=5", "save_steps=3", "--trace=trace.json"])).ok();
    let events = events(&sandbox, "trace.json");
    assert!(done.stderr.contains(&format!("trace.json: {} ranges", events.len())), "{}", done.stderr);

    let steps: Vec<&Event> = in_category(&events, "step").collect();
    assert_eq!(names(steps.iter().copied()), ["step 1", "step 2", "step 3", "step 4", "step 5"]);
    for (step, metrics) in steps.iter().zip(metrics(&sandbox, "run")) {
        assert_eq!(Value::from(step.args["step"]), metrics["step"]);
        assert_eq!(Value::from(step.args["tokens"]), metrics["tokens"]);
    }

    // One step, in order: what the model, the loss and the optimizer do in it.
    let step = |event: &&Event| event.path.first().is_some_and(|name| name == "step 2");
    let of_step: Vec<&Event> = events.iter().filter(step).collect();
    let depth = |n: usize| of_step.iter().copied().filter(move |event| event.path.len() == n);
    let phases = names(depth(1).filter(|event| event.category == "phase"));
    assert_eq!(phases, ["optimizer", "forward", "loss", "backward", "optimizer"]);
    let layers: Vec<_> = depth(2).filter(|event| event.category == "layer").map(|e| (&*e.path[1], &*e.name)).collect();
    let expected = [("forward", "layer 0"), ("forward", "layer 1"), ("backward", "layer 1"), ("backward", "layer 0")];
    assert_eq!(layers, expected);
    let within = |path: [&str; 2]| names(depth(3).filter(move |event| event.path[1..] == path));
    let forward = [
        "gemm",
        "attention_forward",
        "gemm",
        "residual_layer_norm_forward",
        "gemm",
        "bias_gelu_forward",
        "gemm",
        "residual_layer_norm_forward",
    ];
    assert_eq!(within(["forward", "layer 1"]), forward);
    let backward = [
        "residual_layer_norm_backward",
        "gemm",
        "bias_gelu_backward",
        "gemm_f32",
        "gemm_f32",
        "gemm",
        "residual_layer_norm_backward",
        "gemm_f32",
        "gemm",
        "attention_backward",
        "gemm_f32",
        "gemm",
    ];
    assert_eq!(within(["backward", "layer 0"]), backward);
    let ops: BTreeSet<&str> =
        names(of_step.iter().copied().filter(|event| event.category == "op")).into_iter().collect();
    let expected = "adamw adamw_catch_up adamw_rows attention_backward attention_forward bias_gelu_backward \
                    bias_gelu_forward bias_tanh_backward bias_tanh_forward cast copy_rows embedding_backward \
                    embedding_forward gather_cast gemm gemm_f32 info_nce_rows l2_normalize_backward l2_normalize_forward \
                    paste_rows pool_backward pool_forward residual_layer_norm_backward residual_layer_norm_forward \
                    scatter_rows segment_sum sum_of_squares zero_all";
    assert_eq!(ops, expected.split_whitespace().collect());

    // Between the steps, and on the loader's thread.
    let count = |name: &str| events.iter().filter(|event| event.name == name).count();
    assert_eq!((count("save"), count("pack")), (2, 5));
    let feed = events.iter().filter(|event| event.name == "feed");
    assert!(feed.into_iter().all(|event| event.path.is_empty() && event.thread == steps[0].thread));

    let untraced = Sandbox::with_groups(8);
    untraced.hbt(&train(&model, &["steps=5", "save_steps=3"])).ok();
    assert_same_run(&run_contents(&sandbox, "run"), &run_contents(&untraced, "run"), "traced and not");
}

#[test]
fn only_the_chosen_steps() {
    let sandbox = Sandbox::with_groups(8);
    let model = fixture("bert");
    let args = train(&model, &["steps=6", "eval_steps=1", "--trace=trace.json", "--profile-steps=3..5"]);
    sandbox.hbt(&args).ok();
    let events = events(&sandbox, "trace.json");
    let steps: Vec<&Event> = in_category(&events, "step").collect();
    assert_eq!(names(steps.iter().copied()), ["step 3", "step 4"]);
    let begins_between = |event: &Event| event.begin >= steps[0].begin && event.begin <= steps[1].end;
    assert!(events.iter().all(begins_between), "nothing of the evaluations before and after");
    assert_eq!(events.iter().filter(|event| event.name == "evaluate").count(), 1, "the one between the two");
}

#[test]
fn a_later_end_is_the_end_of_the_run() {
    let sandbox = Sandbox::with_groups(8);
    let model = fixture("bert");
    let args = train(&model, &["steps=3", "eval_task=none", "--trace=trace.json", "--profile-steps=3..99"]);
    sandbox.hbt(&args).ok();
    assert_eq!(names(in_category(&events(&sandbox, "trace.json"), "step")), ["step 3"]);
    let done = sandbox.hbt(&train(&model, &["steps=3", "eval_task=none", "out=two", "--profile-steps=1..2"])).ok();
    assert!(done.stderr.contains("nothing to profile with on this device: add --trace FILE"), "{}", done.stderr);
}

#[test]
fn steps_that_cannot_be_profiled() {
    let sandbox = Sandbox::with_groups(8);
    let model = fixture("bert");
    for (steps, message) in [
        ("0..2", "the first step is 1"),
        ("3..3", "holds no step: B has to be above 3"),
        ("5..2", "holds no step: B has to be above 5"),
        ("4", "write it as A..B, two numbers of steps: 10..13 for steps 10, 11 and 12"),
        ("1..x", "write it as A..B"),
        ("-1..2", "write it as A..B"),
        ("1..=2", "write it as A..B"),
    ] {
        let done = sandbox.hbt(&train(&model, &["steps=3", &format!("--profile-steps={steps}")]));
        assert_eq!(done.code, Some(2), "{steps}");
        assert!(done.stderr.contains(message), "{steps}: {}", done.stderr);
    }
    let error = sandbox.hbt(&train(&model, &["steps=3", "--profile-steps=4..6", "--trace=trace.json"])).error();
    assert_eq!(error, "error: --profile-steps: names none of the steps to come, 1 to 3");
    assert!(!sandbox.path("run").exists(), "refused before the run begins");
    assert_eq!(names(&events(&sandbox, "trace.json")), [""; 0]);
}

#[test]
fn a_trace_that_cannot_be_written_is_refused_before_the_work() {
    let sandbox = Sandbox::with_groups(8);
    sandbox.write("texts.txt", "one\ntwo\n");
    let model = fixture("bert");
    let before = sandbox.contents();
    for (file, message) in [
        ("no/trace.json", "error: no/trace.json: there is no directory no; create it first"),
        (".", "error: .: is a directory; name a file in it"),
        ("-", "error: -: does not mean standard output here; name a file, ./- for one of this name"),
    ] {
        let trace = &*format!("--trace={file}");
        for command in [
            train(&model, &["steps=3", trace]),
            vec!["eval", "--model", &model, "--data", "data.jsonl", trace],
            vec!["encode", "--model", &model, "--input", "texts.txt", "--output", "out.npy", trace],
            vec!["bench", "--op", "cast", trace],
        ] {
            assert_eq!(sandbox.hbt(&command).error(), message);
            assert_eq!(sandbox.contents(), before);
        }
    }
}

#[test]
fn other_commands_have_traces_too() {
    let sandbox = Sandbox::with_groups(8);
    sandbox.write("texts.txt", "one\ntwo\n");
    let model = fixture("bert");
    let phases = |command: &[&str]| {
        sandbox.hbt(&[command, &["--trace=trace.json"]].concat()).ok();
        let events = events(&sandbox, "trace.json");
        assert!(in_category(&events, "op").count() > 0);
        let phases = names(in_category(&events, "phase")).into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
        phases.into_iter().collect::<Vec<_>>().join(" ")
    };
    let encode = ["encode", "--model", &model, "--input", "texts.txt", "--output", "out.npy"];
    assert_eq!(phases(&encode), "forward tokenize");
    assert_eq!(phases(&["eval", "--model", &model, "--data", "data.jsonl"]), "forward search tokenize");
    assert_eq!(phases(&["bench", "--op", "l2_normalize", "--precision", "f32"]), "");
}

/// Ctrl-C as soon as `is_ready`.
fn interrupt(mut command: Command, is_ready: impl Fn() -> bool) -> Done {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    while !is_ready() {
        assert!(start.elapsed() < Duration::from_secs(60), "never got that far");
        std::thread::sleep(Duration::from_millis(5));
    }
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    Done::new(child.wait_with_output().unwrap())
}

#[test]
fn a_command_that_ends_early_leaves_a_whole_trace() {
    let sandbox = Sandbox::with_groups(8);
    let model = fixture("bert");
    let long = ["steps=100000", "eval_task=none", "--trace=trace.json"];
    let is_training = || std::fs::read_to_string(sandbox.path("run/metrics.jsonl")).is_ok_and(|text| !text.is_empty());
    interrupt(sandbox.command(&train(&model, &long)), is_training).interrupted();
    let steps = in_category(&events(&sandbox, "trace.json"), "step").count();
    assert_eq!(steps, metrics(&sandbox, "run").len());

    let started = Instant::now();
    let bench = ["bench", "--op", "gemm", "--repeat", "1000", "--trace=bench.json"];
    interrupt(sandbox.command(&bench), || started.elapsed() > Duration::from_secs(1)).interrupted();
    // Whatever it had got to: what counts is that it can be read.
    events(&sandbox, "bench.json");

    let diverging = train(&model, &["steps=40", "out=wild", "learning_rate=1e30", "--trace=wild.json"]);
    let error = sandbox.hbt(&diverging).error();
    assert!(error.contains("is not finite"), "{error}");
    assert!(in_category(&events(&sandbox, "wild.json"), "step").count() > 0);
    let parts = sandbox.contents().into_keys().filter(|name| name.contains(".part"));
    assert_eq!(parts.collect::<Vec<_>>(), [""; 0], "no temporary file is left");
}

/// The ranges that the stand-in for a profiler was told of, as paths: `step 2/forward/layer 0`.
fn told(log: &str) -> Vec<String> {
    let mut open: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut paths = vec![];
    for line in log.lines() {
        let (thread, what) = line.split_once(' ').unwrap();
        let open = open.entry(thread).or_default();
        match what.strip_prefix('+') {
            Some(name) => {
                open.push(name);
                paths.push(open.join("/"));
            }
            None => assert!(open.pop().is_some(), "ended a range that never began"),
        }
    }
    assert!(open.values().all(|names| names.is_empty()), "{open:?} never ended");
    paths
}

#[test]
fn a_profiler_is_told_of_the_same_ranges() {
    let sandbox = Sandbox::with_groups(8);
    let model = fixture("bert");
    let library = sandbox.path("libprobe.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/train/nvtx_probe.cpp");
    let mut compile = Command::new(std::env::var("CXX").unwrap_or("c++".to_owned()));
    compile.args(["-std=c++17", "-shared", "-fPIC", "-o"]).arg(&library).arg(source);
    assert!(compile.status().unwrap().success());
    let profiled = |more: &[&str]| {
        let mut command = sandbox.command(&train(&model, &[&["steps=3", "eval_task=none"], more].concat()));
        command.env("NVTX_INJECTION64_PATH", &library).env("NVTX_PROBE_LOG", sandbox.path("log"));
        let done = Done::new(command.output().unwrap()).ok();
        assert!(!done.stderr.contains("NVTX") && !done.stderr.contains("nothing to profile"), "{}", done.stderr);
        told(&sandbox.read("log"))
    };
    let paths = profiled(&["--trace=trace.json"]);
    assert!(paths.iter().any(|path| path == "step 2/forward/layer 1/attention_forward"), "{paths:?}");
    assert!(paths.iter().any(|path| path == "step 3/optimizer/adamw"), "{paths:?}");
    let in_trace = events(&sandbox, "trace.json");
    let mut in_trace: Vec<String> =
        in_trace.iter().map(|e| [&e.path[..], std::slice::from_ref(&e.name)].concat().join("/")).collect();
    let mut all = paths.clone();
    in_trace.sort();
    all.sort();
    assert_eq!(in_trace, all, "both sinks have the same ranges");

    let paths = profiled(&["out=two", "--profile-steps=2..3"]);
    let steps: Vec<&String> = paths.iter().filter(|path| !path.contains('/') && path.starts_with("step")).collect();
    assert_eq!(steps, ["step 2"]);

    let mut command = sandbox.command(&train(&model, &["steps=1", "eval_task=none", "out=three"]));
    let done = Done::new(command.env("NVTX_INJECTION64_PATH", "no/such.so").output().unwrap()).ok();
    assert!(
        done.stderr.contains("warning: NVTX_INJECTION64_PATH names no profiler's library: no/such.so: cannot open"),
        "{}",
        done.stderr
    );
}
