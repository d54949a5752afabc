//! Reading weights from memory-mapped safetensors files, one parameter at a time.

use super::ModelDir;
use super::directory::CHANGED;
use crate::files::owned::Manifest;
use crate::json::read_optional_object;
use crate::model::{EncoderParams, Family, Init, ParamFile, ParamSpec, specs};
use crate::tensor_file::{Dtype, TensorFile, TensorInfo};
use crate::{Error, Result};
use half::{bf16, f16};
use rayon::prelude::*;
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// What to do about a file that is damaged.
const REMEDY: &str = "download or copy the file again";

/// Reads every parameter as f32 (exact from f32, f16 and bf16) and hands it to `f`, in the order of
/// [`EncoderParams::iter`]. Host memory: one parameter above what `f` keeps.
///
/// # Errors
/// No weights; a file that is truncated, whose header lies, or that is not the one that hbt saved; a tensor that is missing or
/// has another shape or type than `config.json` asks for; and the errors of `f`.
pub fn load<T>(dir: &ModelDir, mut f: impl FnMut(&ParamSpec, Vec<f32>) -> Result<T>) -> Result<EncoderParams<T>> {
    let manifest = Manifest::read(&dir.path)?;
    let open = |folder: &Path| {
        let weights = Weights::open(dir.config.family, folder)?;
        weights.verify(manifest.as_ref())?;
        Ok(weights)
    };
    let encoder = open(&dir.transformer)?;
    let prefix = encoder.prefix()?;
    let dense = dir.dense_dir.as_deref().map(open).transpose()?;
    let weights_of = |spec: &ParamSpec| match (spec.file, &dense) {
        (ParamFile::Dense, Some(dense)) => (dense, ""),
        _ => (&encoder, &prefix[..]),
    };
    let specs = specs(&dir.config, dir.dense.as_ref());
    // All are compared with config.json before memory is taken for any: a size in there may be off by a factor of a million.
    for spec in specs.iter() {
        let (weights, prefix) = weights_of(spec);
        weights.find_all(spec, prefix)?;
    }
    specs.try_map(|spec| {
        let (weights, prefix) = weights_of(spec);
        f(spec, weights.read(spec, prefix)?)
    })
}

/// The family's [pooler](crate::model::arch::Names::pooler), where it has one and the directory still does.
///
/// It is kept in saved models because transformers warns, at length, of weights that it misses.
pub(super) fn read_pooler(dir: &ModelDir) -> Vec<(ParamSpec, Vec<f32>)> {
    let (family, hidden) = (dir.config.family, dir.config.hidden_size);
    let Some(pooler) = family.names.pooler else { return Vec::new() };
    let read = || {
        let encoder = Weights::open(family, &dir.transformer)?;
        let prefix = encoder.prefix()?;
        [("weight", vec![hidden, hidden]), ("bias", vec![hidden])]
            .into_iter()
            .map(|(kind, shape)| {
                let hf = vec![format!("{pooler}.{kind}")];
                let (name, init) = (format!("pooler.{kind}"), Init::Zeros);
                let spec =
                    ParamSpec { name, hf, file: ParamFile::Encoder, shape, decay: false, has_sparse_rows: false, init };
                let values = encoder.read(&spec, &prefix)?;
                Ok((spec, values))
            })
            .collect::<Result<_>>()
    };
    // Whatever keeps it from being read, the model is complete without it.
    read().unwrap_or_default()
}

/// The safetensors files of one folder.
struct Weights {
    family: &'static Family,
    files: Vec<TensorFile>,
    /// Which file holds a tensor.
    file_of: HashMap<String, usize>,
    /// What an error about a tensor that no file holds names.
    path: PathBuf,
}

impl Weights {
    fn open(family: &'static Family, folder: &Path) -> Result<Weights> {
        let single = folder.join("model.safetensors");
        if single.is_file() {
            let file = TensorFile::open(&single, REMEDY)?;
            let file_of = file.names().into_iter().map(|name| (name, 0)).collect();
            return Ok(Weights { family, files: vec![file], file_of, path: single });
        }
        let index = folder.join("model.safetensors.index.json");
        if index.is_file() {
            return Weights::open_shards(family, folder, index);
        }
        let pickled =
            ["pytorch_model.bin", "pytorch_model.bin.index.json"].iter().any(|name| folder.join(name).is_file());
        Err(Error::file(
            folder,
            if pickled {
                "has its weights in pytorch_model.bin only, which can run code when read; save the model as safetensors \
                 with transformers or sentence-transformers: model.save_pretrained(DIR)"
            } else {
                "has no weights; hbt reads model.safetensors, or model.safetensors.index.json and its shards"
            },
        ))
    }

    fn open_shards(family: &'static Family, folder: &Path, index: PathBuf) -> Result<Weights> {
        let map = read_optional_object(&index)?.unwrap_or_default();
        let weight_map = map
            .get("weight_map")
            .and_then(Value::as_object)
            .ok_or_else(|| Error::file(&index, "has no \"weight_map\" object; copy the file again"))?;
        let mut files: Vec<TensorFile> = Vec::new();
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        let mut file_of = HashMap::new();
        for (tensor, shard) in weight_map {
            let shard = shard
                .as_str()
                .filter(|name| Path::new(name).file_name().is_some_and(|base| base == *name))
                .ok_or_else(|| Error::file(&index, format!("tensor {tensor:?}: {shard} is no file name")))?;
            let number = match numbers.get(shard) {
                Some(&number) => number,
                None => {
                    files.push(TensorFile::open(&folder.join(shard), REMEDY)?);
                    numbers.insert(shard, files.len() - 1);
                    files.len() - 1
                }
            };
            file_of.insert(tensor.clone(), number);
        }
        Ok(Weights { family, files, file_of, path: index })
    }

