//! The token cache against a plain in-memory grouping of the same rows, and under damage, races and a full disk.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use hbt::data::catalog::{LangId, Role, TextSource};
use hbt::data::formats::{Columns, DataSource, Split, Text};
use hbt::data::shard::{TokenCache, TokenizeSpec};
use tempfile::TempDir;

use super::{message, open, spec, tokenizer, write};
use crate::mutated::bodies::{read_to_the_end, rehash};

const ROLES: [Role; 3] = [Role::Query, Role::Positive, Role::Negative];

/// Rows of many shapes, enough of them for several chunks: one to three languages a group, ids that come back much
/// later or never, repeated texts, negatives for some, texts over the length limit.
pub fn rows(n_rows: usize) -> String {
    let langs = ["sw", "en", "zh-Hant", "ar"];
    let mut rows = String::new();
    for i in 0..n_rows {
        let (query_lang, passage_lang) = (langs[i % 4], langs[(i / 7) % 4]);
        let id = if i % 5 == 0 { String::new() } else { format!("\"id\": \"g{}\", ", i * 31 % (n_rows / 3 + 1)) };
        let passage = format!("w{} ", i % 60).repeat(1 + i % 17);
        let negatives = if i % 3 == 0 { format!("[\"w{}\", \"w8 w{}\"]", i % 9, i % 50) } else { "[]".into() };
        rows += &format!(
            "{{{id}\"query\": \"w{} w{}\", \"query_lang\": \"{query_lang}\", \"positive\": \"{passage}\", \
             \"passage_lang\": \"{passage_lang}\", \"negatives\": {negatives}}}\n",
            i % 10,
            i % 89,
        );
    }
    rows
}

fn files(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).map_or(vec![], |entries| entries.map(|entry| entry.unwrap().path()).collect())
}

#[test]
fn agrees_with_plain_grouping() {
    let dir = TempDir::new().unwrap();
    let columns = Columns { join_by_id: true, ..Columns::default() };
    let source = DataSource { columns, ..DataSource::new(write(dir.path(), "rows.jsonl", rows(9000))) };
    let cache = open(&source, &dir.path().join("cache")).unwrap();
    let (groups, _) = source.read_groups().unwrap();
    let catalog = cache.catalog();
    assert_eq!(catalog.languages, ["ar", "en", "sw", "zh-Hant"]);
    assert_eq!(
        (cache.n_rows(), cache.n_groups(), catalog.n_groups()),
        (9000, groups.len() as u64, groups.len() as u64)
    );
    let (tokenizer, spec) = (tokenizer(), spec());
    let by_id: BTreeMap<&str, _> = groups.iter().map(|group| (group.id.as_str(), group)).collect();
    let mut class_of = catalog.classes.iter().flat_map(|class| std::iter::repeat_n(class, class.n_groups as usize));
    let mut n_texts = 0;
    for number in 0..cache.n_groups() {
        let group = by_id[cache.group_id(number)];
        let langs = |texts: &[Text]| -> BTreeSet<String> { texts.iter().map(|text| text.lang.clone()).collect() };
        let named =
            |ids: &[LangId]| ids.iter().map(|id| catalog.languages[*id as usize].clone()).collect::<BTreeSet<_>>();
        let class = class_of.next().unwrap();
        assert_eq!(named(&class.query_langs), langs(&group.queries));
        assert_eq!(named(&class.passage_langs), langs(&group.positives));
        for (role, texts) in ROLES.into_iter().zip([&group.queries, &group.positives, &group.negatives]) {
            let (prefix, max_len) = match role {
                Role::Query => (&spec.query_prefix, spec.query_max_len),
                _ => (&spec.passage_prefix, spec.passage_max_len),
            };
            for (lang, name) in catalog.languages.iter().enumerate() {
                let expected: Vec<&str> = texts.iter().filter(|t| t.lang == *name).map(|t| t.text.as_str()).collect();
                let found = cache.texts(number, role, lang as LangId);
                n_texts += expected.len() as u64;
                assert_eq!(found.end - found.start, expected.len() as u64, "{} {role:?} {name}", group.id);
                for (text, words) in found.zip(expected) {
                    let encoded = tokenizer.encode(prefix, words, max_len).unwrap();
                    let info = cache.text_info(text);
                    assert_eq!(cache.tokens(text), encoded.ids);
                    assert_eq!((info.role, info.lang as usize, info.full_len as usize), (role, lang, encoded.full_len));
                    assert_eq!(info.full_len > info.len, encoded.truncated);
                    assert_eq!(info.hash, xxhash_rust::xxh3::xxh3_64(words.as_bytes()));
                }
            }
        }
    }
    assert_eq!(cache.n_texts(), n_texts);
}

