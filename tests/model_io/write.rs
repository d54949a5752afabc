//! Saved models: what they hold, and what a failed save leaves.

use super::tiny::{Tiny, load_all, tensors};
use hbt::backend::Pooling;
use hbt::model_dir::weights::load;
use hbt::model_dir::{Carried, ModelCard, ModelDir, ModelSave, Origin, save};
use hbt::tensor_file::{self, Block, TensorHeader};
use hbt::{Error, Result};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

pub fn card() -> ModelCard {
    ModelCard {
        origin: Origin { base_model: Some("intfloat/multilingual-e5-small".into()), ..Origin::default() },
        languages: vec!["de".into(), "no".into()],
        results: Vec::new(),
        training: "60 steps of hybrid batches.".into(),
    }
}

/// A save of `source` without prefixes.
pub fn model<'a>(source: &'a ModelDir, carried: &'a Carried, card: &'a ModelCard) -> ModelSave<'a> {
    ModelSave {
        source,
        carried,
        pooling: Pooling::Mean,
        normalize: true,
        max_seq_length: 4,
        query_max_len: 32,
        passage_max_len: 48,
        query_prefix: "",
        passage_prefix: "",
        card,
    }
}

/// Saves what `source` loads as, with the prefixes of E5.
pub fn save_copy(source: &Path, target: &Path, extra: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let dir = ModelDir::open(source)?;
    let params = load(&dir, |_, values| Ok(values))?;
    let (card, carried) = (card(), Carried::read(&dir)?);
    let model = ModelSave {
        pooling: dir.pooling.unwrap_or(Pooling::Mean),
        query_prefix: "query: ",
        passage_prefix: "passage: ",
        ..model(&dir, &carried, &card)
    };
    let mut values = params.iter();
    save(target, &model, |_, part| Ok(values.next().unwrap()[part].to_vec()), extra)
}

pub fn no_extra(_: &Path) -> Result<()> {
    Ok(())
}

fn read_json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Names below a directory, folders with a slash.
fn names(directory: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            names.push(format!("{name}/"));
            names.extend(self::names(&path).iter().map(|inner| format!("{name}/{inner}")));
        } else {
            names.push(name);
        }
    }
    names.sort();
    names
}

#[test]
fn a_saved_model_loads_as_it_was() {
    let tiny = Tiny::sentence_transformers();
    let root = tempfile::tempdir().unwrap();
    let target = root.path().join("runs/last");
    save_copy(tiny.dir(), &target, no_extra).unwrap();
    assert_eq!(load_all(&target), load_all(tiny.dir()));
    let dir = ModelDir::open(&target).unwrap();
    assert_eq!((dir.pooling, dir.normalize, dir.max_seq_length), (Some(Pooling::Cls), true, 4));
    assert_eq!((dir.query_prefix.as_deref(), dir.passage_prefix.as_deref()), (Some("query: "), Some("passage: ")));
    assert_eq!(names(root.path().join("runs").as_path()).iter().filter(|name| name.starts_with('.')).count(), 0);
}

