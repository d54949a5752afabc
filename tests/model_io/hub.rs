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
use std::time::{Duration, Instant};

const MODEL: &str = "org/tiny-model";
pub const SHA: &str = "0123456789abcdef0123456789abcdef01234567";

pub fn hub(cache: &Path, offline: bool, endpoint: &str) -> Hub {
    Hub {
        cache: Some(cache.to_owned()),
        offline,
        endpoint: Some(endpoint.to_owned()),
        token: None,
        ..Hub::from_vars(|_| None)
    }
}

/// A port that nobody listens at.
pub const NOWHERE: &str = "http://127.0.0.1:9";

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

/// What a hub answers to a request before it answers well.
#[derive(Clone, Copy)]
pub enum Fault {
    /// A status, and a header.
    Status(u16, &'static str),
    /// Half of the body.
    Half,
    /// Nothing, and the connection ends.
    Nothing,
    /// A redirection to another path.
    To(&'static str),
}

/// A request: its path, the byte it begins at, and the token that it came with.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    path: String,
    start: usize,
    token: Option<String>,
}

/// A hub that serves one model, or a data set of the same name, until the test ends, and what it was asked for.
pub struct LocalHub {
    pub endpoint: String,
    requests: Arc<Mutex<Vec<Asked>>>,
    /// Faults of the next requests whose path contains a text.
    faults: Arc<Mutex<Vec<(&'static str, Fault)>>>,
}

impl LocalHub {
    fn start(files: BTreeMap<String, Vec<u8>>) -> LocalHub {
        LocalHub::of(MODEL, files)
    }

    pub fn of(model: &'static str, files: BTreeMap<String, Vec<u8>>) -> LocalHub {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (requests, faults) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let (log, due) = (requests.clone(), faults.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that went away is no matter of this test.
                let _ = answer(stream.unwrap(), model, &files, &log, &due);
            }
        });
        LocalHub { endpoint, requests, faults }
    }

    fn requests(&self) -> Vec<Asked> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }

    pub fn paths(&self) -> Vec<String> {
        self.requests().into_iter().map(|asked| asked.path).collect()
    }

    pub fn fault(&self, path: &'static str, fault: Fault) {
        self.faults.lock().unwrap().push((path, fault));
    }
}

