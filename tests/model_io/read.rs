//! Directories that have to load, and what they have to load as.

use super::tiny::{Tiny, dense_tensors, load_all, tensors, with_prefix, write};
use hbt::backend::Pooling;
use hbt::config::Config;
use hbt::model::{Init, ModelConfig, random_init, specs};
use hbt::model_dir::ModelDir;
use hbt::model_dir::weights::load;
use safetensors::{Dtype, SafeTensors};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What `load` has to give, made from the file's tensors by hand.
fn expected() -> BTreeMap<String, Vec<f32>> {
    let tensors = tensors();
    let one = |name: &str| tensors[name].1.clone();
    let mut expected = BTreeMap::from([
        ("word_embeddings".to_owned(), one("embeddings.word_embeddings.weight")),
        ("position_embeddings".to_owned(), one("embeddings.position_embeddings.weight")),
        ("token_type_embeddings".to_owned(), one("embeddings.token_type_embeddings.weight")),
        ("embedding_norm.weight".to_owned(), one("embeddings.LayerNorm.weight")),
        ("embedding_norm.bias".to_owned(), one("embeddings.LayerNorm.bias")),
    ]);
    for layer in 0..2 {
        for kind in ["weight", "bias"] {
            let part = |name: &str| one(&format!("encoder.layer.{layer}.{name}.{kind}"));
            let qkv = ["query", "key", "value"].map(|name| part(&format!("attention.self.{name}")));
            for (name, values) in [
                ("qkv", qkv.concat()),
                ("attention_output", part("attention.output.dense")),
                ("attention_norm", part("attention.output.LayerNorm")),
                ("intermediate", part("intermediate.dense")),
                ("output", part("output.dense")),
                ("output_norm", part("output.LayerNorm")),
            ] {
                expected.insert(format!("layer.{layer}.{name}.{kind}"), values);
            }
        }
    }
    expected
}

fn values(dir: &Path) -> BTreeMap<String, Vec<f32>> {
    load_all(dir).into_iter().map(|(name, (_, values))| (name, values)).collect()
}

#[test]
fn every_type_and_prefix_loads_as_the_same_values() {
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
        for prefix in ["", "bert.", "roberta.", "0.auto_model."] {
            let tiny = Tiny::without_weights();
            write(&tiny.path("model.safetensors"), &with_prefix(tensors(), prefix), dtype);
            assert_eq!(values(tiny.dir()), expected(), "{dtype:?} {prefix:?}");
        }
    }
}

#[test]
fn half_precision_is_widened_exactly() {
    let pow2 = |e: i32| 2f64.powi(e) as f32;
    // Smallest and largest subnormal, smallest normal, 1 + 1 ulp, largest, -0, least, a sum of high and low bits.
    let f16 = [pow2(-24), 1023.0 * pow2(-24), pow2(-14), 1.0 + pow2(-10), 65504.0, -0.0, -65504.0, -1365.0];
    let max = (2.0 - pow2(-7)) * pow2(127);
    let bf16 = [pow2(-133), 127.0 * pow2(-133), pow2(-126), 1.0 + pow2(-7), max, -0.0, -max, -171.0];
    for (dtype, exact) in [(Dtype::F16, f16), (Dtype::BF16, bf16)] {
        let tiny = Tiny::without_weights();
        let mut tensors = tensors();
        tensors.get_mut("embeddings.token_type_embeddings.weight").unwrap().1 = exact.to_vec();
        write(&tiny.path("model.safetensors"), &tensors, dtype);
        let read = &values(tiny.dir())["token_type_embeddings"];
        assert_eq!(read.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), exact.map(f32::to_bits), "{dtype:?}");
    }
}

#[test]
fn shards_are_found_through_the_index() {
    let tiny = Tiny::without_weights();
    let all = with_prefix(tensors(), "bert.");
    let mut weight_map = serde_json::Map::new();
    for (shard, remainder) in [("model-00001-of-00002.safetensors", 0), ("model-00002-of-00002.safetensors", 1)] {
        let part = all.clone().into_iter().enumerate().filter(|(i, _)| i % 2 == remainder).map(|(_, tensor)| tensor);
        let part = part.collect();
        write(&tiny.path(shard), &part, Dtype::F16);
        weight_map.extend(part.into_keys().map(|name| (name, shard.into())));
    }
    tiny.json("model.safetensors.index.json", &json!({ "metadata": {}, "weight_map": weight_map }));
    assert_eq!(values(tiny.dir()), expected());
}

