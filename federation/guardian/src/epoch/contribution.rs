//! What a guardian proposes for an epoch.

use borsh::io::{Error, ErrorKind, Read, Result as IoResult};
use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::ConsensusItem;
use federation_core::encoding::{DecodeError, decode, encode};
use federation_core::module::MAX_ITEM;
use federation_core::transaction::MAX_TRANSACTION_SIZE;

/// The largest contribution, in bytes.
pub const MAX_CONTRIBUTION: usize = 1 << 20;
/// How much of a contribution may be transactions, with four bytes of length each; the rest is for the modules' items.
pub const MAX_TRANSACTIONS: usize = MAX_CONTRIBUTION / 2;
/// The most transactions of one contribution: the smallest that there can be fill [`MAX_TRANSACTIONS`] with about so many.
pub const MAX_TRANSACTION_COUNT: usize = 4096;
/// The most items of one contribution. A module says everything of one kind in one item, or a few dozen.
pub const MAX_ITEM_COUNT: usize = 256;

/// The modules' items and some transactions of the pool.
///
/// What is over a limit does not decode: a contribution costs its readers bounded work, whoever made it.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Contribution {
    /// What the guardian says for itself; at most [`MAX_ITEM_COUNT`].
    #[borsh(deserialize_with = "items")]
    pub items: Vec<ConsensusItem>,
    /// Encoded transactions; at most [`MAX_TRANSACTION_COUNT`] of [`MAX_TRANSACTIONS`] bytes.
    #[borsh(deserialize_with = "transactions")]
    pub transactions: Vec<Vec<u8>>,
}

impl Contribution {
    /// The bytes for consensus.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a guardian's contribution.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode(bytes, MAX_CONTRIBUTION)
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty() && self.transactions.is_empty()
    }
}

fn items<R: Read>(reader: &mut R) -> IoResult<Vec<ConsensusItem>> {
    let items = bounded::<ConsensusItem, R>(reader, MAX_ITEM_COUNT)?;
    if items.iter().any(|item| item.body.len() > MAX_ITEM) { Err(over("an item's bytes")) } else { Ok(items) }
}

fn transactions<R: Read>(reader: &mut R) -> IoResult<Vec<Vec<u8>>> {
    let transactions = bounded::<Vec<u8>, R>(reader, MAX_TRANSACTION_COUNT)?;
    let size =
        transactions.iter().fold(0, |sum: usize, bytes| sum.saturating_add(bytes.len()).saturating_add(4));
    if size > MAX_TRANSACTIONS || transactions.iter().any(|bytes| bytes.len() > MAX_TRANSACTION_SIZE) {
        return Err(over("the transactions' bytes"));
    }
    Ok(transactions)
}

/// A list of at most `most`: the count is looked at before anything is read.
fn bounded<T: BorshDeserialize, R: Read>(reader: &mut R, most: usize) -> IoResult<Vec<T>> {
    let count = u32::deserialize_reader(reader)?;
    if usize::try_from(count).map_or(true, |count| count > most) {
        return Err(over("the number of parts"));
    }
    (0..count).map(|_| T::deserialize_reader(reader)).collect()
}

fn over(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("{what}: over the limit"))
}

#[cfg(test)]
mod tests {
    use federation_core::ModuleId;
    use proptest::prelude::*;

    use super::*;

    fn item(size: usize) -> ConsensusItem {
        ConsensusItem { module: ModuleId(1), body: vec![1; size] }
    }

    #[test]
    fn what_is_over_a_limit_does_not_decode() {
        let reads = |items: Vec<ConsensusItem>, transactions: Vec<Vec<u8>>| {
            Contribution::from_bytes(&Contribution { items, transactions }.to_bytes()).is_ok()
        };
        assert!(reads(vec![item(0); MAX_ITEM_COUNT], vec![vec![]; MAX_TRANSACTION_COUNT]));
        assert!(!reads(vec![item(0); MAX_ITEM_COUNT + 1], vec![]));
        assert!(!reads(vec![], vec![vec![]; MAX_TRANSACTION_COUNT + 1]));
        assert!(reads(vec![item(MAX_ITEM)], vec![vec![0; MAX_TRANSACTION_SIZE]]));
        assert!(!reads(vec![item(MAX_ITEM + 1)], vec![]));
        assert!(!reads(vec![], vec![vec![0; MAX_TRANSACTION_SIZE + 1]]));
        assert!(!reads(vec![], vec![vec![0; MAX_TRANSACTIONS / 2 - 3]; 2]));
        assert!(reads(vec![], vec![vec![0; MAX_TRANSACTIONS / 2 - 4]; 2]));
    }

    #[test]
    fn a_false_count_costs_nothing() {
        let mut bytes = vec![0; MAX_CONTRIBUTION];
        bytes[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(Contribution::from_bytes(&bytes).is_err());
        // A million empty items, as far as a megabyte goes.
        bytes[..4].copy_from_slice(&170_000u32.to_le_bytes());
        assert!(Contribution::from_bytes(&bytes).is_err());
    }

    fn contribution() -> impl Strategy<Value = Contribution> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..60);
        let item =
            (any::<u16>(), bytes()).prop_map(|(id, body)| ConsensusItem { module: ModuleId(id), body });
        (proptest::collection::vec(item, 0..5), proptest::collection::vec(bytes(), 0..5))
            .prop_map(|(items, transactions)| Contribution { items, transactions })
    }

    proptest! {
        #[test]
        fn there_is_one_encoding(contribution in contribution()) {
            prop_assert_eq!(Contribution::from_bytes(&contribution.to_bytes()).unwrap(), contribution);
        }

        #[test]
        fn garbage_is_refused_or_canonical(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(contribution) = Contribution::from_bytes(&bytes) {
                prop_assert_eq!(contribution.to_bytes(), bytes);
            }
        }

        #[test]
        fn damage_never_panics(contribution in contribution(), place: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
            let mut bytes = contribution.to_bytes();
            let place = place.index(bytes.len());
            bytes[place] = byte;
            if let Ok(contribution) = Contribution::from_bytes(&bytes) {
                prop_assert_eq!(contribution.to_bytes(), bytes.clone());
            }
            bytes.truncate(cut.index(bytes.len()));
            if let Ok(contribution) = Contribution::from_bytes(&bytes) {
                prop_assert_eq!(contribution.to_bytes(), bytes);
            }
        }
    }
}
