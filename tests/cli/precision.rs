//! `--precision`: what `auto` picks, that it is said, and that a run keeps what it began with.

use crate::common::{Done, Sandbox, assert_same_run, fixture, run_contents, train};
use hbt::backend::cpu::Instructions;

/// The precision that `auto` has to choose, by the kernel's description of the processor, and the other one.
fn fastest_and_other() -> (&'static str, &'static str) {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or("");
    // Intel's is slower than its f32.
    let is_fast = flags.split_whitespace().any(|flag| flag == "avx512_bf16") && !cpuinfo.contains("GenuineIntel");
    if is_fast { ("bf16", "f32") } else { ("f32", "bf16") }
}

/// The precisions that a command says it has picked.
fn picked(stderr: &str) -> Vec<&str> {
    let said = stderr.lines().filter_map(|line| line.strip_prefix("precision "));
    said.map(|line| line.split_once(": this processor ").expect("it says why").0).collect()
}

#[test]
fn auto_is_the_fastest_and_says_so_once() {
    let (fastest, other) = fastest_and_other();
    let (sandbox, bert) = (Sandbox::with_groups(8), fixture("bert"));
    sandbox.write("texts.txt", "old river\nwho wrote it?\n");
    let encode = |more: &[&str], out| {
        let args = ["encode", "--model", &bert, "--input", "texts.txt", "--output", out];
        let done = sandbox.hbt(&[&args, more].concat()).ok();
        (done.stderr, sandbox.bytes(out))
    };
    let (said, by_default) = encode(&[], "a.npy");
    assert_eq!(picked(&said), [fastest], "{said}");
    for more in [["--precision", fastest], ["--set", &format!("precision={fastest}")]] {
        let (said, same) = encode(&more, "b.npy");
        assert_eq!((picked(&said), same == by_default), (vec![], true), "{more:?}: {said}");
    }
    assert_ne!(encode(&["--precision", other], "c.npy").1, by_default);

    let eval = sandbox.hbt(&["eval", "--model", &bert, "--data", "data.jsonl", "--device", "cpu"]).ok();
    assert_eq!(picked(&eval.stderr), [fastest]);
    let args = ["compare", "--model", &bert, "--data", "data.jsonl", "--set", "batch_size=4", "--set", "steps=1"];
    let compare = sandbox.hbt(&[&args[..], &["--set", "eval_task=parallel"]].concat()).ok();
    assert_eq!(picked(&compare.stderr), [fastest]);
    let info = sandbox.hbt(&["info"]).ok().stdout;
    assert!(info.contains(&format!("\nprecision     auto is {fastest}: this processor ")), "{info}");
    // A configuration to start from is for any machine.
    assert!(sandbox.hbt(&["config"]).ok().stdout.contains("\n#precision = \"auto\"\n"));
    assert!(sandbox.hbt(&["config", "--precision", "bf16"]).ok().stdout.contains("\nprecision = \"bf16\"\n"));
}

#[test]
fn a_run_saves_and_keeps_its_precision() {
    let (fastest, other) = fastest_and_other();
    let (sandbox, bert) = (Sandbox::with_groups(8), fixture("bert"));
    let done = sandbox.hbt(&train(&bert, &["steps=2"])).ok();
    assert_eq!(picked(&done.stderr), [fastest]);
    assert!(sandbox.read("run/config.toml").contains(&format!("\nprecision = \"{fastest}\"\n")));
    let is_complete = |args: &[&str]| {
        let done = sandbox.hbt(args).ok();
        assert!(done.stderr.ends_with("run/last: step 2\n") && picked(&done.stderr).is_empty(), "{}", done.stderr);
    };
    is_complete(&["train", "--out", "run", "--resume"]);
    is_complete(&train(&bert, &["steps=2", "--resume"]));
    let precision = format!("--precision={other}");
    let switched = sandbox.hbt(&train(&bert, &["steps=2", "--resume", &precision])).error();
    let expected = format!("error: precision: was \"{fastest}\" when the run in run began, and is \"{other}\" now;");
    assert!(switched.starts_with(&expected), "{switched}");

    // Where its file says `auto` again, the run's state knows what it computes in.
    let saved = sandbox.read("run/config.toml").replace(&format!("\"{fastest}\""), "\"auto\"");
    sandbox.write("run/config.toml", saved);
    is_complete(&["train", "--out", "run", "--resume"]);
    let switched = sandbox.hbt(&["train", "--out", "run", "--resume", &precision]).error();
    assert!(switched.starts_with(&expected), "{switched}");
}

