//! Retrieval tasks from the command line: numbers against a checker of its own, on embeddings whose scores are exact; what is
//! kept, gone on from and written; and what is refused.

mod checker;
mod outputs;

use crate::common::{Sandbox, fixture, jsonl};
use checker::{Judged, numbers};
use hbt::npy::NpyWriter;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Entries of an embedding, 16 of which are 1 or -1: its length is 4, and cosines are multiples of 1/16 in any arithmetic.
const DIM: usize = 48;

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    fn embedding(&mut self) -> Vec<f32> {
        let mut values = vec![0.0; DIM];
        while values.iter().filter(|x| **x != 0.0).count() < 16 {
            let at = self.below(DIM);
            values[at] = if self.below(2) == 0 { 1.0 } else { -1.0 };
        }
        values
    }
}

/// A subset with embeddings.
struct Subset {
    name: &'static str,
    queries: Vec<(String, Vec<f32>)>,
    documents: Vec<(String, Vec<f32>)>,
    /// Query, document, grade.
    judgements: Vec<(String, String, i32)>,
    candidates: Option<BTreeMap<String, Vec<String>>>,
}

impl Subset {
    fn new(name: &'static str, seed: u64, n_queries: usize, n_documents: usize) -> Self {
        let mut random = Random(seed);
        let queries: Vec<_> = (0..n_queries).map(|i| (format!("q{i}"), random.embedding())).collect();
        // One document in ten has the embedding of another one, so that whole scores tie.
        let mut documents: Vec<(String, Vec<f32>)> = Vec::new();
        for i in 0..n_documents {
            let again = (i > 0 && random.below(10) == 0).then(|| documents[random.below(i)].1.clone());
            documents.push((format!("d{i}"), again.unwrap_or_else(|| random.embedding())));
        }
        let mut judgements = Vec::new();
        // The last query is not judged, the first one's documents are all worth nothing.
        for (i, (query, _)) in queries[..n_queries - 1].iter().enumerate() {
            for _ in 0..1 + random.below(4) {
                let document = documents[random.below(n_documents)].0.clone();
                let grade = if i == 0 { 0 } else { random.below(4) as i32 - 1 };
                if !judgements.iter().any(|(q, d, _)| q == query && *d == document) {
                    judgements.push((query.clone(), document, grade));
                }
            }
        }
        judgements.push(("q1".to_owned(), "nowhere".to_owned(), 2));
        Subset { name, queries, documents, judgements, candidates: None }
    }

    fn with_candidates(mut self) -> Self {
        let mut random = Random(77);
        let candidates = self.queries.iter().map(|(query, _)| {
            let mut of: Vec<String> = Vec::new();
            for _ in 0..20 {
                let document = &self.documents[random.below(self.documents.len())].0;
                if !of.contains(document) {
                    of.push(document.clone());
                }
            }
            (query.clone(), of)
        });
        self.candidates = Some(candidates.collect());
        self
    }

    fn rows(of: &[(String, Vec<f32>)]) -> Vec<Value> {
        of.iter().map(|(id, _)| json!({"_id": id, "text": format!("text of {id}")})).collect()
    }

    /// Writes BEIR's layout into `data/NAME`, or the hub's into `data`, and the embeddings.
    fn write(&self, sandbox: &Sandbox, layout: &str) {
        let grade = |(query, document, grade): &(String, String, i32)| (query.clone(), document.clone(), *grade);
        let judgements: Vec<_> = self.judgements.iter().map(grade).collect();
        if layout == "beir" {
            sandbox.write(&format!("beir/{}/corpus.jsonl", self.name), jsonl(&Self::rows(&self.documents)));
            sandbox.write(&format!("beir/{}/queries.jsonl", self.name), jsonl(&Self::rows(&self.queries)));
            let lines = judgements.iter().map(|(query, document, grade)| format!("{query}\t{document}\t{grade}\n"));
            let text = "query-id\tcorpus-id\tscore\n".to_owned() + &lines.collect::<String>();
            sandbox.write(&format!("beir/{}/qrels/test.tsv", self.name), text);
        } else {
            let write = |part: &str, rows: &[Value]| {
                sandbox.write(&format!("hub/{}-{part}/test.jsonl", self.name), jsonl(rows));
            };
            write("corpus", &Self::rows(&self.documents));
            write("queries", &Self::rows(&self.queries));
            let row = |(query, document, grade): &(String, String, i32)| json!({"query-id": query, "corpus-id": document, "score": grade});
            write("qrels", &judgements.iter().map(row).collect::<Vec<_>>());
            if let Some(candidates) = &self.candidates {
                let row = |(query, ids): (&String, &Vec<String>)| json!({"query-id": query, "corpus-ids": ids});
                write("top_ranked", &candidates.iter().map(row).collect::<Vec<_>>());
            }
        }
        for (side, of) in [("queries", &self.queries), ("corpus", &self.documents)] {
            std::fs::create_dir_all(sandbox.path("emb")).unwrap();
            let path = sandbox.path(&format!("emb/{}.{side}.npy", self.name));
            let mut file = NpyWriter::create(path, DIM).unwrap();
            of.iter().for_each(|(_, values)| file.write_rows(values).unwrap());
            file.finish().unwrap();
        }
    }

