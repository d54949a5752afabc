//! Drivers of all versions from CUDA 12.0 on, and what of NVIDIA's libraries is beside them. On the stand-in, which has
//! each version's functions and refuses what it refuses.

use super::errors::{assert_says, with_libraries};
use crate::common::{Done, Sandbox, fixture, train};
use crate::device;
use std::process::Command;
use xxhash_rust::xxh3::xxh3_64;

const VERSIONS: [u32; 5] = [12000, 12020, 12040, 12080, 13000];

/// `hbt` where the driver is for that version of CUDA, with both major versions of the libraries beside it.
fn command(sandbox: &Sandbox, args: &[&str], version: u32) -> Command {
    let mut command = sandbox.command(args);
    command.env("LD_LIBRARY_PATH", device::built_for(version)).env("SIMT_DRIVER_VERSION", version.to_string());
    command.env_remove("CUDA_VISIBLE_DEVICES").env("HBT_CUDA_MEMORY", "separate");
    command
}

fn hbt(sandbox: &Sandbox, args: &[&str], version: u32, settings: &[(&str, &str)]) -> Done {
    Done::new(command(sandbox, args, version).envs(settings.iter().copied()).output().unwrap())
}

/// What `hbt info` says on lines of that name.
fn info(sandbox: &Sandbox, version: u32, settings: &[(&str, &str)], name: &str) -> String {
    let report = hbt(sandbox, &["info"], version, settings).ok().stdout;
    let lines: Vec<&str> = report.lines().filter_map(|line| line.strip_prefix(name)).map(str::trim).collect();
    lines.join("\n")
}

/// Two steps of training on the GPU.
fn trained(sandbox: &Sandbox, version: u32, settings: &[(&str, &str)]) -> Done {
    let bert = fixture("bert");
    let args =
        [&train(&bert, &["steps=2", "eval_task=none"])[..], &["--device", "cuda", "--precision", "bf16"]].concat();
    let _ = std::fs::remove_dir_all(sandbox.path("run"));
    hbt(sandbox, &args, version, settings)
}

/// The version of the nvcc that compiled this build's kernels; the stand-in's compilers are in tests/simt/toolkit-*.
fn nvcc() -> Option<String> {
    let report = Sandbox::new().hbt(&["info"]).ok().stdout;
    let (_, rest) = report.split_once("compiled by nvcc ")?;
    Some(rest.split_whitespace().next().unwrap().to_owned())
}

/// cuBLASLt and NVRTC are those of the driver's major version, though the others are found first.
#[test]
fn every_driver_trains_with_the_libraries_of_its_major_version() {
    for version in VERSIONS {
        let sandbox = Sandbox::with_groups(8);
        let (major, minor) = (version / 1000, version % 1000 / 10);
        let cuda = info(&sandbox, version, &[], "cuda");
        assert_says(&cuda, &[&format!("driver for CUDA {major}.{minor} and older")]);
        let library = |name: &str| format!("/lib{name}.so.{major}");
        assert_says(&info(&sandbox, version, &[], "cublaslt"), &[&format!("{major}."), &library("cublasLt")]);
        assert_says(info(&sandbox, version, &[], "nvrtc").lines().next().unwrap(), &["99", &library("nvrtc")]);
        assert_says(&info(&sandbox, version, &[], "driver"), &["/libcuda.so"]);
        trained(&sandbox, version, &[]).ok();
    }
}

/// The clock that benchmarks and plans read, on drivers whose library lacks what later ones have.
#[test]
fn time_is_measured_on_every_driver() {
    if device::is_real() {
        return;
    }
    for version in VERSIONS {
        let what = ["--op", "info_nce", "--shape", "64x64x32", "--no-ceilings", "--json"];
        let args = [&["bench", "--device", "cuda", "--precision", "f32"][..], &what].concat();
        let done = hbt(&Sandbox::new(), &args, version, &[]).ok();
        let rows: Vec<serde_json::Value> =
            done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(rows.len(), 2, "one way and both: {}", done.stdout);
        assert!(rows.iter().all(|row| row["seconds"].as_f64().unwrap() > 0.0), "{version}: {}", done.stdout);
    }
}

