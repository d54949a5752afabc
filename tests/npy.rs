//! The `.npy` writer and reader against the format's description.

use hbt::npy::{NpyReader, NpyWriter};
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

/// A file as numpy writes it: magic, version, length of the header, header, values.
fn npy(version: u8, dict: &str, values: &[u8]) -> Vec<u8> {
    let mut header = dict.to_owned() + " \n";
    while !(header.len() + if version == 1 { 10 } else { 12 }).is_multiple_of(64) {
        header.insert(dict.len(), ' ');
    }
    let mut bytes = [b"\x93NUMPY".as_slice(), &[version, 0]].concat();
    match version {
        1 => bytes.extend((header.len() as u16).to_le_bytes()),
        _ => bytes.extend((header.len() as u32).to_le_bytes()),
    }
    [bytes, header.into_bytes(), values.to_vec()].concat()
}

#[test]
fn rows_of_every_width_are_read_from_any_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.npy");
    let values = [1.0f32, -2.5, 0.0, 7.0, 8.5, -0.125];
    let wide: Vec<u8> = values.iter().flat_map(|x| f64::from(*x).to_le_bytes()).collect();
    let usual: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    // 1, -2.5, 0, 7, 8.5, -0.125 in binary16.
    let narrow: Vec<u8> =
        [0x3c00u16, 0xc100, 0x0000, 0x4700, 0x4840, 0xb000].iter().flat_map(|x| x.to_le_bytes()).collect();
    for (version, kind, bytes) in [(1, "<f8", wide), (2, "<f4", usual), (3, "<f2", narrow)] {
        let dict = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': (3, 2), }}");
        fs::write(&path, npy(version, &dict, &bytes)).unwrap();
        let mut reader = NpyReader::open(&path).unwrap();
        assert_eq!((reader.n_rows(), reader.dim()), (3, 2));
        let mut out = vec![9.0];
        reader.read_rows(1, 2, &mut out).unwrap();
        reader.read_rows(0, 1, &mut out).unwrap();
        assert_eq!(out, [9.0, 0.0, 7.0, 8.5, -0.125, 1.0, -2.5], "{kind}");
        let message = reader.read_rows(2, 2, &mut out).unwrap_err().to_string();
        assert!(message.ends_with("rows.npy: has 3 rows, and row 4 is wanted; it belongs to other texts"), "{message}");
    }
}

#[test]
fn files_that_are_no_matrix_of_floats_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.npy");
    let dict = |kind: &str, order: &str, shape: &str| {
        format!("{{'descr': '{kind}', 'fortran_order': {order}, 'shape': {shape}, }}").into_bytes()
    };
    let of = |dict: Vec<u8>| npy(1, std::str::from_utf8(&dict).unwrap(), &[0; 24]);
    let cases = [
        (b"text".to_vec(), "is not an .npy file; write it with numpy.save"),
        (b"\x93NUMPY\x01\x00\xff\xff{".to_vec(), "is not an .npy file; write it with numpy.save"),
        (of(dict("<i8", "False", "(3, 1)")), "holds '<i8'; save it as numpy.float32"),
        (of(dict(">f4", "False", "(3, 2)")), "holds '>f4'; save it as numpy.float32"),
        (of(dict("<f4", "True", "(3, 2)")), "is not one matrix with a row a text; save numpy.ascontiguousarray of it"),
        (of(dict("<f4", "False", "(6,)")), "is not one matrix with a row a text; save numpy.ascontiguousarray of it"),
        (of(dict("<f4", "False", "(4, 2)")), "has 152 bytes, too few for (4, 2); save it again"),
        (of(dict("<f4", "False", "(4611686018427387904, 4)")), "too few for (4611686018427387904, 4); save it again"),
        (of(dict("<f4", "False", "(3, 0)")), "has rows of no values, (3, 0); save embeddings in it"),
    ];
    for (bytes, expected) in cases {
        fs::write(&path, bytes).unwrap();
        let message = NpyReader::open(&path).err().unwrap().to_string();
        assert!(message.contains("rows.npy: ") && message.ends_with(expected), "{message}");
    }
}