#[test]
fn classes_are_sorted_and_distinct() {
    let dir = TempDir::new().unwrap();
    let cache = open(&DataSource::new(write(dir.path(), "rows.jsonl", rows(500))), dir.path()).unwrap();
    let signature = |i: usize| (&cache.catalog().classes[i].query_langs, &cache.catalog().classes[i].passage_langs);
    assert!(cache.catalog().classes.len() > 5);
    for i in 1..cache.catalog().classes.len() {
        assert!(signature(i - 1) < signature(i), "class {i}");
    }
}

#[test]
fn a_second_run_only_opens() {
    let dir = TempDir::new().unwrap();
    let source = DataSource::new(write(dir.path(), "rows.jsonl", rows(300)));
    let cache_dir = dir.path().join("a/b");
    let calls = Cell::new(0);
    let run = || {
        let count = |done, total| {
            assert!(done <= total);
            calls.set(calls.get() + 1);
        };
        TokenCache::open_or_build(&source, &tokenizer(), &spec(), &cache_dir, &count).unwrap()
    };
    let first = run();
    let n_calls = calls.get();
    assert!(first.was_built() && n_calls >= 2);
    let second = run();
    assert!(!second.was_built());
    assert_eq!((calls.get(), second.path()), (n_calls, first.path()));
    assert_eq!(files(&cache_dir), [first.path()]);
}

#[test]
fn everything_that_matters_is_in_the_key() {
    let dir = TempDir::new().unwrap();
    let data = write(dir.path(), "data/train.jsonl", rows(30));
    let source = DataSource::new(data.parent().unwrap());
    let mut paths = BTreeSet::new();
    let mut build = |source: &DataSource, spec: &TokenizeSpec| {
        let cache =
            TokenCache::open_or_build(source, &tokenizer(), spec, &dir.path().join("cache"), &|_, _| ()).unwrap();
        assert!(paths.insert(cache.path().to_owned()), "{source:?} {spec:?} took another's cache");
    };
    build(&source, &spec());
    build(&DataSource { split: Split::Train.into(), ..source.clone() }, &spec());
    build(&source, &TokenizeSpec { query_prefix: "w1 w2 ".into(), passage_prefix: String::new(), ..spec() });
    build(&source, &TokenizeSpec { query_prefix: "w1 ".into(), passage_prefix: "w2 w2 ".into(), ..spec() });
    build(&source, &TokenizeSpec { query_max_len: 9, ..spec() });
    build(&source, &TokenizeSpec { passage_max_len: 9, ..spec() });
    fs::write(&data, rows(31)).unwrap();
    build(&source, &spec());
}

#[test]
fn same_input_same_bytes() {
    let dir = TempDir::new().unwrap();
    let source = DataSource::new(write(dir.path(), "rows.jsonl", rows(9000)));
    let build = |n_threads: usize| {
        let cache_dir = dir.path().join(n_threads.to_string());
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        let (source, cache_dir) = (&source, &cache_dir);
        pool.install(|| fs::read(open(source, cache_dir).unwrap().path()).unwrap())
    };
    assert_eq!(build(1), build(3));
}

