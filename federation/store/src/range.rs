//! The bounds of a prefix scan, as byte strings that every engine can compare.

/// The smallest key of a scan of `prefix` behind `after`.
pub fn lower(prefix: &[u8], after: Option<&[u8]>) -> Vec<u8> {
    match after {
        // The next byte string in order is the same with a zero byte behind it.
        Some(after) if after >= prefix => [after, &[0]].concat(),
        _ => prefix.to_vec(),
    }
}

/// The smallest byte string above all that start with `prefix`; `None` if there is no end.
pub fn upper(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bounds_hold_exactly_the_wanted_keys(
            prefix in proptest::collection::vec(prop_oneof![Just(0u8), Just(7), Just(255)], 0..4),
            after in proptest::option::of(proptest::collection::vec(prop_oneof![Just(0u8), Just(7), Just(255)], 0..4)),
            key in proptest::collection::vec(prop_oneof![Just(0u8), Just(7), Just(255)], 0..5),
        ) {
            let wanted = key.starts_with(&prefix) && after.as_ref().is_none_or(|after| key > *after);
            let within = key >= lower(&prefix, after.as_deref()) && upper(&prefix).is_none_or(|end| key < end);
            prop_assert_eq!(wanted, within);
        }
    }
}