    fn expected(&self) -> BTreeMap<String, f64> {
        let judged = |query: &(String, Vec<f32>)| -> Option<Judged> {
            let of_query = self.judgements.iter().filter(|(id, ..)| *id == query.0);
            let grades: BTreeMap<&str, i32> =
                of_query.map(|(_, document, grade)| (document.as_str(), *grade)).collect();
            let candidates = self.candidates.as_ref().map(|all| &all[&query.0]);
            let score = |values: &[f32]| values.iter().zip(&query.1).map(|(a, b)| a * b / 16.0).sum::<f32>();
            let documents = self.documents.iter().filter(|(id, _)| candidates.is_none_or(|of| of.contains(id)));
            let scores = documents.map(|(id, values)| (score(values), id.as_str())).collect();
            (!grades.is_empty()).then_some(Judged { scores, grades })
        };
        let judged: Vec<Judged> = self.queries.iter().filter_map(judged).collect();
        assert!(judged.len() < self.queries.len());
        numbers(&judged)
    }
}

/// The entries of a result by subset.
fn entries(result: &Value) -> BTreeMap<String, Value> {
    let entries = result["scores"]["test"].as_array().unwrap();
    entries.iter().map(|entry| (entry["hf_subset"].as_str().unwrap().to_owned(), entry.clone())).collect()
}

/// Every number of every subset, from both layouts.
#[test]
fn given_embeddings_have_mtebs_numbers() {
    let small = || Subset::new("small", 1, 40, 30);
    let large = || Subset::new("large", 2, 60, 1300);
    for (layout, subsets) in [
        ("beir", vec![small(), large()]),
        ("hub", vec![small(), large(), Subset::new("rerank", 3, 25, 200).with_candidates()]),
    ] {
        let sandbox = Sandbox::new();
        subsets.iter().for_each(|subset| subset.write(&sandbox, layout));
        let args = ["eval", "--task", "retrieval", "--data", layout, "--embeddings", "emb", "--json", "out.json"];
        sandbox.hbt(&args).ok();
        let result = sandbox.json("out.json");
        let entries = entries(&result);
        assert_eq!(entries.len(), subsets.len());
        for subset in &subsets {
            let entry = entries[subset.name].as_object().unwrap();
            let expected = subset.expected();
            let no_numbers = ["main_score", "hf_subset", "languages", "mteb_version"];
            let names = entry.keys().filter(|name| !no_numbers.contains(&name.as_str()));
            assert_eq!(names.count(), expected.len(), "{layout} {}", subset.name);
            let mut n_specified = 0;
            for (name, &expected) in &expected {
                // What mteb leaves to chance: the cut behind 1000 through equal scores, and nAUC where all queries are alike.
                if expected.is_infinite() || (subset.name == "large" && name.contains("_1000")) {
                    continue;
                }
                n_specified += 1;
                let got = entry[name].as_f64().unwrap_or(f64::NAN);
                assert_eq!(got.to_bits(), expected.to_bits(), "{layout} {} {name}: {got}, {expected}", subset.name);
            }
            assert!(n_specified > 90, "{n_specified}");
            assert_eq!(entry["main_score"], entry["ndcg_at_10"]);
        }
    }
}

const TOPICS: [&str; 8] = ["rivers", "bridges", "poems", "winters", "birds", "maps", "clocks", "mills"];

