//! Lines with a checksum: what this plugin's own files are made of.

use bitcoin::hashes::{Hash, sha256};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A value as one line, line feed included.
pub(crate) fn line<T: Serialize>(value: &T) -> Vec<u8> {
    // Plain structs with text keys always serialize; an empty body would not pass the reader.
    let body = serde_json::to_string(value).unwrap_or_default();
    format!("{} {body}\n", checksum(body.as_bytes())).into_bytes()
}

/// The values of all lines, and how many bytes they take; or the number of the first damaged line. A last line without
/// its line feed is what a crash leaves of a write that nobody has acted on, and is not counted.
pub(crate) fn lines<T: DeserializeOwned>(text: &[u8]) -> Result<(Vec<T>, usize), usize> {
    let (mut values, mut length) = (Vec::new(), 0);
    for (at, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        match parse(line) {
            Some(value) => values.push(value),
            // Only the last one can be without.
            None if !line.ends_with(b"\n") => break,
            None => return Err(at + 1),
        }
        length += line.len();
    }
    Ok((values, length))
}

fn parse<T: DeserializeOwned>(line: &[u8]) -> Option<T> {
    let line = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?;
    let (sum, body) = line.split_once(' ')?;
    (sum == checksum(body.as_bytes())).then(|| serde_json::from_str(body).ok())?
}

fn checksum(body: &[u8]) -> String {
    let digest = sha256::Hash::hash(body).to_byte_array();
    hex::encode(digest.get(..8).unwrap_or_default())
}
