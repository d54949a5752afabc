//! What hbt says where CUDA cannot be used: one clear line each. On the stand-in, which can be any kind of device.

use crate::common::{Done, Sandbox, fixture, train};
use crate::device;
use std::process::Command;

/// `hbt` on the stand-in, whatever GPU is there.
fn command(sandbox: &Sandbox, args: &[&str]) -> Command {
    let mut command = sandbox.command(args);
    command.env("LD_LIBRARY_PATH", device::built()).env("HBT_CUDA_MEMORY", "separate");
    command.env_remove("CUDA_VISIBLE_DEVICES");
    command
}

/// `hbt train --device cuda` on a stand-in with these settings; the error.
fn refused(settings: &[(&str, &str)], more: &[&str]) -> String {
    let (sandbox, bert) = (Sandbox::with_groups(8), fixture("bert"));
    let args = [&train(&bert, &["steps=2"])[..], &["--device", "cuda"], more].concat();
    let before = sandbox.contents();
    let mut command = command(&sandbox, &args);
    command.envs(settings.iter().copied());
    let error = Done::new(command.output().unwrap()).error();
    assert_eq!(sandbox.contents().keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>(), "{error}");
    error
}

#[track_caller]
pub fn assert_says(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    }
}

#[test]
fn no_driver() {
    let (sandbox, bert) = (Sandbox::with_groups(8), fixture("bert"));
    let args = [&train(&bert, &["steps=2"])[..], &["--device", "cuda"]].concat();
    let error = sandbox.hbt(&args).error();
    assert_says(&error, &["device", "CUDA", "set device = \"cpu\""]);
}

#[test]
fn no_gpu() {
    assert_says(&refused(&[("SIMT_DEVICES", "0")], &[]), &["CUDA", "set device = \"cpu\""]);
}

#[test]
fn an_old_driver() {
    let error = refused(&[("SIMT_DRIVER_VERSION", "11080")], &[]);
    assert_says(&error, &["the NVIDIA driver is for CUDA 11.8, and hbt needs 12.0 or newer; update it"]);
}

#[test]
fn an_old_gpu() {
    let error = refused(&[("SIMT_CAPABILITY", "7.5")], &[]);
    assert_says(&error, &["sm_75", "need sm_80 (Ampere) or newer"]);
}

#[test]
fn too_little_memory() {
    let (sandbox, bert) = (Sandbox::with_groups(8), fixture("bert"));
    let sets = ["--set", "query_max_len=24", "--set", "passage_max_len=24"];
    let eval =
        [&["eval", "--model", &bert, "--task", "parallel", "--data", "data.jsonl", "--device", "cuda"], &sets[..]];
    let mut command = command(&sandbox, &eval.concat());
    command.env("SIMT_MEMORY", "34000000");
    let error = Done::new(command.output().unwrap()).error();
    assert_says(&error, &["out of memory: ", " MiB for ", " are not to be had (", " MiB of the device are free); "]);
}

/// A run is planned before anything is loaded.
#[test]
fn too_little_memory_for_training() {
    let error = refused(&[("SIMT_MEMORY", "34000000")], &[]);
    assert_says(&error, &["the run needs 0.1 GiB, and hbt simt stand-in", "has 0.0 GiB left; most of it is CUDA, "]);
}

/// The kernels have heads of up to 256. Said before anything is loaded: the weights are still those of other heads.
#[test]
fn heads_that_are_too_large() {
    let sandbox = Sandbox::with_groups(8);
    sandbox.copy_model("bert", "wide");
    for (file, narrow, wide) in [
        ("wide/config.json", "\"hidden_size\": 32", "\"hidden_size\": 516"),
        ("wide/1_Pooling/config.json", "dimension\": 32", "dimension\": 516"),
    ] {
        let text = sandbox.read(file);
        assert!(text.contains(narrow), "{file}: {text}");
        sandbox.write(file, text.replace(narrow, wide));
    }
    let before = sandbox.contents();
    for precision in ["f32", "bf16"] {
        let args = [&train("wide", &["steps=2"])[..], &["--device", "cuda", "--precision", precision]].concat();
        let error = Done::new(command(&sandbox, &args).output().unwrap()).error();
        let heads = "wide/config.json: hidden_size 516 / num_attention_heads 2 makes heads of 258, but cuda (";
        assert_says(&error, &[heads, ") computes heads of up to 256; set device = \"cpu\""]);
        assert_eq!(sandbox.contents(), before);
    }
}

/// Only the driver and what else is named, of the stand-in's libraries.
pub fn with_libraries(names: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in names {
        std::os::unix::fs::symlink(device::built().join(name), folder.path().join(name)).unwrap();
    }
    folder
}

#[test]
fn no_cublaslt() {
    let folder = with_libraries(&["libcuda.so", "libnvrtc.so.12"]);
    let error = refused(&[("LD_LIBRARY_PATH", folder.path().to_str().unwrap())], &[]);
    assert_says(&error, &["cuBLASLt", "is not there; install it (pip install nvidia-cublas-cu12, ", "LD_LIBRARY_PATH"]);
}

/// A build by nvcc has its kernels already.
#[test]
fn no_nvrtc() {
    let folder = with_libraries(&["libcuda.so", "libcublasLt.so.12"]);
    let info = Sandbox::new().hbt(&["info"]).ok().stdout;
    if info.contains("compiled by nvcc") {
        return;
    }
    let error = refused(&[("LD_LIBRARY_PATH", folder.path().to_str().unwrap())], &[]);
    assert_says(&error, &["built without nvcc", "NVRTC", "install it (pip install nvidia-cuda-nvrtc-cu12, "]);
}

#[test]
fn info_names_the_gpu_and_where_its_kernels_come_from() {
    let sandbox = Sandbox::new();
    let info = Done::new(command(&sandbox, &["info"]).output().unwrap()).ok().stdout;
    assert_says(
        &info,
        &["\ndevice        auto is cuda\n", "\nprecision     auto is bf16: tensor cores ", "\nkernels       "],
    );
    // Hidden from the process, as far as a real driver is concerned.
    let info = sandbox.hbt(&["info"]).ok().stdout;
    assert_says(&info, &["\ndevice        auto is cpu\n"]);
}
