//! Runs on several GPUs, one process each, which exchange over NCCL: on its stand-in, which can be made to fail.

use super::errors::assert_says;
use super::largest_difference;
use crate::common::{Done, Sandbox, all_metrics, fixture, train};
use crate::device;
use crate::tolerance::REGROUPED;
use crate::train::ranks::{finish, wait_for_lines};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What a step may have.
const SETS: [&str; 7] = [
    "eval_task=none",
    "batch_size=7",
    "dropout=0.1",
    "symmetric=true",
    "temperature_learning_rate=1e-2",
    "query_max_len=16",
    "passage_max_len=16",
];
/// Steps and saves of a run.
const FEW: [&str; 2] = ["steps=4", "save_steps=2"];
const TEN: [&str; 2] = ["steps=10", "save_steps=5"];

/// `hbt` on the stand-in, whatever GPU is there, which has four.
fn command(sandbox: &Sandbox, args: &[&str]) -> Command {
    let mut command = sandbox.command(args);
    command.env("LD_LIBRARY_PATH", device::built()).env("HBT_CUDA_MEMORY", "separate").env("SIMT_PAGEABLE", "late");
    command.env_remove("CUDA_VISIBLE_DEVICES").env("SIMT_DEVICES", "4").env("SIMT_SEED", "1");
    command
}

fn args<'a>(model: &'a str, steps: [&'a str; 2], more: &[&'a str]) -> Vec<&'a str> {
    [&train(model, &[&SETS[..], &steps].concat())[..], &["--device", "cuda", "--precision", "f32"], more].concat()
}

/// A run of several GPUs, with settings of the stand-in.
fn trained(sandbox: &Sandbox, steps: [&str; 2], [devices, out]: [&str; 2], settings: &[(&str, &str)]) -> Done {
    let (model, out) = (fixture("bert"), format!("out={out}"));
    let args = args(&model, steps, &["--devices", devices, "--set", &out]);
    Done::new(command(sandbox, &args).envs(settings.iter().copied()).output().unwrap())
}

fn weights(sandbox: &Sandbox, run: &str) -> Vec<u8> {
    sandbox.bytes(&format!("{run}/last/model.safetensors"))
}

/// To rounding, though the order of sums is another; and the same GPUs twice give the same bytes in any order of threads.
#[test]
fn a_run_of_several_gpus_is_that_of_one() {
    let (sandbox, bert) = (Sandbox::with_groups(16), fixture("bert"));
    Done::new(command(&sandbox, &args(&bert, TEN, &["--set", "out=one"])).output().unwrap()).ok();
    let one: Vec<_> = all_metrics(&sandbox, "one").into_iter().filter(|line| !line["loss"].is_null()).collect();
    assert_eq!(one.len(), 10);
    for (n, seeds) in [("2", ["1", "2"]), ("4", ["3", "3"])] {
        for (i, seed) in seeds.iter().enumerate() {
            let out = format!("run{n}{i}");
            let done = trained(&sandbox, TEN, [n, &out], &[("SIMT_SEED", seed), ("SIMT_REPORT", "1")]).ok();
            assert_says(
                &done.stderr,
                &[&format!("{n} ranks, started by hbt's launcher"), "GPUs exchange by NCCL 2.27, "],
            );
            assert_eq!(done.stderr.matches("step 10/10").count(), 1, "one of them speaks: {}", done.stderr);
            // In each step one exchange of embeddings and one of gradients, on each.
            let counted = |line: &&str| line.starts_with("simt: nccl ");
            let of_ranks: Vec<_> =
                done.stderr.lines().filter(counted).map(|line| line.split_whitespace().nth(2)).collect();
            assert_eq!(of_ranks, vec![Some("20"); n.parse().unwrap()], "{}", done.stderr);
            let got: Vec<_> = all_metrics(&sandbox, &out).into_iter().filter(|line| !line["loss"].is_null()).collect();
            for name in ["loss", "grad_norm", "temperature"] {
                let difference = largest_difference(name, &got, &one);
                assert!(difference < REGROUPED, "{n} GPUs: {name} is off by {difference:e}");
            }
        }
        assert!(weights(&sandbox, &format!("run{n}0")) == weights(&sandbox, &format!("run{n}1")), "{n} GPUs twice");
    }
}

