//! Broken input: every reader takes thousands of files that differ from good ones by a few bytes or words, and says one
//! thing of each. `HBT_MUTATIONS=20000 cargo test --release mutated` makes as many of all kinds together.

#[path = "../fuzz/bodies.rs"]
pub mod bodies;

use std::fs;
use std::io::Write;
use std::path::Path;

use bodies::{BODIES, SQUAD};
use tempfile::TempDir;

/// Files of each kind if the environment does not say how many there shall be of all kinds.
const N_OF_EACH: u64 = 200;

/// Words that readers stumble over.
const WORDS: [&str; 40] = [
    "null",
    "-1",
    "0",
    "1e400",
    "18446744073709551616",
    "-0.0",
    "NaN",
    "true",
    "[]",
    "{}",
    "\"\"",
    "\" \"",
    "[[[[",
    "{\"a\":",
    "\"\\ud800\"",
    "\"\\u0000\"",
    "\u{feff}",
    "\u{202e}",
    "\r",
    "\n",
    "\t",
    ",",
    "\"",
    "\\",
    ":",
    "\u{1b}[2J",
    "../",
    "/",
    "\"lang\": \"xx\"",
    "\"label\": 0, ",
    "\"id\": 1e3, ",
    "\"negatives\": [\"\"], ",
    "\"data\": [], ",
    "é",
    "日",
    "2147483647",
    "[1, 2]",
    "inf",
    "9999999999999999999999",
    "\0",
];

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// One to four changes: bits, words, pieces that are cut out, doubled or moved, an early end.
fn mutated(input: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=random.below(4) {
        let (a, b) = (random.below(bytes.len()), random.below(bytes.len()));
        let (start, end) = (a.min(b), a.max(b).min(a.min(b) + 64));
        match random.below(8) {
            0 | 1 if !bytes.is_empty() => bytes[a] ^= 1 << random.below(8),
            2 => drop(bytes.drain(start..end)),
            3 => {
                let piece = bytes[start..end].to_vec();
                bytes.splice(start..start, piece);
            }
            4 => {
                let piece: Vec<u8> = bytes.drain(start..end).collect();
                let at = random.below(bytes.len());
                bytes.splice(at..at, piece);
            }
            5 => bytes.truncate(a),
            _ => {
                let word = WORDS[random.below(WORDS.len())].bytes();
                let end = if random.below(2) == 0 { start } else { end };
                bytes.splice(start..end, word);
            }
        }
    }
    bytes
}

fn gzip(text: &str) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(text.as_bytes()).unwrap();
    out.finish().unwrap()
}

/// Columns of texts with their levels.
type Columns<'a> = &'a [(&'a [&'a str], &'a [i16], Option<&'a [i16]>)];

fn parquet(schema: &str, columns: Columns) -> Vec<u8> {
    use parquet::data_type::{ByteArray, ByteArrayType};
    let schema = parquet::schema::parser::parse_message_type(schema).unwrap();
    let mut bytes = Vec::new();
    let mut writer =
        parquet::file::writer::SerializedFileWriter::new(&mut bytes, schema.into(), Default::default()).unwrap();
    let mut rows = writer.next_row_group().unwrap();
    for (values, definition, repetition) in columns {
        let mut column = rows.next_column().unwrap().unwrap();
        let values: Vec<ByteArray> = values.iter().map(|text| ByteArray::from(*text)).collect();
        column.typed::<ByteArrayType>().write_batch(&values, Some(definition), *repetition).unwrap();
        column.close().unwrap();
    }
    rows.close().unwrap();
    writer.close().unwrap();
    bytes
}

fn parquet_of_pairs() -> Vec<u8> {
    let schema = "message m { optional binary query (UTF8); optional binary positive (UTF8); }";
    let column: (&[&str], &[i16], Option<&[i16]>) = (&["a", "b", "c"], &[1, 1, 0, 1], None);
    parquet(schema, &[column, column])
}

/// A stream's batches as a file with a footer.
fn arrow_with_footer(stream: &[u8]) -> Vec<u8> {
    let batches = arrow_ipc::reader::StreamReader::try_new(stream, None).unwrap();
    let mut bytes = Vec::new();
    let mut writer = arrow_ipc::writer::FileWriter::try_new(&mut bytes, &batches.schema()).unwrap();
    batches.for_each(|batch| writer.write(&batch.unwrap()).unwrap());
    writer.finish().unwrap();
    drop(writer);
    bytes
}