/// A driver for CUDA 13 works with the libraries of 12, one for 12 not with those of 13.
#[test]
fn libraries_of_one_major_version() {
    let libraries = |version: u32, major: u32| {
        let names = [format!("libcublasLt.so.{major}"), format!("libnvrtc.so.{major}")];
        let folder = with_libraries(&["libcuda.so", &names[0], &names[1]]);
        // The name without a version, which an installed toolkit brings.
        for name in ["libcublasLt.so", "libnvrtc.so"] {
            std::os::unix::fs::symlink(format!("{name}.{major}"), folder.path().join(name)).unwrap();
        }
        let sandbox = Sandbox::with_groups(8);
        let path = folder.path().to_str().unwrap().to_owned();
        let done = trained(&sandbox, version, &[("LD_LIBRARY_PATH", &path)]);
        (done, info(&sandbox, version, &[("LD_LIBRARY_PATH", &path)], "cublaslt"))
    };
    let (done, cublaslt) = libraries(13000, 12);
    done.ok();
    assert_says(&cublaslt, &["12.9", "(an older one, which this driver serves too)"]);
    let (done, cublaslt) = libraries(12080, 13);
    assert_says(&done.error(), &["cuBLASLt", "pip install nvidia-cublas-cu12, "]);
    assert_eq!(cublaslt, "none for this driver");
    // From CUDA 13 on, the package has no version in its name.
    let folder = with_libraries(&["libcuda.so"]);
    let path = folder.path().to_str().unwrap();
    let error = trained(&Sandbox::with_groups(8), 13000, &[("LD_LIBRARY_PATH", path)]).error();
    assert_says(&error, &["pip install nvidia-cublas, "]);
}

/// Nothing is compiled when the first step has begun, and nothing that the run does not use before.
#[test]
fn what_a_run_needs_is_compiled_before_it_begins() {
    if nvcc().is_some() {
        return;
    }
    let compiled = |sandbox: &Sandbox, args: &[&str]| {
        let done = hbt(sandbox, args, 12080, &[("SIMT_REPORT", "1")]).ok();
        let files: Vec<String> =
            done.stderr.lines().filter(|line| line.starts_with("compiled kernels/")).map(str::to_owned).collect();
        let (_, count) = done.stderr.split_once("simt: NVRTC 12 compiled ").unwrap();
        let count: usize = count.split(' ').next().unwrap().parse().unwrap();
        let (before, _) = done.stderr.split_once("step 1").unwrap_or((&done.stderr, ""));
        assert!(files.iter().all(|line| before.contains(line.as_str())), "{}", done.stderr);
        (files, count, done.stderr)
    };
    // Heads of 16, and of 32, which have kernels of their own in bf16.
    for (precision, width, attention) in [("f32", 32, "any"), ("bf16", 32, "any"), ("bf16", 64, "forward")] {
        let sandbox = Sandbox::with_groups(8);
        sandbox.copy_model("bert", "model");
        for (file, name) in [("config.json", "hidden_size\""), ("1_Pooling/config.json", "word_embedding_dimension\"")]
        {
            let file = format!("model/{file}");
            let text = sandbox.read(&file);
            assert!(text.contains(&format!("{name}: 32")), "{text}");
            sandbox.write(&file, text.replace(&format!("{name}: 32"), &format!("{name}: {width}")));
        }
        let sets = ["steps=2", "dropout=0.1", "symmetric=true", "from_scratch=true", "log_steps=1"];
        let device = ["--device", "cuda", "--precision", precision];
        let (files, count, said) = compiled(&sandbox, &[&train("model", &sets)[..], &device[..]].concat());
        // And the smallest program there is, to see whether the driver takes what NVRTC makes.
        assert_eq!(count, files.len() + 1, "{said}");
        assert!(said.contains(&format!("compiled kernels/attention_{attention}.cu")), "{files:?}");
        let others =
            if attention == "any" { ["attention_forward", "attention_backward_long"] } else { ["attention_any"; 2] };
        assert!(others.iter().all(|other| !said.contains(&format!("kernels/{other}.cu"))), "{files:?}");
        // Evaluation finds all it needs in the cache.
        let eval = ["eval", "--model", "run/last", "--task", "parallel", "--data", "data.jsonl"];
        let sets = ["--set", "query_max_len=24", "--set", "passage_max_len=24"];
        let (files, count, said) = compiled(&sandbox, &[&eval[..], &sets[..], &device[..]].concat());
        assert_eq!((files.len(), count), (0, 0), "{said}");
    }
}

