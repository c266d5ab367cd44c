//! Cuts lightningd's byte stream into JSON objects.
//!
//! By structure and not by the blank line that follows each message: parameters reach a plugin as the user wrote them,
//! and may hold blank lines of their own.

/// The longest message that is kept whole, in bytes; a longer one is cut, and refused later.
pub const MAX_MESSAGE: usize = 16 << 20;

/// One message: the bytes from its first `{` to the matching `}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The message; only its beginning if it is longer than [`MAX_MESSAGE`].
    pub bytes: Vec<u8>,
    /// Whether that is all of it.
    pub whole: bool,
}

/// Collects bytes until a message is complete.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
    cut: bool,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Frames {
    /// Takes the next bytes of the stream, and returns the messages that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Frame> {
        let mut frames = Vec::new();
        for &byte in bytes {
            // Between messages: only the beginning of an object means anything.
            if self.depth == 0 && byte != b'{' {
                continue;
            }
            if self.bytes.len() < MAX_MESSAGE {
                self.bytes.push(byte);
            } else {
                self.cut = true;
            }
            if self.step(byte) {
                let whole = !std::mem::take(&mut self.cut);
                frames.push(Frame { bytes: std::mem::take(&mut self.bytes), whole });
            }
        }
        frames
    }

    /// Follows the structure; true at the end of a message.
    fn step(&mut self, byte: u8) -> bool {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        self.depth == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(bytes: &[u8]) -> Vec<String> {
        let frames = Frames::default().push(bytes);
        frames.into_iter().map(|frame| String::from_utf8(frame.bytes).unwrap()).collect()
    }

    #[test]
    fn by_structure() {
        assert_eq!(all(b"{\"a\":1}\n\n{\"b\":[{}]}\n\n"), ["{\"a\":1}", "{\"b\":[{}]}"]);
        assert_eq!(all(b"{\"a\":\n\n1}"), ["{\"a\":\n\n1}"]);
        assert_eq!(all(br#"{"a":"}\"{"}{"#), [r#"{"a":"}\"{"}"#]);
        assert_eq!(all(b"]] } junk {}"), ["{}"]);
    }

    #[test]
    fn a_long_message_is_cut() {
        let mut bytes = vec![b'{'];
        bytes.extend(vec![b' '; MAX_MESSAGE + 10]);
        bytes.extend(b"}{}");
        let frames = Frames::default().push(&bytes);
        assert_eq!(frames.len(), 2);
        assert!(!frames[0].whole && frames[0].bytes.len() == MAX_MESSAGE);
        assert!(frames[1].whole);
    }

    proptest! {
        #[test]
        fn however_it_arrives(text in "[\\[\\]{}\"\\\\ a\n]{0,80}", cut in 0usize..80) {
            let bytes = text.as_bytes();
            let (head, tail) = bytes.split_at(cut.min(bytes.len()));
            let mut frames = Frames::default();
            let mut parts = frames.push(head);
            parts.extend(frames.push(tail));
            prop_assert_eq!(parts, Frames::default().push(bytes));
        }
    }
}