/// Answers one request as the real hub does.
fn answer(
    mut stream: TcpStream,
    model: &str,
    files: &BTreeMap<String, Vec<u8>>,
    log: &Mutex<Vec<Asked>>,
    faults: &Mutex<Vec<(&'static str, Fault)>>,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let (mut start, mut token) = (None, None);
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        let lower = line.to_ascii_lowercase();
        if let Some(range) = lower.strip_prefix("range: bytes=") {
            start = Some(range.split('-').next().unwrap().parse().unwrap());
        }
        if lower.starts_with("authorization: ") {
            token = line.split_once(": ").map(|(_, token)| token.to_owned());
        }
    }
    log.lock().unwrap().push(Asked { path: path.clone(), start: start.unwrap_or(0), token });
    let fault = {
        let mut faults = faults.lock().unwrap();
        faults.iter().position(|(part, _)| path.contains(part)).map(|at| faults.remove(at).1)
    };
    let mut without_body = |status: &str, header: &str| {
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n{header}\r\n");
        stream.write_all(head.as_bytes())
    };
    match fault {
        Some(Fault::Nothing) => return Ok(()),
        Some(Fault::Status(status, "")) => return without_body(&format!("{status} Fault"), ""),
        Some(Fault::Status(status, header)) => {
            return without_body(&format!("{status} Fault"), &format!("{header}\r\n"));
        }
        Some(Fault::To(to)) => {
            let tag = format!("Location: {to}\r\nX-Linked-Etag: \"{:064x}\"\r\nETag: \"of-the-link\"\r\n", to.len());
            return without_body("302 Found", &tag);
        }
        Some(Fault::Half) | None => {}
    }
    let siblings: Vec<_> = files.keys().map(|name| json!({ "rfilename": name })).collect();
    let info = json!({ "siblings": siblings, "sha": SHA }).to_string().into_bytes();
    let lists = ["models", "datasets"].map(|kind| format!("/api/{kind}/{model}/revision/"));
    let revision = lists.iter().find_map(|list| path.strip_prefix(list));
    let body = if revision.is_some_and(|revision| ["main", SHA].contains(&revision)) {
        Some(&info)
    } else {
        let of_commit = format!("{model}/resolve/{SHA}/");
        let file = path.strip_prefix("/datasets/").or(path.strip_prefix('/')).unwrap_or_default();
        let name = file.strip_prefix(&of_commit).or(path.strip_prefix("/moved/"));
        name.and_then(|name| files.get(name))
    };
    let Some(body) = body else { return without_body("404 Not Found", "") };
    if start.is_some_and(|start| start >= body.len()) {
        return without_body("416 Range Not Satisfiable", "");
    }
    // The blob's name in the cache: any text that differs from file to file.
    let etag = path.replace('/', "-");
    let status = if start.is_some() { "206 Partial Content" } else { "200 OK" };
    let body = &body[start.unwrap_or(0)..];
    let len = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {len}\r\nETag: \"{etag}\"\r\nX-Repo-Commit: {SHA}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(if matches!(fault, Some(Fault::Half)) { &body[..len / 2] } else { body })
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
        ["./org/model", "/no/such/model", "../absent", "a/b/c", "mo del", "org/", "/model", "org/mo del", "org/.."]
    {
        let message = hub(cache.path(), false, &served.endpoint).resolve(path).unwrap_err().to_string();
        assert!(message.starts_with(&format!("{path}: no such directory")), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }
    assert_eq!(served.requests(), []);
}

#[test]
fn a_complete_model_in_the_cache_needs_no_request() {
    let cache = tempfile::tempdir().unwrap();
    let snapshot = fill_cache(cache.path(), &Tiny::sentence_transformers());
    let served = LocalHub::start(BTreeMap::new());
    for offline in [false, true] {
        assert_eq!(hub(cache.path(), offline, &served.endpoint).resolve(MODEL).unwrap(), snapshot);
    }
    assert_eq!(served.requests(), []);
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
    // Which says under which license it is.
    tiny.json("README.md", &json!("---"));
    let cache = tempfile::tempdir().unwrap();
    let served = LocalHub::start(files(tiny.dir(), ""));
    let hub = hub(cache.path(), false, &served.endpoint);
    let snapshot = hub.resolve(MODEL).unwrap();
    assert_eq!(load_all(&snapshot), load_all(tiny.dir()));
    assert!(snapshot.join("README.md").exists());
    let requests = served.paths();
    assert!(!requests.iter().any(|path| path.contains("fp16") || path.contains(".bin") || path.contains("onnx")));
    assert_eq!(hub.resolve(MODEL).unwrap(), snapshot);
    assert_eq!(served.requests(), []);
    // A run killed during its first fetch goes on with what is missing.
    fs::remove_file(snapshot.join("1_Pooling/config.json")).unwrap();
    fs::remove_file(cache.path().join("models--org--tiny-model/refs/main")).unwrap();
    assert_eq!(hub.resolve(MODEL).unwrap(), snapshot);
    let fetched = served.paths().into_iter().filter(|path| path.contains("/resolve/")).collect::<Vec<_>>();
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
    assert!(message.contains("(404); check the spelling, or set HF_TOKEN"), "{message}");
    for (status, part) in [
        (401, "the hub does not show such a model (401); check the spelling, or set HF_TOKEN"),
        (403, "the hub does not let you read it (403); accept the model's conditions on its page"),
        (418, "the hub refuses the request (418)"),
    ] {
        served.fault("/api/", Fault::Status(status, ""));
        let message = hub.resolve(MODEL).unwrap_err().to_string();
        assert!(message.starts_with("org/tiny-model: no such directory, and ") && message.contains(part), "{message}");
    }
    served.requests();
    let message = hub.resolve(MODEL).unwrap_err().to_string();
    assert!(message.contains("no safetensors weights"), "{message}");
}

/// As long as the hub asks for, and no oftener than is of use.
#[test]
fn a_busy_hub_is_asked_again() {
    let tiny = Tiny::sentence_transformers();
    let cache = tempfile::tempdir().unwrap();
    let served = LocalHub::start(files(tiny.dir(), ""));
    let hub = hub(cache.path(), false, &served.endpoint);
    served.fault("/api/", Fault::Status(429, "Retry-After: 1"));
    served.fault("/api/", Fault::Status(503, "Retry-After: 1"));
    served.fault("model.safetensors", Fault::Status(429, "RateLimit: \"resolvers\";r=0;t=1"));
    served.fault("tokenizer.json", Fault::Nothing);
    let start = Instant::now();
    let snapshot = hub.resolve(MODEL).unwrap();
    assert!(start.elapsed() >= Duration::from_secs(4), "{:?}", start.elapsed());
    assert_eq!(load_all(&snapshot), load_all(tiny.dir()));
    let again = |path: &str, paths: &[String]| paths.iter().filter(|asked| asked.contains(path)).count();
    let paths = served.paths();
    assert_eq!([again("/api/", &paths), again("/tokenizer.json", &paths), again("1_Pooling", &paths)], [3, 2, 1]);

    let cache = tempfile::tempdir().unwrap();
    let hub = self::hub(cache.path(), false, &served.endpoint);
    for (status, header, part) in [
        (429, "Retry-After: 0", "the hub has had too many requests (429, 4 times; try again in 0 seconds, as it asks)"),
        (503, "Retry-After: 0", "the hub is out of order (503, 4 times; try again in 0 seconds, as it asks)"),
        // Nobody waits for an hour before a terminal.
        (429, "Retry-After: 3600", "the hub has had too many requests (429; try again in 3600 seconds, as it asks)"),
    ] {
        (0..4).for_each(|_| served.fault("/api/", Fault::Status(status, header)));
        let message = hub.resolve(MODEL).unwrap_err().to_string();
        assert!(message.starts_with(&format!("org/tiny-model: no such directory, and {part}")), "{message}");
        served.faults.lock().unwrap().clear();
    }
    // What the cache has does until the hub is well again.
    let snapshot = fill_cache(cache.path(), &Tiny::plain());
    (0..4).for_each(|_| served.fault("/api/", Fault::Status(503, "Retry-After: 0")));
    assert_eq!(hub.resolve(MODEL).unwrap(), snapshot);
}

/// A line that breaks is gone on from where it broke, by this process or the next.
#[test]
fn half_a_file_is_not_fetched_again() {
    let tiny = Tiny::sentence_transformers();
    let cache = tempfile::tempdir().unwrap();
    let served = LocalHub::start(files(tiny.dir(), ""));
    let hub = hub(cache.path(), false, &served.endpoint);
    served.fault("/tiny-model/resolve/0123456789abcdef0123456789abcdef01234567/model.safetensors", Fault::Half);
    let snapshot = hub.resolve(MODEL).unwrap();
    assert_eq!(load_all(&snapshot), load_all(tiny.dir()));
    let name = format!("/{MODEL}/resolve/{SHA}/model.safetensors");
    let len = fs::metadata(tiny.path("model.safetensors")).unwrap().len() as usize;
    let starts: Vec<usize> =
        served.requests().iter().filter(|asked| asked.path == name).map(|asked| asked.start).collect();
    assert_eq!(starts, [0, len / 2]);
    let blobs = cache.path().join("models--org--tiny-model/blobs");
    assert!(
        !fs::read_dir(blobs).unwrap().any(|blob| blob.unwrap().path().extension().is_some_and(|e| e == "hbt-part"))
    );
}

/// Large files are on another host: the name of their content is the hub's, and that host is not told the token.
#[test]
fn a_file_may_be_elsewhere() {
    let tiny = Tiny::sentence_transformers();
    let (cache, elsewhere) = (tempfile::tempdir().unwrap(), LocalHub::start(files(tiny.dir(), "")));
    let served = LocalHub::start(files(tiny.dir(), ""));
    let to: &'static str = format!("{}/moved/model.safetensors", elsewhere.endpoint).leak();
    served.fault("/tiny-model/resolve/0123456789abcdef0123456789abcdef01234567/model.safetensors", Fault::To(to));
    served.fault("/config.json", Fault::To("/moved/config.json"));
    let hub = Hub { token: Some("hf_secret".into()), ..hub(cache.path(), false, &served.endpoint) };
    let snapshot = hub.resolve(MODEL).unwrap();
    assert_eq!(load_all(&snapshot), load_all(tiny.dir()));
    assert!(served.requests().iter().all(|asked| asked.token.as_deref() == Some("Bearer hf_secret")));
    let moved = Asked { path: "/moved/model.safetensors".into(), start: 0, token: None };
    assert_eq!(elsewhere.requests(), [moved]);
    let blobs = cache.path().join("models--org--tiny-model/blobs");
    assert!(blobs.join(format!("{:064x}", to.len())).exists(), "the Python libraries look for this name");
    #[cfg(unix)]
    assert_eq!(
        fs::read_link(snapshot.join("2_Dense/config.json")).unwrap().components().count(),
        5,
        "../../../blobs/NAME"
    );
}

/// As many processes as want to fetch the same model at once.
#[test]
fn several_fetch_at_once() {
    let tiny = Tiny::sentence_transformers();
    let cache = tempfile::tempdir().unwrap();
    let served = LocalHub::start(files(tiny.dir(), ""));
    std::thread::scope(|scope| {
        let fetch = || hub(cache.path(), false, &served.endpoint).resolve(MODEL).map(|snapshot| load_all(&snapshot));
        let all: Vec<_> = (0..6).map(|_| scope.spawn(fetch)).collect();
        all.into_iter().for_each(|one| assert_eq!(one.join().unwrap().unwrap(), load_all(tiny.dir())));
    });
    let paths = served.paths();
    assert_eq!(paths.iter().filter(|path| path.ends_with("/model.safetensors") && !path.contains("Dense")).count(), 1);
}

/// `xlm-roberta-base` is one, and in the cache `models--xlm-roberta-base`.
#[test]
fn an_id_may_have_no_organisation() {
    let tiny = Tiny::sentence_transformers();
    let cache = tempfile::tempdir().unwrap();
    let served = LocalHub::of("tiny-model", files(tiny.dir(), ""));
    let snapshot = hub(cache.path(), false, &served.endpoint).resolve("tiny-model").unwrap();
    assert!(snapshot.starts_with(cache.path().join("models--tiny-model/snapshots")));
    assert_eq!(load_all(&snapshot), load_all(tiny.dir()));
    assert_eq!(hub(cache.path(), true, NOWHERE).resolve("tiny-model").unwrap(), snapshot);
}

/// One that takes the connection and says nothing.
#[test]
fn a_hub_that_hangs_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let cache = tempfile::tempdir().unwrap();
    let start = Instant::now();
    let hub = Hub { timeout: Duration::from_secs(1), ..hub(cache.path(), false, &endpoint) };
    let message = hub.resolve(MODEL).unwrap_err().to_string();
    assert!(
        message.contains("the hub cannot be reached (timeout") && message.contains("; tried 4 times)"),
        "{message}"
    );
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
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
    for (value, seconds) in [("3", 3), ("0", 10), ("soon", 10), ("", 10)] {
        let hub = Hub::from_vars(|name| (name == "HF_HUB_DOWNLOAD_TIMEOUT").then(|| value.to_owned()));
        assert_eq!(hub.timeout, Duration::from_secs(seconds), "{value:?}");
    }
    for (value, offline) in [("1", true), ("true", true), ("YES", true), ("0", false), ("", false)] {
        let hub = Hub::from_vars(|name| (name == "HF_HUB_OFFLINE").then(|| value.to_owned()));
        assert_eq!(hub.offline, offline, "{value:?}");
    }
}
