//! The optimizer's moments as a file of a checkpoint.

use super::optimizer::{Optimizer, Touched};
use crate::backend::Backend;
use crate::dist::Peers;
use crate::model::{EncoderParams, ParamSpec, specs};
use crate::retriever::Retriever;
use crate::tensor_file::{self, Block, Dtype, TensorFile, TensorHeader};
use crate::{Error, Result};
use std::path::Path;

/// Key for the rows of the word embeddings that have moments, and the last update in which each had a gradient.
const TOUCHED_ROWS: &str = "touched.rows";
const TOUCHED_UPDATES: &str = "touched.updates";

/// Restores the optimizer's moments from the file `path`, which the first of all `peers` has: the others get them from it, one
/// tensor after the other.
///
/// # Errors
/// If they are missing or do not fit the model, and a process that is gone.
pub(super) fn load_moments<B: Backend>(
    path: &Path,
    peers: &Peers,
    backend: &B,
    specs: &EncoderParams<ParamSpec>,
    optimizer: &mut Optimizer<B>,
    updates: u64,
) -> Result<()> {
    let moments = match peers.rank() {
        0 => Some(Moments { file: TensorFile::open(path, REMEDY)? }),
        _ => None,
    };
    let sparse = specs.sparse();
    let specs: Vec<&ParamSpec> = specs.iter().collect();
    let mut touched = match &moments {
        Some(moments) => moments.touched(specs[sparse].shape[0], updates)?,
        None => Touched::default(),
    };
    for list in [&mut touched.rows, &mut touched.updates] {
        let mut bytes = bytemuck::cast_slice(list).to_vec();
        peers.broadcast_bytes(0, &mut bytes)?;
        *list = bytemuck::pod_collect_to_vec(&bytes);
    }
    optimizer.restore(backend, updates, &touched, |which, index| {
        let rows = [touched.rows.len(), specs[sparse].shape[1]];
        let shape = if index == sparse { &rows } else { &specs[index].shape[..] };
        let mut values = match &moments {
            Some(moments) => {
                let data = moments.data(&moment_name(which, specs[index]), Dtype::F32, Some(shape))?;
                data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
            }
            None => vec![0.0; shape.iter().product()],
        };
        peers.broadcast(0, &mut values)?;
        Ok(values)
    })
}

/// Remedy for moments that cannot be read.
const REMEDY: &str = "start a new run";

/// A file of moments.
struct Moments {
    file: TensorFile,
}

impl Moments {
    fn broken(&self, what: String) -> Error {
        Error::file(self.file.path(), format!("{what}; {REMEDY}"))
    }

    /// A tensor's bytes; `shape` is the required shape, `None` means a list of any length.
    fn data(&self, name: &str, dtype: Dtype, shape: Option<&[usize]>) -> Result<&[u8]> {
        let missing = || self.broken(format!("has no tensor {name:?}: another version of hbt wrote it"));
        let info = self.file.info(name).ok_or_else(missing)?;
        if shape.map_or(info.shape.len() != 1, |shape| info.shape != shape) || info.dtype != dtype {
            let (is, shape) = (info.dtype, &info.shape);
            return Err(self.broken(format!("tensor {name:?} is {is:?} {shape:?}, which does not fit the model")));
        }
        Ok(self.file.bytes(info))
    }

    fn touched(&self, vocab_size: usize, updates: u64) -> Result<Touched> {
        let list = |name| -> Result<Vec<i32>> {
            let data = self.data(name, Dtype::I32, None)?;
            Ok(data.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b)).collect())
        };
        let [rows, last] = [list(TOUCHED_ROWS)?, list(TOUCHED_UPDATES)?];
        let are_rows = rows.is_sorted_by(|a, b| a < b) && rows.iter().all(|&r| 0 <= r && (r as usize) < vocab_size);
        let are_updates = last.len() == rows.len() && last.iter().all(|&u| 1 <= u && u as u64 <= updates);
        if !are_rows || !are_updates {
            return Err(self.broken(format!("{TOUCHED_ROWS:?} or {TOUCHED_UPDATES:?} does not fit the run")));
        }
        Ok(Touched { rows, updates: last })
    }
}

fn moment_name(which: usize, spec: &ParamSpec) -> String {
    format!("{}.{}", ["m", "v"][which], spec.name)
}

/// Writes both moments of every parameter, one at a time through host memory; of the word embeddings only rows that
/// have any.
pub(super) fn save_moments<B: Backend>(path: &Path, retriever: &Retriever<B>, optimizer: &Optimizer<B>) -> Result<()> {
    let backend = &retriever.backend;
    let specs = specs(&retriever.dir.config, retriever.dir.dense.as_ref());
    let touched = optimizer.touched(backend)?;
    let n_touched = touched.rows.len();
    let mut tensors = vec![
        TensorHeader { name: TOUCHED_ROWS.to_owned(), dtype: Dtype::I32, shape: vec![n_touched] },
        TensorHeader { name: TOUCHED_UPDATES.to_owned(), dtype: Dtype::I32, shape: vec![n_touched] },
    ];
    let indices = || (0..2).flat_map(|which| specs.iter().enumerate().map(move |(index, spec)| (which, index, spec)));
    tensors.extend(indices().map(|(which, _, spec)| {
        let shape = if spec.has_sparse_rows { vec![n_touched, spec.shape[1]] } else { spec.shape.clone() };
        TensorHeader { name: moment_name(which, spec), dtype: Dtype::F32, shape }
    }));
    let lists = [&touched.rows, &touched.updates].map(|list| Ok(Block::I32(list.clone())));
    let moments = indices().map(|(which, index, _)| optimizer.moment(backend, which, index, &touched).map(Block::F32));
    tensor_file::write(path, &tensors, lists.into_iter().chain(moments))
}
