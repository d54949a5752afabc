//! Files: what is found in a directory, packed or not, in which format, and what is said of the rest.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use hbt::data::formats::{DataFormat, DataSource, Group, Notes, PassageUnit, Purpose, squad};
use tempfile::TempDir;

use super::{message, write};

fn read(path: &Path) -> hbt::Result<(Vec<Group>, Notes)> {
    DataSource::new(path).read_groups()
}

fn queries(path: &Path) -> Vec<String> {
    read(path).unwrap().0.into_iter().map(|group| group.queries[0].text.clone()).collect()
}

fn row(word: &str) -> String {
    format!("{{\"query\": \"{word}\", \"positive\": \"p\"}}\n")
}

fn gzip(path: &Path, text: &str) {
    let mut out = flate2::write::GzEncoder::new(File::create(path).unwrap(), flate2::Compression::fast());
    out.write_all(text.as_bytes()).unwrap();
    out.finish().unwrap();
}

#[test]
fn every_spelling_of_json_lines_is_read() {
    let dir = TempDir::new().unwrap();
    let at = dir.path();
    for (name, word) in [("a.jsonl", "1"), ("b.ndjson", "2"), ("c.JSONL", "3"), ("d.jsonlines", "4"), ("e.json", "5")] {
        write(at, name, row(word));
    }
    write(at, "f/g/h.jsonl", row("6"));
    gzip(&at.join("i.jsonl.gz"), &row("7"));
    std::fs::write(at.join("j.jsonl.zst"), zstd::encode_all(row("8").as_bytes(), 3).unwrap()).unwrap();
    write(at, "k.json", format!("[{}, {}]", row("9").trim(), row("10").trim()));
    write(at, "README.md", "words");
    write(at, "notes.txt", "words");
    write(at, "dataset_info.json", "{}");
    write(at, "empty.jsonl", "");
    assert_eq!(queries(at), ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"]);
    assert_eq!(read(at).unwrap().1.lines(), ["files not used: empty.jsonl (empty), notes.txt"]);
}

#[test]
fn a_list_may_be_of_parallel_rows() {
    let dir = TempDir::new().unwrap();
    let text = " [\n {\"query\": {\"en\": \"q\", \"sw\": \"s\"}, \"positive\": {\"en\": \"p\"}},\n {\"query\": {\"en\": \"r\"}, \"positive\": {\"en\": \"t\"}}]";
    let source = DataSource::new(write(dir.path(), "a.json", text));
    assert_eq!(source.resolve().unwrap().format(), DataFormat::Parallel);
    assert_eq!(source.read_groups().unwrap().0.len(), 2);
}

#[test]
fn packed_text_is_known_by_its_content() {
    let dir = TempDir::new().unwrap();
    let text = [row("a"), row("b")].concat();
    gzip(&dir.path().join("wrong.jsonl"), &text);
    assert_eq!(queries(&dir.path().join("wrong.jsonl")), ["a", "b"]);
    // Two streams in one file, as bgzip and cat make them.
    let (one, two) = (dir.path().join("one.gz"), dir.path().join("two.gz"));
    gzip(&one, &row("a"));
    gzip(&two, &row("b"));
    let both = [std::fs::read(one).unwrap(), std::fs::read(two).unwrap()].concat();
    let path = write(dir.path(), "both.jsonl.gz", &both);
    assert_eq!(queries(&path), ["a", "b"]);
    let torn = write(dir.path(), "torn.jsonl.gz", &both[..both.len() - 9]);
    assert!(message(read(&torn)).contains("torn.jsonl.gz"));
}

#[test]
fn files_that_are_nearly_data_are_errors() {
    for (name, content, expected) in [
        ("a.jsonl.xz", "x", "hbt reads no .xz files; unpack it"),
        ("data-00000-of-00001.arrow", "x", "data-00000-of-00001.arrow: not Arrow that hbt can read"),
        ("a.jsonl", "ARROW1\0\0", "is Arrow; give it the ending .arrow"),
        ("a.jsonl", "version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "run git lfs pull"),
        ("a.csv", "x,y\n1,2\n", "a.csv, line 1: the first line names no column that hbt knows (x, y)"),
        ("a.csv", "query,positive\n1,2,3\n", "a.csv, line 2: 3 columns, where the first line has 2"),
        ("a.csv", "query,query\n1,2\n", "the column \"query\" stands twice"),
        ("a.parquet", "PAR1", "a.parquet: not Parquet that hbt can read"),
        ("a.jsonl", "{\"query\": \"q\", \"positive\": \"p\"}\r{\"query\": \"q\"}", "end in a lone carriage return"),
        ("a.jsonl", "PAR1xx", "is Parquet; give it the ending .parquet"),
    ] {
        let dir = TempDir::new().unwrap();
        write(dir.path(), name, content);
        let message = message(read(dir.path()));
        assert!(message.contains(name) && message.contains(expected), "{name}: {message}");
    }
    let dir = TempDir::new().unwrap();
    let utf16: Vec<u8> = "\u{feff}{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    write(dir.path(), "a.jsonl", utf16);
    assert!(message(read(dir.path())).contains("a.jsonl: is UTF-16; save it as UTF-8"));
}

#[test]
fn the_same_data_twice_is_an_error() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), "train.jsonl", row("a"));
    gzip(&dir.path().join("train.jsonl.gz"), &row("a"));
    let message = message(read(dir.path()));
    assert!(message.contains("train.jsonl and train.jsonl.gz look like the same data twice"), "{message}");
}

