//! Inputs and outputs of transactions. Each input must be signed with the secret of the key that it is given here.

use bitcoin::secp256k1::XOnlyPublicKey;
use federation_core::encoding::encode;
use federation_core::{Input, ModuleId, Output};

use crate::message::Cancellation;
use crate::{Contract, ContractId, LightningInput, LightningOutput, Preimage};

fn input(module: ModuleId, key: XOnlyPublicKey, body: &LightningInput) -> Input {
    Input { module, key, body: encode(body) }
}

/// Funds a contract with the amount that it names.
pub fn fund(module: ModuleId, contract: Contract) -> Output {
    Output { module, body: encode(&LightningOutput(contract)) }
}

/// The gateway takes an outgoing contract; `key` is the gateway's.
pub fn claim_outgoing(
    module: ModuleId,
    contract: ContractId,
    key: XOnlyPublicKey,
    preimage: Preimage,
) -> Input {
    input(module, key, &LightningInput::ClaimOutgoing { contract, preimage })
}

/// The user takes an outgoing contract back; `key` is the user's. Without a cancellation from the expiry height on only.
pub fn refund_outgoing(
    module: ModuleId,
    contract: ContractId,
    key: XOnlyPublicKey,
    cancellation: Option<Cancellation>,
) -> Input {
    input(module, key, &LightningInput::RefundOutgoing { contract, cancellation })
}

/// The user takes an incoming contract whose preimage was right; `key` is the user's.
pub fn claim_incoming(module: ModuleId, contract: ContractId, key: XOnlyPublicKey) -> Input {
    input(module, key, &LightningInput::ClaimIncoming { contract })
}

/// The gateway takes back an incoming contract whose preimage was wrong; `key` is the gateway's.
pub fn reclaim_incoming(module: ModuleId, contract: ContractId, key: XOnlyPublicKey) -> Input {
    input(module, key, &LightningInput::ReclaimIncoming { contract })
}