/// The processes of a world whose launcher says of each what `of_rank` does.
fn start(
    sandbox: &Sandbox,
    size: usize,
    args: &[&str],
    of_rank: &dyn Fn(usize) -> Vec<(&'static str, String)>,
) -> Vec<Child> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let rank = |rank: usize| {
        let mut command = command(sandbox, args);
        command.env("HBT_RENDEZVOUS", format!("127.0.0.1:{port}")).envs(of_rank(rank));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    (0..size).map(rank).collect()
}

fn torchrun(rank: usize) -> Vec<(&'static str, String)> {
    [("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", 2), ("LOCAL_WORLD_SIZE", 2)]
        .map(|(k, v)| (k, v.to_string()))
        .to_vec()
}

fn srun(rank: usize) -> Vec<(&'static str, String)> {
    let own = [("SLURM_PROCID", rank), ("SLURM_LOCALID", rank), ("SLURM_STEP_NUM_TASKS", 2), ("SLURM_NODEID", 0)];
    let all = [("SLURM_JOB_ID", "7"), ("SLURM_STEP_ID", "0"), ("SLURM_STEP_TASKS_PER_NODE", "2")];
    own.map(|(k, v)| (k, v.to_string())).into_iter().chain(all.map(|(k, v)| (k, v.to_owned()))).collect()
}

/// Without MPI: torchrun's processes see all GPUs, SLURM's (`--gpus-per-task`) one each, which is the first to each.
#[test]
fn every_launcher_starts_gpus() {
    let (sandbox, bert) = (Sandbox::with_groups(16), fixture("bert"));
    trained(&sandbox, FEW, ["2", "own"], &[]).ok();
    finish(start(&sandbox, 2, &args(&bert, FEW, &["--set", "out=torchrun"]), &torchrun)).ok();
    let sees_one = |rank: usize| {
        let visible = [("SIMT_DEVICES", "1".to_owned()), ("SIMT_FIRST_DEVICE", rank.to_string())];
        srun(rank).into_iter().chain(visible).collect()
    };
    let done = finish(start(&sandbox, 2, &args(&bert, FEW, &["--set", "out=srun"]), &sees_one)).ok();
    assert_says(&done.stderr, &["2 ranks, started by srun"]);
    for run in ["torchrun", "srun"] {
        assert!(weights(&sandbox, run) == weights(&sandbox, "own"), "{run}");
    }
}

#[test]
fn two_ranks_on_one_gpu_are_refused_by_name_unless_nccl_is_told() {
    let (sandbox, bert) = (Sandbox::with_groups(16), fixture("bert"));
    let on_one = |rank: usize| [srun(rank), vec![("SIMT_DEVICES", "1".to_owned())]].concat();
    let done = finish(start(&sandbox, 2, &args(&bert, FEW, &[]), &on_one));
    assert_eq!((done.code, done.stderr.matches("error: ").count()), (Some(1), 1), "{}", done.stderr);
    assert_says(
        &done.stderr,
        &["error: rank 0 (host ", "GPU 0) and rank 1 (host ", ") have the same GPU: start one process for each"],
    );
    let error = trained(&sandbox, FEW, ["2", "run"], &[("SIMT_DEVICES", "1")]).error();
    assert_says(&error, &["--devices: 2 processes want a GPU each, and there is 1 GPU: lower it, "]);
    assert!(!sandbox.path("run").exists());
    trained(&sandbox, FEW, ["2", "run"], &[("SIMT_DEVICES", "1"), ("NCCL_MULTI_RANK_GPU_ENABLE", "1")]).ok();
}

/// The one error of a run of two GPUs that cannot begin.
fn refused(settings: &[(&str, &str)]) -> String {
    let sandbox = Sandbox::with_groups(16);
    let done = trained(&sandbox, FEW, ["2", "run"], settings);
    assert_eq!((done.code, done.stderr.matches("error: ").count()), (Some(1), 1), "{}", done.stderr);
    assert!(!sandbox.path("run").exists());
    done.stderr
}

#[test]
fn no_nccl() {
    let remedy = "install it (pip install nvidia-nccl-cu12, then put its lib folder on LD_LIBRARY_PATH, or name the file in \
                  HBT_NCCL_LIBRARY), or set device = \"cpu\"";
    let folder = super::errors::with_libraries(&["libcuda.so", "libcublasLt.so.12", "libnvrtc.so.12"]);
    let absent = refused(&[("LD_LIBRARY_PATH", folder.path().to_str().unwrap())]);
    assert_says(&absent, &["device: NCCL, by which GPUs exchange, is not there; ", remedy]);
    let old = refused(&[("SIMT_NCCL_VERSION", "21003")]);
    assert_says(&old, &["device: NCCL 2.10, ", "libnccl.so.2 is older than 2.14; ", remedy]);
    let named = refused(&[("HBT_NCCL_LIBRARY", "/nowhere/libnccl.so")]);
    assert_says(&named, &["HBT_NCCL_LIBRARY is /nowhere/libnccl.so, which is no NCCL 2 that can be opened; ", remedy]);
    let other = device::built().join("libcuda.so");
    let other = refused(&[("HBT_NCCL_LIBRARY", other.to_str().unwrap())]);
    assert_says(
        &other,
        &["libcuda.so has no function ncclGetVersion, so it is older than NCCL 2.14 or something else; "],
    );
}

/// The versions of NCCL have to be the same: it says so itself only where it is new.
#[test]
fn ranks_with_another_nccl_or_none_are_refused_by_name() {
    let (sandbox, bert) = (Sandbox::with_groups(16), fixture("bert"));
    let refused = |more: &[&str], variables: &'static [(&'static str, &'static str)]| {
        let of_rank = |rank: usize| {
            let own = variables.iter().filter(|_| rank == 1).map(|(name, value)| (*name, (*value).to_owned()));
            torchrun(rank).into_iter().chain(own).collect()
        };
        let done = finish(start(&sandbox, 2, &[&args(&bert, FEW, &[])[..], more].concat(), &of_rank));
        assert_eq!((done.code, done.stderr.matches("error: ").count()), (Some(1), 1), "{}", done.stderr);
        done.stderr
    };
    let other = refused(&[], &[("SIMT_NCCL_VERSION", "22105")]);
    let words =
        "rank 1 has another exchange than rank 0: \"GPUs, by NCCL 2.21\" where rank 0 has \"GPUs, by NCCL 2.27\"";
    assert_says(&other, &[words]);
    let none = refused(&["--set", "device=auto"], &[("SIMT_DEVICES", "0")]);
    assert_says(
        &none,
        &["rank 1 has another exchange than rank 0: \"processors\" where rank 0 has \"GPUs, by NCCL 2.27\""],
    );
}

