//! Combining shares that others have found right, and whose result is compared with theirs: nothing is checked that this
//! comparison covers.

use std::collections::BTreeMap;

use crate::curve::G1;
use crate::error::{EncodingError, TbsError};
use crate::lagrange;

/// Combines the first `threshold` encoded shares, of a note or of a message, without looking whether they are in the subgroup:
/// that is most of what decoding a share costs. Right shares give the bytes that [`combine`](crate::combine) gives; of others
/// may come anything, so the result is for comparisons only. It is not to be signed, multiplied by a secret or handed out
/// before.
///
/// # Errors
/// As [`combine`](crate::combine); [`TbsError::Degenerate`] also where bytes are no point of the curve.
pub fn combine_presumed(
    shares: &BTreeMap<u16, [u8; G1::SIZE]>,
    threshold: usize,
) -> Result<[u8; G1::SIZE], TbsError> {
    let decode = |(guardian, bytes): (&u16, &_)| Ok((*guardian, G1::from_bytes_unchecked(bytes)?));
    let points: Result<Vec<(u16, G1)>, EncodingError> = shares.iter().take(threshold).map(decode).collect();
    let points = points.map_err(|_| TbsError::Degenerate)?;
    let point = lagrange::combine(points.iter().map(|(guardian, point)| (*guardian, point)), threshold)?;
    if point.is_identity() { Err(TbsError::Degenerate) } else { Ok(point.to_bytes()) }
}