#[test]
fn gamma_and_beta_of_old_checkpoints_are_a_layer_norm() {
    let tiny = Tiny::without_weights();
    let old = |name: String| name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta");
    let tensors = tensors().into_iter().map(|(name, tensor)| (old(name), tensor)).collect();
    write(&tiny.path("model.safetensors"), &tensors, Dtype::F32);
    assert_eq!(values(tiny.dir()), expected());
}

#[test]
fn a_dense_module_has_its_own_file() {
    let tiny = Tiny::sentence_transformers();
    let values = values(tiny.dir());
    assert_eq!(values["dense.weight"], dense_tensors()["linear.weight"].1);
    assert_eq!(values["dense.bias"], dense_tensors()["linear.bias"].1);
    let dir = ModelDir::open(tiny.dir()).unwrap();
    assert_eq!((dir.pooling, dir.normalize, dir.max_seq_length), (Some(Pooling::Cls), true, 5));
}

#[test]
fn the_new_schema_means_the_same() {
    let tiny = Tiny::plain();
    let modules = [
        ("", "sentence_transformers.base.modules.transformer.Transformer"),
        ("1_Pooling", "sentence_transformers.sentence_transformer.modules.pooling.Pooling"),
        ("2_Normalize", "sentence_transformers.base.modules.normalize.Normalize"),
    ];
    tiny.json("modules.json", &modules.iter().map(|(path, class)| json!({ "path": path, "type": class })).collect());
    tiny.json("sentence_bert_config.json", &json!({ "transformer_task": "feature-extraction" }));
    for mode in [json!("mean"), json!(["mean"])] {
        tiny.json("1_Pooling/config.json", &json!({ "embedding_dimension": 4, "pooling_mode": mode }));
        let dir = ModelDir::open(tiny.dir()).unwrap();
        assert_eq!((dir.pooling, dir.normalize, dir.dense), (Some(Pooling::Mean), true, None));
    }
}

#[test]
fn a_directory_without_modules_says_nothing_of_pooling() {
    let tiny = Tiny::plain();
    let dir = ModelDir::open(tiny.dir()).unwrap();
    assert_eq!(dir.pooling, None);
    let settings = |pooling| Config { pooling, ..Config::default() }.retriever(&dir);
    assert_eq!(settings(Some(Pooling::Mean)).unwrap().pooling, Pooling::Mean);
    let message = settings(None).unwrap_err().to_string();
    assert!(message.starts_with("pooling: neither"), "{message}");
    assert!(message.contains("set pooling = \"mean\"") && message.contains("\"cls\""), "{message}");
    assert!(message.contains(tiny.dir().to_str().unwrap()), "{message}");
}

#[test]
fn the_longest_text_is_what_the_directory_says_within_the_position_table() {
    let tiny = Tiny::plain();
    let max = || ModelDir::open(tiny.dir()).unwrap().max_seq_length;
    assert_eq!(max(), 5);
    tiny.json("tokenizer_config.json", &json!({ "model_max_length": 1e30 }));
    assert_eq!(max(), 5);
    tiny.json("tokenizer_config.json", &json!({ "model_max_length": 4 }));
    assert_eq!(max(), 4);
    tiny.json("sentence_bert_config.json", &json!({ "max_seq_length": 3, "do_lower_case": false }));
    assert_eq!(max(), 3);
    tiny.json("sentence_bert_config.json", &json!({ "max_seq_length": 512 }));
    assert_eq!(max(), 5);
    // sentence-transformers looks at the tokenizer's arguments first, whatever they are called.
    for key in ["processor_kwargs", "tokenizer_args"] {
        tiny.json("sentence_bert_config.json", &json!({ "max_seq_length": 5, key: { "model_max_length": 2 } }));
        assert_eq!(max(), 2);
    }
    tiny.json("sentence_bert_config.json", &json!({ "max_seq_length": null, "do_lower_case": false }));
    assert_eq!(max(), 4, "as the tokenizer says");
}

