//! What hbt knows as its own: no single byte can change without being found.

use hbt::files::owned::{MANIFEST, Manifest, is_marked, keep_foreign, marked, refuse_foreign_directory};
use std::fs;

const TEXT: &str = "# a comment\nsteps = 7\nout = \"run\"\n";

#[test]
fn every_changed_byte_of_a_manifest_is_found() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("1_Pooling")).unwrap();
    fs::write(root.path().join("model.safetensors"), "weights").unwrap();
    fs::write(root.path().join("1_Pooling/config.json"), "{}").unwrap();
    Manifest::write(root.path()).unwrap();
    let whole = Manifest::read(root.path()).unwrap().unwrap();
    whole.verify("copy it").unwrap();
    let path = root.path().join(MANIFEST);
    let bytes = fs::read(&path).unwrap();
    let mut n_found = 0;
    for (at, bit) in (0..bytes.len()).flat_map(|at| [1, 4, 32, 128].map(|bit| (at, bit))) {
        let mut changed = bytes.clone();
        changed[at] ^= bit;
        fs::write(&path, changed).unwrap();
        match Manifest::read(root.path()) {
            // Between the parts of it, a line feed may be another blank.
            Ok(read) => assert!(bytes[at].is_ascii_whitespace() && read == Some(whole.clone()), "byte {at}"),
            Err(error) => {
                let message = error.to_string();
                assert!(message.starts_with(&format!("{}: ", path.display())), "{message}");
                n_found += 1;
            }
        }
    }
    assert!(n_found > 3 * bytes.len(), "{n_found} of {}", 4 * bytes.len());
}

#[test]
fn every_changed_byte_of_a_marked_text_is_found() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("config.toml");
    let text = marked(TEXT);
    assert!(text.ends_with(TEXT) && text.starts_with("# "), "{text}");
    assert!(!is_marked(&path).unwrap(), "there is none");
    fs::write(&path, &text).unwrap();
    assert!(is_marked(&path).unwrap());
    for at in 0..text.len() {
        let mut changed = text.clone().into_bytes();
        changed[at] ^= 1;
        fs::write(&path, changed).unwrap();
        assert!(!is_marked(&path).unwrap(), "byte {at}");
    }
    for other in [TEXT, "", &text[..text.len() - 1], &format!("{text}\n"), &format!("\n{text}")] {
        fs::write(&path, other).unwrap();
        assert!(!is_marked(&path).unwrap(), "{other:?}");
    }
}

#[test]
fn files_of_others_are_known_and_kept() {
    let root = tempfile::tempdir().unwrap();
    let (old, new) = (root.path().join("old"), root.path().join("new"));
    for directory in [&old, &new] {
        fs::create_dir(directory).unwrap();
        refuse_foreign_directory(directory).unwrap();
    }
    fs::write(old.join("notes.txt"), "years").unwrap();
    let message = refuse_foreign_directory(&old).unwrap_err().to_string();
    assert!(message.starts_with(&format!("{}: is not empty", old.display())), "{message}");
    fs::remove_file(old.join("notes.txt")).unwrap();

    for (directory, text) in [(&old, "1"), (&new, "2")] {
        fs::write(directory.join("model"), text).unwrap();
        Manifest::write(directory).unwrap();
    }
    fs::create_dir(old.join("onnx")).unwrap();
    fs::write(old.join("onnx/model"), "export").unwrap();
    refuse_foreign_directory(&old).unwrap();
    keep_foreign(&old, &new).unwrap();
    let read = |name: &str| fs::read_to_string(new.join(name)).unwrap();
    assert_eq!((read("model"), read("onnx/model")), ("2".to_owned(), "export".to_owned()));
    Manifest::read(&new).unwrap().unwrap().verify("copy it").unwrap();
}
