//! Embeds the CUDA kernels: their sources always, and fat binaries of them where nvcc is found (`CUDA_HOME`,
//! `CUDA_PATH`, `PATH`; 12.0 or newer), for the architectures below as far as that nvcc knows them, and PTX for those to
//! come and for drivers that refuse the code.
//! Neither nvcc nor a GPU is needed to build: without nvcc, NVRTC compiles the sources on first use.
//!
//! Writes down in Rust what they declare, too: a typed launcher for each kernel, and constants that both sides use.

#[path = "build/contract/mod.rs"]
mod contract;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, thread};

/// Compute capabilities that get code of their own. Read by .ci/kernel_table.py too.
const ARCHITECTURES: [u32; 6] = [80, 86, 89, 90, 100, 120];
/// What nvcc is told, as src/backend/cuda/images/compiler.rs tells NVRTC. Read by .ci/kernel_table.py too.
const OPTIONS: [&str; 3] = ["-std=c++17", "-O3", "--fmad=false"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=kernels");
    for name in ["CUDA_HOME", "CUDA_PATH", "PATH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let kernels = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("kernels");
    let out = PathBuf::from(variable("OUT_DIR"));
    let (headers, modules) = (files(&kernels, "cuh"), files(&kernels, "cu"));
    fs::write(out.join("launchers.rs"), launchers(&headers, &modules)).unwrap();
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

/// What src/backend/cuda/kernels.rs includes. A declaration that cannot be read ends the build.
fn launchers(headers: &[PathBuf], modules: &[PathBuf]) -> String {
    let read = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()));
        (path.file_name().unwrap().to_str().unwrap().to_owned(), text)
    };
    let files: Vec<(String, String)> = headers.iter().chain(modules).map(read).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (&**name, &**text)).collect();
    contract::contract(&files).unwrap_or_else(|fault| {
        println!("cargo::error={fault}");
        std::process::exit(1)
    })
}

/// The constants that src/backend/cuda/images/mod.rs includes.
fn table(headers: &[PathBuf], modules: &[PathBuf], images: Option<&[Images]>, nvcc: Option<&Nvcc>) -> String {
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let mut text =
        String::from("/// Headers that kernels include: name and text.\nconst HEADERS: &[(&str, &str)] = &[\n");
    for path in headers {
        writeln!(text, "    ({:?}, include_str!({path:?})),", name(path)).unwrap();
    }
    text.push_str("];\n/// Kernels, with images if nvcc was found.\nconst MODULES: &[Source] = &[\n");
    for (i, path) in modules.iter().enumerate() {
        let embedded = images.map_or("None".to_owned(), |images| {
            let Images { fat_binary, ptx } = &images[i];
            let ptx = format!("concat!(include_str!({ptx:?}), \"\\0\")");
            format!("Some(Embedded {{ fat_binary: include_aligned!({fat_binary:?}), ptx: {ptx} }})")
        });
        let name = name(path);
        writeln!(text, "    Source {{ name: {name:?}, text: include_str!({path:?}), embedded: {embedded} }},").unwrap();
    }
    let compiler = images.and(nvcc).map(|nvcc| {
        let architectures: Vec<String> = nvcc.architectures.iter().map(|a| format!("sm_{a}")).collect();
        format!("nvcc {} for {}", nvcc.version, architectures.join(" "))
    });
    writeln!(text, "];\n/// What compiled the fat binaries.\nconst COMPILER: Option<&str> = {compiler:?};").unwrap();
    text
}

/// What nvcc makes of a module.
struct Images {
    /// Code for each of the architectures.
    fat_binary: PathBuf,
    /// For the oldest architecture.
    ptx: PathBuf,
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

    /// The images of each module.
    fn compile_all(&self, modules: &[PathBuf], out: &Path) -> Result<Vec<Images>, String> {
        thread::scope(|scope| {
            let jobs: Vec<_> = modules.iter().map(|module| scope.spawn(|| self.compile(module, out))).collect();
            jobs.into_iter().map(|job| job.join().expect("compiling does not panic")).collect()
        })
    }

    fn compile(&self, module: &Path, out: &Path) -> Result<Images, String> {
        let out = out.join(module.file_name().unwrap());
        let images = Images { fat_binary: out.with_extension("fatbin"), ptx: out.with_extension("ptx") };
        // As nvcc 13 compresses it by itself, drivers before CUDA 12.4 would refuse all of it.
        let mut options = vec!["--fatbin".to_owned(), "--no-compress".to_owned()];
        options.extend(self.architectures.iter().map(|a| format!("-gencode=arch=compute_{a},code=sm_{a}")));
        self.run(module, &options, &images.fat_binary)?;
        // Beside the fat binary, not in it: a driver that refuses the code's format refuses all that is in one file with
        // it. The kernels use nothing newer than sm_80, so its PTX runs on every GPU that has no code here.
        let oldest = self.architectures[0];
        self.run(module, &["--ptx".to_owned(), format!("-arch=compute_{oldest}")], &images.ptx)?;
        Ok(images)
    }

    /// Compiles a module into a file.
    fn run(&self, module: &Path, options: &[String], to: &Path) -> Result<(), String> {
        let mut command = Command::new(&self.path);
        command.args(OPTIONS).args(options).arg("-o").arg(to).arg(module);
        let output = command.output().map_err(|e| e.to_string())?;
        if output.status.success() {
            return Ok(());
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