/// One file with the columns of every part of a retrieval task.
fn parquet_of_task() -> Vec<u8> {
    let schema = "message m { optional binary id (UTF8); optional binary text (UTF8); optional binary title (UTF8);
        optional binary query-id (UTF8); optional binary corpus-id (UTF8); optional binary score (UTF8);
        optional group corpus-ids (LIST) { repeated group list { optional binary element (UTF8); } }
        optional binary instruction (UTF8); }";
    let (ids, texts): (&[&str], &[&str]) = (&["a", "b", "c"], &["one", "two", "three"]);
    let all: &[i16] = &[1, 1, 1];
    let columns: Columns = &[
        (ids, all, None),
        (texts, all, None),
        (&["T"], &[1, 0, 0], None),
        (ids, all, None),
        (&["c", "d", "a"], all, None),
        (&["1", "0", "-2"], all, None),
        (&["a", "b", "c", "d"], &[3, 3, 3, 1, 3], Some(&[0, 1, 1, 0, 0])),
        (&["Find"], &[0, 1, 0], None),
    ];
    parquet(schema, columns)
}

/// The state of a run with two evaluations and a temperature that is learned.
pub fn state() -> String {
    let report = r#"{"model": "last", "task": "parallel", "split": "all", "languages": ["de", "en"], "main": "multilingual_map",
        "figures": [{"task": "parallel", "setting": "multilingual", "metric": "map", "cutoff": null, "value": 0.5},
            {"task": "parallel", "setting": null, "metric": "rank_distance", "cutoff": null, "value": 2}],
        "by_direction": {"map": {"de": {"de": 0.5, "en": 0.25}, "en": {"de": 1, "en": 0}}},
        "by_query_language": {"multilingual_map": {"de": 0.5, "en": 0.75}}}"#;
    let temperature = hbt::loss::LearnedTemperature::new(0.05).to_bits();
    format!(
        r#"{{"step": 3, "total_steps": 7, "complete": false, "data": "07", "eval_data": "0a",
        "settings": {{"batch_size": "4", "mode": "\"hybrid\"", "matryoshka_dims": "[16, 32]"}}, "instructions": "avx2",
        "before": {report}, "latest": [2, {report}], "best": [2, 0.5], "without_gain": 1, "temperature": {temperature:?}}}"#
    )
}