/// What goes wrong on the way ends all with one line, wherever it does, and leaves the last save.
#[test]
fn what_goes_wrong_among_gpus_ends_all_with_one_line() {
    let gone = ["error: rank 1 (host ", ", GPU 1) is gone, at step "];
    let fails = ["error: rank ", ": nccl: the exchange with other ranks' GPUs failed: "];
    let differs = ["error: rank ", ": rank 1 has other weights than rank 0: ", "; nothing was saved"];
    let sandbox = Sandbox::with_groups(16);
    for (i, (fault, death, words)) in [
        ("kill:1:5", "", &gone[..]),
        ("kill:1:6:during", "", &gone),
        ("kill:1:5:after", "error", &gone[..1]),
        ("fail:1:5", "", &fails),
        ("fail:0:6:during", "", &fails),
        // The sum of the gradients of step 3.
        ("flip:1:6", "", &differs),
    ]
    .into_iter()
    .enumerate()
    {
        let (start, run) = (Instant::now(), format!("run{i}"));
        let done = trained(&sandbox, FEW, ["2", &run], &[("SIMT_NCCL_FAULT", fault), ("SIMT_NCCL_DEATH", death)]);
        assert!(start.elapsed() < Duration::from_secs(15), "{fault}: {:?}", start.elapsed());
        assert_eq!((done.code, done.stderr.matches("error: ").count()), (Some(1), 1), "{fault}: {}", done.stderr);
        assert_says(&done.stderr, words);
        assert_eq!(sandbox.json(&format!("{run}/last/training_state.json"))["step"], 2, "{fault}");
    }
}

