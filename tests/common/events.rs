//! TensorBoard's event files as text, without their times: the reader that `src/train/tensorboard.rs` writes for, as far as
//! tests need it. Checksums are for `tests/fixtures/tensorboard_read.py`.

/// A line `STEP TAG VALUE` for every scalar of an event file. The speed, which no two runs share, has no value.
///
/// # Panics
/// If the file is not made of whole records.
pub fn in_words(mut file: &[u8]) -> String {
    let mut words = String::new();
    while !file.is_empty() {
        let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        let event = fields(&file[12..12 + length]);
        file = &file[12 + length + 4..];
        let step = event.iter().find(|(number, _)| *number == 2).map_or(0, |(_, step)| step.number());
        for (_, summary) in event.iter().filter(|(number, _)| *number == 5) {
            for (_, scalar) in fields(summary.bytes()) {
                let scalar = fields(scalar.bytes());
                let [(1, tag), (2, value)] = &scalar[..] else { panic!("a tag and a value") };
                let tag = std::str::from_utf8(tag.bytes()).unwrap();
                let value = f32::from_le_bytes(value.bytes().try_into().unwrap());
                let value = if tag.ends_with("per_second") { String::new() } else { value.to_string() };
                words += &format!("{step} {tag} {value}\n");
            }
        }
    }
    words
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl Field<'_> {
    fn number(&self) -> u64 {
        let Field::Number(number) = self else { panic!("bytes") };
        *number
    }

    fn bytes(&self) -> &[u8] {
        let Field::Bytes(bytes) = self else { panic!("a number") };
        bytes
    }
}

/// The fields of a protobuf message by their numbers.
fn fields(mut message: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message);
        let length = match key & 7 {
            0 => {
                fields.push((key >> 3, Field::Number(varint(&mut message))));
                continue;
            }
            1 => 8,
            5 => 4,
            2 => varint(&mut message) as usize,
            other => panic!("wire type {other}"),
        };
        let (bytes, rest) = message.split_at(length);
        fields.push((key >> 3, Field::Bytes(bytes)));
        message = rest;
    }
    fields
}

fn varint(message: &mut &[u8]) -> u64 {
    let mut value = 0;
    for at in 0.. {
        let byte = message[at];
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            *message = &message[at + 1..];
            break;
        }
    }
    value
}
