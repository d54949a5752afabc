//! A file is written beside its target and then takes its name: what may be replaced, and what is left.

use crate::common::fifo;
use hbt::files::{NewFile, write_file_atomic};
use std::fs;
use std::io::Write;
use std::path::Path;

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[cfg(unix)]
#[test]
fn a_link_stays_a_link() {
    use std::os::unix::fs::symlink;
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    fs::create_dir(at("disk")).unwrap();
    fs::write(at("disk/old"), "old").unwrap();
    // To a file, by another link, and to a file that is not there yet.
    for (link, to) in [("one", "disk/old"), ("two", "one"), ("new", "disk/absent")] {
        symlink(to, at(link)).unwrap();
    }
    for (link, file) in [("one", "disk/old"), ("two", "disk/old"), ("new", "disk/absent")] {
        write_file_atomic(&at(link), link.as_bytes()).unwrap();
        assert_eq!(read(&at(file)), link);
        assert!(at(link).is_symlink() && !at(file).is_symlink(), "{link}");
    }
    assert_eq!(names(root.path()), ["disk", "new", "one", "two"]);
    assert_eq!(names(&at("disk")), ["absent", "old"]);

    symlink("b", at("a")).unwrap();
    symlink("a", at("b")).unwrap();
    let message = NewFile::create(&at("a")).err().unwrap().to_string();
    assert!(message.starts_with(&format!("cannot create {}: ", at("a").display())), "{message}");
}

#[cfg(unix)]
#[test]
fn only_files_are_replaced() {
    use std::os::unix::fs::{FileTypeExt, symlink};
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    fifo(&at("pipe"));
    symlink("pipe", at("to_pipe")).unwrap();
    fs::write(at("file"), "old").unwrap();
    for (name, message) in [
        ("pipe", "is a pipe or device, and only files are replaced; name a file"),
        ("to_pipe", "is a pipe or device, and only files are replaced; name a file"),
        ("", "is a directory; name a file in it"),
        ("no/file", &format!("there is no directory {}; create it first", at("no").display())),
    ] {
        let error = write_file_atomic(&at(name), b"new").unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: {message}", at(name).display())), "{error}");
    }
    let below = write_file_atomic(&at("file/below"), b"new").unwrap_err().to_string();
    assert!(below.starts_with(&format!("cannot create {}: ", at("file/below").display())), "{below}");
    let dash = write_file_atomic(Path::new("-"), b"new").unwrap_err().to_string();
    assert_eq!(dash, "-: does not mean standard output here; name a file, ./- for one of this name");
    assert_eq!(names(root.path()), ["file", "pipe", "to_pipe"]);
    assert!(fs::metadata(at("pipe")).unwrap().file_type().is_fifo());
    assert_eq!(read(&at("file")), "old");
}

#[test]
fn what_a_killed_process_left_hinders_nobody() {
    let root = tempfile::tempdir().unwrap();
    let (file, left) = (root.path().join("rows"), root.path().join(".rows.hbt-tmp"));
    fs::write(&left, "more of it than is written now").unwrap();
    let mut new = NewFile::create(&file).unwrap();
    new.write_all(b"whole").unwrap();
    new.persist().unwrap();
    assert_eq!((read(&file), names(root.path())), ("whole".to_owned(), vec!["rows".to_owned()]));

    fs::write(&left, "").unwrap();
    NewFile::check(&file).unwrap();
    assert_eq!((read(&file), names(root.path())), ("whole".to_owned(), vec!["rows".to_owned()]));
}

#[test]
fn two_writers_of_one_file_do_not_mix() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("rows");
    let mut first = NewFile::create(&file).unwrap();
    first.write_all(b"first").unwrap();
    let message = NewFile::create(&file).err().unwrap().to_string();
    let expected = "is being written by another process; wait for it or name another file";
    assert_eq!(message, format!("{}: {expected}", file.display()));
    first.persist().unwrap();
    assert_eq!(read(&file), "first");
    write_file_atomic(&file, b"second").unwrap();
    assert_eq!((read(&file), names(root.path())), ("second".to_owned(), vec!["rows".to_owned()]));
}

/// Whoever needs a shared directory makes it, as many as want to at once; what is not whole is made again.
#[test]
fn a_shared_directory_is_made_by_any_number_at_once() {
    use hbt::files::share_directory;
    let root = tempfile::tempdir().unwrap();
    let target = &root.path().join("cache/model-1");
    let is_whole =
        |dir: &Path| ["a", "b"].iter().all(|name| fs::read(dir.join(name)).is_ok_and(|text| text == b"whole"));
    let fill = |dir: &Path| {
        for name in ["a", "b"] {
            fs::write(dir.join(name), "whole").unwrap();
            std::thread::yield_now();
        }
        Ok(())
    };
    let together = || {
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..8).map(|_| scope.spawn(|| share_directory(target, is_whole, fill))).collect();
            for one in all {
                one.join().unwrap().unwrap();
                assert!(is_whole(target));
            }
        });
        assert_eq!(names(&root.path().join("cache")), ["model-1"]);
    };
    for _ in 0..50 {
        let _ = fs::remove_dir_all(target);
        together();
        // Torn by a crash, emptied by hand, a file where a directory should be.
        fs::write(target.join("b"), "who").unwrap();
        together();
        fs::remove_file(target.join("a")).unwrap();
        together();
        fs::remove_dir_all(target).unwrap();
        fs::write(target, "a file").unwrap();
        together();
    }
    // What a killed process has left goes with the next one; what another is writing stays.
    for name in [".model-1.77-0.hbt-own", ".model-1.78-0.hbt-own"] {
        fs::create_dir(root.path().join("cache").join(name)).unwrap();
    }
    let other = fs::File::open(root.path().join("cache/.model-1.78-0.hbt-own")).unwrap();
    other.lock().unwrap();
    fs::remove_file(target.join("a")).unwrap();
    share_directory(target, is_whole, fill).unwrap();
    assert_eq!(names(&root.path().join("cache")), [".model-1.78-0.hbt-own", "model-1"]);
    // Nothing is written where nothing has to be, and what was left goes all the same.
    drop(other);
    share_directory(target, is_whole, |_| panic!("it is whole")).unwrap();
    assert_eq!(names(&root.path().join("cache")), ["model-1"]);
}
