//! Hub ids: the cache's layout, the offline rules, and a hub of two files on this machine.

use super::tiny::{Tiny, load_all};
use hbt::model_dir::hub::Hub;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

const MODEL: &str = "org/tiny-model";
const SHA: &str = "0123456789abcdef0123456789abcdef01234567";

fn hub(cache: &Path, offline: bool, endpoint: &str) -> Hub {
    Hub { cache: Some(cache.to_owned()), offline, endpoint: Some(endpoint.to_owned()), token: None }
}

/// A port that nobody listens at.
const NOWHERE: &str = "http://127.0.0.1:9";

/// Puts the files of `tiny` into a cache as the Python libraries lay it out.
fn fill_cache(cache: &Path, tiny: &Tiny) -> PathBuf {
    let model = cache.join("models--org--tiny-model");
    let snapshot = model.join("snapshots").join(SHA);
    fs::create_dir_all(model.join("refs")).unwrap();
    fs::write(model.join("refs/main"), SHA).unwrap();
    for (name, bytes) in files(tiny.dir(), "") {
        fs::create_dir_all(snapshot.join(&name).parent().unwrap()).unwrap();
        fs::write(snapshot.join(name), bytes).unwrap();
    }
    snapshot
}

fn files(directory: &Path, prefix: &str) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
        if path.is_dir() {
            found.extend(files(&path, &format!("{name}/")));
        } else {
            found.insert(name, fs::read(&path).unwrap());
        }
    }
    found
}

/// A hub that serves one model until the test ends, and the paths it was asked for.
struct LocalHub {
    endpoint: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl LocalHub {
    fn start(files: BTreeMap<String, Vec<u8>>) -> LocalHub {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = requests.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that went away is no matter of this test.
                let _ = answer(stream.unwrap(), &files, &log);
            }
        });
        LocalHub { endpoint, requests }
    }

    fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }
}

/// Answers one request with the headers of the real hub that hf-hub needs.
fn answer(mut stream: TcpStream, files: &BTreeMap<String, Vec<u8>>, log: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut start = 0;
    for line in lines {
        let line = line?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(range) = line.strip_prefix("range: bytes=") {
            start = range.split('-').next().unwrap().parse().unwrap();
        }
    }
    log.lock().unwrap().push(path.clone());
    let siblings: Vec<_> = files.keys().map(|name| json!({ "rfilename": name })).collect();
    let info = json!({ "siblings": siblings, "sha": SHA }).to_string().into_bytes();
    let body = if path == format!("/api/models/{MODEL}/revision/main") {
        Some(&info)
    } else {
        path.strip_prefix(&format!("/{MODEL}/resolve/{SHA}/")).and_then(|name| files.get(name))
    };
    let Some(body) = body else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    // The blob's name in the cache: any text that differs from file to file.
    let etag = path.replace('/', "-");
    let (len, total) = (body.len() - start, body.len());
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {len}\r\nContent-Range: bytes {start}-{}/{total}\r\nETag: \"{etag}\"\r\n\
         X-Repo-Commit: {SHA}\r\nConnection: close\r\n\r\n",
        total - 1
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body[start..])
}

#[test]
fn an_existing_directory_is_itself() {
    let tiny = Tiny::plain();
    let path = tiny.dir().to_str().unwrap();
    assert_eq!(hub(tiny.dir(), true, NOWHERE).resolve(path).unwrap(), tiny.dir());
}