    /// Fails unless the files are those that the manifest lists, as far as it does: one more pass over bytes that are read
    /// anyway.
    fn verify(&self, manifest: Option<&Manifest>) -> Result<()> {
        let Some(manifest) = manifest else { return Ok(()) };
        self.files.iter().try_for_each(|file| manifest.check(file.path(), file.whole(), CHANGED))
    }

    /// What stands before the word table's name: nothing, `bert.`, `roberta.` or the like.
    fn prefix(&self) -> Result<String> {
        let [words, ..] = self.family.names.embeddings.word else { unreachable!("a family has words") };
        let mut prefixes: Vec<&str> = self
            .file_of
            .keys()
            .filter_map(|name| name.strip_suffix(words))
            .filter(|prefix| prefix.is_empty() || prefix.ends_with('.'))
            .collect();
        prefixes.sort_unstable();
        match prefixes.as_slice() {
            [] => Err(Error::file(
                &self.path,
                format!("has no tensor {words:?}, with or without a prefix; is it a {}?", self.family.class),
            )),
            // An encoder without a prefix is the model itself, whatever else the file holds.
            ["", ..] => Ok(String::new()),
            [prefix] => Ok((*prefix).to_owned()),
            several => Err(Error::file(
                &self.path,
                format!("holds {} encoders ({}); save the one to train alone", several.len(), several.join(", ")),
            )),
        }
    }

    /// A parameter's Hugging Face tensors, which have the shape that it asks for.
    fn find_all(&self, spec: &ParamSpec, prefix: &str) -> Result<Vec<Found<'_>>> {
        let shape = spec.hf_shape();
        let find = |name: &String| {
            let found = self.find(&format!("{prefix}{name}"))?;
            let (file, name, info) = &found;
            if info.shape != shape {
                let message = format!("tensor {name:?} has shape {:?}, but config.json asks for {shape:?}", info.shape);
                return Err(Error::file(file.path(), message));
            }
            Ok(found)
        };
        spec.hf.iter().map(find).collect()
    }

    /// The whole parameter: its Hugging Face tensors one after another.
    fn read(&self, spec: &ParamSpec, prefix: &str) -> Result<Vec<f32>> {
        let tensors = self.find_all(spec, prefix)?;
        let mut values = vec![0.0; spec.len()];
        for (part, (file, name, info)) in values.chunks_exact_mut(spec.len() / spec.hf.len()).zip(tensors) {
            let fail = |message: String| Err(Error::file(file.path(), format!("tensor {name:?} {message}")));
            let bytes = file.bytes(info);
            let are_finite = match info.dtype {
                Dtype::F32 => convert(part, bytes, f32::from_le_bytes),
                Dtype::F16 => convert(part, bytes, |b| f16::from_le_bytes(b).to_f32()),
                Dtype::BF16 => convert(part, bytes, |b| bf16::from_le_bytes(b).to_f32()),
                other => return fail(format!("has type {other:?}; hbt reads F32, F16 and BF16: convert the model")),
            };
            if !are_finite {
                return fail(format!("holds NaN or infinity; {REMEDY}, or take an earlier checkpoint"));
            }
        }
        Ok(values)
    }

    fn find(&self, name: &str) -> Result<Found<'_>> {
        let older = |name: String, (new, old): &(&str, &str)| name.replace(new, old);
        let old = self.family.names.older.iter().fold(name.to_owned(), older);
        for name in [name, &old] {
            let Some(&number) = self.file_of.get(name) else { continue };
            let file = &self.files[number];
            return match file.info(name) {
                Some(info) => Ok((file, name.to_owned(), info)),
                None => Err(Error::file(
                    file.path(),
                    format!("has no tensor {name:?}, which {} promises", self.path.display()),
                )),
            };
        }
        Err(Error::file(&self.path, format!("has no tensor {name:?}, which config.json asks for")))
    }
}

/// A tensor: its file, its name there, and its type, shape and place.
type Found<'a> = (&'a TensorFile, String, &'a TensorInfo);

/// Fills `out` from little-endian values of `N` bytes, which need not be aligned. Returns whether all are finite.
fn convert<const N: usize>(out: &mut [f32], bytes: &[u8], value: impl Fn([u8; N]) -> f32 + Sync) -> bool {
    const CHUNK: usize = 1 << 16;
    let (values, _) = bytes.as_chunks::<N>();
    let chunk = |(out, values): (&mut [f32], &[[u8; N]])| {
        let mut are_finite = true;
        for (out, &bytes) in out.iter_mut().zip(values) {
            *out = value(bytes);
            // No `all`, which would leave the loop early and keep it from being vectorised.
            are_finite &= out.is_finite();
        }
        are_finite
    };
    out.par_chunks_mut(CHUNK).zip(values.par_chunks(CHUNK)).map(chunk).reduce(|| true, |a, b| a & b)
}