/// A corpus that several subsets share, each with queries of its own.
pub fn write_texts(sandbox: &Sandbox, n_documents: usize, subsets: &[&str]) {
    let topic = |i: usize| TOPICS[i % TOPICS.len()];
    let document = |i: usize| json!({"_id": format!("d{i}"), "title": topic(i), "text": format!("number {i} of many")});
    let documents: Vec<Value> = (0..n_documents).map(document).collect();
    for (number, subset) in subsets.iter().enumerate() {
        sandbox.write(&format!("data/{subset}/corpus.jsonl"), jsonl(&documents));
        let query = |i: usize| json!({"_id": format!("q{i}"), "text": format!("{} {}", topic(i), i + 100 * number)});
        sandbox.write(&format!("data/{subset}/queries.jsonl"), jsonl(&(0..5).map(query).collect::<Vec<_>>()));
        let judgements: String = (0..5).map(|i| format!("q{i}\td{}\t1\n", i * 3)).collect();
        sandbox
            .write(&format!("data/{subset}/qrels/test.tsv"), "query-id\tcorpus-id\tscore\n".to_owned() + &judgements);
    }
}

pub fn eval<'a>(model: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let args = ["eval", "--task", "retrieval", "--data", "data", "--model", model, "--precision", "f32"];
    [&args[..], more].concat()
}

/// The line that says how many texts were asked for and embedded.
pub fn n_embedded(stderr: &str) -> (u64, u64) {
    let line = stderr.lines().find(|line| line.contains(" texts, of which ")).unwrap_or_else(|| panic!("{stderr}"));
    let numbers: Vec<u64> = line.split([' ', ',']).filter_map(|word| word.parse().ok()).collect();
    (numbers[0], numbers[1])
}

pub fn without_times(mut result: Value) -> Value {
    for key in ["evaluation_time", "date", "evaluation_phases", "hbt"] {
        result.as_object_mut().unwrap().remove(key).unwrap();
    }
    result
}

#[test]
fn a_text_is_embedded_once() {
    let sandbox = Sandbox::new();
    write_texts(&sandbox, 50, &["de", "en"]);
    let model = fixture("bert");
    let first = sandbox.hbt(&eval(&model, &["--json", "first.json"])).ok();
    assert_eq!(n_embedded(&first.stderr), (110, 60));
    let again = sandbox.hbt(&eval(&model, &["--json", "again.json"])).ok();
    assert_eq!(n_embedded(&again.stderr), (110, 0));
    let anew = sandbox.hbt(&eval(&model, &["--json", "anew.json", "--no-cache"])).ok();
    assert_eq!(n_embedded(&anew.stderr), (110, 110));
    let results = ["first", "again", "anew"].map(|name| without_times(sandbox.json(&format!("{name}.json"))));
    assert!(results[0] == results[1] && results[0] == results[2]);
    // Another prefix makes other texts.
    let prefix = ["--set", "passage_prefix=text: "];
    assert_eq!(n_embedded(&sandbox.hbt(&eval(&model, &prefix)).ok().stderr), (110, 50));
    let selected = sandbox.hbt(&eval(&model, &["--languages", "de"])).ok();
    assert_eq!(n_embedded(&selected.stderr), (55, 0));
}

#[test]
fn saved_embeddings_are_judged_as_the_model() {
    let sandbox = Sandbox::new();
    write_texts(&sandbox, 50, &["de", "en"]);
    let saving = ["--save-embeddings", "emb", "--json", "model.json", "--runs", "runs", "--predictions", "predictions"];
    sandbox.hbt(&eval(&fixture("bert"), &saving)).ok();
    let args = ["eval", "--task", "retrieval", "--data", "data", "--embeddings", "emb", "--json", "given.json"];
    sandbox.hbt(&args).ok();
    let results = ["model", "given"].map(|name| without_times(sandbox.json(&format!("{name}.json"))));
    assert!(results[0] == results[1]);
    // Rankings as TREC has them and as mteb does are the same.
    let run = sandbox.read("runs/data/de.test.trec");
    let predictions = sandbox.json("predictions/data_predictions.json");
    assert_eq!(run.lines().count(), 5 * 50);
    for line in run.lines() {
        let [query, _, document, rank, score, _] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let score: f32 = score.parse().unwrap();
        assert!((1..=50).contains(&rank.parse::<u32>().unwrap()));
        assert_eq!(predictions["de"]["test"][query][document].as_f64().unwrap() as f32, score);
    }
    // Files of other data are refused.
    write_texts(&sandbox, 51, &["de", "en"]);
    let error = sandbox.hbt(&args).error();
    assert!(
        error.ends_with("emb/de.corpus.npy: has 50 rows, and row 51 is wanted; it belongs to other texts"),
        "{error}"
    );
    write_texts(&sandbox, 49, &["de", "en"]);
    let error = sandbox.hbt(&args).error();
    assert!(
        error.ends_with("emb/de.corpus.npy: has 50 rows; the data has 49, and each document has its row"),
        "{error}"
    );
}

