//! Directories that have to be refused, in one line that names the place and the remedy.

use super::tiny::{Tiny, tensors, with_prefix, write};
use hbt::model_dir::ModelDir;
use safetensors::Dtype;
use serde_json::{Value, json};
use std::fs;

/// The message has all of these parts.
fn says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

#[test]
fn a_directory_that_is_not_a_model() {
    let tiny = Tiny::plain();
    let open = |path| ModelDir::open(path).unwrap_err().to_string();
    says(&open(tiny.path("absent")), &["absent: no such directory"]);
    says(&open(tiny.path("config.json")), &["config.json: is a file"]);
    for (file, message) in [
        ("model.safetensors", "has no weights"),
        ("tokenizer.json", "has no tokenizer.json"),
        ("config.json", "has no config.json"),
    ] {
        fs::remove_file(tiny.path(file)).unwrap();
        says(&tiny.error(), &[tiny.dir().to_str().unwrap(), message]);
    }
}

#[test]
fn pickled_weights_only() {
    let tiny = Tiny::without_weights();
    fs::write(tiny.path("pytorch_model.bin"), "x").unwrap();
    says(&tiny.error(), &["pytorch_model.bin", "as safetensors"]);
}

#[test]
fn configurations_that_hbt_does_not_compute() {
    for (key, value, parts) in [
        ("model_type", json!("t5"), &["model_type \"t5\"", "\"bert\", \"roberta\" and \"xlm-roberta\""][..]),
        ("model_type", Value::Null, &["has no model_type"]),
        ("hidden_act", json!("gelu_new"), &["hidden_act \"gelu_new\"", "\"gelu\""]),
        ("hidden_act", json!(7), &["hidden_act is 7"]),
        ("position_embedding_type", json!("relative_key"), &["position_embedding_type", "\"absolute\""]),
        ("is_decoder", json!(true), &["is_decoder"]),
        ("hidden_size", json!(5), &["hidden_size 5", "num_attention_heads 2"]),
        ("hidden_size", json!(0), &["hidden_size is 0"]),
        ("num_hidden_layers", json!(-1), &["num_hidden_layers is -1"]),
        ("num_attention_heads", json!(0), &["num_attention_heads is 0"]),
        ("vocab_size", Value::Null, &["has no vocab_size"]),
        ("vocab_size", json!(1u64 << 40), &["vocab_size is 1099511627776"]),
        ("pad_token_id", json!(7), &["pad_token_id 7", "vocab_size 7"]),
        ("hidden_dropout_prob", json!(1.0), &["hidden_dropout_prob is 1"]),
        ("layer_norm_eps", json!(0.0), &["layer_norm_eps 0"]),
    ] {
        let tiny = Tiny::plain();
        tiny.set("config.json", key, value);
        let message = tiny.error();
        says(&message, &["config.json: "]);
        says(&message, parts);
    }
    let tiny = Tiny::plain();
    tiny.set("config.json", "model_type", json!("xlm-roberta"));
    tiny.set("config.json", "max_position_embeddings", json!(1));
    says(&tiny.error(), &["max_position_embeddings 1", "pad_token_id + 1"]);
    fs::write(tiny.path("config.json"), "{\"model_type\": \"bert\",").unwrap();
    says(&tiny.error(), &["config.json: invalid JSON", "line 1"]);
    fs::write(tiny.path("config.json"), b"{\"model_type\": \"\xff\"}").unwrap();
    says(&tiny.error(), &["config.json", "UTF-8"]);
}

#[test]
fn modules_that_hbt_does_not_compute() {
    for (classes, part) in [
        (&["Transformer", "Pooling", "LSTM"][..], "\"sentence_transformers.models.LSTM\" is not supported"),
        (&["Transformer", "Pooling", "Normalize", "Dense"], "out of order"),
        (&["Transformer", "Pooling", "Pooling"], "out of order"),
        (&["Pooling"], "out of order"),
    ] {
        let tiny = Tiny::sentence_transformers();
        tiny.modules(classes);
        says(&tiny.error(), &["modules.json: ", part]);
    }
    let tiny = Tiny::plain();
    tiny.json("modules.json", &json!([{ "path": "", "type": "custom_st.Transformer" }]));
    says(&tiny.error(), &["custom_st.Transformer", "not supported"]);
}

