//! Decides what becomes of a message from lightningd.

use std::collections::BTreeSet;

use serde_json::Value;

use super::fields::Fields;
use super::frames::Frame;

/// JSON-RPC 2.0: the request itself is wrong.
pub const INVALID_REQUEST: i32 = -32600;
/// The hook that this crate answers itself.
pub const HTLC_ACCEPTED: &str = "htlc_accepted";

/// What cln-plugin has been told to handle. Anything else would end it.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// RPC commands.
    pub methods: BTreeSet<String>,
    /// Notifications that are subscribed to.
    pub notifications: BTreeSet<String>,
}

/// What becomes of a message.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// For the HTLC hook: the raw id to answer to, and the parameters if they can be read.
    Hook {
        /// The request's id, as lightningd wrote it.
        id: Vec<u8>,
        /// The hook's parameters.
        params: Option<Value>,
    },
    /// For cln-plugin, as one line.
    Pass(Vec<u8>),
    /// Refused: this answer goes back.
    Answer(Vec<u8>),
    /// Dropped: nobody waits for an answer.
    Ignore,
}

/// Checks one message. Total: whatever the bytes are, there is a verdict.
pub fn check(frame: &Frame, known: &Known) -> Verdict {
    let fields = Fields::of(&frame.bytes);
    let parsed = if frame.whole { serde_json::from_slice::<Value>(&frame.bytes).ok() } else { None };
    let id = fields.id.filter(|id| *id != b"null");

    if fields.method_name() == Some(HTLC_ACCEPTED.as_bytes()) {
        let Some(id) = id else { return Verdict::Ignore };
        let params = parsed.and_then(|mut message| message.get_mut("params").map(Value::take));
        return Verdict::Hook { id: id.to_vec(), params };
    }
    let Some(message) = parsed else {
        return match (id, frame.whole) {
            (None, _) => Verdict::Ignore,
            (Some(id), true) => refuse(id, "this request is no valid JSON, or is nested too deeply"),
            (Some(id), false) => refuse(id, "this request is too long"),
        };
    };
    let method = message.get("method").and_then(Value::as_str).unwrap_or_default();
    let has_params = message.get("params").is_some();
    match id {
        None if known.notifications.contains(method) && has_params && message.get("id").is_none() => {
            pass(&message)
        }
        None => Verdict::Ignore,
        // cln-plugin writes the id anew; lightningd ends a plugin whose answer has another spelling of it.
        Some(id) if !same_spelling(id, message.get("id")) => {
            refuse(id, "the id of this request is spelled in a way that cannot be answered")
        }
        Some(id) if !has_params => refuse(id, "this request has no parameters"),
        Some(_) if matches!(method, "getmanifest" | "init") || known.methods.contains(method) => {
            pass(&message)
        }
        Some(id) => refuse(id, "this plugin has no such command"),
    }
}

fn same_spelling(raw: &[u8], parsed: Option<&Value>) -> bool {
    parsed.is_some_and(|id| id.to_string().as_bytes() == raw)
}

/// Written anew, so that it holds no line feed: cln-plugin takes two of them for the end of a message.
fn pass(message: &Value) -> Verdict {
    let mut line = message.to_string().into_bytes();
    line.extend_from_slice(b"\n\n");
    Verdict::Pass(line)
}

fn refuse(id: &[u8], reason: &str) -> Verdict {
    let error = serde_json::json!({ "code": INVALID_REQUEST, "message": reason });
    Verdict::Answer(answer(id, "error", &error))
}

/// An answer with the id as the request had it. `kind` is `result` or `error`.
pub fn answer(id: &[u8], kind: &str, body: &Value) -> Vec<u8> {
    let mut bytes = b"{\"jsonrpc\":\"2.0\",\"id\":".to_vec();
    bytes.extend_from_slice(id);
    bytes.extend_from_slice(format!(",\"{kind}\":{body}}}\n\n").as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn known() -> Known {
        Known { methods: ["fed-status".to_owned()].into(), notifications: ["block_added".to_owned()].into() }
    }

    fn verdict(text: &str) -> Verdict {
        check(&Frame { bytes: text.as_bytes().to_vec(), whole: true }, &known())
    }

    fn refused(text: &str) -> bool {
        let Verdict::Answer(bytes) = verdict(text) else { return false };
        let answer: Value = serde_json::from_slice(&bytes).unwrap();
        answer["error"]["code"] == INVALID_REQUEST && answer["id"] == "i"
    }

    #[test]
    fn good_messages_pass() {
        let text = "{\"id\":\"i\",\"method\":\"fed-status\",\"params\":[\n\n]}";
        let Verdict::Pass(line) = verdict(text) else { panic!("not passed") };
        assert!(line.ends_with(b"}\n\n") && !line[..line.len() - 2].contains(&b'\n'));
        assert!(matches!(verdict(r#"{"method":"block_added","params":{}}"#), Verdict::Pass(_)));
        assert!(matches!(verdict(r#"{"method":"init","id":1,"params":{}}"#), Verdict::Pass(_)));
    }

    #[test]
    fn what_ends_cln_plugin_is_refused() {
        assert!(refused(r#"{"id":"i","method":"fed-status","params":["\ud800"]}"#));
        assert!(refused(r#"{"id":"i","method":"fed-status"}"#));
        assert!(refused(r#"{"id":"i","method":"other","params":{}}"#));
        assert!(refused(r#"{"id":"i","params":{}}"#));
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        assert!(refused(&format!(r#"{{"id":"i","method":"fed-status","params":{deep}}}"#)));
        assert!(matches!(
            verdict(r#"{"id":"\u0041","method":"fed-status","params":{}}"#),
            Verdict::Answer(bytes) if bytes.windows(8).any(|part| part == br#""\u0041""#)
        ));
        assert_eq!(verdict(r#"{"method":"block_added"}"#), Verdict::Ignore);
        assert_eq!(verdict(r#"{"method":"unknown","params":{}}"#), Verdict::Ignore);
        // A null id is neither a request nor a clean notification.
        assert_eq!(verdict(r#"{"id":null,"method":"block_added","params":{}}"#), Verdict::Ignore);
    }

    #[test]
    fn an_unreadable_hook_still_reaches_the_hook() {
        let text = r#"{"id":"h","method":"htlc_accepted","params":{"x":"\ud800"}}"#;
        assert_eq!(verdict(text), Verdict::Hook { id: b"\"h\"".to_vec(), params: None });
        let deep = "[".repeat(300) + &"]".repeat(300);
        let text = format!(r#"{{"id":"h","method":"htlc_accepted","params":{deep}}}"#);
        assert_eq!(verdict(&text), Verdict::Hook { id: b"\"h\"".to_vec(), params: None });
    }

    proptest! {
        #[test]
        fn total(bytes in proptest::collection::vec(any::<u8>(), 0..300), whole: bool) {
            check(&Frame { bytes, whole }, &known());
        }

        #[test]
        fn a_passed_line_is_what_cln_plugin_reads(
            text in "\\{(\"(id|method|params|x)\":(\"(fed-status|init|\\\\u0041)?\"|1|null|\\[\\]),?){0,5}\\}"
        ) {
            if let Verdict::Pass(line) = verdict(&text) {
                let message: Value = serde_json::from_slice(&line).unwrap();
                prop_assert!(message["method"].is_string());
                prop_assert!(message.get("params").is_some());
            }
        }
    }
}