#[cfg(unix)]
#[test]
fn links_to_nothing_and_pipes_are_refused_at_once() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), "a.jsonl", row("a"));
    std::os::unix::fs::symlink(dir.path().join("gone"), dir.path().join("b.jsonl")).unwrap();
    let dangling = message(read(dir.path()));
    assert!(dangling.contains("b.jsonl: is a link to a file that is not there"), "{dangling}");
    std::fs::remove_file(dir.path().join("b.jsonl")).unwrap();
    std::os::unix::fs::symlink(dir.path(), dir.path().join("loop")).unwrap();
    let looped = message(read(dir.path()));
    assert!(looped.contains("a loop of links"), "{looped}");
    let pipe = dir.path().join("p.jsonl");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Opening it would wait for a writer.
    let refused = message(read(&pipe));
    let stdin = message(read(Path::new("-")));
    assert!(stdin.contains("not from standard input"), "{stdin}");
    assert!(refused.contains("p.jsonl: is a pipe or a device, and data is read more than once"), "{refused}");
}

#[test]
fn columns_between_commas_and_tabs() {
    let dir = TempDir::new().unwrap();
    let csv = "\u{feff}query,positive,negatives,pos_scores,neg_scores,lang,id\r\n\
               \"a, \"\"b\"\"\nc\",p,\"[\"\"n\"\",\"\"m\"\"]\",0.5,\"[1, 2]\",en,007\r\n\
               [x],p,,,,,\r\n";
    let (groups, notes) = read(&write(dir.path(), "a.csv", csv)).unwrap();
    assert_eq!(groups[0].queries[0].text, "a, \"b\"\nc");
    assert_eq!((groups[0].id.as_str(), groups[0].queries[0].lang.as_str()), ("007", "en"));
    assert_eq!(groups[0].negatives.iter().map(|text| text.text.as_str()).collect::<Vec<_>>(), ["n", "m"]);
    assert_eq!(groups[1].queries[0].text, "[x]");
    assert_eq!((groups[1].negatives.len(), groups[1].id.as_str()), (0, "a.csv:4"));
    assert_eq!(notes.lines(), [""; 0]);

    let tsv = "\"quoted\" q\tp\tn\nq2\tp2\tn2\n";
    let (groups, notes) = read(&write(dir.path(), "triples.tsv", tsv)).unwrap();
    assert_eq!(groups[0].queries[0].text, "\"quoted\" q");
    assert_eq!((groups.len(), groups[1].negatives[0].text.as_str()), (2, "n2"));
    assert_eq!(notes.lines(), ["1 file without a header: read as query, positive, negative"]);
    let slip = message(read(&write(dir.path(), "slip.tsv", "qeury\tpositive\na\tb\n")));
    assert!(slip.contains("slip.tsv, line 2: no query"), "{slip}");
}