#[test]
fn poolings_that_hbt_does_not_compute() {
    for (config, part) in [
        (json!({ "pooling_mode_max_tokens": true }), "pooling max is not supported"),
        (json!({ "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true }), "pooling cls + mean"),
        (json!({ "pooling_mode_cls_token": false, "pooling_mode_mean_tokens": false }), "names no pooling mode"),
        (json!({ "pooling_mode": "lasttoken" }), "pooling lasttoken"),
        (json!({ "pooling_mode": ["cls", "mean"] }), "pooling cls + mean"),
        (json!({ "pooling_mode": 3 }), "pooling_mode has to be"),
        (json!({ "pooling_mode": "mean", "embedding_dimension": 8 }), "embedding_dimension is 8"),
        (json!({ "pooling_mode_mean_tokens": true, "include_prompt": false }), "include_prompt"),
    ] {
        let tiny = Tiny::plain();
        tiny.modules(&["Transformer", "Pooling"]);
        tiny.json("1_Pooling/config.json", &config);
        says(&tiny.error(), &["1_Pooling/config.json: ", part]);
    }
    let tiny = Tiny::plain();
    tiny.modules(&["Transformer", "Pooling"]);
    says(&tiny.error(), &["1_Pooling: has no config.json"]);
}

#[test]
fn dense_modules_that_hbt_does_not_compute() {
    for (key, value, part) in [
        ("activation_function", json!("torch.nn.modules.linear.Identity"), "Identity"),
        ("bias", json!(false), "bias is false"),
        ("in_features", json!(8), "in_features is 8"),
        ("module_input_name", json!("token_embeddings"), "token_embeddings"),
    ] {
        let tiny = Tiny::sentence_transformers();
        tiny.set("2_Dense/config.json", key, value);
        says(&tiny.error(), &["2_Dense/config.json: ", part]);
    }
    let tiny = Tiny::sentence_transformers();
    fs::remove_file(tiny.path("2_Dense/model.safetensors")).unwrap();
    says(&tiny.error(), &["2_Dense: has no weights"]);
}

#[test]
fn lowercasing_that_the_tokenizer_does_not_do() {
    let tiny = Tiny::plain();
    tiny.json("sentence_bert_config.json", &json!({ "max_seq_length": 4, "do_lower_case": true }));
    says(&tiny.error(), &["sentence_bert_config.json: ", "do_lower_case"]);
    tiny.set("tokenizer.json", "normalizer", json!({ "type": "BertNormalizer", "lowercase": true }));
    assert_eq!(ModelDir::open(tiny.dir()).unwrap().max_seq_length, 4);
}

#[test]
fn tensors_that_are_missing_or_other_than_the_configuration() {
    let check = |change: &dyn Fn(&mut super::tiny::Tensors), dtype, parts: &[&str]| {
        let tiny = Tiny::without_weights();
        let mut tensors = tensors();
        change(&mut tensors);
        write(&tiny.path("model.safetensors"), &tensors, dtype);
        let message = tiny.error();
        says(&message, &["model.safetensors: "]);
        says(&message, parts);
    };
    let key = "encoder.layer.1.attention.self.key.weight";
    check(&|t| drop(t.remove(key)), Dtype::F32, &["no tensor", key]);
    let words = "embeddings.word_embeddings.weight";
    check(&|t| drop(t.remove(words)), Dtype::F32, &["no tensor", words, "is it a BertModel?"]);
    check(&|t| drop(t.insert(key.into(), (vec![2, 4], vec![0.0; 8]))), Dtype::F32, &[key, "[2, 4]", "[4, 4]"]);
    check(&|t| drop(t.insert(words.into(), (vec![28], vec![0.0; 28]))), Dtype::F32, &[words, "[28]", "[7, 4]"]);
    check(&|_| (), Dtype::F64, &["type F64", "F32, F16 and BF16"]);
    let two = |t: &mut super::tiny::Tensors| {
        *t = with_prefix(tensors(), "query.").into_iter().chain(with_prefix(tensors(), "passage.")).collect();
    };
    check(&two, Dtype::F32, &["2 encoders (passage., query.)"]);
}

#[test]
fn weights_that_are_not_finite() {
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let tiny = Tiny::plain();
            let mut tensors = tensors();
            // The last of a stacked parameter.
            let key = "encoder.layer.1.attention.self.value.weight";
            tensors.get_mut(key).unwrap().1[15] = value;
            write(&tiny.path("model.safetensors"), &tensors, dtype);
            says(&tiny.error(), &["model.safetensors: ", key, "holds NaN or infinity", "an earlier checkpoint"]);
        }
    }
}

/// Before memory is taken for any: in each of these there would be terabytes of it.
#[test]
fn sizes_that_are_off_by_a_million() {
    for (key, part) in [
        ("vocab_size", "tensor \"embeddings.word_embeddings.weight\" has shape [7, 4]"),
        ("max_position_embeddings", "tensor \"embeddings.position_embeddings.weight\" has shape [5, 4]"),
        ("type_vocab_size", "tensor \"embeddings.token_type_embeddings.weight\" has shape [2, 4]"),
        ("num_hidden_layers", "num_hidden_layers is 2147483646; hbt computes encoders of up to 1000"),
        ("hidden_size", "hidden_size is 2147483646; hbt computes encoders of up to 1048576"),
        ("intermediate_size", "encoder.layer.0.intermediate.dense.weight\" has shape [6, 4]"),
    ] {
        let tiny = Tiny::plain();
        tiny.set("config.json", key, json!(2147483646));
        says(&tiny.error(), &[part]);
    }
    for (key, value) in [("hidden_size", 1 << 20), ("intermediate_size", 1 << 20), ("num_hidden_layers", 1000)] {
        let tiny = Tiny::plain();
        tiny.set("config.json", key, json!(value));
        says(&tiny.error(), &["model.safetensors: "]);
    }
    let tiny = Tiny::sentence_transformers();
    tiny.set("2_Dense/config.json", "out_features", json!(2147483646));
    says(&tiny.error(), &["2_Dense/model.safetensors: ", "\"linear.weight\" has shape [3, 4]"]);
}

#[test]
fn modules_outside_of_the_directory() {
    let elsewhere = Tiny::sentence_transformers();
    let absolute = elsewhere.dir().to_str().unwrap().to_owned();
    for module in 0..3 {
        for path in [&absolute, "..", "../1_Pooling", "a/../../b", "1_Pooling/../..", "\\\\server\\share"] {
            let tiny = Tiny::sentence_transformers();
            let mut modules: Value =
                serde_json::from_str(&fs::read_to_string(tiny.path("modules.json")).unwrap()).unwrap();
            modules[module]["path"] = path.into();
            tiny.json("modules.json", &modules);
            says(&tiny.error(), &["modules.json: the path ", "of a module leads out of the directory"]);
        }
    }
    // Inside, by whatever way, and as the hub's cache has it: a folder of links.
    let tiny = Tiny::sentence_transformers();
    let mut modules: Value = serde_json::from_str(&fs::read_to_string(tiny.path("modules.json")).unwrap()).unwrap();
    modules[1]["path"] = "./1_Pooling/".into();
    tiny.json("modules.json", &modules);
    #[cfg(unix)]
    {
        fs::rename(tiny.path("1_Pooling/config.json"), elsewhere.path("blob")).unwrap();
        std::os::unix::fs::symlink(elsewhere.path("blob"), tiny.path("1_Pooling/config.json")).unwrap();
    }
    assert!(ModelDir::open(tiny.dir()).unwrap().pooling.is_some());
}

#[test]
fn truncated_and_lying_files() {
    let tiny = Tiny::plain();
    let path = tiny.path("model.safetensors");
    let good = fs::read(&path).unwrap();
    let with_length = |length: u64| [&length.to_le_bytes(), &good[8..]].concat();
    let header = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    let edited = |from: &str, to: &str| {
        let text = std::str::from_utf8(&good[8..header]).unwrap().replacen(from, to, 1);
        [&(text.len() as u64).to_le_bytes(), text.as_bytes(), &good[header..]].concat()
    };
    for (bytes, part) in [
        (vec![], "truncated: 0 bytes"),
        (good[..5].to_vec(), "truncated: 5 bytes"),
        (good[..header - 3].to_vec(), "its header"),
        (good[..header].to_vec(), "is truncated: its header describes"),
        (good[..good.len() - 1].to_vec(), "is truncated: its header describes"),
        ([&good[..], b"x"].concat(), "is too long: its header describes"),
        (with_length(u64::MAX), "its header 18446744073709551615"),
        (with_length(good.len() as u64), "no safetensors file"),
        (with_length(3), "invalid safetensors header"),
        (edited("\"data_offsets\":[0,", "\"data_offsets\":[4,"), "invalid offset"),
        (edited("\"shape\":[4]", "\"shape\":[4611686018427387904,4]"), "invalid safetensors header"),
        (edited("\"dtype\":\"F32\"", "\"dtype\":\"F99\""), "invalid safetensors header"),
    ] {
        fs::write(&path, bytes).unwrap();
        says(&tiny.error(), &["model.safetensors: ", part, "download or copy the file again"]);
    }
}

#[test]
fn shards_that_are_not_there_or_not_theirs() {
    let tiny = Tiny::without_weights();
    let index = |weight_map: Value| tiny.json("model.safetensors.index.json", &json!({ "weight_map": weight_map }));
    write(&tiny.path("a.safetensors"), &tensors(), Dtype::F32);
    index(json!({ "embeddings.word_embeddings.weight": "b.safetensors" }));
    says(&tiny.error(), &["cannot read", "b.safetensors"]);
    index(json!({ "embeddings.word_embeddings.weight": "../a.safetensors" }));
    says(&tiny.error(), &["index.json: ", "../a.safetensors"]);
    let absolute = tiny.path("a.safetensors").to_str().unwrap().to_owned();
    index(json!({ "embeddings.word_embeddings.weight": absolute }));
    says(&tiny.error(), &["index.json: ", "is no file name"]);
    index(json!({ "bert.embeddings.word_embeddings.weight": "a.safetensors" }));
    says(&tiny.error(), &["a.safetensors: ", "\"bert.embeddings.word_embeddings.weight\"", "promises"]);
    index(json!(3));
    says(&tiny.error(), &["index.json: ", "weight_map"]);
}
