//! Lines of metrics as TensorBoard's events: the same curves, in the format that its readers take.
//!
//! An event file is a sequence of records (TFRecord: length, checksum of the length, data, checksum of the data), each of
//! which holds a protobuf message `Event` (`tensorflow/core/util/event.proto`). Of its fields four are needed, and of
//! `Summary` two, which are written here by hand: a library that knows all of protobuf would come with a compiler of its own.
//!
//! An event is a function of its line and of the times of the lines before it, so that the file can be made again from
//! `metrics.jsonl` at any time.

use serde_json::{Map, Value};

/// The first record: the version of the format, and who wrote it.
pub(super) fn header() -> Vec<u8> {
    // Its time is 0, and what is 0 protobuf leaves out.
    let mut event = Vec::new();
    bytes(&mut event, 3, b"brain.Event:2");
    let mut writer = Vec::new();
    bytes(&mut writer, 1, b"hbt");
    bytes(&mut event, 10, &writer);
    record(&event)
}

/// The record of a line of metrics, `seconds` after the run began: every number in it, under the name of the evaluation or,
/// where there is but one, of its task, else under `train`.
pub(super) fn event(line: &Map<String, Value>, seconds: f64) -> Vec<u8> {
    let group = line.get("evaluation").or_else(|| line.get("task")).and_then(Value::as_str).unwrap_or("train");
    let mut summary = Vec::new();
    for (name, value) in scalars(line) {
        let mut scalar = Vec::new();
        bytes(&mut scalar, 1, format!("{group}/{name}").as_bytes());
        // simple_value, which is a float.
        key(&mut scalar, 2, 5);
        scalar.extend((value as f32).to_le_bytes());
        bytes(&mut summary, 1, &scalar);
    }
    let mut event = Vec::new();
    if seconds > 0.0 {
        key(&mut event, 1, 1);
        event.extend(seconds.to_le_bytes());
    }
    if let Some(step) = line.get("step").and_then(Value::as_u64).filter(|step| *step > 0) {
        key(&mut event, 2, 0);
        varint(&mut event, step);
    }
    bytes(&mut event, 5, &summary);
    record(&event)
}

/// The curves that a line has a point of: its numbers, with a speed in the place of the step's time.
fn scalars(line: &Map<String, Value>) -> Vec<(&str, f64)> {
    let number = |name: &str| line.get(name).and_then(Value::as_f64);
    let named = line.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_f64()?)));
    let mut scalars: Vec<(&str, f64)> = named.filter(|(name, _)| !["step", "seconds"].contains(name)).collect();
    if let (Some(tokens), Some(seconds)) = (number("tokens"), seconds_of(line)) {
        scalars.push(("tokens_per_second", tokens / seconds));
    }
    scalars
}

/// How long the step of a line took, if it is of one.
pub(super) fn seconds_of(line: &Map<String, Value>) -> Option<f64> {
    line.get("seconds").and_then(Value::as_f64).filter(|seconds| *seconds > 0.0)
}

/// A field's number and how it is written.
fn key(out: &mut Vec<u8>, field: u64, wire_type: u64) {
    varint(out, field << 3 | wire_type);
}

/// Seven bits a byte, the lowest first; all but the last byte have the eighth set.
fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A string, or a message in a message.
fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    key(out, field, 2);
    varint(out, value.len() as u64);
    out.extend(value);
}

fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked_crc(&length).to_le_bytes(), data, &masked_crc(data).to_le_bytes()].concat()
}

/// TFRecord's checksum: CRC-32C, turned and shifted, so that checksums of data with checksums in it are good ones.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli; RFC 3720, appendix B.4).
fn crc32c(data: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let (mut crc, mut bit) = (byte as u32, 0);
            while bit < 8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
                bit += 1;
            }
            table[byte] = crc;
            byte += 1;
        }
        table
    };
    !data.iter().fold(!0, |crc: u32, &byte| crc >> 8 ^ TABLE[usize::from(crc as u8 ^ byte)])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of RFC 3720, appendix B.4, and the check value that catalogues of checksums list.
    #[test]
    fn checksums_are_those_of_the_standard() {
        let ascending: Vec<u8> = (0..32).collect();
        let descending: Vec<u8> = (0..32).rev().collect();
        for (data, expected) in [
            (&[0; 32][..], 0x8a91_36aa),
            (&[0xff; 32], 0x62a8_ab43),
            (&ascending, 0x46dd_794e),
            (&descending, 0x113f_db5c),
            (b"123456789", 0xe306_9283),
            (b"", 0),
        ] {
            assert_eq!(crc32c(data), expected, "{data:?}");
        }
    }

    /// `tests/fixtures/tensorboard_events.hex` is what TensorBoard's own classes wrote of these lines.
    #[test]
    fn records_are_those_of_tensorboards_own_writer() {
        let lines = [
            r#"{"step":0,"task":"parallel","split":"all","multilingual_map":0.25,"cross_lingual_map":null,"ndcg@10":0.1}"#,
            concat!(
                r#"{"step":1,"loss":7.185666718403809,"mode":"monolingual","lang":"de","#,
                r#""learning_rate":0.0,"tokens":2375,"seconds":0.25}"#
            ),
            r#"{"step":300,"loss":0.5,"mode":"cross_lingual","learning_rate":3e-05,"tokens":100,"seconds":0.5}"#,
        ];
        let mut seconds = 0.0;
        let mut written = header();
        for line in lines {
            let line: Map<String, Value> = serde_json::from_str(line).unwrap();
            seconds += seconds_of(&line).unwrap_or(0.0);
            written.extend(event(&line, seconds));
        }
        let written: String = written.iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = include_str!("../../tests/fixtures/tensorboard_events.hex");
        assert_eq!(written, expected.split_whitespace().collect::<String>());
    }
}