/// Pages and comparisons of results in mteb's form, of files and of a directory with two models.
#[test]
fn results_are_shown_and_compared() {
    let sandbox = Sandbox::new();
    write_texts(&sandbox, 50, &["de", "en"]);
    let (bert, labse) = (fixture("bert"), fixture("labse"));
    let first = sandbox.hbt(&eval(&bert, &["--results", "out", "--json", "a.json", "--report", "a.html"])).ok();
    assert!(first.stderr.contains("out/report.html: curves and figures, for a browser"), "{}", first.stderr);
    let page = sandbox.read("a.html");
    assert!(page.contains("<h1>local/bert</h1>") && page.contains("<tr><td>de<td class=n>"), "{page}");
    let of_both = entries(&sandbox.json("a.json"));
    let mean = of_both.values().map(|entry| entry["main_score"].as_f64().unwrap()).sum::<f64>() / 2.0;
    assert!(page.contains(&format!("<td><strong>mean</strong><td class=n>{mean:.4}<td")), "{mean}: {page}");
    sandbox.hbt(&eval(&labse, &["--results", "out", "--json", "b.json", "--languages", "de"])).ok();
    let of_both = sandbox.read("out/report.html");
    assert!(of_both.contains("<h1>local/bert, local/labse</h1>"), "{of_both}");
    assert!(of_both.contains("Means are over the 1 of 2 subsets that all models have."), "{of_both}");
    sandbox.hbt(&["report", "out", "--output", "again.html"]).ok();
    assert!(sandbox.read("again.html") == of_both);

    let score = |name: &str| entries(&sandbox.json(name))["de"]["main_score"].as_f64().unwrap();
    let (a, b) = (score("a.json"), score("b.json"));
    let compared = sandbox.hbt(&["compare", "a.json", "b.json"]).ok().stdout;
    let row = compared.lines().find(|line| line.starts_with("data ")).unwrap_or_else(|| panic!("{compared}"));
    let cells: Vec<&str> = row.split_whitespace().skip(1).map(|cell| cell.trim_end_matches('*')).collect();
    assert_eq!(cells, [format!("{a:.4}"), format!("{b:.4}"), format!("{:+.4}", b - a)]);
    assert!(
        compared.ends_with("no intervals: results in mteb's form have no values of single queries\n"),
        "{compared}"
    );
    let of_directory = sandbox.hbt(&["compare", "out"]).ok().stdout;
    assert!(of_directory.contains("columns with -: local/labse minus the other\n"), "{of_directory}");

    // A report of hbt's own task is of another kind, and a page of others stays.
    sandbox.write("rows.jsonl", jsonl(&[json!({"id": "1", "lang": "de", "query": "wer", "positive": "er"})]));
    sandbox.hbt(&["eval", "--model", &bert, "--task", "parallel", "--data", "rows.jsonl", "--json", "own.json"]).ok();
    let mixed = sandbox.hbt(&["compare", "own.json", "b.json"]).error();
    let expected =
        "error: own has a report on parallel, b has a result of mteb's form (data): evaluate all on the same task";
    assert_eq!(mixed, expected);
    sandbox.write("mine.html", "<html>mine</html>");
    let foreign = sandbox.hbt(&eval(&bert, &["--report", "mine.html"])).error();
    assert!(foreign.starts_with("error: --report: mine.html is there already, and does not look like"), "{foreign}");
    sandbox.write("out/report.html", "<html>mine</html>");
    let kept = sandbox.hbt(&eval(&bert, &["--results", "out"])).ok();
    assert!(kept.stderr.contains("warning: no report was written: out/report.html: is not hbt's"), "{}", kept.stderr);
}