#[test]
fn the_layout_is_the_one_that_every_reader_accepts() {
    let tiny = Tiny::sentence_transformers();
    let root = tempfile::tempdir().unwrap();
    let target = &root.path().join("model");
    save_copy(tiny.dir(), target, no_extra).unwrap();
    let expected = [
        "1_Pooling/",
        "1_Pooling/config.json",
        "2_Dense/",
        "2_Dense/config.json",
        "2_Dense/model.safetensors",
        "3_Normalize/",
        "README.md",
        "config.json",
        "config_sentence_transformers.json",
        "hbt.json",
        "hbt_manifest.json",
        "model.safetensors",
        "modules.json",
        "sentence_bert_config.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    assert_eq!(names(target), expected);
    let module = |i: usize, path: &str, class: &str| json!({ "idx": i, "name": i.to_string(), "path": path, "type": format!("sentence_transformers.models.{class}") });
    let modules = json!([
        module(0, "", "Transformer"),
        module(1, "1_Pooling", "Pooling"),
        module(2, "2_Dense", "Dense"),
        module(3, "3_Normalize", "Normalize"),
    ]);
    assert_eq!(read_json(&target.join("modules.json")), modules);
    let pooling = json!({
        "word_embedding_dimension": 4, "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false,
        "pooling_mode_max_tokens": false, "pooling_mode_mean_sqrt_len_tokens": false,
        "pooling_mode_weightedmean_tokens": false, "pooling_mode_lasttoken": false, "include_prompt": true,
    });
    assert_eq!(read_json(&target.join("1_Pooling/config.json")), pooling);
    let transformer = json!({ "max_seq_length": 4, "do_lower_case": false });
    assert_eq!(read_json(&target.join("sentence_bert_config.json")), transformer);
    let prompts = json!({ "query": "query: ", "document": "passage: ", "passage": "passage: " });
    assert_eq!(read_json(&target.join("config_sentence_transformers.json"))["prompts"], prompts);
}

#[test]
fn the_weights_have_hugging_faces_names_and_the_configuration_its_other_keys() {
    let tiny = Tiny::plain();
    let root = tempfile::tempdir().unwrap();
    let target = &root.path().join("model");
    save_copy(tiny.dir(), target, no_extra).unwrap();
    let bytes = fs::read(target.join("model.safetensors")).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");
    let saved = SafeTensors::deserialize(&bytes).unwrap();
    // The pooler too, which hbt does not use: transformers would warn of its absence.
    let expected = tensors();
    assert_eq!(saved.len(), expected.len());
    for (name, (shape, values)) in expected {
        let tensor = saved.tensor(&name).unwrap();
        assert_eq!((tensor.dtype(), tensor.shape()), (Dtype::F32, shape.as_slice()), "{name}");
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(tensor.data(), bytes, "{name}");
    }
    let mut config = super::tiny::config();
    config["architectures"] = json!(["BertModel"]);
    config["torch_dtype"] = json!("float32");
    assert_eq!(read_json(&target.join("config.json")), config);
}

#[test]
fn a_saved_model_names_the_class_of_its_family() {
    for (model_type, class) in [("bert", "BertModel"), ("roberta", "RobertaModel"), ("xlm-roberta", "XLMRobertaModel")]
    {
        let tiny = Tiny::plain();
        tiny.set("config.json", "model_type", json!(model_type));
        let root = tempfile::tempdir().unwrap();
        let target = &root.path().join("model");
        save_copy(tiny.dir(), target, no_extra).unwrap();
        let config = read_json(&target.join("config.json"));
        assert_eq!((&config["model_type"], &config["architectures"]), (&json!(model_type), &json!([class])));
    }
}

#[test]
fn any_tensors_can_be_streamed_into_a_file() {
    let root = tempfile::tempdir().unwrap();
    let path = &root.path().join("moments.safetensors");
    let header =
        |name: &str, dtype, shape: &[usize]| TensorHeader { name: name.to_owned(), dtype, shape: shape.to_vec() };
    let tensors = [
        header("m.b", Dtype::F32, &[2, 3]),
        header("m.a", Dtype::F32, &[]),
        header("rows", Dtype::I32, &[3]),
        header("none", Dtype::F32, &[0, 7]),
        header("v.b", Dtype::F32, &[4]),
    ];
    let blocks = || {
        let floats = [vec![1.5; 6], vec![-0.0], vec![], vec![f32::NAN; 4]].map(Block::F32);
        let [a, b, none, c] = floats;
        [a, b, Block::I32(vec![-1, i32::MAX, 7]), none, c]
    };
    tensor_file::write(path, &tensors, blocks().map(Ok)).unwrap();
    let bytes = fs::read(path).unwrap();
    let read = SafeTensors::deserialize(&bytes).unwrap();
    for (TensorHeader { name, dtype, shape }, block) in tensors.iter().zip(blocks()) {
        let tensor = read.tensor(name).unwrap();
        assert_eq!((tensor.dtype(), tensor.shape()), (*dtype, shape.as_slice()));
        let expected: Vec<u8> = match block {
            Block::F32(values) => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Block::I32(values) => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        };
        assert_eq!(tensor.data(), expected, "{name}");
    }
    let failing = [Ok(Block::F32(vec![0.0; 6])), Err(Error::other("the device is gone"))];
    assert_eq!(tensor_file::write(path, &tensors, failing).unwrap_err().to_string(), "the device is gone");
}

#[test]
fn the_architecture_follows_the_model_type() {
    for (model_type, class) in [("roberta", "RobertaModel"), ("xlm-roberta", "XLMRobertaModel")] {
        let tiny = Tiny::plain();
        tiny.set("config.json", "model_type", json!(model_type));
        tiny.set("config.json", "dtype", json!("bfloat16"));
        let root = tempfile::tempdir().unwrap();
        save_copy(tiny.dir(), &root.path().join("model"), no_extra).unwrap();
        let config = read_json(&root.path().join("model/config.json"));
        assert_eq!((&config["model_type"], &config["architectures"]), (&json!(model_type), &json!([class])));
        assert_eq!((&config["dtype"], &config["torch_dtype"]), (&json!("float32"), &json!("float32")));
    }
}

#[test]
fn tokenizer_files_are_kept_or_made_and_readable_by_old_releases() {
    let tiny = Tiny::plain();
    let root = tempfile::tempdir().unwrap();
    let target = &root.path().join("model");
    let saved = |name: &str| {
        save_copy(tiny.dir(), target, no_extra).unwrap();
        read_json(&target.join(name))
    };
    let made = json!({ "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]", "pad_token": "[PAD]" });
    assert_eq!(saved("special_tokens_map.json"), made);
    assert_eq!(saved("tokenizer_config.json")["tokenizer_class"], "PreTrainedTokenizerFast");
    assert_eq!(saved("tokenizer_config.json")["model_max_length"], 4);
    tiny.json(
        "tokenizer_config.json",
        &json!({ "tokenizer_class": "TokenizersBackend", "extra_special_tokens": ["<x>"], "pad_token": "<p>" }),
    );
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast", "additional_special_tokens": ["<x>"], "pad_token": "<p>"
    });
    assert_eq!(saved("tokenizer_config.json"), config);
    assert_eq!(saved("special_tokens_map.json"), json!({ "pad_token": "<p>" }));
    tiny.json("special_tokens_map.json", &json!({ "pad_token": { "content": "<q>" } }));
    assert_eq!(saved("special_tokens_map.json"), json!({ "pad_token": { "content": "<q>" } }));
    assert_eq!(fs::read(target.join("tokenizer.json")).unwrap(), fs::read(tiny.path("tokenizer.json")).unwrap());
}