/// hbt's own lengths, neither of its own nor of an earlier training, shorten nothing.
#[test]
fn texts_are_cut_where_the_directory_says_unless_the_configuration_does() {
    let tiny = Tiny::plain();
    let of = |config: &Config| {
        let kinds = config.text_kinds(&ModelDir::open(tiny.dir()).unwrap());
        kinds.map(|kinds| kinds.map(|kind| kind.max_len)).map_err(|e| e.to_string())
    };
    let lengths = |query_max_len, passage_max_len| Config { query_max_len, passage_max_len, ..Config::default() };
    assert_eq!(of(&Config::default()), Ok([5, 5]));
    tiny.json("hbt.json", &json!({ "query_max_len": 2, "passage_max_len": 3 }));
    assert_eq!(of(&Config::default()), Ok([5, 5]));
    tiny.json("sentence_bert_config.json", &json!({ "max_seq_length": 4 }));
    assert_eq!(of(&Config::default()), Ok([4, 4]));
    // sentence-transformers 6.
    tiny.json("sentence_bert_config.json", &json!({ "max_seq_length": 4, "query_length": 3, "document_length": 9 }));
    assert_eq!(of(&Config::default()), Ok([3, 5]));
    // What was trained short can be trained longer, up to the position table.
    assert_eq!(of(&lengths(Some(5), Some(2))), Ok([5, 2]));
    let beyond = |key| Err(format!("{key}: is 6, but the model has positions for 5 tokens; set at most 5"));
    assert_eq!(of(&lengths(Some(6), None)), beyond("query_max_len"));
    assert_eq!(of(&lengths(None, Some(6))), beyond("passage_max_len"));
    let resumed = ModelDir::open_checkpoint(tiny.dir()).unwrap();
    assert_eq!((resumed.query_max_len, resumed.passage_max_len), (2, 3), "a run goes on with its own");
}

#[test]
fn prompts_are_the_prefixes() {
    let tiny = Tiny::plain();
    let prefixes = |config: serde_json::Value| {
        tiny.json("config_sentence_transformers.json", &config);
        let dir = ModelDir::open(tiny.dir()).unwrap();
        (dir.query_prefix, dir.passage_prefix)
    };
    let some = |query: &str, passage: &str| (Some(query.to_owned()), Some(passage.to_owned()));
    assert_eq!(
        prefixes(json!({ "prompts": { "query": "q: ", "document": "d: ", "passage": "p: " } })),
        some("q: ", "d: ")
    );
    assert_eq!(prefixes(json!({ "prompts": { "query": "", "passage": "p: " } })), some("", "p: "));
    assert_eq!(prefixes(json!({ "prompts": { "sts": "s: " }, "default_prompt_name": "sts" })), some("s: ", "s: "));
    assert_eq!(prefixes(json!({ "prompts": {}, "default_prompt_name": null })), (None, None));
}

#[test]
fn positions_start_where_the_family_has_them() {
    let read = |model_type: &str| {
        let mut config = super::tiny::config();
        config["model_type"] = model_type.into();
        config["pad_token_id"] = 1.into();
        ModelConfig::from_json(Path::new("config.json"), &config.to_string()).unwrap()
    };
    for (model_type, offset) in [("bert", 0), ("roberta", 2), ("xlm-roberta", 2)] {
        let config = read(model_type);
        assert_eq!(config.family.model_type, model_type);
        assert_eq!((config.position_offset, config.max_seq_len()), (offset, 5 - offset));
    }
}

