//! Finds `id` and `method` of a message that may be no valid JSON at all.
//!
//! An error answer needs the id of its request, also of one that serde_json refuses. lightningd writes
//! both fields before the user's parameters, so that nothing in these can stand in the way.

/// The raw values of a message's own fields; strings with their quotes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Fields<'a> {
    /// The request's id. A message without one is a notification.
    pub id: Option<&'a [u8]>,
    /// What is called.
    pub method: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    /// Walks over the message's top level. The first occurrence of a field counts.
    pub fn of(message: &'a [u8]) -> Self {
        let mut found = Self::default();
        let mut rest = message.strip_prefix(b"{").unwrap_or(message);
        while let Some((key, after)) = value(rest) {
            let Some(after) = skip(after, b':') else { break };
            let Some((field, after)) = value(after) else { break };
            match key {
                b"\"id\"" => found.id = found.id.or(Some(field)),
                b"\"method\"" => found.method = found.method.or(Some(field)),
                _ => {}
            }
            let Some(after) = skip(after, b',') else { break };
            rest = after;
        }
        found
    }

    /// The method's name without quotes.
    pub fn method_name(&self) -> Option<&'a [u8]> {
        self.method?.strip_prefix(b"\"")?.strip_suffix(b"\"")
    }
}

/// What follows a given character, white space before it left out.
fn skip(bytes: &[u8], wanted: u8) -> Option<&[u8]> {
    bytes.trim_ascii_start().strip_prefix(&[wanted])
}

/// The next value and what follows it. `None` at the end of the object and of the bytes.
fn value(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let bytes = bytes.trim_ascii_start();
    let mut depth = 0usize;
    let (mut in_string, mut escaped) = (false, false);
    for (at, &byte) in bytes.iter().enumerate() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            if !in_string && depth == 0 {
                return bytes.split_at_checked(at + 1);
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth > 1 => depth -= 1,
            b'}' | b']' if depth == 1 => return bytes.split_at_checked(at + 1),
            b',' | b':' | b'}' | b']' if depth == 0 => {
                let (value, rest) = bytes.split_at_checked(at)?;
                let value = value.trim_ascii_end();
                return (!value.is_empty()).then_some((value, rest));
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn of_good_and_bad_messages() {
        let fields = Fields::of(br#"{ "jsonrpc":"2.0", "method" : "a" ,"id":"x/\"1","params":["\ud800"}"#);
        assert_eq!(fields.method_name(), Some(&b"a"[..]));
        assert_eq!(fields.id, Some(&br#""x/\"1""#[..]));
        assert_eq!(Fields::of(br#"{"params":{"id":3,"method":"b"},"id":17}"#).id, Some(&b"17"[..]));
        assert_eq!(Fields::of(b"{}"), Fields::default());
        assert_eq!(Fields::of(b"{\"id\":"), Fields::default());
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            Fields::of(&bytes);
        }

        #[test]
        fn never_panics_on_json_like(text in "[\\[\\]{}\":,\\\\ aid1]{0,80}") {
            Fields::of(text.as_bytes());
        }
    }
}