#[test]
fn a_quote_without_an_end_is_an_error() {
    let dir = TempDir::new().unwrap();
    let open = message(read(&write(dir.path(), "open.csv", "query,positive\na,b\nc,\"d\ne,f\ng,h\n")));
    assert!(open.contains("open.csv, line 3: a quote that opens in this row is not closed"), "{open}");
    // One in the middle of a cell opens nothing.
    for text in ["query,positive\na 5\" pipe,b\nc,d\n", "query,positive\na,\"b\nb\"\n"] {
        assert!(read(&write(dir.path(), "good.csv", text)).is_ok(), "{text}");
    }
}

/// Rows as `datasets` writes them: strings, a list of strings, and texts by language.
pub fn parquet_file(path: &Path, schema: &str, columns: &[(&[&str], &[i16], &[i16])]) {
    use parquet::data_type::{ByteArray, ByteArrayType};
    use parquet::file::writer::SerializedFileWriter;
    let schema = parquet::schema::parser::parse_message_type(schema).unwrap();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema.into(), Default::default()).unwrap();
    let mut rows = writer.next_row_group().unwrap();
    for (values, definition, repetition) in columns {
        let mut column = rows.next_column().unwrap().unwrap();
        let values: Vec<ByteArray> = values.iter().map(|text| ByteArray::from(*text)).collect();
        column.typed::<ByteArrayType>().write_batch(&values, Some(definition), Some(repetition)).unwrap();
        column.close().unwrap();
    }
    rows.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn parquet_rows() {
    let dir = TempDir::new().unwrap();
    let schema = "message m { optional binary query (UTF8); optional binary positive (UTF8);
        optional group negatives (LIST) { repeated group list { optional binary element (UTF8); } } }";
    let columns: [(&[&str], &[i16], &[i16]); 3] =
        [(&["q1", "q2"], &[1, 1], &[0, 0]), (&["p1", "p2"], &[1, 1], &[0, 0]), (&["n1", "n2"], &[3, 3, 0], &[0, 1, 0])];
    parquet_file(&dir.path().join("a.parquet"), schema, &columns);
    let (groups, _) = read(dir.path()).unwrap();
    let negatives = |group: &Group| group.negatives.iter().map(|text| text.text.clone()).collect::<Vec<_>>();
    assert_eq!((groups[0].queries[0].text.as_str(), negatives(&groups[0])), ("q1", vec!["n1".into(), "n2".into()]));
    assert_eq!((groups[1].positives[0].text.as_str(), negatives(&groups[1])), ("p2", vec![]));
}

#[test]
fn parquet_rows_in_parallel() {
    let dir = TempDir::new().unwrap();
    let schema = "message m { optional group query { optional binary en (UTF8); optional binary sw (UTF8); }
        optional group positive { optional binary en (UTF8); optional binary sw (UTF8); } }";
    let columns: [(&[&str], &[i16], &[i16]); 4] = [
        (&["q"], &[2, 1], &[0, 0]),
        (&["s", "t"], &[2, 2], &[0, 0]),
        (&["p", "r"], &[2, 2], &[0, 0]),
        (&[], &[1, 1], &[0, 0]),
    ];
    parquet_file(&dir.path().join("a.parquet"), schema, &columns);
    let source = DataSource::new(dir.path());
    assert_eq!(source.resolve().unwrap().format(), DataFormat::Parallel);
    let (groups, _) = source.read_groups().unwrap();
    let langs =
        |group: &Group| group.queries.iter().map(|text| format!("{} {}", text.lang, text.text)).collect::<Vec<_>>();
    assert_eq!((langs(&groups[0]), langs(&groups[1])), (vec!["en q".into(), "sw s".into()], vec!["sw t".into()]));
}

