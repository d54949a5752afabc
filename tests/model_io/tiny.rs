//! Model directories of a few hundred bytes, written file by file with Hugging Face's names.

use half::{bf16, f16};
use hbt::model::ParamSpec;
use hbt::model_dir::ModelDir;
use hbt::model_dir::weights::load;
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize_to_file};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Hidden size, feed-forward size, vocabulary, positions and token types of the tiny BERT.
pub const SIZES: [usize; 5] = [4, 6, 7, 5, 2];

/// A tensor's shape and values.
pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// A temporary directory that holds one model.
pub struct Tiny {
    root: TempDir,
}

impl Tiny {
    /// Configuration and tokenizer only.
    pub fn without_weights() -> Tiny {
        let tiny = Tiny { root: tempfile::tempdir().unwrap() };
        tiny.json("config.json", &config());
        let added: Vec<Value> =
            ["[PAD]", "[UNK]", "[CLS]", "[SEP]"].iter().map(|token| json!({ "content": token })).collect();
        tiny.json("tokenizer.json", &json!({ "version": "1.0", "added_tokens": added }));
        tiny
    }

    /// A transformers directory: f32 weights without a prefix.
    pub fn plain() -> Tiny {
        let tiny = Tiny::without_weights();
        write(&tiny.path("model.safetensors"), &tensors(), Dtype::F32);
        tiny
    }

    /// A sentence-transformers directory with LaBSE's modules.
    pub fn sentence_transformers() -> Tiny {
        let tiny = Tiny::plain();
        tiny.modules(&["Transformer", "Pooling", "Dense", "Normalize"]);
        tiny.json("1_Pooling/config.json", &json!({ "word_embedding_dimension": 4, "pooling_mode_cls_token": true }));
        let activation = "torch.nn.modules.activation.Tanh";
        let dense = json!({ "in_features": 4, "out_features": 3, "bias": true, "activation_function": activation });
        tiny.json("2_Dense/config.json", &dense);
        write(&tiny.path("2_Dense/model.safetensors"), &dense_tensors(), Dtype::F32);
        tiny
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        self.root.path()
    }

    /// A file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Writes a JSON file.
    pub fn json(&self, name: &str, value: &Value) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, value.to_string()).unwrap();
    }

    /// Sets one key of a JSON file.
    pub fn set(&self, name: &str, key: &str, value: Value) {
        let mut json: Value = serde_json::from_str(&fs::read_to_string(self.path(name)).unwrap()).unwrap();
        json[key] = value;
        self.json(name, &json);
    }

    /// Writes a `modules.json` of the schema before 5.4.
    pub fn modules(&self, classes: &[&str]) {
        let module = |(i, class): (usize, &&str)| {
            let path = if i == 0 { String::new() } else { format!("{i}_{class}") };
            json!({ "idx": i, "name": i.to_string(), "path": path, "type": format!("sentence_transformers.models.{class}") })
        };
        self.json("modules.json", &classes.iter().enumerate().map(module).collect());
    }

    /// The one-line message with which opening or loading fails.
    pub fn error(&self) -> String {
        let result = ModelDir::open(self.dir()).and_then(|dir| load(&dir, |_, _| Ok(())).map(|_| ()));
        let message = result.expect_err("this directory has to be refused").to_string();
        assert!(!message.contains('\n'), "{message}");
        message
    }
}

/// `config.json` of the tiny BERT.
pub fn config() -> Value {
    let [hidden, ffn, vocab, positions, types] = SIZES;
    json!({
        "architectures": ["BertForMaskedLM"], "model_type": "bert", "vocab_size": vocab, "hidden_size": hidden,
        "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": ffn,
        "max_position_embeddings": positions, "type_vocab_size": types, "layer_norm_eps": 1e-12,
        "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.2, "hidden_act": "gelu", "pad_token_id": 0,
        "initializer_range": 0.02, "kept_as_it_is": { "a": [1, 2] }
    })
}

/// The tensors that transformers' BertModel saves, each with values of its own.
pub fn tensors() -> Tensors {
    let [h, f, vocab, positions, types] = SIZES;
    let mut shapes = vec![
        ("embeddings.word_embeddings.weight".to_owned(), vec![vocab, h]),
        ("embeddings.position_embeddings.weight".to_owned(), vec![positions, h]),
        ("embeddings.token_type_embeddings.weight".to_owned(), vec![types, h]),
        ("embeddings.LayerNorm.weight".to_owned(), vec![h]),
        ("embeddings.LayerNorm.bias".to_owned(), vec![h]),
        ("pooler.dense.weight".to_owned(), vec![h, h]),
        ("pooler.dense.bias".to_owned(), vec![h]),
    ];
    for layer in 0..2 {
        for (part, out, inputs) in [
            ("attention.self.query", h, Some(h)),
            ("attention.self.key", h, Some(h)),
            ("attention.self.value", h, Some(h)),
            ("attention.output.dense", h, Some(h)),
            ("attention.output.LayerNorm", h, None),
            ("intermediate.dense", f, Some(h)),
            ("output.dense", h, Some(f)),
            ("output.LayerNorm", h, None),
        ] {
            let shape = std::iter::once(out).chain(inputs).collect();
            shapes.push((format!("encoder.layer.{layer}.{part}.weight"), shape));
            shapes.push((format!("encoder.layer.{layer}.{part}.bias"), vec![out]));
        }
    }
    fill(shapes)
}

/// The tensors of a Dense module from 4 to 3.
pub fn dense_tensors() -> Tensors {
    fill(vec![("linear.weight".to_owned(), vec![3, 4]), ("linear.bias".to_owned(), vec![3])])
}

/// Multiples of 1/8 below 32: exact in bf16 and f16 too.
fn fill(shapes: Vec<(String, Vec<usize>)>) -> Tensors {
    let tensor = |(i, (name, shape)): (usize, (String, Vec<usize>))| {
        let len = shape.iter().product::<usize>();
        (name, (shape, (0..len).map(|j| ((i * 37 + j * 5) % 255) as f32 / 8.0 - 15.0).collect()))
    };
    shapes.into_iter().enumerate().map(tensor).collect()
}

/// The same tensors under `prefix`.
pub fn with_prefix(tensors: Tensors, prefix: &str) -> Tensors {
    tensors.into_iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor)).collect()
}

/// Writes a safetensors file with the reference implementation.
pub fn write(path: &Path, tensors: &Tensors, dtype: Dtype) {
    let bytes: Vec<Vec<u8>> = tensors.values().map(|(_, values)| encode(values, dtype)).collect();
    let views: Vec<(&String, TensorView)> = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, (shape, _)), bytes)| (name, TensorView::new(dtype, shape.clone(), bytes).unwrap()))
        .collect();
    serialize_to_file(views, None, path).unwrap();
}

fn encode(values: &[f32], dtype: Dtype) -> Vec<u8> {
    match dtype {
        Dtype::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Dtype::F16 => values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
        Dtype::BF16 => values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
        Dtype::F64 => values.iter().flat_map(|&x| f64::from(x).to_le_bytes()).collect(),
        other => panic!("{other:?}"),
    }
}

/// Every parameter of a directory by our own name.
pub fn load_all(dir: &Path) -> BTreeMap<String, (ParamSpec, Vec<f32>)> {
    let dir = ModelDir::open(dir).unwrap();
    let params = load(&dir, |spec, values| Ok((spec.name.clone(), (spec.clone(), values)))).unwrap();
    params.iter().cloned().collect()
}
