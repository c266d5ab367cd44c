//! Parameters: an array in the usage's order, or an object by name.

use serde_json::{Map, Value};

use super::Failure;

/// Checked names; values are checked as they are taken.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Params {
    values: Map<String, Value>,
}

impl Params {
    /// Reads parameters by a usage such as `name [federation]`. Nulls count as left out.
    pub fn read(usage: &str, params: Value) -> Result<Self, Failure> {
        let names: Vec<&str> = usage.split_whitespace().map(|name| name.trim_matches(['[', ']'])).collect();
        let mut values = match params {
            Value::Object(values) => values,
            Value::Array(list) if list.len() > names.len() => {
                return Err(Failure::params(format!("too many parameters: expected {}", shown(usage))));
            }
            Value::Array(list) => names.iter().map(|name| (*name).to_owned()).zip(list).collect(),
            Value::Null => Map::new(),
            _ => return Err(Failure::params("parameters must be an array or an object")),
        };
        values.retain(|_, value| !value.is_null());
        if let Some(name) = values.keys().find(|name| !names.contains(&name.as_str())) {
            let name: String = name.chars().take(40).collect();
            return Err(Failure::params(format!("unknown parameter '{name}': expected {}", shown(usage))));
        }
        let required = usage.split_whitespace().filter(|name| !name.starts_with('['));
        for name in required {
            if !values.contains_key(name) {
                return Err(Failure::params(format!("missing parameter '{name}'")));
            }
        }
        Ok(Self { values })
    }

    /// A text. A number is taken as its digits: lightning-cli sends `name=21` as one.
    pub fn text(&self, name: &str) -> Result<Option<String>, Failure> {
        match self.values.get(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.len() <= MAX_TEXT => Ok(Some(text.clone())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(Value::String(_)) => Err(Failure::params(format!("'{name}' is too long"))),
            Some(_) => Err(Failure::params(format!("'{name}' must be a string"))),
        }
    }

    /// A text that must be there.
    pub fn required_text(&self, name: &str) -> Result<String, Failure> {
        self.text(name)?.ok_or_else(|| Failure::params(format!("missing parameter '{name}'")))
    }

    /// A whole number, or its digits.
    pub fn number<T: TryFrom<u64>>(&self, name: &str) -> Result<Option<T>, Failure> {
        let Some(value) = self.values.get(name) else { return Ok(None) };
        let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
        let number = number.and_then(|number| T::try_from(number).ok());
        number
            .map(Some)
            .ok_or_else(|| Failure::params(format!("'{name}' must be a whole number within its limits")))
    }
}

impl Params {
    /// An amount as lightningd takes it: a number of msat, or a text that ends in `msat` or `sat`. It must be whole
    /// satoshi, which is what is returned.
    pub fn whole_sat(&self, name: &str) -> Result<Option<u64>, Failure> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let msat = match text.strip_suffix("msat") {
            Some(number) => number.parse::<u64>().ok(),
            None => match text.strip_suffix("sat") {
                Some(number) => number.parse::<u64>().ok().and_then(|sat| sat.checked_mul(1000)),
                None => text.parse().ok(),
            },
        };
        match msat {
            Some(msat) if msat > 0 && msat.is_multiple_of(1000) => Ok(Some(msat / 1000)),
            _ => Err(Failure::params(format!(
                "'{name}' must be whole satoshi, such as 100000sat or 100000000msat"
            ))),
        }
    }
}

/// No parameter of ours is longer, in bytes.
const MAX_TEXT: usize = 1 << 16;

fn shown(usage: &str) -> &str {
    if usage.is_empty() { "none" } else { usage }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const USAGE: &str = "name [federation] [guardians]";

    #[test]
    fn both_forms() {
        for params in [json!(["a", null, 4]), json!({ "name": "a", "guardians": "4" })] {
            let params = Params::read(USAGE, params).unwrap();
            assert_eq!(params.required_text("name").unwrap(), "a");
            assert_eq!(params.text("federation").unwrap(), None);
            assert_eq!(params.number::<u16>("guardians").unwrap(), Some(4));
        }
    }

    #[test]
    fn each_error_is_one_of_parameters() {
        let code = |params: Value| Params::read(USAGE, params).unwrap_err().code();
        for params in [
            json!([]),
            json!({}),
            json!({ "name": null }),
            json!(["a", 1, 2, 3]),
            json!({ "x": 1 }),
            json!(7),
        ] {
            assert_eq!(code(params), -32602);
        }
        let params = Params::read(USAGE, json!({ "name": {}, "guardians": -1 })).unwrap();
        assert!(params.text("name").is_err() && params.number::<u16>("guardians").is_err());
        let params = Params::read(USAGE, json!(["n", "x".repeat(MAX_TEXT + 1), 70_000])).unwrap();
        assert!(params.text("federation").is_err() && params.number::<u16>("guardians").is_err());
        assert!(Params::read("", Value::Null).is_ok());
    }

    #[test]
    fn amounts() {
        let sat = |value: Value| {
            Params::read("a", json!([value])).unwrap().whole_sat("a").map_err(|error| error.code())
        };
        for value in [json!(5000), json!("5000"), json!("5000msat"), json!("5sat")] {
            assert_eq!(sat(value), Ok(Some(5)));
        }
        for value in
            [json!(5001), json!(0), json!(-1), json!("all"), json!("18446744073709551615sat"), json!({})]
        {
            assert_eq!(sat(value), Err(-32602));
        }
    }

    proptest! {
        #[test]
        fn total(value in crate::hook::request::tests::any_json()) {
            if let Ok(params) = Params::read(USAGE, value) {
                let _ = (params.text("name"), params.whole_sat("name"), params.number::<u16>("name"));
            }
        }
    }
}