#[test]
fn a_damaged_cache_is_built_again() {
    let dir = TempDir::new().unwrap();
    let source = DataSource::new(write(dir.path(), "rows.jsonl", rows(200)));
    let cache = open(&source, dir.path()).unwrap();
    let path = cache.path().to_owned();
    drop(cache);
    let good = fs::read(&path).unwrap();
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let damaged = [vec![], good[..5000].to_vec(), good[..good.len() - 1].to_vec(), flipped(30), flipped(5000)];
    for bytes in damaged {
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
        let cache = open(&source, dir.path()).unwrap();
        assert!(cache.was_built());
        assert_eq!(fs::read(&path).unwrap(), good);
    }
}

/// Numbers that no data has, under checksums that are right. A text's record has its fields at these places, and the
/// groups' records follow the texts'.
#[test]
fn an_edited_cache_is_built_again() {
    let dir = TempDir::new().unwrap();
    let source = DataSource::new(write(dir.path(), "rows.jsonl", rows(200)));
    let path = open(&source, dir.path()).unwrap().path().to_owned();
    let good = fs::read(&path).unwrap();
    let mut untouched = good.clone();
    rehash(&mut untouched);
    assert_eq!(untouched, good, "the layout that this test knows");
    let number = |at: usize| u64::from_le_bytes(good[at..at + 8].try_into().unwrap()) as usize;
    let texts = (4096 + 4 * number(32)).next_multiple_of(8);
    let groups = texts + 40 * number(40);
    let meta = groups + 24 * (number(48) + 1);
    let at_meta = |key: &str| {
        let text = std::str::from_utf8(&good[meta..meta + number(56)]).unwrap();
        meta + text.find(key).unwrap() + key.len()
    };
    let edits: Vec<(&str, usize, Vec<u8>)> = vec![
        ("start", texts, vec![255; 8]),
        ("start beyond the words", texts + 3, vec![1]),
        ("link", texts + 16, vec![255, 255, 255, 255, 255, 255, 255, 127]),
        ("no token", texts + 24, vec![0; 4]),
        ("more tokens than the limit", texts + 24, vec![200, 0, 0, 0, 200, 0, 0, 0]),
        ("role", texts + 32, vec![3, 0]),
        ("roles out of order", texts + 32, vec![2, 0]),
        ("language", texts + 34, vec![9, 0]),
        ("first text", groups, vec![1]),
        ("a group's texts end before they begin", groups + 24, vec![255, 255]),
        ("id", groups + 8, vec![255; 8]),
        ("length of an id", groups + 16, vec![255; 8]),
        ("name of a language", at_meta("\"languages\":[\""), b"!!".to_vec()),
        ("number of a class's groups", at_meta("\"classes\":[["), b"9".to_vec()),
        ("number of scores", at_meta("\"n_scores\":["), b"7".to_vec()),
        ("no shared text", at_meta("\"shares_texts\":"), b"null".to_vec()),
    ];
    for (what, at, edit) in edits {
        let mut bytes = good.clone();
        bytes[at..at + edit.len()].copy_from_slice(&edit);
        assert_ne!(bytes, good, "{what}");
        rehash(&mut bytes);
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
        let cache = open(&source, dir.path()).unwrap();
        assert!(cache.was_built(), "{what}");
        assert_eq!(fs::read(&path).unwrap(), good, "{what}");
    }
    assert!(!open(&source, dir.path()).unwrap().was_built());
}

