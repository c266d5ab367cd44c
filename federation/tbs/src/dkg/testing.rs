//! A whole key generation in one process, for tests: no dealer there either.

use std::collections::BTreeMap;

use rand::{CryptoRng, RngCore};

use super::{Dkg, DkgError, DkgFault, DkgOutput, fault};

/// Runs a key generation among `n` guardians in this process; the result has one output a guardian, by index.
///
/// # Errors
/// [`DkgFault::Unknown`] when the numbers are out of range; otherwise none, as all are honest.
pub fn run(n: usize, keys: usize, rng: &mut (impl RngCore + CryptoRng)) -> Result<Vec<DkgOutput>, DkgError> {
    let size = u16::try_from(n).map_err(|_| fault(u16::MAX, DkgFault::Unknown))?;
    let start = |me| Dkg::new(b"testing", me, n, keys, rng).map_err(|_| fault(me, DkgFault::Unknown));
    let states: Vec<_> = (0..size).map(start).collect::<Result<_, _>>()?;

    let sent: BTreeMap<u16, Vec<u8>> = (0..).zip(states.iter().map(Dkg::commitment)).collect();
    let states: Vec<_> = states.into_iter().map(|s| s.round_1(sent.clone())).collect::<Result<_, _>>()?;

    let sent: BTreeMap<u16, Vec<u8>> = (0..).zip(states.iter().map(super::Committed::reveal)).collect();
    let states: Vec<_> = states.into_iter().map(|s| s.round_2(sent.clone())).collect::<Result<_, _>>()?;

    let mut inboxes: Vec<BTreeMap<u16, Vec<u8>>> = vec![BTreeMap::new(); n];
    for (dealer, state) in (0..).zip(&states) {
        for (peer, inbox) in (0..).zip(&mut inboxes) {
            inbox.extend(state.share_for(peer).map(|bytes| (dealer, bytes.to_vec())));
        }
    }
    let outputs: Vec<_> =
        states.into_iter().zip(inboxes).map(|(s, inbox)| s.round_3(inbox)).collect::<Result<_, _>>()?;

    let sent: BTreeMap<u16, Vec<u8>> = (0..).zip(outputs.iter().map(DkgOutput::confirmation)).collect();
    for output in &outputs {
        output.confirm(sent.clone())?;
    }
    Ok(outputs)
}
