//! Small parts of the committed state that were read as a whole: all that isn't in them is known not to be there.

use std::collections::BTreeMap;
use std::ops::Bound;

use federation_core::db::{Changes, Pair};

use crate::range;

/// The most parts that are remembered, and the most pairs and bytes of one.
const PARTS: usize = 32;
const PAIRS: usize = 1024;
const BYTES: usize = 1 << 18;

/// Keys and values.
type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

/// Parts by their prefixes. A batch meets a few of them, again and again.
#[derive(Default)]
pub struct Whole(Vec<(Vec<u8>, Pairs)>);

impl Whole {
    /// Remembers all that there is under a prefix, if that is little and there is room.
    pub fn remember(&mut self, prefix: &[u8], pairs: &[Pair]) {
        if self.0.len() < PARTS && little(pairs) && self.part(prefix).is_none() {
            self.0.push((prefix.to_vec(), pairs.iter().cloned().collect()));
        }
    }

    /// The same, and the oldest part goes if there is no room.
    pub fn remember_latest(&mut self, prefix: &[u8], pairs: &[Pair]) {
        if self.0.len() >= PARTS && little(pairs) && self.part(prefix).is_none() {
            self.0.remove(0);
        }
        self.remember(prefix, pairs);
    }

    /// Takes out the parts that are about to change, and gives them as they will be.
    pub fn take_changing(&mut self, changes: &Changes) -> Self {
        let of = |prefix: &[u8]| {
            let from = changes.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded));
            let prefix = prefix.to_vec();
            from.take_while(move |(key, _)| key.starts_with(&prefix))
        };
        let (mut changing, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.0).into_iter().partition(|(prefix, _)| of(prefix).next().is_some());
        self.0 = others;
        for (prefix, pairs) in &mut changing {
            for (key, change) in of(prefix) {
                match change {
                    Some(value) => pairs.insert(key.clone(), value.clone()),
                    None => pairs.remove(key),
                };
            }
        }
        Self(changing)
    }

    /// Puts them back.
    pub fn put_back(&mut self, parts: Self) {
        for (prefix, pairs) in parts.0 {
            let pairs: Vec<Pair> = pairs.into_iter().collect();
            self.remember(&prefix, &pairs);
        }
    }

    fn part(&self, key: &[u8]) -> Option<&Pairs> {
        self.0.iter().find(|(prefix, _)| key.starts_with(prefix)).map(|(_, pairs)| pairs)
    }

    /// The value of a key, if it is in such a part.
    pub fn get(&self, key: &[u8]) -> Option<Option<Vec<u8>>> {
        self.part(key).map(|pairs| pairs.get(key).cloned())
    }

    /// What a scan of the committed state gives, if it is in such a part.
    pub fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Option<Vec<Pair>> {
        let lower = range::lower(prefix, after);
        let pairs =
            self.part(prefix)?.range::<[u8], _>((Bound::Included(lower.as_slice()), Bound::Unbounded));
        let pairs = pairs.take_while(|(key, _)| key.starts_with(prefix)).take(limit);
        Some(pairs.map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

fn little(pairs: &[Pair]) -> bool {
    let sizes = pairs.iter().map(|(key, value)| key.len().saturating_add(value.len()));
    pairs.len() <= PAIRS && sizes.fold(0, usize::saturating_add) <= BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut whole = Whole::default();
        let pairs = |count: usize, size: usize| -> Vec<Pair> {
            (0..count).map(|n| ((n as u32).to_be_bytes().to_vec(), vec![0; size])).collect()
        };
        whole.remember(&[1], &pairs(PAIRS + 1, 0));
        whole.remember(&[2], &pairs(2, BYTES / 2));
        assert!(whole.0.is_empty());
        for prefix in 0..100 {
            whole.remember(&[prefix], &pairs(1, 1));
            whole.remember(&[prefix, 1], &[]);
        }
        assert_eq!(whole.0.len(), PARTS);
        whole.remember_latest(&[200], &pairs(PAIRS + 1, 0));
        assert!(whole.scan(&[0], None, 1).is_some(), "what is too large makes nothing go");
        whole.remember_latest(&[200], &[]);
        assert_eq!(whole.0.len(), PARTS);
        assert!(whole.scan(&[0], None, 1).is_none() && whole.scan(&[200], None, 1).is_some());
    }
}