/// Any eight bytes of the index set to anything: what opens can be read to the end.
#[test]
fn whatever_opens_can_be_read() {
    let dir = TempDir::new().unwrap();
    let source = DataSource::new(write(dir.path(), "rows.jsonl", rows(60)));
    let path = open(&source, dir.path()).unwrap().path().to_owned();
    let good = fs::read(&path).unwrap();
    let number = |at: usize| u64::from_le_bytes(good[at..at + 8].try_into().unwrap()) as usize;
    let texts = (4096 + 4 * number(32)).next_multiple_of(8);
    let index = texts..texts + 40 * number(40) + 24 * (number(48) + 1) + number(56);
    let (mut n_opened, mut state) = (0, 1u64);
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state >> 33
    };
    for _ in 0..400 {
        let mut bytes = good.clone();
        let at = index.start + random() as usize % (index.len() - 2);
        let edit = random().to_le_bytes();
        bytes[at..at + 2].copy_from_slice(&edit[..2]);
        rehash(&mut bytes);
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
        let cache = open(&source, dir.path()).unwrap();
        n_opened += usize::from(!cache.was_built());
        read_to_the_end(&cache);
    }
    assert!((20..380).contains(&n_opened), "{n_opened} of 400 hold together: hashes and scores may be anything");
}

/// The caller hears of progress while the data is read, and changes it then.
#[test]
fn data_that_changes_while_it_is_read_is_refused() {
    let dir = TempDir::new().unwrap();
    let (before, more) = (rows(9000), rows(300));
    let path = write(dir.path(), "rows.jsonl", &before);
    let (source, cache_dir) = (DataSource::new(&path), dir.path().join("cache"));
    let n_calls = Cell::new(0);
    let change = |_, _| {
        n_calls.set(n_calls.get() + 1);
        if n_calls.get() == 1 {
            fs::write(&path, format!("{before}{more}")).unwrap();
        }
    };
    let message = message(TokenCache::open_or_build(&source, &tokenizer(), &spec(), &cache_dir, &change));
    assert!(message.contains("rows.jsonl") && message.contains("changed while it was read"), "{message}");
    assert_eq!(files(&cache_dir), [] as [PathBuf; 0]);
    fs::write(&path, &before).unwrap();
    assert_eq!(open(&source, &cache_dir).unwrap().n_rows(), 9000);
}

#[cfg(unix)]
#[test]
fn a_cache_is_as_private_as_its_data() {
    use std::os::unix::fs::PermissionsExt;
    let dir = TempDir::new().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let data = dir.path().join("data");
    let [a, b] = ["a.jsonl", "b.jsonl"].map(|name| write(&data, name, rows(20)));
    for (modes, expected) in [([0o644, 0o600], 0o600), ([0o644, 0o640], 0o640), ([0o444, 0o666], 0o644)] {
        let cache_dir = dir.path().join(format!("new/{expected:o}"));
        fs::set_permissions(&a, fs::Permissions::from_mode(modes[0])).unwrap();
        fs::set_permissions(&b, fs::Permissions::from_mode(modes[1])).unwrap();
        let cache = open(&DataSource::new(&data), &cache_dir).unwrap();
        // As far as the umask of whoever tests allows.
        let probe = write(dir.path(), "probe", "");
        assert_eq!(mode(cache.path()), expected & (mode(&probe) | 0o600), "{expected:o}");
        assert_eq!([mode(&cache_dir), mode(cache_dir.parent().unwrap())], [0o700; 2]);
    }
    // A directory that is there keeps its permissions.
    let shared = dir.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o755)).unwrap();
    open(&DataSource::new(&data), &shared).unwrap();
    assert_eq!(mode(&shared), 0o755);
}