/// A GPU that is late changes nothing, and whoever asks the launcher to stop stops all, who go on where they were.
#[test]
fn a_run_that_is_stopped_goes_on_to_the_same_bytes() {
    let (sandbox, bert) = (Sandbox::with_groups(16), fixture("bert"));
    trained(&sandbox, TEN, ["2", "whole"], &[]).ok();
    let args = args(&bert, TEN, &["--devices", "2", "--set", "out=cut"]);
    let mut stopped = command(&sandbox, &args);
    stopped.env("SIMT_NCCL_FAULT", "delay:1:11");
    let child = stopped.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_lines(&sandbox, "cut", 4);
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let done = Done::new(child.wait_with_output().unwrap()).interrupted();
    assert_says(&done.stderr, &["stopping after this step", "saved step "]);
    let resumed = command(&sandbox, &["train", "--out", "cut", "--resume", "--devices", "2"]).output().unwrap();
    Done::new(resumed).ok();
    assert!(weights(&sandbox, "cut") == weights(&sandbox, "whole"));
}

/// What has nothing to learn exchanges through the host, and needs no NCCL.
#[test]
fn embeddings_and_figures_are_those_of_one_gpu() {
    let (sandbox, bert) = (Sandbox::with_groups(16), fixture("bert"));
    // More than a window, as each of those goes to one of the two.
    let text = |i: usize| format!("{{\"text\": \"{}\"}}\n", char::from(b'a' + (i * 31 % 26) as u8));
    sandbox.write("texts.jsonl", (0..2100).map(text).collect::<String>());
    let device = ["--device", "cuda", "--precision", "f32"];
    let both = |args: &[&str], option: &str, [one, two]: [&str; 2]| {
        let args = [args, &device].concat();
        Done::new(command(&sandbox, &[&args[..], &[option, one]].concat()).output().unwrap()).ok();
        let without = |rank: usize| [torchrun(rank), vec![("HBT_NCCL_LIBRARY", "/nowhere".to_owned())]].concat();
        finish(start(&sandbox, 2, &[&args[..], &[option, two]].concat(), &without)).ok();
        assert!(sandbox.bytes(one) == sandbox.bytes(two), "{args:?}");
    };
    both(&["encode", "--model", &bert, "--input", "texts.jsonl"], "--output", ["one.npy", "two.npy"]);
    let sets = ["--set", "query_max_len=16", "--set", "passage_max_len=16"];
    let eval = ["eval", "--model", &bert, "--data", "data.jsonl", "--task", "parallel"];
    both(&[&eval[..], &sets].concat(), "--json", ["one.json", "two.json"]);
}

/// Real libraries, which `.ci/nccl` installs: their functions are found, and called as far as that goes without a GPU.
#[test]
fn a_real_nccl_is_opened_and_says_what_it_lacks() {
    let Some(files) = std::env::var_os("HBT_TEST_NCCL") else {
        return eprintln!("skipped: HBT_TEST_NCCL names no NCCL (.ci/nccl installs two)");
    };
    for file in std::env::split_paths(&files) {
        let settings = [("HBT_NCCL_LIBRARY", file.to_str().unwrap())];
        let sandbox = Sandbox::with_groups(16);
        let info = Done::new(command(&sandbox, &["info"]).envs(settings).output().unwrap()).ok().stdout;
        let line = info.lines().find(|line| line.starts_with("nccl ")).unwrap_or_default();
        let is_listed =
            line.trim_start_matches("nccl ").trim().starts_with("2.") && line.ends_with(file.to_str().unwrap());
        assert!(is_listed, "{info}");
        // The id is made and given to all; what NCCL brings of CUDA finds that this driver is none.
        let done = trained(&sandbox, FEW, ["2", "run"], &settings);
        assert_eq!((done.code, done.stderr.matches("error: ").count()), (Some(1), 1), "{}", done.stderr);
        assert_says(&done.stderr, &[": nccl: connecting the GPUs failed: unhandled cuda error ", "CUDA driver"]);
    }
}