#[test]
fn what_looks_like_a_path_is_not_looked_up() {
    let cache = tempfile::tempdir().unwrap();
    let served = LocalHub::start(BTreeMap::new());
    for path in
        ["./org/model", "/no/such/model", "../absent", "a/b/c", "model", "org/", "/model", "org/mo del", "org/.."]
    {
        let message = hub(cache.path(), false, &served.endpoint).resolve(path).unwrap_err().to_string();
        assert!(message.starts_with(&format!("{path}: no such directory")), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }
    assert_eq!(served.requests(), Vec::<String>::new());
}

#[test]
fn a_complete_model_in_the_cache_needs_no_request() {
    let cache = tempfile::tempdir().unwrap();
    let snapshot = fill_cache(cache.path(), &Tiny::sentence_transformers());
    let served = LocalHub::start(BTreeMap::new());
    for offline in [false, true] {
        assert_eq!(hub(cache.path(), offline, &served.endpoint).resolve(MODEL).unwrap(), snapshot);
    }
    assert_eq!(served.requests(), Vec::<String>::new());
}

#[test]
fn without_a_network_the_cache_has_to_do() {
    let cache = tempfile::tempdir().unwrap();
    // No modules.json: nobody knows whether the hub has one.
    let snapshot = fill_cache(cache.path(), &Tiny::plain());
    assert_eq!(hub(cache.path(), true, NOWHERE).resolve(MODEL).unwrap(), snapshot);
    assert_eq!(hub(cache.path(), false, NOWHERE).resolve(MODEL).unwrap(), snapshot);
}

#[test]
fn what_is_neither_cached_nor_reachable_is_an_error_with_a_remedy() {
    let cache = tempfile::tempdir().unwrap();
    let message = |offline| hub(cache.path(), offline, NOWHERE).resolve(MODEL).unwrap_err().to_string();
    let offline = message(true);
    assert!(offline.starts_with("org/tiny-model: no such directory, and HF_HUB_OFFLINE is set"), "{offline}");
    assert!(offline.contains("unset HF_HUB_OFFLINE"), "{offline}");
    let unreachable = message(false);
    assert!(
        unreachable.starts_with("org/tiny-model: no such directory, and the hub cannot be reached"),
        "{unreachable}"
    );
    assert!(unreachable.contains("check the network, or give a directory"), "{unreachable}");
    // A Dense module that is promised and not there would be missing from every embedding.
    let snapshot = fill_cache(cache.path(), &Tiny::sentence_transformers());
    fs::remove_file(snapshot.join("2_Dense/model.safetensors")).unwrap();
    assert!(message(true).contains("does not have all of it"));
}

#[test]
fn a_model_is_fetched_once_and_then_read_from_the_cache() {
    let tiny = Tiny::sentence_transformers();
    for name in ["model.fp16.safetensors", "pytorch_model.bin", "onnx/config.json"] {
        tiny.json(name, &json!("not for hbt"));
    }
    let cache = tempfile::tempdir().unwrap();
    let served = LocalHub::start(files(tiny.dir(), ""));
    let hub = hub(cache.path(), false, &served.endpoint);
    let snapshot = hub.resolve(MODEL).unwrap();
    assert_eq!(load_all(&snapshot), load_all(tiny.dir()));
    let requests = served.requests();
    assert!(!requests.iter().any(|path| path.contains("fp16") || path.contains(".bin") || path.contains("onnx")));
    assert_eq!(hub.resolve(MODEL).unwrap(), snapshot);
    assert_eq!(served.requests(), Vec::<String>::new());
    // A run killed during its first fetch goes on with what is missing.
    fs::remove_file(snapshot.join("1_Pooling/config.json")).unwrap();
    fs::remove_file(cache.path().join("models--org--tiny-model/refs/main")).unwrap();
    assert_eq!(hub.resolve(MODEL).unwrap(), snapshot);
    let fetched = served.requests().into_iter().filter(|path| path.contains("/resolve/")).collect::<Vec<_>>();
    assert!(!fetched.is_empty() && fetched.iter().all(|path| path.ends_with("/1_Pooling/config.json")), "{fetched:?}");
}

#[test]
fn shards_are_fetched() {
    let tiny = Tiny::plain();
    let weights = fs::read(tiny.path("model.safetensors")).unwrap();
    fs::remove_file(tiny.path("model.safetensors")).unwrap();
    fs::write(tiny.path("model-00001-of-00001.safetensors"), weights).unwrap();
    let name = "model-00001-of-00001.safetensors";
    let weight_map: serde_json::Map<_, _> = super::tiny::tensors().into_keys().map(|key| (key, name.into())).collect();
    tiny.json("model.safetensors.index.json", &json!({ "weight_map": weight_map }));
    let cache = tempfile::tempdir().unwrap();
    let served = LocalHub::start(files(tiny.dir(), ""));
    let snapshot = hub(cache.path(), false, &served.endpoint).resolve(MODEL).unwrap();
    assert_eq!(load_all(&snapshot), load_all(tiny.dir()));
}

#[test]
fn the_hubs_refusals_are_told() {
    let cache = tempfile::tempdir().unwrap();
    let served = LocalHub::start(BTreeMap::new());
    let hub = hub(cache.path(), false, &served.endpoint);
    let message = hub.resolve("org/other").unwrap_err().to_string();
    assert!(message.starts_with("org/other: no such directory, and the hub does not show such a model"), "{message}");
    assert!(message.contains("HF_TOKEN"), "{message}");
    let message = hub.resolve(MODEL).unwrap_err().to_string();
    assert!(message.contains("no safetensors weights"), "{message}");
}

#[test]
fn variables_are_those_of_the_python_libraries() {
    let cache = |vars: &[(&str, &str)]| {
        let vars: BTreeMap<&str, &str> = vars.iter().copied().collect();
        Hub::from_vars(|name| vars.get(name).map(|value| (*value).to_owned())).cache.unwrap()
    };
    assert_eq!(cache(&[("HF_HOME", "/h")]), Path::new("/h/hub"));
    assert_eq!(cache(&[("XDG_CACHE_HOME", "/x")]), Path::new("/x/huggingface/hub"));
    assert_eq!(cache(&[("HF_HOME", "/h"), ("HUGGINGFACE_HUB_CACHE", "/c")]), Path::new("/c"));
    assert_eq!(cache(&[("HF_HUB_CACHE", "/d"), ("HUGGINGFACE_HUB_CACHE", "/c")]), Path::new("/d"));
    for (value, offline) in [("1", true), ("true", true), ("YES", true), ("0", false), ("", false)] {
        let hub = Hub::from_vars(|name| (name == "HF_HUB_OFFLINE").then(|| value.to_owned()));
        assert_eq!(hub.offline, offline, "{value:?}");
    }
}