/// What `Dataset.save_to_disk` leaves, beside the same rows as Parquet: all types of columns, two files of a part, batches.
#[test]
fn a_saved_dataset_is_read_as_its_parquet_is() {
    let saved = |name: &str, purpose| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/datasets").join(name);
        DataSource { purpose, ..DataSource::new(path) }.read_groups().unwrap()
    };
    for (purpose, n) in [(Purpose::Training, 7), (Purpose::Test, 2)] {
        let [(arrow, said), (parquet, _)] = ["saved", "parquet"].map(|name| saved(name, purpose));
        assert_eq!(arrow, parquet);
        assert_eq!(arrow.len(), n);
        let negatives: Vec<_> = arrow.iter().map(|group| group.negatives.len()).collect();
        assert_eq!(negatives, if n == 7 { vec![0, 1, 2, 0, 1, 2, 0] } else { vec![1, 2] });
        let with_times = if n == 7 { "4 rows" } else { "1 row" };
        assert_eq!(*said.lines().last().unwrap(), format!("columns not used: seen ({with_times})"));
    }
    let (groups, _) = saved("parallel", Purpose::Training);
    let queries: Vec<_> = groups[1].queries.iter().map(|text| (text.lang.as_str(), text.text.as_str())).collect();
    assert_eq!(queries, [("en", "b question"), ("sw", "swali")]);
    assert_eq!(groups[0].positives.len() + groups[1].positives.len(), 3);
}

/// Cut anywhere, a file is either refused or, where a batch ends, shorter.
#[test]
fn a_damaged_arrow_file_is_an_error() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/datasets/saved/test/data-00000-of-00001.arrow");
    let whole = std::fs::read(path).unwrap();
    let dir = TempDir::new().unwrap();
    let mut refused = 0;
    for len in (8..whole.len() - 8).step_by(7) {
        let cut = dir.path().join("a.arrow");
        std::fs::write(&cut, &whole[..len]).unwrap();
        match read(&cut) {
            Ok((groups, _)) => assert!(groups.len() == 2, "{len}: {}", groups.len()),
            Err(error) => {
                refused += 1;
                assert!(error.to_string().contains("a.arrow"), "{error}");
            }
        }
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn divided_data_trains_on_its_part_and_says_so() {
    let dir = TempDir::new().unwrap();
    for (name, word) in
        [("train.jsonl", "a"), ("de_train.jsonl", "b"), ("dev/x.jsonl", "c"), ("test.jsonl", "d"), ("more.jsonl", "e")]
    {
        write(dir.path(), name, row(word));
    }
    let of = |purpose| {
        let source = DataSource { purpose, ..DataSource::new(dir.path()) };
        let (groups, notes) = source.read_groups().unwrap();
        assert_eq!(notes.lines().pop().unwrap(), "files not used: more.jsonl", "of no part");
        (groups.into_iter().map(|group| group.queries[0].text.clone()).collect::<String>(), notes.lines().remove(0))
    };
    let said = |part: &str, n: usize| format!("{part} part: {n} of 5 files (split = \"all\" takes every file)");
    assert_eq!(of(Purpose::Training), ("ba".into(), said("train", 2)));
    assert_eq!(of(Purpose::Validation), ("c".into(), said("validation", 1)));
    assert_eq!(of(Purpose::Test), ("d".into(), said("test", 1)));
    // A training part alone is all there is.
    let alone = TempDir::new().unwrap();
    write(alone.path(), "train.jsonl", row("a"));
    write(alone.path(), "more.jsonl", row("b"));
    assert_eq!(queries(alone.path()), ["b", "a"]);
}

fn squad_file(id: &str, answers: &str, more: &str) -> String {
    format!(
        r#"{{"data": [{{"title": "T", "paragraphs": [{{"context": "Ein Öl. Zwei Öfen.", "qas": [
            {{"id": {id}, "question": "was?", "answers": {answers}{more}}},
            {{"id": "x", "question": "wie?", "answers": [{{"text": "Zwei", "answer_start": 8}}]}}]}}]}}]}}"#
    )
}