/// What is neither code that this driver takes nor can be made so, ends with all that was tried.
#[test]
fn kernels_come_by_the_next_way_where_one_is_refused() {
    if nvcc().is_some() {
        return;
    }
    // NVRTC does not know sm_103, but the driver compiles PTX for it.
    let sandbox = Sandbox::with_groups(8);
    let newer = [("SIMT_CAPABILITY", "10.3")];
    assert_says(&info(&sandbox, 13000, &newer, "kernels"), &["here it is NVRTC 13.99's PTX"]);
    trained(&sandbox, 13000, &newer).ok();
    // The newer NVRTC compiles nothing, and nothing of it is in the cache.
    let sandbox = Sandbox::with_groups(8);
    let failing = [("SIMT_NVRTC_FAILS", "13")];
    assert_says(&info(&sandbox, 13000, &failing, "kernels"), &["here it is NVRTC 12.99's code"]);
    trained(&sandbox, 13000, &failing).ok();
    // PTX of NVRTC 12.9 is too new for a driver of 12.2.
    let error = trained(&sandbox, 12020, &newer).error();
    assert_says(
        &error,
        &[
            "the driver, for CUDA 12.2, takes no kernels",
            "sm_103 (NVRTC 12.99's code: NVRTC_ERROR_INVALID_OPTION (nvrtc: error: invalid value for --gpu-architecture",
            "NVRTC 12.99's PTX: CUDA_ERROR_UNSUPPORTED_PTX_VERSION); install ",
            "pip install nvidia-cuda-nvrtc-cu12, ",
            "update the NVIDIA driver",
        ],
    );
}

/// Code of nvcc 13 is refused by drivers for CUDA 12, and so is its PTX; code of nvcc 12.0 is taken by all.
/// `CUDA_HOME=tests/simt/toolkit-13.0 cargo test`, and -12.0, as .ci/run does.
#[test]
fn embedded_kernels_are_used_where_the_driver_takes_them() {
    let Some(nvcc) = nvcc() else {
        return eprintln!("skipped: this build has no kernels of nvcc's");
    };
    for version in VERSIONS {
        let sandbox = Sandbox::with_groups(8);
        let kernels = info(&sandbox, version, &[], "kernels");
        let is_taken = nvcc.starts_with("12.") || version >= 13000;
        assert_says(
            &kernels,
            &[if is_taken { "here it is this build's code" } else { "here it is NVRTC 12.99's code" }],
        );
        let files = trained(&sandbox, version, &[]).ok().stderr.matches("compiled kernels/").count();
        assert_eq!(files == 0, is_taken, "{version}: {files} files compiled");
    }
    // An architecture without code of its own.
    let sandbox = Sandbox::new();
    let kernels = info(&sandbox, 13000, &[("SIMT_CAPABILITY", "11.0")], "kernels");
    assert_says(&kernels, &["here it is this build's PTX"]);
}

/// Whatever lies in the cache: cut short, or whole as far as its hash tells and refused by the driver.
#[test]
fn damaged_images_are_compiled_anew() {
    if nvcc().is_some() {
        return;
    }
    let sandbox = Sandbox::with_groups(8);
    trained(&sandbox, 12080, &[]).ok();
    let folder = sandbox.path("cache/kernels");
    let images = || -> Vec<_> {
        let mut paths: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "image"));
        paths.sort();
        paths.into_iter().map(|path| (std::fs::read(&path).unwrap(), path)).collect()
    };
    let whole = images();
    assert!(whole.len() > 5, "{whole:?}");
    for (i, (image, path)) in whole.iter().enumerate() {
        if i % 2 == 0 {
            std::fs::write(path, &image[..image.len() / 2]).unwrap();
        } else {
            let refused = b"no image at all";
            std::fs::write(path, [&refused[..], &xxh3_64(refused).to_le_bytes()].concat()).unwrap();
        }
    }
    trained(&sandbox, 12080, &[]).ok();
    assert_eq!(images(), whole);
}

/// A number that no header of ours knows is told, whoever answers it.
#[test]
fn unknown_statuses_are_told_by_their_number() {
    let sandbox = Sandbox::with_groups(8);
    for function in ["cuStreamCreate", "cuModuleLoadData", "cuLaunchKernel", "cuMemHostAlloc"] {
        let error = trained(&sandbox, 12080, &[("SIMT_STATUS", &format!("{function}=998"))]).error();
        assert_says(&error, &["error: cuda: ", " failed: CUDA error 998 (no description)"]);
    }
}
