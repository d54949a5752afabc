//! Data sets of the hub: what is asked for and what is not, the cache's layout, and what is said offline.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use hbt::data::collection::Collections;
use hbt::hub::{Dataset, Hub};

use super::message;
use crate::model_io::hub::{Fault, LocalHub, NOWHERE, SHA, hub};

const ID: &str = "org/set";

/// Two subsets in the hub's layout, as JSON lines.
fn files() -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::from([("README.md".to_owned(), b"---".to_vec())]);
    for subset in ["de", "fr"] {
        for (config, row) in [
            ("corpus", "{\"id\": \"d\", \"text\": \"t\"}"),
            ("queries", "{\"id\": \"q\", \"text\": \"t?\"}"),
            ("qrels", "{\"query-id\": \"q\", \"corpus-id\": \"d\", \"score\": 1}"),
        ] {
            for split in ["dev", "test"] {
                files.insert(format!("{subset}-{config}/{split}.jsonl"), format!("{row}\n").into_bytes());
            }
        }
    }
    files
}

/// What a task in `split` of `subset` takes of a data set, and its queries.
fn load(set: &Dataset, subset: &str, split: &str) -> hbt::Result<usize> {
    let all = Collections::of_names(set.directory(), set.files())?;
    set.fetch(all.files(subset, split)?)?;
    let one = all.load(subset, split)?;
    assert_eq!(one.documents().count(), 1);
    Ok(one.queries.len())
}

fn snapshot(cache: &Path) -> PathBuf {
    cache.join("datasets--org--set/snapshots").join(SHA)
}

#[test]
fn what_is_needed_is_fetched_once() {
    let cache = tempfile::tempdir().unwrap();
    let served = LocalHub::of(ID, files());
    let online = hub(cache.path(), false, &served.endpoint);
    let set = online.dataset(ID, Some(SHA)).unwrap();
    assert_eq!((set.directory(), set.commit()), (&*snapshot(cache.path()), SHA));
    assert_eq!(set.files().map(str::to_owned).collect::<Vec<_>>(), files().into_keys().collect::<Vec<_>>());
    assert_eq!(load(&set, "de", "test").unwrap(), 1);
    let of = |name: &str| format!("/datasets/{ID}/resolve/{SHA}/{name}");
    let asked = [
        format!("/api/datasets/{ID}/revision/{SHA}"),
        of("de-corpus/test.jsonl"),
        of("de-queries/test.jsonl"),
        of("de-qrels/test.jsonl"),
    ];
    assert_eq!(served.paths(), asked);
    // As the Python libraries lay it out: links into the blobs.
    #[cfg(unix)]
    assert!(
        fs::read_link(snapshot(cache.path()).join("de-corpus/test.jsonl")).unwrap().starts_with("../../../blobs"),
        "a link"
    );
    assert!(!cache.path().join("datasets--org--set/refs").exists(), "a commit is no branch");
    // Neither list nor files are asked for again, and another split brings its own alone.
    for offline in [false, true] {
        let again = hub(cache.path(), offline, &served.endpoint).dataset(ID, Some(SHA)).unwrap();
        assert_eq!(load(&again, "de", "test").unwrap(), 1);
        assert_eq!(served.paths(), [""; 0]);
    }
    assert_eq!(load(&set, "de", "dev").unwrap(), 1);
    let asked = ["corpus", "queries", "qrels"].map(|config| of(&format!("de-{config}/dev.jsonl")));
    assert_eq!(served.paths(), asked);
}

#[test]
fn the_newest_version() {
    let cache = tempfile::tempdir().unwrap();
    let served = LocalHub::of(ID, files());
    let online = hub(cache.path(), false, &served.endpoint);
    let set = online.dataset(ID, None).unwrap();
    assert_eq!((set.commit(), load(&set, "fr", "test").unwrap()), (SHA, 1));
    assert_eq!(fs::read_to_string(cache.path().join("datasets--org--set/refs/main")).unwrap(), SHA);
    assert_eq!(served.paths()[0], format!("/api/datasets/{ID}/revision/main"));
    // What is newest has to be asked, and where nobody answers the last that was fetched will do.
    online.dataset(ID, None).unwrap();
    assert_eq!(served.paths(), [format!("/api/datasets/{ID}/revision/main")]);
    for offline in [hub(cache.path(), true, NOWHERE), hub(cache.path(), false, NOWHERE)] {
        let set = offline.dataset(ID, None).unwrap();
        assert_eq!((set.commit(), load(&set, "fr", "test").unwrap()), (SHA, 1));
    }
}