#[test]
fn a_finished_subset_is_not_computed_again() {
    let sandbox = Sandbox::new();
    write_texts(&sandbox, 50, &["de", "en"]);
    let model = fixture("bert");
    sandbox.hbt(&eval(&model, &["--results", "out", "--languages", "de"])).ok();
    let all = sandbox.hbt(&eval(&model, &["--results", "out"])).ok();
    assert!(all.stderr.contains("data: de (test) is there already"), "{}", all.stderr);
    let files = || crate::common::files(&sandbox.path("out/results"));
    let before = files();
    assert_eq!(before.len(), 2);
    let again = sandbox.hbt(&eval(&model, &["--results", "out"])).ok();
    assert_eq!(n_embedded(&again.stderr), (0, 0));
    assert!(files() == before);
    // Other data, other settings: all anew.
    write_texts(&sandbox, 51, &["de", "en"]);
    let other = sandbox.hbt(&eval(&model, &["--results", "out"])).ok();
    assert!(other.stderr.contains("data: all is computed again: dataset's revision was "), "{}", other.stderr);
    let other = sandbox.hbt(&eval(&model, &["--results", "out", "--set", "query_prefix=q: "])).ok();
    assert!(other.stderr.contains("data: all is computed again: queries was "), "{}", other.stderr);
}

/// `kill -9` again and again: what was embedded and written is not embedded again, and the end is that of an undisturbed run.
#[test]
fn a_killed_evaluation_goes_on() {
    let sandbox = Sandbox::new();
    write_texts(&sandbox, 12_000, &["de", "en"]);
    let model = fixture("bert");
    let start = Instant::now();
    let undisturbed = sandbox.hbt(&eval(&model, &["--json", "whole.json", "--results", "whole", "--no-cache"])).ok();
    let whole = start.elapsed();
    assert_eq!(n_embedded(&undisturbed.stderr).0, 24_010);
    let rows = || {
        let stores = std::fs::read_dir(sandbox.path("cache/embeddings")).into_iter().flatten();
        let keys = stores.filter_map(|store| std::fs::metadata(store.unwrap().path().join("keys")).ok());
        keys.map(|keys| keys.len() / 32).sum::<u64>()
    };
    let mut kept = vec![rows()];
    let mut random = Random(9);
    while kept.len() <= 10 {
        let args = eval(&model, &["--json", "killed.json", "--results", "out"]);
        let mut child = sandbox.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(random.below(whole.as_micros() as usize / 8) as u64));
        child.kill().unwrap();
        if child.wait().unwrap().success() {
            break;
        }
        kept.push(rows());
    }
    assert!(kept.is_sorted() && kept.len() > 5, "{kept:?}");
    let done = sandbox.hbt(&eval(&model, &["--json", "killed.json", "--results", "out"])).ok();
    let (before, after) = (kept[kept.len() - 1], rows());
    assert_eq!(after, 12_010, "each text once");
    assert_eq!(n_embedded(&done.stderr).1, after - before);
    assert!(without_times(sandbox.json("killed.json")) == without_times(sandbox.json("whole.json")));
}

#[test]
fn what_cannot_be_evaluated_is_refused() {
    let sandbox = Sandbox::new();
    write_texts(&sandbox, 20, &["de"]);
    let wrong_usage = |args: &[&str]| {
        let done = sandbox.hbt(args);
        assert_eq!(done.code, Some(2), "{}", done.stderr);
        done.stderr
    };
    let unknown = wrong_usage(&["eval", "--task", "MLQARetreival"]);
    assert!(unknown.contains("there is no task \"MLQARetreival\"; did you mean MLQARetrieval?"), "{unknown}");
    let unable = wrong_usage(&["eval", "--task", "AmazonCounterfactualClassification"]);
    assert!(unable.contains("there is no task"), "{unable}");
    let languages = sandbox.hbt(&["eval", "--task", "retrieval", "--data", "data", "--languages", "fr"]).error();
    assert!(languages.ends_with("data: none of its subsets is in fr alone (--languages); there is de"), "{languages}");
    let idle = wrong_usage(&["eval", "--task", "xquad-r", "--results", "out"]);
    assert!(idle.contains("--results is for retrieval over a corpus"), "{idle}");
    let offline = sandbox.hbt(&["eval", "--task", "ArguAna"]).error();
    assert!(offline.contains("hf download --repo-type dataset mteb/arguana --revision c22ab2a5"), "{offline}");
    let split = sandbox.hbt(&["eval", "--data", "data", "--split", "train"]).error();
    assert!(split.ends_with("data: subset de has no split train; there is test"), "{split}");
    sandbox.write("other.json", "{\"scores\": 1}");
    let foreign = sandbox.hbt(&["eval", "--data", "data", "--json", "other.json"]).error();
    assert!(foreign.contains("does not look like an output of this command"), "{foreign}");
    assert!(!sandbox.path("out").exists());
}

