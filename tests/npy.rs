//! The `.npy` writer against the format's description.

use hbt::npy::NpyWriter;
use std::fs;

#[test]
fn header_and_values_parse_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("embeddings.npy");
    let mut writer = NpyWriter::create(&path, 3).unwrap();
    writer.write_rows(&[1.0, -2.5, 3.0e-8]).unwrap();
    writer.write_rows(&[]).unwrap();
    writer.write_rows(&[0.0, f32::MAX, -0.0, 7.0, 8.0, 9.0]).unwrap();
    writer.finish().unwrap();

    let bytes = fs::read(&path).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let header_len = usize::from(bytes[8]) + 256 * usize::from(bytes[9]);
    let start = 10 + header_len;
    assert_eq!(start % 64, 0, "values start at a multiple of 64");
    let header = std::str::from_utf8(&bytes[10..start]).unwrap();
    assert_eq!(header.trim_end_matches([' ', '\n']), "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 3), }");
    assert!(header.ends_with('\n'));
    let values: Vec<f32> = bytes[start..].chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(values, [1.0, -2.5, 3.0e-8, 0.0, f32::MAX, -0.0, 7.0, 8.0, 9.0]);
}

#[test]
fn an_unfinished_file_leaves_nothing_behind_and_keeps_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("embeddings.npy");
    fs::write(&path, "old").unwrap();
    let mut writer = NpyWriter::create(&path, 2).unwrap();
    writer.write_rows(&[1.0, 2.0]).unwrap();
    drop(writer);
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn no_rows_are_an_empty_array() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("empty.npy");
    NpyWriter::create(&path, 384).unwrap().finish().unwrap();
    let bytes = fs::read(&path).unwrap();
    assert!(String::from_utf8_lossy(&bytes).contains("'shape': (0, 384)"));
    assert_eq!(bytes.len(), 128);
}

#[test]
fn a_missing_folder_is_an_error_that_names_the_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nowhere").join("embeddings.npy");
    let message = NpyWriter::create(&path, 2).err().unwrap().to_string();
    let folder = path.parent().unwrap().display();
    assert_eq!(message, format!("{}: there is no directory {folder}; create it first", path.display()));
}

#[cfg(unix)]
#[test]
fn the_file_is_as_readable_as_any_new_file() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (path, other) = (folder.path().join("embeddings.npy"), folder.path().join("plain"));
    NpyWriter::create(&path, 2).unwrap().finish().unwrap();
    fs::write(&other, "").unwrap();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&path), mode(&other));
}