/// What Python has fetched: files of a commit, without a list and without a ref.
#[test]
fn the_cache_of_the_python_libraries() {
    let cache = tempfile::tempdir().unwrap();
    for (name, content) in files().into_iter().filter(|(name, _)| !name.starts_with("fr-")) {
        let path = snapshot(cache.path()).join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let offline = hub(cache.path(), true, NOWHERE);
    let set = offline.dataset(ID, Some(SHA)).unwrap();
    assert_eq!(load(&set, "de", "test").unwrap(), 1);
    let none = message(load(&set, "fr", "test"));
    assert!(none.ends_with("no subset fr here; there is de"), "{none}");
    // Of the newest version nothing is known.
    assert!(offline.dataset(ID, None).is_err());
}

#[test]
fn offline_without_the_snapshot() {
    let cache = tempfile::tempdir().unwrap();
    let offline = hub(cache.path(), true, NOWHERE);
    let place = snapshot(cache.path());
    let nothing = message(offline.dataset(ID, Some(SHA)));
    let expected = format!(
        "{ID}: HF_HUB_OFFLINE is set, and the hub's cache has nothing of it; fetch it with hf download --repo-type dataset \
         {ID} --revision {SHA}, which puts it into {}, or name a copy of it with --data",
        place.display()
    );
    assert_eq!(nothing, expected);
    let unreachable = message(hub(cache.path(), false, NOWHERE).dataset(ID, Some(SHA)));
    let part = format!("; fetch it with hf download --repo-type dataset {ID} --revision {SHA}, which puts it into");
    assert!(unreachable.starts_with(&format!("{ID}: the hub cannot be reached (")), "{unreachable}");
    assert!(unreachable.contains(&part), "{unreachable}");
    let newest = message(offline.dataset(ID, None));
    assert!(
        newest.contains(&format!("; fetch it with hf download --repo-type dataset {ID}, which puts it into")),
        "{newest}"
    );
    // The list is there, and one file.
    let served = LocalHub::of(ID, files());
    let set = hub(cache.path(), false, &served.endpoint).dataset(ID, Some(SHA)).unwrap();
    set.fetch(["de-corpus/test.jsonl"]).unwrap();
    let set = offline.dataset(ID, Some(SHA)).unwrap();
    let lacking = message(load(&set, "de", "test"));
    let expected = format!(
        "{ID}: HF_HUB_OFFLINE is set, and the hub's cache lacks de-queries/test.jsonl and 1 more; fetch it with hf download \
         --repo-type dataset {ID} --revision {SHA}, which puts it into {}, or name a copy of it with --data",
        place.display()
    );
    assert_eq!(lacking, expected);
}

#[test]
fn refusals_are_told() {
    let cache = tempfile::tempdir().unwrap();
    let served = LocalHub::of(ID, files());
    let online = hub(cache.path(), false, &served.endpoint);
    let none = message(online.dataset("org/other", Some(SHA)));
    let expected = "org/other: the hub does not show such a data set (404); check the spelling, or set HF_TOKEN if the data set is \
                    not public";
    assert_eq!(none, expected);
    served.fault("/api/", Fault::Status(403, ""));
    let gated = message(online.dataset(ID, Some(SHA)));
    assert!(gated.contains("accept the data set's conditions on its page, and set HF_TOKEN"), "{gated}");
    for (id, commit) in [("a/b/c", SHA), ("../x", SHA), (ID, "../up"), (ID, ""), ("no space", SHA)] {
        let refused = message(online.dataset(id, Some(commit)));
        assert_eq!(
            refused,
            format!(
                "{id} at {commit}: no such directory, and no data set of the hub has such a name; check the spelling"
            )
        );
    }
    let homeless = Hub { cache: None, ..online };
    assert!(message(homeless.dataset(ID, Some(SHA))).contains("set HF_HOME to a directory"));
}