/// Tasks of mteb's whose numbers follow from the texts alone: equal texts have equal embeddings.
#[test]
fn tasks_of_pairs_and_of_instructions() {
    let sandbox = Sandbox::new();
    let model = fixture("bert");
    let texts: Vec<String> = (0..12).map(|i| format!("{} {} {i}", TOPICS[i % 8], TOPICS[(i * 3 + 1) % 8])).collect();
    let number = |task: &str, data: &str, subset: &str, name: &str| {
        let args = ["eval", "--task", task, "--data", data, "--languages", "da,en", "--model", &model];
        sandbox.hbt(&[&args[..], &["--precision", "f32", "--json", "out.json", "--overwrite"]].concat()).ok();
        let result = sandbox.json("out.json");
        let entries = result["scores"]["test"].as_array().unwrap();
        let entry = entries.iter().find(|entry| entry["hf_subset"] == subset).unwrap_or_else(|| panic!("{subset}"));
        entry[name].as_f64().unwrap()
    };
    // Translations that are the very texts, and for every third one the text of the next.
    let translation = |i: usize| if i.is_multiple_of(3) { texts[i + 1].clone() } else { texts[i].clone() };
    let row = |i: usize| json!({"sentence1": texts[i], "sentence2": translation(i)});
    sandbox.write("bitext/test.jsonl", jsonl(&(0..12).map(row).collect::<Vec<_>>()));
    let accuracy = number("BornholmBitextMining", "bitext", "default", "accuracy");
    // Of eight texts each is there; half of them twice, where the last of the two is taken.
    assert!((0.333..=0.667).contains(&accuracy), "{accuracy}");

    // Similar where people say so; rows of another language say the opposite.
    let row = |lang: &'static str, i: usize| {
        let (same, other) = (texts[i].clone(), texts[(i + 5) % 12].clone());
        let is_same = i.is_multiple_of(2) == (lang == "en-en");
        json!({"lang": lang, "sentence1": texts[i], "sentence2": if is_same { same } else { other }, "score": 5 * ((i + 1) % 2)})
    };
    let rows = ["en-en", "en-de"].iter().flat_map(|lang| (0..12).map(move |i| row(lang, i)));
    sandbox.write("sts/test.jsonl", jsonl(&rows.collect::<Vec<_>>()));
    // Six ties on each side: ranks of equal cosines are shared, those of the others are not.
    assert!(number("STS17", "sts", "en-en", "cosine_spearman") > 0.8);

    let label = |i: usize| json!({"sent1": texts[i], "sent2": texts[(i + 5 * (i % 2)) % 12], "labels": (i + 1) % 2});
    sandbox.write("classes/test.jsonl", jsonl(&(0..12).map(label).collect::<Vec<_>>()));
    assert_eq!(number("SprintDuplicateQuestions", "classes", "default", "max_ap"), 1.0);

    // A change of the instruction that changes nothing.
    let write = |part: &str, rows: &[Value]| sandbox.write(&format!("turned/{part}/test.jsonl"), jsonl(rows));
    write("corpus", &(0..12).map(|i| json!({"_id": format!("d{i}"), "text": texts[i]})).collect::<Vec<_>>());
    let ids = ["q1-og", "q1-changed"];
    write("queries", &ids.map(|id| json!({"_id": id, "text": texts[0]})));
    write("instruction", &ids.map(|id| json!({"query-id": id, "instruction": "be brief"})));
    write("default", &ids.map(|id| json!({"query-id": id, "corpus-id": "d0", "score": 1})));
    let all: Vec<String> = (0..12).map(|i| format!("d{i}")).collect();
    write("top_ranked", &ids.map(|id| json!({"query-id": id, "corpus-ids": all})));
    write("qrel_diff", &[json!({"query-id": "q1", "corpus-ids": ["d3", "d7"]})]);
    assert_eq!(number("Core17InstructionRetrieval", "turned", "default", "p-MRR"), 0.0);
    let result = sandbox.json("out.json");
    let entry = &result["scores"]["test"][0];
    assert_eq!(entry["og"]["ndcg_at_10"], entry["changed"]["ndcg_at_10"]);
    sandbox.write("emb/default.queries.npy", "");
    let unpaired =
        sandbox.hbt(&["eval", "--task", "STS17", "--data", "sts", "--languages", "en", "--embeddings", "emb"]);
    assert!(unpaired.error().contains("this task is of pairs of texts"));
}