/// With the whole command, in which `precision` is `auto`, and with the short one.
#[cfg(unix)]
#[test]
fn a_stopped_run_goes_on_in_its_own_precision() {
    use crate::train::resume::interrupted;
    let (_, other) = fastest_and_other();
    let bert = fixture("bert");
    let sets = ["steps=24", "eval_steps=1", "dropout=0.1", "save_steps=100"];
    let other = format!("--precision={other}");
    let first = train(&bert, &[&sets[..], &[other.as_str()]].concat());
    let undisturbed = Sandbox::with_groups(8);
    undisturbed.hbt(&first).ok();
    let whole = train(&bert, &[&sets[..], &["--resume", "--precision=auto"]].concat());
    for resume in [whole, vec!["train", "--out", "run", "--resume"]] {
        let sandbox = Sandbox::with_groups(8);
        interrupted(sandbox.command(&first), "-INT", &sandbox.path("run/metrics.jsonl"), 3).interrupted();
        assert_eq!(picked(&sandbox.hbt(&resume).ok().stderr), [""; 0], "{resume:?}");
        assert_same_run(&run_contents(&undisturbed, "run"), &run_contents(&sandbox, "run"), &format!("{resume:?}"));
    }
}

/// `HBT_CPU` holds hbt to what other processors have, `auto` included, and `hbt info` says so.
#[test]
fn instructions_can_be_held_back() {
    let sandbox = Sandbox::new();
    let info = |set: &str| Done::new(sandbox.command(&["info"]).env("HBT_CPU", set).output().unwrap());
    let held = info("baseline").ok().stdout;
    assert!(held.contains("\ninstructions  baseline") && held.contains("\nprecision     auto is f32: "), "{held}");
    if Instructions::of_processor() == Instructions::Avx512Bf16 {
        let held = info("avx2").ok().stdout;
        assert!(held.contains("\nprecision     auto is f32: HBT_CPU leaves this processor's AVX512-BF16"), "{held}");
    }
    let free = info("").ok().stdout;
    assert!(free.contains(", this processor's fastest (HBT_CPU picks others)\n"), "{free}");
    let expected = "error: HBT_CPU: unknown word \"avx3\"; use one of baseline, avx2, avx512, avx512_bf16";
    assert_eq!(info("avx3").error(), expected);
    let bf16 = info("avx512_bf16");
    if Instructions::of_processor() == Instructions::Avx512Bf16 {
        assert!(bf16.ok().stdout.contains("\nprecision     auto is bf16: "));
    } else {
        let message = bf16.error();
        assert!(message.starts_with("error: HBT_CPU=avx512_bf16: this processor has no more than "), "{message}");
    }
}

/// Nothing is said of a device that is not there.
#[test]
fn a_missing_gpu_is_all_that_is_said() {
    let (sandbox, bert) = (Sandbox::with_groups(8), fixture("bert"));
    let [data, cuda] = [["--model", &bert, "--data", "data.jsonl"], ["--device", "cuda", "--set", "temperature=1"]];
    for command in ["train", "compare", "eval"] {
        for precision in ["auto", "bf16"] {
            let args = [&[command], &data[..], &cuda, &["--set", "batch_size=4", "--precision", precision]].concat();
            let done = sandbox.hbt(&args);
            let error = done.error();
            assert!(error.starts_with("error: device: ") && error.ends_with("or set device = \"cpu\""), "{error}");
            assert_eq!(done.stderr, format!("{error}\n"), "{command}, {precision}");
        }
    }
}

#[test]
fn what_it_cannot_be_is_wrong_usage() {
    let sandbox = Sandbox::new();
    for args in [["eval", "--precision", "f16"], ["encode", "--device", "gpu"], ["train", "--precision", "bf-16"]] {
        let done = sandbox.hbt(&args);
        assert_eq!(done.code, Some(2), "{args:?}");
        assert!(done.stderr.contains("possible values: auto, "), "{}", done.stderr);
    }
}