#[test]
fn a_model_can_replace_the_one_it_came_from_with_files_beside_it() {
    let tiny = Tiny::sentence_transformers();
    let before = load_all(tiny.dir());
    let root = tempfile::tempdir().unwrap();
    let own = root.path().join("last");
    let state = |directory: &Path| {
        fs::write(directory.join("state.bin"), "step 7").map_err(|e| Error::io("write", directory.join("state.bin"), e))
    };
    save_copy(tiny.dir(), &own, no_extra).unwrap();
    for _ in 0..2 {
        save_copy(&own, &own, state).unwrap();
    }
    assert_eq!(load_all(&own), before);
    assert_eq!(fs::read_to_string(own.join("state.bin")).unwrap(), "step 7");
}

#[test]
fn a_directory_that_is_no_model_is_not_replaced() {
    let tiny = Tiny::plain();
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("thesis.tex"), "years").unwrap();
    let message = save_copy(tiny.dir(), home.path(), no_extra).unwrap_err().to_string();
    assert!(message.contains("choose another directory"), "{message}");
    let message = save_copy(tiny.dir(), &home.path().join("thesis.tex"), no_extra).unwrap_err().to_string();
    assert!(message.contains("thesis.tex: is a file"), "{message}");
    assert_eq!(names(home.path()), ["thesis.tex"]);
}

