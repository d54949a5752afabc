//! Embeds the CUDA kernels: their sources always, and fat binaries of them where nvcc is found (`CUDA_HOME`,
//! `CUDA_PATH`, `PATH`), for the architectures below as far as that nvcc knows them, and PTX for those to come.
//! Neither nvcc nor a GPU is needed to build: without nvcc, NVRTC compiles the sources on first use.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, thread};

/// Compute capabilities that get code of their own. Read by .ci/kernel_table.py too.
const ARCHITECTURES: [u32; 6] = [80, 86, 89, 90, 100, 120];
/// What nvcc is told, as src/backend/cuda/images.rs tells NVRTC. Read by .ci/kernel_table.py too.
const OPTIONS: [&str; 3] = ["-std=c++17", "-O3", "--fmad=false"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=kernels");
    for name in ["CUDA_HOME", "CUDA_PATH", "PATH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let kernels = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("kernels");
    let out = PathBuf::from(variable("OUT_DIR"));
    let (headers, modules) = (files(&kernels, "cuh"), files(&kernels, "cu"));
    let compiler = Nvcc::find();
    let images = compiler.as_ref().and_then(|nvcc| match nvcc.compile_all(&modules, &out) {
        Ok(images) => Some(images),
        Err(message) => {
            println!("cargo::warning=nvcc failed, so NVRTC will compile the CUDA kernels on first use: {message}");
            None
        }
    });
    fs::write(out.join("kernels.rs"), table(&headers, &modules, images.as_deref(), compiler.as_ref())).unwrap();
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}

/// Files with that extension, in order of their names.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("cannot read {}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == extension));
    files.sort();
    files
}

/// The constants that src/backend/cuda/images.rs includes.
fn table(headers: &[PathBuf], modules: &[PathBuf], images: Option<&[PathBuf]>, nvcc: Option<&Nvcc>) -> String {
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let mut text =
        String::from("/// Headers that kernels include: name and text.\nconst HEADERS: &[(&str, &str)] = &[\n");
    for path in headers {
        writeln!(text, "    ({:?}, include_str!({path:?})),", name(path)).unwrap();
    }
    text.push_str("];\n/// Kernels: name and text of the file, and its fat binary if nvcc was found.\n");
    text.push_str("const MODULES: &[(&str, &str, Option<&[u8]>)] = &[\n");
    for (i, path) in modules.iter().enumerate() {
        let image = images.map_or("None".to_owned(), |images| format!("Some(include_bytes!({:?}))", images[i]));
        writeln!(text, "    ({:?}, include_str!({path:?}), {image}),", name(path)).unwrap();
    }
    let compiler = images.and(nvcc).map(|nvcc| {
        let architectures: Vec<String> = nvcc.architectures.iter().map(|a| format!("sm_{a}")).collect();
        format!("nvcc {} for {}", nvcc.version, architectures.join(" "))
    });
    writeln!(text, "];\n/// What compiled the fat binaries.\nconst COMPILER: Option<&str> = {compiler:?};").unwrap();
    text
}

struct Nvcc {
    path: PathBuf,
    version: String,
    /// Those of [`ARCHITECTURES`] that it knows.
    architectures: Vec<u32>,
}

impl Nvcc {
    fn find() -> Option<Self> {
        let homes =
            ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(env::var_os).map(|home| PathBuf::from(home).join("bin"));
        let path = env::var_os("PATH").unwrap_or_default();
        let file = format!("nvcc{}", env::consts::EXE_SUFFIX);
        let path = homes.chain(env::split_paths(&path)).map(|folder| folder.join(&file)).find(|path| path.is_file())?;
        let version = ask(&path, "--version")?;
        let version = version.split("release ").nth(1)?.split(',').next()?.to_owned();
        let known = ask(&path, "--list-gpu-code")?;
        let knows = |architecture: &u32| known.split_whitespace().any(|code| code == format!("sm_{architecture}"));
        let architectures: Vec<u32> = ARCHITECTURES.into_iter().filter(knows).collect();
        (!architectures.is_empty()).then_some(Nvcc { path, version, architectures })
    }

    /// The fat binary of each module.
    fn compile_all(&self, modules: &[PathBuf], out: &Path) -> Result<Vec<PathBuf>, String> {
        thread::scope(|scope| {
            let jobs: Vec<_> = modules.iter().map(|module| scope.spawn(|| self.compile(module, out))).collect();
            jobs.into_iter().map(|job| job.join().expect("compiling does not panic")).collect()
        })
    }

    fn compile(&self, module: &Path, out: &Path) -> Result<PathBuf, String> {
        let image = out.join(module.file_name().unwrap()).with_extension("fatbin");
        let mut command = Command::new(&self.path);
        command.args(OPTIONS).args(["--fatbin", "--compress-mode=size"]);
        for architecture in &self.architectures {
            command.arg(format!("-gencode=arch=compute_{architecture},code=sm_{architecture}"));
        }
        // The kernels use nothing newer than sm_80, so its PTX runs on every GPU that has no code here.
        let oldest = self.architectures[0];
        command.arg(format!("-gencode=arch=compute_{oldest},code=compute_{oldest}"));
        let output = command.arg("-o").arg(&image).arg(module).output().map_err(|e| e.to_string())?;
        if output.status.success() {
            return Ok(image);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let first = said.lines().find(|line| line.contains("error") || line.contains("fatal")).unwrap_or("no message");
        Err(format!("{}: {first}", module.display()))
    }
}

/// What `path option` prints.
fn ask(path: &Path, option: &str) -> Option<String> {
    let output = Command::new(path).arg(option).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
