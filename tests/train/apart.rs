//! Ranks on machines that share no disk: each has the data and nothing else, but for the first, which has the model and the run.

use crate::common::{Done, Sandbox, assert_same_run, fixture, n_steps, run_results, train};
use serde_json::Value;
use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Starts a rank in each folder, with a cache of its own, as on machines of their own; `more` are more arguments of the last.
fn start(machines: &[&Sandbox], args: &[&str], more: &[&str]) -> Vec<Child> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let rank = |(rank, machine): (usize, &&Sandbox)| {
        let more = if rank + 1 == machines.len() { more } else { &[] };
        let mut command = machine.command(&[args, more].concat());
        command.env("RANK", rank.to_string()).env("WORLD_SIZE", machines.len().to_string());
        command.env("LOCAL_RANK", "0").env("LOCAL_WORLD_SIZE", "1");
        command.env("HBT_RENDEZVOUS", format!("127.0.0.1:{port}"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    machines.iter().enumerate().map(rank).collect()
}

fn finish(ranks: Vec<Child>) -> Vec<Done> {
    ranks.into_iter().map(|rank| Done::new(rank.wait_with_output().unwrap())).collect()
}

/// Two machines, the second of which has the data alone.
fn machines() -> [Sandbox; 2] {
    let machines = [Sandbox::with_groups(16), Sandbox::with_groups(16)];
    machines[0].copy_model("bert", "model");
    machines
}

/// The steps of a run that evaluates, learns a temperature and drops out, and may be killed on the way.
fn run(out: &str) -> Vec<&str> {
    let sets = ["steps=120", "batch_size=7", "eval_steps=50", "temperature_learning_rate=1e-2", "save_steps=30", out];
    train("model", &[&["dropout=0.1"], &sets[..]].concat())
}

#[test]
fn a_run_is_in_one_place_alone() {
    let machines = machines();
    let [first, second] = machines.each_ref();
    for done in finish(start(&[first, second], &run("out=whole"), &[])) {
        done.ok();
    }
    let mut ranks = start(&[first, second], &run("out=cut"), &[]);
    let begun = Instant::now();
    while n_steps(&first.path("cut/metrics.jsonl")) < 70 && begun.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(1));
    }
    ranks[1].kill().unwrap();
    assert!(finish(ranks)[0].code == Some(1) && n_steps(&first.path("cut/metrics.jsonl")) < 120, "killed on the way");
    // What a machine has of its own there is not looked at.
    second.write("cut/config.toml", "batch_size = 3\n");
    for done in finish(start(&[first, second], &["train", "--out", "cut", "--resume"], &[])) {
        done.ok();
    }
    assert_same_run(&run_results(first, "cut"), &run_results(first, "whole"), "killed and resumed");
    assert!(second.contents().keys().eq(["cut/config.toml", "data.jsonl"]), "{:?}", second.contents().keys());
    // Without its configuration, with the settings in its state.
    std::fs::remove_file(first.path("cut/config.toml")).unwrap();
    let more = ["train", "--out", "cut", "--resume", "--set", "steps=130"];
    finish(start(&[first, second], &more, &[])).into_iter().for_each(|done| drop(done.ok()));
    // A directory that holds a run is found to do so by the first.
    let again = &run("out=cut");
    let error = finish(start(&[first, second], again, &[])).remove(0);
    assert!(error.stderr.contains("cut: holds a run already"), "{}", error.stderr);
}

/// What cannot work is refused before anyone tokenizes.
#[test]
fn ranks_compare_first_what_they_are_to_do() {
    let machines = machines();
    let [first, second] = machines.each_ref();
    second.write("data.jsonl", second.read("data.jsonl").replace("book", "books"));
    let args = train("model", &["steps=2"]);
    for (more, expected) in [
        (
            &["--set", "batch_size=5"][..],
            "rank 1 has another configuration than rank 0: \"batch_size = 5\" where rank 0 has",
        ),
        (&[], "rank 1 has another content of the data than rank 0: \"dataset 1 "),
    ] {
        let done = finish(start(&[first, second], &args, more));
        let said: String = done.iter().map(|done| done.stderr.as_str()).collect();
        assert!(done.iter().all(|done| done.code == Some(1)) && said.contains(expected), "{said}");
        for machine in &machines {
            let cache = std::fs::read_dir(machine.path("cache")).into_iter().flatten().flatten();
            let names: Vec<_> = cache.map(|entry| entry.file_name().into_string().unwrap()).collect();
            assert!(!names.iter().any(|name| name.starts_with("tokens-")), "{names:?}");
        }
    }
    let error = first.hbt(&train("model", &["stall_minutes=0"])).error();
    assert!(error.contains("stall_minutes") && error.contains("0.1"), "{error}");
}

/// What `auto` comes to in a run is what a plan for as many ranks says: chunks of a rank's share of a batch.
#[test]
fn a_run_of_several_ranks_takes_its_plan() {
    let machines = [Sandbox::with_groups(120), Sandbox::with_groups(120)];
    let [first, second] = machines.each_ref();
    let model = fixture("bert");
    let sets = ["batch_size=110", "steps=1", "eval_task=none", "chunk_tokens=auto", "precision=f32"];
    let by_plan = |n: &str| {
        let mut args = vec!["plan", "--json", "--nodes", n, "--link", "10", "--model", &model, "--data", "data.jsonl"];
        args.extend(sets.iter().flat_map(|set| ["--set", *set]));
        let plan: Value = serde_json::from_str(&first.hbt(&args).ok().stdout).unwrap();
        format!("chunk_tokens = {}, kept_chunks = {} by plan", plan["chunk_tokens"], plan["kept_chunks"])
    };
    let alone = first.hbt(&train(&model, &[&sets[..], &["out=alone"]].concat())).ok();
    let done = finish(start(&[first, second], &train(&model, &[&sets[..], &["out=two"]].concat()), &[])).remove(0).ok();
    let [one, two] = ["1", "2"].map(by_plan);
    assert!(alone.stderr.contains(&one) && done.stderr.contains(&two), "{one}, {two}: {}{}", alone.stderr, done.stderr);
    assert_ne!(one, two);
}