#[test]
fn from_scratch_is_seeded_and_starts_as_the_specs_say() {
    let tiny = Tiny::without_weights();
    tiny.set("config.json", "model_type", json!("xlm-roberta"));
    tiny.set("config.json", "pad_token_id", json!(1));
    let config = ModelDir::open(tiny.dir()).unwrap().config;
    let specs = specs(&config, None);
    let draw = |seed| random_init(&specs, seed, |_, values| Ok(values)).unwrap();
    let params = draw(3);
    assert_eq!(params, draw(3));
    assert_ne!(params.layers[0].qkv_weight, draw(4).layers[0].qkv_weight);
    assert_ne!(params.layers[0].qkv_weight, params.layers[1].qkv_weight);
    for (spec, values) in specs.iter().zip(params.iter()) {
        assert_eq!(values.len(), spec.shape.iter().product::<usize>(), "{}", spec.name);
        let expected = match spec.init {
            Init::Zeros => Some(0.0),
            Init::Ones => Some(1.0),
            Init::Normal { .. } => None,
        };
        match expected {
            Some(expected) => assert!(values.iter().all(|&x| x == expected), "{}", spec.name),
            None => assert!(values.iter().all(|x| x.abs() < 0.02 * 7.0), "{}", spec.name),
        }
    }
    // The padding rows of PyTorch's nn.Embedding(padding_idx = 1): words and, in the RoBERTa family, positions.
    for table in [&params.embeddings.word, &params.embeddings.position] {
        let zero_rows: Vec<usize> =
            table.chunks(4).enumerate().filter(|(_, row)| row.iter().all(|&x| x == 0.0)).map(|(i, _)| i).collect();
        assert_eq!(zero_rows, [1]);
    }
}

#[test]
fn weight_decay_spares_biases_and_layer_norms() {
    let tiny = Tiny::sentence_transformers();
    let decayed: BTreeSet<String> =
        load_all(tiny.dir()).into_iter().filter(|(_, (spec, _))| spec.decay).map(|(name, _)| name).collect();
    let tables = ["word_embeddings", "position_embeddings", "token_type_embeddings", "dense.weight"];
    let per_layer = ["qkv.weight", "attention_output.weight", "intermediate.weight", "output.weight"];
    let layers = (0..2).flat_map(|layer| per_layer.map(|name| format!("layer.{layer}.{name}")));
    assert_eq!(decayed, tables.map(str::to_owned).into_iter().chain(layers).collect());
}

/// The directories that PyTorch's libraries wrote, where the checkout has them.
fn fixtures() -> Option<PathBuf> {
    let fixtures = crate::common::fixtures();
    if fixtures.join("bert").is_dir() {
        return Some(fixtures);
    }
    eprintln!("skipped: tests/fixtures has no model directories");
    None
}

#[test]
fn directories_of_pytorch_load() {
    let Some(fixtures) = fixtures() else { return };
    for (name, pooling, dense, normalize) in [
        ("bert", Pooling::Mean, None, true),
        ("xlmr", Pooling::Cls, None, true),
        ("labse", Pooling::Cls, Some((32, 24)), true),
        ("st54", Pooling::Mean, None, true),
    ] {
        let dir = ModelDir::open(fixtures.join(name)).unwrap();
        let found = (dir.pooling, dir.dense.map(|d| (d.in_features, d.out_features)), dir.normalize);
        assert_eq!(found, (Some(pooling), dense, normalize), "{name}");
        let params = load(&dir, |spec, values| Ok((spec.clone(), values))).unwrap();
        for (spec, values) in params.iter() {
            assert_eq!(values.len(), spec.len(), "{name} {}", spec.name);
            assert!(values.iter().all(|x| x.is_finite()) && values.iter().any(|&x| x != 0.0), "{name} {}", spec.name);
        }
    }
}

#[test]
fn values_of_pytorchs_files_are_those_of_the_reference_reader() {
    let Some(fixtures) = fixtures() else { return };
    let bytes = fs::read(fixtures.join("bert/model.safetensors")).unwrap();
    let reference = SafeTensors::deserialize(&bytes).unwrap();
    let params = values(&fixtures.join("bert"));
    for (ours, theirs) in [
        ("word_embeddings", "embeddings.word_embeddings.weight"),
        ("layer.1.intermediate.weight", "encoder.layer.1.intermediate.dense.weight"),
    ] {
        let tensor = reference.iter().find(|(name, _)| name.ends_with(theirs)).unwrap().1;
        let (bytes, _) = tensor.data().as_chunks::<4>();
        let expected: Vec<f32> = bytes.iter().map(|&b| f32::from_le_bytes(b)).collect();
        assert_eq!(params[ours], expected, "{ours}");
    }
}