/// Good files for a reader.
fn seeds(name: &str) -> Vec<Vec<u8>> {
    let fixture =
        |file: &str| fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bert").join(file)).unwrap();
    let parallel = r#"{"id": "a", "query": {"en": "q", "ar": ["س", "x"]}, "positive": {"en": ["p"]}, "negatives": {"en": ["n"]}}
{"query": {"de": "f"}, "positive": {"de": "a"}, "pos_scores": {"de": [0.5]}}
"#;
    let flat = r#"{"query_id": 7, "query": "q", "positive_passages": [{"docid": "1", "title": "T", "text": "p"}], "negatives": ["n"]}
{"anchor": "q", "positive": "p", "negative_1": "n", "negative_2": "m", "lang": "en", "scores": [0.5, 0.25, 0]}
{"query": ["Ask", "q"], "pos": ["Say", "p"], "neg": ["Say", "n"], "task_name": "x"}
"#;
    let labels = "{\"query\": \"q\", \"answer\": [\"p\", \"n\"], \"labels\": [1, 0]}\n[{\"query\": \"q\"}]\n";
    match name {
        "rows" => vec![parallel.into(), flat.into(), labels.into(), "[{\"query\": \"q\", \"pos\": \"p\"}]".into()],
        "columns" => vec!["query,positive,negatives\n\"a\nb\",p,\"[\"\"n\"\"]\"\n".into(), "q\tp\tn\nr\ts\tt\n".into()],
        "packed" => vec![gzip(flat), zstd::encode_all(flat.as_bytes(), 1).unwrap()],
        "parquet" => vec![parquet_of_pairs()],
        "arrow" => {
            let file = "../datasets/saved/train/data-00000-of-00002.arrow";
            vec![fixture(file), arrow_with_footer(&fixture(file))]
        }
        "tables" => vec!["1\t11\t12\n2\t12\t13\n---\n1\tone?\n2\ttwo?\n---\n11\tone\n12\ttwo\n13\tthree\n".into()],
        "squad" => vec![SQUAD.into()],
        "split" => vec![r#"{"train": ["T"], "test": ["U"], "validation": []}"#.into()],
        "judgements" => vec!["query-id\tcorpus-id\tscore\nq\td\t1\nq\te\t0\n".into(), "q 0 d 1\n".into()],
        "task_rows" => vec![
            "{\"_id\": \"a\", \"text\": \"one\", \"title\": \"T\", \"query-id\": \"b\", \"corpus-id\": \"c\", \"score\": 1, \
             \"corpus-ids\": [\"a\"], \"instruction\": \"Find\"}\n{\"_id\": \"b\", \"text\": \" two\", \"query-id\": \"a\", \
             \"corpus-id\": \"b\", \"score\": \"2\", \"corpus-ids\": [], \"instruction\": null}\n"
                .into(),
        ],
        "task_parquet" => vec![parquet_of_task()],
        "toml" | "sampler" => {
            vec![hbt::config::Config::default().to_toml().into(), "[[datasets]]\ndata = 'a'\nweight = 2\n".into()]
        }
        "model_config" => vec![fixture("config.json")],
        "tokenizer" => vec![fixture("tokenizer.json")],
        "safetensors" => {
            let header = r#"{"a": {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]}, "b": {"dtype": "F16", "shape": [1], "data_offsets": [8, 10]}}"#;
            vec![[&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 10]].concat()]
        }
        "cache" => vec![fs::read(bodies::cache_of(TempDir::new().unwrap().path()).path()).unwrap()],
        "state" => vec![state().into()],
        "metrics" => vec![
            "{\"step\":0,\"task\":\"parallel\",\"map\":null}\n{\"step\":1}\n{\"step\":1,\"task\":\"parallel\"}\n{\"step\":2}\n".into(),
            "{\"step\":1,\"loss\":0.5}\n{\"step\":2,\"loss\":0.25}\n{\"step\":3}\n{\"step\":4}\n".into(),
        ],
        "mteb_result" => {
            let dir = TempDir::new().unwrap();
            let (folder, result) = bodies::mteb_result_of(dir.path());
            vec![fs::read(folder.result_path(&result.task_name)).unwrap()]
        }
        "report" => {
            let state: serde_json::Value = serde_json::from_str(&state()).unwrap();
            let pair = serde_json::json!({"before": state["before"], "after": state["latest"][1]});
            let lines = "{\"step\":0,\"task\":\"parallel\",\"multilingual_map\":0.25}\n{\"step\":1,\"loss\":0.5}\n{\"step\":2,\"loss\":1e3}\n";
            let entry = |subset: &str| {
                serde_json::json!({"ndcg_at_10": 0.5, "og": {"map_at_1": 1}, "main_score": 0.5, "hf_subset": subset, "languages": ["deu-Latn"]})
            };
            let pairs = ["a-a", "a-b", "b-a", "b-b", "a-c", "b-c"].map(entry);
            let task = serde_json::json!({"dataset_revision": "1", "task_name": "STS17", "mteb_version": "2", "scores": {"test": pairs},
                "hbt": {"model": "a/b", "revision": "1", "settings": {"precision": "f32"}, "xxh3_128": ""}});
            let several = serde_json::json!({"results": [task, state["before"]]});
            let own: [String; 4] = [&state["before"], &pair, &task, &several].map(ToString::to_string);
            let others = [lines.to_owned(), "a = 1\n[b]\nc = 'd'\n".to_owned()];
            own.into_iter().chain(others).map(String::into_bytes).collect()
        }
        "npy" => {
            let dict = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n";
            let head = [b"\x93NUMPY\x01\x00".as_slice(), &(dict.len() as u16).to_le_bytes()].concat();
            vec![[&head, dict.as_bytes(), &[0; 24]].concat()]
        }
        other => panic!("no seed for {other}"),
    }
}

#[test]
fn readers_say_one_thing_of_broken_input() {
    let of_all: Option<u64> =
        std::env::var("HBT_MUTATIONS").ok().map(|n| n.parse().expect("HBT_MUTATIONS is a number"));
    let n_of_each = of_all.map_or(N_OF_EACH, |n| n.div_ceil(BODIES.len() as u64));
    for (kind, (name, body)) in (0..).zip(BODIES) {
        let seeds = seeds(name);
        for seed in &seeds {
            body(TempDir::new().unwrap().path(), seed);
        }
        for number in 0..n_of_each {
            let mut random = Random(kind << 32 | number);
            let input = mutated(&seeds[random.below(seeds.len())], &mut random);
            let dir = TempDir::new().unwrap();
            let result = std::panic::catch_unwind(|| body(dir.path(), &input));
            assert!(result.is_ok(), "{name}, input {number}: {:?}", String::from_utf8_lossy(&input));
        }
    }
}