#[test]
fn a_link_to_a_directory_stays_a_link() {
    let tiny = Tiny::plain();
    let root = tempfile::tempdir().unwrap();
    let link = root.path().join("last");
    fs::create_dir(root.path().join("big_disk")).unwrap();
    std::os::unix::fs::symlink(root.path().join("big_disk"), &link).unwrap();
    save_copy(tiny.dir(), &link, no_extra).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(root.path().join("big_disk/model.safetensors").exists());
}

/// The last step's weights have no loss behind them that would tell.
#[test]
fn a_model_that_diverged_is_not_saved() {
    let tiny = Tiny::sentence_transformers();
    let dir = ModelDir::open(tiny.dir()).unwrap();
    let root = tempfile::tempdir().unwrap();
    let (target, card) = (&root.path().join("last"), card());
    save_copy(tiny.dir(), target, no_extra).unwrap();
    let (before, files) = (load_all(target), names(root.path()));
    let carried = Carried::read(&dir).unwrap();
    let model = model(&dir, &carried, &card);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e19, -1e19] {
        for name in ["layer.1.output.bias", "dense.weight"] {
            let values = |spec: &hbt::model::ParamSpec, part: std::ops::Range<usize>| {
                let mut values = vec![1e17; part.len()];
                if spec.name == name {
                    values[1] = bad;
                }
                Ok(values)
            };
            let error = save(target, &model, values, no_extra).unwrap_err().to_string();
            let tensor = if name == "dense.weight" { "linear.weight" } else { "encoder.layer.1.output.dense.bias" };
            assert!(error.starts_with(&format!("{tensor} would be saved with values that are not finite")), "{error}");
        }
    }
    assert_eq!((load_all(target), names(root.path())), (before, files));
}

/// A base model may go away during training: what a save takes from it was read before.
#[test]
fn a_save_needs_nothing_of_a_directory_that_is_gone() {
    let tiny = Tiny::plain();
    let dir = ModelDir::open(tiny.dir()).unwrap();
    let (root, card, carried) = (tempfile::tempdir().unwrap(), card(), Carried::read(&dir).unwrap());
    let tokenizer = fs::read(tiny.path("tokenizer.json")).unwrap();
    fs::remove_file(tiny.path("tokenizer.json")).unwrap();
    let values = |_: &hbt::model::ParamSpec, part: std::ops::Range<usize>| Ok(vec![0.0; part.len()]);
    let target = root.path().join("last");
    save(&target, &model(&dir, &carried, &card), values, no_extra).unwrap();
    assert_eq!(fs::read(target.join("tokenizer.json")).unwrap(), tokenizer);
    let error = Carried::read(&dir).map(|_| ()).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot read {}: ", tiny.path("tokenizer.json").display())), "{error}");
}

#[test]
fn a_failed_save_leaves_the_old_model_and_nothing_else() {
    let tiny = Tiny::plain();
    let root = tempfile::tempdir().unwrap();
    let target = &root.path().join("last");
    save_copy(tiny.dir(), target, no_extra).unwrap();
    let (before, files) = (load_all(target), names(root.path()));
    let stop = |_: &Path| Err(Error::other("stopped"));
    assert_eq!(save_copy(tiny.dir(), target, stop).unwrap_err().to_string(), "stopped");
    let dir = ModelDir::open(tiny.dir()).unwrap();
    let card = card();
    let carried = Carried::read(&dir).unwrap();
    let model = model(&dir, &carried, &card);
    let mut left = 9;
    let values = |_: &hbt::model::ParamSpec, part: std::ops::Range<usize>| {
        left -= 1;
        if left == 0 { Err(Error::other("the device is gone")) } else { Ok(vec![0.0; part.len()]) }
    };
    assert_eq!(save(target, &model, values, no_extra).unwrap_err().to_string(), "the device is gone");
    assert_eq!((load_all(target), names(root.path())), (before, files));
}