fn paragraphs(path: &Path) -> hbt::Result<(Vec<Group>, Notes)> {
    DataSource { passage_unit: PassageUnit::Paragraph, ..DataSource::new(path) }.read_groups()
}

#[test]
fn squad_as_it_is_published() {
    let dir = TempDir::new().unwrap();
    let one = r#"[{"text": "Öl", "answer_start": 4}]"#;
    for (id, answers, more, ids) in [
        ("7", one, "", vec!["7", "x"]),
        ("12345678901234567890123", one, "", vec!["12345678901234567890123", "x"]),
        ("null", one, "", vec!["de.json:1.1.1", "x"]),
        ("\"1\"", r#"{"text": ["Öl"], "answer_start": [4]}"#, "", vec!["1", "x"]),
        ("\"1\"", r#"{"text": [], "answer_start": []}"#, "", vec!["x"]),
        ("\"1\"", r#"[{"text": "", "answer_start": -1}]"#, "", vec!["x"]),
        ("\"1\"", "null", "", vec!["x"]),
        ("\"1\"", "[]", "", vec!["x"]),
        ("\"1\"", one, ", \"is_impossible\": true", vec!["x"]),
    ] {
        let path = write(dir.path(), "de.json", squad_file(id, answers, more));
        let (groups, notes) = paragraphs(&path).unwrap_or_else(|e| panic!("{id} {answers}: {e}"));
        assert_eq!(groups.iter().map(|group| group.id.as_str()).collect::<Vec<_>>(), ids);
        let said = if ids.len() == 1 { vec!["1 question left out: no answer in the data"] } else { vec![] };
        assert_eq!(notes.lines(), said);
    }
}

#[test]
fn offsets_are_compared_with_their_answers() {
    let dir = TempDir::new().unwrap();
    let context = "\u{a0} Ein 😀 Öl. Zwei Öfen.";
    // Offsets of "Öl" and of "Zwei": code points, bytes, UTF-16, and code points behind the white space.
    for (first, second, way) in [
        (8, 12, None),
        (12, 17, Some("bytes")),
        (9, 13, Some("UTF-16 units")),
        (6, 10, Some("code points without the white space that the paragraph begins with")),
    ] {
        let text = squad_file("1", r#"[{"text": "Öl", "answer_start": FIRST}]"#, "")
            .replace("Ein Öl. Zwei Öfen.", context)
            .replace("\"answer_start\": 8}", &format!("\"answer_start\": {second}}}"))
            .replace("FIRST", &first.to_string());
        let path = write(dir.path(), "de.json", text);
        let mut notes = Notes::default();
        let articles = squad::read_language(&path, &mut notes).unwrap();
        let starts: Vec<_> = articles[0].paragraphs[0].questions.iter().map(|of| of.answer_start.unwrap()).collect();
        assert_eq!(starts, [8, 12]);
        let said = way.map(|way| format!("2 offsets mended: answer_start counts {way}"));
        assert_eq!(notes.lines(), said.into_iter().collect::<Vec<_>>());
    }
    let zero = squad_file("1", r#"[{"text": "Öl", "answer_start": 0}]"#, "");
    let refused = message(paragraphs(&write(dir.path(), "de.json", zero)));
    assert!(
        refused.contains(
            "article \"T\", question 1: its answer \"Öl\" is not at answer_start 0, and 1 of 2 answers are not"
        ),
        "{refused}"
    );
}

#[test]
fn squad_files_are_named_by_language() {
    let one = squad_file("\"1\"", r#"[{"text": "Öl", "answer_start": 4}]"#, "");
    let dir = TempDir::new().unwrap();
    for name in ["pt-br.json", "EN.json", "sr-latn.json", "deu.json", "yue.json"] {
        write(dir.path(), name, &one);
    }
    gzip(&dir.path().join("fr.json.gz"), &one);
    std::fs::write(dir.path().join("sw.json.zst"), zstd::encode_all(one.as_bytes(), 1).unwrap()).unwrap();
    let languages: Vec<String> = squad::languages(dir.path()).unwrap().into_iter().map(|(lang, _)| lang).collect();
    assert_eq!(languages, ["de", "en", "fr", "pt-BR", "sr-Latn", "sw", "yue"]);
    let both = write(dir.path(), "pt_BR.json", &one);
    let twice = message(squad::languages(dir.path()));
    assert!(twice.contains("pt-br.json and pt_BR.json are both in pt-BR"), "{twice}");
    std::fs::remove_file(both).unwrap();
    for name in ["english.json", "fr.squad.json", "tr-train.json"] {
        let path = write(dir.path(), name, &one);
        let message = message(squad::languages(dir.path()));
        assert!(message.contains(name) && message.contains("named after its language, such as en.json"), "{message}");
        // By itself it can only be one.
        assert_eq!(squad::languages(&path).unwrap()[0].0, "und");
        std::fs::remove_file(path).unwrap();
    }
    let mixed = write(dir.path(), "rows.jsonl", row("a"));
    let message = message(squad::languages(dir.path()));
    assert!(message.contains("is in SQuAD layout and rows.jsonl is not; keep them apart"), "{message}");
    std::fs::remove_file(mixed).unwrap();
}

#[test]
fn beir_directories_are_training_data() {
    let dir = TempDir::new().unwrap();
    let corpus = "{\"_id\": \"1\", \"title\": \"T\", \"text\": \"a\"}\n{\"_id\": \"2\", \"title\": \"\", \"text\": \"b\"}\n\
                  {\"_id\": \"3\", \"text\": \"c\"}\n";
    for lang in ["de", "yue"] {
        write(dir.path(), &format!("{lang}/corpus.jsonl"), corpus);
        write(dir.path(), &format!("{lang}/queries.jsonl"), format!("{{\"_id\": \"q\", \"text\": \"{lang}?\"}}\n"));
        write(dir.path(), &format!("{lang}/qrels/train.tsv"), "query-id\tcorpus-id\tscore\nq\t1\t2\nq\t3\t0\n");
        write(dir.path(), &format!("{lang}/qrels/test.tsv"), "q 0 2 1\n");
    }
    let source = DataSource::new(dir.path());
    assert_eq!(source.resolve().unwrap().format(), DataFormat::Beir);
    let (groups, notes) = source.read_groups().unwrap();
    let words = |of: &[hbt::data::formats::Text]| {
        of.iter().map(|text| format!("{}:{}", text.lang, text.text)).collect::<Vec<_>>().join(" ")
    };
    let all: Vec<_> =
        groups.iter().map(|of| [words(&of.queries), words(&of.positives), words(&of.negatives)]).collect();
    assert_eq!(all, [["de:de?", "de:T a", "de:c"], ["yue:yue?", "yue:T a", "yue:c"]]);
    let apart = "1 id shared by several questions or languages, which stay apart; join_by_id = true makes them versions of \
                 one question";
    assert_eq!(notes.lines(), ["train part: 2 of 4 files (split = \"all\" takes every file)", apart]);

    let one = DataSource { purpose: Purpose::Test, ..DataSource::new(dir.path().join("de")) };
    let (groups, _) = one.read_groups().unwrap();
    assert_eq!((words(&groups[0].positives), groups[0].negatives.len()), ("de:b".into(), 0));

    write(dir.path(), "de/qrels/train.tsv", "query-id\tcorpus-id\tscore\nq\t9\t1\n");
    let missing = message(source.read_groups());
    assert!(
        missing.contains("train.tsv, line 2: judges document \"9\", which de/corpus.jsonl does not have"),
        "{missing}"
    );
    write(dir.path(), "de/qrels/train.tsv", "query-id\tcorpus-id\tscore\nq\t1\tgood\n");
    let no_grade = message(source.read_groups());
    assert!(no_grade.contains("train.tsv, line 2: the score \"good\" is no whole number"), "{no_grade}");
    let refused = message(hbt::eval::tasks::parallel::load(&source));
    assert!(refused.contains("is in BEIR's layout, and") && refused.contains("the task retrieval"), "{refused}");
}