/// Runs itself as a child, which the signal would end.
#[cfg(target_os = "linux")]
#[test]
fn a_cache_that_is_cut_short_ends_in_one_line() {
    const CHILD: &str = "HBT_TEST_CUT_SHORT";
    if let Some(dir) = std::env::var_os(CHILD) {
        let dir = Path::new(&dir);
        let cache = open(&DataSource::new(dir.join("rows.jsonl")), dir).unwrap();
        fs::File::options().write(true).open(cache.path()).unwrap().set_len(0).unwrap();
        println!("read {:?}", cache.tokens(0));
        return;
    }
    let dir = TempDir::new().unwrap();
    write(dir.path(), "rows.jsonl", rows(900));
    let test = "data::cache::a_cache_that_is_cut_short_ends_in_one_line";
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--exact", test, "--nocapture"]).env(CHILD, dir.path()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let lines: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert!(matches!(lines[..], [line] if line.contains(".cache: another program cut it short")), "{stderr}");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("read ["), "nothing was read");
}

#[test]
fn two_builders_at_once() {
    let dir = TempDir::new().unwrap();
    let source = DataSource::new(write(dir.path(), "rows.jsonl", rows(3000)));
    let cache_dir = dir.path().join("cache");
    let caches: Vec<TokenCache> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(|| open(&source, &cache_dir).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(files(&cache_dir), [caches[0].path()]);
    assert!(caches.iter().all(|cache| cache.n_groups() == caches[0].n_groups()));
}

#[test]
fn what_killed_builders_left_is_removed() {
    let dir = TempDir::new().unwrap();
    let source = DataSource::new(write(dir.path(), "rows.jsonl", rows(10)));
    let cache_dir = dir.path().join("cache");
    let abandoned = write(&cache_dir, "abandoned.partial", "half");
    let in_use = write(&cache_dir, "in-use.partial", "half");
    // As a process that is writing it does.
    let lock = fs::File::open(&in_use).unwrap();
    lock.lock().unwrap();
    let path = open(&source, &cache_dir).unwrap().path().to_owned();
    assert!(!abandoned.exists() && in_use.exists(), "another process is still writing the second");
    drop(lock);
    fs::remove_file(path).unwrap();
    open(&source, &cache_dir).unwrap();
    assert!(!in_use.exists());
}

#[test]
fn bad_data_leaves_nothing_behind() {
    let dir = TempDir::new().unwrap();
    let good = "{\"query\": \"w1\", \"positive\": \"w2\"}\n";
    let cases = [
        (
            format!("{}{{\"query\": \"w1\",\n{}", good.repeat(7340), good.repeat(3000)),
            "rows.jsonl, line 7341: invalid JSON: ",
        ),
        (format!("{}{{\"positive\": \"w1\"}}\n{{}}", good.repeat(9)), "rows.jsonl, line 10: no query"),
        ("\n".into(), "the file is empty"),
    ];
    for (content, expected) in cases {
        let source = DataSource::new(write(dir.path(), "rows.jsonl", content));
        let cache_dir = dir.path().join("cache");
        let message = message(open(&source, &cache_dir));
        assert!(message.contains(expected), "{message}");
        assert_eq!(files(&cache_dir), [] as [PathBuf; 0]);
    }
}

#[test]
fn a_text_of_100_000_characters() {
    let dir = TempDir::new().unwrap();
    let long = "w3 ".repeat(33_334);
    let row = format!("{{\"query\": \"w1\", \"positive\": \"{long}\"}}\n");
    let cache = open(&DataSource::new(write(dir.path(), "rows.jsonl", row)), dir.path()).unwrap();
    let text = cache.texts(0, Role::Positive, 0).start;
    assert_eq!(cache.tokens(text).len(), spec().passage_max_len);
    // The words, the prefix's one, and two special tokens.
    assert_eq!(cache.text_info(text).full_len, 33_334 + 1 + 2);
}

#[test]
fn a_text_keeps_its_teachers_score() {
    let dir = TempDir::new().unwrap();
    let rows = "{\"query\": \"w1\", \"pos\": [\"w2\", \"w3\"], \"neg\": [\"w4\"], \"pos_scores\": [0.5, -1]}\n\
                {\"query\": \"w5\", \"pos\": \"w6\", \"neg\": [\"w7\"], \"neg_scores\": 3}\n";
    let cache = open(&DataSource::new(write(dir.path(), "rows.jsonl", rows)), dir.path()).unwrap();
    let scores: Vec<Option<f32>> = (0..cache.n_texts()).map(|text| cache.teacher_score(text)).collect();
    assert_eq!(scores, [None, Some(0.5), Some(-1.0), None, None, None, Some(3.0)]);
    assert_eq!(cache.n_scores(), [2, 1]);
}

/// The rows of a group may repeat a text, and not every one of them has a score.
#[test]
fn of_equal_texts_a_scored_one_is_kept() {
    let dir = TempDir::new().unwrap();
    let rows = "{\"id\": \"a\", \"query\": \"w1\", \"pos\": [\"w2\", \"w3\"], \"neg\": [\"w4\", \"w5\"]}\n\
                {\"id\": \"a\", \"query\": \"w1\", \"pos\": [\"w3\", \"w2\"], \"neg\": [\"w4\"], \"pos_scores\": [0.5, 0.75], \"neg_scores\": [3]}\n\
                {\"id\": \"a\", \"query\": \"w1\", \"pos\": [\"w2\"], \"neg\": [\"w4\"], \"pos_scores\": [1], \"neg_scores\": [4]}\n";
    let cache = open(&DataSource::new(write(dir.path(), "rows.jsonl", rows)), dir.path()).unwrap();
    let of = |text: u64| (cache.tokens(text)[2] - super::W0, cache.teacher_score(text));
    let texts: Vec<_> = (1..cache.n_texts()).map(of).collect();
    assert_eq!(texts, [(2, Some(0.75)), (3, Some(0.5)), (4, Some(3.0)), (5, None)], "as they first appear");
    assert_eq!(cache.n_scores(), [2, 1]);
}

/// A row takes negatives in the language of its positive.
#[test]
fn negatives_that_no_row_takes_are_noted() {
    let rows = r#"{"id": "a", "query": {"en": "w1"}, "positive": {"en": "w2"}, "negatives": {"en": ["w3"], "de": ["w4", "w5"]}}
{"id": "b", "query": {"en": "w6"}, "positive": {"de": "w7"}, "negatives": {"en": ["w8"]}}
{"id": "c", "query": {"en": "w9"}, "positive": {"en": "w10"}, "negatives": {"de": ["w11"]}}
{"id": "c", "query": {"de": "w9"}, "positive": {"de": "w12"}}"#;
    let dir = TempDir::new().unwrap();
    let cache = open(&DataSource::new(write(dir.path(), "rows.jsonl", rows)), dir.path()).unwrap();
    let lines = cache.notes().lines();
    let expected = "3 negatives not used: in a language in which their question has no positive";
    assert!(lines.iter().any(|line| line == expected), "{lines:?}");
}

#[test]
fn lengths_without_room_are_refused() {
    let dir = TempDir::new().unwrap();
    let source = DataSource::new(write(dir.path(), "rows.jsonl", rows(3)));
    let spec = TokenizeSpec { passage_max_len: 2, ..spec() };
    let message = message(TokenCache::open_or_build(&source, &tokenizer(), &spec, dir.path(), &|_, _| ()));
    assert!(message.starts_with("passage_max_len: 2 leaves no room"), "{message}");
}

/// Runs itself as a child whose files may not grow beyond 64 KiB, the nearest thing to a full disk that needs no
/// privileges.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_nothing_behind() {
    const CHILD: &str = "HBT_TEST_FULL_DISK";
    if let Some(dir) = std::env::var_os(CHILD) {
        let dir = Path::new(&dir);
        let message = message(open(&DataSource::new(dir.join("rows.jsonl")), &dir.join("cache")));
        assert!(message.starts_with("cannot write") && message.contains("File too large"), "{message}");
        return;
    }
    let dir = TempDir::new().unwrap();
    write(dir.path(), "rows.jsonl", rows(9000));
    let test = "data::cache::a_full_disk_leaves_nothing_behind";
    // Blocks of 512 bytes; a shell that counts in 1,024 makes it 128 KiB, still too few.
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 128; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .env(CHILD, dir.path())
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && stdout.contains("1 passed"), "{stdout}");
    assert_eq!(files(&dir.path().join("cache")), [] as [PathBuf; 0]);
}
